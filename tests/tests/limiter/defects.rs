//! The defects of Slime's limiter, each with a test that shows that it is not here. The numbers are those of
//! `docs/slime-compatibility.md`.

use serde_json::{Value, json};
use trimtab_crds::limiter::{Delivery, DescriptorState, v1alpha2};
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::Request;
use trimtab_limiter::decide::expression::Expression;
use trimtab_limiter::index::V1alpha2;
use trimtab_mesh::model::{DestinationRule, ServiceEntry};
use trimtab_xds::ECDS;

use crate::cases::{self, Case};
use crate::lab::{Mesh, drive_case, folder, free, limited, pod};
use trimtab_kit::engine::Engine as _;

use crate::fixture::{
    Fixture, Job, base, every_field, limiter, on_prometheus, one, pod as pod_object,
};

fn number(text: &str) -> f64 {
    Expression::compile(text).unwrap().number(&[]).unwrap()
}

fn holds(text: &str) -> bool {
    Expression::compile(text).unwrap().condition(&[]).unwrap()
}

#[tokio::test]
async fn l01_a_missing_fill_interval_refuses_one_descriptor() {
    let fixture = Fixture::new();
    for name in ["bad", "good"] {
        fixture.service(name, 1);
    }
    fixture.limiter(
        "bad",
        1,
        &base(&[
            json!({"condition": "true", "action": {"quota": "1"}}),
            json!({"condition": "true", "action": {"quota": "2", "fill_interval": {"seconds": 1}}}),
        ]),
    );
    fixture.limiter("good", 1, &one("true", "3"));
    fixture.tick(1).await;
    assert_eq!(fixture.quotas("bad"), [None, Some(2)]);
    assert_eq!(fixture.quotas("good"), [Some(3)]);
    let reason = &fixture.view("bad").descriptors[0].reason;
    assert!(
        reason.contains("descriptor[0].action.fill_interval")
            && reason.contains("fill_interval: {seconds: 1}"),
        "{reason}"
    );
}

#[tokio::test]
async fn l02_custom_key_and_value_make_a_bucket() {
    let case = cases::load("custom-key");
    let mut filters = case.envoy_filters();
    let mut plugin = filters[0].clone();
    plugin["metadata"]["name"] = json!("plugin");
    plugin["spec"]["configPatches"] = json!([{
        "applyTo": "HTTP_ROUTE",
        "match": {"context": "SIDECAR_INBOUND", "routeConfiguration": {"vhost": {"name": "inbound|http|9080"}}},
        "patch": {"operation": "MERGE", "value": {"route": {"rate_limits": [{"actions": [
            {"generic_key": {"descriptor_key": "plugin", "descriptor_value": "v1"}}]}]}}},
    }]);
    filters.push(plugin);
    let pod = pod().await;
    let mesh = Mesh::new(pod.address());
    let _envoy = Envoy::start(&mesh.merged(&filters), &folder("l02"))
        .await
        .unwrap();
    limited("the plugin's route", mesh.inbound, &Request::get("/")).await;
    free("a route without the plugin", mesh.other, &Request::get("/")).await;
}

#[tokio::test]
async fn l03_a_global_limiter_without_a_rate_limit_service_stops_nobody() {
    let fixture = Fixture::new();
    for name in ["g", "local"] {
        fixture.service(name, 1);
    }
    let action = json!({"quota": "1", "fill_interval": {"seconds": 1}, "strategy": "global"});
    fixture.limiter(
        "g",
        1,
        &base(&[json!({"condition": "true", "action": action})]),
    );
    fixture.limiter("local", 1, &one("true", "3"));
    fixture.tick(1).await;
    assert_eq!(
        fixture.view("g").descriptors[0].state,
        DescriptorState::Refused
    );
    assert!(
        fixture
            .view("g")
            .reason
            .contains("strategy global is not available"),
        "{}",
        fixture.view("g").reason
    );
    assert_eq!(fixture.quotas("local"), [Some(3)]);
}

