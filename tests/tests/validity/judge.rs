//! Envoy as the judge of many values at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use trimtab_lab::envoy;

const HCM: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// How many of the values that are refused here Envoy looks at, one by one.
#[derive(Clone, Copy, Debug)]
pub enum Depth {
    /// The first so many.
    Slice(usize),
    /// All.
    Full,
}

/// A value with the route that it stands in, and whether it passes here.
#[derive(Clone, Debug)]
pub struct Case {
    pub text: String,
    pub route: Value,
    pub passes: bool,
}

/// Holds the judgement of Envoy against ours: it refuses nothing that passes, and takes next to nothing else.
pub fn compare(what: &str, cases: &[Case], depth: Depth) {
    let (passing, refused): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|c| c.passes);
    let mut wrong = Vec::new();
    for batch in passing.chunks(500) {
        find_refused(batch, &mut wrong);
    }
    assert!(
        wrong.is_empty(),
        "{what}: {} of {} that pass are refused by Envoy: {wrong:#?}",
        wrong.len(),
        passing.len()
    );
    let looked_at = match depth {
        Depth::Slice(n) => &refused[..refused.len().min(n)],
        Depth::Full => &refused[..],
    };
    let valid = taken(looked_at);
    println!(
        "{what}: {} pass and are taken, {} of {} refused ones would be taken: {valid:?}",
        passing.len(),
        valid.len(),
        looked_at.len()
    );
    assert!(
        valid.len() * 100 <= passing.len(),
        "{what}: more than 1 % of valid ones are refused: {valid:#?}"
    );
    assert!(
        !passing.is_empty() && !looked_at.is_empty(),
        "{what}: both kinds are there"
    );
}

/// Halves a refused batch until each refused value is found, with Envoy's words.
fn find_refused(batch: &[&Case], wrong: &mut Vec<(String, String)>) {
    let Err(why) = judged(batch) else { return };
    if let [one] = batch {
        wrong.push((one.text.clone(), why));
        return;
    }
    let (left, right) = batch.split_at(batch.len() / 2);
    find_refused(left, wrong);
    find_refused(right, wrong);
}

/// Those that Envoy takes.
fn taken(cases: &[&Case]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut out = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            if judged(&[case]).is_ok() {
                out.push(case.text.clone());
            }
        }
        out
    };
    std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        let found = workers.map(|w| w.join().expect("a worker"));
        found.into_iter().flatten().collect()
    })
}

fn judged(cases: &[&Case]) -> Result<(), String> {
    let routes: Vec<&Value> = cases.iter().map(|c| &c.route).collect();
    envoy::validate(&json!({
        "layered_runtime": envoy::istio_runtime(),
        "static_resources": {
            "clusters": [{"name": "c", "type": "STATIC", "load_assignment": {"cluster_name": "c"}}],
            "listeners": [listener(&routes)],
        },
    }))
}

/// A listener with these routes.
pub fn listener(routes: &[&Value]) -> Value {
    json!({
        "name": "l",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
            "@type": HCM,
            "stat_prefix": "x",
            "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
            "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        }}]}],
    })
}
