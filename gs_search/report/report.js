"use strict";
// Draws the figures in the theme that is on, sorts the table, enlarges sample pictures. Loads nothing.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const root = document.documentElement;
  const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const drawn = new Set();

  // Theme: system, light or dark; remembered where the browser lets a file remember.
  const themes = ["system", "light", "dark"];
  const remembered = () => { try { return localStorage.getItem("gs-search-theme"); } catch { return null; } };
  const remember = (name) => { try { localStorage.setItem("gs-search-theme", name); } catch { /* a file may be refused storage */ } };
  let theme = themes.includes(remembered()) ? remembered() : "system";
  const shade = () => (theme === "system" ? (systemDark.matches ? "dark" : "light") : theme);

  const button = document.getElementById("theme");
  function applyTheme() {
    if (theme === "system") delete root.dataset.theme; else root.dataset.theme = theme;
    button.querySelector("span").textContent = theme;
    drawn.forEach(draw);
  }
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    remember(theme);
    applyTheme();
  });
  systemDark.addEventListener("change", applyTheme);

  // Figures, each when it comes near the window: the three-dimensional one is not cheap on a phone.
  const hasWebGL = () => {
    const canvas = document.createElement("canvas");
    return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
  };
  function draw(id) {
    const box = document.getElementById(id);
    if (id === "front-space" && !hasWebGL()) {
      box.innerHTML = '<p class="warning">This browser draws no WebGL, so the turning view is left out. The plots above hold the same points.</p>';
      box.style.height = "auto";
      return;
    }
    const figure = structuredClone(figures[id][shade()]);
    figure.layout.showlegend = false; // the page has one legend for all
    if (touch) figure.layout.dragmode = id === "front-space" ? "orbit" : false; // a swipe scrolls the page
    if (box.clientWidth < 500) {
      const { margin, scene } = figure.layout;
      if (scene) for (const way of "xyz") scene.camera.eye[way] *= 1.45; // room for the numbers of the axes
      else Object.assign(margin, { l: 44, r: 6 });
    }
    const first = !drawn.has(id);
    drawn.add(id);
    Plotly.react(box, figure.data, figure.layout, {
      responsive: true,
      displaylogo: false,
      displayModeBar: touch ? false : "hover",
      modeBarButtons: [id === "front-space"
        ? ["toImage", "orbitRotation", "pan3d", "zoom3d", "resetCameraDefault3d"]
        : ["toImage", "zoom2d", "pan2d", "resetScale2d"]], // Plotly's own list has one that uploads
      toImageButtonOptions: { filename: id, scale: 2 },
    });
    if (!first) return;
    box.on("plotly_click", (event) => show(event.points[0].customdata?.[0]));
    // The wheel scrolls the page over the turning view too; Plotly would zoom, and hold the page even if told not to.
    box.addEventListener("wheel", (event) => event.stopImmediatePropagation(), { capture: true, passive: true });
  }
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(entry.target.id);
    }
  }, { rootMargin: "300px" });
  Object.keys(figures).forEach((id) => watcher.observe(document.getElementById(id)));

  // From a point of a plot to its row.
  const all = document.getElementById("all");
  function show(number) {
    const row = document.getElementById(`row-${number}`);
    if (!row) return;
    if (row.hidden) { all.checked = true; showDominated(); }
    row.scrollIntoView({ block: "center" });
    row.classList.remove("marked");
    void row.offsetWidth; // restarts the animation
    row.classList.add("marked");
  }
  function showDominated() {
    document.querySelectorAll("tr.dominated").forEach((row) => { row.hidden = !all.checked; });
  }
  if (all) {
    all.closest("label").hidden = false;
    all.addEventListener("change", showDominated);
  }

  // Sorting: numbers as numbers, what was not measured last.
  document.querySelectorAll("table.sortable").forEach((table) => {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const control = document.createElement("button");
      control.type = "button";
      control.append(...heading.childNodes);
      heading.append(control);
      control.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => row.cells[column].dataset.value;
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const [left, right] = [key(a), key(b)];
          if (left === "" || right === "") return (left === "") - (right === "");
          const order = isNaN(left) || isNaN(right) ? left.localeCompare(right, "en", { numeric: true }) : left - right;
          return down ? -order : order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  });

  // Enlarged samples: input, teacher and student in one scrolling box, so that columns stay together.
  const viewer = document.getElementById("viewer");
  document.querySelectorAll("button.open").forEach((opener) => {
    opener.addEventListener("click", () => {
      viewer.querySelector("h3").textContent = opener.dataset.title;
      const sources = [
        ["input", document.getElementById("row-input").src],
        ["teacher", document.getElementById("row-teacher").src],
        ["student", opener.querySelector("img").src],
      ];
      viewer.querySelector(".rows").replaceChildren(...sources.flatMap(([name, source]) => {
        const label = document.createElement("p");
        label.textContent = name;
        const picture = document.createElement("img");
        picture.src = source;
        picture.alt = `${name} pictures`;
        return [label, picture];
      }));
      viewer.showModal();
    });
  });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });

  applyTheme();
})();
