//! Limits that do not leak when they change: which decisions come into force now, and which wait. Pure; time comes in.
//!
//! Envoy fills the buckets of a configuration that changes, so each change lets requests pass. A looser limit therefore comes into
//! force when nothing tighter was right for a window; a tighter one at once, as long as the fills that it costs stay within what
//! the rule may leak: a fifth of its rate, after a first interval's worth.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trimtab_crds::limiter::{DescriptorState, DescriptorStatus, FillInterval};

use super::bucket::Bucket;
use super::plan::{Group, Plan};
use crate::input::LimiterInput;
use crate::validate::Validated;

/// Share of a rule's rate that fills out of turn may add.
const LEAK: f64 = 0.2;
/// Longest window that follows from an interval alone.
const LONGEST_WINDOW: Duration = Duration::from_secs(300);
/// How long a tighter limit waits at most: an overload does not.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Part of the quota in force within which another one waits, when the limiter does not say.
const DEAD_BAND: f64 = 0.1;
/// Two rates that differ by less are one.
const SAME: f64 = 1e-9;

type RuleKey = (String, i32);

/// A limit of a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Limit {
    quota: i64,
    total: Option<i64>,
    /// Of the decision, when it is not that of the rule.
    interval: Option<FillInterval>,
    /// Milliseconds.
    millis: i64,
}

impl Limit {
    #[allow(clippy::cast_precision_loss)] // quotas have 32 bits, intervals less than 53
    fn rate(&self) -> f64 {
        self.quota as f64 / self.millis.max(1) as f64
    }

    /// Seconds that a fill takes to come in turn.
    #[allow(clippy::cast_precision_loss)]
    fn fill(&self, in_steps: bool) -> f64 {
        let span = FillInterval {
            seconds: self.millis / 1000,
            nanos: i32::try_from(self.millis % 1000 * 1_000_000).unwrap_or(0),
        };
        if self.quota == 0 {
            return 0.0;
        }
        let bucket = if in_steps {
            Bucket::in_steps(self.quota, span)
        } else {
            Bucket::whole(self.quota, span)
        };
        bucket.every as f64 / 1000.0
    }

    #[allow(clippy::cast_precision_loss)]
    fn seconds(&self) -> f64 {
        self.millis as f64 / 1000.0
    }
}

/// Requests per millisecond; none: no limit.
fn rate(limit: Option<Limit>) -> f64 {
    limit.map_or(f64::INFINITY, |l| l.rate())
}

#[allow(clippy::float_cmp)] // infinities, which have no difference
fn same_rate(a: f64, b: f64) -> bool {
    a == b || (a.is_finite() && (a - b).abs() <= SAME * a)
}

/// The tighter one.
fn tighter(a: Option<Limit>, b: Option<Limit>) -> Option<Limit> {
    if rate(b) < rate(a) { b } else { a }
}

/// What proxies have of a rule, and what may follow.
#[derive(Clone, Debug)]
struct InForce {
    limit: Option<Limit>,
    /// Seconds of the rule's rate that fills out of turn have given and that are not paid off.
    debt: f64,
    at: Duration,
    /// A limit that waits until it has been right for the window: since when, whether it is looser, the tightest seen.
    waiting: Option<(Duration, bool, Option<Limit>)>,
    /// Since when a tighter limit waits for debts.
    held_back: Option<Duration>,
}

impl InForce {
    fn new(limit: Option<Limit>, debt: f64, at: Duration) -> Self {
        Self {
            limit,
            debt,
            at,
            waiting: None,
            held_back: None,
        }
    }

    fn owes(&self, now: Duration) -> f64 {
        (self.debt - LEAK * now.saturating_sub(self.at).as_secs_f64()).max(0.0)
    }

    /// Takes a fill into account.
    fn filled(&mut self, fill: f64, now: Duration) {
        self.debt = self.owes(now) + fill;
        self.at = now;
    }
}

