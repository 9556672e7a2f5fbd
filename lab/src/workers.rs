//! A pod whose capacity is a pool of workers: each takes one request at a time and the same time for each of them.
//!
//! Workers sleep, so that a pool costs little CPU however busy it is. A request whose client has left is worked on all the
//! same when its turn comes, as by a server that does not notice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::LabError;
use crate::http::Server;
use crate::upstream::METRICS_PATH;

/// What a pool is.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSpec {
    /// The name of its pod, which it also answers with.
    pub pod: String,
    /// How many requests it works on at once.
    pub workers: usize,
    /// How long each takes.
    pub service: Duration,
}

/// A running pool; dropping it closes its connections.
#[derive(Debug)]
pub struct Pool {
    server: Server,
    state: Arc<State>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct State {
    spec: PoolSpec,
    queue: mpsc::UnboundedSender<Job>,
    work: Mutex<Work>,
}

#[derive(Debug)]
struct Work {
    service: Duration,
    busy: usize,
    since: Instant,
    busy_s: f64,
    done: u64,
}

#[derive(Debug)]
struct Job {
    arrived: Instant,
    answer: oneshot::Sender<()>,
}

impl Work {
    /// Counts the time that workers worked until now.
    fn account(&mut self) {
        let now = Instant::now();
        self.busy_s += self.busy as f64 * now.duration_since(self.since).as_secs_f64();
        self.since = now;
    }
}

impl Pool {
    /// Starts a pool on an address, for example one of [`crate::ports::free_address`].
    pub async fn start(address: SocketAddr, spec: PoolSpec) -> Result<Self, LabError> {
        let (queue, jobs) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            work: Mutex::new(Work {
                service: spec.service,
                busy: 0,
                since: Instant::now(),
                busy_s: 0.0,
                done: 0,
            }),
            spec,
            queue,
        });
        let stop = CancellationToken::new();
        let jobs = Arc::new(tokio::sync::Mutex::new(jobs));
        for _ in 0..state.spec.workers {
            let worker = work(Arc::clone(&state), Arc::clone(&jobs));
            tokio::spawn(stop.clone().run_until_cancelled_owned(worker));
        }
        let shared = Arc::clone(&state);
        let server = Server::start(address, move |request| {
            let metrics = request.uri().path() == METRICS_PATH;
            let state = Arc::clone(&shared);
            async move {
                let body = if metrics {
                    state.metrics()
                } else {
                    state.answer().await
                };
                hyper::Response::new(Full::new(Bytes::from(body)))
            }
        })
        .await?;
        Ok(Self {
            server,
            state,
            _stop: stop.drop_guard(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Changes how long requests take, from the next ones on that are begun.
    pub fn set_service(&self, service: Duration) {
        self.state.work.lock().service = service;
    }

    /// Requests worked on so far.
    pub fn done(&self) -> u64 {
        self.state.work.lock().done
    }
}

impl State {
    async fn answer(&self) -> String {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            arrived: Instant::now(),
            answer,
        };
        // Both fail only when the pool ends.
        let _ = self.queue.send(job);
        let _ = answered.await;
        format!("{}\n", self.spec.pod)
    }

    fn metrics(&self) -> String {
        let mut work = self.work.lock();
        work.account();
        format!(
            "# HELP container_cpu_usage_seconds_total Time that workers worked, each as a core.\n\
             # TYPE container_cpu_usage_seconds_total counter\n\
             container_cpu_usage_seconds_total{{container=\"app\"}} {}\n\
             # HELP workload_workers Workers of the pod.\n\
             # TYPE workload_workers gauge\nworkload_workers {}\n\
             # HELP workload_done_total Requests worked on.\n\
             # TYPE workload_done_total counter\nworkload_done_total {}\n",
            work.busy_s, self.spec.workers, work.done
        )
    }
}

async fn work(state: Arc<State>, jobs: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Job>>>) {
    let mut free_at = Instant::now();
    loop {
        let job = jobs.lock().await.recv().await;
        let Some(job) = job else { return };
        let service = {
            let mut work = state.work.lock();
            work.account();
            work.busy += 1;
            work.service
        };
        // From when it could begin, so that late timers cost no capacity.
        free_at = free_at.max(job.arrived) + service;
        tokio::time::sleep_until(free_at).await;
        {
            let mut work = state.work.lock();
            work.account();
            work.busy -= 1;
            work.done += 1;
        }
        // The client may have left.
        let _ = job.answer.send(());
    }
}