#[tokio::test]
async fn l04_the_crd_prunes_no_documented_field() {
    let embedded = trimtab::standalone::embedded().unwrap();
    for camel in [false, true] {
        let spec = every_field(camel);
        let stored = embedded
            .load(limiter(&format!("all-{camel}"), 1, &spec))
            .unwrap();
        let mut kept = stored["spec"].clone();
        // The only default that the schema adds.
        assert_eq!(
            kept.as_object_mut()
                .unwrap()
                .remove("mode")
                .unwrap_or(json!("Enforce")),
            "Enforce"
        );
        assert_eq!(kept, spec);
    }
    let read =
        |camel| serde_json::from_value::<v1alpha2::SmartLimiterSpec>(every_field(camel)).unwrap();
    assert_eq!(read(false), read(true), "both spellings say the same");
}

#[test]
fn l05_less_than_can_be_used() {
    assert!(holds("5<6") && !holds("6<5") && holds("5<=5"));
}

#[test]
fn l06_numbers_are_reals() {
    assert!(holds("0.5>0.3"));
    assert!((number("1/4*10") - 2.5).abs() < 1e-12);
}

#[test]
fn l07_operators_of_one_rank_associate_to_the_left() {
    let all = [("10-3-2", 5.0), ("100/10/2", 5.0), ("12/2*3", 18.0)];
    for (text, want) in all {
        assert!((number(text) - want).abs() < 1e-12, "{text}");
    }
}

#[tokio::test]
async fn l08_names_that_begin_alike_live_together() {
    let fixture = Fixture::new();
    fixture.source.set("cpu", 1.0);
    fixture.source.set("cpu.sum", 2.0);
    fixture.service("a", 1);
    fixture.limiter("a", 1, &one("{cpu}<{cpu.sum}", "{cpu}+{cpu.sum}"));
    fixture.tick(1).await;
    assert_eq!(fixture.quotas("a"), [Some(3)]);
}

#[tokio::test]
async fn l09_an_invalid_edit_is_never_applied() {
    let fixture = Fixture::new();
    fixture.service("a", 1);
    fixture.limiter("a", 1, &base(&[
        json!({"condition": "true", "action": {"quota": "5", "fill_interval": {"seconds": 60}}}),
        json!({"condition": "true", "action": {"quota": "6", "fill_interval": {"seconds": 60}}}),
    ]));
    fixture.tick(1).await;
    fixture.jobs();
    // Slime's ticker would evaluate the edit without looking at the interval.
    fixture.limiter("a", 2, &base(&[
        json!({"condition": "true", "action": {"quota": "1", "fill_interval": {"nanos": 1}}}),
        json!({"condition": "true", "action": {"quota": "7", "fill_interval": {"seconds": 60}}}),
    ]));
    for _ in 0..12 {
        fixture.tick(30).await;
        assert_eq!(
            fixture.quotas("a"),
            [Some(5), Some(7)],
            "what was in force stays"
        );
        assert_eq!(
            fixture.view("a").descriptors[0].state,
            DescriptorState::Refused
        );
    }
    let jobs = fixture.jobs();
    let written = json!(jobs.values().next().unwrap().desired.as_deref().unwrap()).to_string();
    for (tokens, there) in [(1, false), (5, true), (6, false), (7, true)] {
        assert_eq!(
            written.contains(&format!("\"maxTokens\":{tokens},")),
            there,
            "{tokens}: {written}"
        );
    }
}

#[tokio::test]
async fn l10_a_changed_quota_keeps_its_identity() {
    let with_quota = |quota: &str| {
        let mut input = cases::input("single");
        for d in input.spec.sets.values_mut().flatten() {
            quota.clone_into(&mut d.action.quota);
        }
        Case::of(input).envoy_filters()
    };
    let (three, four) = (
        json!(with_quota("3")).to_string(),
        json!(with_quota("4")).to_string(),
    );
    assert_ne!(three, four);
    let only_quota = three.replace(
        "\"maxTokens\":3,\"tokensPerFill\":3",
        "\"maxTokens\":4,\"tokensPerFill\":4",
    );
    assert_eq!(only_quota, four, "one number differs and nothing else");
}