/// What decides whether a limit waits.
#[derive(Clone, Copy, Debug)]
struct Patience {
    window: Duration,
    band: f64,
    now: Duration,
}

/// The limits in force of one limiter.
#[derive(Clone, Debug, Default)]
pub struct Steady {
    generation: Option<i64>,
    rules: BTreeMap<RuleKey, InForce>,
}

impl Steady {
    /// After a restart: proxies have what the status says, and how often it was filled is not known.
    pub fn restored(input: &LimiterInput, now: Duration) -> Self {
        let rules = input.previous.iter().map(|d| {
            let limit = limit_of(input, d);
            let debt = limit.map_or(0.0, |l| l.seconds() - l.fill(true));
            (key(d), InForce::new(limit, debt, now))
        });
        Self {
            generation: Some(input.owner.generation),
            rules: rules.collect(),
        }
    }

    /// Whether time alone may change a limit.
    pub fn is_waiting(&self) -> bool {
        let waits = |r: &InForce| r.waiting.is_some() || r.held_back.is_some();
        self.rules.values().any(waits)
    }

    /// From what is right now to what is in force now. What an edit changes is in force at once.
    pub fn settle(
        &mut self,
        input: &LimiterInput,
        validated: &Validated,
        mut decisions: Vec<DescriptorStatus>,
        now: Duration,
    ) -> Vec<DescriptorStatus> {
        let edited = self.generation != Some(input.owner.generation);
        self.generation = Some(input.owner.generation);
        let mut rules = BTreeMap::new();
        for d in &decisions {
            let known = self.rules.remove(&key(d));
            let new = || InForce::new(limit_of(input, d), 0.0, now);
            rules.insert(key(d), known.unwrap_or_else(new));
        }
        self.rules = rules;
        // The law has dead bands and dead times of its own.
        let free = adaptive(validated);
        let mut changes: Vec<(RuleKey, Option<Limit>)> = Vec::new();
        for d in &decisions {
            let wanted = limit_of(input, d);
            let patience = patience(input, d, edited || free.contains(&key(d)), now);
            if let Some(rule) = self.rules.get_mut(&key(d))
                && let Next::Becomes(next) = rule.next(wanted, patience)
            {
                changes.push((key(d), next));
            }
        }
        if !changes.is_empty() {
            self.change(&Plan::new(input, validated), &changes, (edited, &free), now);
        }
        for d in &mut decisions {
            let wanted = limit_of(input, d);
            let window = patience(input, d, edited, now).window;
            if let Some(rule) = self.rules.get(&key(d)) {
                rule.show(wanted, window, d);
            }
        }
        decisions
    }

    /// Puts changes into force whose configurations may be filled now.
    fn change(
        &mut self,
        plan: &Plan,
        changes: &[(RuleKey, Option<Limit>)],
        (edited, at_once): (bool, &BTreeSet<RuleKey>),
        now: Duration,
    ) {
        let group_of = |k: &RuleKey| {
            let index = usize::try_from(k.1).unwrap_or(usize::MAX);
            plan.group(&k.0, index).cloned()
        };
        let mut groups: Vec<Option<Group>> = changes.iter().map(|(k, _)| group_of(k)).collect();
        groups.sort();
        groups.dedup();
        for group in groups {
            let of_group: BTreeMap<&RuleKey, Option<Limit>> = changes
                .iter()
                .filter(|(k, _)| group_of(k) == group)
                .map(|(k, limit)| (k, *limit))
                .collect();
            let members: Vec<RuleKey> = match &group {
                // Without a plan, as for a descriptor that is refused, nothing else is touched.
                None => of_group.keys().map(|k| (*k).clone()).collect(),
                Some(group) => {
                    let same = |k: &&RuleKey| group_of(k).as_ref() == Some(group);
                    self.rules.keys().filter(same).cloned().collect()
                }
            };
            let of_law = of_group.keys().any(|k| at_once.contains(*k));
            let free = edited || group.is_none() || of_law;
            if free || self.may_fill(plan, &members, &of_group, now) {
                self.fill(plan, &members, &of_group, now);
            }
        }
    }

