//! The example of lazy scoping: translated, run without a cluster, shown on the status page; and `trimtab fallback`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use trimtab_lab::http;
use trimtab_lab::ports::free_address;
use trimtab_lab::process::{Process, Spec, wait_until};

use crate::support::{BOUND, folder, trimtab};

fn run(args: &[&str]) -> Output {
    Command::new(trimtab()).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/lazyload")
}

/// Translates; the exit code, objects and what was said.
fn translate(dir: &Path, more: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let mut args = vec!["translate", "-o", "json", "-f", dir.to_str().unwrap()];
    args.extend(more);
    let output = run(&args);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    let items = json["items"].as_array().cloned().unwrap_or_default();
    (output.status.code(), items, text(&output.stderr))
}

fn named<'a>(items: &'a [Value], kind: &str, name: &str) -> &'a Value {
    items
        .iter()
        .find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name} in {items:?}"))
}

fn hosts(items: &[Value], name: &str) -> Value {
    named(items, "Sidecar", name)["spec"]["egress"][0]["hosts"].clone()
}

#[test]
fn the_example_is_translated() {
    let dir = example().join("bookinfo");
    let config = example().join("config.yaml");
    let (code, items, notes) = translate(&dir, &["--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{notes}");
    assert_eq!(
        items.len(),
        3,
        "the fence that observes has none: {items:?}"
    );
    assert_eq!(hosts(&items, "details"), json!(["~/*"]));
    assert_eq!(
        hosts(&items, "reviews"),
        json!(["bookinfo/ratings.bookinfo.svc.cluster.local"])
    );
    let learned = [
        "bookinfo/details.bookinfo.svc.cluster.local",
        "bookinfo/reviews.bookinfo.svc.cluster.local",
    ];
    assert_eq!(hosts(&items, "productpage"), json!(learned));
    assert!(
        notes.contains("ServiceFence bookinfo/ratings: Programmed: Observing")
            && notes.contains("bookinfo/productpage: scope: 2 of 6 services"),
        "{notes}"
    );
    // With a fallback, as a cluster has it.
    let (_, items, _) = translate(&dir, &[]);
    let host = "istio-system/global-sidecar.istio-system.svc.cluster.local";
    assert_eq!(hosts(&items, "details"), json!([host]));
    assert!(
        items[0]["metadata"].get("ownerReferences").is_none(),
        "nothing that an API server gives"
    );
}

#[test]
fn labels_make_fences_and_mistakes_are_refused() {
    let dir = folder("translate-fences");
    let service = |name: &str, annotations: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, annotations: {annotations}}}, spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}}}\n---\n"
        )
    };
    let file = dir.join("all.yaml");
    let lazy = service("a", "{lazy-xds: 'true'}") + &service("b", "{}");
    std::fs::write(&file, &lazy).unwrap();
    let (code, items, notes) = translate(&dir, &[]);
    assert_eq!(code, Some(0), "{notes}");
    let fence = named(&items, "ServiceFence", "a");
    assert_eq!(fence["spec"]["workloadSelector"]["fromService"], true);
    let sidecar = named(&items, "Sidecar", "a");
    assert_eq!(
        sidecar["spec"]["workloadSelector"]["labels"],
        json!({"app": "a"})
    );
    // The third is the EnvoyFilter that leads to the fallback, which counts as installed.
    assert_eq!(items.len(), 3, "{items:?}");
    assert!(
        notes.contains("assumed: Service istio-system/global-sidecar"),
        "{notes}"
    );
    let fence = "{apiVersion: microservice.slime.io/v1alpha1, kind: ServiceFence, metadata: {name: gone}, spec: {enable: true, workloadSelector: {fromService: true}}}";
    std::fs::write(&file, lazy + fence).unwrap();
    let (code, items, notes) = translate(&dir, &[]);
    assert_eq!((code, items.len()), (Some(1), 3), "{notes}");
    assert!(
        notes.contains("refused: ServiceFence default/gone: Accepted: ServiceNotFound")
            && notes.contains("make it, or write workloadSelector.labels"),
        "{notes}"
    );
    let _ = std::fs::remove_dir_all(dir);
}

