//! What Prometheus would know: counters of each proxy, scraped, and rates over a window.

use std::collections::{BTreeMap, VecDeque};

use trimtab_law::{Api, Pod, Tick};

use super::Telemetry;
use super::topology::{APIS, N_APIS, SERVICES};

/// Upper bounds of Istio's duration buckets, in seconds; the last bucket has no bound.
const BOUNDS: [f64; 19] = [
    0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 600.0, 1800.0, 3600.0,
];

/// How a request ended for one proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Answered.
    Answered,
    /// Answered with an error: a call behind it failed.
    Failed,
    /// The client left; it is recorded when it leaves.
    Left,
}

/// Counters of one API at one proxy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Series {
    pub offered: f64,
    pub accepted: f64,
    pub ok: f64,
    pub late: f64,
    pub errors: f64,
    pub seconds: f64,
    buckets: [f64; BOUNDS.len() + 1],
}

impl Series {
    pub fn add(&mut self, other: &Self, factor: f64) {
        self.offered += factor * other.offered;
        self.accepted += factor * other.accepted;
        self.ok += factor * other.ok;
        self.late += factor * other.late;
        self.errors += factor * other.errors;
        self.seconds += factor * other.seconds;
        for (sum, value) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += factor * value;
        }
    }

    /// As `histogram_quantile`.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total: f64 = self.buckets.iter().sum();
        if total <= 1e-9 {
            return None;
        }
        let (mut below, mut low) = (0.0, 0.0);
        for (count, bound) in self.buckets.iter().zip(BOUNDS) {
            if below + count >= q * total && *count > 0.0 {
                return Some(low + (bound - low) * ((q * total - below) / count).clamp(0.0, 1.0));
            }
            below += count;
            low = bound;
        }
        Some(low)
    }
}

#[derive(Clone, Debug)]
struct Sample {
    t: f64,
    apis: [Series; N_APIS],
    busy_s: f64,
    inflight: usize,
}

/// Counters of one proxy and their samples.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    apis: [Series; N_APIS],
    /// Time that workers were busy, in worker-seconds.
    pub busy_s: f64,
    /// Requests that were accepted and have not ended.
    pub inflight: usize,
    samples: VecDeque<Sample>,
}

impl Meter {
    /// A request arrived; it was `accepted` or refused.
    pub fn arrived(&mut self, api: usize, accepted: bool) {
        self.apis[api].offered += 1.0;
        if accepted {
            self.apis[api].accepted += 1.0;
            self.inflight += 1;
        }
    }

    /// An accepted request ended after `seconds`.
    pub fn ended(&mut self, api: usize, end: End, seconds: f64, slo_s: f64) {
        self.inflight -= 1;
        let series = &mut self.apis[api];
        match end {
            End::Failed => {
                series.errors += 1.0;
                return;
            }
            End::Answered if seconds <= slo_s => series.ok += 1.0,
            End::Answered | End::Left => series.late += 1.0,
        }
        series.seconds += seconds;
        let bucket = BOUNDS.partition_point(|b| *b < seconds);
        series.buckets[bucket] += 1.0;
    }

    /// Prometheus takes a sample.
    pub fn scrape(&mut self, t: f64, keep_s: f64) {
        self.samples.push_back(Sample {
            t,
            apis: self.apis,
            busy_s: self.busy_s,
            inflight: self.inflight,
        });
        while self.samples.front().is_some_and(|s| s.t < t - keep_s) {
            self.samples.pop_front();
        }
    }

    /// Rates over the window that ends at `t`; `None` with less than two samples.
    pub fn rates(&self, t: f64, window_s: f64) -> Option<([Series; N_APIS], f64, usize)> {
        let mut inside = self
            .samples
            .iter()
            .filter(|s| s.t >= t - window_s && s.t <= t);
        let first = inside.next()?;
        let last = inside.next_back()?;
        let factor = 1.0 / (last.t - first.t);
        let mut rates = last.apis;
        for (api, rate) in rates.iter_mut().enumerate() {
            let mut sum = Series::default();
            sum.add(&last.apis[api], factor);
            sum.add(&first.apis[api], -factor);
            *rate = sum;
        }
        Some((rates, (last.busy_s - first.busy_s) * factor, last.inflight))
    }

    fn last(&self) -> Option<f64> {
        self.samples.back().map(|s| s.t)
    }
}

/// The measurements of one law. `meters` are the proxies of its APIs; `pods` are the pods it sees, with their service.
pub fn tick(
    t: f64,
    telemetry: &Telemetry,
    meters: &[&Meter],
    pods: &[(usize, usize, &Meter)],
) -> Tick {
    let mut sums = [Series::default(); N_APIS];
    let mut some = false;
    for (rates, ..) in meters.iter().filter_map(|m| m.rates(t, telemetry.window_s)) {
        some = true;
        for (sum, rate) in sums.iter_mut().zip(&rates) {
            sum.add(rate, 1.0);
        }
    }
    let mut tick = Tick {
        t,
        as_of: meters.iter().filter_map(|m| m.last()).reduce(f64::max),
        ..Tick::default()
    };
    if some {
        tick.apis = sums.iter().enumerate().filter_map(api).collect();
    }
    tick.pods = pods
        .iter()
        .map(|p| pod(p, t, telemetry))
        .collect::<BTreeMap<_, _>>();
    tick
}

fn api((index, rates): (usize, &Series)) -> Option<(String, Api)> {
    let answers = rates.ok + rates.late;
    (rates.offered > 1e-9).then(|| {
        let api = Api {
            offered: Some(rates.offered),
            accepted: Some(rates.accepted),
            ok: Some(rates.ok),
            late: Some(rates.late),
            errors: Some(rates.errors),
            mean_s: (answers > 1e-9).then(|| rates.seconds / answers),
            p50_s: rates.quantile(0.5),
            p95_s: rates.quantile(0.95),
            p99_s: rates.quantile(0.99),
            path: APIS[index]
                .path
                .iter()
                .map(|s| SERVICES[*s].name.to_owned())
                .collect(),
            tier: None,
        };
        (APIS[index].name.to_owned(), api)
    })
}

fn pod(
    (service, number, meter): &(usize, usize, &Meter),
    t: f64,
    telemetry: &Telemetry,
) -> (String, Pod) {
    let service = &SERVICES[*service];
    let mut pod = Pod {
        service: Some(service.name.to_owned()),
        ready: Some(true),
        ..Pod::default()
    };
    if let Some((rates, busy, inflight)) = meter.rates(t, telemetry.window_s) {
        let mut sum = Series::default();
        for rate in &rates {
            sum.add(rate, 1.0);
        }
        pod.offered = Some(sum.offered);
        pod.accepted = Some(sum.accepted);
        pod.ok = Some(sum.ok);
        pod.late = Some(sum.late);
        pod.errors = Some(sum.errors);
        pod.inflight = Some(inflight as f64);
        pod.cpu = Some(busy / service.workers as f64);
    }
    (format!("{}-{number}", service.name), pod)
}
