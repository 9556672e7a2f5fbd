//! The law for one group of pods that share their fate: the pods of a service, or one pod that differs from the others.
//!
//! All rates are per pod, so that more pods mean more of everything at once.

use serde::{Deserialize, Serialize};

use crate::capacity::Capacity;
use crate::context::{Context, Evidence};
use crate::signal::{Rates, Signal};
use crate::tuning as t;

/// What a group is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Not overloaded; a ceiling may be armed.
    #[default]
    Calm,
    /// Admits less than the capacity, so that the queue empties.
    Drain,
    /// Admits the capacity.
    Hold,
}

/// Memory of a group between ticks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Group {
    pub phase: Phase,
    pub capacity: Capacity,
    /// Requests in the queue of a pod, as estimated at the last tick.
    pub backlog: f64,
    /// Limit of a pod, in requests per second.
    pub limit: Option<f64>,
    /// Since when the limit is what it is.
    changed_at: f64,
    /// Ticks in a row in which the limit was not needed.
    idle: u32,
    /// How often the estimated queue was empty, and answers were late all the same.
    stuck: u32,
    /// Admits little until answers are seen to come in time.
    until_seen: bool,
    /// Nearly all was late, so that the length of the queue is a guess: the capacity is admitted in two steps.
    deep: bool,
    /// The first of these steps is in force, since an empty queue.
    probing: bool,
    /// Ticks in a row with a long queue, and ticks with late answers of pods that were not busy.
    queued: u32,
    elsewhere: u32,
    /// Rates and CPU use of the tick before, as they were measured.
    before: Option<Rates>,
    cpu_before: Option<f64>,
    mean_before: Option<f64>,
}

impl Group {
    /// One tick: looks at `signal` and sets `self.limit`.
    pub fn tick(&mut self, signal: &Signal, c: &Context) -> Evidence {
        if c.pending {
            // A limit has its effect from when it is in force, however long that takes.
            self.changed_at = self.changed_at.max(c.now);
        }
        let lead = (c.window / c.interval - 1.0).clamp(0.0, 2.0 * t::MOST_LEAD);
        let rates = self.before.map_or(signal.rates, |before| {
            signal.rates.ahead(&before, lead / 2.0)
        });
        let newest = self
            .before
            .map_or(signal.rates, |before| signal.rates.ahead(&before, lead));
        let carried = |cpu: f64, before: f64| (cpu + lead * (cpu - before)).clamp(0.0, 1.0);
        let cpu = signal
            .cpu
            .map(|cpu| self.cpu_before.map_or(cpu, |before| carried(cpu, before)));
        // A mean of a window lags like its rates; a queue that grows is seen in time.
        let mean_s = signal.mean_s.map(|mean| {
            self.mean_before
                .map_or(mean, |before| mean + lead / 2.0 * (mean - before).max(0.0))
        });
        self.before = Some(signal.rates);
        self.cpu_before = signal.cpu;
        self.mean_before = signal.mean_s;
        let mut evidence = self.evidence(signal, &rates, mean_s, c);
        self.capacity
            .learn(signal, &rates, &evidence, self.phase == Phase::Calm);
        evidence.overloaded = self.is_overloaded(signal.pods, cpu, &rates, &evidence, c);
        self.advance_backlog(&rates, c);
        let phase = self.phase;
        match phase {
            Phase::Calm => self.calm(signal, &rates, &newest, &evidence, c),
            Phase::Drain | Phase::Hold => self.limiting(signal, &newest, cpu, &evidence, c),
        }
        evidence
    }

    fn evidence(
        &self,
        signal: &Signal,
        rates: &Rates,
        mean_s: Option<f64>,
        c: &Context,
    ) -> Evidence {
        let late = rates.late * signal.pods * c.interval;
        let late_share = if late < t::FEW_CALLS {
            0.0
        } else {
            rates.late_share()
        };
        let base = self.capacity.base_s;
        // Requests in the pods are of now, rates are of a window: where a limit is in force, it is what is admitted now.
        let admitted = match c.in_force {
            Some(limit) if self.phase != Phase::Calm => limit.min(rates.offered),
            _ => signal.rates.done().max(signal.rates.accepted),
        };
        let time = signal
            .inflight
            .filter(|_| admitted > 0.1)
            .map(|n| n / admitted)
            .or(mean_s);
        Evidence {
            late_share,
            wait_s: time
                .zip(base)
                .map(|(time, base)| (time - base - self.capacity.loaded_s).max(0.0)),
            cpu: signal.cpu,
            offered: rates.offered,
            accepted: rates.accepted,
            overloaded: false,
        }
    }

