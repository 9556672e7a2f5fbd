//! What a pod can do, in requests per second.

use serde::{Deserialize, Serialize};

use crate::context::{Context, Evidence};
use crate::signal::{Rates, Signal};
use crate::tuning as t;

/// What is known of the capacity of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, stored as they are"
)]
pub(crate) struct Capacity {
    /// Requests per second that a pod can answer in time.
    pub value: Option<f64>,
    /// Whether `value` was measured in an overload.
    pub proven: bool,
    /// Whether CPU use says how busy a pod is.
    pub cpu_tells: bool,
    /// Time of an answer without a queue, in seconds.
    pub base_s: Option<f64>,
    /// Requests in the pods per requests per second at which the base was taken are a plain minimum; this counts its ticks.
    cpu_work: f64,
    cpu_weight: f64,
    cpu_ticks: u32,
    /// What part of the CPU can be used before answers are late: waiting grows before the CPU is full.
    cpu_part: f64,
    /// The largest rate that was answered in time.
    best: f64,
    /// Raising is not tried before this time.
    quiet_until: f64,
    /// How often raising was in vain.
    in_vain: u32,
    /// A rate that was too much, until `quiet_until`.
    too_much: Option<f64>,
    /// The largest capacity that was admitted without harm in this overload.
    held: Option<f64>,
    /// Whether this overload began below the known capacity, and where the capacity was found when that happened.
    fell: bool,
    fell_to: Option<f64>,
    /// Raises in a row.
    easy: u32,
    /// Whether it was raised since it was lowered.
    raised: bool,
    /// Mean wait while limiting, in seconds.
    usual_wait: f64,
    /// By how much answers of busy pods take longer than `base_s` without any queue, in seconds.
    pub loaded_s: f64,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            value: None,
            proven: false,
            cpu_tells: true,
            base_s: None,
            cpu_work: 0.0,
            cpu_weight: 0.0,
            cpu_ticks: 0,
            cpu_part: 1.0,
            best: 0.0,
            quiet_until: 0.0,
            in_vain: 0,
            too_much: None,
            held: None,
            fell: false,
            fell_to: None,
            easy: 0,
            raised: false,
            usual_wait: 0.0,
            loaded_s: 0.0,
        }
    }
}

impl Capacity {
    /// Learns what can be learned whatever the phase: the time of an answer, work per CPU, the best rate.
    pub fn learn(&mut self, signal: &Signal, rates: &Rates, e: &Evidence, calm: bool) {
        let raw = &signal.rates;
        if raw.late_share() > 0.02 || rates.late_share() > t::LATE_SHARE || raw.done() < 0.1 {
            return;
        }
        let time = signal
            .inflight
            .map(|n| n / raw.done().max(raw.accepted))
            .or(signal.mean_s);
        if let Some(time) = time {
            self.base_s = Some(
                self.base_s
                    .map_or(time, |base| (base * t::BASE_DRIFT).min(time)),
            );
        }
        self.best = self.best.max(raw.ok);
        let Some(cpu) = e.cpu else { return };
        if (0.1..0.93).contains(&cpu) && self.cpu_tells {
            let keep = if calm { 0.9 } else { 0.7 };
            self.cpu_work = keep * self.cpu_work + raw.done() * cpu;
            self.cpu_weight = keep * self.cpu_weight + cpu * cpu;
            self.cpu_ticks += 1;
        }
    }

    /// Answers are late while the CPU is idle: the bottleneck is behind the pods, and what CPU use said is void.
    pub fn cpu_misleads(&mut self) {
        self.cpu_tells = false;
        if !self.proven {
            let between = |value: f64| {
                if self.best > 0.0 {
                    (self.best.min(value) * value).sqrt()
                } else {
                    t::FELL * value
                }
            };
            self.value = self.value.map(between);
        }
    }

    /// Capacity by work per CPU.
    pub fn by_cpu(&self) -> Option<f64> {
        (self.cpu_tells && self.cpu_ticks >= 3)
            .then(|| self.cpu_part * self.cpu_work / self.cpu_weight)
    }

    /// The capacity that a ceiling may rest on.
    pub fn trusted(&self) -> Option<f64> {
        if self.proven {
            return self.value;
        }
        self.by_cpu()
            .filter(|_| self.cpu_ticks >= 6 && self.cpu_weight > 0.5)
            .and(self.value)
    }

    /// In calm, the capacity follows the work per CPU; without that, an old value is forgotten slowly upwards.
    pub fn follow_calm(&mut self, rates: &Rates) {
        self.value = match (self.value, self.by_cpu()) {
            (Some(value), Some(by_cpu)) => Some(value + 0.2 * (by_cpu - value)),
            (None, by_cpu) => by_cpu,
            (Some(value), None) => Some((value * t::FORGET).max(rates.ok)),
        };
    }

    /// The capacity when an overload begins, with `accepted` requests per second.
    pub fn guess(&mut self, accepted: f64) -> f64 {
        let accepted = accepted.max(0.1);
        self.fell = self
            .value
            .or(self.by_cpu())
            .is_some_and(|known| accepted <= 0.9 * known);
        match self.value.or(self.by_cpu()) {
            Some(known) if accepted > 0.9 * known => known,
            Some(_) => self
                .fell_to
                .filter(|fell_to| *fell_to < accepted)
                .unwrap_or(t::FELL * accepted),
            None if accepted > 1.3 * self.best && self.best > 0.0 => (self.best * accepted).sqrt(),
            None => 0.7 * accepted,
        }
    }

