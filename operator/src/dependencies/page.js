// The view of who calls whom.
const MAX_NODES = 200;
const MAX_ROWS = 300;
const PERIOD_MS = 5000;
const TIMEOUT_MS = 30000;
const view = { edges: [], total: 0, fences: [], error: null, answered: null, chosen: null, drawn: "" };

function age(seconds) {
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${unit} ago`;
  }
  return `${seconds} s ago`;
}

const words = () => byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);

function shownEdges() {
  const wanted = words(), namespace = byId("namespace").value;
  return view.edges.filter((edge) => {
    const text = `${edge.caller} ${edge.host}`.toLowerCase();
    const near = !namespace || edge.caller.startsWith(`${namespace}/`) || placeOf(edge.host).namespace === namespace;
    return near && wanted.every((word) => text.includes(word));
  });
}

// Hues far apart, the same for the same set of namespaces. Colour only helps: each box says its namespace in words.
function hues(nodes) {
  const names = [...new Set(nodes.map((n) => n.namespace))].filter(Boolean).sort();
  return new Map(names.map((name, i) => [name, Math.round(210 + i * 137.5) % 360]));
}

function paint(element, namespace, colours) {
  element.setAttribute("class", namespace ? "ns" : "ns outside");
  if (namespace) element.style.setProperty("--h", colours.get(namespace));
  return element;
}

function short(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

function nodeBox(node, at, colours) {
  const group = paint(draw("g", {
    tabindex: -1, role: "button", "aria-pressed": "false", transform: `translate(${at.x} ${at.y.toFixed(1)})`,
    "aria-label": `${node.name}${node.namespace ? ` in ${node.namespace}` : ", outside of the cluster"}: calls ${node.out.size}, called by ${node.in.size}`,
  }), node.namespace, colours);
  const title = draw("title", {});
  title.textContent = node.id;
  const label = draw("text", { x: 11, y: 17 });
  label.textContent = short(node.name, Math.floor((BOX.width - 16) / 7));
  group.append(title, draw("rect", { width: BOX.width, height: BOX.height, rx: 4 }), draw("rect", { class: "bar", width: 5, height: BOX.height, rx: 2 }), label);
  return group;
}

function list(ids) {
  return ids.size ? [...ids].sort().join(", ") : "nobody";
}

// Marks a node's neighbours; null marks nothing.
function choose(id, drawing) {
  view.chosen = drawing.nodes.has(id) ? id : null;
  const node = view.chosen && drawing.nodes.get(view.chosen).node;
  for (const [other, { group }] of drawing.nodes) {
    const near = !node || other === node.id || node.out.has(other) || node.in.has(other);
    group.classList.toggle("dim", !near);
    group.setAttribute("aria-pressed", String(Boolean(node) && other === node.id));
  }
  for (const { path, link } of drawing.links) {
    const on = Boolean(node) && (link.from === node.id || link.to === node.id);
    path.classList.toggle("on", on);
    path.classList.toggle("dim", Boolean(node) && !on);
  }
  byId("chosen").textContent = node ? `${node.id} calls ${list(node.out)}; it is called by ${list(node.in)}.` : "";
}

// One node takes the focus, arrow keys move it: two hundred stops of the tab key would be a wall.
function keys(svg, order, drawing) {
  let current = Math.max(0, order.findIndex((n) => n.id === view.chosen));
  const focus = (index, really) => {
    drawing.nodes.get(order[current].id).group.setAttribute("tabindex", -1);
    current = (index + order.length) % order.length;
    const group = drawing.nodes.get(order[current].id).group;
    group.setAttribute("tabindex", 0);
    if (really) group.focus();
  };
  focus(current, false);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (step) focus(current + step, true);
    else if (event.key === "Enter" || event.key === " ") choose(order[current].id === view.chosen ? null : order[current].id, drawing);
    else if (event.key === "Escape") choose(null, drawing);
    else return;
    event.preventDefault();
  });
  order.forEach((node, index) => drawing.nodes.get(node.id).group.addEventListener("click", () => {
    focus(index, true);
    choose(node.id === view.chosen ? null : node.id, drawing);
  }));
}

function legend(colours, outside) {
  const entry = (name, namespace) => paint(make("span", name), namespace, colours);
  const entries = [...colours.keys()].map((name) => entry(name, name));
  if (outside) entries.push(entry("outside of the cluster", ""));
  byId("legend").replaceChildren(...entries);
}

function drawGraph(edges) {
  const fenceOf = new Map();
  for (const item of view.fences) {
    for (const caller of item.callers) fenceOf.set(caller, `${item.fence.namespace}/${item.fence.name}`);
  }
  const graph = graphOf(edges, fenceOf, MAX_NODES);
  // Only what is different is drawn anew: the focus stays where it is.
  const drawn = JSON.stringify([graph.nodes.map((n) => n.id), graph.links]);
  if (drawn === view.drawn) return;
  view.drawn = drawn;
  const { at, width, height, order } = layout(graph, byId("graph").clientWidth);
  const colours = hues(graph.nodes);
  const svg = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-labelledby": "graph-title", "aria-describedby": "graph-help" });
  const marker = draw("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" });
  marker.append(draw("path", { d: "M0 0L8 4L0 8z", fill: "context-stroke" }));
  const defs = draw("defs", {});
  defs.append(marker);
  svg.append(defs);
  const drawing = { nodes: new Map(), links: [] };
  for (const link of graph.links) {
    const path = draw("path", { class: link.inScope ? "edge" : "edge gone", d: way(at.get(link.from), at.get(link.to)), "marker-end": "url(#arrow)", "aria-hidden": "true" });
    drawing.links.push({ path, link });
    svg.append(path);
  }
  for (const node of order) {
    const group = nodeBox(node, at.get(node.id), colours);
    drawing.nodes.set(node.id, { node, group });
    svg.append(group);
  }
  byId("graph").replaceChildren(...(order.length ? [svg] : []));
  legend(colours, graph.nodes.some((n) => !n.namespace));
  if (order.length) keys(svg, order, drawing);
  choose(view.chosen, drawing);
  byId("graph-note").textContent = graph.hidden ? `${graph.nodes.length} boxes with the most neighbours are shown, ${graph.hidden} more are hidden: narrow the filter to see them.` : "";
}

function edgeTable(edges) {
  const heads = ["Workload", "Host", "Known by", "Last call", "Scope"];
  return table(heads, edges.map((e) => [e.caller, e.host, e.evidence.join(", "), age(e.age), e.inScope ? "in" : "out, remembered"]));
}

function more(shown, found, what) {
  if (found > shown) return `${shown} rows are shown, ${found - shown} more are hidden: narrow the filter to see them.`;
  return found === 0 && view.answered !== null ? `There are no ${what}${words().length || byId("namespace").value ? " that match the filter" : " yet"}.` : "";
}

function namespaces() {
  const all = new Set(view.fences.map((item) => item.fence.namespace));
  for (const edge of view.edges) { all.add(edge.caller.split("/")[0]); all.add(placeOf(edge.host).namespace); }
  all.delete("");
  const select = byId("namespace"), names = [...all].sort();
  const have = [...select.options].slice(1).map((o) => o.value);
  if (JSON.stringify(have) === JSON.stringify(names)) return;
  const before = select.value;
  select.replaceChildren(select.options[0], ...names.map((name) => new Option(name, name)));
  select.value = names.includes(before) ? before : "";
}

function render() {
  namespaces();
  const edges = shownEdges();
  drawGraph(edges);
  fill(byId("edges"), [edgeTable(edges.slice(0, MAX_ROWS))]);
  byId("edges-note").textContent = more(Math.min(edges.length, MAX_ROWS), edges.length, "learned dependencies");
  const part = view.total > view.edges.length ? `, the first ${view.edges.length} are here` : "";
  const text = view.answered === null ? "" : `${view.total} dependencies of ${view.fences.length} fences${part}, as of ${clock(view.answered)}`;
  fill(byId("summary"), [document.createTextNode(text)]);
  byId("alert").textContent = view.error === null ? "" : `${view.error} The page tries again by itself.`;
  byId("alert").hidden = view.error === null;
}

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!answer.ok) throw new Error(answer.status === 404 ? (await answer.json()).error : `HTTP status ${answer.status}`);
  return answer.json();
}

async function poll() {
  const started = performance.now();
  try {
    const [edges, fences] = await Promise.all([ask("/api/v1/lazyload/edges"), ask("/api/v1/lazyload/fences")]);
    Object.assign(view, { edges: edges.items, total: edges.total, fences: fences.items, error: null, answered: new Date() });
  } catch (error) {
    const since = view.answered === null ? "no answer yet" : `no answer since ${clock(view.answered)}, values may be old`;
    view.error = `The operator does not answer as it should: ${since} (${error.message}).`;
  }
  render();
  setTimeout(poll, Math.max(PERIOD_MS, 4 * (performance.now() - started)));
}

byId("filter").value = new URLSearchParams(location.search).get("filter") || "";
byId("filter").addEventListener("input", render);
byId("namespace").addEventListener("change", render);
poll();
