use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn key() -> AggregateKey {
    ("routes".to_owned(), "a_80".to_owned(), String::new())
}

/// Objects on one resource, and a proxy that refuses some of them.
struct Table {
    isolation: Isolation,
    revisions: Contributors,
    /// Revisions that are served in the place of newer ones.
    good: Contributors,
    /// Objects and revisions that the proxy refuses.
    bad: BTreeSet<(String, u64)>,
    /// Those that it refuses to have together.
    pairs: Vec<(String, String)>,
    /// What the proxy has.
    proxy: Contributors,
    now: Instant,
    message: &'static str,
    connected: bool,
    culprits: Vec<String>,
    /// Objects that the proxy has lost although it had them before and they are good.
    lost: BTreeSet<String>,
}

impl Table {
    fn new(objects: u64) -> Self {
        Self {
            isolation: Isolation::default(),
            revisions: (0..objects).map(|i| (format!("{i:04}"), i)).collect(),
            good: Contributors::new(),
            bad: BTreeSet::new(),
            pairs: Vec::new(),
            proxy: Contributors::new(),
            now: Instant::now(),
            message: "bad regex",
            connected: true,
            culprits: Vec::new(),
            lost: BTreeSet::new(),
        }
    }

    fn served(&self) -> Contributors {
        let all = self.revisions.iter();
        all.filter_map(|(object, revision)| {
            if !self.isolation.holds(object, *revision) {
                return Some((object.clone(), *revision));
            }
            let good = self.good.get(object)?;
            Some((object.clone(), *good))
        })
        .collect()
    }

    fn refuses(&self, served: &Contributors) -> bool {
        let bad = |(o, r): (&String, &u64)| self.bad.contains(&(o.clone(), *r));
        let together = |(a, b): &(String, String)| served.contains_key(a) && served.contains_key(b);
        served.iter().any(bad) || self.pairs.iter().any(together)
    }

    /// Serves, lets the proxy answer, and steps until nothing changes. Returns the number of contents sent.
    fn settle(&mut self) -> usize {
        for sent in 0..2000 {
            let served = self.served();
            let verdict = if served.is_empty() || !self.connected {
                Verdict::Nobody
            } else if self.refuses(&served) {
                Verdict::Refused(Words {
                    node: "p".to_owned(),
                    message: self.message.to_owned(),
                    streams: BTreeSet::from([1]),
                })
            } else {
                let had = self.proxy.keys().filter(|o| !served.contains_key(*o));
                let good = had.filter(|o| !self.bad.contains(&((*o).clone(), self.revisions[*o])));
                self.lost.extend(good.cloned());
                self.proxy.clone_from(&served);
                Verdict::Accepted
            };
            let aggregate = Aggregate {
                contributors: served,
                verdict,
            };
            let aggregates = BTreeMap::from([(key(), aggregate)]);
            let connected = self.connected;
            let found = self
                .isolation
                .step(&self.revisions, &aggregates, &|_| connected, self.now);
            let culprits = found.culprits.into_iter().map(|(object, ..)| object);
            self.culprits.extend(culprits);
            if !found.changed {
                return sent;
            }
            self.now += Duration::from_millis(50);
        }
        panic!("it never ends: {:?}", self.isolation);
    }

    /// All is accepted.
    fn accepted(&mut self) {
        self.settle();
        self.good = self.served();
        self.isolation.accept(&key(), self.good.clone());
    }

    fn change(&mut self, object: u64, is_bad: bool) {
        let next = self.revisions.values().max().map_or(0, |r| r + 1);
        let object = format!("{object:04}");
        if is_bad {
            self.bad.insert((object.clone(), next));
        }
        self.revisions.insert(object, next);
    }
}

#[test]
fn the_latest_change_is_found_at_once_and_the_others_never_go() {
    let mut table = Table::new(10);
    table.accepted();
    table.change(3, true);
    assert_eq!(table.settle(), 2);
    assert_eq!(table.culprits, ["0003"]);
    assert_eq!(table.proxy.len(), 10, "its last good content stays");
    assert_eq!(table.lost, BTreeSet::new());
    table.change(3, false);
    table.settle();
    assert_eq!(
        table.proxy, table.revisions,
        "it is tried again when it changes"
    );
    assert_eq!(table.isolation.blamed(), BTreeMap::new());
}