    /// Whether answers are late for want of capacity. Late answers of pods that have CPU to spare are not, unless it lasts: then
    /// the bottleneck is behind the pods.
    fn is_overloaded(
        &mut self,
        pods: f64,
        cpu: Option<f64>,
        rates: &Rates,
        e: &Evidence,
        c: &Context,
    ) -> bool {
        let many = |wait: f64| wait * e.accepted * pods > t::FEW_QUEUED;
        let waits = e
            .wait_s
            .is_some_and(|wait| wait > t::WAIT_SHARE * c.slo && many(wait));
        self.queued = if waits { self.queued + 1 } else { 0 };
        let slow = c.p95.is_some_and(|p95| p95 > c.slo) && rates.late_share() > t::LATE_SHARE;
        // A queue alone may be the work of a pause; that it lasts is an overload.
        let symptom = e.late_share > t::LATE_SHARE || slow || self.queued >= 2;
        let busy = match cpu {
            Some(cpu) if self.capacity.cpu_tells => cpu > t::BUSY,
            _ => true,
        };
        if !symptom || busy || c.excused || e.late_share < t::MANY_LATE {
            self.elsewhere = 0;
            return symptom && busy;
        }
        self.elsewhere += 1;
        if self.elsewhere >= 2 {
            self.capacity.cpu_misleads();
        }
        self.elsewhere >= 2
    }

    /// The queue grows by what is let in, and shrinks by what the pods can do.
    fn advance_backlog(&mut self, rates: &Rates, c: &Context) {
        if self.phase == Phase::Calm {
            self.backlog = 0.0;
            return;
        }
        let Some(capacity) = self.capacity.value else {
            return;
        };
        let admitted = c
            .in_force
            .map_or(rates.offered, |limit| limit.min(rates.offered));
        self.backlog = (self.backlog + (admitted - capacity) * c.dt).max(0.0);
    }

    fn calm(&mut self, signal: &Signal, rates: &Rates, newest: &Rates, e: &Evidence, c: &Context) {
        let since = c.age + c.interval;
        if e.overloaded {
            let capacity = self.capacity.guess(newest.accepted.max(rates.accepted));
            let queued = match e.wait_s {
                Some(wait) if e.late_share < t::MANY_LATE => wait * capacity,
                _ => t::MARGIN * (c.slo * capacity).max((newest.accepted - capacity) * since),
            };
            self.capacity.value = Some(capacity);
            self.deep = e.late_share >= t::MANY_LATE;
            self.enter_limiting(queued, c);
            return;
        }
        let ceiling = self
            .limit
            .zip(c.in_force)
            .map(|(own, in_force)| own.min(in_force));
        // A step is extrapolated beyond its end: a ceiling that matters is near what was measured too, or refuses calls.
        let raw = &signal.rates;
        let binding = ceiling.filter(|ceiling| {
            rates.offered > t::AIM * ceiling
                && (raw.offered > t::NEAR * ceiling || raw.offered > 1.005 * raw.accepted)
        });
        if let Some((ceiling, capacity)) = binding.zip(self.capacity.value) {
            // What the ceiling may have let in above the capacity since the overload began.
            let burst = t::CALM_BUCKET * ceiling;
            let queued = (ceiling.min(rates.offered) - capacity).max(0.0) * since + burst;
            let queued = e.wait_s.map_or(queued, |wait| {
                queued.min(2.0 * wait * capacity + (ceiling - capacity).max(0.0) * since)
            });
            self.enter_limiting(queued, c);
            return;
        }
        if let Some(limit) = c.in_force.filter(|_| c.foreign && self.limit.is_none()) {
            // A limit that is not ours, or that we do not remember. Where it refuses calls it is better than none until more
            // is known.
            if rates.offered > 1.02 * rates.accepted && rates.offered > limit {
                self.capacity.value = Some(limit / t::AIM);
                self.enter_limiting(0.0, c);
                return;
            }
        }
        self.capacity.follow_calm(rates);
        self.arm_ceiling(c);
    }

