//! The law of strategy `adaptive` in an entry: its memory, its ticks, and what of it is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use trimtab_crds::limiter::{DescriptorStatus, LimiterStatus, Mode};
use trimtab_kit::sources::{Row, Sample};
use trimtab_law::{Config, State};

use super::{Entry, Moved};
use crate::config::Reporter;
use crate::decide::adaptive::decided::Decided;
use crate::decide::adaptive::in_force;
use crate::decide::adaptive::measure::{
    CORES, Measured, OWN, PREFIX, REQUESTS, Source, TIME, WITHIN, bound, le, tick, tier_name, top,
};
use crate::input::{LimiterInput, ReadingState};
use crate::validate::{AdaptiveRule, Rule};

/// Status of refusals, unless a rule says another one.
const REFUSED: i32 = 429;

/// One law.
#[derive(Debug, Default)]
pub(in crate::engine) struct Law {
    state: State,
    /// When it decided last.
    at: Option<Duration>,
    /// The newest series of each name, with when they were read.
    series: BTreeMap<String, (Duration, Arc<[Row]>)>,
}

/// What a sample of one name brought.
pub(in crate::engine) type Brought = (String, Sample, Option<Vec<Row>>);

/// Laws and decisions by set, as a status has stored them.
pub(super) fn restored(
    status: &LimiterStatus,
) -> (BTreeMap<String, Law>, BTreeMap<String, Decided>) {
    let (mut laws, mut decided) = (BTreeMap::new(), BTreeMap::new());
    for d in &status.descriptors {
        let memory = d.adaptive.as_ref().and_then(|a| a.memory.as_deref());
        let state = memory.and_then(|text| serde_json::from_str(text).ok());
        if let Some(state) = state {
            let law = Law {
                state,
                ..Law::default()
            };
            laws.insert(d.set.clone(), law);
        }
        if let Some(mut known) = Decided::restored(&d.set, &status.descriptors) {
            known.status.memory = None;
            decided.insert(d.set.clone(), known);
        }
    }
    (laws, decided)
}

/// A status without what only another process reads.
pub(super) fn without_memory(mut status: LimiterStatus) -> LimiterStatus {
    let adaptive = status.descriptors.iter_mut();
    for adaptive in adaptive.filter_map(|d| d.adaptive.as_mut()) {
        adaptive.memory = None;
    }
    status
}

impl Entry {
    /// The adaptive rules of a set: the one for all requests, and tiers by index.
    fn adaptive(&self, set: &str) -> Option<(&Rule, &AdaptiveRule, BTreeMap<String, i64>)> {
        let of_set = || {
            let rules = self.validated.good().filter(|r| r.set == set);
            rules.filter_map(|r| Some((r, r.adaptive.as_ref()?)))
        };
        let (rule, main) = of_set().find(|(_, a)| a.tier.is_none())?;
        let tiers = of_set().filter_map(|(r, a)| Some((r.index.to_string(), a.tier?)));
        Some((rule, main, tiers.collect()))
    }

    /// Sets with strategy `adaptive`.
    pub(in crate::engine) fn adaptive_sets(&self) -> BTreeSet<String> {
        let found = self.input.target.problem.is_none();
        let rules = self.validated.good().filter(|_| found);
        rules
            .filter(|r| r.adaptive.as_ref().is_some_and(|a| a.tier.is_none()))
            .map(|r| r.set.clone())
            .collect()
    }

    /// Names that are measured for a set, and the limiter's own queries among them.
    pub(in crate::engine) fn measures(&self, set: &str) -> BTreeSet<String> {
        let Some((_, main, tiers)) = self.adaptive(set) else {
            return BTreeSet::new();
        };
        let known = &self.input.settings.known_metrics;
        let given = |name: &&str| {
            main.metrics.contains_key(*name) || known.contains(&format!("{PREFIX}{name}"))
        };
        let own: BTreeSet<&str> = OWN.iter().filter(|n| given(n)).copied().collect();
        let lacks = |names: &[&str]| names.iter().any(|n| !own.contains(n));
        let istio = [
            (REQUESTS, lacks(&["offered", "accepted", "errors"])),
            (WITHIN, lacks(&["ok", "late"])),
            (TIME, lacks(&["mean"])),
            (CORES, lacks(&["cpu"])),
        ];
        let istio = istio.iter().filter(|(_, needed)| *needed);
        let mut out: BTreeSet<String> = istio.map(|(name, _)| (*name).to_owned()).collect();
        out.extend(own.iter().map(|name| format!("{PREFIX}{name}")));
        let indices = tiers.keys().filter_map(|index| index.parse().ok());
        out.extend(indices.map(tier_name));
        out
    }

    /// Those without which nothing is decided.
    pub(in crate::engine) fn required(name: &str) -> bool {
        name != TIME && name != CORES
    }

