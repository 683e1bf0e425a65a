// The explorer of a compiled function: its modules, its graph after each stage, its kernels and its
// memory, which point at each other. Data: describe() of compiler/inspect, packed (explore.py);
// docs/explorer.md tells of both. Whatever is selected stands in the address, so Back goes back.
"use strict";

const NAMES = ["modules", "graph", "kernels", "memory"];
const KINDS = { matmul: "matmul", gemm: "matmul", attention: "attention", attentiongrad: "attention", rows: "rows", columns: "columns", checkindex: "index", index: "index", opaque: "opaque", keep: "random" };
const colour = (kind) => `var(--${KINDS[kind.split(" ")[0]] || "other"})`;
let P; // the plan
let chosen = { tab: "modules", kind: "", id: -1 };
const shown = {}; // by tab, what it shows: { element, mark(related), find(text) }

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

let unpacked = null;
const code = () => (unpacked ??= unpack(data().code));

// What the rows say -------------------------------------------------------------------------------

function node(id) {
  const row = P.graph.rows[id], at = P.columns;
  return {
    id, op: P.graph.ops[row[at.op]], srcs: row[at.srcs], detail: P.graph.details[row[at.detail]],
    result: P.graph.results[row[at.result]], module: row[at.module], place: row[at.place], gradient_of: row[at.gradient_of],
    phase: P.graph.phases[row[at.phase]], order: row[at.order], inside: row[at.inside],
  };
}

const DATA = new Set(["input", "leaf", "const", "lost"]);
const isData = (n) => !n.srcs.length && DATA.has(n.op);
const pathOf = (number) => P.paths[number] || "";
const within = (path, outer) => path === outer || path.startsWith(outer + ".");
const whole = (place) => (P.places[place].where ? `${P.places[place].where}: ${P.places[place].text}` : "");
// The user's line: of a gradient, that of what it is the gradient of.
const lineOf = (x) => (x.gradient_of ? `gradient of ${whole(x.gradient_of)}` : whole(x.place));
const textOf = (x) => (x.gradient_of ? `∇ ${P.places[x.gradient_of].text}` : P.places[x.place].text || P.places[x.place].where);
const lines = (...parts) => parts.filter(Boolean).join("\n");
const costs = (c) => [P.totals.seconds ? seconds(c.seconds) : "", c.flops ? short(c.flops, "FLOP") : "", short(c.bytes, "B")].filter(Boolean).join(", ");
const nodeTip = (n) => lines(`${n.op} ${n.detail}`.trim(), n.result, pathOf(n.module), lineOf(n));
const kernelTip = (k) => lines(`${k.kind}: ${k.ops}`, k.result, costs(k), pathOf(k.module), lineOf(k));
const bufferTip = (b) => lines(`${b.name || b.role}${b.kernel >= 0 ? ` (${P.kernels.calls[b.kernel].kind})` : ""}`, `${short(b.bytes, "B")}, ${b.dtype} ${b.result}`, b.first ? `waves ${b.first} to ${b.last}` : "", pathOf(b.module), lineOf(b));

function prepare(plan) {
  P = plan;
  P.columns = Object.fromEntries(P.graph.columns.map((name, i) => [name, i]));
  P.paths = [];
  P.modules.forEach((m, i) => { P.paths[m.number] = m.path; m.id = i; });
  P.moduleOf = new Map(P.modules.map((m) => [m.path, m.id]));
  let rows = [];
  for (const stage of P.graph.stages) {
    stage.same = stage.nodes === null;
    rows = stage.nodes ??= rows;
  }
  P.kernelsOf = new Map(); // node -> numbers of kernels; "order op" -> the same
  P.kernels.calls.forEach((k, i) => {
    k.id = i;
    for (const id of [...k.nodes, ...(k.unit >= 0 ? [k.unit] : [])]) {
      const n = node(id);
      for (const key of [id, `${n.order} ${n.op}`]) P.kernelsOf.set(key, [...(P.kernelsOf.get(key) || []), i]);
    }
  });
  P.memory.buffers.forEach((b, i) => { b.id = i; b.readers = []; });
  for (const k of P.kernels.calls) for (const i of k.reads) P.memory.buffers[i].readers.push(k.id);
}

// What belongs to a selection, in all views.
function related() {
  const found = { modules: new Set(), nodes: new Set(), kernels: new Set(), buffers: new Set() };
  const { kind, id } = chosen, calls = P.kernels.calls;
  const addModule = (number) => found.modules.add(P.moduleOf.get(pathOf(number)));
  const addKernel = (i) => {
    found.kernels.add(i);
    for (const n of calls[i].nodes) found.nodes.add(n);
    if (calls[i].unit >= 0) found.nodes.add(calls[i].unit);
  };
  if (kind === "module") {
    const path = P.modules[id].path, inside = (number) => (path ? within(pathOf(number), path) : !pathOf(number));
    found.modules.add(id);
    calls.forEach((k, i) => inside(k.module) && found.kernels.add(i));
    P.memory.buffers.forEach((b, i) => inside(b.module) && found.buffers.add(i));
  } else if (kind === "kernel") {
    addKernel(id);
    addModule(calls[id].module);
    for (const i of [...calls[id].reads, ...calls[id].writes]) found.buffers.add(i);
  } else if (kind === "buffer") {
    const b = P.memory.buffers[id];
    found.buffers.add(id);
    addModule(b.module);
    if (b.kernel >= 0) addKernel(b.kernel);
    for (const i of b.readers) if (b.kernel >= 0) found.kernels.add(i); else addKernel(i);
  } else if (kind === "node") {
    const n = node(id);
    found.nodes.add(id);
    addModule(n.module);
    for (const i of kernelsOf(n)) {
      found.kernels.add(i);
      for (const j of calls[i].writes) found.buffers.add(j);
    }
  }
  return found;
}

const kernelsOf = (n) => P.kernelsOf.get(n.id) || P.kernelsOf.get(`${n.order} ${n.op}`) || [];

// Selecting ---------------------------------------------------------------------------------------

function go(tab, kind = "", id = -1) {
  const hash = kind ? `#/${tab}/${kind}/${id}` : `#/${tab}`; // no element has such an id to scroll to
  if (location.hash === hash) arrive();
  else location.hash = hash;
}

const select = (kind, id) => go(chosen.tab, kind, id);

function arrive() {
  const [tab, kind, id] = location.hash.slice(2).split("/");
  const sizes = { module: P.modules, node: P.graph.rows, kernel: P.kernels.calls, buffer: P.memory.buffers };
  const known = sizes[kind] && Number(id) >= 0 && Number(id) < sizes[kind].length;
  chosen = { tab: NAMES.includes(tab) ? tab : "modules", kind: known ? kind : "", id: known ? Number(id) : -1 };
  for (const name of NAMES) {
    const here = name === chosen.tab, button = document.getElementById(`tab-${name}`);
    button.setAttribute("aria-selected", here);
    button.tabIndex = here ? 0 : -1;
    document.getElementById(name).hidden = !here;
  }
  const found = related();
  shown[chosen.tab] ??= VIEWS[chosen.tab]();
  shown[chosen.tab].mark(found);
  showDetails(found);
}

function link(tab, kind, id, text, title = null) {
  return el("button.jump", { type: "button", "data-tip": title, onclick: () => go(tab, kind, id) }, text);
}

// The panel of what is selected -------------------------------------------------------------------