    /// Whether every bucket of a configuration can be filled once more, or a tighter limit has waited long enough.
    fn may_fill(
        &mut self,
        plan: &Plan,
        members: &[RuleKey],
        changes: &BTreeMap<&RuleKey, Option<Limit>>,
        now: Duration,
    ) -> bool {
        if members.iter().all(|k| self.affords(plan, k, changes, now)) {
            return true;
        }
        let mut urgent = false;
        for (k, next) in changes {
            if let Some(rule) = self.rules.get_mut(*k)
                && rate(*next) < rate(rule.limit)
            {
                let since = *rule.held_back.get_or_insert(now);
                urgent |= now.saturating_sub(since) >= LONGEST_WAIT;
            }
        }
        urgent
    }

    /// Whether the bucket of a rule can be filled once more.
    fn affords(
        &self,
        plan: &Plan,
        k: &RuleKey,
        changes: &BTreeMap<&RuleKey, Option<Limit>>,
        now: Duration,
    ) -> bool {
        let Some(rule) = self.rules.get(k) else {
            return true;
        };
        // What was not limited before has nothing to lose; what is not limited afterwards neither.
        let after = changes.get(k).copied().unwrap_or(rule.limit);
        let (Some(_), Some(limit)) = (rule.limit, after) else {
            return true;
        };
        let fill = limit.fill(in_steps(plan, k));
        let most = (limit.seconds() - fill).max(fill);
        rule.owes(now) + fill <= most + SAME
    }

    /// Whether all buckets can be filled once more: something else in their listeners changes.
    pub fn may_fill_all(&self, input: &LimiterInput, validated: &Validated, now: Duration) -> bool {
        let plan = Plan::new(input, validated);
        let mut rules = self.rules.keys();
        rules.all(|k| self.affords(&plan, k, &BTreeMap::new(), now))
    }

    /// All buckets are filled.
    pub fn fill_all(&mut self, input: &LimiterInput, validated: &Validated, now: Duration) {
        let members: Vec<RuleKey> = self.rules.keys().cloned().collect();
        let plan = Plan::new(input, validated);
        self.fill(&plan, &members, &BTreeMap::new(), now);
    }

    fn fill(
        &mut self,
        plan: &Plan,
        members: &[RuleKey],
        changes: &BTreeMap<&RuleKey, Option<Limit>>,
        now: Duration,
    ) {
        for k in members {
            let Some(rule) = self.rules.get_mut(k) else {
                continue;
            };
            let before = rule.limit;
            if let Some(next) = changes.get(k) {
                rule.limit = *next;
                (rule.waiting, rule.held_back) = (None, None);
            }
            if let (Some(_), Some(limit)) = (before, rule.limit) {
                rule.filled(limit.fill(in_steps(plan, k)), now);
            }
        }
    }
}

/// What becomes of a rule.
#[derive(Clone, Copy, Debug)]
enum Next {
    Stays,
    Becomes(Option<Limit>),
}

impl InForce {
    /// The limit that should be in force next.
    fn next(&mut self, wanted: Option<Limit>, patience: Patience) -> Next {
        let (is, want) = (rate(self.limit), rate(wanted));
        if same_rate(is, want) {
            (self.waiting, self.held_back) = (None, None);
            let same = self.limit.map(|l| (l.quota, l.millis));
            if same == wanted.map(|l| (l.quota, l.millis)) {
                // Only the total can differ: it is in no bucket.
                self.limit = wanted;
                return Next::Stays;
            }
            return Next::Becomes(wanted);
        }
        let looser = want > is;
        if !looser {
            let beyond = is.is_infinite() || is - want > patience.band * is + SAME * is;
            if beyond {
                self.waiting = None;
                return Next::Becomes(wanted);
            }
        }
        self.held_back = None;
        let (since, limit) = match self.waiting {
            Some((since, side, limit)) if side == looser => (since, tighter(limit, wanted)),
            _ => (patience.now, wanted),
        };
        self.waiting = Some((since, looser, limit));
        let over = patience.now.saturating_sub(since) >= patience.window;
        if over {
            Next::Becomes(limit)
        } else {
            Next::Stays
        }
    }

