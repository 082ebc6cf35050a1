// The card of a trial: its numbers and its pictures, at the pointer, at the focus, or at the foot of a phone.
(() => {
  const { data, make } = report;
  const card = document.getElementById("card");
  const SHOWN = 4; // pictures of a row that are large enough on a phone

  report.digits = (value, digits = 3) => (value === null || value === undefined ? "–" : Number(value.toPrecision(digits)).toString());
  report.fixed = (value, digits = 1) => (value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−"));
  report.signed = (value, digits = 1) => (value > 0 ? "+" : "") + report.fixed(value, digits);

  // The row of pictures of a student as an address, or null.
  report.pictures = (number) => document.querySelector(`#picture-${number} .open img`)?.src ?? data.pictures[number] ?? null;
  report.anchor = (name) => document.getElementById(`row-${name}`)?.src ?? null;

  function strip(name, source) {
    const label = make("span", { textContent: name });
    if (!source) return make("div", { className: "row" }, label, make("small", { textContent: "no pictures here" }));
    const image = make("img", { src: source, alt: `${name}’s pictures` });
    return make("div", { className: "row" }, label, image);
  }

  function numbers(trial) {
    const { fixed, signed, digits } = report;
    const lines = [];
    const add = (name, text) => { lines.push(make("dt", { textContent: name }), make("dd", { textContent: text })); };
    if (trial.fid !== undefined) {
      add("FID", `${fixed(trial.fid)} (${signed(trial.fid - data.teacher.fid)} to the teacher)`);
      if (trial.again) add("", trial.again);
    }
    if (trial.gflops) add("GFLOPs", `${digits(trial.gflops)} (${fixed(data.teacher.gflops / trial.gflops)}× fewer)`);
    if (trial.mb) add("MB", `${digits(trial.mb)} (${fixed(data.teacher.mb / trial.mb)}× smaller)`);
    if (trial.psnr) add("dB", `${fixed(trial.psnr)} to the teacher’s pictures`);
    if (trial.ms) add("ms", `${fixed(trial.ms)} a picture, one CPU thread`);
    if (trial.layers?.length) add("bits", `weights ${trial.weights}, inputs ${trial.inputs}`);
    return make("dl", {}, ...lines);
  }

  function fill(number) {
    const trial = data.trials[number];
    const title = make("p", { className: "title" }, make("b", { textContent: `Trial ${number}` }), ` ${trial.words}`);
    if (trial.knee) title.append(" ", make("span", { className: "knee", textContent: "knee" }));
    const parts = [title];
    if (trial.told && trial.kind !== "front") parts.push(make("p", { className: "told", textContent: trial.told }));
    if (trial.message) parts.push(make("p", { className: "told", textContent: trial.message.slice(0, 200) }));
    parts.push(numbers(trial));
    if (trial.fid !== undefined) {
      parts.push(make("div", { className: "strips" },
        strip("input", report.anchor("input")), strip("teacher", report.anchor("teacher")), strip("student", report.pictures(number))));
    }
    card.replaceChildren(...parts);
    card.style.setProperty("--crop", `${SHOWN} / 1`);
    return trial;
  }

  // Shows the card near a point of the window, on the side where there is room.
  report.showCard = (number, x, y) => {
    if (!data.trials[number]) return;
    fill(number);
    card.classList.remove("docked");
    card.hidden = false;
    const { offsetWidth: width, offsetHeight: height } = card;
    const left = x + 18 + width <= innerWidth ? x + 18 : Math.max(8, x - 18 - width);
    const top = Math.min(Math.max(8, y - height / 3), Math.max(8, innerHeight - height - 8));
    Object.assign(card.style, { left: `${left}px`, top: `${top}px` });
  };
  // Shows it at the foot of the window, with buttons: there is no hovering on a phone.
  report.dockCard = (number) => {
    if (!data.trials[number]) return;
    const trial = fill(number);
    const close = make("button", { type: "button", textContent: "Close" });
    close.addEventListener("click", report.hideCard);
    const buttons = make("div", { className: "buttons" }, close);
    if (trial.fid !== undefined) {
      const pinned = report.isPinned(number);
      const pin = make("button", { type: "button", className: "strong", textContent: pinned ? "Unpin" : "Pin" });
      pin.addEventListener("click", () => { report.hideCard(); report.pin(number); });
      buttons.prepend(pin);
    }
    card.append(buttons);
    card.classList.add("docked");
    card.removeAttribute("style");
    card.style.setProperty("--crop", `${SHOWN} / 1`);
    card.hidden = false;
  };
  report.hideCard = () => { card.hidden = true; };
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") report.hideCard(); });
  window.addEventListener("scroll", () => { if (!card.classList.contains("docked")) report.hideCard(); }, { passive: true });

  // Plotly's events of a figure; a tap is a click of a coarse pointer.
  report.onDrawn = (id, box, isFront) => {
    const pointer = { x: 0, y: 0, type: "mouse" };
    const follow = (event) => Object.assign(pointer, { x: event.clientX, y: event.clientY, type: event.pointerType });
    box.addEventListener("pointermove", follow, { capture: true, passive: true });
    box.addEventListener("pointerdown", follow, { capture: true, passive: true });
    const trialOf = (event) => event.points.map((point) => point.customdata?.[0]).find((number) => number !== undefined);
    const choose = (number) => {
      if (number === undefined) return;
      if (pointer.type === "touch") report.dockCard(number);
      else if (data.trials[number].fid !== undefined) report.pin(number);
      else report.showRow(number);
    };
    let hovered;
    if (isFront) {
      box.on("plotly_hover", (event) => {
        hovered = trialOf(event);
        if (hovered !== undefined && pointer.type !== "touch") report.showCard(hovered, pointer.x, pointer.y);
      });
      box.on("plotly_unhover", () => {
        hovered = undefined;
        if (pointer.type !== "touch") report.hideCard();
      });
    }
    if (id === "front-space") clicksInSpace(box, pointer, () => choose(hovered));
    else box.on("plotly_click", (event) => choose(trialOf(event)));
  };

  // The turning view looks for clicks once a frame and misses quick ones; and a finger is over no point before it lands.
  function clicksInSpace(box, pointer, choose) {
    let start = null;
    box.addEventListener("pointerdown", () => { start = { x: pointer.x, y: pointer.y }; }, { capture: true, passive: true });
    box.addEventListener("pointerup", (event) => {
      if (!start || event.button || Math.hypot(event.clientX - start.x, event.clientY - start.y) > 5) return; // it was turned
      setTimeout(choose, event.pointerType === "touch" ? 250 : 0);
    }, { capture: true, passive: true });
  }
})();