#[tokio::test]
async fn l11_a_host_without_a_service_entry_waits_for_one() {
    let fixture = Fixture::new();
    let mut spec = one("true", "6/{pod}");
    spec["host"] = json!("api.example.com");
    fixture.limiter("api", 1, &spec);
    fixture.tick(1).await;
    assert_eq!(fixture.quotas("api"), [None]);
    assert!(
        fixture.view("api").reason.contains("no ServiceEntry"),
        "{}",
        fixture.view("api").reason
    );
    fixture.put::<ServiceEntry>(
        json!({"metadata": {"namespace": "default", "name": "api"}, "spec": {
        "hosts": ["api.example.com"], "workloadSelector": {"labels": {"app": "api"}}}}),
    );
    fixture.put::<trimtab_mesh::model::Pod>(pod_object("api", 0, &json!({}), "True"));
    fixture.put::<trimtab_mesh::model::Pod>(pod_object("api", 1, &json!({}), "True"));
    fixture.tick(1).await;
    assert_eq!(fixture.quotas("api"), [Some(3)]);
}

#[tokio::test]
async fn l12_subsets_of_a_destination_rule_are_limited() {
    let fixture = Fixture::new();
    fixture.service("a", 1);
    for i in 1..4 {
        fixture.put::<trimtab_mesh::model::Pod>(pod_object(
            "a",
            i,
            &json!({"version": "v1"}),
            "True",
        ));
    }
    let rule = json!({"condition": "true", "action": {"quota": "30/{pod}", "fill_interval": {"seconds": 60}}});
    fixture.limiter("a", 1, &json!({"sets": {"v1": {"descriptor": [rule]}}}));
    fixture.tick(1).await;
    assert_eq!(fixture.quotas("a"), [None]);
    assert!(
        fixture.view("a").descriptors[0]
            .reason
            .contains("subset \"v1\"")
    );
    fixture.put::<DestinationRule>(
        json!({"metadata": {"namespace": "default", "name": "a"}, "spec": {
        "host": "a", "subsets": [{"name": "v1", "labels": {"version": "v1"}}]}}),
    );
    fixture.tick(1).await;
    assert_eq!(fixture.quotas("a"), [Some(10)]);
    let jobs = fixture.jobs();
    let filters = jobs.values().next().unwrap().desired.clone().unwrap();
    assert_eq!(
        filters[0].metadata.name.as_deref(),
        Some("a.default.v1.ratelimit")
    );
}

#[tokio::test]
async fn l13_a_limiter_takes_only_its_own_outputs_away() {
    let fixture = Fixture::new();
    for name in ["a", "ba", "a-b"] {
        fixture.service(name, 1);
        let mut spec = one("true", "3");
        spec["delivery"] = json!("ECDS");
        fixture.limiter(name, 1, &spec);
    }
    fixture.tick(1).await;
    assert_eq!(
        fixture.cache.names(ECDS),
        [
            "trimtab.default.a-b._base",
            "trimtab.default.a._base",
            "trimtab.default.ba._base"
        ]
    );
    fixture.delete::<V1alpha2>(limiter("a", 1, &one("true", "3")));
    fixture.tick(1).await;
    assert_eq!(
        fixture.cache.names(ECDS),
        ["trimtab.default.a-b._base", "trimtab.default.ba._base"]
    );
}

#[tokio::test]
async fn l14_present_match_separate_does_not_leak_to_siblings() {
    let driven = drive_case("match-separate", Delivery::EnvoyFilter).await;
    let with = |name: &str, value: &str| Request::get("/").header(name, value);
    limited("a user", driven.mesh.inbound, &with("user", "a")).await;
    limited("the sibling", driven.mesh.inbound, &with("tier", "free")).await;
    free("others", driven.mesh.inbound, &with("tier", "paid")).await;
}

#[tokio::test]
async fn l15_every_handler_is_queried_in_every_round() {
    let (fixture, _prometheus) = on_prometheus(
        "l15",
        &[
            ("load", "vector(0.9)"),
            ("queue", "vector(7)"),
            ("rt99", "vector(0.25)"),
        ],
    )
    .await;
    fixture.service("a", 1);
    fixture.limiter("a", 1, &one("{load}>0.8 && {rt99}<0.3", "{queue}"));
    for _ in 0..3 {
        fixture.tick(5).await;
        assert_eq!(fixture.quotas("a"), [Some(7)]);
        let view = fixture.view("a");
        let fresh: Vec<&str> = view
            .metrics
            .iter()
            .filter(|(_, r)| r.failure.is_none())
            .map(|(k, _)| k.as_str())
            .collect();
        assert_eq!(
            fresh,
            ["_base.load", "_base.pod", "_base.queue", "_base.rt99"]
        );
    }
}

