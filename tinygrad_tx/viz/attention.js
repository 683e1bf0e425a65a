// The attention of a run: a sentence whose tokens show what they look at, and every head as a map
// or as arcs. Data: {arcs, layers: [{name, titles, queries, keys, special, weights}]}.
"use strict";

const { layers, arcs: beginsWithArcs } = data();
const LEAST = 0.02; // the least weight that has an arc
const LETTERS = "11px system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif";
const chosen = { layer: 0, head: "all", arcs: beginsWithArcs, token: null };
const pen = document.createElement("canvas").getContext("2d");

function mean(heads) {
  return heads[0].map((row, i) => row.map((_, j) => heads.reduce((sum, head) => sum + head[i][j], 0) / heads.length));
}

// The heads of the chosen layer that are shown: [title, weights].
function shown() {
  const layer = layers[chosen.layer];
  if (chosen.head === "mean") return [[`mean of ${layer.weights.length} heads`, mean(layer.weights)]];
  if (chosen.head === "all") return layer.weights.map((head, i) => [layer.titles[i], head]);
  return [[layer.titles[chosen.head], layer.weights[chosen.head]]];
}

function percent(weight) {
  return `${(100 * weight).toFixed(weight < 0.1 ? 1 : 0)}%`;
}

// What one token looks at most.
function says(token, row, keys) {
  const best = row.map((weight, j) => [weight, j]).sort((a, b) => b[0] - a[0]).slice(0, 5).filter(([weight]) => weight >= 0.005);
  return [`${token} looks at`, ...best.map(([weight, j]) => `${percent(weight)}  ${keys[j]}`)].join("\n");
}

function fit(text, most) {
  pen.font = LETTERS;
  if (pen.measureText(text).width <= most) return text;
  const letters = [...text];
  while (letters.length && pen.measureText(`${letters.join("")}…`).width > most) letters.pop();
  return `${letters.join("")}…`;
}

function widest(tokens, most) {
  pen.font = LETTERS;
  return Math.ceil(Math.max(0, ...tokens.map((token) => pen.measureText(fit(token, most)).width)));
}

// The sentence ------------------------------------------------------------------------------------

function sentence() {
  const layer = layers[chosen.layer];
  const weights = mean(shown().map(([, head]) => head));
  const keys = layer.keys.map((token, j) => el(`span.token${layer.special[1][j] ? ".special" : ""}`, { dir: "auto" }, token));
  const shade = (i) => keys.forEach((key, j) => key.style.setProperty("--weight", i === null ? 0 : (0.75 * weights[i][j]).toFixed(3)));
  const queries = layer.queries.map((token, i) => el(`span.token${layer.special[0][i] ? ".special" : ""}`, {
    dir: "auto", tabindex: 0, role: "button", "data-tip": says(token, weights[i], layer.keys),
    onpointerenter: () => choose(i), onfocus: () => choose(i), onclick: () => choose(i),
  }, token));
  function choose(i) {
    chosen.token = i;
    queries.forEach((query, other) => query.classList.toggle("chosen", other === i));
    shade(i);
  }
  if (chosen.token !== null && chosen.token < queries.length) choose(chosen.token);
  return el("section", {},
    el("div.faint", {}, "A token that looks (hover, tap or Tab)"), el("div.tokens", { id: "looks" }, queries),
    el("div.faint", {}, "and what it looks at, the mean of the heads below"), el("div.tokens", { id: "looked" }, keys));
}

// Maps --------------------------------------------------------------------------------------------

function map(layer, weights, title) {
  const rows = layer.queries.length, columns = layer.keys.length;
  const cell = Math.max(5, Math.min(16, Math.floor(560 / Math.max(rows, columns))));
  const lettered = cell >= 9;
  const left = lettered ? widest(layer.queries, 110) + 6 : 2, below = lettered ? widest(layer.keys, 110) + 6 : 2;
  const width = left + columns * cell + 1, height = rows * cell + 1 + below;
  const canvas = el("canvas", { tabindex: 0, role: "img", "aria-label": `${title}: ${rows} tokens look at ${columns}; arrow keys tell weights` });
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  let at = null; // the cell that the keyboard or the pointer is at: [row, column]

  canvas.redraw = () => {
    const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(name).trim();
    const brush = canvas.getContext("2d");
    brush.setTransform(scale, 0, 0, scale, 0, 0);
    brush.clearRect(0, 0, width, height);
    brush.fillStyle = colour("--accent");
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        brush.globalAlpha = weights[i][j];
        brush.fillRect(left + j * cell, i * cell, cell, cell);
      }
    }
    brush.globalAlpha = 1;
    brush.strokeStyle = colour("--line");
    brush.strokeRect(left - 0.5, 0.5, columns * cell + 1, rows * cell);
    if (at) {
      brush.strokeStyle = colour("--ink");
      brush.strokeRect(left + at[1] * cell + 0.5, at[0] * cell + 0.5, cell - 1, cell - 1);
    }
    if (!lettered) return;
    brush.font = LETTERS;
    brush.textAlign = "right";
    brush.textBaseline = "middle";
    const ink = (special) => (brush.fillStyle = colour(special ? "--faint" : "--ink"));
    layer.queries.forEach((token, i) => {
      ink(layer.special[0][i]);
      brush.fillText(fit(token, 110), left - 4, (i + 0.5) * cell);
    });
    layer.keys.forEach((token, j) => {
      ink(layer.special[1][j]);
      brush.save();
      brush.translate(left + (j + 0.5) * cell, rows * cell + 5);
      brush.rotate(-Math.PI / 2);
      brush.fillText(fit(token, 110), 0, 0);
      brush.restore();
    });
  };
  const go = (i, j) => {
    at = i >= 0 && i < rows && j >= 0 && j < columns ? [i, j] : null;
    if (at) canvas.setAttribute("data-tip", `${layer.queries[i]} → ${layer.keys[j]}: ${percent(weights[i][j])}`);
    else canvas.removeAttribute("data-tip");
    canvas.redraw();
  };
  canvas.addEventListener("pointermove", (event) => go(Math.floor(event.offsetY / cell), Math.floor((event.offsetX - left) / cell)));
  canvas.addEventListener("pointerleave", () => go(-1, -1));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [i, j] = at || [0, -step[1]];
    go(Math.max(0, Math.min(rows - 1, i + (at ? step[0] : 0))), Math.max(0, Math.min(columns - 1, j + step[1])));
    const box = canvas.getBoundingClientRect();
    showTip(canvas, box.left + left + at[1] * cell, box.top + at[0] * cell);
  });
  canvas.redraw();
  return canvas;
}

