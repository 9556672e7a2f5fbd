//! Pods: a queue, workers, and the proxy in front of them.

use std::collections::VecDeque;

use super::meter::Meter;
use super::topology::{N_APIS, SERVICES};
use crate::bucket::Bucket;
use crate::law::Gate;
use crate::random::Random;

/// Requests that wait in a pod at most; more get a 503.
pub const QUEUE: usize = 4096;
/// Sigma of the logarithm of the service time: a coefficient of variation of 0.8.
pub const SIGMA: f64 = 0.7;

/// The limits of a proxy. What is `None` is not limited.
#[derive(Clone, Debug, Default)]
pub struct Buckets {
    /// For all requests.
    pub total: Option<Bucket>,
    /// For each API.
    pub apis: [Option<Bucket>; N_APIS],
}

impl Buckets {
    /// Whether a request passes. As in Envoy the narrow bucket comes first, and its token is gone even when the wide one
    /// then refuses.
    pub fn take(&mut self, api: usize, now: u64) -> bool {
        self.apis[api].as_mut().is_none_or(|b| b.take(now))
            && self.total.as_mut().is_none_or(|b| b.take(now))
    }
}

/// One pod with its proxy.
pub struct Pod {
    /// Index of its service.
    pub service: usize,
    /// Calls that wait.
    pub queue: VecDeque<u32>,
    /// Workers without work.
    pub idle: usize,
    /// Counters of the proxy.
    pub meter: Meter,
    /// Limits of the proxy.
    pub buckets: Buckets,
    /// A limiter for each request, if the law has one.
    pub gate: Option<Box<dyn Gate>>,
}

impl Pod {
    fn new(service: usize) -> Self {
        Self {
            service,
            queue: VecDeque::new(),
            idle: SERVICES[service].workers,
            meter: Meter::default(),
            buckets: Buckets::default(),
            gate: None,
        }
    }
}

/// All pods, and where those of each service begin.
pub struct Pods {
    /// The pods, service by service.
    pub all: Vec<Pod>,
    first: [usize; SERVICES.len() + 1],
}

impl Pods {
    /// The pods of the topology.
    pub fn new() -> Self {
        let mut all = Vec::new();
        let mut first = [0; SERVICES.len() + 1];
        for (index, service) in SERVICES.iter().enumerate() {
            all.extend((0..service.pods).map(|_| Pod::new(index)));
            first[index + 1] = all.len();
        }
        Self { all, first }
    }

    /// Indices of a service's pods.
    pub fn of(&self, service: usize) -> std::ops::Range<usize> {
        self.first[service]..self.first[service + 1]
    }

    /// Name of a pod.
    pub fn name(&self, pod: usize) -> String {
        let service = self.all[pod].service;
        format!("{}-{}", SERVICES[service].name, pod - self.first[service])
    }

    /// Of two random pods the one with fewer requests.
    pub fn choose(&self, service: usize, random: &mut Random) -> usize {
        let range = self.of(service);
        let one = range.start + random.below(range.len());
        let two = range.start + random.below(range.len());
        if self.all[two].meter.inflight < self.all[one].meter.inflight {
            two
        } else {
            one
        }
    }
}
