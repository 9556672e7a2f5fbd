use serde_json::json;
use trimtab_law::{Outputs, Tick};

use super::topology::{OVER, SERVICES, SURGE, ideal};
use super::*;
use crate::peers;

/// A short episode.
fn setup(scenario: Scenario, step_s: f64, end_s: f64, placement: Placement) -> Setup {
    Setup {
        scenario: Scenario {
            step_s,
            end_s,
            ..scenario
        },
        retries: false,
        placement,
        telemetry: PROMETHEUS,
        seed: 7,
        trace: false,
    }
}

fn peer(name: &'static str, params: serde_json::Value) -> Box<Factory> {
    Box::new(move |place| peers::by_name(name, &params, place).unwrap())
}

fn total(values: &[[u32; N_APIS]]) -> f64 {
    values.iter().flatten().map(|v| f64::from(*v)).sum()
}

#[test]
fn one_seed_gives_one_result() {
    let setup = Setup {
        trace: true,
        retries: true,
        ..setup(OVER, 8.0, 14.0, Placement::Services)
    };
    for law in ["static", "vegas", "cl-vegas", "dagor", "bbr"] {
        let run = || run(&setup, &Config::default(), peer(law, json!({})).as_ref());
        let (one, two) = (run(), run());
        assert_eq!(one.good, two.good, "{law}");
        assert_eq!(one.trace, two.trace, "{law}");
    }
}

#[test]
fn below_its_capacity_nothing_is_lost_and_beyond_it_nearly_all_is() {
    let setup = setup(OVER, 15.0, 40.0, Placement::Services);
    let outcome = run(&setup, &Config::default(), peer("none", json!({})).as_ref());
    let (before, during) = outcome.good.split_at(15);
    // What is under way at the step is answered after it.
    assert!(total(before) > 0.995 * total(&outcome.demand[..15]));
    assert_eq!(outcome.refused, 0);
    let collapsed = total(&during[20..]) / 5.0;
    assert!(
        collapsed < 0.3 * ideal(&OVER.during).iter().sum::<f64>(),
        "{collapsed}"
    );
}

#[test]
fn the_bound_keeps_to_demand_and_capacity_and_fills_a_service() {
    for scenario in [OVER, SURGE] {
        let bound = ideal(&scenario.during);
        let mut full = 0;
        for (index, service) in SERVICES.iter().enumerate() {
            let passing: f64 = topology::APIS
                .iter()
                .zip(bound)
                .filter(|(api, _)| api.path.contains(&index))
                .map(|(_, x)| x)
                .sum();
            assert!(
                passing <= service.capacity() * 1.000_001,
                "{}: {passing}",
                service.name
            );
            full += usize::from(passing > 0.999 * service.capacity());
        }
        assert!(
            bound
                .iter()
                .zip(scenario.during)
                .all(|(x, demand)| *x <= demand + 1e-6)
        );
        assert!(full > 0, "{}: {bound:?}", scenario.name);
    }
}

#[test]
fn nothing_gives_more_than_the_bound() {
    let setup = setup(SURGE, 10.0, 25.0, Placement::Services);
    let bound: f64 = ideal(&SURGE.during).iter().sum();
    for (law, params) in [
        ("static", json!({ "share": 0.9 })),
        ("gradient2", json!({})),
    ] {
        let outcome = run(&setup, &Config::default(), peer(law, params).as_ref());
        let goodput: f64 = outcome.goodput(12.0).iter().sum();
        assert!(
            goodput > 0.5 * bound && goodput < 1.01 * bound,
            "{law}: {goodput} of {bound}"
        );
    }
}

/// Limits one API, and looks at what it is told.
struct OneApi;

impl Law for OneApi {
    fn tick(&mut self, tick: &Tick) -> Outputs {
        assert_eq!(
            tick.pods.len(),
            SERVICES.iter().map(|s| s.pods).sum::<usize>()
        );
        if tick.t > 20.0 {
            let api = &tick.apis["emptycart"];
            assert_eq!(api.path, ["frontend", "cart"]);
            assert!(api.accepted <= api.offered && api.p95_s > api.p50_s);
        }
        Outputs {
            per_api: [("getproduct".to_owned(), 100.0)].into(),
            ..Outputs::default()
        }
    }
}

#[test]
fn a_law_at_the_entry_limits_an_api_once() {
    let setup = setup(OVER, 60.0, 40.0, Placement::Entry);
    let outcome = run(&setup, &Config::default(), &|_: &Place<'_>| {
        Box::new(OneApi)
    });
    let goodput = outcome.goodput(10.0);
    assert!((goodput[0] - 100.0).abs() < 3.0, "{goodput:?}");
    // The others have what they ask for.
    assert!(
        (goodput[1] / OVER.before[1] - 1.0).abs() < 0.05,
        "{goodput:?}"
    );
    assert_eq!(outcome.writes, 1);
}

#[test]
fn limits_of_single_pods_take_the_place_of_their_share() {
    struct OnePod;
    impl Law for OnePod {
        fn tick(&mut self, tick: &Tick) -> Outputs {
            let mut outputs = Outputs::default();
            if tick.pods.contains_key("cart-0") {
                outputs.limit = Some(5000.0);
                outputs.per_pod = (0..4).map(|p| (format!("cart-{p}"), 10.0)).collect();
            }
            outputs
        }
    }
    let setup = setup(OVER, 60.0, 20.0, Placement::Services);
    let outcome = run(&setup, &Config::default(), &|_: &Place<'_>| {
        Box::new(OnePod)
    });
    // A refusal is quick, so the four pods that refuse seem idle and draw calls: still, all that is right came from cart-4 or
    // from the 40 tokens of the others.
    let goodput: f64 = outcome.goodput(10.0).iter().sum();
    assert!(goodput > 40.0 && goodput < 1000.0, "{goodput}");
    assert!(outcome.refused > 10_000);
}

#[test]
fn a_crate_that_reads_the_clock_reads_the_one_of_the_plant() {
    let config = Config::default();
    let place = Place {
        service: None,
        pods: 1,
        capacity: 1.0,
        config: &config,
        seed: 1,
        users: false,
    };
    let law = peers::by_name("cl-vegas", &json!({}), &place).unwrap();
    let mut gate = law.gate("pod-0").unwrap();
    let mut now = 1.0;
    let mut rounds = |time_s: f64, rounds: usize| {
        let mut inside = 0;
        for _ in 0..rounds {
            inside = (0..1000).filter(|_| gate.admit(now, 0, 0)).count();
            now += time_s;
            for _ in 0..inside {
                gate.done(now, time_s, 0.0, crate::law::Outcome::Answered);
            }
        }
        inside
    };
    // Quick answers: the limit grows. The same answers, only slower, all of them right: it shrinks.
    let quick = rounds(0.010, 20);
    let slow = rounds(0.300, 20);
    assert!(quick > 25 && slow < quick / 2, "{quick}, then {slow}");
}
