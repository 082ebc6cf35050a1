// The table sorts by its headings and filters by text, by kind of trial and by ranges of its numbers.
(() => {
  const { make } = report;
  const table = document.querySelector("table.students");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headings = [...table.tHead.rows[0].cells];
  const form = document.getElementById("filters");
  const find = document.getElementById("find");
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const valueOf = (row, column) => row.cells[column].dataset.value ?? "";
  const nameOf = (heading) => heading.textContent.replace(/\s+/g, " ").trim();

  // Numbers as numbers, what was not measured last.
  headings.forEach((heading, column) => {
    const control = make("button", { type: "button" }, ...heading.childNodes);
    heading.append(control);
    control.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sorted = [...body.rows].sort((a, b) => {
        const [left, right] = [valueOf(a, column), valueOf(b, column)];
        if (left === "" || right === "") return (left === "") - (right === "");
        const order = isNaN(left) || isNaN(right) ? left.localeCompare(right, "en", { numeric: true }) : left - right;
        return down ? -order : order;
      });
      body.append(...sorted);
    });
  });

  // A range for every column in which all values are numbers, and not all the same.
  const ranges = headings.flatMap((heading, column) => {
    const found = rows.map((row) => valueOf(row, column)).filter((value) => value !== "");
    const numbers = found.map(Number);
    if (!numbers.length || numbers.some(Number.isNaN) || Math.min(...numbers) === Math.max(...numbers)) return [];
    const name = nameOf(heading);
    const limit = (word, bound) => {
      const input = make("input", { type: "number", step: "any", placeholder: Number(bound.toPrecision(3)) });
      input.setAttribute("aria-label", `${name}, ${word}`);
      return input;
    };
    const range = { column, least: limit("at least", Math.min(...numbers)), most: limit("at most", Math.max(...numbers)) };
    form.querySelector(".ranges").append(make("div", {}, make("span", { textContent: name }), range.least, "–", range.most));
    return [range];
  });

  function filter() {
    const wanted = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kinds = new Set([...form.querySelectorAll("[name=kind]:checked")].map((box) => box.value));
    const asked = ranges.filter((range) => range.least.value !== "" || range.most.value !== "");
    let shown = 0;
    for (const row of rows) {
      const inside = asked.every(({ column, least, most }) => {
        const value = valueOf(row, column);
        return value !== "" && (least.value === "" || Number(value) >= Number(least.value)) && (most.value === "" || Number(value) <= Number(most.value));
      });
      row.hidden = !(inside && kinds.has(row.dataset.kind) && wanted.every((word) => words.get(row).includes(word)));
      shown += !row.hidden;
    }
    document.getElementById("count").textContent = `${shown} of ${rows.length} trials shown`;
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  filter();

  // From a point of a plot to its row.
  report.showRow = (number) => {
    const row = document.getElementById(`row-${number}`);
    if (!row) return;
    if (row.hidden) form.reset();
    row.hidden = false;
    row.scrollIntoView({ block: "center" });
    row.classList.remove("marked");
    void row.offsetWidth; // restarts the animation
    row.classList.add("marked");
  };
  document.querySelectorAll("a[href^='#row-']").forEach((link) => link.addEventListener("click", (event) => {
    event.preventDefault();
    report.showRow(link.hash.slice("#row-".length));
  }));
})();
