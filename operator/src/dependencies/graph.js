// From edges to a drawing in layers. Pure: no page, so that it can be tried apart.

// A host of the cluster as `namespace/service`; any other host stands for itself, without a namespace.
function placeOf(host) {
  const parts = host.split(".");
  if (parts.length >= 3 && parts[2] === "svc") return { id: `${parts[1]}/${parts[0]}`, namespace: parts[1], name: parts[0] };
  return { id: host, namespace: "", name: host };
}

// The workload's box is that of its fence, whose name is the Service's; without a fence its own.
function callerPlace(caller, fenceOf) {
  const id = fenceOf.get(caller) || caller;
  const cut = id.indexOf("/");
  return { id, namespace: id.slice(0, cut), name: id.slice(cut + 1) };
}

// Nodes and links of the edges; at most `max` nodes, those with the most links.
function graphOf(edges, fenceOf, max) {
  const nodes = new Map();
  const links = new Map();
  const node = (place) => {
    if (!nodes.has(place.id)) nodes.set(place.id, { ...place, out: new Set(), in: new Set() });
    return nodes.get(place.id);
  };
  for (const edge of edges) {
    const from = node(callerPlace(edge.caller, fenceOf));
    const to = node(placeOf(edge.host));
    if (from === to) continue;
    from.out.add(to.id);
    to.in.add(from.id);
    const key = `${from.id} ${to.id}`;
    links.set(key, { from: from.id, to: to.id, inScope: edge.inScope || Boolean(links.get(key)?.inScope) });
  }
  const all = [...nodes.values()];
  const degree = (n) => n.out.size + n.in.size;
  const kept = all.sort((a, b) => degree(b) - degree(a) || (a.id < b.id ? -1 : 1)).slice(0, max);
  const ids = new Set(kept.map((n) => n.id));
  return {
    nodes: kept.sort((a, b) => (a.id < b.id ? -1 : 1)),
    links: [...links.values()].filter((l) => ids.has(l.from) && ids.has(l.to)),
    hidden: all.length - kept.length,
  };
}

const MAX_COLUMNS = 8;

// Links that close a circle do not count for layers. Without recursion: chains can be long.
function backLinks(graph) {
  const back = new Set();
  const next = new Map(graph.nodes.map((n) => [n.id, []]));
  for (const link of graph.links) next.get(link.from).push(link);
  const state = new Map();
  for (const start of graph.nodes) {
    if (state.has(start.id)) continue;
    const stack = [[start.id, 0]];
    state.set(start.id, "open");
    while (stack.length) {
      const top = stack[stack.length - 1];
      const link = next.get(top[0])[top[1]++];
      if (!link) { state.set(top[0], "done"); stack.pop(); continue; }
      const seen = state.get(link.to);
      if (seen === "open") back.add(link);
      else if (!seen) { state.set(link.to, "open"); stack.push([link.to, 0]); }
    }
  }
  return back;
}

// Callers to the left of what they call: the longest way from a node that nobody calls.
function layersOf(graph) {
  const back = backLinks(graph);
  const forward = graph.links.filter((l) => !back.has(l));
  const waits = new Map(graph.nodes.map((n) => [n.id, 0]));
  const next = new Map(graph.nodes.map((n) => [n.id, []]));
  for (const link of forward) { waits.set(link.to, waits.get(link.to) + 1); next.get(link.from).push(link.to); }
  const layer = new Map(graph.nodes.map((n) => [n.id, 0]));
  const ready = graph.nodes.filter((n) => waits.get(n.id) === 0).map((n) => n.id);
  while (ready.length) {
    const id = ready.pop();
    for (const to of next.get(id)) {
      layer.set(to, Math.max(layer.get(to), layer.get(id) + 1));
      waits.set(to, waits.get(to) - 1);
      if (waits.get(to) === 0) ready.push(to);
    }
  }
  // Long chains are folded: a drawing that is too wide shows nothing.
  const depth = Math.max(0, ...layer.values()) + 1;
  const column = (id) => (depth > MAX_COLUMNS ? Math.floor((layer.get(id) * MAX_COLUMNS) / depth) : layer.get(id));
  const layers = [];
  for (const node of graph.nodes) (layers[column(node.id)] ||= []).push(node);
  return layers;
}

// Each node near the mean of its neighbours: fewer crossings.
function untangle(layers) {
  const rank = new Map();
  const number = (list) => list.forEach((n, i) => rank.set(n.id, i / Math.max(list.length, 1)));
  layers.forEach(number);
  for (let sweep = 0; sweep < 6; sweep++) {
    for (const list of sweep % 2 ? [...layers].reverse() : layers) {
      const mean = (n) => {
        const near = [...(sweep % 2 ? n.out : n.in)].filter((id) => rank.has(id));
        return near.length ? near.reduce((sum, id) => sum + rank.get(id), 0) / near.length : rank.get(n.id);
      };
      const means = new Map(list.map((n) => [n.id, mean(n)]));
      list.sort((a, b) => means.get(a.id) - means.get(b.id) || (a.id < b.id ? -1 : 1));
      number(list);
    }
  }
}

// Boxes of a node, in pixels.
const BOX = { width: 170, height: 26, gapX: 90, gapY: 9, pad: 14 };

// Boxes of a drawing that is so wide: on a phone caller and host stand beside each other.
function fit(room, columns) {
  BOX.width = room < 500 ? 128 : 170;
  const gap = columns > 1 ? (room - 2 * BOX.pad - columns * BOX.width) / (columns - 1) : 0;
  BOX.gapX = Math.min(Math.max(gap, 60), 320);
}

// Places of all nodes: by id, the left upper corner.
function layout(graph, room = 1200) {
  const layers = layersOf(graph);
  fit(room, layers.length);
  untangle(layers);
  const tallest = Math.max(0, ...layers.map((l) => l.length));
  const height = tallest * (BOX.height + BOX.gapY) + 2 * BOX.pad;
  const at = new Map();
  layers.forEach((list, column) => {
    // A short column is spread over the whole height, so that its lines stay near.
    const step = (height - 2 * BOX.pad) / list.length;
    list.forEach((node, i) => {
      at.set(node.id, {
        x: BOX.pad + column * (BOX.width + BOX.gapX),
        y: BOX.pad + (i + 0.5) * step - (BOX.height + BOX.gapY) / 2,
      });
    });
  });
  const width = layers.length * (BOX.width + BOX.gapX) - BOX.gapX + 2 * BOX.pad;
  return { at, width: Math.max(width, 2 * BOX.pad), height, order: layers.flat() };
}

// The way of a link: from the right side of the caller to the left side of the host.
function way(from, to) {
  const x1 = from.x + BOX.width, y1 = from.y + BOX.height / 2, x2 = to.x - 5, y2 = to.y + BOX.height / 2;
  // Back to the left, or within a column: around.
  const bend = x2 > x1 ? (x2 - x1) / 2 : 60;
  return `M${x1} ${y1.toFixed(1)}C${x1 + bend} ${y1.toFixed(1)} ${x2 - bend} ${y2.toFixed(1)} ${x2} ${y2.toFixed(1)}`;
}