#[tokio::test]
async fn the_example_runs_without_a_cluster() {
    let dir = folder("standalone-fences");
    let [http, xds, logs] = std::array::from_fn(|_| free_address().unwrap());
    let config = std::fs::read_to_string(example().join("config.yaml")).unwrap();
    let config = config.replace("127.0.0.1:8082", &logs.to_string())
        + &format!("http: {{address: '{http}'}}\nxds: {{address: '{xds}'}}\n");
    std::fs::write(dir.join("config.yaml"), config).unwrap();
    let out = dir.join("out");
    let _server = Process::start(Spec {
        name: "trimtab".to_owned(),
        program: trimtab(),
        args: vec![
            "run".into(),
            "--config".into(),
            dir.join("config.yaml").into(),
            "--standalone".into(),
            example().join("bookinfo").into(),
            "--out".into(),
            out.clone().into(),
        ],
        log: dir.join("log"),
    })
    .unwrap();
    let file = out.join("bookinfo_productpage.sidecar.yaml");
    wait_until("the Sidecar of the example", BOUND, || async {
        let text = std::fs::read_to_string(&file).map_err(|e| e.to_string())?;
        if text.contains("bookinfo/reviews.bookinfo.svc.cluster.local") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await
    .unwrap();
    assert!(!out.join("bookinfo_ratings.sidecar.yaml").exists());
    let edges = http::get(http, "/api/v1/lazyload/edges").await.unwrap();
    let edges: Value = serde_json::from_str(&edges).unwrap();
    assert_eq!(edges["total"], 2, "{edges}");
    assert_eq!(edges["items"][0]["caller"], "bookinfo/productpage");
    let page = http::get(http, "/dependencies").await.unwrap();
    assert!(page.contains("aria-current=\"page\">Dependencies") && page.ends_with("</html>\n"));
    for elsewhere in ["http://", "https://"] {
        let links = page.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !links.contains(elsewhere),
            "nothing is fetched from elsewhere"
        );
    }
    let style = http::get(http, "/status.css").await.unwrap();
    assert!(style.contains("prefers-color-scheme: dark"));
    let server = format!("http://{http}");
    let output = run(&[
        "describe",
        "servicefence",
        "productpage",
        "-n",
        "bookinfo",
        "--server",
        &server,
    ]);
    let told = text(&output.stdout);
    assert!(
        told.contains("2 of 6 services") && told.contains("AccessLog and Prometheus"),
        "{told}{}",
        text(&output.stderr)
    );
}

#[test]
fn the_fallback_is_printed() {
    let output = run(&["fallback", "--filters", "--access-logs", "10.0.0.1:8082"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = trimtab::manifests::parse(Path::new("out"), &text(&output.stdout)).unwrap();
    let kinds: Vec<&str> = printed
        .iter()
        .filter_map(|d| d.object["kind"].as_str())
        .collect();
    assert_eq!(kinds.first(), Some(&"ServiceAccount"));
    assert_eq!(kinds.last(), Some(&"EnvoyFilter"));
    let config = example().join("config.yaml");
    let output = run(&["fallback", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("does without a fallback"));
}

/// What the drawing must hold, in the words of the page's own script.
const GRAPH: &str = r#"
const assert = require("node:assert");
const edge = (caller, host, inScope = true) => ({ caller, host, inScope });
const fenceOf = new Map([["shop/front-v1", "shop/front"]]);
const edges = [
  edge("shop/front-v1", "cart.shop.svc.cluster.local"), edge("shop/front", "cart.shop.svc.cluster.local", false),
  edge("shop/cart", "stock.store.svc.cluster.local"), edge("store/stock", "front.shop.svc.cluster.local"),
  edge("shop/cart", "cart.shop.svc.cluster.local"), edge("shop/cart", "api.example.com", false),
];
const graph = graphOf(edges, fenceOf, 200);
assert.deepEqual(graph.nodes.map((n) => n.id), ["api.example.com", "shop/cart", "shop/front", "store/stock"]);
assert.equal(graph.links.length, 4, "calls of a workload to itself are not drawn, two of its workloads are one");
assert.ok(graph.links.find((l) => l.from === "shop/front" && l.to === "shop/cart").inScope);
assert.equal(graph.nodes[0].namespace, "");
const { at, width, height, order } = layout(graph);
assert.equal(order.length, 4);
const boxes = [...at.values()];
for (const a of boxes) {
  assert.ok(a.x >= 0 && a.y >= 0 && a.x + BOX.width <= width && a.y + BOX.height <= height);
  for (const b of boxes) assert.ok(a === b || Math.abs(a.x - b.x) >= BOX.width || Math.abs(a.y - b.y) >= BOX.height);
}
assert.ok(at.get("shop/cart").x < at.get("store/stock").x, "callers stand left of what they call");
const chain = [...Array(300).keys()].map((i) => edge(`n/w${i}`, `w${i + 1}.n.svc.cluster.local`));
const long = graphOf(chain, new Map(), 200);
assert.deepEqual([long.nodes.length, long.hidden], [200, 101]);
assert.equal(layersOf(graphOf(chain, new Map(), 1000)).length, MAX_COLUMNS);
assert.deepEqual(layout(graphOf([], new Map(), 200)).order, []);
const two = graphOf([edge("shop/front", "cart.shop.svc.cluster.local")], new Map(), 200);
assert.ok(layout(two, 350).width <= 350, "caller and host stand beside each other on a phone");
"#;

#[test]
fn the_graph_is_drawn_in_layers() {
    let script = include_str!("../../src/dependencies/graph.js").to_owned() + GRAPH;
    let output = Command::new("node")
        .args(["--eval", &script])
        .output()
        .unwrap_or_else(|e| panic!("node: {e}; the tests of Dubbo need it too: run `make deps`"));
    assert!(output.status.success(), "{}", text(&output.stderr));
}
