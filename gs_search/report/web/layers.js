// The layers of the pinned students in place of those that are shown at first.
(() => {
  const { data, figures, compared } = report;
  if (!compared.length) { report.showLayers = () => {}; return; }
  const names = ["a", "b"].map((letter) => document.getElementById(`layers-${letter}`));
  const first = names.map((name) => Number(name.textContent.replace(/\D/g, "") || NaN));
  const values = {
    "layers-width": (layer, full) => [layer[0], `${layer[0]} of ${full}`],
    "layers-bits": (layer) => (layer[0] ? [layer[1], `${layer[1]}, inputs ${layer[2]}`] : [0, "gone"]),
  };

  report.showLayers = (pins) => {
    const known = pins.filter((number) => data.trials[number].layers?.length);
    const shown = known.length === 2 ? known : [...known, ...first.filter((number) => !known.includes(number))].slice(0, 2);
    for (const id of compared) {
      [0, 1].forEach((index) => {
        const number = shown[index];
        const trace = figures[id].data[index + 1];
        const told = (data.trials[number]?.layers ?? []).map((layer, at) => values[id](layer, data.layers[at]));
        Object.assign(trace, { x: told.map((pair) => pair[0]), text: told.map((pair) => pair[1]), name: told.length ? `trial ${number}` : "" });
      });
      report.redraw(id);
    }
    names.forEach((name, index) => { name.textContent = Number.isNaN(shown[index] ?? NaN) ? "" : `trial ${shown[index]}`; });
  };
})();
