//! The dashboard and the series reference against a real run: every query of every panel has an answer in a real
//! Prometheus that scraped a real operator and a real, limited Envoy; and `docs/metrics.md` names exactly the series
//! that the operator exports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Api;
use kube::api::ListParams;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::lab::envoy::Envoy;
use trimtab::lab::http::{self, Request};
use trimtab::lab::load::{Load, Running, Targets};
use trimtab::lab::merge::{ProxyFacts, apply};
use trimtab::lab::mesh::{Listener, Proxy, Telemetry};
use trimtab::lab::ports::free_address;
use trimtab::lab::process::wait_until;
use trimtab::lab::prometheus::{ENVOY_METRICS_PATH, Prometheus, Target};
use trimtab::lab::upstream::{Clock, METRICS_PATH, PodSpec, Upstream};
use trimtab::operator::Operator;
use trimtab::{manifests, standalone};
use trimtab_crds::istio::EnvoyFilter;

const BOUND: Duration = Duration::from_secs(60);
/// Grafana makes of `$__rate_interval` four scrape intervals at least.
const RATE_INTERVAL: &str = "20s";
/// Keeps a panel at zero where nothing happens; here it would hide a wrong name.
const ZERO: &str = " or vector(0)";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
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

fn load(target: std::net::SocketAddr) -> Running {
    let load = Load { targets: Targets::new(vec![target]), request: Request::get("/"), max_in_flight: 64 };
    load.start(|_| 40.0)
}

/// The quickstart's limiter with a pod that is overloaded for good: 40 requests/s where 10 fill its CPU.
async fn start() -> Run {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = folder("dashboard");
    let [http, upstream_at, listen, admin] = [(); 4].map(|()| free_address().unwrap());
    let targets = [Target::new(http, "/metrics"), Target::new(upstream_at, METRICS_PATH), Target::new(admin, ENVOY_METRICS_PATH)];
    let prometheus = Prometheus::start(&dir.join("prometheus"), Duration::from_secs(1), &targets).await.unwrap();
    let spec = PodSpec { namespace: "default".into(), pod: "a-0".into(), capacity: 10.0 };
    let upstream = Upstream::start(upstream_at, spec, Clock::real()).await.unwrap();
    let direct = load(upstream_at);

    let embedded = standalone::embedded().unwrap();
    for document in manifests::read(&[repository().join("examples/quickstart")]).unwrap() {
        standalone::load(&embedded, &document).unwrap();
    }
    let config: Config = serde_saphyr::from_str(&format!(
        "http: {{address: '{http}'}}\nxds: {{address: '127.0.0.1:0'}}\nlimiter: {{refresh: 500ms}}\n\
         metrics: {{prometheus: {{address: '{}', handlers: {{cpu: {{query: 'avg(workload_cpu_ratio{{namespace=\"$namespace\"}})'}}}}}}}}",
        prometheus.url()
    ))
    .unwrap();
    let operator = Operator::start(config, embedded.client(), CancellationToken::new()).await.unwrap();
    let filter = generated(embedded.client()).await;

    let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
    let telemetry = Telemetry {
        reporter: "destination".into(),
        destination_service: "a.default.svc.cluster.local".into(),
        namespace: "default".into(),
        pod: "a-0".into(),
    };
    let listener = Listener::inbound(9080, listen, upstream_at).counting(telemetry);
    let mut bootstrap = Proxy::new("a-0", "default", &labels, admin).listener(listener).bootstrap();
    let report = apply(&mut bootstrap, &[filter], &ProxyFacts::new("default", labels)).unwrap();
    assert_eq!(report.unmatched, Vec::<String>::new());
    let envoy = Envoy::start(&bootstrap, &dir.join("envoy")).await.unwrap();
    let through = load(listen);
    Run { operator, prometheus, _upstream: upstream, _envoy: envoy, _loads: [direct, through] }
}

/// The EnvoyFilter that the operator writes once the CPU is known to be over the limiter's threshold.
async fn generated(client: kube::Client) -> Value {
    let api: Api<EnvoyFilter> = Api::namespaced(client, "default");
    wait_until("the EnvoyFilter of limiter a", BOUND, || {
        let api = api.clone();
        async move {
            let list = api.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
            let filter = list.items.into_iter().next().ok_or("there is none yet")?;
            serde_json::to_value(filter).map_err(|e| e.to_string())
        }
    })
    .await
    .unwrap()
}

fn dashboard() -> Value {
    let file = repository().join("dashboards/limiter.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn filled(expression: &str) -> String {
    let filled = expression
        .replace("$__rate_interval", RATE_INTERVAL)
        .replace("$namespace", ".*")
        .replace("$limiter", ".*")
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
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "panel \"{title}\"");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "panel \"{title}\"");
            out.push((title.to_owned(), target["expr"].as_str().unwrap().to_owned()));
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
            let inside = query.strip_prefix("label_values(").and_then(|q| q.strip_suffix(')')).unwrap();
            let (selector, label) = inside.rsplit_once(", ").unwrap();
            (selector.to_owned(), label.to_owned())
        })
        .collect()
}

/// Asks until every sample of a non-empty answer is a finite number.
async fn answer(prometheus: &Prometheus, expression: &str) -> Result<Value, String> {
    wait_until(expression, BOUND, || async move {
        let result = prometheus.query(expression).await.map_err(|e| e.to_string())?;
        let samples = result.as_array().filter(|s| !s.is_empty()).ok_or("no series")?;
        for sample in samples {
            let number: f64 = sample["value"][1].as_str().and_then(|t| t.parse().ok()).ok_or("a sample without a value")?;
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
    assert!(text.ends_with("# EOF\n"), "OpenMetrics ends with an end mark");
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_has_an_answer_and_every_series_is_documented() {
    let run = start().await;
    let dashboard = dashboard();
    let limited = "increase(envoy_http_local_rate_limiter_http_local_rate_limit_enforced[20s])";
    run.prometheus.wait_value(limited, BOUND, |n| n > 0.0).await.unwrap();

    let mut failures = Vec::new();
    for (title, expression) in expressions(&dashboard) {
        if let Err(error) = answer(&run.prometheus, &filled(&expression)).await {
            failures.push(format!("panel \"{title}\": {error}"));
        }
    }
    for (selector, label) in variables(&dashboard) {
        let query = format!("count by ({label}) ({}{{{label}!=\"\"}})", filled(&selector).split('{').next().unwrap());
        if let Err(error) = answer(&run.prometheus, &query).await {
            failures.push(format!("variable {label}: {error}"));
        }
        answer(&run.prometheus, &filled(&selector)).await.unwrap();
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));

    assert_eq!(exported(&run.operator).await, documented(), "left: exported, right: docs/metrics.md");
    run.operator.stop().await.unwrap();
}

#[test]
fn the_dashboard_is_what_grafana_expects() {
    let dashboard = dashboard();
    assert_eq!(dashboard["schemaVersion"], 39);
    assert!(dashboard["id"].is_null(), "Grafana gives the id");
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "id {} is used twice", panel["id"]);
        let place = &panel["gridPos"];
        let (x, w) = (place["x"].as_u64().unwrap(), place["w"].as_u64().unwrap());
        assert!(x + w <= 24, "panel {} is wider than the grid", panel["title"]);
        assert!(places.insert((place["y"].as_u64().unwrap(), x)), "panel {} lies on another", panel["title"]);
    }
    let names: Vec<&str> = dashboard["templating"]["list"].as_array().unwrap().iter().filter_map(|v| v["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "namespace", "limiter"]);
}
