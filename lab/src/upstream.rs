//! A pod of a workload: it answers HTTP requests, has a capacity, and says how loaded it is.
//!
//! The load is measured, not simulated: it is the rate of the requests that really arrive. What is simulated is the
//! cost of a request: 1/capacity of a second of CPU, of which the pod reports the sum but burns nothing.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use parking_lot::Mutex;

use crate::LabError;
use crate::http::Server;

/// Path of the metrics in Prometheus' text format.
pub const METRICS_PATH: &str = "/metrics";

/// The time over which the arrival rate is taken.
const WINDOW: Duration = Duration::from_secs(1);

/// Arrivals are counted in slots of this length: the error of the rate is at most one slot's share of the window.
const SLOT: Duration = Duration::from_millis(50);

/// Time since some fixed moment.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// The clock of this machine.
    pub fn real() -> Self {
        let begin = Instant::now();
        Self::new(move || begin.elapsed())
    }

    /// A clock that shows what `now` returns, which must never decrease.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Clock").field(&self.now()).finish()
    }
}

/// The arrival rate over the last second.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    slots: VecDeque<(u128, u64)>,
    total: u64,
}

impl Meter {
    /// Counts one arrival.
    pub fn arrive(&mut self, now: Duration) {
        self.total += 1;
        let slot = now.as_millis() / SLOT.as_millis();
        match self.slots.back_mut() {
            Some((last, count)) if *last == slot => *count += 1,
            _ => self.slots.push_back((slot, 1)),
        }
        self.forget(now);
    }

    /// Arrivals per second.
    pub fn rate(&mut self, now: Duration) -> f64 {
        self.forget(now);
        let arrivals: u64 = self.slots.iter().map(|(_, count)| count).sum();
        arrivals as f64 / WINDOW.as_secs_f64()
    }

    /// All arrivals so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn forget(&mut self, now: Duration) {
        let slot = now.as_millis() / SLOT.as_millis();
        let window = WINDOW.as_millis() / SLOT.as_millis();
        while self
            .slots
            .front()
            .is_some_and(|(first, _)| first + window <= slot)
        {
            self.slots.pop_front();
        }
    }
}

/// What a pod is.
#[derive(Debug, Clone, PartialEq)]
pub struct PodSpec {
    /// Its namespace.
    pub namespace: String,
    /// Its name, which it also answers with.
    pub pod: String,
    /// Requests per second that fill its CPU.
    pub capacity: f64,
}

/// A running pod; dropping it closes its connections.
#[derive(Debug)]
pub struct Upstream {
    server: Server,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    spec: PodSpec,
    clock: Clock,
    load: Mutex<Load>,
}

#[derive(Debug)]
struct Load {
    meter: Meter,
    capacity: f64,
}

impl Upstream {
    /// Starts a pod on an address, for example one of [`crate::ports::free_address`].
    pub async fn start(address: SocketAddr, spec: PodSpec, clock: Clock) -> Result<Self, LabError> {
        let load = Mutex::new(Load {
            meter: Meter::default(),
            capacity: spec.capacity,
        });
        let state = Arc::new(State { spec, clock, load });
        let shared = Arc::clone(&state);
        let server = Server::start(address, move |request| {
            let response = shared.answer(request.uri().path());
            std::future::ready(response)
        })
        .await?;
        Ok(Self { server, state })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Its arrival rate as a share of its capacity; above 1 it is overloaded.
    pub fn cpu_ratio(&self) -> f64 {
        self.state.cpu_ratio()
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.state.load.lock().meter.total()
    }

    /// Changes the capacity, as a noisy neighbour or a slower version would.
    pub fn set_capacity(&self, capacity: f64) {
        self.state.load.lock().capacity = capacity;
    }
}

impl State {
    fn answer(&self, path: &str) -> hyper::Response<Full<Bytes>> {
        let body = if path == METRICS_PATH {
            self.metrics()
        } else {
            self.load.lock().meter.arrive(self.clock.now());
            format!("{}\n", self.spec.pod)
        };
        hyper::Response::new(Full::new(Bytes::from(body)))
    }

    fn cpu_ratio(&self) -> f64 {
        let mut load = self.load.lock();
        let rate = load.meter.rate(self.clock.now());
        if load.capacity > 0.0 {
            rate / load.capacity
        } else {
            0.0
        }
    }

    fn metrics(&self) -> String {
        let labels = format!(
            "{{namespace=\"{}\",pod=\"{}\"}}",
            self.spec.namespace, self.spec.pod
        );
        let ratio = self.cpu_ratio();
        let total = self.load.lock().meter.total();
        format!(
            "# HELP workload_cpu_ratio Share of the pod's CPU in use, by the arrivals of the last second.\n\
             # TYPE workload_cpu_ratio gauge\nworkload_cpu_ratio{labels} {ratio}\n\
             # HELP workload_requests_total Requests answered.\n\
             # TYPE workload_requests_total counter\nworkload_requests_total{labels} {total}\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_arrivals_and_forgets_them_after_the_window() {
        let mut meter = Meter::default();
        for step in 0..200_u64 {
            meter.arrive(Duration::from_millis(step * 10));
        }
        // 100 per second, seen at the end of the last slot.
        assert!((meter.rate(Duration::from_millis(1_999)) - 100.0).abs() < 1e-9);
        assert!((meter.rate(Duration::from_millis(2_499)) - 50.0).abs() < 1e-9);
        assert!(meter.rate(Duration::from_secs(4)).abs() < 1e-9);
        assert_eq!(meter.total(), 200);
    }
}
