//! Tests of the whole store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use trimtab_crds::fence::Dependency;
use trimtab_crds::fence::DependencyState::{Active, Expired, Expiring, Unresolved};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const START: i64 = 1_700_000_000;

fn limits() -> Limits {
    Limits::new(&crate::config::Retention::default(), 2000)
}

fn store() -> EdgeStore {
    EdgeStore::new(limits())
}

fn at(hours: i64) -> Timestamp {
    Timestamp::from_second(START + hours * 3600).unwrap()
}

fn me() -> Caller {
    Caller::new("shop", "front")
}

fn one(store: &EdgeStore) -> Edge {
    let [edge] = store.of(&me()).try_into().unwrap();
    edge
}

fn see(store: &EdgeStore, host: &str, hours: i64) -> Seen {
    store.see(&me(), host, Evidence::Prometheus, at(hours))
}

fn unknown(host: &str) -> ObservedCall<'_> {
    let host = HostName::Text(Cow::Borrowed(host));
    ObservedCall::new(me(), host, false, Evidence::AccessLog)
}

/// Hours in which the caller was watched, in steps of one hour.
fn watch(store: &EdgeStore, hours: u32) {
    for _ in 0..hours {
        store.watched([&me()], HOUR);
    }
}

/// A store whose one edge is a tombstone.
fn buried() -> EdgeStore {
    let store = store();
    see(&store, "a.shop", 0);
    watch(&store, 73);
    store.tick(Duration::ZERO);
    watch(&store, 1);
    store.tick(HOUR);
    assert_eq!(one(&store).state, EdgeState::Expired);
    store
}

#[test]
fn an_edge_has_its_evidence_and_times() {
    let store = store();
    assert_eq!(see(&store, "b.shop", 0), Seen::New);
    assert_eq!(see(&store, "a.shop", 1), Seen::New);
    let again = store.see(&me(), "b.shop", Evidence::AccessLog, at(2));
    assert_eq!(again, Seen::Known);
    let edges = store.of(&me());
    let hosts: Vec<_> = edges.iter().map(|e| &*e.host).collect();
    assert_eq!(hosts, ["a.shop", "b.shop"]);
    assert_eq!(
        edges[1].evidence,
        [Evidence::AccessLog, Evidence::Prometheus]
    );
    assert_eq!((edges[1].first_seen, edges[1].last_seen), (at(0), at(2)));
    assert!(store.of(&Caller::new("shop", "back")).is_empty());
}

#[test]
fn only_watched_time_expires_and_the_grace_needs_it_too() {
    let store = store();
    see(&store, "a.shop", 0);
    watch(&store, 72);
    assert_eq!(one(&store).state, EdgeState::Active);
    watch(&store, 1);
    assert_eq!(one(&store).state, EdgeState::Expiring);
    // The grace begins at a tick, however late it comes.
    assert_eq!(store.tick(HOUR), Some(HOUR + limits().grace));
    store.tick(HOUR * 1000);
    assert_eq!(one(&store).state, EdgeState::Expiring, "not watched since");
    watch(&store, 1);
    store.tick(HOUR * 1000);
    assert_eq!(one(&store).state, EdgeState::Expired);
    assert!(!one(&store).in_scope());
    watch(&store, 840);
    assert_eq!(store.of(&me()), []);
    assert_eq!(store.counts(), EdgeCounts::default());
}

#[test]
fn a_call_in_the_grace_or_after_it_brings_the_edge_back() {
    let store = store();
    see(&store, "a.shop", 0);
    watch(&store, 73);
    see(&store, "a.shop", 73);
    store.tick(HOUR);
    watch(&store, 1);
    store.tick(HOUR * 10);
    assert_eq!(one(&store).state, EdgeState::Active);

    let store = buried();
    watch(&store, 94);
    see(&store, "a.shop", 168);
    let edge = one(&store);
    assert_eq!((edge.state, edge.idle), (EdgeState::Active, Duration::ZERO));
    assert_eq!(edge.longest_gap, HOUR * 168);
    watch(&store, 3 * 168);
    assert_eq!(one(&store).state, EdgeState::Active, "called once a week");
    watch(&store, 1);
    assert_eq!(one(&store).state, EdgeState::Expiring);
}

