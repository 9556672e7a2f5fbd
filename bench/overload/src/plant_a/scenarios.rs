//! The scenarios of Plant A.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of pods"
)]

use std::f64::consts::TAU;

use super::{Clients, Scenario, ServiceModel, Telemetry};

/// When overloads begin, in seconds.
const BEGIN: f64 = 120.0;

/// A service of four pods with five workers of 50 ms each: 400 requests per second.
fn base(name: &'static str) -> Scenario {
    Scenario {
        name,
        seconds: BEGIN + 300.0,
        load: |_| 0.6,
        speed: |_, _| 1.0,
        pods: |_| 4,
        replace_s: None,
        base_pods: 4,
        overload: Some(BEGIN),
        again: None,
        steady: true,
        service: ServiceModel {
            workers: 5,
            service_s: 0.05,
            sigma: 0.5,
            bimodal: false,
            lifo: false,
            drops_left: false,
            queue: 20_000,
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
            window_s: 15.0,
            late_s: 0.0,
            delivery_s: 1.0,
            lost: None,
            without: &[],
            blind_pod: None,
            reset: None,
            clock_step: None,
        },
        configure: |_| {},
    }
}

/// A scenario of twice the capacity from `BEGIN` on.
fn twice(name: &'static str) -> Scenario {
    Scenario {
        load: |t| if t < BEGIN { 0.6 } else { 2.0 },
        ..base(name)
    }
}

fn calm(name: &'static str) -> Scenario {
    Scenario {
        overload: None,
        ..base(name)
    }
}

/// All scenarios, calm ones first.
pub fn all() -> Vec<Scenario> {
    let mut all = calm_ones();
    all.extend(load_changes());
    all.extend(pods_and_clients());
    all.extend(retries());
    all.extend(metrics_fail());
    all
}

fn calm_ones() -> Vec<Scenario> {
    let mut low = calm("calm: 10 requests per second");
    low.load = |_| 0.5;
    low.base_pods = 2;
    low.pods = |_| 2;
    low.service.workers = 2;
    low.service.service_s = 0.2;
    let mut broken = calm("calm: a broken pod");
    broken.service.broken = Some(2);
    let mut pauses = calm("calm: pauses");
    pauses.service.pause = Some((11.0, 0.3));
    let mut slow_metrics = calm("calm: window 30 s");
    slow_metrics.telemetry.window_s = 30.0;
    slow_metrics.telemetry.delivery_s = 5.0;
    let mut replaced = calm("calm: pods are replaced");
    replaced.replace_s = Some(40.0);
    replaced.service.cold_s = 15.0;
    replaced.load = |_| 0.4;
    vec![
        calm("calm: 60 %"),
        Scenario {
            load: |t| 0.6 + 0.25 * (TAU * t / 300.0).sin(),
            seconds: 600.0,
            ..calm("calm: diurnal")
        },
        Scenario {
            load: |t| if t < BEGIN { 0.2 } else { 0.85 },
            ..calm("calm: step to 85 %")
        },
        low,
        broken,
        pauses,
        replaced,
        slow_metrics,
    ]
}

fn load_changes() -> Vec<Scenario> {
    vec![
        twice("2x"),
        Scenario {
            load: |t| if t < BEGIN { 0.6 } else { 1.3 },
            ..base("1.3x")
        },
        Scenario {
            load: |t| {
                if (120.0..180.0).contains(&t) || (400.0..460.0).contains(&t) {
                    5.0
                } else {
                    0.5
                }
            },
            seconds: 520.0,
            again: Some(400.0),
            steady: false,
            ..base("flash crowd 5x, twice")
        },
        Scenario {
            load: |t| 0.9 + 0.5 * (TAU * t / 300.0).sin(),
            seconds: 900.0,
            overload: Some(60.0),
            steady: false,
            ..base("diurnal, to 140 %")
        },
        Scenario {
            load: |_| 0.8,
            speed: |t, _| if t < BEGIN { 1.0 } else { 0.5 },
            ..base("capacity -50 %")
        },
        Scenario {
            load: |_| 0.8,
            speed: |t, _| {
                if (120.0..300.0).contains(&t) || t > 480.0 {
                    0.5
                } else {
                    1.0
                }
            },
            seconds: 660.0,
            again: Some(480.0),
            steady: false,
            ..base("capacity -50 %, back, again")
        },
        Scenario {
            load: |t| if t < BEGIN { 0.7 } else { 2.0 },
            speed: |t, _| if t < BEGIN + 60.0 { 1.0 } else { 0.5 },
            steady: false,
            ..base("2x, and capacity -50 % under the limit")
        },
        Scenario {
            load: |_| 0.95,
            speed: |t, _| 1.0 - 0.01 * ((t - BEGIN) / 60.0).max(0.0),
            seconds: 1500.0,
            overload: Some(BEGIN + 300.0),
            steady: false,
            ..base("capacity leaks 1 % a minute")
        },
    ]
}