function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return el("dl", {}, known.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function line(x) {
  const parts = [["gradient of ", x.gradient_of], [x.gradient_of ? "called by " : "", x.place]].filter(([, place]) => place && P.places[place].where);
  return el("div.line", {}, parts.map(([words, place]) => [el("span.faint", {}, words + P.places[place].where), el("pre", {}, P.places[place].text || " ")]).flat());
}

function several(title, items, make, most = 12) {
  if (!items.length) return null;
  const list = el("div.jumps", {}, items.slice(0, most).map(make));
  if (items.length > most) {
    const rest = el("button.jump", { type: "button", onclick: () => { rest.remove(); list.append(...items.slice(most).map(make)); } }, `${items.length - most} more`);
    list.append(rest);
  }
  return el("section", {}, el("h3", {}, `${title} (${items.length})`), list);
}

const toKernel = (i) => { const k = P.kernels.calls[i]; return link("kernels", "kernel", i, `${k.kind} ${seconds(k.seconds)}`, kernelTip(k)); };
const toBuffer = (i) => { const b = P.memory.buffers[i]; return link("memory", "buffer", i, `${b.name || b.role} ${short(b.bytes, "B")}`, bufferTip(b)); };
const toNode = (i) => { const n = node(i); return link("graph", "node", i, n.op, nodeTip(n)); };
const toModule = (number) => { const path = pathOf(number); return path ? link("modules", "module", P.moduleOf.get(path), path) : "no module"; };

const DETAILS = {
  module(id) {
    const m = P.modules[id], found = related();
    const phases = Object.entries(m.phases).map(([name, c]) => [name, costs(c)]);
    const heaviest = [...found.kernels].sort((a, b) => weight(P.kernels.calls[b]) - weight(P.kernels.calls[a]));
    return [m.path || "outside of modules", [
      facts([["class", m.title], ["parameters", m.parameters ? m.parameters.toLocaleString("en") : ""], ["activations", m.kept ? short(m.kept, "B") : ""], ...phases]),
      el("div.jumps", {}, link("graph", "module", id, "in the graph"), link("kernels", "module", id, "its kernels"), link("memory", "module", id, "its memory")),
      several("its own Tensors", m.tensors, (t) => el("span.chip", {}, `${t.name} ${t.result}`)),
      several("kernels, heaviest first", heaviest, toKernel),
    ]];
  },
  node(id) {
    const n = node(id), inputs = n.srcs.map(node), kernels = kernelsOf(n);
    const stage = graphState.stage, users = P.graph.stages[stage].nodes.filter((i) => node(i).srcs.includes(id));
    return [n.op, [
      facts([["result", n.result], ["attributes", n.detail], ["phase", n.phase], ["module", toModule(n.module)]]),
      line(n),
      several("reads", inputs, (x) => (isData(x) ? el("span.chip", { "data-tip": nodeTip(x) }, `${x.detail || x.op} ${x.result}`) : toNode(x.id))),
      several("read by", users, toNode),
      several("computed by", kernels, toKernel),
      several("refused", P.kernels.refusals.filter((r) => r.node === id), (r) => el("span.chip.wrong", {}, r.reason)),
    ]];
  },
  kernel(id) {
    const k = P.kernels.calls[id], source = P.kernels.sources[k.source];
    const rate = k.seconds ? (k.flops ? short(k.flops / k.seconds, "FLOP/s") : short(k.bytes / k.seconds, "B/s")) : "";
    const text = el("pre", {}, "");
    const open = async () => { if (!text.textContent) text.textContent = (await code())[k.source]; };
    return [`${k.kind}: ${k.ops}`, [
      facts([["result", k.result], ["time", seconds(k.seconds)], ["work", k.flops ? short(k.flops, "FLOP") : ""], ["bytes", short(k.bytes, "B")], ["reached", rate], ["wave", k.wave ? String(k.wave) : "once, before all runs"], ["runs", k.times > 1 ? `${k.times} times` : ""], ["phase", k.phase], ["module", toModule(k.module)]]),
      k.loop >= 0 ? el("div.jumps", {}, link("kernels", "kernel", k.loop, "the loop around it")) : null,
      line(k),
      source ? el("section", {}, el("h3", {}, "loop nest"), el("pre.listing", {}, source.listing), el("p.faint", {}, `one kernel for ${source.calls} ${source.calls === 1 ? "call" : "calls"}`)) : null,
      source && source.code ? el("details.code", { ontoggle: open }, el("summary", {}, `what is compiled: ${short(source.code)} characters`), text) : null,
      several("ops", k.nodes, toNode),
      several("refused", P.kernels.refusals.filter((r) => r.kernel === id), (r) => el("span.chip.wrong", {}, `${r.op}: ${r.reason}`)),
      several("writes", k.writes, toBuffer),
      several("reads", k.reads, toBuffer),
    ]];
  },
  buffer(id) {
    const b = P.memory.buffers[id];
    const role = { arena: "lives for a part of a run", result: "handed out", state: "written over in place", input: "from outside", prepacked: "packed once and kept", constant: "made with the plan", report: "of a check" }[b.role];
    return [b.name || b.role, [
      facts([["bytes", short(b.bytes, "B")], ["holds", `${b.dtype} ${b.result}`], ["role", `${b.role}: ${role}`], ["at byte", b.offset === null ? "" : b.offset.toLocaleString("en")], ["waves", b.first ? `${b.first} to ${b.last}` : ""], ["phase", b.phase], ["module", toModule(b.module)]]),
      line(b),
      several("made by", b.kernel >= 0 ? [b.kernel] : [], toKernel),
      several("read by", b.readers, toKernel),
    ]];
  },
};

function showDetails(found) {
  const panel = document.getElementById("details");
  panel.hidden = !chosen.kind;
  if (!chosen.kind) return panel.replaceChildren();
  const [title, parts] = DETAILS[chosen.kind](chosen.id);
  const close = el("button.close", { type: "button", "aria-label": "close", onclick: () => go(chosen.tab) }, "×");
  const elsewhere = NAMES.filter((tab) => tab !== chosen.tab && found[{ modules: "modules", graph: "nodes", kernels: "kernels", memory: "buffers" }[tab]].size && chosen.kind !== "module");
  panel.replaceChildren(close, el("h2", {}, title), el("div.jumps", {}, elsewhere.map((tab) => link(tab, chosen.kind, chosen.id, `show in ${tab}`))), ...parts.filter(Boolean));
  panel.scrollTop = 0;
}

// Rows that arrow keys go through: one of them can be tabbed to.
function roving(holder, selector, keys = {}) {
  holder.addEventListener("keydown", (event) => {
    const here = event.target.closest(selector);
    if (!here) return;
    const all = [...holder.querySelectorAll(selector)].filter((x) => !x.hidden), i = all.indexOf(here);
    const next = { ArrowDown: all[i + 1], ArrowUp: all[i - 1], Home: all[0], End: all.at(-1) }[event.key];
    if (next) focusOn(holder, selector, next);
    else if (event.key === "Enter" || event.key === " ") here.dispatchEvent(new MouseEvent("click", { bubbles: true }));
    else if (keys[event.key]) keys[event.key](here);
    else return;
    event.preventDefault();
  });
}

function focusOn(holder, selector, target) {
  for (const other of holder.querySelectorAll(`${selector}[tabindex="0"]`)) other.setAttribute("tabindex", -1);
  target.setAttribute("tabindex", 0);
  target.focus();
}

// Rows may be wider than the window: only up and down.
function intoView(row) {
  const box = row?.getBoundingClientRect();
  if (box && (box.top < 0 || box.bottom > innerHeight)) scrollBy(0, box.top - innerHeight / 2);
}

const bar = (part, kind = "") => el("span.bar", {}, el("span", { style: `width:${Math.max(0, Math.min(100, 100 * part)).toFixed(1)}%;${kind ? `background:${colour(kind)}` : ""}` }));
const weight = (k) => (!P.totals.seconds ? (k.flops || 0) / 10 + k.bytes : k.seconds || 0);

// Modules -----------------------------------------------------------------------------------------

function modulesView() {
  const children = P.modules.map(() => []), roots = [];
  P.modules.forEach((m) => (m.parent < 0 ? roots : children[m.parent]).push(m.id));
  const total = P.modules.filter((m) => m.parent < 0).reduce((sum, m) => sum + m.seconds, 0);
  const open = new Set(), order = [], rows = new Map();
  const visit = (id, depth) => { order.push([id, depth]); children[id].forEach((child) => visit(child, depth + 1)); };
  roots.forEach((id) => visit(id, 0));
  for (let level = 0, count = roots.length; level < 9; level++) { // as many levels as stay readable
    const next = order.filter(([id, depth]) => depth === level && children[id].length).map(([id]) => id);
    count += next.reduce((sum, id) => sum + children[id].length, 0);
    if (count > 40) break;
    next.forEach((id) => open.add(id));
  }
  const body = el("tbody", {});
  for (const [id, depth] of order) {
    const m = P.modules[id], name = m.path ? m.path.split(".").at(-1) : "outside of modules";
    const toggle = children[id].length ? el("span.toggle", { onclick: (event) => { event.stopPropagation(); flip(id); } }) : el("span.toggle.none");
    const row = el("tr", { tabindex: id === roots[0] ? 0 : -1, "data-id": id, "aria-level": depth + 1, onclick: () => select("module", id), "data-tip": lines(m.path, m.title, ...Object.entries(m.phases).map(([phase, c]) => `${phase}: ${costs(c)}`)) },
      el("td", { style: `padding-left:${0.4 + depth * 1.1}rem` }, toggle, name, el("span.faint.class", {}, m.title && m.title.split("(")[0] !== name ? ` ${m.title}` : "")),
      el("td.number", {}, m.seconds ? seconds(m.seconds) : ""), el("td.bars", {}, total ? bar(m.seconds / total) : ""), el("td.number", {}, m.parameters ? m.parameters.toLocaleString("en") : ""),
      el("td.number", {}, m.flops ? short(m.flops) : ""), el("td.number", {}, m.bytes ? short(m.bytes, "B") : ""), el("td.number", {}, m.kept ? short(m.kept, "B") : ""));
    rows.set(id, row);
    body.append(row);
  }
  const parentOf = (id) => P.modules[id].parent;
  const refresh = () => {
    for (const [id, row] of rows) {
      let visible = true;
      for (let up = parentOf(id); up >= 0; up = parentOf(up)) visible &&= open.has(up);
      row.hidden = !visible;
      if (children[id].length) row.setAttribute("aria-expanded", open.has(id));
    }
  };
  const flip = (id, on = !open.has(id)) => { if (on) open.add(id); else open.delete(id); refresh(); };
  refresh();
  roving(body, "tr", { ArrowRight: (row) => flip(Number(row.dataset.id), true), ArrowLeft: (row) => flip(Number(row.dataset.id), false) });
  const head = ["module", "time", "", "parameters", "FLOPs", "bytes", "activations"].map((text, i) => el(i && text ? "th.number" : "th", { scope: "col" }, text));
  const only = P.modules.length < 2 ? el("p.note", {}, "This function calls no modules: all of it is one row.") : null;
  document.getElementById("modules").append(el("p.faint", {}, "With all inside, forward, backward and update together. Arrow keys go through the rows, right and left open and close."), only || "", el("div.scroll", {}, el("table.tree", { role: "treegrid" }, el("thead", {}, el("tr", {}, head)), body)));
  return {
    mark(found) {
      for (const id of found.modules) for (let up = parentOf(id); up >= 0; up = parentOf(up)) open.add(up);
      refresh();
      for (const [id, row] of rows) row.classList.toggle("marked", found.modules.has(id));
      const first = rows.get([...found.modules][0]);
      if (chosen.kind) intoView(first);
    },
  };
}

// Graph -------------------------------------------------------------------------------------------

const graphState = { stage: 0, open: null, zoom: 1 };
const MOST = 48, CHUNK = 60, GAP = 14, HEAD = 22, HEIGHT = 38; // boxes at first; children of a group; pixels

// The boxes of a stage: groups (phases, modules, lines, loops) and nodes, in the order of time.
function treeOf(stage) {
  const lanes = P.graph.phases.map((name) => group("phase", name, null, name));
  const loops = new Map();
  for (const id of stage.nodes) {
    const n = node(id);
    if (isData(n)) continue;
    let at = n.inside >= 0 && loops.has(n.inside) ? loops.get(n.inside) : lanes[P.graph.phases.indexOf(n.phase)];
    const path = pathOf(n.module), base = at.base || "";
    const parts = (within(path, base) ? path.slice(base.length) : path).split(".").filter(Boolean);
    let full = within(path, base) ? base : "";
    for (const part of parts) {
      full = full ? `${full}.${part}` : part;
      at = under(at, "module", part, full);
    }
    if (stage.nodes.loops?.has(id)) {
      at = under(at, "loop", `${n.op} ${n.detail}`, path, `loop ${id}`);
      at.base = path;
      loops.set(id, at);
    } else if (P.places[n.gradient_of || n.place].text) at = under(at, "line", textOf(n), n.gradient_of || n.place);
    at.children.push({ kind: "node", id, parent: at, key: `${at.key}/${n.op}.${at.children.length}`, nodes: [id] });
  }
  return lanes.filter((lane) => lane.children.length).map(tidy);
}

function group(kind, name, parent, key, about = "") {
  return { kind, name, parent, key, about, children: [], counts: {} };
}

// The group of that name that is still going on, or a new one.
function under(at, kind, name, about, mark = "") {
  const last = at.children.at(-1), tag = `${kind} ${name} ${mark}`;
  if (last && last.tag === tag) return last;
  at.counts[tag] = (at.counts[tag] || 0) + 1;
  const made = group(kind, name, at, `${at.key}/${name}.${at.counts[tag]}`, about);
  made.tag = tag;
  at.children.push(made);
  return made;
}

// A group of many as runs of them, and so on.
function cutUp(item) {
  if (item.children.length > CHUNK) {
    const runs = [], size = Math.max(CHUNK / 2, Math.ceil(item.children.length / 12));
    for (let i = 0; i < item.children.length; i += size) {
      const run = group("run", `part ${runs.length + 1}`, item, `${item.key}/part.${i}`);
      run.children = item.children.slice(i, i + size);
      run.children.forEach((child) => (child.parent = run));
      runs.push(cutUp(run));
    }
    item.children = runs;
  }
  item.nodes = item.children.flatMap((child) => child.nodes);
  return item;
}

// Groups of one are what is in them; long ones are cut into runs.
function tidy(item) {
  if (item.kind === "node") return item;
  item.children = item.children.map(tidy);
  if (item.kind === "line" && item.children.length === 1) {
    item.children[0].parent = item.parent;
    return item.children[0];
  }
  return cutUp(item);
}

const isOpen = (item) => item.kind !== "node" && graphState.open.has(item.key);

// Opened as far as stays readable.
function opened(lanes) {
  const open = new Set(lanes.map((lane) => lane.key));
  let level = lanes.filter((lane) => lane.name !== "update").flatMap((lane) => lane.children), count = level.length;
  while (level.length) {
    const next = [];
    for (const item of level) {
      if (item.kind === "node" || item.kind === "line" || count + item.children.length - 1 > MOST) continue;
      open.add(item.key);
      count += item.children.length - 1;
      next.push(...item.children);
    }
    level = next;
  }
  return open;
}

// Of each child, how many others come before it: by what it reads; data that is prepared, just
// before it is used.
function ranks(item) {
  const of = new Map(), rank = [], users = item.children.map(() => []);
  item.children.forEach((child, i) => child.nodes.forEach((id) => of.set(id, i)));
  item.children.forEach((child, i) => {
    let most = -1;
    for (const id of child.nodes) {
      for (const src of node(id).srcs) {
        const j = of.get(src);
        if (j !== undefined && j < i) { most = Math.max(most, rank[j]); users[j].push(i); }
      }
    }
    rank[i] = most + 1;
  });
  for (let i = rank.length - 1; i >= 0; i--) {
    if (rank[i] === 0 && users[i].length) rank[i] = Math.max(0, Math.min(...users[i].map((j) => rank[j])) - 1);
  }
  return rank;
}

// The rows of a forward group and of its gradients: each layer faces its own.
function rowsOf(forward, backward) {
  const rows = [], across = innerWidth < 700 ? 2 : 4;
  if (forward) {
    const rank = ranks(forward);
    const levels = new Map();
    forward.children.forEach((child, i) => levels.set(rank[i], [...(levels.get(rank[i]) || []), child]));
    for (const level of [...levels.keys()].sort((a, b) => a - b)) {
      const all = levels.get(level);
      for (let i = 0; i < all.length; i += across) rows.push({ f: all.slice(i, i + across), b: [] });
    }
  }
  if (backward) {
    const rank = ranks(backward), used = new Set();
    const order = backward.children.map((child, i) => [child, rank[i], i]).sort((a, b) => a[1] - b[1] || a[2] - b[2]);
    let at = rows.length - 1, level = -1;
    for (const [child, r] of order) {
      const twin = rows.findLastIndex((row) => row.f.some((f) => f.name === child.name && f.kind === child.kind && child.kind === "module" && !used.has(f) && used.add(f)));
      if (twin >= 0) { rows[twin].b.push(child); at = twin; level = -1; continue; }
      // Others stand beside what they follow, or above it.
      const here = rows[at], free = here && (level === r ? here.b.length < across : !here.b.length);
      if (free) here.b.push(child);
      else if (at > 0 && !rows[at - 1].b.length && !rows[at - 1].f.some((f) => f.kind === "module")) rows[--at].b.push(child);
      else rows.splice(Math.max(0, at), 0, { f: [], b: [child] });
      level = r;
      at = Math.max(0, at);
    }
  }
  return rows;
}

function look(item) {
  if (item.kind === "node") {
    const n = node(item.id), sub = n.op === "const" ? n.detail : n.result;
    return { title: n.op, sub: n.detail && n.op.length + n.detail.length < 24 ? `${n.detail}  ${sub}` : sub, kind: kindOf(n), tip: nodeTip(n) };
  }
  const count = item.nodes.length, ops = `${count} ${count === 1 ? "op" : "ops"}`;
  if (item.kind === "module") {
    const m = P.modules[P.moduleOf.get(item.about)], cls = m ? m.title : "";
    return { title: item.name + (cls && cls !== item.name ? ` ${cls.replace(", bias=True", "")}` : ""), sub: ops, kind: "", tip: lines(item.about, cls, m && m.parameters ? `${m.parameters.toLocaleString("en")} parameters` : "", m && m.seconds ? `${seconds(m.seconds)} in all` : "", ops, lineOf(node(item.nodes[0]))) };
  }
  const tip = item.kind === "line" ? lines(lineOf(node(item.nodes[0])), ops) : lines(item.name, ops, lineOf(node(item.nodes[0])));
  return { title: item.name, sub: `${ops}: ${opsOf(item)}`, kind: "", tip };
}

// The ops of a group, each once.
function opsOf(item) {
  const names = [...new Set(item.nodes.map((id) => node(id).op))];
  return names.slice(0, 4).join(" ") + (names.length > 4 ? " …" : "");
}

const HEAVY = [["attention", "attention"], ["matmul", "matmul"], ["gemm", "matmul"], ["take", "index"], ["index", "index"], ["scatter", "index"], ["sum", "columns"], ["columns", "columns"], ["random", "random"], ["dropout", "random"], ["opaque", "opaque"], ["rows", "rows"]];
const kindOf = (n) => (HEAVY.find(([word]) => n.op.includes(word)) || ["", ""])[1];

// A group and its gradients, side by side: { fw, bw, h, boxes }; a box says in which lane (0, 1) it is.
function layOut(forward, backward) {
  const boxes = [];
  let y = HEAD, fw = 0, bw = 0;
  for (const row of rowsOf(forward, backward)) {
    let h = 0;
    const at = [0, 0], parts = [];
    const put = (lane, item, made) => { parts.push([lane, at[lane], made]); at[lane] += (lane ? made.bw : made.fw) + GAP; h = Math.max(h, made.h); };
    const faced = new Set();
    for (const item of row.f) {
      const alike = (b) => b.name === item.name && b.kind === item.kind && isOpen(b) && !faced.has(b) && b.children.some((x) => item.children.some((y) => x.name === y.name && x.kind === y.kind));
      const twin = isOpen(item) && row.b.find(alike);
      if (twin) {
        faced.add(twin);
        const made = layOut(item, twin);
        parts.push([2, [...at], made]);
        at[0] += made.fw + GAP;
        at[1] += made.bw + GAP;
        h = Math.max(h, made.h);
      } else put(0, item, isOpen(item) ? layOut(item, null) : single(item, 0));
    }
    for (const item of row.b) if (!faced.has(item)) put(1, item, isOpen(item) ? layOut(null, item) : single(item, 1));
    for (const [lane, x, made] of parts) {
      for (const box of made.boxes) {
        const dx = lane === 2 ? x[box.lane] : x;
        boxes.push({ ...box, x: box.x + dx + GAP / 2, y: box.y + y });
      }
    }
    fw = Math.max(fw, at[0]);
    bw = Math.max(bw, at[1]);
    y += h + GAP;
  }
  const least = (item) => Math.min(260, 20 + look(item).title.length * 6.6);
  if (forward) boxes.unshift({ item: forward, lane: 0, x: 0, y: 0, w: (fw = Math.max(fw, least(forward))), h: y, frame: true });
  if (backward) boxes.unshift({ item: backward, lane: 1, x: 0, y: 0, w: (bw = Math.max(bw, least(backward))), h: y, frame: true });
  return { fw, bw, h: y, boxes };
}

function single(item, lane) {
  const { title, sub } = look(item), mark = item.kind === "node" ? 0 : 2;
  const w = Math.max(70, Math.min(210, 18 + Math.max((title.length + mark) * 6.8, sub.length * 5.6)));
  return { fw: w, bw: w, h: HEIGHT, boxes: [{ item, lane, x: 0, y: 0, w, h: HEIGHT, frame: false }] };
}

const cut = (text, width, size) => (text.length * size > width ? `${text.slice(0, Math.max(1, Math.floor(width / size) - 1))}…` : text);

function graphView() {
  const holder = document.getElementById("graph");
  const options = P.graph.stages.map((stage, i) => el("option", { value: i }, `${i ? `${i}. after ${stage.name}` : stage.name}${stage.same ? " (unchanged)" : ""}`));
  const choice = el("select", { id: "stage", "aria-label": "stage of the pipeline", onchange: () => choose(Number(choice.value)) }, options);
  const step = (by) => choose(Math.max(0, Math.min(options.length - 1, graphState.stage + by)));
  const note = el("span.faint", { id: "stage-note" }), canvas = el("div.canvas", { tabindex: -1 });
  const zoomed = (to) => { graphState.zoom = Math.max(0.1, Math.min(3, to)); size(); };
  const fit = () => { if (picture) zoomed(Math.min(1, (canvas.clientWidth - 8) / picture.w, (canvas.clientHeight - 8) / picture.h)); };
  const button = (text, label, f) => el("button", { type: "button", "aria-label": label, onclick: f }, text);
  let lanes = [], picture = null, svg = null, marked = related();
  holder.append(el("div.tools", {}, button("‹", "the stage before", () => step(-1)), choice, button("›", "the next stage", () => step(1)), note, el("span.space"), button("−", "smaller", () => zoomed(graphState.zoom / 1.25)), button("+", "larger", () => zoomed(graphState.zoom * 1.25)), button("fit", "fit into the window", fit), button("close all", "close all", () => { graphState.open = new Set(lanes.map((lane) => lane.key)); draw(); }), button("reset", "open as at first", () => { graphState.open = opened(lanes); draw(); })), canvas);
  canvas.addEventListener("wheel", (event) => { if (event.ctrlKey || event.metaKey) { event.preventDefault(); zoomed(graphState.zoom * (event.deltaY < 0 ? 1.1 : 1 / 1.1)); } }, { passive: false });
  holder.addEventListener("keydown", (event) => { if (event.target.matches("select, input")) return; if (event.key === "+") zoomed(graphState.zoom * 1.25); else if (event.key === "-") zoomed(graphState.zoom / 1.25); else if (event.key === "0") fit(); });
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => { if (event.pointerType === "mouse" && !event.target.closest(".box")) drag = [event.clientX + canvas.scrollLeft, event.clientY + canvas.scrollTop]; });
  addEventListener("pointerup", () => (drag = null));
  canvas.addEventListener("pointermove", (event) => { if (drag) { canvas.scrollLeft = drag[0] - event.clientX; canvas.scrollTop = drag[1] - event.clientY; } });

  function choose(number) {
    show(number);
    if (chosen.kind) reveal();
  }

  function show(number) {
    graphState.stage = number;
    choice.value = number;
    const stage = P.graph.stages[number];
    if (!stage.nodes.loops) stage.nodes.loops = new Set(stage.nodes.map((id) => node(id).inside).filter((id) => id >= 0));
    lanes = treeOf(stage);
    graphState.open ??= opened(lanes);
    if (!lanes.some((lane) => graphState.open.has(lane.key))) graphState.open = opened(lanes);
    const boxes = stage.nodes.filter((id) => !isData(node(id))), before = number ? P.graph.stages[number - 1].nodes.filter((id) => !isData(node(id))) : [];
    const names = (ids) => new Set(ids.map((id) => { const n = node(id); return `${n.order} ${n.op}`; }));
    const was = names(before), is = names(boxes), fresh = [...is].filter((x) => !was.has(x)).length, gone = [...was].filter((x) => !is.has(x)).length;
    stage.fresh = number && fresh < is.size ? was : null;
    const changes = stage.same ? "unchanged" : !number ? "" : stage.fresh ? `${fresh} new, ${gone} gone` : "units in place of ops";
    note.textContent = [`${boxes.length} boxes`, changes, stage.seconds === null ? "" : seconds(stage.seconds)].filter(Boolean).join(" · ");
    draw();
  }

  function draw(keep = null) {
    const scroll = [canvas.scrollLeft, canvas.scrollTop];
    const [forward, backward] = ["forward", "backward"].map((name) => lanes.find((lane) => lane.name === name) || null);
    const rest = lanes.filter((lane) => lane !== forward && lane !== backward);
    const made = forward || backward ? layOut(forward, backward) : { fw: 0, bw: 0, h: 0, boxes: [] };
    const placed = made.boxes.map((box) => ({ ...box, x: box.x + (box.lane ? made.fw + (made.fw ? 60 : 0) : 0) }));
    let w = made.fw + (made.bw ? made.bw + (made.fw ? 60 : 0) : 0), h = made.h;
    for (const lane of rest) {
      const other = layOut(lane, null);
      placed.push(...other.boxes.map((box) => ({ ...box, lane: 2, x: box.x + w + (w ? 60 : 0) })));
      w += other.fw + (w ? 60 : 0);
      h = Math.max(h, other.h);
    }
    const owner = new Map();
    for (const box of placed) if (!box.frame) for (const id of box.item.nodes) owner.set(id, box);
    const edges = new Map();
    for (const box of placed) {
      if (box.frame) continue;
      for (const id of box.item.nodes) {
        for (const src of node(id).srcs) {
          const from = owner.get(src);
          if (!from || from === box) continue;
          if (!edges.has(from)) edges.set(from, new Map());
          const to = edges.get(from);
          to.set(box, (to.get(box) || new Set()).add(src));
        }
      }
    }
    const paths = [], stage = P.graph.stages[graphState.stage];
    for (const [from, to] of edges) {
      for (const [box, ids] of to) {
        if (paths.length > 3000) break;
        const texts = [...new Set([...ids].map((id) => node(id).result))];
        paths.push(el(`path.edge.lane${box.lane}${from.lane === box.lane ? "" : ".across"}`, { d: curve(from, box), "data-tip": `${ids.size} ${ids.size === 1 ? "value" : "values"}: ${texts.slice(0, 4).join(", ")}`, "data-from": from.item.key, "data-to": box.item.key }));
      }
    }
    const shapes = placed.map((box) => drawBox(box, stage));
    svg = el("svg", { role: "group", "aria-label": "graph" }, el("defs", {}, arrow()), shapes.filter((x, i) => placed[i].frame), paths, shapes.filter((x, i) => !placed[i].frame));
    picture = { w: w + 2, h: h + 2, placed };
    canvas.replaceChildren(svg);
    size();
    marks();
    [canvas.scrollLeft, canvas.scrollTop] = scroll;
    const again = keep && svg.querySelector(`[data-key="${CSS.escape(keep)}"]`);
    if (again) focusOn(svg, ".box", again);
  }

  function arrow() {
    return el("marker", { id: "arrow", viewBox: "0 0 6 6", refX: 5, refY: 3, markerWidth: 5, markerHeight: 5, orient: "auto" }, el("path", { d: "M0 0 6 3 0 6z", fill: "var(--faint)" }));
  }

  function curve(a, b) {
    const mid = (box) => box.x + box.w / 2;
    if (a.lane !== b.lane) {
      const right = a.x < b.x, x1 = right ? a.x + a.w : a.x, x2 = right ? b.x : b.x + b.w, y1 = a.y + a.h / 2, y2 = b.y + b.h / 2, dx = (x2 - x1) / 2;
      return `M${x1} ${y1}C${x1 + dx} ${y1} ${x2 - dx} ${y2} ${x2} ${y2}`;
    }
    const down = b.y >= a.y, y1 = down ? a.y + a.h : a.y, y2 = down ? b.y : b.y + b.h;
    if (Math.abs(a.y - b.y) < 1) return `M${mid(a)} ${a.y + a.h}C${mid(a)} ${a.y + a.h + 16} ${mid(b)} ${b.y + b.h + 16} ${mid(b)} ${b.y + b.h}`;
    const dy = Math.min(60, Math.abs(y2 - y1) / 2 + 4) * (down ? 1 : -1);
    return `M${mid(a)} ${y1}C${mid(a)} ${y1 + dy} ${mid(b)} ${y2 - dy} ${mid(b)} ${y2}`;
  }

  function drawBox(box, stage) {
    const { item, x, y, w, h, frame } = box, seen = look(item), closed = item.kind !== "node" && !frame;
    const fresh = item.kind === "node" && stage.fresh && !stage.fresh.has(`${node(item.id).order} ${node(item.id).op}`);
    const shape = el(`g.box.${item.kind}${frame ? ".frame" : ""}${fresh ? ".fresh" : ""}`, { tabindex: -1, role: "button", "data-key": item.key, "aria-expanded": item.kind === "node" ? null : frame, "aria-label": `${seen.title}, ${seen.sub}`, transform: `translate(${x + 1} ${y + 1})`, onclick: (event) => { event.stopPropagation(); press(item); } });
    const head = frame ? el("g", { "data-tip": seen.tip }, el("rect.head", { width: w, height: HEAD - 2, rx: 5 }), el("text", { x: 7, y: 14 }, cut(`▾ ${seen.title}`, w - 8, 6.6))) : null;
    const inner = frame ? [el("rect.body", { width: w, height: h, rx: 6 }), head] : [el("rect.body", { width: w, height: h, rx: item.kind === "node" ? 9 : 4, style: seen.kind ? `--own: var(--${seen.kind})` : null }), el("text.title", { x: 8, y: 16 }, cut(`${closed ? "▸ " : ""}${seen.title}`, w - 12, 6.8)), el("text.sub", { x: 8, y: 30 }, cut(seen.sub, w - 12, 5.6))];
    shape.append(...inner);
    if (!frame) shape.setAttribute("data-tip", seen.tip);
    return shape;
  }

  function press(item) {
    if (item.kind === "node") return select("node", item.id);
    if (item.kind === "phase") return undefined;
    if (graphState.open.has(item.key)) graphState.open.delete(item.key);
    else graphState.open.add(item.key);
    draw(item.key);
    return undefined;
  }

  function size() {
    if (!svg) return;
    svg.setAttribute("viewBox", `0 0 ${picture.w} ${picture.h}`);
    svg.setAttribute("width", picture.w * graphState.zoom);
    svg.setAttribute("height", picture.h * graphState.zoom);
  }

  // Arrow keys go to the nearest box on that side.
  canvas.addEventListener("keydown", (event) => {
    const here = event.target.closest(".box"), way = { ArrowDown: [0, 1], ArrowUp: [0, -1], ArrowRight: [1, 0], ArrowLeft: [-1, 0] }[event.key];
    if (!here || (!way && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    const all = new Map(picture.placed.map((box) => [box.item.key, box])), box = all.get(here.dataset.key);
    if (!way) return press(box.item);
    const middle = (b) => [b.x + b.w / 2, b.frame ? b.y + 10 : b.y + b.h / 2], [x, y] = middle(box);
    let best = null, least = Infinity;
    for (const other of picture.placed) {
      const [ox, oy] = middle(other), along = (ox - x) * way[0] + (oy - y) * way[1], aside = Math.abs((ox - x) * way[1]) + Math.abs((oy - y) * way[0]);
      if (other !== box && along > 1 && along + 2 * aside < least) { least = along + 2 * aside; best = other; }
    }
    if (best) focusOn(svg, ".box", svg.querySelector(`[data-key="${CSS.escape(best.item.key)}"]`));
    return undefined;
  });

  function marks() {
    const chosenModule = chosen.kind === "module" ? P.modules[chosen.id].path : null;
    const ofModule = (item) => (chosenModule ? item.kind === "module" && item.about === chosenModule : item.kind !== "phase" && item.nodes.every((id) => !pathOf(node(id).module)));
    let first = null;
    for (const box of picture.placed) {
      const shape = svg.querySelector(`[data-key="${CSS.escape(box.item.key)}"]`), item = box.item;
      const on = chosenModule !== null ? ofModule(item) : !box.frame && item.nodes.some((id) => marked.nodes.has(id) || marked.places?.has(`${node(id).order} ${node(id).op}`));
      shape.classList.toggle("marked", on);
      if (on) first ??= shape;
    }
    const keys = new Set([...svg.querySelectorAll(".box.marked")].map((x) => x.dataset.key));
    for (const path of svg.querySelectorAll(".edge")) path.classList.toggle("on", keys.has(path.dataset.from) || keys.has(path.dataset.to));
    (first || svg.querySelector(".box"))?.setAttribute("tabindex", 0);
    return first;
  }

  // Open what is around the nodes that are marked.
  function reveal() {
    const stage = P.graph.stages[graphState.stage], here = new Set(stage.nodes);
    if (![...marked.nodes].some((id) => here.has(id))) {
      marked.places = new Set([...marked.nodes].map((id) => `${node(id).order} ${node(id).op}`));
      if (marked.nodes.size && !stage.nodes.some((id) => marked.places.has(`${node(id).order} ${node(id).op}`))) {
        const other = P.graph.stages.findLastIndex((s) => s.nodes.some((id) => marked.nodes.has(id)));
        if (other >= 0) show(other);
      }
    }
    if (chosen.kind === "module" && P.modules[chosen.id].path) {
      const inside = (s) => s.nodes.some((id) => !isData(node(id)) && within(pathOf(node(id).module), P.modules[chosen.id].path));
      const other = inside(stage) ? -1 : P.graph.stages.findIndex(inside);
      if (other >= 0) show(other);
    }
    let count = 0;
    const open = (item) => { for (let up = item.parent; up; up = up.parent) graphState.open.add(up.key); };
    const visit = (item) => {
      const wanted = chosen.kind === "module" ? item.kind === "module" && item.about === P.modules[chosen.id].path : item.kind === "node" && (marked.nodes.has(item.id) || marked.places?.has(`${node(item.id).order} ${node(item.id).op}`));
      if (wanted && count++ < 8) open(item);
      if (item.kind !== "node") item.children.forEach(visit);
    };
    lanes.forEach(visit);
    draw();
    const first = marks();
    if (!first) return;
    const box = first.getBoundingClientRect(), frame = canvas.getBoundingClientRect();
    canvas.scrollLeft += box.left + Math.min(box.width, frame.width) / 2 - frame.left - frame.width / 2;
    canvas.scrollTop += box.top + Math.min(box.height, frame.height) / 2 - frame.top - frame.height / 2;
  }

  // What can be read at once: a graph that is much wider than the window begins smaller.
  show(Math.max(0, P.graph.stages.findIndex((stage) => stage.name === "lower") - 1)); // before ops are lowered: as explain() knows it
  if (picture.w > canvas.clientWidth) zoomed(Math.max(0.55, (canvas.clientWidth - 8) / picture.w));
  return { mark(found) { marked = found; if (chosen.kind) reveal(); else draw(); } };
}

// Kernels -----------------------------------------------------------------------------------------

function kernelsView() {
  const calls = P.kernels.calls, total = calls.reduce((sum, k) => sum + weight(k), 0) || 1;
  const most = calls.reduce((m, k) => Math.max(m, weight(k)), 0) || 1;
  const columns = [
    ["time", (k) => weight(k), (k) => seconds(k.seconds), true],
    ["share", (k) => weight(k), (k) => bar(weight(k) / most, k.kind), false],
    ["kind", (k) => k.kind, (k) => el("span", {}, el("span.dot", { style: `background:${colour(k.kind)}` }), k.kind), false],
    ["ops", (k) => k.ops, (k) => cut(k.ops, 24, 1), false],
    ["module", (k) => pathOf(k.module), (k) => pathOf(k.module).split(".").slice(-3).join("."), false],
    ["line", (k) => lineOf(k), (k) => textOf(k), false],
    ["FLOPs", (k) => k.flops, (k) => (k.flops ? short(k.flops) : ""), true],
    ["bytes", (k) => k.bytes, (k) => short(k.bytes, "B"), true],
    ["wave", (k) => k.wave, (k) => (k.wave ? String(k.wave) : "once"), true],
    ["result", (k) => k.result, (k) => cut(k.result, 26, 1), false],
  ];
  const rows = calls.map((k) => el("tr", { tabindex: -1, "data-id": k.id, "data-tip": kernelTip(k), onclick: () => select("kernel", k.id) }, columns.map(([name, , show, number]) => el(number ? "td.number" : name === "line" ? "td.code" : "td", {}, show(k)))));
  const body = el("tbody", {}), kinds = [...new Set(calls.map((k) => k.kind))], off = new Set();
  let sorted = 0, down = true, text = "", limit = 400, marked = new Set();
  const heads = columns.map(([name], i) => el("th", { scope: "col" }, el("button.sort", { type: "button", onclick: () => { down = sorted === i ? !down : i < 2 || i === 6 || i === 7; sorted = i; fill(); } }, name)));
  const chips = kinds.map((kind) => { const chip = el("button.kind", { type: "button", "aria-pressed": true, onclick: () => { if (off.delete(kind) === false) off.add(kind); chip.setAttribute("aria-pressed", !off.has(kind)); fill(); } }, el("span.dot", { style: `background:${colour(kind)}` }), `${kind} ${calls.filter((k) => k.kind === kind).length}`); return chip; });
  const more = el("button", { type: "button", onclick: () => { limit = Infinity; fill(); } }), count = el("p.faint", {});
  const matches = (k) => !off.has(k.kind) && (!text || kernelTip(k).toLowerCase().includes(text));
  function fill() {
    const value = columns[sorted][1], sign = down ? -1 : 1;
    const order = calls.filter(matches).sort((a, b) => { const x = value(a), y = value(b); return sign * (x < y ? -1 : x > y ? 1 : 0) || a.id - b.id; });
    if (chosen.kind && chosen.kind !== "kernel") order.sort((a, b) => marked.has(b.id) - marked.has(a.id));
    heads.forEach((head, i) => head.setAttribute("aria-sort", i !== sorted ? "none" : down ? "descending" : "ascending"));
    const visible = order.slice(0, limit);
    body.replaceChildren(...visible.map((k) => rows[k.id]));
    body.firstChild?.setAttribute("tabindex", 0);
    more.hidden = order.length <= limit;
    more.textContent = `show all ${order.length}`;
    count.textContent = `${order.length} of ${calls.length} calls${!P.totals.seconds ? ", no run was timed: sorted by their work" : `, ${seconds(order.reduce((sum, k) => sum + (k.seconds || 0), 0))} of ${seconds(total)}, in run ${P.timed}`}`;
  }
  roving(body, "tr");
  const grouped = new Map();
  P.kernels.refusals.forEach((r) => { const key = `${r.op}: ${r.reason}`; grouped.set(key, [...(grouped.get(key) || []), r]); });
  const refusals = [...grouped].sort((a, b) => b[1].length - a[1].length).map(([why, all]) => el("li", { "data-tip": whole(all[0].place) }, `${all.length} × ${why}`, " ", all.slice(0, 5).map((r) => (r.kernel >= 0 ? link("kernels", "kernel", r.kernel, "its kernel") : r.node >= 0 ? link("graph", "node", r.node, "its op") : null)), el("div.faint.code", {}, whole(all[0].place))));
  document.getElementById("kernels").append(el("div.tools", {}, chips), count, el("div.scroll", {}, el("table.calls", {}, el("thead", {}, el("tr", {}, heads)), body)), more, el("h2", {}, "Not fused"), refusals.length ? el("ul.refusals", {}, refusals) : el("p.faint", {}, P.kind === "ops" ? P.why : "No fusion was refused."));
  fill();
  return {
    mark(found) {
      marked = found.kernels;
      rows.forEach((row, i) => row.classList.toggle("marked", marked.has(i)));
      if (chosen.kind === "kernel" && !rows[chosen.id].isConnected) { text = ""; off.clear(); chips.forEach((chip) => chip.setAttribute("aria-pressed", true)); limit = Infinity; }
      fill();
      if (chosen.kind) intoView(rows[chosen.kind === "kernel" ? chosen.id : [...marked][0]]);
    },
    find(wanted) { text = wanted; fill(); },
  };
}

// Memory ------------------------------------------------------------------------------------------

function memoryView() {
  const holder = document.getElementById("memory"), arena = P.memory.buffers.filter((b) => b.offset !== null);
  const waves = P.kernels.waves.length, calls = P.kernels.calls, LEFT = 58, TOP = 8, BARS = 90, SPACE = 34;
  const box = el("div.scroll.chart", {}), legend = el("div.tools.legend", {});
  const kinds = [...new Set(calls.filter((k) => k.loop < 0 && k.wave).map((k) => k.kind))];
  let zoom = 1, found = related(), text = "";
  kinds.forEach((kind) => legend.append(el("span", {}, el("span.dot", { style: `background:${colour(kind)}` }), kind)));
  const button = (label, name, f) => el("button", { type: "button", "aria-label": name, onclick: f }, label);
  legend.append(el("span.space"), button("−", "narrower", () => { zoom = Math.max(1, zoom / 1.5); draw(); }), button("+", "wider", () => { zoom = Math.min(60, zoom * 1.5); draw(); }));
  const roles = new Map();
  P.memory.buffers.filter((b) => b.over < 0).forEach((b) => { const r = roles.get(b.role) || { count: 0, bytes: 0 }; r.count++; r.bytes += b.bytes; roles.set(b.role, r); });
  const outside = P.memory.buffers.filter((b) => b.offset === null).sort((a, b) => b.bytes - a.bytes);
  const rows = outside.slice(0, 200).map((b) => el("tr", { tabindex: -1, "data-id": b.id, "data-tip": bufferTip(b), onclick: () => select("buffer", b.id) }, el("td.number", {}, short(b.bytes, "B")), el("td", {}, b.role), el("td", {}, b.name), el("td", {}, `${b.dtype} ${b.result}`)));
  rows[0]?.setAttribute("tabindex", 0);
  const table = el("tbody", {}, rows);
  roving(table, "tr");
  const title = P.memory.stacked ? `Op by op each value has memory of its own; stacked here, they take ${short(P.memory.arena_bytes, "B")}.` : `The arena: ${short(P.memory.arena_bytes, "B")} over ${waves} waves. A rectangle is a buffer: from the wave that writes it first to the last that reads it.`;
  holder.append(el("p.faint", {}, title), legend, box, el("h2", {}, "Beside the arena"), el("p.faint", {}, [...roles].filter(([role]) => role !== "arena").map(([role, r]) => `${role}: ${r.count}, ${short(r.bytes, "B")}`).join(" · ")), el("div.scroll", {}, el("table", {}, el("thead", {}, el("tr", {}, ["bytes", "role", "name", "holds"].map((name) => el("th", { scope: "col" }, name)))), table)));
  const order = [...arena].sort((a, b) => a.first - b.first || a.offset - b.offset), place = new Map(order.map((b, i) => [b.id, i]));

  function draw() {
    const width = Math.max(320, holder.clientWidth - 2) * zoom, height = Math.max(240, Math.min(520, innerHeight * 0.5));
    const peak = P.memory.arena_bytes || 1, x = (wave) => LEFT + ((wave - 1) / Math.max(1, waves)) * (width - LEFT - 8), y = (bytes) => TOP + height * (1 - bytes / peak);
    const parts = [];
    for (const bytes of ticks(peak, 5)) parts.push(el("line.grid", { x1: LEFT, x2: width - 8, y1: y(bytes), y2: y(bytes) }), el("text.axis", { x: LEFT - 6, y: y(bytes) + 4, "text-anchor": "end" }, short(bytes, "B")));
    const visible = arena.length > 8000 ? [...arena].sort((a, b) => b.bytes - a.bytes).slice(0, 8000) : order;
    for (const b of visible) {
      const kind = b.kernel >= 0 ? calls[b.kernel].kind : "other", w = Math.max(0.7, x(b.last + 1) - x(b.first) - 0.6), h = Math.max(0.7, (height * b.bytes) / peak - 0.6);
      const on = found.buffers.has(b.id), faint = (chosen.kind && found.buffers.size && !on) || (text && !bufferTip(b).toLowerCase().includes(text));
      parts.push(el(`rect.buffer${on ? ".marked" : ""}${faint ? ".dim" : ""}`, { x: x(b.first), y: y(b.offset + b.bytes), width: w, height: h, fill: P.kind === "ops" ? `var(--${b.phase === "backward" ? "backward" : b.phase === "update" ? "rows" : "forward"})` : colour(kind), tabindex: -1, role: "button", "aria-label": bufferTip(b), "data-id": b.id, "data-tip": bufferTip(b), onclick: () => select("buffer", b.id) }));
      if (w > 70 && h > 12) parts.push(el("text.name", { x: x(b.first) + 4, y: y(b.offset + b.bytes / 2) + 4 }, cut(pathOf(b.module) || b.name, w - 6, 6)));
    }
    const base = TOP + height + SPACE + BARS, tallest = P.kernels.waves.reduce((m, wave) => Math.max(m, wave.kernels.flat().length), 1);
    P.kernels.waves.forEach((wave, i) => {
      const counts = new Map();
      wave.kernels.flat().forEach((k) => counts.set(calls[k].kind, (counts.get(calls[k].kind) || 0) + 1));
      let top = base;
      for (const [kind, n] of counts) {
        const h = (BARS * n) / tallest;
        top -= h;
        parts.push(el("rect", { x: x(i + 1), y: top, width: Math.max(0.5, x(i + 2) - x(i + 1) - 1), height: h, fill: colour(kind) }));
      }
      const heaviest = wave.kernels.flat().sort((a, b) => weight(calls[b]) - weight(calls[a]))[0];
      const words = [...counts].map(([kind, n]) => `${n} ${kind}`).join(", ");
      parts.push(el("rect.wave", { x: x(i + 1), y: base - BARS, width: Math.max(0.5, x(i + 2) - x(i + 1)), height: BARS, "data-tip": lines(`wave ${i + 1}${wave.seconds ? `: ${seconds(wave.seconds)}` : ""}`, words, heaviest === undefined ? "" : lineOf(calls[heaviest])), onclick: () => heaviest !== undefined && go("kernels", "kernel", heaviest) }));
    });
    for (const wave of ticks(waves, Math.max(4, width / 160))) parts.push(el("text.axis", { x: x(Math.max(1, wave)), y: base + 16, "text-anchor": "middle" }, String(Math.max(1, Math.round(wave)))));
    parts.push(el("text.axis", { x: LEFT - 6, y: base - BARS + 8, "text-anchor": "end" }, String(tallest)), el("text.axis", { x: LEFT - 6, y: base, "text-anchor": "end" }, "0"), el("text.axis", { x: LEFT, y: base - BARS - 8 }, P.kind === "ops" ? "ops in each step" : "kernels in each wave"), el("text.axis", { x: width - 8, y: base + 32, "text-anchor": "end" }, P.kind === "ops" ? "step" : "wave"));
    const svg = el("svg", { width, height: base + 38, role: "group", "aria-label": "the arena over waves" }, parts);
    box.replaceChildren(svg);
    (svg.querySelector(".buffer.marked") || svg.querySelector(".buffer"))?.setAttribute("tabindex", 0);
  }

  box.addEventListener("keydown", (event) => {
    const here = event.target.closest(".buffer"), by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!here || (!by && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    if (!by) return select("buffer", Number(here.dataset.id));
    const next = order[place.get(Number(here.dataset.id)) + by], target = next && box.querySelector(`[data-id="${next.id}"]`);
    if (target) focusOn(box, ".buffer", target);
    return undefined;
  });
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; if (!holder.hidden) draw(); } });
  return {
    mark(now) {
      found = now;
      rows.forEach((row) => row.classList.toggle("marked", found.buffers.has(Number(row.dataset.id))));
      draw();
      box.querySelector(".buffer.marked")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    },
    find(wanted) { text = wanted; draw(); },
  };
}

