//! Traffic: an open-loop generator, and exact sequential bursts.
//!
//! Open loop means that the arrival times do not depend on the answers, as with many independent users. A client that
//! waits for an answer before it sends the next request slows down together with the overloaded server and so hides the
//! overload.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::LabError;
use crate::http::{KeepAlive, Request};

/// How often arrivals are dispatched: fine enough to spread 1000 requests a second evenly.
const TICK: Duration = Duration::from_millis(1);

/// Who gets the requests, in turn; may change while traffic flows, as the endpoints of a service do.
#[derive(Debug, Clone, Default)]
pub struct Targets(Arc<Mutex<Vec<SocketAddr>>>);

impl Targets {
    /// These addresses.
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        Self(Arc::new(Mutex::new(addresses)))
    }

    /// Replaces the addresses.
    pub fn set(&self, addresses: Vec<SocketAddr>) {
        *self.0.lock() = addresses;
    }

    fn nth(&self, n: usize) -> Option<SocketAddr> {
        let addresses = self.0.lock();
        addresses.get(n % addresses.len().max(1)).copied()
    }
}

/// What to send.
#[derive(Debug, Clone)]
pub struct Load {
    /// Who gets it.
    pub targets: Targets,
    /// The request.
    pub request: Request,
    /// Requests that may be under way at once. An arrival beyond that is counted as unsent, not delayed.
    pub max_in_flight: usize,
}

/// What happened in one second of the run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Second {
    /// Arrivals that were due.
    pub offered: u64,
    /// Answers that came, by status code.
    pub by_status: BTreeMap<u16, u64>,
    /// Requests without an answer: refused, reset or timed out.
    pub failed: u64,
    /// Arrivals that found `max_in_flight` requests under way, or no target.
    pub unsent: u64,
}

impl Second {
    /// Answers with this status code.
    pub fn status(&self, code: u16) -> u64 {
        self.by_status.get(&code).copied().unwrap_or(0)
    }
}

/// Traffic under way; dropping it stops it.
#[derive(Debug)]
pub struct Running {
    record: Arc<Record>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Record {
    begin: Instant,
    seconds: Mutex<Vec<Second>>,
}

impl Record {
    fn count(&self, change: impl FnOnce(&mut Second)) {
        let index = usize::try_from(self.begin.elapsed().as_secs()).unwrap_or(usize::MAX);
        let mut seconds = self.seconds.lock();
        while seconds.len() <= index {
            seconds.push(Second::default());
        }
        change(&mut seconds[index]);
    }
}

impl Load {
    /// Begins to send; `rate` gives the requests per second at a time since the start.
    pub fn start(self, rate: impl Fn(Duration) -> f64 + Send + 'static) -> Running {
        let record = Arc::new(Record {
            begin: Instant::now(),
            seconds: Mutex::new(Vec::new()),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(generate(self, rate, Arc::clone(&record), stop.clone()));
        Running {
            record,
            stop,
            task: Some(task),
        }
    }
}

impl Running {
    /// What happened so far, second by second; the last second is still open.
    pub fn seconds(&self) -> Vec<Second> {
        self.record.seconds.lock().clone()
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.record.begin.elapsed()
    }

    /// Sends no more, waits for the answers under way, and returns what happened.
    pub async fn stop(mut self) -> Vec<Second> {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            // It ends early only when the runtime shuts down; what was counted is still right.
            let _ = task.await;
        }
        self.seconds()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Idle connections by peer.
type Pool = Arc<Mutex<BTreeMap<SocketAddr, Vec<KeepAlive>>>>;

async fn generate(
    load: Load,
    rate: impl Fn(Duration) -> f64,
    record: Arc<Record>,
    stop: CancellationToken,
) {
    let request = Arc::new(load.request);
    let permits = Arc::new(Semaphore::new(load.max_in_flight));
    let pool = Pool::default();
    let mut under_way = JoinSet::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut due, mut sent) = (Duration::ZERO, 0.0_f64, 0_usize);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let now = record.begin.elapsed();
        due += rate(now).max(0.0) * now.saturating_sub(last).as_secs_f64();
        last = now;
        while due >= 1.0 {
            due -= 1.0;
            let permit = Arc::clone(&permits).try_acquire_owned();
            let (Ok(permit), Some(target)) = (permit, load.targets.nth(sent)) else {
                record.count(|second| {
                    second.offered += 1;
                    second.unsent += 1;
                });
                continue;
            };
            sent = sent.wrapping_add(1);
            record.count(|second| second.offered += 1);
            let (pool, request, record) =
                (Arc::clone(&pool), Arc::clone(&request), Arc::clone(&record));
            under_way.spawn(async move {
                let status = exchange(&pool, target, &request).await;
                record.count(|second| match status {
                    Ok(status) => *second.by_status.entry(status).or_default() += 1,
                    Err(_) => second.failed += 1,
                });
                drop(permit);
            });
        }
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
}

async fn exchange(pool: &Pool, target: SocketAddr, request: &Request) -> Result<u16, LabError> {
    let idle = pool.lock().get_mut(&target).and_then(|connections| {
        connections.retain(|connection| !connection.is_closed());
        connections.pop()
    });
    let mut connection = match idle {
        Some(connection) => connection,
        None => KeepAlive::connect(target).await?,
    };
    let status = connection.send(request).await?.status;
    pool.lock().entry(target).or_default().push(connection);
    Ok(status)
}

/// Sends the request `n` times, one after the other over one connection, and counts the status codes. A connection
/// that the peer closed is opened anew.
pub async fn burst(
    address: SocketAddr,
    n: usize,
    request: &Request,
) -> Result<BTreeMap<u16, usize>, LabError> {
    let mut counts = BTreeMap::new();
    let mut connection = KeepAlive::connect(address).await?;
    for _ in 0..n {
        if connection.is_closed() {
            connection = KeepAlive::connect(address).await?;
        }
        let status = connection.send(request).await?.status;
        *counts.entry(status).or_default() += 1;
    }
    Ok(counts)
}