#[test]
fn a_counter_of_unknown_age_does_not_bring_a_tombstone_back() {
    let store = buried();
    let mut observed_call = ObservedCall::new(
        me(),
        HostName::Shared("a.shop".into()),
        true,
        Evidence::Prometheus,
    );
    observed_call.revives = false;
    store.see_all(std::slice::from_ref(&observed_call), at(80));
    assert_eq!(one(&store).state, EdgeState::Expired);
    observed_call.revives = true;
    store.see_all(&[observed_call], at(80));
    assert_eq!(one(&store).state, EdgeState::Active);
}

#[test]
fn a_nightly_call_lives_through_the_day() {
    let store = store();
    for night in 0..60 {
        see(&store, "a.shop", night * 24);
        watch(&store, 24);
        store.tick(HOUR * 24 * u32::try_from(night + 1).unwrap());
        assert_eq!(one(&store).state, EdgeState::Active);
    }
}

#[test]
fn a_clock_that_jumps_narrows_nothing() {
    const YEARS: i64 = 20 * 8766;
    let store = store();
    see(&store, "a.shop", 0);
    for hours in [YEARS, -YEARS, 0, YEARS, 1] {
        see(&store, "b.shop", hours);
        store.watched([&me()], Duration::from_secs(15));
        store.tick(HOUR);
    }
    assert!(store.of(&me()).iter().all(|e| e.state == EdgeState::Active));
    // A wrong clock does not keep an edge for ever either.
    watch(&store, 40);
    see(&store, "b.shop", YEARS);
    let most = limits().remember;
    assert!(store.of(&me()).iter().all(|e| e.longest_gap <= most));
    see(&store, "b.shop", 2);
    let edge = store.of(&me()).pop().unwrap();
    assert!(edge.first_seen <= edge.last_seen && edge.last_seen == at(2));
}

#[test]
fn a_steady_mesh_writes_nothing() {
    let store = store();
    see(&store, "a.shop", 0);
    store.drain_changes();
    let written = store.to_dependencies(&me());
    for hour in 1..1000 {
        store.watched([&me()], HOUR);
        see(&store, "a.shop", hour);
    }
    assert_eq!(store.drain_changes(), BTreeSet::new());
    assert_eq!(store.to_dependencies(&me()), written);
}

#[test]
fn what_nobody_calls_is_written_a_few_times() {
    let store = store();
    see(&store, "a.shop", 0);
    store.drain_changes();
    let mut writes = Vec::new();
    for hour in 1..=912 {
        store.watched([&me()], HOUR);
        store.tick(HOUR * hour);
        if !store.drain_changes().is_empty() {
            let [dependency] = store.to_dependencies(&me()).try_into().unwrap();
            writes.push((dependency.idle.unwrap(), dependency.state));
        }
    }
    let expected = [
        ("36h", Active),
        ("54h", Active),
        ("72h", Active),
        ("72h", Expiring),
        ("72h", Expired),
        ("108h", Expired),
        ("144h", Expired),
        ("216h", Expired),
        ("288h", Expired),
        ("432h", Expired),
        ("576h", Expired),
        ("864h", Expired),
    ];
    let expected: Vec<_> = expected.map(|(i, s)| (i.to_owned(), s)).into();
    assert_eq!(writes, expected);
}

#[test]
fn an_outage_of_the_metrics_is_no_pause() {
    let store = store();
    see(&store, "a.shop", 0);
    watch(&store, 10);
    store.drain_changes();
    see(&store, "a.shop", 24 * 30);
    assert_eq!(one(&store).longest_gap, Duration::ZERO);
    assert_eq!(store.drain_changes(), BTreeSet::new());
}