    /// Writes what is in force into a decision.
    fn show(&self, wanted: Option<Limit>, window: Duration, d: &mut DescriptorStatus) {
        if self.limit == wanted {
            return;
        }
        let text = |limit: Option<Limit>| {
            limit.map_or_else(|| "no limit".to_owned(), |l| format!("{} per pod", l.quota))
        };
        let why = if self.held_back.is_some() {
            "it changes more often than its interval allows, and each change fills the bucket"
                .to_owned()
        } else if rate(wanted) > rate(self.limit) {
            format!(
                "a looser limit waits until nothing tighter was right for {}s",
                secs(window)
            )
        } else {
            format!(
                "the difference is within the dead band for {}s",
                secs(window)
            )
        };
        d.reason = format!("{}; still {}: {why}", d.reason, text(self.limit));
        d.state = match (d.state, self.limit) {
            (DescriptorState::Idle, Some(_)) => DescriptorState::Limiting,
            (DescriptorState::Limiting, None) => DescriptorState::Idle,
            (state, _) => state,
        };
        d.quota = self.limit.map(|l| l.quota);
        d.total = self.limit.and_then(|l| l.total);
        d.interval = self.limit.and_then(|l| l.interval);
    }
}

/// Rules that follow the law.
fn adaptive(validated: &Validated) -> BTreeSet<RuleKey> {
    let rules = validated.good().filter(|r| r.adaptive.is_some());
    rules
        .map(|r| (r.set.clone(), i32::try_from(r.index).unwrap_or(i32::MAX)))
        .collect()
}

fn secs(span: Duration) -> f64 {
    span.as_secs_f64()
}

fn key(d: &DescriptorStatus) -> RuleKey {
    (d.set.clone(), d.index)
}

fn in_steps(plan: &Plan, (set, index): &RuleKey) -> bool {
    plan.in_steps(set, usize::try_from(*index).unwrap_or(usize::MAX))
}

fn interval_of(input: &LimiterInput, d: &DescriptorStatus) -> FillInterval {
    d.interval.unwrap_or_else(|| {
        let index = usize::try_from(d.index).unwrap_or(usize::MAX);
        let descriptor = input.spec.sets.get(&d.set).and_then(|s| s.get(index));
        descriptor
            .and_then(|d| d.action.fill_interval)
            .unwrap_or_default()
    })
}

fn limit_of(input: &LimiterInput, d: &DescriptorStatus) -> Option<Limit> {
    let millis = interval_of(input, d).millis();
    d.quota.map(|quota| Limit {
        quota,
        total: d.total,
        interval: d.interval,
        millis,
    })
}

/// Share of the quota in force within which another one waits.
pub(crate) fn dead_band(input: &LimiterInput) -> f64 {
    let own = input.spec.stabilization.as_ref().and_then(|s| s.dead_band);
    own.map_or(DEAD_BAND, |percent| f64::from(percent) / 100.0)
}

fn patience(input: &LimiterInput, d: &DescriptorStatus, edited: bool, now: Duration) -> Patience {
    let own = input.spec.stabilization.clone().unwrap_or_default();
    let written = own.window.as_deref().and_then(|text| text.parse().ok());
    let written = written.map(|w: trimtab_crds::Duration| *w);
    let millis = u64::try_from(interval_of(input, d).millis()).unwrap_or_default();
    let window = written.unwrap_or_else(|| Duration::from_millis(millis).min(LONGEST_WINDOW));
    let band = dead_band(input);
    if edited || d.state == DescriptorState::Refused {
        return Patience {
            window: Duration::ZERO,
            band: 0.0,
            now,
        };
    }
    Patience { window, band, now }
}

#[cfg(test)]
mod tests;
