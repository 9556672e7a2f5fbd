"use strict";
// Values from the API reach the page only through textContent and setAttribute, never as markup.
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function make(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

// An element with children; texts become text nodes, what is null is left out.
function box(tag, className, ...children) {
  const node = make(tag, undefined, className);
  node.append(...children.filter((child) => child !== null));
  return node;
}

function link(href, text, className) {
  const node = make("a", text, className);
  node.setAttribute("href", href);
  return node;
}

function draw(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function number(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "-";
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
}

function bytes(n) {
  if (!Number.isFinite(n)) return "-";
  if (n >= 1e6) return `${(n / 1e6).toFixed(1)} MB`;
  return n >= 1e3 ? `${(n / 1e3).toFixed(1)} kB` : `${n} B`;
}

const clock = (millis) => new Date(millis).toLocaleTimeString();

function badge(text, state) {
  return make("span", text, `badge ${/^[A-Za-z]+$/.test(state) ? state : ""}`.trim());
}

// A refresh builds what should be there and changes only what differs, so that focus, selected text and the place of the
// page stay as they are.

function isSelected(node) {
  const selection = document.getSelection();
  return selection !== null && !selection.isCollapsed && selection.containsNode(node, true);
}

const isHeld = (node) => node.contains(document.activeElement) || isSelected(node);

function morph(old, wanted) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== wanted.data && !isSelected(old)) old.data = wanted.data;
    return;
  }
  for (const { name, value } of [...wanted.attributes]) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!wanted.hasAttribute(name)) old.removeAttribute(name);
  }
  fill(old, [...wanted.childNodes]);
}

const keyOf = (node) => (node.dataset ? node.dataset.key : undefined);

// Gives an element these children. Those with a key are found again by it, others by their order.
function fill(parent, wanted) {
  const keyed = new Map(), others = [];
  for (const child of parent.childNodes) {
    if (keyOf(child) === undefined) others.push(child);
    else keyed.set(keyOf(child), child);
  }
  const children = wanted.map((child) => {
    const old = keyOf(child) === undefined ? others.shift() : keyed.get(keyOf(child));
    if (old === undefined || old.nodeName !== child.nodeName) return child;
    morph(old, child);
    return old;
  });
  arrange(parent, children);
}

// A node that is moved loses focus and selection: the others are moved around the first one that has them. Of two
// neighbours in the wrong order the nearer one goes: it comes back further on, and the many behind it stay.
function arrange(parent, wanted) {
  const focused = document.activeElement;
  const pinned = wanted.findIndex((node) => node.parentNode === parent && isHeld(node));
  const keep = new Set(wanted);
  for (const child of [...parent.childNodes]) {
    if (!keep.has(child)) child.remove();
  }
  let after = pinned < 0 ? null : wanted[pinned];
  for (const node of wanted.slice(0, Math.max(pinned, 0)).reverse()) {
    if (after.previousSibling && after.previousSibling.previousSibling === node) after.previousSibling.remove();
    if (after.previousSibling !== node) parent.insertBefore(node, after);
    after = node;
  }
  let before = pinned < 0 ? null : wanted[pinned];
  const following = () => (before === null ? parent.firstChild : before.nextSibling);
  for (const node of wanted.slice(pinned + 1)) {
    if (following() && following().nextSibling === node) following().remove();
    if (following() !== node) parent.insertBefore(node, following());
    before = node;
  }
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

function table(heads, rows, className) {
  const head = box("tr", "", ...heads.map((text) => { const th = make("th", text); th.setAttribute("scope", "col"); return th; }));
  const line = (cells, index) => {
    const tr = box("tr", "", ...cells.map((cell, i) => {
      const td = typeof cell === "object" ? box("td", "", cell) : make("td", cell);
      td.dataset.head = heads[i];
      return td;
    }));
    tr.dataset.key = `${index}`;
    return tr;
  };
  return box("table", `facts ${className || ""}`.trim(), box("thead", "", head), box("tbody", "", ...rows.map(line)));
}

function section(title, ...content) {
  const node = box("section", "", make("h2", title), ...content);
  node.dataset.key = title;
  return node;
}

// Splits at missing values, so that a gap is seen as a gap.
function segments(points, key) {
  const out = [];
  let open = null;
  for (const point of points) {
    if (typeof point[key] !== "number") { open = null; continue; }
    if (!open) { open = []; out.push(open); }
    open.push(point);
  }
  return out;
}

// One quantity over time with the ends of its axes; `step` for what holds until it changes.
function chart(points, key, title, step) {
  const values = points.map((point) => point[key]).filter((value) => typeof value === "number");
  if (!values.length) return box("figure", "chart", make("figcaption", `${title}: no value yet`, "muted"));
  const width = 600, height = 100, pad = 4;
  const high = Math.max(...values), low = Math.min(0, ...values), span = high - low || 1;
  const from = points[0].at, time = Math.max(points[points.length - 1].at - from, 1);
  const x = (point) => ((point.at - from) / time * width).toFixed(1);
  const y = (point) => (height - pad - (point[key] - low) / span * (height - 2 * pad)).toFixed(1);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${number(Math.min(...values))} to ${number(high)}` });
  for (const part of segments(points, key)) {
    let path = `M${x(part[0])} ${y(part[0])}`;
    for (const point of part.slice(1)) path += step ? `H${x(point)}V${y(point)}` : `L${x(point)} ${y(point)}`;
    if (part.length === 1) path += "h2";
    svg.append(draw("path", { class: key === "metric" ? "metric" : "limit", d: path }));
  }
  const now = values[values.length - 1];
  const ends = box("div", "ends small muted", make("span", clock(from * 1000)), make("span", clock(points[points.length - 1].at * 1000)));
  const axis = box("div", "axis small muted", make("span", number(high)), make("span", number(low)));
  return box("figure", "chart", make("figcaption", `${title}; last value ${number(now)}`), box("div", "plot", axis, svg), ends);
}
