//! When the default configurations of filters, with delivery ECDS, follow what is decided. Pure; time comes in.
//!
//! They are in the listener: a change of one drains connections and fills the buckets of all filters there. So they follow seldom, and
//! what the objects have stays over a restart and a change of leader.

use std::collections::BTreeMap;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::bucket::Bucket;

/// Between two refreshes of a limiter, at least.
pub const BETWEEN: Duration = Duration::from_secs(600);
/// How long a limit must have been another one: one that flaps is not worth a listener.
const SETTLED: Duration = Duration::from_secs(60);

/// What is decided now.
#[derive(Clone, Copy, Debug)]
pub struct Decided<'a> {
    /// Limits by descriptor; none: no limit.
    pub limits: &'a BTreeMap<String, Option<Bucket>>,
    /// Every rule has been decided, now or before.
    pub complete: bool,
    /// Generation of the limiter.
    pub generation: i64,
    /// Share of a rate within which another one is the same.
    pub band: f64,
}

/// The limits of the defaults.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// None: what is decided is taken over at the next occasion.
    limits: Option<BTreeMap<String, Bucket>>,
    generation: Option<i64>,
    /// Hash of the descriptors of all rules.
    rules: Option<u64>,
    /// Not every rule was decided yet.
    open: bool,
    refreshed: Duration,
    /// Since when what is decided differs.
    differs: Option<Duration>,
}

impl Defaults {
    /// Those of the objects that exist, written for a generation of the limiter. When they were refreshed is not known.
    pub fn restored(
        limits: Option<BTreeMap<String, Bucket>>,
        generation: Option<i64>,
        now: Duration,
    ) -> Self {
        Self {
            limits,
            generation,
            refreshed: now,
            ..Self::default()
        }
    }

    /// The limits that the defaults have from now on. Other rules change the listener anyway: they follow at once, as they do for the
    /// first decision. An edit of a quota alone leaves the listener as it is, and is taken like any other limit.
    pub fn settle(&mut self, decided: &Decided<'_>, now: Duration) -> BTreeMap<String, Bucket> {
        let names: Vec<&String> = decided.limits.keys().collect();
        let rules = xxh3_64(format!("{names:?}").as_bytes());
        let edited = match self.rules {
            Some(known) => known != rules,
            // Which rules the object was written for is not known.
            None => self.generation != Some(decided.generation),
        } || (self.open && decided.complete);
        (self.generation, self.rules) = (Some(decided.generation), Some(rules));
        if let Some(limits) = self.limits.as_ref().filter(|_| !edited) {
            self.differs = differ(limits, decided).then(|| self.differs.unwrap_or(now));
            return limits.clone();
        }
        let limits = decided.limits.iter();
        let limits = limits.filter_map(|(name, limit)| Some((name.clone(), (*limit)?)));
        let limits: BTreeMap<String, Bucket> = limits.collect();
        self.open = !decided.complete;
        (self.refreshed, self.differs) = (now, None);
        self.limits.insert(limits).clone()
    }

    /// Whether they are not what is decided.
    pub fn differs(&self) -> bool {
        self.differs.is_some()
    }

    /// Whether it is time to refresh them.
    pub fn is_due(&self, now: Duration) -> bool {
        let over = |since: Duration, span| now.saturating_sub(since) >= span;
        self.differs.is_some_and(|since| over(since, SETTLED)) && over(self.refreshed, BETWEEN)
    }

    /// Has what is decided taken over next.
    pub fn refresh(&mut self) {
        self.limits = None;
    }
}

fn differ(limits: &BTreeMap<String, Bucket>, decided: &Decided<'_>) -> bool {
    decided.limits.iter().any(|(name, now)| {
        match (limits.get(name).map(rate), now.as_ref().map(rate)) {
            (Some(is), Some(right)) => (is - right).abs() > decided.band * is + f64::EPSILON * is,
            (is, right) => is.is_some() != right.is_some(),
        }
    })
}