    /// A ceiling above the known capacity, so that an overload finds a limit in force.
    fn arm_ceiling(&mut self, c: &Context) {
        let ceiling = self
            .capacity
            .trusted()
            .map(|capacity| capacity * t::CEILING);
        match (ceiling, self.limit) {
            (Some(new), Some(old)) if (new - old).abs() < t::CEILING_BAND * old => {}
            (None, _) => {}
            (Some(new), _) => self.set(new, c),
        }
    }

    fn enter_limiting(&mut self, queued: f64, c: &Context) {
        self.backlog = queued;
        self.capacity.begin();
        self.idle = 0;
        self.stuck = 0;
        self.until_seen = false;
        self.aim(c, true);
    }

    fn limiting(
        &mut self,
        signal: &Signal,
        newest: &Rates,
        cpu: Option<f64>,
        e: &Evidence,
        c: &Context,
    ) {
        let Some(capacity) = self.capacity.value else {
            self.phase = Phase::Calm;
            return;
        };
        self.look_at_queue(capacity, signal, newest, cpu, e, c);
        let capacity = self.capacity.value.unwrap_or(capacity);
        let spare = signal.rates.offered.max(e.offered) < t::SPARE * capacity
            && !e.overloaded
            && self.drained(c);
        self.idle = if spare && !self.until_seen {
            self.idle + 1
        } else {
            0
        };
        if self.idle >= t::IDLE_TICKS {
            self.phase = Phase::Calm;
            self.capacity.proven = true;
            self.limit = None;
            self.arm_ceiling(c);
        } else {
            self.aim(c, false);
        }
    }

    /// What the measurements say of the queue and the capacity, as far as they are of the limit that is in force.
    fn look_at_queue(
        &mut self,
        capacity: f64,
        signal: &Signal,
        newest: &Rates,
        cpu: Option<f64>,
        e: &Evidence,
        c: &Context,
    ) {
        let seen = c.now - c.age - self.changed_at;
        let clean = seen >= t::CLEAN * c.window;
        let recent = seen >= t::RECENT * c.interval + c.slo;
        let e = &if clean && !self.until_seen {
            self.less_time_under_load(signal, e, c)
        } else {
            *e
        };
        if self.until_seen {
            self.look_for_end(newest, cpu, recent, e, c);
        } else if let Some(grown) = e
            .wait_s
            .filter(|wait| self.probing && recent && *wait > 2.5 * t::QUEUE_SHARE * c.slo)
        {
            // The queue was empty, so that its length says by how much too much was let in.
            let admitted = c.in_force.unwrap_or(capacity).min(e.offered);
            let found = admitted * (1.0 - grown / seen);
            self.backlog = grown * admitted;
            self.capacity.admit_less(
                (found / capacity).clamp(t::LEAST_FOUND, t::FIRST_CUT),
                c.now,
            );
        } else if self.drained(c) && still_late(newest, e, c, recent, seen >= c.window) {
            self.stuck(newest, cpu, c);
        } else if recent
            && e.wait_s.is_some_and(|wait| wait > t::WAIT_SHARE * c.slo)
            && self.capacity.take_back(c.now)
        {
            self.backlog = e.wait_s.unwrap_or(0.0) * capacity;
        } else if recent
            && e.late_share < t::MANY_LATE
            && e.wait_s.is_some_and(|wait| wait > 0.5 * c.slo)
        {
            self.backlog = t::MARGIN * e.wait_s.unwrap_or(0.0) * capacity;
            self.capacity.admit_less(t::SOON_LESS, c.now);
        } else if clean && e.late_share < t::MANY_LATE {
            self.stuck = 0;
            match e.wait_s {
                Some(wait) => self.backlog = 0.5 * self.backlog + 0.5 * wait * capacity,
                None if e.late_share < t::LATE_SHARE => self.backlog = 0.0,
                None => {}
            }
            self.capacity.correct(signal, e, c);
        }
    }

    /// Whether the queue is seen to be empty.
    fn look_for_end(
        &mut self,
        newest: &Rates,
        cpu: Option<f64>,
        recent: bool,
        e: &Evidence,
        c: &Context,
    ) {
        let in_time = match e.wait_s {
            Some(wait) => wait < t::WAIT_SHARE * c.slo,
            None => newest.ok > 2.0 * newest.late,
        };
        let idle = cpu.is_some_and(|cpu| self.capacity.cpu_tells && cpu < t::IDLE_CPU);
        if recent && (in_time || idle) {
            self.until_seen = false;
            self.backlog = 0.0;
            self.deep = self.capacity.cpu_tells && cpu.is_some();
        }
    }

