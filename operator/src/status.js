"use strict";
// Values from the API reach the page only through textContent and setAttribute of numbers, never as markup.
const MAX_ROWS = 200;
const STATES = ["Limiting", "Idle", "Held", "Fallback", "Unknown", "NoProxy", "Refused"];
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const filter = byId("filter");

function make(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
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

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString();
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

function range(points, key) {
  let min = Infinity, max = -Infinity;
  for (const point of points) {
    const value = point[key];
    if (typeof value !== "number") continue;
    if (value < min) min = value;
    if (value > max) max = value;
  }
  return min <= max ? { min, max } : null;
}

function curve(svg, points, key, area, step) {
  const bounds = range(points, key);
  if (!bounds) return null;
  const from = points[0].at, span = Math.max(points[points.length - 1].at - from, 1);
  const high = bounds.max - bounds.min;
  const x = (point) => (area.pad + (point.at - from) / span * (area.width - 2 * area.pad)).toFixed(1);
  const y = (point) => (high === 0 ? area.height / 2
    : area.height - area.pad - (point[key] - bounds.min) / high * (area.height - 2 * area.pad)).toFixed(1);
  for (const part of segments(points, key)) {
    if (part.length === 1) {
      svg.append(draw("circle", { class: key, cx: x(part[0]), cy: y(part[0]), r: 1.5 }));
      continue;
    }
    let path = `M${x(part[0])} ${y(part[0])}`;
    for (const point of part.slice(1)) path += step ? `H${x(point)}V${y(point)}` : `L${x(point)} ${y(point)}`;
    svg.append(draw("path", { class: key, d: path }));
  }
  return bounds;
}

function plot(points) {
  const box = make("div");
  if (!Array.isArray(points) || points.length === 0) {
    box.append(make("span", "no points yet", "muted small"));
    return box;
  }
  const area = { width: 200, height: 44, pad: 3 };
  const svg = draw("svg", { width: area.width, height: area.height, viewBox: `0 0 ${area.width} ${area.height}`, role: "img" });
  svg.append(draw("rect", { class: "frame", x: 0.5, y: 0.5, width: area.width - 1, height: area.height - 1 }));
  const metric = curve(svg, points, "metric", area, false);
  const limit = curve(svg, points, "limit", area, true);
  const text = (name, bounds) => `${name} ${bounds ? `${number(bounds.min)} to ${number(bounds.max)}` : "none"}`;
  const times = `${clock(points[0].at)} to ${clock(points[points.length - 1].at)}`;
  svg.setAttribute("aria-label", `${text("limit", limit)}, ${text("metric", metric)}, ${times}`);
  const legend = make("div", undefined, "small");
  legend.append(make("span", text("limit", limit), "key-limit"), document.createTextNode(", "), make("span", text("metric", metric), "key-metric"));
  box.append(svg, legend, make("div", times, "muted small"));
  return box;
}

function metricList(metrics) {
  const list = make("ul");
  for (const [name, reading] of Object.entries(metrics || {})) {
    const value = number(reading.value);
    const fresh = reading.state === "Fresh" && typeof reading.value === "number";
    const item = make("li", fresh ? `${name} = ${value}` : `${name} = ${value} (${String(reading.state).toLowerCase()})`, fresh ? "" : "stale");
    if (reading.failure) item.append(make("div", reading.failure, "small"));
    list.append(item);
  }
  if (!list.firstChild) list.append(make("li", "none", "muted"));
  return list;
}

function reasons(item) {
  const cell = make("td", item.reason, "reason");
  if (item.descriptors.length > 1) {
    const list = make("ul", undefined, "small muted");
    for (const d of item.descriptors) {
      const quota = typeof d.quota === "number" ? `, ${d.quota}` : "";
      list.append(make("li", `${d.set}[${d.index}] ${d.state}${quota}: ${d.reason}`));
    }
    cell.append(list);
  }
  return cell;
}

function row(item) {
  const line = make("tr");
  const name = make("td", undefined, "name");
  name.append(make("div", item.name), make("div", item.namespace, "muted small"));
  const state = make("td");
  const known = STATES.includes(item.state) ? ` ${item.state}` : "";
  state.append(make("span", item.state, `badge${known}`));
  const limit = make("td", item.limit, "limit");
  if (item.strategy) limit.append(make("div", item.strategy, "muted small"));
  const metrics = make("td");
  metrics.append(metricList(item.metrics));
  const history = make("td");
  history.append(plot(item.history));
  line.append(name, state, limit, reasons(item), make("td", number(item.pods), "num"), metrics, history);
  return line;
}

function time(millis) {
  return new Date(millis).toLocaleTimeString();
}

function summary(view) {
  if (view.answered === null) return "";
  const states = Object.entries(view.counts).sort().map(([state, n]) => `${n} ${state || "new"}`).join(", ");
  return `${view.total} limiters${states ? `: ${states}` : ""}; as of ${time(view.answered)}`;
}

function note(view) {
  const hidden = view.found - view.rows.length;
  if (hidden > 0) return `${view.rows.length} rows are shown, ${hidden} more are hidden: narrow the filter to see them.`;
  if (view.answered !== null && view.total === 0) return "There is no SmartLimiter yet.";
  if (view.answered !== null && view.found === 0) return "No limiter matches the filter.";
  return "";
}

function alertText(view) {
  if (view.error === null) return "";
  const since = view.answered === null ? "no answer yet" : `no answer since ${time(view.answered)}, values may be old`;
  return `The operator does not answer: ${since} (${view.error}). The page tries again by itself.`;
}

function render(view) {
  byId("rows").replaceChildren(...view.rows.map(row));
  byId("summary").textContent = summary(view);
  byId("note").textContent = note(view);
  byId("alert").textContent = alertText(view);
  byId("alert").hidden = view.error === null;
}

const words = () => filter.value.toLowerCase().split(/\s+/).filter(Boolean);
const worker = new Worker(URL.createObjectURL(new Blob([byId("worker").textContent], { type: "text/javascript" })));
worker.onmessage = (event) => render(event.data);
worker.postMessage({ words: words(), url: new URL("/api/v1/limiters", location.href).href, maxRows: MAX_ROWS });
filter.addEventListener("input", () => worker.postMessage({ words: words() }));
