//! What users read and import, held against the real thing: every query of every panel of the dashboard has an answer
//! in a real Prometheus that scraped a real operator and a real, limited Envoy; `docs/metrics.md` names exactly the
//! series that the operator exports; and the examples of the documents are accepted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

mod api;
mod documents;
mod queries;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Api;
use kube::api::ListParams;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab::{manifests, standalone};
use trimtab_crds::istio::EnvoyFilter;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{self, Request};
use trimtab_lab::load::{Load, Running, Targets};
use trimtab_lab::ports::free_address;
use trimtab_lab::process::wait_until;
use trimtab_lab::prometheus::{ENVOY_METRICS_PATH, Prometheus, Target};
use trimtab_lab::upstream::{Clock, METRICS_PATH, PodSpec, Upstream};
use trimtab_tests::merge::{ProxyFacts, apply};
use trimtab_tests::mesh::{Listener, Proxy, Telemetry};

const BOUND: Duration = Duration::from_secs(60);
/// Grafana makes of `$__rate_interval` four scrape intervals at least.
const RATE_INTERVAL: &str = "20s";
/// Keeps a panel at zero where nothing happens; here it would hide a wrong name.
const ZERO: &str = " or vector(0)";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Everything that runs; dropping it stops it.
struct Run {
    operator: Operator,
    prometheus: Prometheus,
    _upstream: Upstream,
    _envoy: Envoy,
    _loads: [Running; 2],
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn load(target: SocketAddr) -> Running {
    let load = Load {
        targets: Targets::new(vec![target]),
        request: Request::get("/"),
        max_in_flight: 64,
    };
    load.start(|_| 40.0)
}

/// The quickstart's limiter with a pod that is overloaded for good: 40 requests/s where 10 fill its CPU.
async fn start() -> Run {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = folder("dashboard");
    let [http, upstream_at, listen, admin] = [(); 4].map(|()| free_address().unwrap());
    let targets = [
        Target::new(http, "/metrics"),
        Target::new(upstream_at, METRICS_PATH),
        Target::new(admin, ENVOY_METRICS_PATH),
    ];
    let prometheus = Prometheus::start(&dir.join("prometheus"), Duration::from_secs(1), &targets)
        .await
        .unwrap();
    let spec = PodSpec {
        namespace: "default".into(),
        pod: "a-0".into(),
        capacity: 10.0,
    };
    let upstream = Upstream::start(upstream_at, spec, Clock::real())
        .await
        .unwrap();
    let direct = load(upstream_at);

    let embedded = standalone::embedded().unwrap();
    let examples = ["examples/quickstart", "examples/lazyload/bookinfo"];
    let examples = examples.map(|name| repository().join(name));
    for document in manifests::read(&examples).unwrap().documents {
        standalone::load(&embedded, &document).unwrap();
    }
    let config: Config = serde_saphyr::from_str(&format!(
    "http: {{address: '{http}'}}\nxds: {{address: '127.0.0.1:0'}}\nlimiter: {{refresh: 500ms}}\n\
     lazyload: {{fallback: {{enabled: false}}, learn: {{accessLog: {{address: '127.0.0.1:0'}}, prometheus: {{address: '{0}', interval: 1s}}}}}}\n\
     metrics: {{prometheus: {{address: '{0}', handlers: {{cpu: {{query: 'avg(workload_cpu_ratio{{namespace=\"$namespace\"}})'}}}}}}}}",
    prometheus.url()
))
.unwrap();
    let operator = Operator::start(config, embedded.client(), CancellationToken::new())
        .await
        .unwrap();
    let filter = generated(embedded.client()).await;

    let envoy = limited_proxy(filter, listen, upstream_at, admin, &dir).await;
    let through = load(listen);
    Run {
        operator,
        prometheus,
        _upstream: upstream,
        _envoy: envoy,
        _loads: [direct, through],
    }
}

/// An Envoy in front of the pod, with the generated object in its configuration.
async fn limited_proxy(
    filter: Value,
    listen: SocketAddr,
    upstream: SocketAddr,
    admin: SocketAddr,
    dir: &Path,
) -> Envoy {
    let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
    let telemetry = Telemetry {
        reporter: "destination".into(),
        destination_service: "a.default.svc.cluster.local".into(),
        namespace: "default".into(),
        pod: "a-0".into(),
    };
    let listener = Listener::inbound(9080, listen, upstream).counting(telemetry);
    let mut bootstrap = Proxy::new("a-0", "default", &labels, admin)
        .listener(listener)
        .bootstrap();
    let report = apply(
        &mut bootstrap,
        &[filter],
        &ProxyFacts::new("default", labels),
    )
    .unwrap();
    assert_eq!(report.unmatched, Vec::<String>::new());
    Envoy::start(&bootstrap, &dir.join("envoy")).await.unwrap()
}

/// The EnvoyFilter that the operator writes once the CPU is known to be over the limiter's threshold.
async fn generated(client: kube::Client) -> Value {
    let api: Api<EnvoyFilter> = Api::namespaced(client, "default");
    wait_until("the EnvoyFilter of limiter a", BOUND, || {
        let api = api.clone();
        async move {
            let list = api
                .list(&ListParams::default())
                .await
                .map_err(|e| e.to_string())?;
            let filter = list.items.into_iter().next().ok_or("there is none yet")?;
            serde_json::to_value(filter).map_err(|e| e.to_string())
        }
    })
    .await
    .unwrap()
}

fn dashboard() -> Value {
    dashboard_of("limiter")
}

fn dashboard_of(name: &str) -> Value {
    let file = repository().join(format!("dashboards/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn filled(expression: &str) -> String {
    let filled = expression
        .replace("$__rate_interval", RATE_INTERVAL)
        .replace("$namespace", ".*")
        .replace("$limiter", ".*")
        .replace("$router", ".*")
        .replace("$fence", ".*")
        .replace(ZERO, "");
    assert!(!filled.contains('$'), "an unknown variable in {filled}");
    filled
}

/// Title of the panel and expression, for each target of each panel.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "panel \"{title}\" asks nothing");
        assert_eq!(
            panel["datasource"]["uid"], "${datasource}",
            "panel \"{title}\""
        );
        for target in targets {
            assert_eq!(
                target["datasource"]["uid"], "${datasource}",
                "panel \"{title}\""
            );
            out.push((
                title.to_owned(),
                target["expr"].as_str().unwrap().to_owned(),
            ));
        }
    }
    out
}

/// `label_values(SELECTOR, LABEL)` of each query variable.
fn variables(dashboard: &Value) -> Vec<(String, String)> {
    dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|v| v["type"] == "query")
        .map(|v| {
            let query = v["query"]["query"].as_str().unwrap();
            let inside = query
                .strip_prefix("label_values(")
                .and_then(|q| q.strip_suffix(')'))
                .unwrap();
            let (selector, label) = inside.rsplit_once(", ").unwrap();
            (selector.to_owned(), label.to_owned())
        })
        .collect()
}

