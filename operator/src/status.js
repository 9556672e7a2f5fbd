// What each place of the page shows.
const MAX_ROWS = 200;
const VIEWS = {
  limiter: { title: "Limiters", one: "SmartLimiter", path: "/", list: "/api/v1/limiters", heads: ["Limiter", "State", "Limit", "Reason"] },
  router: { title: "MetaRouters", one: "MetaRouter", path: "/metarouters", list: "/api/v1/metaprotocol/routers", heads: ["MetaRouter", "State", "Routes", "Reason"] },
  fence: { title: "Fences", one: "ServiceFence", path: "/fences", list: "/api/v1/lazyload/fences", heads: ["ServiceFence", "State", "Scope", "Reason"] },
};
const PLACES = { limiters: "limiter", metarouters: "router", fences: "fence" };

const parts = location.pathname.split("/").filter(Boolean);
const kind = PLACES[parts[0]] || "limiter";
const view = VIEWS[kind];
const detail = parts.length === 3 ? parts.slice(1).map(decodeURIComponent) : null;
const filter = byId("filter");

function cell(className, ...children) {
  const node = box("div", className, ...children);
  node.setAttribute("role", "cell");
  return node;
}

function row(item) {
  const name = link(item.href, "", "name");
  name.append(make("span", `${item.namespace}/`, "muted"), item.name);
  const line = box("div", "row",
    cell("who", name), cell("state", ...item.badges.map((text, i) => badge(text, i ? "" : item.state))),
    cell("value", item.value), cell("reason", item.reason));
  line.setAttribute("role", "row");
  line.dataset.key = item.key;
  return line;
}

function head() {
  const line = box("div", "row head", ...view.heads.map((text) => {
    const node = make("div", text);
    node.setAttribute("role", "columnheader");
    return node;
  }));
  line.setAttribute("role", "row");
  line.dataset.key = "";
  return line;
}

function list(data) {
  const all = box("div", "rows", head(), ...data.rows.map(row));
  all.setAttribute("role", "table");
  all.setAttribute("aria-label", view.title);
  all.dataset.key = "rows";
  return all;
}

// Each state is a button that filters by it.
function states(data) {
  const chosen = filter.value.trim().toLowerCase();
  return box("span", "", ...data.states.map(([state, n]) => {
    const button = make("button", `${n} ${state === "?" ? "other" : state}`, `badge ${/^[A-Za-z]+$/.test(state) ? state : ""}`);
    button.type = "button";
    button.dataset.key = state;
    button.dataset.state = state === "?" ? "" : state;
    button.setAttribute("aria-pressed", String(chosen === state.toLowerCase()));
    return button;
  }));
}

function note(data) {
  const hidden = data.found - data.rows.length;
  if (hidden > 0) return `${data.rows.length} rows are shown, the worst first; ${hidden} more are hidden: narrow the filter to see them.`;
  if (data.answered !== null && data.total === 0) return `There is no ${view.one} yet.`;
  if (data.answered !== null && data.found === 0) return `No ${view.one} matches the filter.`;
  return "";
}

function metrics(item) {
  return Object.entries(item.metrics).map(([name, reading]) => {
    const fresh = reading.state === "Fresh" && typeof reading.value === "number";
    return [name, number(reading.value), make("span", reading.state, fresh ? "" : "stale"), reading.failure || ""];
  });
}

function limiterParts(item) {
  const limitOf = (rule) => {
    const limit = item.limits.find((l) => l.set === rule.set && l.index === rule.index);
    return limit ? `${limit.requests} in ${limit.interval} per pod (${number(limit.perSecond)}/s)` : "none";
  };
  const target = item.target.host || item.target.workloads.join(", ") || "no pods";
  const facts = [["Limit", `${item.limit}${item.strategy ? `, strategy ${item.strategy}` : ""}`], ["Limits requests to or of", target], ["Ready pods", number(item.pods)], ["API version", item.apiVersion]];
  const readings = metrics(item);
  return [
    section("Facts", table(["What", "Value"], facts)),
    section("Rules", table(["Rule", "State", "Limit", "Reason"], item.descriptors.map((rule) => [`${rule.set}[${rule.index}]`, badge(rule.state, rule.state), limitOf(rule), rule.reason]))),
    section("Metrics", readings.length ? table(["Metric", "Value", "State", "Why not fresh"], readings) : make("p", "No metric is used.", "muted")),
    section("History", chart(item.history || [], "limitPerSecond", "smallest limit, requests per second and pod", true), chart(item.history || [], "metric", "first metric", false)),
  ];
}

const conditions = (list) => section("Conditions", table(["Condition", "Status", "Reason", "Message"], (list || []).map((c) => [c.type, c.status, c.reason, c.message])));

function lines(title, list, none) {
  return section(title, list.length ? box("ul", "", ...list.map((text) => make("li", text))) : make("p", none, "muted"));
}

