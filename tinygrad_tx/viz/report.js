// The report of a run: curves, samples of each validation, configuration, sittings. Its data come
// from training/page.py.
"use strict";

const run = data();
const COLOURS = ["var(--accent)", "var(--backward)", "var(--forward)"];

// Curves -------------------------------------------------------------------------------------------

// Round numbers from low to high, about n of them.
function ticks(low, high, n) {
  const rough = (high - low) / n || Math.abs(high) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9 && found.length < 20; k++) {
    found.push(Number((k * step).toPrecision(12)));
  }
  return found;
}

function valueText(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 10000) return short(value);
  if (size < 0.001) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

function chart(panel) {
  const W = 420, H = 230, LEFT = 52, RIGHT = 12, TOP = 8, BOTTOM = 24;
  const points = panel.curves.flatMap((curve) => curve.points);
  let [x0, x1] = [Math.min(...points.map((p) => p[0])), Math.max(...points.map((p) => p[0]))];
  let [y0, y1] = [Math.min(...points.map((p) => p[1])), Math.max(...points.map((p) => p[1]))];
  if (x0 === x1) [x0, x1] = [x0 - 1, x1 + 1];
  const margin = (y1 - y0) * 0.05 || Math.abs(y1) * 0.05 || 1;
  [y0, y1] = [y0 >= 0 ? Math.max(0, y0 - margin) : y0 - margin, y1 + margin];
  const x = (step) => LEFT + ((step - x0) / (x1 - x0)) * (W - LEFT - RIGHT);
  const y = (value) => H - BOTTOM - ((value - y0) / (y1 - y0)) * (H - TOP - BOTTOM);

  const cursor = el("line.cursor", { y1: TOP, y2: H - BOTTOM, visibility: "hidden" });
  const dots = panel.curves.map((_, i) => el("circle", { r: 4, fill: COLOURS[i % 3], visibility: "hidden" }));
  const values = panel.curves.map(() => el("b"));
  const where = el("span.faint");
  const svg = el("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", tabindex: 0, "aria-label": `${panel.title} over steps; the arrow keys go from point to point` },
    ticks(y0, y1, 4).map((value) => [
      el("line.grid", { x1: LEFT, x2: W - RIGHT, y1: y(value), y2: y(value) }),
      el("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, valueText(value)),
    ]).flat(),
    ticks(x0, x1, 5).filter(Number.isInteger).map((step) =>
      el("text", { x: x(step), y: H - 7, "text-anchor": x(step) > W - 30 ? "end" : "middle" }, short(step))),
    panel.curves.map((curve, i) => drawn(curve, COLOURS[i % 3], x, y)).flat(),
    cursor, dots);

  const steps = [...new Set(points.map((p) => p[0]))].sort((a, b) => a - b);
  let at = steps.length - 1;
  function show(place, moved) {
    at = Math.max(0, Math.min(steps.length - 1, place));
    where.textContent = `step ${steps[at]}`;
    cursor.setAttribute("x1", x(steps[at]));
    cursor.setAttribute("x2", x(steps[at]));
    cursor.setAttribute("visibility", moved ? "visible" : "hidden");
    panel.curves.forEach((curve, i) => {
      const near = nearest(curve.points, steps[at]);
      values[i].textContent = valueText(near[1]) + (near[0] === steps[at] ? "" : ` (step ${near[0]})`);
      dots[i].setAttribute("cx", x(near[0]));
      dots[i].setAttribute("cy", y(near[1]));
      dots[i].setAttribute("visibility", moved ? "visible" : "hidden");
    });
  }
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const step = x0 + (((event.clientX - box.left) * W / box.width - LEFT) / (W - LEFT - RIGHT)) * (x1 - x0);
    show(steps.indexOf(nearest(steps.map((s) => [s]), step)[0]), true);
  });
  svg.addEventListener("pointerleave", () => show(steps.length - 1, false));
  svg.addEventListener("blur", () => show(steps.length - 1, false));
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -steps.length, End: steps.length }[event.key];
    if (!by) return;
    event.preventDefault();
    show(at + by, true);
  });
  show(at, false);
  return el("figure.chart", {}, el("figcaption", {}, panel.title), svg,
    el("div.legend", { "aria-live": "polite" }, where, panel.curves.map((curve, i) =>
      el("span", {}, el(`span.swatch.${curve.style}`, { style: `border-color: ${COLOURS[i % 3]}` }), `${curve.name} `, values[i]))));
}