#[test]
fn a_full_caller_prefers_services() {
    let store = EdgeStore::new(Limits {
        hosts_per_caller: 2,
        ..limits()
    });
    let seen = |s: &[ObservedCall<'_>]| store.see_all(s, at(0));
    assert_eq!(seen(&[unknown("x.example"), unknown("y.example")]).new, 2);
    assert_eq!(seen(&[unknown("z.example")]).refused, 1);
    assert_eq!(see(&store, "a.shop", 1), Seen::New);
    assert_eq!(see(&store, "b.shop", 1), Seen::New);
    assert_eq!(see(&store, "c.shop", 1), Seen::Refused);
    assert_eq!(see(&store, "c.shop", 1), Seen::Refused);
    let hosts: Vec<_> = store.of(&me()).into_iter().map(|e| e.host).collect();
    assert_eq!(hosts, ["a.shop".into(), "b.shop".into()]);
    assert_eq!(store.counts().refused, 3);
    // Tombstones make room.
    watch(&store, 73);
    store.tick(HOUR);
    watch(&store, 1);
    store.tick(HOUR * 2);
    assert_eq!(see(&store, "c.shop", 75), Seen::New);
}

#[test]
fn fault_t7_unknown_hosts_have_a_small_table_of_their_own() {
    let store = store();
    let names: Vec<String> = (0..2100).map(|i| format!("n{i}.test")).collect();
    let seen: Vec<_> = names.iter().map(|name| unknown(name)).collect();
    let tally = store.see_all(&seen, at(0));
    assert_eq!((tally.new, tally.refused), (64, 2036));
    assert_eq!(see(&store, "a.shop", 0), Seen::New, "a known one has room");
    // One that becomes known, and one that goes, make room for another.
    let [first, second] = [&names[0], &names[1]];
    assert_eq!(see(&store, first, 1), Seen::Known);
    assert_eq!(store.see_all(&seen[..66], at(1)).new, 1);
    let written = store.to_dependencies(&me());
    store.forget(&me(), at(2));
    let other = EdgeStore::new(limits());
    assert_eq!(other.restore(&me(), &written, at(3)), 0);
    assert_eq!(other.see_all(&[unknown("late.test")], at(3)).refused, 1);
    assert_eq!(see(&other, second, 3), Seen::Known);
    assert_eq!(other.see_all(&[unknown("late.test")], at(3)).new, 1);
}

#[test]
fn an_unknown_name_goes_without_grace_and_becomes_known() {
    let store = store();
    store.see_all(&[unknown("x.example"), unknown("y.example")], at(0));
    see(&store, "y.example", 1);
    let states: Vec<_> = store
        .to_dependencies(&me())
        .iter()
        .map(|d| d.state)
        .collect();
    assert_eq!(states, [Unresolved, Active]);
    watch(&store, 73);
    assert_eq!(&*one(&store).host, "y.example");
}

#[test]
fn hints_do_not_age_and_go_with_what_declared_them() {
    let store = store();
    let hints = |names: &[&str]| {
        let evidence = BTreeSet::from([Evidence::Template]);
        names
            .iter()
            .map(|n| (Arc::from(*n), evidence.clone()))
            .collect()
    };
    store.set_hints(&me(), &hints(&["a.shop", "b.shop"]), at(0));
    see(&store, "b.shop", 0);
    watch(&store, 100);
    assert_eq!(store.of(&me()).len(), 2);
    // Only what was called is Slime's to know.
    let status = store.metric_status([&me()]);
    assert_eq!(
        status.into_keys().collect::<Vec<_>>(),
        [r#"{destination_service="b.shop"}"#]
    );
    store.drain_changes();
    store.set_hints(&me(), &hints(&["a.shop", "b.shop"]), at(100));
    assert_eq!(store.drain_changes(), BTreeSet::new());
    store.set_hints(&me(), &hints(&[]), at(100));
    assert_eq!(store.drain_changes(), BTreeSet::from([me()]));
    assert_eq!(&*one(&store).host, "b.shop");
    assert_eq!(one(&store).evidence, [Evidence::Prometheus]);
    // A declaration brings a tombstone back.
    let store = buried();
    store.set_hints(&me(), &hints(&["a.shop"]), at(100));
    assert_eq!(one(&store).state, EdgeState::Active);
}

#[test]
fn what_slime_learned_is_taken_over() {
    let keys = [
        r#"{destination_service="a.shop.svc.cluster.local:80"}"#,
        r#"{request_host="example.com"}"#,
        r#"{destination_service="global-sidecar.shop.svc.cluster.local"}"#,
        r#"{destination_service="unknown"}"#,
        r#"{destination_service="[::1]:80"}"#,
        r#"{destination_service="a",request_host="b"}"#,
        r#"{source_app="a"}"#,
        "a.shop",
    ];
    let status: BTreeMap<_, _> = keys.map(|k| (k.to_owned(), "7".to_owned())).into();
    let store = store();
    let known = |host: &str| host.ends_with(".svc.cluster.local");
    let refused = store.restore_metric_status(&me(), &status, known, at(0));
    assert_eq!(refused, 6);
    let edges = store.of(&me());
    let hosts: Vec<_> = edges.iter().map(|e| (&*e.host, e.known)).collect();
    let expected = [("a.shop.svc.cluster.local", true), ("example.com", false)];
    assert_eq!(hosts, expected);
    assert_eq!(edges[0].evidence, [Evidence::Restored]);
    // It reads its own writing, and does not add to what is known already.
    let written = store.metric_status([&me()]);
    store.drain_changes();
    assert_eq!(
        store.restore_metric_status(&me(), &written, known, at(9)),
        0
    );
    assert_eq!(store.drain_changes(), BTreeSet::new());
    assert_eq!(store.metric_status([&me()]), written);
}

#[test]
fn a_broken_dependency_is_refused_and_broken_fields_are_mild() {
    let store = store();
    let dependency = |host: &str| Dependency {
        host: host.to_owned(),
        last_seen: "yesterday".to_owned(),
        first_seen: at(10_000).to_string(),
        idle: Some("long".to_owned()),
        ..Dependency::default()
    };
    let written = [dependency("a.shop"), dependency("a b"), dependency("")];
    assert_eq!(store.restore(&me(), &written, at(5)), 2);
    let edge = one(&store);
    assert_eq!((edge.first_seen, edge.last_seen), (at(5), at(5)));
    assert_eq!((edge.state, edge.idle), (EdgeState::Active, Duration::ZERO));
    assert_eq!(edge.evidence, [Evidence::Restored]);
}

#[tokio::test(start_paused = true)]
async fn a_change_wakes_who_waits() {
    let store = Arc::new(store());
    let waiting = tokio::spawn({
        let store = store.clone();
        async move {
            store.changed().await;
            store.drain_changes()
        }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    see(&store, "a.shop", 0);
    let changes = tokio::time::timeout(HOUR, waiting).await.unwrap().unwrap();
    assert_eq!(changes, BTreeSet::from([me()]));
}

#[test]
fn what_was_forgotten_does_not_come_back_from_an_old_status() {
    let store = store();
    see(&store, "a.shop", 0);
    let old = store.to_dependencies(&me());
    store.forget(&me(), at(1));
    store.restore(&me(), &old, at(1));
    assert_eq!(store.of(&me()), []);
    let known = |_: &str| true;
    let metric = BTreeMap::from([("a.shop".to_owned(), "1".to_owned())]);
    store.restore_metric_status(&me(), &metric, known, at(1));
    assert_eq!(store.of(&me()), []);
    // Another replica has seen a call since, or is of a time before the clock was set.
    let other = EdgeStore::new(limits());
    see(&other, "a.shop", 2);
    store.restore(&me(), &other.to_dependencies(&me()), at(3));
    assert_eq!(one(&store).last_seen, at(2));
    store.forget(&me(), at(3));
    store.restore(&me(), &old, at(0));
    assert_eq!(one(&store).last_seen, at(0));
}

#[test]
fn fault_s8_a_call_is_one_to_each_host_that_leads_there() {
    let store = store();
    let counted = |host: &str, under: &[&str]| {
        let under: BTreeSet<String> = under.iter().map(|u| (*u).to_owned()).collect();
        BTreeMap::from([(host.to_owned(), under)])
    };
    let state = |host: &str| {
        let edges = store.of(&me());
        edges.iter().find(|e| &*e.host == host).map(|e| e.state)
    };
    see(&store, "a.shop", 0);
    store.count_under(&me(), &counted("a.shop", &["b.shop", "c.shop"]));
    for hour in 1..100 {
        watch(&store, 1);
        see(
            &store,
            if hour % 2 == 0 { "b.shop" } else { "c.shop" },
            hour,
        );
    }
    assert_eq!(state("a.shop"), Some(EdgeState::Active));
    // In its grace it comes back; gone it stays gone.
    watch(&store, 73);
    store.tick(Duration::ZERO);
    assert_eq!(state("a.shop"), Some(EdgeState::Expiring));
    see(&store, "b.shop", 200);
    assert_eq!(state("a.shop"), Some(EdgeState::Active));
    // The pause was long, and it lives three times as long now.
    watch(&store, 400);
    store.tick(HOUR);
    watch(&store, 1);
    store.tick(2 * HOUR);
    assert_eq!(state("a.shop"), Some(EdgeState::Expired));
    see(&store, "b.shop", 700);
    assert_eq!(state("a.shop"), Some(EdgeState::Expired));
    // Routes that lead there no more.
    see(&store, "d.shop", 701);
    store.count_under(&me(), &counted("d.shop", &["b.shop"]));
    store.count_under(&me(), &BTreeMap::new());
    watch(&store, 73);
    see(&store, "b.shop", 800);
    assert_eq!(state("d.shop"), Some(EdgeState::Expiring));
}