    /// While limiting: measures the capacity where the pods are busy, raises it where they are not.
    pub fn correct(&mut self, signal: &Signal, e: &Evidence, c: &Context) {
        let Some(value) = self.value else { return };
        let raw = &signal.rates;
        let wait = e.wait_s.unwrap_or(0.0);
        let cpu = e.cpu.filter(|_| self.cpu_tells);
        let queued = wait > t::STANDING * c.slo && raw.served() < value;
        if e.late_share > t::LATE_SHARE || wait > t::WAIT_SHARE * c.slo {
            let new = (0.3 * value + 0.7 * raw.served()).clamp(0.5 * value, 0.97 * value);
            if e.late_share > t::LATE_SHARE {
                self.not_by_cpu(value, 0.98);
            }
            self.lowered(value, c.now);
            self.value = Some(self.held.unwrap_or(new).max(new));
        } else if queued {
            // Busy pods with a queue that is short enough: what they answer is what they can do.
            let new = 0.3 * value + 0.7 * raw.served();
            if new < 0.98 * value {
                self.lowered(value, c.now);
            }
            self.value = Some(new.max(0.9 * value));
        } else {
            self.held = Some(self.held.map_or(value, |held| held.max(value)));
            if self.fell
                && cpu.is_none_or(|cpu| cpu > 0.9 * self.cpu_part)
                && raw.offered > 1.02 * raw.accepted
            {
                self.fell_to = Some(value);
            }
            self.make_use_of_room(signal, cpu, c, wait);
        }
        self.cpu_part = (self.cpu_part * t::FORGET_PART).min(1.0);
        self.usual_wait += 0.15 * (wait - self.usual_wait);
    }

    /// Nothing waits: raises the capacity where requests are refused and the pods could do more.
    fn make_use_of_room(&mut self, signal: &Signal, cpu: Option<f64>, c: &Context, wait: f64) {
        let Some(value) = self.value else { return };
        let raw = &signal.rates;
        let shedding = raw.offered > 1.02 * raw.accepted;
        if let Some(cpu) = cpu.filter(|cpu| *cpu > 0.01) {
            if shedding && cpu < t::ROOM * self.cpu_part {
                let room = 0.99 * self.cpu_part * raw.done() / cpu;
                let bound = match self.too_much.filter(|_| c.now < self.quiet_until) {
                    Some(too_much) => (0.95 * too_much).max(value),
                    None => value * t::MOST_RAISE,
                };
                self.value = Some(room.min(bound).max(value));
            }
        } else if shedding && wait < t::QUEUE_SHARE * c.slo {
            if wait < 0.3 * self.usual_wait {
                self.quiet_until = c.now;
            }
            self.raise(value, c.now);
        }
    }

    /// A queue grows soon after a raise: back to what was fine before. Answers whether there is such a capacity.
    pub fn take_back(&mut self, now: f64) -> bool {
        let Some((value, held)) = self.value.zip(self.held) else {
            return false;
        };
        if !self.raised || held > 0.99 * value {
            return false;
        }
        self.lowered(value, now);
        self.value = Some(held);
        true
    }

    /// A queue grows at `value`, and `part` of it is admitted from now on.
    pub fn admit_less(&mut self, part: f64, now: f64) {
        if let Some(value) = self.value {
            self.lowered(value, now);
            self.value = Some(part * value);
        }
    }

    /// What was admitted without harm in this overload.
    pub fn held(&self) -> Option<f64> {
        self.held
    }

    /// A new overload: what was fine before says nothing.
    pub fn begin(&mut self) {
        self.loaded_s = 0.0;
        self.held = None;
        self.easy = 0;
    }

    /// Without CPU use to go by: half the way to what proved too much, and no further for a time that doubles.
    fn raise(&mut self, value: f64, now: f64) {
        let quiet = now < self.quiet_until;
        // What was too much is tried again with care, and forgotten when it proves to be fine.
        self.too_much = self.too_much.filter(|too_much| quiet || *too_much > value);
        let raise = match self.too_much {
            Some(too_much) if quiet && too_much < 1.06 * value => return,
            Some(too_much) if quiet => (too_much / value).sqrt(),
            Some(_) => 1.0 + t::FIRST_RAISE,
            None => 1.0 + t::FIRST_RAISE * f64::from(1_u32 << self.easy.min(4)),
        };
        self.easy += 1;
        self.raised = true;
        self.value = Some(value * raise.min(t::BLIND_RAISE));
    }

    /// `capacity` proved too much although the CPU should have been enough: only `part` of what it seemed can be used.
    pub fn not_by_cpu(&mut self, capacity: f64, part: f64) {
        if let Some(by_cpu) = self
            .by_cpu()
            .filter(|by_cpu| (0.85..1.15).contains(&(capacity / by_cpu)))
        {
            self.cpu_part =
                (self.cpu_part * part * capacity / by_cpu).clamp(t::LEAST_CPU_PART, self.cpu_part);
        }
    }

    /// `capacity` proved too much at `now`. If it had been raised to that, the next raise waits twice as long.
    pub fn lowered(&mut self, capacity: f64, now: f64) {
        self.easy = 0;
        self.held = self.held.filter(|held| *held < 0.98 * capacity);
        self.too_much = Some(capacity);
        self.in_vain = if self.raised {
            (self.in_vain + 1).min(4)
        } else {
            self.in_vain.min(1)
        };
        self.raised = false;
        self.quiet_until = now + t::QUIET * f64::from(1_u32 << self.in_vain);
    }
}

impl Capacity {
    /// What is known of a pod that answers `ok` and is slower than the usual one.
    pub fn of_slow_pod(ok: f64, usual: Option<f64>) -> Self {
        Self {
            best: ok,
            value: usual.map(|usual| usual * t::FELL),
            ..Self::default()
        }
    }
}