// Round numbers up to a largest one.
function ticks(most, count) {
  const rough = most / count, unit = 10 ** Math.floor(Math.log10(rough || 1)), step = [1, 2, 5, 10].map((x) => x * unit).find((x) => x >= rough) || unit;
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step);
}

const VIEWS = { modules: modulesView, graph: graphView, kernels: kernelsView, memory: memoryView };

// Search ------------------------------------------------------------------------------------------

function found(text) {
  const wanted = text.toLowerCase(), has = (...parts) => parts.some((part) => part && part.toLowerCase().includes(wanted));
  const hits = [];
  P.modules.forEach((m, i) => m.path && has(m.path, m.title) && hits.push(["modules", "module", i, `${m.path} ${m.title}`]));
  P.kernels.calls.forEach((k, i) => has(`${k.kind}: ${k.ops}`, textOf(k), pathOf(k.module)) && hits.push(["kernels", "kernel", i, `${k.kind}: ${k.ops} · ${lineOf(k)}`]));
  for (const id of P.graph.stages[graphState.stage].nodes) {
    const n = node(id);
    if (!isData(n) && has(n.op, n.detail, textOf(n), pathOf(n.module))) hits.push(["graph", "node", id, `${n.op} ${n.result} · ${pathOf(n.module) || lineOf(n)}`]);
  }
  P.memory.buffers.forEach((b, i) => has(b.name, pathOf(b.module)) && hits.push(["memory", "buffer", i, `${b.name} ${short(b.bytes, "B")} · ${pathOf(b.module)}`]));
  return [...hits.filter((hit) => hit[0] === chosen.tab), ...hits.filter((hit) => hit[0] !== chosen.tab)];
}