// Arcs --------------------------------------------------------------------------------------------

function arcs(layer, weights, title, number) {
  const row = 18, gap = 100, left = widest(layer.queries, 110) + 6, right = widest(layer.keys, 110) + 6;
  const height = Math.max(layer.queries.length, layer.keys.length) * row + 6, y = (i) => (i + 0.5) * row + 3;
  const picture = el("svg", { width: left + gap + right, height, role: "img", "aria-label": title });
  const lines = [];
  weights.forEach((looks, i) => looks.forEach((weight, j) => {
    if (weight < LEAST) return;
    const line = el("line", {
      x1: left, y1: y(i), x2: left + gap, y2: y(j), stroke: `hsl(${(210 + number * 47) % 360} 70% 55%)`,
      "stroke-width": 0.6 + 2.2 * weight, "stroke-linecap": "round", "data-tip": `${layer.queries[i]} → ${layer.keys[j]}: ${percent(weight)}`,
    });
    line.style.opacity = 0.1 + 0.9 * weight;
    lines.push([i, j, line]);
  }));
  const words = (tokens, side) => tokens.map((token, at) => {
    const only = (on) => {
      picture.classList.toggle("narrowed", on);
      lines.forEach((found) => found[2].classList.toggle("on", on && found[side] === at));
    };
    const text = el(`text${layer.special[side][at] ? ".special" : ""}`, {
      x: side ? left + gap + 5 : left - 5, y: y(at) + 4, "text-anchor": side ? "start" : "end", tabindex: side ? null : 0,
      "data-tip": side ? token : says(token, weights[at], layer.keys),
      onpointerenter: () => only(true), onpointerleave: () => only(false), onfocus: () => only(true), onblur: () => only(false),
    }, fit(token, 110));
    return text;
  });
  picture.append(...lines.map((found) => found[2]), ...words(layer.queries, 0), ...words(layer.keys, 1));
  return picture;
}

// The page ----------------------------------------------------------------------------------------

const body = el("div");

function draw() {
  const layer = layers[chosen.layer];
  const panels = shown().map(([title, weights], i) => {
    const number = typeof chosen.head === "number" ? chosen.head : i;
    const picture = chosen.arcs ? arcs(layer, weights, title, number) : map(layer, weights, title);
    return el("figure", {}, el("figcaption", {}, title), el("div.scroll", {}, picture));
  });
  const legend = chosen.arcs ? "Left: the token that looks; right: what it looks at. A token alone shows its own lines." : "Rows look, columns are looked at; hovering tells the weight.";
  body.replaceChildren(sentence(), el("h2", {}, layer.name), el("p.faint", {}, legend), el("div.panels", {}, panels));
}

function heads() {
  const titles = layers[chosen.layer].titles;
  const options = titles.length > 1 ? [["all", "all"], ["mean", "mean"]] : [["all", titles[0]]];
  if (titles.length > 1) titles.forEach((title, i) => options.push([i, title]));
  if (!options.some(([value]) => value === chosen.head)) chosen.head = "all";
  return options.map(([value, words]) => el("option", { value, selected: value === chosen.head }, words));
}

const headSelect = el("select", { id: "head", onchange: () => {
  chosen.head = /^\d+$/.test(headSelect.value) ? Number(headSelect.value) : headSelect.value;
  draw();
} });
const layerSelect = el("select", { id: "layer", onchange: () => {
  chosen.layer = Number(layerSelect.value);
  headSelect.replaceChildren(...heads());
  draw();
} }, layers.map((layer, i) => el("option", { value: i }, layer.name)));

const kinds = [["maps", false], ["arcs", true]].map(([words, value]) => el("button", { type: "button", id: words, "aria-pressed": String(chosen.arcs === value), onclick: () => {
  chosen.arcs = value;
  kinds.forEach((button) => button.setAttribute("aria-pressed", String((button.id === "arcs") === value)));
  draw();
} }, words));

headSelect.replaceChildren(...heads());
document.body.append(
  el("header", {}, el("h1", {}, "Attention"), el("div.bar", {},
    el("label", {}, "layer", layerSelect), el("label", {}, "heads", headSelect), el("span", {}, kinds), el("span.end", {}, themeButton()))),
  el("main", {}, body));
draw();

const redraw = () => document.querySelectorAll("canvas").forEach((canvas) => canvas.redraw());
new MutationObserver(redraw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