function drawn(curve, colour, x, y) {
  const path = curve.points.map(([step, value], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const dash = curve.style === "dashed" ? "5 3" : null;
  const made = [el("path", { d: path, fill: "none", stroke: colour, "stroke-width": 1.8, "stroke-dasharray": dash })];
  if (curve.style === "marked" || curve.points.length === 1) {
    const few = curve.points.length <= 60;
    made.push(...curve.points.map(([step, value]) => el("circle", { cx: x(step), cy: y(value), r: few ? 3 : 1.5, fill: colour })));
  }
  return made;
}

// The point whose step is nearest to one; points are in their order.
function nearest(points, step) {
  let [low, high] = [0, points.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= step) low = middle;
    else high = middle;
  }
  return Math.abs(points[low][0] - step) <= Math.abs(points[high][0] - step) ? points[low] : points[high];
}

// Samples ------------------------------------------------------------------------------------------

function sampleBox(place, at) {
  const now = run.validations[at].samples[place];
  const history = run.validations.slice(0, at + 1).map((v) => [v.step, v.samples[place]]).filter(([, sample]) => sample).reverse();
  return el("div.sample", {},
    el("dl", {},
      el("dt", {}, "source"), el("dd", {}, now.source),
      now.reference === undefined ? null : [el("dt", {}, "reference"), el("dd", {}, now.reference)],
      el("dt", {}, "output"), el("dd.output", {}, now.output, now.chrf === undefined ? null : el("span.faint", {}, `  chrF ${now.chrf}`))),
    history.length < 2 ? null : el("details", {}, el("summary", {}, `over ${history.length} validations`),
      el("div.scroll", {}, el("table.texts", {}, history.map(([step, sample]) =>
        el("tr", {}, el("td.number.faint", {}, String(step)), el("td", {}, sample.output), el("td.number", {}, sample.chrf === undefined ? "" : String(sample.chrf))))))),
    now.attention ? attentionBox(now.attention) : null);
}

function attentionBox(attention) {
  const names = Object.keys(attention.layers);
  const place = el("div.scroll");
  const draw = (name) => place.replaceChildren(attentionMap(attention, name));
  const choice = el("select", { "aria-label": "layer", onchange: () => draw(choice.value) }, names.map((name) => el("option", { value: name }, name)));
  choice.value = names[names.length - 1];
  const box = el("details.attention", { ontoggle: () => box.open && !place.firstChild && draw(choice.value) },
    el("summary", {}, "attention, the mean of the heads"),
    names.length > 1 ? el("div.controls", {}, choice) : el("p.faint", {}, names[0]), place);
  return box;
}

// Rows ask, columns are looked at.
function attentionMap(attention, name) {
  const CELL = 18, CHARACTER = 6.6;
  const longest = (words) => Math.min(16, Math.max(...words.map((word) => word.length))) * CHARACTER + 8;
  const cut = (word) => (word.length > 16 ? `${word.slice(0, 15)}…` : word);
  const [left, top] = [longest(attention.queries), longest(attention.keys)];
  const [width, height] = [left + attention.keys.length * CELL + 4, top + attention.queries.length * CELL + 4];
  const weights = attention.layers[name];
  return el("svg.map", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `attention of ${name}` },
    attention.keys.map((key, j) => {
      const [x, y] = [left + j * CELL + CELL / 2 + 4, top - 5];
      return el("text", { x, y, transform: `rotate(-90 ${x} ${y})` }, cut(key));
    }),
    attention.queries.map((query, i) => el("text", { x: left - 5, y: top + i * CELL + 13, "text-anchor": "end" }, cut(query))),
    weights.flatMap((row, i) => row.map((weight, j) => el("rect", {
      x: left + j * CELL, y: top + i * CELL, width: CELL, height: CELL, "fill-opacity": weight / 100,
      "data-tip": `${attention.queries[i]} → ${attention.keys[j]}: ${weight}%`,
    }))));
}

function extremes(title, sentences) {
  if (!sentences.length) return [];
  return [el("h3", {}, title), el("div.scroll", {}, el("table.texts", {},
    el("tr", {}, ["chrF", "source", "reference", "output"].map((name, i) => el(i ? "th" : "th.number", {}, name))),
    sentences.map((s) => el("tr", {}, el("td.number", {}, s.chrf === undefined ? "" : String(s.chrf)), el("td", {}, s.source), el("td", {}, s.reference || ""), el("td", {}, s.output)))))];
}

function samples() {
  const last = run.validations.length - 1;
  const place = el("div", { id: "samples" });
  const label = el("output", { for: "validation" });
  const slider = el("input", { type: "range", id: "validation", min: 0, max: last, value: last, "aria-label": "validation", oninput: () => show(Number(slider.value)) });
  function show(at) {
    const { step, samples, best, worst } = run.validations[at];
    const open = [...place.querySelectorAll(".sample")].map((box) => [...box.querySelectorAll("details")].map((d) => d.open));
    label.textContent = `step ${step}`;
    place.replaceChildren(...samples.map((_, i) => sampleBox(i, at)), ...extremes("Best of this validation", best), ...extremes("Worst of this validation", worst));
    place.querySelectorAll(".sample").forEach((box, i) => box.querySelectorAll("details").forEach((d, j) => (d.open = Boolean(open[i] && open[i][j]))));
  }
  show(last);
  place.querySelectorAll(".sample:first-child details").forEach((d) => (d.open = true));
  return [el("h2", {}, "Samples"), el("div.controls", {}, el("label", { for: "validation" }, "as the validation found them after"), label, last ? slider : null), place];
}

// The page -----------------------------------------------------------------------------------------

function factList(rows) {
  return el("dl.facts", {}, rows.map(([name, what]) => [el("dt", {}, name), el("dd", {}, what)]).flat());
}

function sittingBox(sitting) {
  const tables = Object.entries({ ...sitting.machine, ...sitting.versions });
  const rows = [["begun", `${sitting.date}, after step ${sitting.step}`], ["command", sitting.command], ["in", sitting.directory || ""], ...tables];
  if (Number.isInteger(sitting.parameters)) rows.push(["parameters", sitting.parameters.toLocaleString("en")]);
  return el("div.sample", {}, factList(rows.filter(([, what]) => what)));
}

document.body.prepend(
  el("header", {}, el("h1", {}, run.name), el("span.faint", { id: "status" }, run.status), themeButton()),
  el("main", {},
    run.notes.map((note) => el("p.note", { role: "note" }, note)),
    factList(run.facts),
    el("h2", {}, "Curves"),
    run.panels.length ? el("div.charts", {}, run.panels.map(chart)) : el("p.faint", {}, "No step has been written down yet."),
    run.validations.length ? samples() : null,
    el("h2", {}, "Machine and command"),
    run.sittings.length ? run.sittings.map(sittingBox) : el("p.faint", {}, "This run has not noted them."),
    el("h2", {}, "Configuration"),
    el("details", {}, el("summary", {}, "config.toml"), el("pre", { id: "config" }, run.config))));
