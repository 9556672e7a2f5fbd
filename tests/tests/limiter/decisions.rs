//! Decisions of the engine that need time, restarts or edits to be seen.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use trimtab_crds::limiter::DescriptorState;
use trimtab_kit::sources::Failure;
use trimtab_limiter::index::V1alpha2;
use trimtab_mesh::model::Service;
use trimtab_xds::ECDS;

use trimtab_kit::engine::Engine as _;

use crate::fixture::{Fixture, base, limiter, one};

async fn refusal(spec: &Value) -> String {
    let fixture = Fixture::new();
    fixture.service("a", 1);
    fixture.limiter("a", 1, spec);
    fixture.tick(1).await;
    let view = fixture.view("a");
    assert_eq!(view.descriptors[0].state, DescriptorState::Refused);
    view.descriptors[0].reason.clone()
}

#[tokio::test]
async fn a_strategy_that_does_not_exist_is_refused() {
    let action = json!({"quota": "1", "fill_interval": {"seconds": 1}, "strategy": "averge"});
    let reason = refusal(&base(&[json!({"condition": "true", "action": action})])).await;
    assert!(reason.contains("\"averge\" is no strategy"), "{reason}");
}

#[tokio::test]
async fn an_outbound_target_needs_a_place() {
    let action = json!({"quota": "1", "fill_interval": {"seconds": 1}});
    let with =
        |target: Value| base(&[json!({"condition": "true", "action": action, "target": target})]);
    let reason = refusal(&with(json!({"direction": "outbound", "port": 80}))).await;
    assert!(reason.contains("needs route or host"), "{reason}");
    let reason = refusal(&with(json!({"direction": "outward"}))).await;
    assert!(reason.contains("\"outward\" is no direction"), "{reason}");
}

#[tokio::test]
async fn a_condition_that_is_a_number_holds_when_it_is_one() {
    let fixture = Fixture::new();
    fixture.service("a", 1);
    fixture.limiter("a", 1, &one("{cpu}*2", "3"));
    for (cpu, quota) in [(0.5, Some(3)), (1.0, None), (0.0, None)] {
        fixture.source.set("cpu", cpu);
        fixture.tick(5).await;
        assert_eq!(fixture.quotas("a"), [quota], "cpu {cpu}");
    }
}

#[tokio::test]
async fn a_missing_metric_is_held_then_falls_back_then_recovers() {
    let fixture = Fixture::new();
    fixture.service("a", 1);
    let mut spec = one("{cpu}>0.8", "9");
    spec["holdFor"] = json!("30s");
    spec["fallback"] = json!({"action": "Limit", "quota": 2});
    fixture.source.set("cpu", 0.9);
    fixture.limiter("a", 1, &spec);
    fixture.tick(5).await;
    fixture.source.fail("cpu", Failure::Timeout);
    let mut seen = Vec::new();
    for _ in 0..8 {
        fixture.tick(5).await;
        let view = fixture.view("a");
        seen.push((view.descriptors[0].state, view.descriptors[0].quota));
    }
    let mut want = vec![(DescriptorState::Held, Some(9)); 6];
    want.extend([(DescriptorState::Fallback, Some(2)); 2]);
    assert_eq!(seen, want, "held for 30 s, then the fallback");
    fixture.source.set("cpu", 0.1);
    fixture.tick(5).await;
    assert_eq!(
        (fixture.view("a").descriptors[0].state, fixture.quotas("a")),
        (DescriptorState::Idle, vec![None])
    );
}

/// What the first stand wrote, seen by a second one that starts after it.
async fn restarted(before: &Fixture, spec: &Value, after: &Fixture) {
    let jobs = before.jobs();
    let status = jobs.values().next().unwrap().status.clone().unwrap();
    let mut object = limiter("a", 1, spec);
    object["status"] = json!(status);
    after.service("a", 1);
    after.put::<V1alpha2>(object);
    after.tick(1).await;
}

