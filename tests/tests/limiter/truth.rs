//! What a status says, and that no condition contradicts another.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use trimtab_crds::limiter::LimiterStatus;
use trimtab_kit::engine::Engine as _;
use trimtab_kit::sources::Failure;
use trimtab_limiter::index::V1alpha2;
use trimtab_limiter::metrics::LimiterCollector;
use trimtab_mesh::model::{Pod, Service};
use trimtab_xds::{Culprit, Delivery, ECDS};

use crate::fixture::{Fixture, base, one};

/// A Service `cart` with one port.
pub(crate) fn service(port: &Value) -> Value {
    json!({"metadata": {"namespace": "default", "name": "cart"},
        "spec": {"selector": {"app": "cart"}, "ports": [port]}})
}

pub(crate) fn http() -> Value {
    service(&json!({"name": "http", "port": 80, "targetPort": 8080}))
}

/// A Ready pod of `cart`, with more metadata and another spec.
pub(crate) fn pod(name: &str, metadata: &Value, spec: &Value) -> Value {
    let mut object = json!({"metadata": {"namespace": "default", "name": name, "labels": {"app": "cart"}},
        "spec": spec, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    for part in ["labels", "annotations"] {
        for (key, value) in metadata[part].as_object().into_iter().flatten() {
            object["metadata"][part][key] = value.clone();
        }
    }
    object
}

pub(crate) fn meshed() -> Value {
    json!({"containers": [{"name": "cart"}, {"name": "istio-proxy"}]})
}

/// The newest status of `cart`, once all events are taken over.
pub(crate) async fn status(fixture: &Fixture) -> LimiterStatus {
    fixture.tick(1).await;
    fixture.engine.answers_changed(&fixture.answers.changed());
    let mut jobs = fixture.jobs().into_values();
    let status = jobs.find_map(|job| job.status);
    status.expect("a status").as_ref().clone()
}

/// Status and reason of a condition.
pub(crate) fn told(status: &LimiterStatus, kind: &str) -> String {
    let found = status.conditions.iter().find(|c| c.type_ == kind);
    let found = found.unwrap_or_else(|| panic!("no {kind}: {:?}", status.conditions));
    format!("{} {}", found.status, found.reason)
}

pub(crate) fn message(status: &LimiterStatus, kind: &str) -> String {
    let found = status.conditions.iter().find(|c| c.type_ == kind);
    found.map(|c| c.message.clone()).unwrap_or_default()
}

pub(crate) fn plain(matcher: &Value) -> Fixture {
    let fixture = Fixture::new();
    fixture.put::<Service>(http());
    fixture.put::<Pod>(pod("cart-0", &json!({}), &meshed()));
    let descriptor = json!({"condition": "true", "match": [matcher],
        "action": {"quota": "10", "fill_interval": {"seconds": 1}}});
    fixture.limiter("cart", 1, &base(&[descriptor]));
    fixture
}

pub(crate) async fn matched(matcher: &Value) -> LimiterStatus {
    status(&plain(matcher)).await
}

#[tokio::test]
async fn fault_l8_a_refused_rule_leads_the_summary() {
    let fixture = Fixture::new();
    fixture.put::<Service>(http());
    fixture.put::<Pod>(pod("cart-0", &json!({}), &meshed()));
    let rule = |condition: &str| json!({"condition": condition, "action": {"quota": "10", "fill_interval": {"seconds": 1}}});
    fixture.limiter("cart", 1, &base(&[rule("true"), rule("{cpuu} > 0.8")]));
    let status = status(&fixture).await;
    assert_eq!(status.state.as_deref(), Some("Refused"));
    assert!(status.reason.expect("a reason").contains("cpuu"));
    assert_eq!(status.limit.as_deref(), Some("10/1s per pod"));
    assert!(fixture.view("cart").is_broken());
}

/// However few limiters have series of their own, those of the broken ones are among them, and they are counted.
#[tokio::test]
async fn fault_l8_series_count_what_is_refused_and_show_it_first() {
    let fixture = Fixture::new();
    for (name, condition) in [("a", "true"), ("b", "true"), ("z", "{cpuu} > 1")] {
        fixture.service(name, 1);
        fixture.limiter(name, 1, &one(condition, "10"));
    }
    fixture.tick(1).await;
    let mut registry = Registry::default();
    let collector = LimiterCollector::new(fixture.engine.clone(), 1);
    registry.register_collector(Box::new(collector));
    let mut text = String::new();
    encode(&mut text, &registry).expect("text");
    assert!(
        text.contains("trimtab_limiters{state=\"Refused\"} 1"),
        "{text}"
    );
    assert!(
        text.contains("trimtab_limiters{state=\"Limiting\"} 2"),
        "{text}"
    );
    let shown = "trimtab_limiter_state{namespace=\"default\",limiter=\"z\",set=\"_base\",index=\"0\",state=\"Refused\"} 1";
    assert!(text.contains(shown), "{text}");
}

#[tokio::test]
async fn fault_l15_what_was_not_looked_at_is_not_evaluated() {
    let fixture = Fixture::new();
    fixture.limiter("cart", 1, &one("{cpu} > 0.8", "10"));
    let missing = status(&fixture).await;
    assert_eq!(told(&missing, "Resolved"), "False ServiceNotFound");
    assert_eq!(told(&missing, "Ready"), "False ServiceNotFound");
    for kind in ["Accepted", "MetricsAvailable", "Applied", "Programmed"] {
        assert_eq!(told(&missing, kind), "Unknown NotEvaluated", "{kind}");
    }
    let fixture = Fixture::new();
    fixture.put::<Service>(http());
    let mut limiter = one("true", "10");
    limiter["holdFor"] = json!("soon");
    fixture.limiter("cart", 1, &limiter);
    let refused = status(&fixture).await;
    assert_eq!(told(&refused, "Accepted"), "False InvalidDuration");
    for kind in ["MetricsAvailable", "Applied", "Programmed"] {
        assert_eq!(told(&refused, kind), "Unknown NotEvaluated", "{kind}");
    }
}

#[tokio::test]
async fn fault_l15_the_reason_of_metrics_agrees_with_the_state() {
    let fixture = Fixture::new();
    fixture.put::<Service>(http());
    fixture.put::<Pod>(pod("cart-0", &json!({}), &meshed()));
    fixture.source.fail("cpu", Failure::Empty);
    fixture.limiter("cart", 1, &one("{cpu} > 0.8", "10"));
    fixture.tick(1).await;
    let never = status(&fixture).await;
    assert_eq!(never.state.as_deref(), Some("Unknown"));
    assert_eq!(told(&never, "MetricsAvailable"), "False NoValue");
    fixture.source.set("cpu", 0.9);
    assert_eq!(status(&fixture).await.state.as_deref(), Some("Limiting"));
    fixture.source.fail("cpu", Failure::Empty);
    let held = status(&fixture).await;
    assert_eq!(held.state.as_deref(), Some("Held"));
    assert_eq!(told(&held, "MetricsAvailable"), "False Held");
}

#[tokio::test]
async fn fault_l6_a_ratio_without_traffic_holds_and_never_limits_by_itself() {
    for (condition, quota) in [
        ("{errors}/{requests} > 0.2", "50"),
        ("true", "min(100, 5/{requests})"),
        ("true", "max({errors}/{requests}, 7)"),
    ] {
        for errors in [0.0, 1.0] {
            let fixture = Fixture::new();
            fixture.put::<Service>(http());
            fixture.put::<Pod>(pod("cart-0", &json!({}), &meshed()));
            fixture.source.set("errors", errors);
            fixture.source.set("requests", 0.0);
            fixture.limiter("cart", 1, &one(condition, quota));
            let first = status(&fixture).await;
            assert_eq!(
                first.state.as_deref(),
                Some("Unknown"),
                "{condition} {quota}"
            );
            assert_eq!(told(&first, "Accepted"), "True Accepted");
            let why = first.descriptors[0].reason.clone();
            assert!(
                why.contains("a division by zero") && why.contains("requests=0"),
                "{why}"
            );
            fixture.source.set("errors", 1.0);
            fixture.source.set("requests", 2.0);
            assert_eq!(status(&fixture).await.state.as_deref(), Some("Limiting"));
            fixture.source.set("requests", 0.0);
            let held = status(&fixture).await;
            assert_eq!(held.state.as_deref(), Some("Held"), "{condition} {quota}");
            assert!(held.descriptors[0].quota.is_some());
            for _ in 0..70 {
                fixture.tick(1).await;
            }
            assert_eq!(
                fixture.view("cart").state,
                "Fallback",
                "{condition} {quota}"
            );
        }
    }
}

/// A refusal of one proxy counts until it takes other bytes, and what nobody has is no limit.
#[tokio::test]
async fn fault_l2_a_limit_that_proxies_refuse_does_not_look_healthy() {
    let fixture = Fixture::new();
    fixture.put::<Service>(http());
    fixture.put::<Pod>(pod("cart-0", &json!({}), &meshed()));
    let mut limiter = one("true", "10");
    limiter["delivery"] = json!("ECDS");
    fixture.limiter("cart", 1, &limiter);
    fixture.tick(1).await;
    let name = fixture.cache.names(ECDS).pop().expect("a value");
    let version = fixture.cache.get(ECDS, &name).expect("it").version.clone();
    fixture.answers.take(&Delivery::Nacked {
        stream: 1,
        node: "cart-0".to_owned(),
        type_url: ECDS.to_owned(),
        name: Some(name.clone()),
        version,
        message: "host headers may not be modified".to_owned(),
        origin: "SmartLimiter default/cart".to_owned(),
        culprit: Culprit::Known,
    });
    let refused = status(&fixture).await;
    for kind in ["Applied", "Programmed", "Ready"] {
        assert_eq!(told(&refused, kind), "False Rejected", "{kind}");
        assert!(message(&refused, kind).contains("host headers may not be modified"));
    }
    assert_eq!(refused.state.as_deref(), Some("NoProxy"));
}

#[tokio::test]
async fn fault_l4_values_are_taken_exactly_if_envoy_takes_them() {
    for (matcher, reason) in [
        (
            json!({"name": "x-a", "regex_match": "/sku**"}),
            "InvalidRegex",
        ),
        (
            json!({"name": "x-b", "regex_match": "[0-9]{4}{2}"}),
            "InvalidRegex",
        ),
        (
            json!({"name": "x-c", "regex_match": "(s{50}){30}"}),
            "InvalidRegex",
        ),
        (
            json!({"name": "x-d", "regex_match": "(?P<größe>[a-z]+)"}),
            "InvalidRegex",
        ),
        (
            json!({"name": "x-e", "regex_match": "(?P<order.id>[0-9]+)"}),
            "InvalidRegex",
        ),
        (
            json!({"name": "x-f", "regex_match": "[s--t]+"}),
            "InvalidRegex",
        ),
        (
            json!({"name": "x-g", "regex_match": "caf\\x{20AC}"}),
            "InvalidRegex",
        ),
        (
            json!({"name": "x-h", "regex_match": "\\p{LL}+"}),
            "InvalidRegex",
        ),
        (
            json!({"name": "x-tier\nx-b", "exact_match": "free"}),
            "InvalidMatch",
        ),
    ] {
        let status = matched(&matcher).await;
        assert_eq!(
            told(&status, "Accepted"),
            format!("False {reason}"),
            "{matcher}"
        );
    }
    for regex in ["[\\w-.]+@shop", "\\Qv1.2(beta)\\E", "\\p{^Greek}+"] {
        let status = matched(&json!({"name": "x-a", "regex_match": regex})).await;
        assert_eq!(told(&status, "Ready"), "True Ready", "{regex}");
    }
    for key in ["Host", "host", "HOST", ":path", "x\ny"] {
        let fixture = Fixture::new();
        fixture.put::<Service>(http());
        let mut limiter = one("true", "10");
        let action = &mut limiter["sets"]["_base"]["descriptor"][0]["action"];
        action["headers_to_add"] = json!([{"key": key, "value": "a"}]);
        fixture.limiter("cart", 1, &limiter);
        let status = status(&fixture).await;
        assert_eq!(told(&status, "Accepted"), "False InvalidHeader", "{key}");
    }
}

/// Against a strict API server: `cluster::truth`.
#[tokio::test]
async fn fault_l9_objects_of_older_releases_are_read() {
    for key in ["fillInterval", "fill_interval"] {
        let fixture = Fixture::new();
        fixture.put::<Service>(http());
        fixture.put::<Pod>(pod("cart-0", &json!({}), &meshed()));
        let mut spec = one("true", "10");
        spec["target"] = json!({"port": "80"});
        spec["sets"]["_base"]["descriptor"][0]["action"] =
            json!({"quota": "10", key: {"seconds": "60", "nanos": "0"}});
        let mut object = crate::fixture::limiter("cart", 1, &spec);
        object["status"] = json!({"metricStatus": {"_base.pod": "2"}, "endPointStatus": {"a": "1"},
            "ratelimitStatus": {"_base": {"descriptor": [{"action": {key: {"seconds": "60"}, "quota": "10"}, "a_b": 1}]}}});
        fixture.put::<V1alpha2>(object);
        let status = status(&fixture).await;
        assert_eq!(told(&status, "Ready"), "True Ready", "{key}");
        assert_eq!(status.limit.as_deref(), Some("10/60s per pod"));
    }
}
