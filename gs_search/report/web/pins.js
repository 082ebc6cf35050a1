// Two pinned trials, A and B: chosen by clicks in the figures or in the list of trials, kept until cleared.
(() => {
  const { data, make } = report;
  const tray = document.getElementById("tray");
  const toolbar = document.querySelector("#chips [role=toolbar]");
  const chips = [...toolbar.querySelectorAll(".chip")];
  let pins = [];
  let focused = null;

  report.pins = () => [...pins];
  report.isPinned = (number) => pins.includes(number);
  // Pins a trial, or takes its pin away; a third one takes the place of the second.
  report.pin = (number) => {
    const added = !pins.includes(number);
    pins = added ? [...pins.slice(0, 1), number] : pins.filter((other) => other !== number);
    update();
    if (added && pins.length === 2) report.compare();
  };

  function update() {
    const names = pins.map((number, index) => make("span", { className: `pin-${"ab"[index]}` }, make("b", { textContent: "AB"[index] }), ` trial ${number}`));
    const hint = pins.length === 1 ? [make("small", { textContent: "pin a second one to compare" })] : [];
    tray.querySelector(".pinned").replaceChildren(...names, ...hint);
    tray.hidden = pins.length === 0;
    document.body.classList.toggle("with-tray", pins.length > 0);
    chips.forEach((chip) => {
      const at = pins.indexOf(Number(chip.dataset.trial));
      chip.setAttribute("aria-pressed", at >= 0);
      if (at >= 0) chip.dataset.pin = "AB"[at]; else delete chip.dataset.pin;
    });
    mark();
    report.showLayers(pins);
  }
  let marking = 0;
  function mark() {
    cancelAnimationFrame(marking); // of quick steps through the list only the last one counts
    marking = requestAnimationFrame(() => {
      const rings = pins.map((number, index) => [number, "AB"[index]]);
      if (focused !== null && !pins.includes(focused)) rings.push([focused, ""]);
      report.mark(rings);
    });
  }
  document.getElementById("unpin").addEventListener("click", () => { pins = []; update(); toolbar.querySelector("[tabindex='0']")?.focus({ preventScroll: true }); });
  document.getElementById("compare-open").addEventListener("click", () => report.compare());

  // The list: one stop of the Tab key, arrows inside, as a toolbar has it.
  function go(index) {
    const chip = chips[Math.min(Math.max(index, 0), chips.length - 1)];
    chips.forEach((other) => { other.tabIndex = other === chip ? 0 : -1; });
    chip.focus();
  }
  toolbar.addEventListener("keydown", (event) => {
    const at = chips.indexOf(document.activeElement);
    const steps = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: chips.length - 1 };
    if (at < 0 || !(event.key in steps)) return;
    event.preventDefault();
    go(steps[event.key]);
  });
  const numberOf = (event) => Number(event.target.closest(".chip")?.dataset.trial ?? NaN);
  toolbar.addEventListener("click", (event) => {
    const number = numberOf(event);
    if (!data.trials[number]) return;
    report.hideCard();
    report.pin(number);
  });
  const show = (event) => {
    const chip = event.target.closest(".chip");
    if (!chip) return;
    focused = numberOf(event);
    const box = chip.getBoundingClientRect();
    if (!report.touch) report.showCard(focused, box.right, box.top);
    mark();
  };
  const hide = () => { focused = null; report.hideCard(); mark(); };
  toolbar.addEventListener("focusin", (event) => { if (event.target.matches(":focus-visible")) show(event); });
  toolbar.addEventListener("focusout", hide);
  if (!report.touch) {
    toolbar.addEventListener("mouseover", show);
    toolbar.addEventListener("mouseleave", hide);
  }
})();