#[tokio::test]
async fn fault_l18_an_exact_path_gets_a_remark() {
    for (ignore, remarks) in [(None, 1), (Some(true), 0), (Some(false), 0)] {
        let fixture = Fixture::new();
        fixture.service("a", 1);
        let mut rule = json!({"condition": "true", "match": [{"name": ":path", "exact_match": "/list"}],
            "action": {"quota": "1", "fill_interval": {"seconds": 1}}});
        if let Some(ignore) = ignore {
            rule["match"][0]["ignoreQuery"] = json!(ignore);
        }
        fixture.limiter("a", 1, &base(&[rule]));
        fixture.tick(1).await;
        let found = fixture.engine.findings();
        let about = found.iter().filter(|f| f.message.contains("ignoreQuery"));
        assert_eq!(about.count(), remarks, "{found:?}");
        assert!(found.iter().all(|f| !f.refused), "{found:?}");
    }
}

/// Versions of what proxies get, by name.
fn versions(fixture: &Fixture) -> BTreeMap<String, String> {
    let names = fixture.cache.names(ECDS).into_iter();
    let version = |name: &String| fixture.cache.get(ECDS, name).unwrap().version.clone();
    names.map(|name| (name.clone(), version(&name))).collect()
}

fn changed(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> usize {
    assert!(before.keys().eq(after.keys()), "{before:?} {after:?}");
    before
        .iter()
        .filter(|(name, v)| after[*name] != **v)
        .count()
}

#[tokio::test]
async fn fault_l1_only_the_rule_that_changes_is_pushed() {
    let rule = |path: &str, condition: &str, quota: &str| {
        json!({"condition": condition, "match": [{"name": ":path", "prefix_match": path}],
            "action": {"quota": quota, "fill_interval": {"seconds": 60}}})
    };
    let mut spec = base(&[
        rule("/fixed", "true", "10"),
        rule("/moves", "true", "20+80*{cpu}"),
        rule("/on", "{cpu}>0.5", "10"),
    ]);
    spec["delivery"] = json!("ECDS");
    spec["holdFor"] = json!("10s");
    spec["fallback"] = json!({"action": "Limit", "quota": 3});
    let mut beside = one("true", "7");
    beside["delivery"] = json!("ECDS");
    beside["workloadSelector"] = json!({"app": "a"});
    let start = |cpu| {
        let fixture = Fixture::new();
        fixture.source.set("cpu", cpu);
        fixture.service("a", 1);
        fixture
    };
    let fixture = start(0.2);
    fixture.limiter("a", 1, &spec);
    fixture.limiter("beside", 1, &beside);
    fixture.tick(1).await;
    let names = versions(&fixture);
    assert_eq!(names.len(), 4, "one for each rule: {names:?}");
    let step = async |cpu: f64, seconds| {
        let before = versions(&fixture);
        fixture.source.set("cpu", cpu);
        fixture.tick(seconds).await;
        changed(&before, &versions(&fixture))
    };
    assert_eq!(step(0.4, 60).await, 1, "a quota");
    assert_eq!(step(0.4, 60).await, 0, "nothing");
    assert_eq!(step(0.6, 60).await, 2, "a quota and a condition");
    fixture.service("a", 2);
    assert_eq!(step(0.6, 60).await, 0, "a pod more");
    let before = versions(&fixture);
    fixture.source.fail("cpu", Failure::Timeout);
    fixture.tick(5).await;
    assert_eq!(changed(&before, &versions(&fixture)), 0, "held");
    fixture.tick(60).await;
    assert_eq!(changed(&before, &versions(&fixture)), 2, "the fallback");
    let before = versions(&fixture);
    fixture.limiter("beside", 2, &{
        let mut edited = beside.clone();
        edited["sets"]["_base"]["descriptor"][0]["action"]["quota"] = json!("8");
        edited
    });
    fixture.tick(1).await;
    assert_eq!(changed(&before, &versions(&fixture)), 1, "a neighbour");
    fixture.delete::<V1alpha2>(limiter("beside", 2, &beside));
    fixture.tick(1).await;
    let (before, again) = (versions(&fixture), start(0.2));
    again.source.fail("cpu", Failure::Timeout);
    restarted(&fixture, &spec, &again).await;
    assert_eq!(changed(&before, &versions(&again)), 0, "a restart");
}

#[tokio::test]
async fn a_restart_holds_the_limit_until_there_is_a_value() {
    let spec = one("{cpu}>0.8", "9");
    let (before, after) = (Fixture::new(), Fixture::new());
    before.source.set("cpu", 0.9);
    before.service("a", 1);
    before.limiter("a", 1, &spec);
    before.tick(1).await;
    after.source.fail("cpu", Failure::Timeout);
    restarted(&before, &spec, &after).await;
    assert_eq!(
        (after.view("a").descriptors[0].state, after.quotas("a")),
        (DescriptorState::Held, vec![Some(9)])
    );
    let written = after.jobs().into_values().next().unwrap().desired.unwrap();
    let earlier = json!(written.as_slice()).to_string();
    assert!(
        earlier.contains("\"maxTokens\":9"),
        "the same object, so nothing is written: {earlier}"
    );
}

#[tokio::test]
async fn a_restart_holds_the_limit_of_a_metric_that_nobody_has_pushed_yet() {
    let spec = one("{queue}>10", "9");
    let (before, after) = (Fixture::new(), Fixture::new());
    before.source.set("queue", 12.0);
    before.service("a", 1);
    before.limiter("a", 1, &spec);
    before.tick(1).await;
    assert_eq!(before.quotas("a"), [Some(9)]);
    // The names of pushed metrics are known only from the first push on.
    restarted(&before, &spec, &after).await;
    assert_eq!(
        (after.view("a").descriptors[0].state, after.quotas("a")),
        (DescriptorState::Held, vec![Some(9)])
    );
    after.source.set("queue", 3.0);
    after.tick(5).await;
    assert_eq!(after.quotas("a"), [None]);
}

#[tokio::test]
async fn a_metric_that_is_never_pushed_again_falls_back() {
    let mut spec = one("{queue}>10", "9");
    spec["fallback"] = json!({"action": "NoLimit"});
    let (before, after) = (Fixture::new(), Fixture::new());
    before.source.set("queue", 12.0);
    before.service("a", 1);
    before.limiter("a", 1, &spec);
    before.tick(1).await;
    restarted(&before, &spec, &after).await;
    after.tick(30).await;
    after.engine.absorb();
    assert_eq!(after.quotas("a"), [Some(9)], "held for 60 s");
    after.tick(40).await;
    after.engine.absorb();
    assert_eq!(
        (after.view("a").descriptors[0].state, after.quotas("a")),
        (DescriptorState::Fallback, vec![None])
    );
}

#[tokio::test]
async fn an_own_query_that_nobody_answers_is_told_in_the_end() {
    let fixture = Fixture::new();
    fixture.service("a", 1);
    let mut spec = one("{mine}>1", "9");
    spec["metrics"] = json!({"mine": {"query": "up"}});
    fixture.limiter("a", 1, &spec);
    fixture.tick(1).await;
    fixture.tick(11).await;
    fixture.engine.absorb();
    assert_eq!(
        fixture.view("a").descriptors[0].state,
        DescriptorState::Unknown,
        "this stand says that there is a Prometheus, which never answers"
    );
}

#[tokio::test]
async fn an_inbound_port_follows_the_ports_of_the_service() {
    let fixture = Fixture::new();
    let action = json!({"quota": "5", "fill_interval": {"seconds": 1}});
    let rule = json!({"condition": "true", "action": action, "target": {"port": 9080}});
    let lead_to = |target: u16| {
        fixture.put::<Service>(json!({"metadata": {"namespace": "default", "name": "a"},
            "spec": {"selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": target}]}}));
    };
    // The limiter is there before its Service, and before the Service's port is right.
    fixture.limiter("a", 1, &base(&[rule]));
    fixture.tick(1).await;
    lead_to(9081);
    fixture.tick(1).await;
    assert_eq!(fixture.quotas("a"), [None]);
    let reason = fixture.view("a").descriptors[0].reason.clone();
    assert!(
        reason.contains("Service default/a has no port 9080: use 80 (workload port 9081)"),
        "{reason}"
    );
    let written = || async {
        let jobs = fixture.jobs();
        let desired = jobs.into_values().next().and_then(|job| job.desired);
        json!(desired.unwrap_or_default()).to_string()
    };
    let filters = written().await;
    assert!(!filters.contains("inbound|http"), "{filters}");

    lead_to(9080);
    fixture.tick(1).await;
    assert_eq!(fixture.quotas("a"), [Some(5)]);
    let filters = written().await;
    assert!(filters.contains("\"inbound|http|80\""), "{filters}");

    lead_to(9081);
    fixture.tick(1).await;
    let view = fixture.view("a");
    assert_eq!(
        (view.descriptors[0].state, view.descriptors[0].quota),
        (DescriptorState::Refused, Some(5)),
        "what was in force stays until it is corrected"
    );
}

