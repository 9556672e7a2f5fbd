//! What passes a real Envoy while limits move: every change fills buckets, and what that lets through has a bound.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{KeepAlive, Request};
use trimtab_tests::merge;
use trimtab_xds::ECDS;

use crate::fixture::{Fixture, pod as pod_object};
use crate::lab::{self, BOUND, Mesh, Xds, folder};

/// Where the objects say that Trimtab is.
const ADVERTISED: &str = "trimtab.istio-system.svc:15010";
/// Requests a second for each path.
const RATE: u32 = 10;

/// A limiter in motion.
struct Case {
    name: &'static str,
    rules: Vec<Value>,
    /// What a second changes.
    second: fn(&Fixture, u64),
    seconds: u64,
    /// Requests that may pass, by path.
    most: Vec<(&'static str, usize)>,
}

fn rule(path: &str, condition: &str, quota: &str, strategy: &str) -> Value {
    json!({"condition": condition, "match": [{"name": ":path", "prefix_match": path}],
        "action": {"quota": quota, "fill_interval": {"seconds": 60}, "strategy": strategy}})
}

/// `quota + quota * window / interval`, with a fifth to spare.
fn bound(quota: f64, seconds: f64) -> usize {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let most = (1.2 * (quota + quota * seconds / 60.0)).floor() as usize;
    most
}

fn wobble(fixture: &Fixture, second: u64) {
    fixture.source.set(
        "cpu",
        if (second / 3).is_multiple_of(2) {
            0.9
        } else {
            0.0
        },
    );
}

fn pods_come_and_go(fixture: &Fixture, second: u64) {
    let ready = if (second / 4).is_multiple_of(2) {
        "False"
    } else {
        "True"
    };
    fixture.put::<trimtab_mesh::model::Pod>(pod_object("a", 1, &json!({}), ready));
}

fn cases() -> Vec<Case> {
    let one = |name, condition, quota, most| Case {
        name,
        rules: vec![rule("/", condition, quota, "single")],
        second: wobble,
        seconds: 45,
        most: vec![("/a", most)],
    };
    vec![
        one("a quota that wobbles", "true", "10+{cpu}", 23),
        one(
            "a quota that jumps",
            "true",
            "20+80*{cpu}",
            bound(92.0, 45.0),
        ),
        one(
            "a condition that flaps",
            "{cpu}>0.5",
            "10",
            bound(10.0, 45.0),
        ),
        Case {
            name: "a fixed rule beside one that moves",
            rules: vec![
                rule("/a", "true", "10", "single"),
                rule("/b", "true", "20+80*{cpu}", "single"),
            ],
            second: wobble,
            seconds: 36,
            most: vec![("/a", bound(10.0, 36.0)), ("/b", bound(92.0, 36.0))],
        },
        Case {
            name: "a total that is shared by one pod or two",
            rules: vec![rule("/", "true", "20", "average")],
            second: pods_come_and_go,
            seconds: 36,
            most: vec![("/a", bound(20.0, 36.0))],
        },
    ]
}

/// The proxy of a limiter, which gets what the engine would have written.
struct Proxy {
    mesh: Mesh,
    lds: std::path::PathBuf,
    filters: Vec<Value>,
    version: u32,
    _envoy: Envoy,
    _pod: trimtab_lab::upstream::Upstream,
}

impl Proxy {
    async fn start(dir: &Path, filters: Vec<Value>) -> Self {
        let pod = lab::pod().await;
        let mesh = Mesh::new(pod.address());
        let mut config = mesh.merged(&filters);
        let lds = dir.join("lds.json");
        write_listeners(&lds, &mut config, 0);
        config["dynamic_resources"] = json!({"lds_config": {"resource_api_version": "V3", "path_config_source": {"path": lds}}});
        let envoy = Envoy::start(&config, dir).await.expect("an Envoy");
        Self {
            mesh,
            lds,
            filters,
            version: 0,
            _envoy: envoy,
            _pod: pod,
        }
    }

