// What all pages share: their data, elements made of text alone, a tip that follows the pointer and
// the keyboard's focus, numbers in words, the switch between themes.
"use strict";

function data() {
  return JSON.parse(document.getElementById("data").textContent);
}

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "path", "rect", "circle", "line", "text", "tspan", "title", "polyline", "polygon", "defs", "marker", "clipPath"]);

// An element: el("td.number", {title: "..."}, "text", child, ...). Attributes that begin with "on"
// are functions; children that are no elements become text.
function el(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const made = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  if (classes.length) made.setAttribute("class", classes.join(" "));
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

// Numbers as users read them: 1234567 -> "1.23M". Nothing for what is not known.
function short(value, unit = "") {
  if (value === null || value === undefined) return "";
  const steps = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  for (const [size, letter] of steps) {
    if (Math.abs(value) >= size) return `${trimmed(value / size)}${unit ? " " : ""}${letter}${unit}`;
  }
  return `${trimmed(value)}${unit ? " " : ""}${unit}`;
}

function trimmed(value) {
  const text = Number.isInteger(value) ? String(value) : value.toPrecision(3);
  return text.includes("e") ? String(Number(text)) : text;
}

function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value >= 1) return `${trimmed(value)} s`;
  return value >= 1e-3 ? `${trimmed(value * 1e3)} ms` : `${trimmed(value * 1e6)} us`;
}

// The tip of whatever has a `data-tip`, under the pointer or with the focus.
const tip = el("div.tip", { role: "tooltip", hidden: true });

function showTip(target, x, y) {
  tip.textContent = target.getAttribute("data-tip");
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 4))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 8) : y + 18}px`;
}

function tipped(event) {
  return event.target instanceof Element ? event.target.closest("[data-tip]") : null;
}

document.addEventListener("pointermove", (event) => {
  const target = tipped(event);
  if (target) showTip(target, event.clientX, event.clientY);
  else tip.hidden = true;
});
document.addEventListener("focusin", (event) => {
  const target = tipped(event);
  if (!target || !event.target.matches(":focus-visible")) return;
  const box = target.getBoundingClientRect();
  showTip(target, box.left, box.bottom - 14);
});
document.addEventListener("focusout", () => (tip.hidden = true));
document.addEventListener("keydown", (event) => event.key === "Escape" && (tip.hidden = true));

// A button that goes from the system's theme to the other one and back.
function themeButton() {
  const dark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const button = el("button", { type: "button", id: "theme", onclick: () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    tell();
  } });
  const tell = () => (button.textContent = dark() ? "light" : "dark");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell);
  tell();
  button.setAttribute("aria-label", "switch between the light and the dark theme");
  return button;
}

document.body.append(tip);
