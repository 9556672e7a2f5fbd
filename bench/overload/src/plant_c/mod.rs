//! Plant C: the closed form that TopFull's controller was trained in, a plant that nobody here chose.
//!
//! An episode has a target (the best goodput, 50 to 500 requests per second) and a limit `T` that starts at 0.3 to 1.7 of it.
//! Up to the target goodput is `T`; beyond, it is `target * (1 - (T - target) / target)`, with noise that grows with the excess.
//! The 95th percentile of the time has bands: a reference of 10 to 300 ms below half of the target, 1.5 times that below 0.7,
//! one second below the target, then 1.5, 2 and 3 seconds up to twice the target, and 5 to 20 s beyond. There are no queues, no
//! delay and no memory. Form, bands and noise are those of the public repository (kaist-ina/TopFull).
//!
//! What that form leaves open is chosen here: twice the target is offered, an episode has 50 ticks of one second as in the
//! published training, the mean and the median time are half of the 95th percentile, the 99th is 1.3 times it, one pod is
//! busy in proportion to `T`, up to all of it, and a law that limits nothing lets in all that is offered.

use serde::Serialize;
use trimtab_law::{Api, Config, Outputs, Pod, Tick};

use crate::law::Law;
use crate::peers::Place;
use crate::plant_b::Factory;
use crate::random::Random;

/// Ticks of an episode.
const TICKS: usize = 50;
/// What is offered, as a multiple of the target.
const OFFERED: f64 = 2.0;
/// Time that an answer at the SLO takes, in seconds.
const SLO_S: f64 = 1.0;

/// What somebody guesses who does not know the target: the middle of the targets. Fixed limits are shares of it.
const GUESS: f64 = 275.0;

/// Name of the one API.
pub const API: &str = "api";

/// The closed form with the constants of an episode.
struct Form {
    target: f64,
    reference_s: f64,
    overload_s: f64,
    random: Random,
}

impl Form {
    fn new(random: &mut Random) -> Self {
        Self {
            target: random.range(50.0, 500.0),
            reference_s: random.range(0.010, 0.300),
            overload_s: random.range(5.0, 20.0),
            random: Random::new(random.bits()),
        }
    }

    fn goodput(&mut self, limit: f64) -> f64 {
        let x = limit / self.target;
        let beyond = self.target * (2.0 - x).max(0.0);
        let good = match x {
            ..=0.7 => limit + self.random.normal(),
            ..=1.0 => limit * self.random.range(0.98, 1.01),
            ..=1.1 => beyond * self.random.range(0.95, 1.03),
            ..=1.2 => beyond * self.random.range(0.9, 1.08),
            _ => beyond * self.random.range(0.8, 1.15),
        };
        good.clamp(0.0, limit)
    }

    fn p95_s(&mut self, limit: f64) -> f64 {
        let noise = 0.005 * self.random.normal();
        let time = match limit / self.target {
            ..0.5 => self.reference_s + noise.abs(),
            ..0.7 => 1.5 * (self.reference_s + noise.abs()),
            ..1.0 => SLO_S + noise.abs(),
            ..1.3 => 1.5 * (SLO_S + noise.abs()),
            ..1.5 => 2.0 * (SLO_S + noise.abs()),
            ..2.0 => 3.0 * (SLO_S + noise.abs()),
            _ => self.overload_s + 100.0 * noise,
        };
        time.min(40.0)
    }
}

fn measured(
    step: usize,
    offered: f64,
    limit: f64,
    good: f64,
    p95_s: f64,
    target: f64,
    in_force: &Outputs,
) -> Tick {
    let mean_s = 0.5 * p95_s;
    let api = Api {
        offered: Some(offered),
        accepted: Some(limit),
        ok: Some(good),
        late: Some(limit - good),
        errors: Some(0.0),
        mean_s: Some(mean_s),
        p50_s: Some(mean_s),
        p95_s: Some(p95_s),
        p99_s: Some(1.3 * p95_s),
        path: vec!["service".to_owned()],
        tier: None,
    };
    let pod = Pod {
        service: Some("service".to_owned()),
        ready: Some(true),
        offered: api.offered,
        accepted: api.accepted,
        ok: api.ok,
        late: api.late,
        errors: api.errors,
        inflight: Some(limit * mean_s),
        cpu: Some((limit / target).min(1.0)),
    };
    let t = (step + 1) as f64;
    Tick {
        t,
        as_of: Some(t),
        in_force: Some(in_force.clone()),
        apis: [(API.to_owned(), api)].into(),
        pods: [("pod-0".to_owned(), pod)].into(),
    }
}