#[test]
fn of_two_that_cannot_be_together_the_later_one_is_blamed() {
    for (earlier, later) in [(2, 7), (7, 2)] {
        let mut table = Table::new(10);
        table.accepted();
        table.change(earlier, false);
        table.change(later, false);
        table.change(5, false);
        table.pairs = vec![("0002".to_owned(), "0007".to_owned())];
        table.good.clear();
        table.settle();
        assert_eq!(table.culprits, [format!("{later:04}")]);
    }
}

#[test]
fn what_is_wrong_for_all_is_nobodys_fault_and_ends() {
    let mut table = Table::new(4);
    table.message = "cannot bind '127.0.0.1:80': Address already in use";
    table.change(1, true);
    table.settle();
    assert_eq!(table.culprits, Vec::<String>::new());
    assert_eq!(table.isolation.blamed().len(), 4);
    table.bad.clear();
    table.settle();
    assert_eq!(table.isolation.blamed(), BTreeMap::new());
    let mut table = Table::new(40);
    table.bad = table.revisions.clone().into_iter().collect();
    table.settle();
    assert_eq!((table.culprits.len(), table.served().len()), (0, 40));
    assert_eq!(table.isolation.blamed().len(), 40);
}

#[test]
fn an_object_is_tried_again_after_a_pause_and_when_the_proxy_has_left() {
    let mut table = Table::new(3);
    table.accepted();
    table.change(1, true);
    table.settle();
    table.bad.clear();
    table.now += LASTING.saturating_sub(Duration::from_secs(1));
    table.settle();
    assert!(!table.isolation.blamed().is_empty());
    table.now += Duration::from_secs(2);
    table.settle();
    assert_eq!(table.isolation.blamed(), BTreeMap::new());
    assert_eq!(table.proxy, table.revisions);

    table.change(1, true);
    table.settle();
    table.connected = false;
    table.settle();
    table.now += GONE;
    table.settle();
    assert_eq!(
        table.served(),
        table.revisions,
        "nobody is there who refuses it"
    );
}

#[test]
fn a_proxy_that_does_not_answer_ends_the_search() {
    let mut isolation = Isolation::default();
    let contributors = Contributors::from([("a".to_owned(), 1), ("b".to_owned(), 2)]);
    let now = Instant::now();
    let step = |isolation: &mut Isolation, verdict: Verdict, now: Instant| {
        let of = contributors.iter();
        let served = of.filter(|(o, r)| !isolation.holds(o, **r));
        let aggregate = Aggregate {
            contributors: served.map(|(o, r)| (o.clone(), *r)).collect(),
            verdict,
        };
        let aggregates = BTreeMap::from([(key(), aggregate)]);
        isolation.step(&contributors, &aggregates, &|_| true, now)
    };
    let refused = Verdict::Refused(Words::default());
    assert!(step(&mut isolation, refused, now).changed);
    assert!(isolation.holds("b", 2));
    assert!(!step(&mut isolation, Verdict::Waits, now).changed);
    assert_eq!(isolation.due(), Some(now + PATIENCE));
    assert!(step(&mut isolation, Verdict::Waits, now + PATIENCE).changed);
    assert!(!isolation.holds("b", 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// In the end the proxy has all that it takes, only what it refuses is blamed, nothing good is ever taken away, and
    /// it does not take long.
    #[test]
    fn exactly_what_is_refused_is_left_out(
        objects in 2_u64..40,
        changes in proptest::collection::vec((0_u64..40, any::<bool>()), 1..6),
        cold in any::<bool>(),
    ) {
        let mut table = Table::new(objects);
        if !cold {
            table.accepted();
        }
        let mut bad = BTreeMap::new();
        for (object, is_bad) in changes {
            table.change(object % objects, is_bad);
            bad.insert(object % objects, is_bad);
        }
        let bad: BTreeSet<String> =
            bad.into_iter().filter(|(_, is_bad)| *is_bad).map(|(o, _)| format!("{o:04}")).collect();
        let sent = table.settle();
        if bad.len() < table.revisions.len() {
            let blamed: BTreeSet<String> = table.isolation.blamed().into_keys().collect();
            prop_assert_eq!(&blamed, &bad);
            for (object, revision) in &table.revisions {
                let expected = if bad.contains(object) { table.good.get(object) } else { Some(revision) };
                prop_assert_eq!(table.proxy.get(object), expected);
            }
        }
        prop_assert!(sent <= 24 + 14 * bad.len(), "{} for {} of {}", sent, bad.len(), objects);
        if !cold {
            prop_assert_eq!(&table.lost, &BTreeSet::new());
        }
    }
}