function searchBox() {
  const list = el("div.hits", { role: "listbox", id: "hits", hidden: true });
  const input = el("input", { type: "search", id: "search", placeholder: "search ( / )", "aria-label": "search modules, ops, kernels, memory and lines", "aria-controls": "hits", autocomplete: "off", spellcheck: "false" });
  let at = -1, hits = [];
  const pick = (hit) => { list.hidden = true; input.blur(); go(hit[0], hit[1], hit[2]); };
  const update = () => {
    const text = input.value.trim();
    hits = text ? found(text) : [];
    at = -1;
    for (const view of Object.values(shown)) view.find?.(text.toLowerCase());
    list.replaceChildren(...hits.slice(0, 40).map((hit) => el("div", { role: "option", onmousedown: (event) => { event.preventDefault(); pick(hit); } }, el("span.faint", {}, hit[0]), " ", hit[3])), el("div.faint", {}, hits.length ? `${hits.length} found` : `nothing has "${text}"`));
    list.hidden = !text;
  };
  input.addEventListener("input", update);
  input.addEventListener("focus", () => input.value && update());
  input.addEventListener("blur", () => (list.hidden = true));
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      at = Math.max(0, Math.min(Math.min(hits.length, 40) - 1, at + (event.key === "ArrowDown" ? 1 : -1)));
      [...list.children].forEach((option, i) => option.setAttribute("aria-selected", i === at));
      list.children[at]?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter" && hits.length) pick(hits[Math.max(0, at)]);
    else if (event.key === "Escape") { input.value = ""; update(); input.blur(); event.stopPropagation(); }
    else return;
    event.preventDefault();
  });
  return el("div.search", {}, input, list);
}