    /// Own queries of a set by the names of [`Self::measures`].
    pub(in crate::engine) fn own_measures(
        &self,
        set: &str,
    ) -> BTreeMap<String, trimtab_crds::limiter::MetricQuery> {
        let rules = self.validated.good().filter(|r| r.set == set);
        let of = rules.filter_map(|r| Some((r.index, r.adaptive.as_ref()?)));
        let named = of.flat_map(|(index, a)| {
            a.metrics.iter().map(move |(name, query)| {
                let name = match a.tier {
                    Some(_) => tier_name(index),
                    None => format!("{PREFIX}{name}"),
                };
                (name, query.clone())
            })
        });
        named.collect()
    }

    /// The bucket up to which an answer of a set is in time, in milliseconds.
    pub(in crate::engine) fn bound(&self, set: &str) -> Option<f64> {
        let (_, main, _) = self.adaptive(set)?;
        bound(
            &self.input.settings.adaptive.buckets,
            main.law.slo_s * 1000.0,
        )
    }

    /// Statuses that the limiter refuses with.
    pub(in crate::engine) fn refusals(&self) -> BTreeSet<i32> {
        let rules = self.validated.good();
        let own = rules.filter_map(|r| r.descriptor.action.response.as_ref()?.status);
        own.chain([REFUSED]).collect()
    }

    /// Takes what one source has measured of a set, and has the law decide. `wall` and `now` are times of one moment.
    pub(in crate::engine) fn measure(
        &mut self,
        set: &str,
        brought: Vec<Brought>,
        (wall, now): (Timestamp, Duration),
    ) -> Moved {
        let Some((rule, main, tiers)) = self.adaptive(set) else {
            return Moved::Nothing;
        };
        let (main, path) = (main.clone(), rule.path.clone());
        let law = self.laws.entry(set.to_owned()).or_default();
        for (name, sample, rows) in brought {
            let alone = || {
                vec![Row {
                    value: sample.clone().unwrap_or(f64::NAN),
                    ..Row::default()
                }]
            };
            match &sample {
                Ok(_) => {
                    law.series
                        .insert(name, (now, rows.unwrap_or_else(alone).into()));
                }
                // What is not there any more is not what it was.
                Err(_) => {
                    law.series.remove(&name);
                }
            }
        }
        let refresh: Duration = self.input.settings.refresh.into();
        let interval = main.interval.map_or(refresh, |i| refresh.max(i.into()));
        // Several sources bring their parts of one tick.
        if law
            .at
            .is_some_and(|at| now.saturating_sub(at) + refresh / 2 < interval)
        {
            return Moved::Nothing;
        }
        law.at = Some(now);
        law.series
            .retain(|_, (at, _)| now.saturating_sub(*at) <= 2 * interval);
        let decided = self.tick(set, &main, &tiers, wall);
        let before = self.input.adaptive.insert(set.to_owned(), decided.clone());
        tracing::debug!(limiter = %self.input.owner, %path, state = %decided.status.state, limit = ?decided.status.limit, reason = %decided.reason, "the law has decided");
        match before {
            Some(before) if before == decided => Moved::Nothing,
            Some(before) if is_same(&before, &decided) => Moved::Value,
            _ => Moved::State,
        }
    }

    fn tick(
        &mut self,
        set: &str,
        main: &AdaptiveRule,
        tiers: &BTreeMap<String, i64>,
        wall: Timestamp,
    ) -> Decided {
        let config = config(main, &self.input, tiers);
        let statuses = self.refusals();
        let bound = self.bound(set).unwrap_or(f64::INFINITY);
        let beside = self.beside(set);
        let in_force = in_force(&self.input, set, &self.decisions);
        let none: Arc<[trimtab_kit::sources::PodFacts]> = Arc::default();
        let pods = self.pods.get(set).unwrap_or(&none).clone();
        let law = self.laws.entry(set.to_owned()).or_default();
        let series = law.series.iter();
        let measured: Measured = series
            .map(|(n, (_, rows))| (n.clone(), rows.clone()))
            .collect();
        let source = Source {
            measured: &measured,
            pods: &pods,
            statuses: &statuses,
            flags_tell: self.input.settings.adaptive.reporter == Reporter::Destination,
            bound,
            tiers,
        };
        #[allow(clippy::cast_precision_loss)] // milliseconds since 1970 have 41 bits
        let seconds = wall.as_millisecond() as f64 / 1000.0;
        let mut seen = tick(&source, seconds);
        seen.tick.in_force = Some(in_force);
        let decision = law.state.decide(&config, &seen.tick);
        let ready = pods.iter().filter(|p| p.ready).count().max(1);
        let mut decided = Decided::of(&decision, i64::try_from(ready).unwrap_or(i64::MAX));
        let status = &mut decided.status;
        // By what was measured: the law looks ahead, where less may seem to be offered.
        let share = (1.0 - config.max_shed) * seen.offered.unwrap_or_default();
        let least = config.floor.max(share);
        status.limit = status.limit.map(|limit| limit.max(tidy(least)));
        (status.capacity, status.offered) = (law.state.capacity(), seen.offered.map(tidy));
        status.shed = seen.shed.map(tidy);
        if self.input.spec.mode == Mode::Shadow {
            // Nothing is refused: what would be.
            let over = seen
                .offered
                .zip(status.limit)
                .map(|(o, l)| tidy((o - l).max(0.0)));
            status.shed = over.or(status.shed);
        }
        status.notes = seen.notes;
        status.notes.extend(slo_note(main.law.slo_s, bound));
        if !status.slow_pods.is_empty() {
            status.notes.push("pods of one set have one limit, since proxies of a set get one configuration: slowPods have the share of the others".to_owned());
        }
        status.notes.extend(beside);
        decided.unmeasured = status.state == "Hold" && status.limit.is_none();
        decided
    }