/// Asks until every sample of a non-empty answer is a finite number.
async fn answer(prometheus: &Prometheus, expression: &str) -> Result<Value, String> {
    wait_until(expression, BOUND, || async move {
        let result = prometheus
            .query(expression)
            .await
            .map_err(|e| e.to_string())?;
        let samples = result
            .as_array()
            .filter(|s| !s.is_empty())
            .ok_or("no series")?;
        for sample in samples {
            let number: f64 = sample["value"][1]
                .as_str()
                .and_then(|t| t.parse().ok())
                .ok_or("a sample without a value")?;
            if !number.is_finite() {
                return Err(format!("the value is {number}"));
            }
        }
        Ok(result)
    })
    .await
    .map_err(|e| e.to_string())
}

/// Names of the operator's own series, as Prometheus stores them.
async fn exported(operator: &Operator) -> BTreeSet<String> {
    let text = http::get(operator.http, "/metrics").await.unwrap();
    assert!(
        text.ends_with("# EOF\n"),
        "OpenMetrics ends with an end mark"
    );
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| {
            if kind == "counter" {
                format!("{name}_total")
            } else {
                name.to_owned()
            }
        })
        .collect()
}

/// Names in backticks at the beginning of a table row of `docs/metrics.md`.
fn documented() -> BTreeSet<String> {
    let text = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("| `trimtab_"))
        .filter_map(|line| line.split_once('`'))
        .map(|(name, _)| format!("trimtab_{name}"))
        .collect()
}