#[allow(clippy::cast_precision_loss)] // tokens have 32 bits, intervals less than 53
fn rate(bucket: &Bucket) -> f64 {
    bucket.tokens as f64 / bucket.every.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A limiter with one rule, at a time in seconds.
    fn settle(
        defaults: &mut Defaults,
        generation: i64,
        tokens: Option<i64>,
        now: u64,
    ) -> Option<i64> {
        let bucket = |tokens| Bucket {
            tokens,
            every: 1000,
        };
        let limits = BTreeMap::from([("a".to_owned(), tokens.map(bucket))]);
        let decided = Decided {
            limits: &limits,
            complete: true,
            generation,
            band: 0.1,
        };
        let now = Duration::from_secs(now);
        if defaults.is_due(now) {
            defaults.refresh();
        }
        let now = defaults.settle(&decided, now);
        now.get("a").map(|b| b.tokens)
    }

    #[test]
    fn the_first_decision_is_taken_at_once_and_others_seldom() {
        let mut own = Defaults::default();
        assert_eq!(settle(&mut own, 1, Some(100), 0), Some(100));
        assert_eq!(settle(&mut own, 2, Some(50), 1), Some(100), "an edit");
        assert_eq!(settle(&mut own, 2, Some(50), 599), Some(100));
        assert_eq!(settle(&mut own, 2, Some(50), 600), Some(50), "ten minutes");
        assert_eq!(settle(&mut own, 2, None, 602), Some(50));
        assert_eq!(settle(&mut own, 2, None, 1200), None);
    }

    #[test]
    fn other_rules_are_taken_at_once() {
        let bucket = Bucket {
            tokens: 5,
            every: 1000,
        };
        let mut own = Defaults::default();
        assert_eq!(settle(&mut own, 1, Some(100), 0), Some(100));
        let limits = BTreeMap::from([("b".to_owned(), Some(bucket.clone()))]);
        let decided = Decided {
            limits: &limits,
            complete: true,
            generation: 2,
            band: 0.1,
        };
        let taken = own.settle(&decided, Duration::from_secs(1));
        assert_eq!(taken, BTreeMap::from([("b".to_owned(), bucket)]));
    }

    #[test]
    fn what_flaps_or_is_within_the_dead_band_is_not_taken() {
        let mut own = Defaults::default();
        assert_eq!(settle(&mut own, 1, Some(100), 0), Some(100));
        assert_eq!(settle(&mut own, 1, Some(110), 1000), Some(100));
        assert_eq!(settle(&mut own, 1, Some(110), 2000), Some(100));
        for minute in 0..60 {
            let now = 3000 + minute * 60;
            assert_eq!(settle(&mut own, 1, Some(200), now), Some(100));
            assert_eq!(settle(&mut own, 1, Some(100), now + 59), Some(100));
        }
        assert_eq!(settle(&mut own, 1, Some(0), 10_000), Some(100));
        assert_eq!(settle(&mut own, 1, Some(0), 10_060), Some(0));
        assert_eq!(settle(&mut own, 1, Some(1), 20_000), Some(0));
        assert_eq!(settle(&mut own, 1, Some(1), 20_060), Some(1));
    }

    #[test]
    fn a_new_process_keeps_what_the_objects_have() {
        let live = BTreeMap::from([(
            "a".to_owned(),
            Bucket {
                tokens: 7,
                every: 1000,
            },
        )]);
        let start = Duration::from_secs(5000);
        let restored = |generation| Defaults::restored(Some(live.clone()), generation, start);
        let mut own = restored(Some(3));
        assert_eq!(settle(&mut own, 3, Some(100), 5000), Some(7));
        assert_eq!(settle(&mut own, 3, Some(100), 5599), Some(7));
        assert_eq!(settle(&mut own, 3, Some(100), 5600), Some(100));
        let edited = settle(&mut restored(Some(2)), 3, Some(100), 5000);
        assert_eq!(edited, Some(100), "edited while nobody looked");
        let mut fresh = Defaults::restored(None, Some(3), start);
        assert_eq!(settle(&mut fresh, 3, Some(100), 5000), Some(100));
    }
}