function routerParts(item) {
  const host = item.host, status = item.status || {};
  const ports = host ? host.ports : [];
  const routes = (item.routes && item.routes.routes) || [];
  const where = (route) => (route.route || []).map((to) => `${to.destination.host}${to.destination.subset ? ` ${to.destination.subset}` : ""}${to.weight ? ` (${to.weight})` : ""}`).join(", ");
  return [
    section("Facts", table(["What", "Value"], [["Host", host ? host.host : "none is known"], ["In force", item.inForce ? "yes" : "no"], ["Last good version kept", host && host.retained ? "yes" : "no"]])),
    conditions(status.conditions),
    lines("Problems", host ? host.problems : [], "None."),
    section("Routes", table(["Route", "Match", "Destination"], routes.map((route, i) => [route.name || `${i}`, JSON.stringify(route.match || {}), where(route)]))),
    section("Ports", table(["Port", "Proxies run", "Objects"], ports.map((port) => [`${port.number} ${port.name}`, port.programs.join(", "), port.objects.join(", ")]))),
  ];
}

function fenceParts(item) {
  const { namespace, name } = item.fence, size = item.size;
  const facts = [
    ["Mode", item.mode], ["Pods with", Object.entries(item.selector).map(([k, v]) => `${k}=${v}`).join(", ") || "any labels"],
    ["Workloads", item.callers.join(", ") || "none"], ["Services", `${size.services} of ${size.meshServices}`],
    ["Configuration", `about ${bytes(size.bytes)} of ${bytes(size.meshBytes)}`],
    ["Graph", link(`/dependencies?filter=${encodeURIComponent(item.callers[0] || `${namespace}/${name}`)}`, "who calls whom")],
  ];
  return [
    section("Facts", table(["What", "Value"], facts)),
    conditions(item.conditions),
    section("Hosts in scope", table(["Host", "Why"], Object.entries(item.entries).map(([host, why]) => [host, why.join("; ")]))),
    section("Learned dependencies", table(["Workload", "Host", "Known by", "Last call", "State"], item.dependencies.map((d) => [d.caller, d.host, d.evidence.join(", "), new Date(d.lastSeen).toLocaleString(), d.state]))),
  ];
}

const DETAILS = { limiter: limiterParts, router: routerParts, fence: fenceParts };

function one(data) {
  const { item, row: shown } = data.detail;
  const path = `${view.list}/${detail.map(encodeURIComponent).join("/")}`;
  const links = [link(path, "JSON")];
  if (kind === "limiter") links.push(link(`${path}/input`, "input for a bug report"));
  else links.push(link(`/api/v1/describe/${kind === "router" ? "metarouter" : "servicefence"}/${detail.map(encodeURIComponent).join("/")}`, "as text"));
  const top = box("div", "top",
    box("p", "state", ...shown.badges.map((text, i) => badge(text, i ? "" : shown.state))), make("p", shown.reason, "reason"), box("p", "small links", link(view.path, `all ${view.title}`), ...links));
  top.dataset.key = "top";
  return [top, ...DETAILS[kind](item)];
}

function render(data) {
  const content = detail ? (data.detail ? one(data) : []) : [list(data)];
  fill(byId("view"), content);
  const time = data.answered === null ? "" : `as of ${clock(data.answered)}`;
  fill(byId("summary"), detail ? [document.createTextNode(time)] : [states(data), document.createTextNode(` ${data.total} in all, ${time}`)]);
  byId("note").textContent = detail ? "" : note(data);
  const since = data.answered === null ? "no answer yet" : `no answer since ${clock(data.answered)}, values may be old`;
  const problem = data.error === null ? "" : `${since}: ${data.error}. The page tries again by itself.`;
  if (byId("alert").textContent !== problem) byId("alert").textContent = problem;
  byId("alert").hidden = data.error === null;
}

const words = () => filter.value.toLowerCase().split(/\s+/).filter(Boolean);
document.title = `Trimtab: ${detail ? detail.join("/") : view.title}`;
byId("title").textContent = detail ? `${view.one} ${detail.join("/")}` : view.title;
for (const a of document.querySelectorAll("nav.views a")) {
  if (a.getAttribute("href") === view.path) a.setAttribute("aria-current", detail ? "true" : "page");
}
filter.hidden = detail !== null;
filter.value = new URLSearchParams(location.search).get("filter") || "";
const url = new URL(detail ? `${view.list}/${detail.map(encodeURIComponent).join("/")}` : view.list, location.href).href;
const worker = new Worker(URL.createObjectURL(new Blob([byId("worker").textContent], { type: "text/javascript" })));
worker.onmessage = (event) => render(event.data);
worker.postMessage({ words: words(), url, kind, detail: detail !== null, maxRows: MAX_ROWS });

function refilter() {
  history.replaceState(null, "", filter.value ? `?filter=${encodeURIComponent(filter.value)}` : location.pathname);
  worker.postMessage({ words: words() });
}
filter.addEventListener("input", refilter);
byId("summary").addEventListener("click", (event) => {
  const state = event.target.dataset.state;
  if (state === undefined) return;
  filter.value = filter.value.trim().toLowerCase() === state.toLowerCase() ? "" : state;
  refilter();
});

// Which replica this is, where there are several.
async function showLeader() {
  try {
    const answer = await fetch("/api/v1/leader", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    const it = await answer.json();
    const other = it.holder && it.holder !== it.identity ? `${it.holder} leads, this replica waits` : "no replica leads";
    byId("leader").textContent = it.leads ? "this replica leads" : other;
    byId("leader").hidden = !it.elected;
  } catch {
    byId("leader").hidden = true;
  }
}
showLeader();
setInterval(showLeader, 5000);