/// What a law is told in this plant: ticks of one second, and nothing that is averaged over a longer time.
pub fn config() -> Config {
    Config {
        slo_s: SLO_S,
        interval_s: 1.0,
        window_s: 1.0,
        ..Config::default()
    }
}

/// Limit that outputs mean, in requests per second.
fn limit_of(outputs: &Outputs, offered: f64) -> f64 {
    let per_pod = outputs.per_pod.get("pod-0").copied();
    let per_api = outputs.per_api.get(API).copied();
    let total = per_pod.or(outputs.limit);
    [total, per_api]
        .into_iter()
        .flatten()
        .fold(offered, f64::min)
        .max(0.0)
}

/// Goodput of an episode divided by the target: mean over all its ticks.
pub fn episode(factory: &Factory, seed: u64) -> f64 {
    let mut random = Random::new(seed);
    let mut form = Form::new(&mut random);
    let offered = OFFERED * form.target;
    let mut in_force = Outputs {
        limit: Some(random.range(0.3, 1.7) * form.target),
        ..Outputs::default()
    };
    let config = config();
    let mut law: Box<dyn Law> = factory(&Place {
        service: None,
        pods: 1,
        capacity: GUESS,
        config: &config,
        seed,
        users: false,
    });
    let mut sum = 0.0;
    for step in 0..TICKS {
        let limit = limit_of(&in_force, offered);
        let good = form.goodput(limit);
        let p95_s = form.p95_s(limit);
        sum += good / form.target;
        in_force = law.tick(&measured(
            step,
            offered,
            limit,
            good,
            p95_s,
            form.target,
            &in_force,
        ));
    }
    sum / TICKS as f64
}

/// Figures of one law.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the law.
    pub law: String,
    /// Number of episodes.
    pub episodes: usize,
    /// Mean of goodput divided by the target.
    pub goodput_of_target: f64,
    /// Tenth percentile of the episodes.
    pub p10: f64,
}

/// Runs a law over seeds.
pub fn row(law: &str, factory: &Factory, seeds: &[u64]) -> Row {
    let mut all: Vec<f64> = seeds.iter().map(|s| episode(factory, *s)).collect();
    all.sort_by(f64::total_cmp);
    Row {
        law: law.to_owned(),
        episodes: all.len(),
        goodput_of_target: all.iter().sum::<f64>() / all.len().max(1) as f64,
        p10: all.get(all.len() / 10).copied().unwrap_or_default(),
    }
}

/// The rows as text.
pub fn print(rows: &[Row]) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "{:<16}{:>9}{:>14}{:>8}\n",
        "law", "episodes", "good/target", "p10"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<16}{:>9}{:>14.3}{:>8.3}",
            row.law, row.episodes, row.goodput_of_target, row.p10
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_limit_is_the_target() {
        let mean = |share: f64| {
            let mut random = Random::new(1);
            let of = |_| {
                let mut form = Form::new(&mut random);
                form.goodput(share * form.target) / form.target
            };
            (0..500).map(of).sum::<f64>() / 500.0
        };
        assert!(mean(1.0) > 0.98);
        assert!(mean(0.8) < 0.82 && mean(1.3) < 0.72 && mean(2.0) < 0.01);
    }

    #[test]
    fn without_a_law_nothing_is_left() {
        let none: Box<Factory> = Box::new(|_| crate::peers::none());
        // The first tick still has the limit that the episode begins with.
        assert!(row("none", none.as_ref(), &[1, 2, 3]).goodput_of_target < 0.03);
    }
}
