//! What Plant A says of the same run: the same pods, phases and decisions, in virtual time.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::Value;
use trimtab_law::{Config, Outputs, Tick};
use trimtab_overload::law::{Gate, Law};
use trimtab_overload::peers::gradient::{Gradient, Settings, Shared};
use trimtab_overload::peers::{self, Place};
use trimtab_overload::plant_a::{self, Clients, Driver, Scenario, ServiceModel, Telemetry};

use super::control::Control;
use super::figures::{Figures, Second};
use super::schedule::{self, FULL};
use super::variant::Variant;
use super::{PODS, SERVICE, WINDOW, WORKERS, capacity, law_config, pod_name};

/// Time from a decision to its effect: a file is written.
const DELIVERY_S: f64 = 0.05;

/// What decides in a variant; `None` where Plant A has no such law.
fn law(variant: Variant, place: &Place<'_>) -> Option<Box<dyn Law>> {
    match variant {
        Variant::AdaptiveConcurrency => Some(Box::new(Gates {
            control: None,
            pods: shared(Some(Settings::documented())),
            seed: place.seed,
        })),
        Variant::Bounds => Some(Box::new(Gates {
            control: Some(RefCell::new(Control::new(variant))),
            pods: shared(None),
            seed: place.seed,
        })),
        _ => {
            let (name, params) = variant.simulated()?;
            peers::by_name(name, &params, place)
        }
    }
}

fn shared(settings: Option<Settings>) -> Vec<Shared> {
    (0..PODS).map(|_| Rc::new(RefCell::new(settings))).collect()
}

/// Envoy's `adaptive_concurrency` in each pod, as it is documented or with the bounds of the same loop as in the real run.
struct Gates {
    control: Option<RefCell<Control>>,
    pods: Vec<Shared>,
    seed: u64,
}

impl Law for Gates {
    fn tick(&mut self, tick: &Tick) -> Outputs {
        if let Some(control) = &self.control {
            for (pod, filter) in control.borrow_mut().tick(tick).1 {
                *self.pods[pod].borrow_mut() = settings(&filter.json);
            }
        }
        Outputs::default()
    }

    fn gate(&self, pod: &str) -> Option<Box<dyn Gate>> {
        let index = (0..PODS).find(|index| pod_name(*index) == pod)?;
        let seed = self.seed.wrapping_add(index as u64);
        Some(Box::new(Gradient::new(Rc::clone(&self.pods[index]), seed)))
    }
}

/// The settings of the filter's JSON.
fn settings(filter: &Value) -> Option<Settings> {
    let gradient = &filter["gradientControllerConfig"];
    let time = &gradient["minRttCalcParams"];
    let pinned = time["fixedValue"].as_str()?.strip_suffix('s')?;
    (filter["enabled"]["defaultValue"] == true).then_some(Settings {
        least: time["minConcurrency"].as_f64()?,
        most: gradient["concurrencyLimitParams"]["maxConcurrencyLimit"].as_f64()?,
        percentile: gradient["sampleAggregatePercentile"]["value"].as_f64()? / 100.0,
        pinned_s: Some(pinned.parse().ok()?),
        buffer: time["buffer"]["value"].as_f64()? / 100.0,
        ..Settings::documented()
    })
}

/// Figures of a variant, means over seeds; `None` where Plant A has no such law.
pub fn predict(variant: Variant, seeds: std::ops::Range<u64>) -> Option<Figures> {
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
        let law = law(variant, &place)?;
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
        let [none, bucket, bounds] = [Variant::Nothing, Variant::Bucket, Variant::Bounds]
            .map(|variant| predict(variant, 1001..1002).unwrap());
        assert!(none.good < 0.5 * bucket.good, "{none:?} {bucket:?}");
        assert!(none.good < 0.5 * bounds.good, "{none:?} {bounds:?}");
        assert!(predict(Variant::AdmissionControl, 1001..1002).is_none());
    }
}