    /// What istiod would do.
    fn apply(&mut self, filters: Vec<Value>) {
        if filters == self.filters {
            return;
        }
        self.version += 1;
        let mut config = self.mesh.proxy.bootstrap();
        merge::apply(&mut config, &filters, &lab::facts(&filters)).expect("patches that fit");
        write_listeners(&self.lds, &mut config, self.version);
        self.filters = filters;
    }
}

/// Moves the listeners of a bootstrap to a file that Envoy watches.
fn write_listeners(path: &Path, config: &mut Value, version: u32) {
    let listeners = config["static_resources"]["listeners"].take();
    let mut resources = listeners.as_array().cloned().unwrap_or_default();
    for listener in &mut resources {
        listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
    }
    let text = json!({"version_info": version.to_string(), "resources": resources}).to_string();
    let next = path.with_extension("next");
    std::fs::write(&next, text).expect("a file");
    // Envoy sees moves only.
    std::fs::rename(&next, path).expect("a file");
    if let Some(fields) = config["static_resources"].as_object_mut() {
        fields.remove("listeners");
    }
}

/// The objects that the engine wants now.
fn desired(fixture: &Fixture, xds: SocketAddr, before: &[Value]) -> Vec<Value> {
    let jobs = fixture.jobs();
    let Some(written) = jobs.into_values().next_back().and_then(|j| j.desired) else {
        return before.to_vec();
    };
    let text = json!(written).to_string();
    serde_json::from_str(&text.replace(ADVERTISED, &xds.to_string())).expect("JSON")
}

async fn ask(connection: &mut Option<KeepAlive>, at: SocketAddr, path: &str) -> bool {
    for _ in 0..3 {
        if connection.is_none() {
            *connection = KeepAlive::connect(at).await.ok();
        }
        if let Some(open) = connection {
            match open.send(&Request::get(path)).await {
                Ok(answer) => return answer.status == 200,
                // A listener that changes closes its connections.
                Err(_) => *connection = None,
            }
        }
    }
    false
}

/// Requests that passed, by path.
async fn passed(case: &Case, delivery: &str, number: usize) -> Vec<usize> {
    let fixture = Fixture::new();
    fixture.service("a", 2);
    let spec = json!({"delivery": delivery, "sets": {"_base": {"descriptor": case.rules}}});
    fixture.limiter("a", 1, &spec);
    (case.second)(&fixture, 0);
    fixture.tick(1).await;
    fixture.cache.mark_ready();
    let address = trimtab_lab::ports::free_address().expect("a port");
    let xds = Xds::start_at(fixture.cache.clone(), address).await;
    let dir = folder(&format!("refill-{delivery}-{number}"));
    let filters = desired(&fixture, address, &[]);
    assert!(!filters.is_empty(), "{}", case.name);
    let mut deliveries = fixture.cache.deliveries();
    let mut proxy = Proxy::start(&dir, filters).await;
    for _ in fixture.cache.names(ECDS) {
        let answer = tokio::time::timeout(BOUND, deliveries.recv()).await;
        answer.expect("Envoy answers").expect("a report");
    }
    let mut counts = vec![0; case.most.len()];
    let mut connection = None;
    let start = Instant::now();
    for second in 0..case.seconds {
        (case.second)(&fixture, second);
        fixture.tick(1).await;
        let next = desired(&fixture, address, &proxy.filters);
        proxy.apply(next);
        for request in 0..RATE {
            let due = Duration::from_secs(second) + Duration::from_secs(1) * request / RATE;
            tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
            for (count, (path, _)) in counts.iter_mut().zip(&case.most) {
                *count += usize::from(ask(&mut connection, proxy.mesh.inbound, path).await);
            }
        }
    }
    drop(proxy);
    xds.stop().await;
    counts
}

#[tokio::test]
async fn fault_l18_a_short_window_takes_nothing_of_a_long_one() {
    let mut input = crate::cases::input("ecds-limiting");
    let window = |quota: &str, seconds: u32| {
        let rule = json!({"condition": "true", "action": {"quota": quota, "fill_interval": {"seconds": seconds}}});
        serde_json::from_value(rule).expect("a rule")
    };
    let rules = vec![window("12", 3600), window("5", 1)];
    input.spec.sets.insert("_base".to_owned(), rules);
    let driven = lab::drive("windows", input, trimtab_crds::limiter::Delivery::Ecds).await;
    let (mut connection, mut count) = (None, 0);
    let start = Instant::now();
    // Without pause: nearly all are refused, by the short window.
    while count < 12 {
        count += usize::from(ask(&mut connection, driven.mesh.inbound, "/").await);
        assert!(start.elapsed() < BOUND, "{count} of 12 passed");
    }
    assert!(
        start.elapsed() > Duration::from_secs(1),
        "by the short window"
    );
    let more = start.elapsed() + Duration::from_secs(2);
    while start.elapsed() < more {
        assert!(
            !ask(&mut connection, driven.mesh.inbound, "/").await,
            "the long window is over"
        );
    }
}

/// A default that is refreshed changes the listener. The filter there begins with what the server has sent, not with the default.
#[tokio::test]
async fn a_default_that_is_refreshed_does_not_stand_in_for_what_is_served() {
    let address = trimtab_lab::ports::free_address().expect("a port");
    let at = |quota: &str| {
        let mut input = crate::cases::input("ecds-limiting");
        for rule in input.spec.sets.values_mut().flatten() {
            quota.clone_into(&mut rule.action.quota);
        }
        let ecds = trimtab_crds::limiter::Delivery::Ecds;
        crate::cases::Case::delivered_by(input, ecds, &address.to_string())
    };
    let cache = trimtab_xds::ResourceCache::new();
    cache.mark_ready();
    cache.update(ECDS, lab::resources(&at("3").translation), &[]);
    let mut deliveries = cache.deliveries();
    let xds = Xds::start_at(cache, address).await;
    let dir = folder("refreshed");
    let mut proxy = Proxy::start(&dir, at("3").envoy_filters()).await;
    lab::acked(&mut deliveries, 1).await;
    let inbound = proxy.mesh.inbound;
    assert_eq!(
        lab::tally(inbound, 5, &Request::get("/"), 429).await,
        (3, 2)
    );
    for default in ["50", "60"] {
        proxy.apply(at(default).envoy_filters());
        // The bucket is empty: what passes is in the new listener, whose buckets are full.
        trimtab_lab::process::wait_until("the new listener", BOUND, || async {
            let (passed, _) = lab::tally(inbound, 1, &Request::get("/"), 429).await;
            (passed == 1)
                .then_some(())
                .ok_or_else(|| "the old one".to_owned())
        })
        .await
        .expect("a new listener");
        let rest = lab::tally(inbound, 5, &Request::get("/"), 429).await;
        assert_eq!(rest, (2, 3), "3 as served, not {default}");
    }
    drop(proxy);
    xds.stop().await;
}

/// Counts for three quarters of a minute; all cases run at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_l1_what_passes_while_limits_move_has_a_bound() {
    let cases = cases();
    let runs = ["ECDS", "EnvoyFilter"].into_iter().flat_map(|delivery| {
        let numbered = cases.iter().enumerate();
        numbered.map(move |(number, case)| async move {
            (case, delivery, passed(case, delivery, number).await)
        })
    });
    let mut wrong = Vec::new();
    for (case, delivery, counts) in futures::future::join_all(runs).await {
        for ((path, most), count) in case.most.iter().zip(counts) {
            let line = format!(
                "{delivery}: {}: {path}: {count} of at most {most}",
                case.name
            );
            println!("{line}");
            // Less than the steps of the rate is no limit but a wall.
            if count > *most || count < 5 {
                wrong.push(line);
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
