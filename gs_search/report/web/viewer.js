// Enlarged samples: input, teacher and student in one scrolling box, so that columns stay together.
(() => {
  const { make } = report;
  const viewer = document.getElementById("viewer");
  document.querySelectorAll("button.open").forEach((opener) => {
    opener.addEventListener("click", () => {
      viewer.querySelector("h3").textContent = opener.dataset.title;
      const sources = [["input", report.anchor("input")], ["teacher", report.anchor("teacher")], ["student", opener.querySelector("img").src]];
      viewer.querySelector(".rows").replaceChildren(...sources.flatMap(([name, source]) => [
        make("p", { textContent: name }),
        make("img", { src: source, alt: `${name} pictures` }),
      ]));
      viewer.showModal();
    });
  });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
})();
