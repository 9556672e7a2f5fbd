//! What the law promises whatever the plant: it is a function of what it is told, keeps its bounds, and never acts on nothing.

use std::collections::BTreeMap;

use trimtab_law::{Api, Config, Decision, Outputs, Pod, State, Tick, lenient};

/// Four pods that are offered `offered` and answer `ok` in time each second, with `cpu` of their limit in use.
fn tick(t: f64, offered: f64, accepted: f64, ok: f64, cpu: f64, in_force: &Outputs) -> Tick {
    let pod = |share: f64| Pod {
        service: Some("orders".to_owned()),
        ready: Some(true),
        offered: Some(offered * share),
        accepted: Some(accepted * share),
        ok: Some(ok * share),
        late: Some((accepted - ok) * share),
        errors: Some(0.0),
        inflight: Some(accepted * share * 0.05 + (accepted - ok) * share),
        cpu: Some(cpu),
    };
    Tick {
        t,
        as_of: Some(t),
        in_force: Some(in_force.clone()),
        apis: BTreeMap::from([(
            "all".to_owned(),
            Api {
                offered: Some(offered),
                ..Api::default()
            },
        )]),
        pods: (0..4)
            .map(|index| (format!("pod-{index}"), pod(0.25)))
            .collect(),
    }
}

/// A service of 400 requests per second at 60 %, then at twice its capacity; what is late follows from the limit.
fn drive(
    state: &mut State,
    config: &Config,
    from: u32,
    to: u32,
    in_force: &mut Outputs,
) -> Vec<Decision> {
    (from..to)
        .map(|n| {
            let offered = if n < 20 { 240.0 } else { 800.0 };
            let accepted = in_force.limit.map_or(offered, |limit| limit.min(offered));
            let ok = if accepted > 420.0 { 0.0 } else { accepted };
            let tick = tick(
                f64::from(n) * 5.0,
                offered,
                accepted,
                ok,
                (accepted / 400.0).min(1.0),
                in_force,
            );
            let decision = state.decide(config, &tick);
            in_force.clone_from(&decision.outputs);
            decision
        })
        .collect()
}

#[test]
fn a_law_that_is_stored_and_restored_decides_as_if_nothing_had_happened() {
    let config = Config::default();
    let (mut state, mut in_force) = (State::default(), Outputs::default());
    let whole = drive(&mut state, &config, 0, 60, &mut in_force);
    for at in [0, 7, 20, 21, 23, 40] {
        let (mut state, mut in_force) = (State::default(), Outputs::default());
        let mut parts = drive(&mut state, &config, 0, at, &mut in_force);
        let stored = serde_json::to_string(&state).unwrap();
        let mut restored: State = serde_json::from_str(&stored).unwrap();
        parts.extend(drive(&mut restored, &config, at, 60, &mut in_force));
        assert_eq!(parts, whole, "restored at tick {at}");
    }
}

#[test]
fn in_calm_nothing_is_refused_and_in_overload_the_limit_is_near_the_capacity() {
    let (mut state, mut in_force) = (State::default(), Outputs::default());
    let decisions = drive(&mut state, &Config::default(), 0, 60, &mut in_force);
    for decision in &decisions[..20] {
        assert!(
            decision.outputs.limit.is_none_or(|limit| limit > 400.0),
            "{decision:?}"
        );
    }
    let last = decisions
        .last()
        .and_then(|decision| decision.outputs.limit)
        .unwrap();
    assert!((360.0..=405.0).contains(&last), "{last}");
}

#[test]
fn the_floor_and_the_largest_shed_are_kept() {
    let config = Config {
        floor: 300.0,
        ..Config::default()
    };
    let shed = Config {
        max_shed: 0.4,
        ..Config::default()
    };
    for (config, least) in [(config, 300.0), (shed, 0.6 * 800.0 * 0.99)] {
        let (mut state, mut in_force) = (State::default(), Outputs::default());
        for decision in &drive(&mut state, &config, 0, 60, &mut in_force)[25..] {
            assert!(
                decision.outputs.limit.is_some_and(|limit| limit >= least),
                "{least}: {decision:?}"
            );
        }
    }
}

#[test]
fn without_measurements_the_limit_holds_and_then_moves_to_the_fallback() {
    let config = Config {
        hold_s: 30.0,
        fallback: Some(100.0),
        ..Config::default()
    };
    let (mut state, mut in_force) = (State::default(), Outputs::default());
    drive(&mut state, &config, 0, 40, &mut in_force);
    let held = in_force.limit.unwrap();
    let nothing = |n: u32| Tick {
        t: f64::from(n) * 5.0,
        ..Tick::default()
    };
    let limits: Vec<f64> = (40..80)
        .map(|n| state.decide(&config, &nothing(n)).outputs.limit.unwrap())
        .collect();
    assert!(
        limits[..5].iter().all(|limit| (limit - held).abs() < 1e-9),
        "{limits:?}"
    );
    assert!(
        limits.windows(2).all(|pair| pair[1] <= pair[0]),
        "{limits:?}"
    );
    assert!((limits.last().unwrap() - 100.0).abs() < 1e-9, "{limits:?}");
}