    /// Answers take longer although hardly any is late and as many leave the pods as come in, from the first moment on: that is
    /// no queue, busy pods are slower.
    fn less_time_under_load(&mut self, signal: &Signal, e: &Evidence, c: &Context) -> Evidence {
        let raw = &signal.rates;
        let wait = e.wait_s.unwrap_or(0.0);
        // What a queue of this length keeps of what came in.
        let kept = (wait / c.window).min(1.0);
        let keeps_pace = raw.done() > (1.0 - t::PACE * kept) * raw.accepted;
        if wait > t::QUEUE_SHARE * c.slo
            && kept > t::TELLING
            && keeps_pace
            && raw.late_share() < t::FEW_LATE
        {
            self.capacity.loaded_s += wait;
            return Evidence {
                wait_s: Some(0.0),
                overloaded: false,
                ..*e
            };
        }
        *e
    }

    fn drained(&self, c: &Context) -> bool {
        self.capacity
            .value
            .is_none_or(|capacity| self.backlog < 0.3 * c.slo * capacity)
    }

    /// Late answers although the queue should be empty: it was longer than thought, or there is less capacity. Little is admitted
    /// until answers are seen to come in time. Where much is answered in time all the same (newest first, or work of clients that
    /// left is dropped), that is the capacity.
    fn stuck(&mut self, newest: &Rates, cpu: Option<f64>, c: &Context) {
        let Some(capacity) = self.capacity.value else {
            return;
        };
        self.stuck += 1;
        self.capacity.not_by_cpu(capacity, t::FIRST_CUT);
        self.capacity.lowered(capacity, c.now);
        if newest.ok > 0.35 * newest.accepted {
            let least = self.capacity.held().unwrap_or(0.6 * capacity);
            self.capacity.value =
                Some(newest.ok.clamp(least.min(0.97 * capacity), 0.97 * capacity));
            return;
        }
        if cpu.is_some_and(|cpu| self.capacity.cpu_tells && cpu < t::IDLE_CPU) && !c.excused {
            self.capacity.cpu_misleads();
        } else {
            let factor = if self.stuck > 1 { t::CUT } else { t::FIRST_CUT };
            self.capacity.value = Some(factor * capacity);
        }
        self.until_seen = true;
    }

    /// The limit that empties the queue within a tick and admits what the pods can do.
    fn aim(&mut self, c: &Context, first: bool) {
        let Some(capacity) = self.capacity.value else {
            return;
        };
        let in_force = c.in_force.unwrap_or(capacity * 2.0);
        let at_effect = (self.backlog
            + (in_force - capacity).clamp(-capacity, capacity) * t::DELIVERY * c.interval)
            .max(0.0);
        let small = if self.phase == Phase::Drain {
            t::QUEUE_SHARE
        } else {
            t::STANDING
        };
        let spared = if at_effect > small * c.slo * capacity {
            at_effect / c.interval
        } else {
            0.0
        };
        let mut target = if self.until_seen {
            0.0
        } else {
            t::AIM * capacity - spared
        };
        let step = self.deep && spared == 0.0 && !first;
        self.probing = step && self.stuck > 0 && !self.until_seen;
        if step {
            target = t::HALF * capacity;
            self.deep = false;
        }
        let target = target.max(t::LEAST * capacity);
        self.phase = if spared > 0.0 || self.until_seen {
            Phase::Drain
        } else {
            Phase::Hold
        };
        let far = self
            .limit
            .is_none_or(|limit| (target - limit).abs() > t::BAND * limit);
        if first || far {
            self.set(target, c);
        }
    }

    fn set(&mut self, limit: f64, c: &Context) {
        self.limit = Some(limit);
        self.changed_at = c.now + t::DELIVERY * c.interval;
    }
}

/// Whether too much is late although the limit had time to act. Soon after a change only the plainest case counts.
fn still_late(newest: &Rates, e: &Evidence, c: &Context, recent: bool, whole: bool) -> bool {
    let waits = e.wait_s.is_none_or(|wait| wait > 0.5 * c.slo);
    let none_in_time = newest.late_share() > t::MOST_LATE;
    (recent && waits && none_in_time) || (whole && newest.late_share() >= t::MANY_LATE)
}
