// Two students side by side, each with a line to drag between itself and the teacher; the lines move together.
(() => {
  const { data, make } = report;
  const dialog = document.getElementById("compare");
  const sides = dialog.querySelector(".sides");
  const choose = dialog.querySelector(".choose");
  const under = document.getElementById("under");
  const GUTTER = 2; // pixels between the pictures of a row
  let column = 0;
  let share = 50;

  // Shows one picture of a row in a box, as a part of a background.
  function crop(box, source, index) {
    const { side, columns } = data;
    const width = columns * (side + GUTTER) - GUTTER;
    box.style.backgroundImage = `url("${source}")`;
    box.style.backgroundSize = `${(100 * width) / side}% 100%`;
    box.style.backgroundPosition = `${columns > 1 ? (100 * index * (side + GUTTER)) / (width - side) : 0}% 0`;
  }

  function wipe(number, letter) {
    const source = report.pictures(number);
    if (!source) return make("p", { className: "warning", textContent: `No pictures of trial ${number} in this file; the run folder has them.` });
    const back = make("div", { className: "under" });
    const front = make("div", { className: "over" });
    const range = make("input", { type: "range", min: 0, max: 100, step: 2, value: share });
    range.setAttribute("aria-label", `Trial ${number}: how far the line is to the right, in percent`);
    range.addEventListener("input", () => { share = Number(range.value); slide(); });
    const box = make("div", { className: `wipe ${letter}` }, back, front, make("span", { className: "line" }), range,
      make("span", { className: "left" }), make("span", { className: "right", textContent: `trial ${number}` }));
    box.dataset.trial = number;
    return box;
  }
  function slide() {
    sides.querySelectorAll(".wipe").forEach((box) => {
      box.style.setProperty("--share", `${share}%`);
      box.querySelector("input").value = share;
      box.querySelector("input").setAttribute("aria-valuetext", `${share} % ${under.value}, ${100 - share} % student`);
    });
  }
  function paint() {
    sides.querySelectorAll(".wipe").forEach((box) => {
      crop(box.querySelector(".under"), report.anchor(under.value), column);
      crop(box.querySelector(".over"), report.pictures(box.dataset.trial), column);
      box.querySelector(".left").textContent = under.value;
    });
    slide();
  }

  function heading(number, letter) {
    const trial = data.trials[number];
    const row = make("a", { href: `#row-${number}`, textContent: `trial ${number}` });
    row.addEventListener("click", () => { dialog.close(); report.showRow(number); });
    const title = make("p", { className: "title" }, make("b", { className: `pin-${letter}`, textContent: letter.toUpperCase() }), " ", row, ` ${trial.words}`);
    if (trial.knee) title.append(" ", make("span", { className: "knee", textContent: "knee" }));
    return title;
  }

  // One line a number: the teacher's, A's, B's, and what B is to A.
  function against(numbers) {
    const { fixed, signed, digits } = report;
    const [a, b] = numbers.map((number) => data.trials[number]);
    const percent = (left, right) => {
      if (!left || !right) return "";
      return right >= 2 * left ? `${fixed(right / left)}×` : `${signed(100 * (right / left - 1), 0)} %`;
    };
    const members = a.kind === "front" && b?.kind === "front";
    const tied = () => (members ? a.ties.includes(numbers[1]) : Math.abs(b.fid - a.fid) < data.tie);
    const fids = () => `${signed(b.fid - a.fid)}${tied() ? ", a tie" : ""}`;
    const rows = [
      ["FID", fixed(data.teacher.fid), (trial) => fixed(trial.fid), fids],
      ["GFLOPs", digits(data.teacher.gflops), (trial) => digits(trial.gflops), () => percent(a.gflops, b.gflops)],
      ["MB", digits(data.teacher.mb), (trial) => digits(trial.mb), () => percent(a.mb, b.mb)],
      ["KID ×10⁻³", data.teacher.kid === null ? "–" : fixed(1000 * data.teacher.kid), (trial) => (trial.kid === null ? "–" : fixed(1000 * trial.kid)), () => ""],
      ["dB to the teacher", "–", (trial) => fixed(trial.psnr), () => (a.psnr && b.psnr ? signed(b.psnr - a.psnr) : "")],
      ["ms a picture", "–", (trial) => fixed(trial.ms), () => percent(a.ms, b.ms)],
      ["bits of weights", "32", (trial) => trial.weights, () => ""],
      ["bits of inputs", "32", (trial) => trial.inputs, () => ""],
      ["channels kept", "100 %", (trial) => (trial.widths ? `${fixed(100 * trial.widths, 0)} %` : "–"), () => ""],
    ];
    const cellOf = (text) => make("td", { textContent: text });
    const head = ["", "teacher", ...numbers.map((number, index) => `${"AB"[index]}: trial ${number}`), ...(b ? ["B against A"] : [])];
    const body = rows.map(([name, teacher, tell, differ]) => make("tr", {}, make("th", { scope: "row", textContent: name }), cellOf(teacher),
      ...[a, b].filter(Boolean).map((trial) => cellOf(tell(trial))), ...(b ? [cellOf(differ())] : [])));
    const top = make("tr", {}, ...head.map((text) => make("th", { scope: "col", textContent: text })));
    return [make("thead", {}, top), make("tbody", {}, ...body)];
  }
  function thumbnails() {
    if (choose.querySelector("input")) return;
    for (let index = 0; index < data.columns; index += 1) {
      const radio = make("input", { type: "radio", name: "picture", value: index, checked: index === column });
      radio.setAttribute("aria-label", `Picture ${index + 1} of ${data.columns}`);
      radio.addEventListener("change", () => { column = index; paint(); });
      const picture = make("span", { className: "thumb" });
      crop(picture, report.anchor("input"), index);
      choose.append(make("label", {}, radio, picture));
    }
  }

  report.compare = () => {
    const numbers = report.pins();
    if (!numbers.length) return;
    report.hideCard();
    sides.replaceChildren(...numbers.map((number, index) => make("div", {}, heading(number, "ab"[index]), wipe(number, "ab"[index]))));
    dialog.querySelector(".against").replaceChildren(...against(numbers));
    choose.hidden = !data.columns;
    if (data.columns) { thumbnails(); paint(); }
    if (!dialog.open) dialog.showModal();
    (sides.querySelector("input") ?? dialog.querySelector("button")).focus({ preventScroll: true });
    dialog.scrollTop = 0;
  };
  under.addEventListener("change", paint);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
})();
