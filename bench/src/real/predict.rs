//! What Plant A says of the same run: the same pods, phases and decisions, in virtual time.

use trimtab_law::Config;
use trimtab_overload::peers::{self, Place};
use trimtab_overload::plant_a::{self, Clients, Driver, Scenario, ServiceModel, Telemetry};

use super::figures::{Figures, Second};
use super::schedule::{self, FULL};
use super::variant::Variant;
use super::{PODS, SERVICE, WINDOW, WORKERS, capacity, law_config};

/// Time from a decision to its effect: a file is written.
const DELIVERY_S: f64 = 0.05;

/// Figures of a variant, means over seeds; `None` where Plant A has no such law.
pub fn predict(variant: Variant, seeds: std::ops::Range<u64>) -> Option<Figures> {
    let (name, params) = variant.simulated()?;
    let config = law_config();
    let scenario = scenario();
    let mut runs = Vec::new();
    for seed in seeds {
        let place = Place {
            service: None,
            pods: PODS,
            capacity: capacity(),
            config: &config,
            seed,
            users: false,
        };
        let law = peers::by_name(name, &params, &place)?;
        let outcome = plant_a::run(&scenario, &config, seed, Driver::Law(law));
        let seconds: Vec<Second> = outcome.seconds.iter().map(second).collect();
        runs.push(Figures::of(FULL, &seconds, &[]));
    }
    Some(Figures::mean(&runs))
}

fn second(second: &plant_a::Second) -> Second {
    Second {
        offered: second.demand,
        good: second.good,
        late: second.late,
        refused: second.refused,
        failed: 0.0,
    }
}

fn scenario() -> Scenario {
    Scenario {
        name: "real overload",
        // The last second is closed at its end.
        seconds: schedule::end(FULL) + 0.5,
        load: |t| schedule::at(FULL, t).load,
        speed: |t, _| schedule::at(FULL, t).speed,
        pods: |_| PODS,
        replace_s: None,
        base_pods: PODS,
        overload: Some(schedule::overload(FULL).0),
        again: None,
        steady: false,
        service: ServiceModel {
            workers: WORKERS,
            service_s: SERVICE.as_secs_f64(),
            // A fixed time.
            sigma: 0.0,
            bimodal: false,
            lifo: false,
            drops_left: false,
            queue: usize::MAX,
            pause: None,
            contention: 0.0,
            broken: None,
            second_tier: None,
            cold_s: 0.0,
        },
        clients: Clients {
            retry: 0.0,
            retry_refused: 0.0,
            budget: None,
        },
        telemetry: Telemetry {
            window_s: WINDOW.as_secs_f64(),
            late_s: 0.0,
            delivery_s: DELIVERY_S,
            lost: None,
            without: &[],
            blind_pod: None,
            reset: None,
            clock_step: None,
        },
        configure: |_: &mut Config| {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulator_tells_a_limit_from_none() {
        let [none, ours] = [Variant::Nothing, Variant::Bucket]
            .map(|variant| predict(variant, 1001..1002).unwrap());
        assert!(none.good < 0.5 * ours.good, "{none:?} {ours:?}");
        assert!(predict(Variant::Bounds, 1001..1002).is_none());
    }
}