fn pods_and_clients() -> Vec<Scenario> {
    let mut out = twice("scale-out with cold pods");
    out.pods = |t| if t < 240.0 { 4 } else { 7 };
    out.service.cold_s = 30.0;
    out.steady = false;
    let mut churn = Scenario {
        load: |t| if t < BEGIN { 0.6 } else { 2.5 },
        steady: false,
        ..base("pods come, one a minute")
    };
    churn.pods = |t| 4 + ((t - BEGIN).max(0.0) / 60.0) as usize;
    let mut replaced = twice("pods are replaced, one in 40 s");
    replaced.replace_s = Some(40.0);
    replaced.service.cold_s = 15.0;
    replaced.steady = false;
    let mut slow = Scenario {
        load: |t| if t < BEGIN { 0.35 } else { 1.3 },
        ..base("a slow pod")
    };
    slow.speed = |_, pod| if pod == 3 { 0.4 } else { 1.0 };
    let mut lifo = twice("newest first");
    lifo.service.lifo = true;
    let mut drops = twice("drops calls of clients that left");
    drops.service.drops_left = true;
    let mut contention = twice("contention");
    contention.service.contention = 0.02;
    let mut bimodal = twice("bimodal");
    bimodal.service.bimodal = true;
    let mut tier = Scenario {
        load: |t| if t < BEGIN { 0.3 } else { 1.0 },
        ..base("bottleneck in a second tier")
    };
    tier.service.second_tier = Some((10, 0.05));
    let mut pauses = twice("pauses");
    pauses.service.pause = Some((11.0, 0.3));
    let mut broken = twice("a broken pod");
    broken.service.broken = Some(2);
    vec![
        out, churn, replaced, slow, lifo, drops, contention, bimodal, tier, pauses, broken,
    ]
}

fn retries() -> Vec<Scenario> {
    let mut storm = twice("retry storm");
    storm.clients = Clients {
        retry: 0.8,
        retry_refused: 0.0,
        budget: None,
    };
    let mut budget = twice("retry storm with a budget");
    budget.clients = Clients {
        retry: 0.8,
        retry_refused: 0.0,
        budget: Some(0.2),
    };
    let mut refused = twice("refusals are retried");
    refused.clients = Clients {
        retry: 0.8,
        retry_refused: 0.8,
        budget: None,
    };
    // Here the law meets the storm: at 2x it may hold a limit before the first call is late.
    let mut halved = base("capacity -50 %, retry storm");
    halved.load = |_| 0.8;
    halved.speed = |t, _| if t < BEGIN { 1.0 } else { 0.5 };
    halved.clients = Clients {
        retry: 0.8,
        retry_refused: 0.8,
        budget: None,
    };
    vec![storm, budget, refused, halved]
}

fn metrics_fail() -> Vec<Scenario> {
    let with = |name, change: fn(&mut Scenario)| {
        let mut scenario = twice(name);
        change(&mut scenario);
        scenario
    };
    vec![
        with("metrics lost for 30 s", |s| {
            s.telemetry.lost = Some((200.0, 230.0));
        }),
        with("metrics lost for 10 min", |s| {
            s.telemetry.lost = Some((200.0, 800.0));
            s.seconds = 900.0;
            s.configure = |config| config.fallback = Some(320.0);
        }),
        with("counters reset", |s| s.telemetry.reset = Some(200.0)),
        with("no CPU", |s| s.telemetry.without = &["cpu"]),
        with("no CPU, no requests in flight", |s| {
            s.telemetry.without = &["cpu", "inflight"];
        }),
        with("no percentiles", |s| s.telemetry.without = &["percentiles"]),
        with("a pod without metrics", |s| s.telemetry.blind_pod = Some(1)),
        with("metrics 15 s late", |s| s.telemetry.late_s = 15.0),
        with("window 30 s, delivery 5 s", |s| {
            s.telemetry.window_s = 30.0;
            s.telemetry.delivery_s = 5.0;
        }),
        with("delivery 10 s", |s| s.telemetry.delivery_s = 10.0),
        with("clock steps", |s| s.telemetry.clock_step = Some(200.0)),
    ]
}