    /// Says that other limits refuse requests of the same pods.
    fn beside(&self, set: &str) -> Option<String> {
        let rules = self.validated.good();
        let fixed = rules.filter(|r| r.set == set && r.adaptive.is_none());
        let mut others: Vec<String> = fixed.map(|r| r.path.clone()).collect();
        others.extend(self.input.target.neighbours.keys().cloned());
        (!others.is_empty()).then(|| {
            format!(
                "limited beside this by {}: the tighter limit refuses, and what it refuses counts as refused",
                others.join(", ")
            )
        })
    }

    /// The status with the laws' memories.
    pub(super) fn with_memory(&self, status: &LimiterStatus) -> LimiterStatus {
        let mut status = status.clone();
        for d in &mut status.descriptors {
            let law = self.laws.get(&d.set);
            if let (Some(adaptive), Some(law)) = (d.adaptive.as_mut(), law)
                && adaptive.pods.is_some()
            {
                adaptive.memory = serde_json::to_string(&law.state).ok();
            }
        }
        status
    }

    /// Forgets laws of sets that have none any more.
    pub(super) fn keep_laws(&mut self) {
        if self.input.target.problem.is_some() {
            return;
        }
        let sets = self.adaptive_sets();
        // A rule that an edit has broken stays in force, and so does what its law knows.
        let broken: BTreeSet<&String> = (self.validated.rules.iter())
            .filter(|c| c.rule.is_err())
            .map(|c| &c.set)
            .collect();
        let keep = |set: &String| sets.contains(set) || broken.contains(set);
        self.laws.retain(|set, _| keep(set));
        self.input.adaptive.retain(|set, _| keep(set));
    }

    /// Whether a required measure has not been sampled since the start.
    pub(super) fn lacks_measures(&self) -> bool {
        let settings = &self.input.settings;
        self.adaptive_sets().iter().any(|set| {
            self.measures(set).iter().any(|name| {
                let asked = settings.prometheus || settings.known_metrics.contains(name);
                let key = format!("{set}.{name}");
                asked && Self::required(name) && !self.input.metrics.contains_key(&key)
            })
        })
    }

    /// The state of a metric that is measured for a law.
    pub(in crate::engine) fn forget_optional(&mut self, set: &str, name: &str) {
        let key = format!("{set}.{name}");
        let gone = |r: &crate::input::Reading| r.state != ReadingState::Fresh;
        if !Self::required(name) && self.input.metrics.get(&key).is_some_and(gone) {
            self.input.metrics.remove(&key);
        }
    }
}

/// Whether two decisions differ in nothing that proxies or people must know at once.
fn is_same(a: &Decided, b: &Decided) -> bool {
    let core = |d: &Decided| {
        let s = &d.status;
        (
            s.state.clone(),
            s.limit,
            s.bucket_millis,
            s.pods,
            d.tiers.clone(),
            d.unmeasured,
        )
    };
    core(a) == core(b)
}

fn config(main: &AdaptiveRule, input: &LimiterInput, tiers: &BTreeMap<String, i64>) -> Config {
    let refresh = input.settings.refresh;
    let mut known: BTreeSet<i64> = tiers.values().copied().collect();
    if !tiers.is_empty() {
        known.insert(top(tiers));
    }
    Config {
        hold_s: input.hold_for().as_secs_f64(),
        interval_s: main
            .interval
            .map_or(refresh, |i| refresh.max(i))
            .as_secs_f64(),
        window_s: input.settings.adaptive.window.as_secs_f64(),
        tiers: known.into_iter().map(Into::into).collect(),
        ..main.law.clone()
    }
}

/// Four digits: more are noise, and would be another status each time.
fn tidy(value: f64) -> f64 {
    if value < 1e-6 {
        return 0.0;
    }
    let scale = 10_f64.powf(3.0 - value.log10().floor());
    (value * scale).round() / scale
}

/// Says where the SLO lies between two buckets, or beyond all.
fn slo_note(slo_s: f64, bound: f64) -> Option<String> {
    let slo = slo_s * 1000.0;
    let differs = (bound - slo).abs() > 1e-6 && bound.is_finite();
    differs.then(|| {
        format!(
            "answers of up to {}ms count as in time: istio_request_duration_milliseconds has no bucket at the slo of {}ms",
            le(bound),
            le(slo)
        )
    })
}

/// Whether any decision is one of the law.
pub(in crate::engine) fn has_law(decisions: &[DescriptorStatus]) -> bool {
    decisions.iter().any(|d| d.adaptive.is_some())
}