fn accepted(fixture: &Fixture, name: &str) -> (String, String) {
    let jobs = fixture.jobs();
    let job = jobs.iter().find(|(key, _)| key.name == name);
    let status = job.and_then(|(_, job)| job.status.clone());
    let status = status.expect("a status");
    let accepted = status.conditions.iter().find(|c| c.type_ == "Accepted");
    let accepted = accepted.expect("a condition");
    (accepted.reason.clone(), accepted.message.clone())
}

/// Events, and those that they bring about, with time for a status.
async fn settled(fixture: &Fixture) {
    fixture.tick(60).await;
    fixture.tick(1).await;
}

#[tokio::test]
async fn fault_l1_a_limit_that_moves_beside_another_one_says_so() {
    let fixture = Fixture::new();
    fixture.service("a", 1);
    let moving = one("{cpu}>0.5", "10");
    let mut beside = one("true", "7");
    beside["workloadSelector"] = json!({"app": "a"});
    beside["target"] = json!({"port": 9080});
    fixture.limiter("a", 1, &moving);
    fixture.tick(1).await;
    assert_eq!(accepted(&fixture, "a").0, "Accepted", "it is alone");
    fixture.limiter("beside", 1, &beside);
    settled(&fixture).await;
    let jobs = accepted(&fixture, "a");
    assert_eq!(jobs.0, "AcceptedWithRemarks");
    assert!(
        jobs.1.contains("default/beside") && jobs.1.contains("delivery: ECDS"),
        "{jobs:?}"
    );
    let found = fixture.engine.findings();
    let about = found
        .iter()
        .filter(|f| f.message.contains("default/beside too"));
    assert_eq!(about.count(), 1, "{found:?}");
    // Other pods, another side, its own delivery, gone: nothing to say.
    for (n, change) in [
        ("workloadSelector", json!({"app": "b"})),
        (
            "target",
            json!({"direction": "outbound", "host": ["x:9080"]}),
        ),
        ("delivery", json!("ECDS")),
    ]
    .into_iter()
    .enumerate()
    {
        let mut other = beside.clone();
        other[change.0] = change.1;
        let generation = i64::try_from(n).unwrap() * 2 + 2;
        fixture.limiter("beside", generation, &other);
        settled(&fixture).await;
        assert_eq!(accepted(&fixture, "a").0, "Accepted", "{other}");
        fixture.limiter("beside", generation + 1, &beside);
        settled(&fixture).await;
        assert_eq!(accepted(&fixture, "a").0, "AcceptedWithRemarks", "{n}");
    }
    fixture.delete::<V1alpha2>(limiter("beside", 1, &beside));
    settled(&fixture).await;
    assert_eq!(accepted(&fixture, "a").0, "Accepted", "it is gone");
}

#[tokio::test]
async fn fault_o7_a_reason_says_first_what_holds() {
    let fixture = Fixture::new();
    fixture.service("a", 1);
    fixture.source.set("cpu", 0.9);
    let mut spec = one("{cpu}>0.5", "10");
    spec["holdFor"] = json!("10s");
    fixture.limiter("a", 1, &spec);
    fixture.tick(1).await;
    let long = "x".repeat(2000);
    fixture.source.fail("cpu", Failure::Error(long));
    fixture.tick(5).await;
    fixture.tick(60).await;
    let view = fixture.view("a");
    let beginning = "fallback KeepLast, the last decision (10 per pod) stays: for longer than 10s ";
    assert!(view.reason.starts_with(beginning), "{}", view.reason);
    assert!(view.reason.len() < 400, "{}", view.reason);
}
