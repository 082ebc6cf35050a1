// Draws each figure when it comes near the window, in the theme that is on, and marks trials in those of the front.
(() => {
  const { figures } = report;
  const drawn = new Set();
  const FRONT = ["front-gflops", "front-size", "front-costs", "front-space"];
  const COMPARED = ["layers-width", "layers-bits"];
  let marked = []; // [number of a trial, label]

  const hasWebGL = () => {
    const canvas = document.createElement("canvas");
    return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
  };

  // Where a figure shows a trial: every point carries the number of its trial.
  function place(id, number) {
    for (const trace of figures[id].data) {
      const index = trace.customdata?.findIndex((entry) => entry?.[0] === number) ?? -1;
      if (index >= 0) return { x: trace.x[index], y: trace.y[index], z: trace.z?.[index] };
    }
    return null;
  }
  function marks(id) {
    const places = marked.map(([number, label]) => ({ ...place(id, number), label })).filter((found) => found.x !== undefined);
    const trace = {
      type: id === "front-space" ? "scatter3d" : "scatter",
      mode: "markers+text",
      x: places.map((found) => found.x),
      y: places.map((found) => found.y),
      text: places.map((found) => (found.label ? `<b>${found.label}</b>` : "")),
      textposition: "bottom center",
      textfont: { size: 13 },
      marker: { symbol: "circle-open", size: id === "front-space" ? 12 : 22, color: report.colour("#1f2328"), line: { width: 2.5 } },
      hoverinfo: "skip",
      ...(id === "front-space" ? {} : { cliponaxis: false }),
    };
    if (id === "front-space") trace.z = places.map((found) => found.z);
    return trace;
  }

  function fit(id, figure, box) {
    const { layout } = figure;
    layout.showlegend = id === "timeline"; // the page has one legend for all others
    if (layout.height) {
      box.style.height = `${layout.height}px`;
      delete layout.height;
    }
    if (report.touch) layout.dragmode = id === "front-space" ? "orbit" : false; // a swipe scrolls the page
    if (box.clientWidth >= 500) return;
    if (layout.scene) for (const way of "xyz") layout.scene.camera.eye[way] *= 1.32; // room for the numbers of the axes
    else Object.assign(layout.margin, { l: 44, r: 6 });
    for (const trace of figure.data) if (trace.marker?.colorbar) Object.assign(trace.marker.colorbar, { orientation: "h", y: -0.28, yanchor: "top", len: 1, title: { text: "FID of the front", side: "bottom" } });
  }

  function draw(id) {
    const box = document.getElementById(id);
    if (id === "front-space" && !hasWebGL()) {
      const words = "This browser draws no WebGL, so the turning view is left out. The plots above hold the same points.";
      box.replaceChildren(report.make("p", { className: "warning", textContent: words }));
      box.style.height = "auto";
      return;
    }
    const first = !drawn.has(id);
    drawn.add(id);
    const figure = report.coloured(figures[id]);
    fit(id, figure, box);
    if (FRONT.includes(id)) figure.data.push(marks(id));
    if (!first && id === "front-space") figure.layout.scene.camera = box.layout.scene.camera; // as it was turned
    Plotly.react(box, figure.data, figure.layout, {
      responsive: true,
      displaylogo: false,
      displayModeBar: report.touch ? false : "hover",
      modeBarButtons: [id === "front-space"
        ? ["toImage", "orbitRotation", "pan3d", "zoom3d", "resetCameraDefault3d"]
        : ["toImage", "zoom2d", "pan2d", "resetScale2d"]], // Plotly's own list has one that uploads
      toImageButtonOptions: { filename: id, scale: 2 },
    });
    if (!first) return;
    // Its buttons show when the pointer is there; four stops of the Tab key a figure would be a long way to the table.
    const skip = () => box.querySelectorAll(".modebar-btn").forEach((button) => { button.tabIndex = -1; });
    box.on("plotly_afterplot", skip);
    skip();
    report.onDrawn?.(id, box, FRONT.includes(id));
    // The wheel scrolls the page over the turning view too; Plotly would zoom, and hold the page even if told not to.
    if (id === "front-space") box.addEventListener("wheel", (event) => event.stopImmediatePropagation(), { capture: true, passive: true });
  }

  // Rings with labels round trials, in all figures of the front.
  report.mark = (wanted) => {
    marked = wanted;
    for (const id of FRONT) {
      if (!drawn.has(id)) continue;
      const box = document.getElementById(id);
      const { x, y, z, text } = marks(id);
      Plotly.restyle(box, z ? { x: [x], y: [y], z: [z], text: [text] } : { x: [x], y: [y], text: [text] }, [box.data.length - 1]);
    }
  };
  // After a change of theme what is far from the window waits until it comes near.
  const MARGIN = 300;
  const stale = new Set();
  const isNear = (id) => {
    const { top, bottom } = document.getElementById(id).getBoundingClientRect();
    return bottom > -MARGIN && top < innerHeight + MARGIN;
  };
  function renew(id) {
    if (drawn.has(id) && !stale.has(id)) return;
    stale.delete(id);
    draw(id);
  }
  report.redraw = (id) => {
    if (!drawn.has(id)) return;
    stale.add(id);
    if (isNear(id)) renew(id);
  };
  report.drawAll = () => Object.keys(figures).forEach(renew);
  report.onTheme(() => drawn.forEach(report.redraw));
  report.compared = COMPARED.filter((id) => id in figures);

  report.watch = () => {
    const watcher = new IntersectionObserver((entries) => {
      entries.filter((entry) => entry.isIntersecting).forEach((entry) => renew(entry.target.id));
    }, { rootMargin: `${MARGIN}px` });
    Object.keys(figures).forEach((id) => watcher.observe(document.getElementById(id)));
  };
})();
