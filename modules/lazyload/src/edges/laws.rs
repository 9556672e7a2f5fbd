//! Laws of the store, by generated histories.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::config::Retention;

const START: i64 = 1_700_000_000;

fn store() -> EdgeStore {
    EdgeStore::new(Limits::new(&Retention::default(), 100))
}

fn me() -> Caller {
    Caller::new("shop", "front")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    See(u8, Evidence, bool, i64),
    Watched(u32),
    Tick(u64),
}

fn seen() -> impl Strategy<Value = Step> {
    let evidence = prop_oneof![
        Just(Evidence::AccessLog),
        Just(Evidence::Prometheus),
        Just(Evidence::Restored)
    ];
    // Clocks that are right, and clocks that are years off.
    let time = prop_oneof![4 => 0..4_000_000_i64, 1 => -600_000_000..600_000_000_i64];
    (0..6_u8, evidence, any::<bool>(), time).prop_map(|(h, e, k, t)| Step::See(h, e, k, t))
}

fn unwatched() -> impl Strategy<Value = Vec<Step>> {
    let tick = (0..10_000_000_u64).prop_map(Step::Tick);
    proptest::collection::vec(prop_oneof![4 => seen(), 1 => tick], 0..40)
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let watched = (1..400_u32).prop_map(Step::Watched);
    let tick = (0..10_000_000_u64).prop_map(Step::Tick);
    let step = prop_oneof![3 => seen(), 3 => watched, 1 => tick];
    proptest::collection::vec(step, 0..40)
}

fn play(store: &EdgeStore, steps: &[Step]) {
    for step in steps {
        match step {
            Step::See(host, evidence, known, time) => {
                let host = HostName::Text(format!("h{host}.shop").into());
                let observed_call = ObservedCall::new(me(), host, *known, *evidence);
                store.see_all(&[observed_call], at(*time));
            }
            Step::Watched(hours) => {
                store.watched([&me()], Duration::from_secs(u64::from(*hours) * 900));
            }
            Step::Tick(seconds) => {
                store.tick(Duration::from_secs(*seconds));
            }
        }
    }
}

fn played(steps: &[Step]) -> EdgeStore {
    let store = store();
    play(&store, steps);
    store
}

fn scope(store: &EdgeStore) -> BTreeSet<Arc<str>> {
    let edges = store.of(&me()).into_iter();
    edges.filter(Edge::in_scope).map(|e| e.host).collect()
}

/// Reads what `from` wrote, late enough that no clock was ahead.
fn read(into: &EdgeStore, from: &EdgeStore) {
    let refused = into.restore(&me(), &from.to_dependencies(&me()), at(700_000_000));
    assert_eq!(refused, 0);
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(steps in history()) {
        let first = played(&steps);
        let second = store();
        read(&second, &first);
        prop_assert_eq!(second.to_dependencies(&me()), first.to_dependencies(&me()));
        prop_assert_eq!(scope(&second), scope(&first));
    }

    #[test]
    fn replicas_converge_in_any_order(a in history(), b in history(), c in history()) {
        let (a, b, c) = (played(&a), played(&b), played(&c));
        let left = store();
        for one in [&a, &b, &c] {
            read(&left, one);
        }
        let right = store();
        // Another order, another grouping, and one of them twice.
        read(&b, &c);
        for one in [&c, &b, &a, &c] {
            read(&right, one);
        }
        prop_assert_eq!(left.to_dependencies(&me()), right.to_dependencies(&me()));
        // What everyone has read changes nobody.
        for one in [&a, &b, &c] {
            read(one, &left);
            prop_assert_eq!(one.to_dependencies(&me()), left.to_dependencies(&me()));
            one.drain_changes();
            read(one, &left);
            prop_assert!(one.drain_changes().is_empty());
        }
    }

    #[test]
    fn nothing_leaves_without_watched_time(before in history(), after in unwatched()) {
        let store = played(&before);
        // A grace that was watched already may end; everything else stays.
        let edges = store.of(&me()).into_iter();
        let active = edges.filter(|e| e.state == EdgeState::Active).map(|e| e.host);
        let active: BTreeSet<_> = active.collect();
        play(&store, &after);
        prop_assert!(scope(&store).is_superset(&active));
        // Nor by reading what anyone wrote.
        let scope_before = scope(&store);
        read(&store, &played(&before));
        prop_assert!(scope(&store).is_superset(&scope_before));
    }

    #[test]
    fn a_change_is_always_told(before in history(), step in history()) {
        let store = played(&before);
        store.drain_changes();
        let written = store.to_dependencies(&me());
        let scope_before = scope(&store);
        play(&store, &step[..step.len().min(1)]);
        let same = store.to_dependencies(&me()) == written && scope(&store) == scope_before;
        prop_assert_eq!(same, store.drain_changes().is_empty());
    }

    #[test]
    fn a_sighting_only_adds(before in history(), step in seen()) {
        let store = played(&before);
        let old = store.of(&me());
        play(&store, &[step]);
        let new = store.of(&me());
        for edge in old {
            let now = new.iter().find(|e| e.host == edge.host).unwrap();
            prop_assert!(edge.evidence.iter().all(|e| now.evidence.contains(e)));
            prop_assert!(now.state <= edge.state && now.idle <= edge.idle);
            prop_assert!(now.longest_gap >= edge.longest_gap && now.first_seen <= edge.first_seen);
        }
    }
}