#[test]
fn without_a_fallback_the_last_limit_stays() {
    let config = Config {
        hold_s: 30.0,
        ..Config::default()
    };
    let (mut state, mut in_force) = (State::default(), Outputs::default());
    drive(&mut state, &config, 0, 40, &mut in_force);
    for n in 40..200 {
        let decision = state.decide(
            &config,
            &Tick {
                t: f64::from(n) * 5.0,
                ..Tick::default()
            },
        );
        assert_eq!(decision.outputs.limit, in_force.limit);
    }
}

#[test]
fn the_lowest_tier_is_shed_first() {
    let config = Config {
        tiers: vec!["batch".into(), "critical".into()],
        ..Config::default()
    };
    let (mut state, mut in_force) = (State::default(), Outputs::default());
    drive(&mut state, &config, 0, 30, &mut in_force);
    let mut overload = tick(150.0, 800.0, 388.0, 388.0, 0.97, &in_force);
    let api = |tier: &str, offered: f64| Api {
        offered: Some(offered),
        tier: Some(tier.into()),
        ..Api::default()
    };
    overload.apis = BTreeMap::from([
        ("jobs".to_owned(), api("batch", 500.0)),
        ("orders".to_owned(), api("critical", 300.0)),
    ]);
    let outputs = state.decide(&config, &overload).outputs;
    assert!(!outputs.per_api.contains_key("orders"), "{outputs:?}");
    assert!(outputs.per_api["jobs"] < 120.0, "{outputs:?}");
}

#[test]
fn values_that_are_no_numbers_are_missing_metrics() {
    let line = r#"{"t": 5, "as_of": null, "new": {}, "in_force": {"limit": "x", "per_pod": {"a": null, "b": 3}},
        "apis": {"a": {"offered": NaN, "ok": "3", "path": 7}, "b": null},
        "pods": {"p \"NaN\"": {"offered": -1, "accepted": Infinity, "ready": "yes", "cpu": 0.5}}}"#
        .replace('\n', " ");
    let tick = lenient::tick(&line).unwrap();
    assert_eq!((tick.t, tick.as_of), (5.0, None));
    assert_eq!(tick.apis["a"], Api::default());
    assert_eq!(
        tick.pods["p \"NaN\""],
        Pod {
            offered: Some(-1.0),
            cpu: Some(0.5),
            ..Pod::default()
        }
    );
    assert_eq!(
        tick.in_force.unwrap().per_pod,
        BTreeMap::from([("b".to_owned(), 3.0)])
    );
    let decision = State::default().decide(&Config::default(), &lenient::tick(&line).unwrap());
    assert_eq!(decision.outputs, Outputs::default());
    assert!(lenient::tick("[1]").is_err());
}

/// A plant without memory, as a limit finds it after a restart: 200 requests per second are answered in time, of more than that
/// one is late for each one that is too much. From 140 on an answer takes half of the SLO, without any queue.
fn memoryless(begin: f64, ticks: u32, with_cpu: bool) -> Vec<f64> {
    let config = Config {
        interval_s: 1.0,
        window_s: 1.0,
        ..Config::default()
    };
    let mut state = State::default();
    let mut in_force = Outputs {
        limit: Some(begin),
        ..Outputs::default()
    };
    (0..ticks)
        .map(|n| {
            let accepted = in_force.limit.map_or(400.0, |limit| limit.min(400.0));
            let ok = accepted.min((400.0 - accepted).max(0.0));
            let mut tick = tick(f64::from(n), 400.0, accepted, ok, 0.0, &in_force);
            let time_s = if accepted < 140.0 { 0.05 } else { 0.5 };
            for pod in tick.pods.values_mut() {
                pod.inflight = Some(accepted / 4.0 * time_s);
                pod.cpu = with_cpu.then_some((accepted / 200.0).min(1.0));
            }
            in_force = state.decide(&config, &tick).outputs;
            accepted
        })
        .collect()
}

#[test]
fn a_limit_in_force_that_the_law_does_not_remember_is_kept_and_raised() {
    let limits = memoryless(80.0, 30, true);
    assert!(limits[..4].iter().all(|limit| *limit < 200.0), "{limits:?}");
}

#[test]
fn answers_that_take_longer_under_load_are_no_queue() {
    for (begin, with_cpu) in [(80.0, true), (80.0, false), (190.0, true), (320.0, true)] {
        let limits = memoryless(begin, 60, with_cpu);
        let late: f64 = limits[30..].iter().sum::<f64>() / 30.0;
        assert!(
            (176.0..216.0).contains(&late),
            "from {begin}: {late}, {limits:?}"
        );
    }
}