// The page ----------------------------------------------------------------------------------------

function start(plan) {
  prepare(plan);
  const t = P.totals, sum = P.modules.reduce((n, m) => n + (m.parent < 0 ? m.parameters : 0), 0);
  const summary = [P.device, sum ? `${sum.toLocaleString("en")} parameters` : "", P.kind === "ops" ? `${t.kernels} ops, one by one` : `${t.kernels} kernels in ${t.waves} waves`, t.flops ? short(t.flops, "FLOP") : "", t.seconds ? `${seconds(t.seconds)} in run ${P.timed}` : "not timed", `${short(t.peak_bytes, "B")} at most beside its inputs`].filter(Boolean).join(" · ");
  const tabs = NAMES.map((name) => el("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": name, onclick: () => go(name, chosen.kind, chosen.id) }, name));
  const bar = el("div.tabs", { role: "tablist", "aria-label": "views" }, tabs);
  bar.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = tabs[(tabs.indexOf(event.target) + by + tabs.length) % tabs.length];
    next.focus();
    next.click();
  });
  document.body.prepend(
    el("header", {}, el("div.top", {}, el("h1", { title: P.name }, P.name.split("<locals>.").at(-1)), searchBox(), themeButton()), el("p.faint.summary", {}, summary), P.notes.map((note) => el("p.faint.summary", {}, note)), bar),
    el("main", {}, el("div.views", {}, NAMES.map((name) => el("section", { id: name, role: "tabpanel", "aria-labelledby": `tab-${name}`, hidden: true }))), el("aside", { id: "details", "aria-live": "polite", hidden: true })),
  );
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches?.("input, select, textarea");
    if (event.key === "/" && !typing) { event.preventDefault(); document.getElementById("search").focus(); }
    else if (event.key === "Escape" && !typing) {
      const search = document.getElementById("search");
      if (search.value) { search.value = ""; search.dispatchEvent(new Event("input")); } else if (chosen.kind) go(chosen.tab);
    }
    else if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey && "1234".includes(event.key) && event.key) go(NAMES[Number(event.key) - 1], chosen.kind, chosen.id);
  });
  addEventListener("hashchange", arrive);
  arrive();
  document.body.dataset.ready = "yes";
}

unpack(data().plan).then(start, (error) => document.body.prepend(el("main", {}, el("p", {}, `This page cannot be shown by this browser: ${error.message}. A current Chrome, Firefox or Safari can.`))));
