//! What bounds must know of a pod: how much it answers, and how long an answer takes that did not wait.
//!
//! Envoy's controller does the rest, so this changes as seldom as possible: what is known gives way to less only when answers are
//! late, and to more when there is proof of it.

/// Part of the way to a new value in calm.
const STEP: f64 = 0.3;
/// Share of late answers that says that bounds are too wide.
const LATE: f64 = 0.05;
/// Share of refused or late calls below which nearly nobody waits.
const FEW: f64 = 0.01;
/// Used share of the CPU below which nobody waits, and that from which it tells what all of it could do.
const IDLE: f64 = 0.9;
/// See `IDLE`.
const TELLS: f64 = 0.1;

/// Windows after which something is known: the first ones are of a part of their time only.
const ENOUGH: u32 = 3;

/// Means over the pods of a service, in one window. Rates are per second and pod.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Calls that came, refused ones too.
    pub offered: f64,
    /// Those that were let in.
    pub accepted: f64,
    /// Right answers in time.
    pub ok: f64,
    /// Answers that were late, or whose client had left.
    pub late: f64,
    /// Mean time of an answer, in seconds.
    pub mean_s: Option<f64>,
    /// Used share of the CPU limit.
    pub cpu: Option<f64>,
}

/// What is known of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Learned {
    rate: Option<f64>,
    service_s: Option<f64>,
    windows: u32,
}

impl Learned {
    /// Requests per second that the pod answers in time, and the time of an answer that did not wait, in seconds; `None` after too
    /// few windows.
    pub fn known(&self) -> Option<(f64, f64)> {
        let known = self.rate.zip(self.service_s);
        known.filter(|_| self.windows >= ENOUGH)
    }

    /// Takes in one window.
    pub fn observe(&mut self, seen: &Seen) {
        let sane = |value: f64| value.is_finite() && value >= 0.0;
        if ![seen.offered, seen.accepted, seen.ok, seen.late]
            .into_iter()
            .all(sane)
        {
            return;
        }
        self.windows = self.windows.saturating_add(1);
        let answered = seen.ok + seen.late;
        let late = if answered > 0.0 {
            seen.late / answered
        } else {
            0.0
        };
        let waits = late > LATE;
        let cpu = seen.cpu.filter(|cpu| cpu.is_finite());
        let idle = cpu.is_some_and(|cpu| cpu < IDLE) && !waits;
        let calm = idle || (late < FEW && seen.offered - seen.accepted < FEW * seen.offered);
        self.learn_service(seen.mean_s, calm, waits);
        // Of a pod that is not busy, its CPU says how much more it could do.
        let whole = cpu
            .filter(|cpu| idle && *cpu > TELLS)
            .map(|cpu| seen.ok / cpu);
        self.rate = Some(match (self.rate, whole) {
            (None, whole) => whole.unwrap_or(seen.ok),
            (Some(known), _) if waits => seen.ok.clamp(0.5 * known, known),
            (Some(known), Some(whole)) => (known + STEP * (whole - known)).max(seen.ok),
            (Some(known), None) => known.max(seen.ok),
        });
    }

    fn learn_service(&mut self, mean_s: Option<f64>, calm: bool, waits: bool) {
        let Some(mean) = mean_s.filter(|mean| mean.is_finite() && *mean > 0.0) else {
            return;
        };
        // Where many answers are late, half of the time at least was waiting.
        let bound = if waits { 0.5 * mean } else { mean };
        self.service_s = Some(match self.service_s {
            None => bound,
            Some(known) if calm => known + STEP * (mean - known),
            Some(known) => known.min(bound),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(offered: f64, ok: f64, mean_s: f64, cpu: f64) -> Seen {
        Seen {
            offered,
            accepted: ok,
            ok,
            late: 0.0,
            mean_s: Some(mean_s),
            cpu: Some(cpu),
        }
    }

    fn after(windows: &[Seen]) -> (f64, f64) {
        let mut learned = Learned::default();
        for window in windows {
            learned.observe(window);
        }
        learned.known().unwrap()
    }

    #[test]
    fn calm_tells_both_and_a_refusing_proxy_changes_nothing() {
        let calm = seen(56.0, 56.0, 0.1, 0.7);
        let (rate, service) = after(&[calm; 10]);
        assert!((rate - 80.0).abs() < 0.1 && (service - 0.1).abs() < 1e-9);
        // Twice as much is offered, then the pod becomes half as fast: bounds stay as they are.
        let full = seen(160.0, 80.0, 0.4, 1.0);
        let slow = seen(160.0, 40.0, 0.5, 1.0);
        assert_eq!(after(&[calm, calm, calm, full, slow]), after(&[calm; 3]));
    }

    #[test]
    fn late_answers_narrow_and_proof_widens() {
        let calm = seen(56.0, 56.0, 0.1, 0.7);
        let late = Seen {
            late: 30.0,
            accepted: 60.0,
            ..seen(60.0, 30.0, 0.9, 1.0)
        };
        assert_eq!(after(&[calm, calm, late]), (40.0, 0.1), "by half at most");
        let (rate, _) = after(&[calm, late, seen(90.0, 90.0, 0.1, 1.0)]);
        assert!((rate - 90.0).abs() < 1e-9);
        // Nobody waits in pods that are not busy: they became slower.
        let slower = seen(60.0, 40.0, 0.2, 0.8);
        let (_, service) = after(&[calm, slower, slower, slower, slower, slower, slower]);
        assert!(service > 0.18, "{service}");
    }

    #[test]
    fn begun_in_an_overload_it_comes_down_to_what_is_answered_in_time() {
        let late = Seen {
            late: 79.0,
            accepted: 80.0,
            ..seen(80.0, 1.0, 0.9, 1.0)
        };
        let (rate, service) = after(&[late; 6]);
        assert!(rate <= 1.0 && service < 0.5, "{rate} {service}");
    }

    #[test]
    fn what_is_no_number_is_not_learned() {
        let mut learned = Learned::default();
        learned.observe(&Seen {
            ok: f64::NAN,
            ..Seen::default()
        });
        assert_eq!(learned, Learned::default());
        learned.observe(&seen(56.0, 56.0, 0.1, 0.7));
        assert_eq!(learned.known(), None, "one window is too few");
    }
}
