//! Laws that set rates at each tick: Slime's bang-bang, Aperture's AIMD load multiplier, TopFull's MIMD.

use std::collections::BTreeMap;

use serde_json::Value;
use trimtab_law::{Api, Outputs, Tick};

use super::{Place, number};
use crate::law::Law;

/// A metric, if it is a number.
fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite())
}

/// Sum over the APIs of a tick; `None` if none has it.
fn sum(tick: &Tick, of: impl Fn(&Api) -> Option<f64>) -> Option<f64> {
    tick.apis
        .values()
        .filter_map(|a| finite(of(a)))
        .reduce(|a, b| a + b)
}

/// Slime: a fixed quota of each pod while the CPU is above a threshold, none below it. Published: 30 above 0.8.
pub struct BangBang {
    quota: f64,
    cpu: f64,
    in_force: Outputs,
}

impl BangBang {
    /// With parameters of the grid: a quota, or a share of the true capacity.
    pub fn new(params: &Value, place: &Place<'_>) -> Self {
        let share = number(params, "share", 0.0);
        let quota = if share > 0.0 {
            share * place.capacity / place.pods.max(1) as f64
        } else {
            number(params, "quota", 30.0)
        };
        Self {
            quota,
            cpu: number(params, "cpu", 0.8),
            in_force: Outputs::default(),
        }
    }
}

impl Law for BangBang {
    fn tick(&mut self, tick: &Tick) -> Outputs {
        let loads: Vec<f64> = tick.pods.values().filter_map(|p| finite(p.cpu)).collect();
        if !loads.is_empty() {
            let mean = loads.iter().sum::<f64>() / loads.len() as f64;
            let ready = tick
                .pods
                .values()
                .filter(|p| p.ready != Some(false))
                .count();
            self.in_force.limit = (mean > self.cpu).then_some(self.quota * ready as f64);
        }
        self.in_force.clone()
    }
}

/// Aperture: a multiplier of the offered load. Above the set point it shrinks with signal/set point, below it grows linearly up
/// to 2, which is no limit.
pub struct Aperture {
    setpoint_s: f64,
    slope: f64,
    increment: f64,
    multiplier: f64,
    in_force: Outputs,
}

/// The multiplier that limits nothing.
const OPEN: f64 = 2.0;

impl Aperture {
    /// With parameters of the grid. Published: slope -1, 0.025 in 10 s.
    pub fn new(params: &Value, place: &Place<'_>) -> Self {
        Self {
            setpoint_s: number(params, "setpoint", 0.1) * place.config.slo_s,
            slope: number(params, "slope", -1.0),
            increment: number(params, "increment", 0.025) * place.config.interval_s / 10.0,
            multiplier: OPEN,
            in_force: Outputs::default(),
        }
    }
}

impl Law for Aperture {
    fn tick(&mut self, tick: &Tick) -> Outputs {
        let (Some(offered), Some(accepted)) = (sum(tick, |a| a.offered), sum(tick, |a| a.accepted))
        else {
            return self.in_force.clone();
        };
        let answers = |a: &Api| Some(finite(a.ok)? + finite(a.late)?);
        let total = sum(tick, answers).unwrap_or(0.0);
        let seconds = sum(tick, |a| Some(answers(a)? * finite(a.mean_s)?)).unwrap_or(0.0);
        let signal = if total > 0.0 { seconds / total } else { 0.0 };
        let observed = if offered > 0.0 {
            accepted / offered
        } else {
            1.0
        };
        if signal > self.setpoint_s {
            let factor = (signal / self.setpoint_s).powf(self.slope).clamp(0.1, 1.0);
            self.multiplier = (observed.min(self.multiplier) * factor).max(0.01);
        } else {
            self.multiplier = (self.multiplier + self.increment).min(OPEN);
        }
        self.in_force.limit = (self.multiplier < OPEN).then_some(self.multiplier * offered);
        self.in_force.clone()
    }
}

/// TopFull's rule without learning: each API has a limit that shrinks by a factor when its p95 is above the SLO, and else
/// grows by one. It goes when the API asks for less.
pub struct Mimd {
    down: f64,
    up: f64,
    p95_s: f64,
    limits: BTreeMap<String, f64>,
}

/// Lowest limit, as in the published controller.
const LOWEST: f64 = 10.0;

impl Mimd {
    /// With parameters of the grid. Published: 0.95, 1.01, the SLO.
    pub fn new(params: &Value, place: &Place<'_>) -> Self {
        Self {
            down: number(params, "down", 0.95),
            up: number(params, "up", 1.01),
            p95_s: number(params, "p95", 1.0) * place.config.slo_s,
            limits: BTreeMap::new(),
        }
    }
}

impl Law for Mimd {
    fn tick(&mut self, tick: &Tick) -> Outputs {
        for (name, api) in &tick.apis {
            let (Some(offered), Some(p95)) = (finite(api.offered), finite(api.p95_s)) else {
                continue;
            };
            let limit = self.limits.get(name).copied();
            if p95 > self.p95_s {
                let from = limit.unwrap_or(offered);
                self.limits
                    .insert(name.clone(), (from * self.down).max(LOWEST));
            } else if let Some(limit) = limit {
                if offered <= limit {
                    self.limits.remove(name);
                } else {
                    self.limits.insert(name.clone(), limit * self.up);
                }
            }
        }
        Outputs {
            per_api: self.limits.clone(),
            ..Outputs::default()
        }
    }
}