/// Every query of every panel and variable.
async fn has_answers(prometheus: &Prometheus, dashboard: &Value) {
    let mut failures = Vec::new();
    for (title, expression) in expressions(dashboard) {
        if let Err(error) = answer(prometheus, &filled(&expression)).await {
            failures.push(format!("panel \"{title}\": {error}"));
        }
    }
    for (selector, label) in variables(dashboard) {
        let query = format!(
            "count by ({label}) ({}{{{label}!=\"\"}})",
            filled(&selector).split('{').next().unwrap()
        );
        if let Err(error) = answer(prometheus, &query).await {
            failures.push(format!("variable {label}: {error}"));
        }
        answer(prometheus, &filled(&selector)).await.unwrap();
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_o39_every_panel_has_an_answer_and_every_series_is_documented() {
    let run = start().await;
    let limited = "increase(envoy_http_local_rate_limiter_http_local_rate_limit_enforced[20s])";
    run.prometheus
        .wait_value(limited, BOUND, |n| n > 0.0)
        .await
        .unwrap();

    for dashboard in [dashboard(), dashboard_of("lazyload")] {
        has_answers(&run.prometheus, &dashboard).await;
    }
    // No layer-7 service is here, so that an answer may be empty; the names are held below.
    for (title, expression) in expressions(&dashboard_of("metaprotocol")) {
        let answer = run.prometheus.query(&filled(&expression)).await;
        assert!(answer.is_ok(), "panel \"{title}\": {answer:?}");
    }

    let exported = exported(&run.operator).await;
    let (own, of_process): (BTreeSet<_>, BTreeSet<_>) = exported
        .into_iter()
        .partition(|n| n.starts_with("trimtab_"));
    assert_eq!(own, documented(), "left: exported, right: docs/metrics.md");
    let text = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    assert!(of_process.len() > 5, "{of_process:?}");
    for name in of_process {
        assert!(
            text.contains(&format!("`{name}`")),
            "docs/metrics.md: {name}"
        );
    }
    run.operator.stop().await.unwrap();
}

#[test]
fn the_dashboard_of_layer_7_protocols_asks_for_series_that_there_are() {
    let dashboard = dashboard_of("metaprotocol");
    let texts = expressions(&dashboard)
        .into_iter()
        .map(|(_, expression)| expression)
        .chain(
            variables(&dashboard)
                .into_iter()
                .map(|(selector, _)| selector),
        );
    let known = documented();
    let mut seen = 0;
    for text in texts {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|w| w.starts_with("trimtab_")) {
            let name = word.strip_suffix("_bucket").unwrap_or(word);
            assert!(known.contains(name), "{name} is not exported");
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen} names");
}

#[test]
fn the_dashboards_are_what_grafana_expects() {
    grafana_takes(&dashboard(), ["datasource", "namespace", "limiter"]);
    let names = ["datasource", "namespace", "router"];
    grafana_takes(&dashboard_of("metaprotocol"), names);
    let names = ["datasource", "namespace", "fence"];
    grafana_takes(&dashboard_of("lazyload"), names);
}

fn grafana_takes(dashboard: &Value, variables: [&str; 3]) {
    assert_eq!(dashboard["schemaVersion"], 39);
    assert!(dashboard["id"].is_null(), "Grafana gives the id");
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "id {} is used twice",
            panel["id"]
        );
        let place = &panel["gridPos"];
        let (x, w) = (place["x"].as_u64().unwrap(), place["w"].as_u64().unwrap());
        assert!(
            x + w <= 24,
            "panel {} is wider than the grid",
            panel["title"]
        );
        assert!(
            places.insert((place["y"].as_u64().unwrap(), x)),
            "panel {} lies on another",
            panel["title"]
        );
    }
    let names: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|v| v["name"].as_str())
        .collect();
    assert_eq!(names, variables);
}
