"use strict";
// What all scripts share, and the theme: system, light or dark, remembered where the browser lets a file remember.
const report = {
  data: JSON.parse(document.getElementById("data").textContent),
  figures: JSON.parse(document.getElementById("figures").textContent),
  touch: window.matchMedia("(pointer: coarse)").matches,
};

// Makes an element with properties and children; text always as text, never as markup.
report.make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
  const themes = ["system", "light", "dark"];
  const remembered = () => { try { return localStorage.getItem("gs-search-theme"); } catch { return null; } };
  const remember = (name) => { try { localStorage.setItem("gs-search-theme", name); } catch { /* a file may be refused storage */ } };
  let theme = themes.includes(remembered()) ? remembered() : "system";
  let printing = false;
  const button = document.getElementById("theme");
  const listeners = [];

  report.isDark = () => !printing && (theme === "system" ? systemDark.matches : theme === "dark");
  report.onTheme = (listener) => listeners.push(listener);

  // Figures come in light colours; no two of them are equal, so that each has one dark counterpart.
  report.coloured = (figure) => {
    let text = JSON.stringify(figure);
    if (report.isDark()) for (const [light, dark] of report.data.palette) text = text.replaceAll(`"${light}"`, `"${dark}"`);
    return JSON.parse(text);
  };
  report.colour = (light) => (report.isDark() ? (report.data.palette.find((pair) => pair[0] === light) ?? [0, light])[1] : light);

  function apply() {
    if (theme === "system") delete root.dataset.theme; else root.dataset.theme = theme;
    button.querySelector("span").textContent = theme;
    listeners.forEach((listener) => listener());
  }
  report.applyTheme = apply;
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    remember(theme);
    apply();
  });
  systemDark.addEventListener("change", apply);
  // Paper is white.
  window.addEventListener("beforeprint", () => { printing = true; apply(); report.drawAll(); });
  window.addEventListener("afterprint", () => { printing = false; apply(); });
})();