fn with_status(generation: i64, spec: &Value, job: &Job) -> Value {
    let mut object = limiter("a", generation, spec);
    object["status"] = json!(job.status);
    object
}

#[tokio::test]
async fn l16_status_writes_cause_no_loop() {
    let fixture = Fixture::new();
    fixture.service("a", 1);
    let spec = one("{cpu}>0.8", "3");
    fixture.source.set("cpu", 0.9);
    fixture.limiter("a", 1, &spec);
    fixture.tick(1).await;
    let first = fixture.jobs();
    let job = first.values().next().unwrap();
    assert!(job.status.is_some());

    // The API server tells us of our own status write.
    fixture.put::<V1alpha2>(with_status(1, &spec, job));
    fixture.engine.absorb();
    assert!(fixture.jobs().is_empty(), "our own write is no change");

    // A metric that is never the same twice, like every rate().
    let mut writes = 0;
    for i in 1..=60 {
        fixture.source.set("cpu", 0.9 + f64::from(i) / 1000.0);
        fixture.tick(1).await;
        for job in fixture.jobs().into_values().filter(|j| j.status.is_some()) {
            writes += 1;
            fixture.put::<V1alpha2>(with_status(1, &spec, &job));
        }
    }
    assert!(
        (1..=2).contains(&writes),
        "{writes} status writes in a minute of moving values"
    );
}

#[tokio::test]
async fn l17_one_failing_query_concerns_nobody_else() {
    let (fixture, _prometheus) = on_prometheus(
        "l17",
        &[("good", "vector(0.9)"), ("bad", "this is (no query")],
    )
    .await;
    for name in ["a", "b"] {
        fixture.service(name, 1);
    }
    fixture.limiter("a", 1, &one("{bad}>0.8", "3"));
    fixture.limiter("b", 1, &one("{good}>0.8", "4"));
    fixture.tick(5).await;
    assert_eq!(
        (fixture.quotas("a"), fixture.quotas("b")),
        (vec![None], vec![Some(4)])
    );
    assert_eq!(
        fixture.view("a").descriptors[0].state,
        DescriptorState::Unknown
    );
    let failure = fixture.view("a").metrics["_base.bad"]
        .failure
        .clone()
        .unwrap();
    assert!(failure.contains("parse error"), "{failure}");
}

#[tokio::test]
async fn l18_no_deprecated_header_matcher_is_used() {
    for name in cases::names() {
        let text = json!(cases::load(&name).envoy_filters()).to_string();
        for field in [
            "\"exact_match\"",
            "\"prefix_match\"",
            "\"suffix_match\"",
            "\"safe_regex_match\"",
            "\"contains_match\"",
        ] {
            assert!(!text.contains(field), "{name}: {field}");
        }
    }
    let case = cases::load("spelling-snake");
    let dir = folder("l18");
    let pod = pod().await;
    let _envoy = Envoy::start(
        &Mesh::new(pod.address()).merged(&case.envoy_filters()),
        &dir,
    )
    .await
    .unwrap();
    let log = std::fs::read_to_string(dir.join("envoy.log")).unwrap();
    assert!(!log.contains("Using deprecated"), "{log}");
}

#[test]
fn l19_every_refusal_shows_in_the_status() {
    let mut refused = 0;
    for name in cases::names() {
        let case = cases::load(&name);
        let out: Value = serde_saphyr::from_str(&case.render()).unwrap();
        if case.refused().is_empty() {
            continue;
        }
        refused += 1;
        let conditions = out["status"]["conditions"].as_array().unwrap();
        let of = |kind: &str| conditions.iter().find(|c| c["type"] == kind).unwrap();
        assert_eq!(of("Ready")["status"], "False", "{name}");
        // What is written is told by Accepted, what it points at by Resolved.
        let told = [of("Accepted"), of("Resolved")]
            .into_iter()
            .find(|c| c["status"] == "False")
            .unwrap_or_else(|| panic!("{name}: neither Accepted nor Resolved is False"));
        let message = told["message"].as_str().unwrap();
        assert!(message.len() > 20, "{name}: {message}");
        for d in out["decisions"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|d| d["state"] == "Refused")
        {
            assert!(!d["reason"].as_str().unwrap().is_empty(), "{name}");
        }
    }
    assert!(refused > 15, "{refused} cases with refusals");
}
