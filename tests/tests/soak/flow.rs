//! Clients: each sends requests at its own pace through one proxy, and knows what must come back.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use trimtab_cluster::{ClusterError, Connection, Pod, original_destination};
use trimtab_lab::http::Request;

use crate::judge::{Judge, Limit};

/// Another machine: not the pod's own address, which a sidecar passes through.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 44, 255, 254);
const INBOUND: u16 = 15006;
const OUTBOUND: u16 = 15001;
/// What is shown of what went wrong, of each client in each disturbance.
const SHOWN: usize = 3;

/// How requests reach a proxy.
#[derive(Clone, Copy, Debug)]
pub enum Open {
    /// A PROXY protocol header in place of `iptables`.
    Redirected {
        source: Ipv4Addr,
        through: SocketAddr,
        to: SocketAddrV4,
    },
    Plain(SocketAddr),
}

impl Open {
    pub fn inbound(pod: &Pod, port: u16) -> Self {
        Self::Redirected {
            source: STRANGER,
            through: pod.address(INBOUND),
            to: SocketAddrV4::new(pod.local(), port),
        }
    }

    pub fn outbound(pod: &Pod, to: SocketAddrV4) -> Self {
        Self::Redirected {
            source: pod.local(),
            through: pod.address(OUTBOUND),
            to,
        }
    }

    pub async fn connection(self) -> trimtab_cluster::Result<Connection> {
        let stream = match self {
            Self::Redirected {
                source,
                through,
                to,
            } => original_destination(source, through, to).await?,
            Self::Plain(address) => TcpStream::connect(address)
                .await
                .map_err(|error| ClusterError::Other(format!("{address}: {error}")))?,
        };
        Connection::http(stream).await
    }
}

/// Who asks for what.
#[derive(Clone, Debug)]
pub struct Flow {
    pub name: &'static str,
    /// Processes whose death costs requests of this flow.
    pub through: &'static [&'static str],
    pub open: Open,
    pub host: String,
    pub request: Request,
    /// The pod that must answer.
    pub from: &'static str,
    pub pace: Duration,
    pub limit: Option<Limit>,
}

/// Counts of one flow or of one disturbance.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub sent: u64,
    pub limited: u64,
    pub lost: u64,
    pub refused_wrongly: u64,
    pub passed_wrongly: u64,
    pub misrouted: u64,
    /// Of requests that a killed proxy had, or that found it dead.
    pub killed: BTreeMap<String, u64>,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.limited += other.limited;
        self.lost += other.lost;
        self.refused_wrongly += other.refused_wrongly;
        self.passed_wrongly += other.passed_wrongly;
        self.misrouted += other.misrouted;
        for (reason, number) in &other.killed {
            *self.killed.entry(reason.clone()).or_default() += number;
        }
    }

    pub fn wrong(&self) -> u64 {
        self.lost + self.refused_wrongly + self.passed_wrongly + self.misrouted
    }
}

/// Which processes that carry requests are dead.
#[derive(Debug, Default)]
struct Outage {
    /// Deaths and rebirths so far: odd while it is dead.
    changes: AtomicU64,
    /// Buckets that may still be filled once more.
    fills: AtomicU64,
}

/// What all clients write into.
#[derive(Debug)]
pub struct Book {
    pub begun: Instant,
    /// Number of the disturbance that goes on.
    now: AtomicUsize,
    counts: Mutex<BTreeMap<(usize, &'static str), Counts>>,
    shown: Mutex<BTreeMap<(usize, String), Vec<String>>>,
    outages: BTreeMap<&'static str, Outage>,
}

impl Book {
    pub fn new(carriers: &[&'static str]) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            now: AtomicUsize::default(),
            counts: Mutex::default(),
            shown: Mutex::default(),
            outages: carriers.iter().map(|c| (*c, Outage::default())).collect(),
        })
    }

    pub fn turn(&self, disturbance: usize) {
        self.now.store(disturbance, Ordering::Relaxed);
    }

    /// A process that carries requests is about to be killed, or is ready again.
    pub fn change(&self, carrier: &str) {
        if let Some(outage) = self.outages.get(carrier) {
            outage.changes.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A bucket of its proxy will be filled once more than the limit says, as documented.
    pub fn fills(&self, carrier: &str) {
        if let Some(outage) = self.outages.get(carrier) {
            outage.fills.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn take_fill(&self, through: &[&str]) -> bool {
        let mut each = through.iter().filter_map(|c| self.outages.get(c));
        each.any(|o| {
            let less = |n: u64| n.checked_sub(1);
            let taken = o
                .fills
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
            taken.is_ok()
        })
    }

    fn changes(&self, through: &[&str]) -> (u64, bool) {
        let each = through.iter().filter_map(|c| self.outages.get(c));
        each.map(|o| o.changes.load(Ordering::SeqCst))
            .fold((0, false), |(sum, dead), n| (sum + n, dead || n % 2 == 1))
    }

    pub fn count(&self, flow: &'static str, change: impl FnOnce(&mut Counts)) {
        let key = (self.now.load(Ordering::Relaxed), flow);
        change(self.counts.lock().entry(key).or_default());
    }

    /// Keeps the first of what went wrong, for people.
    pub fn show(&self, flow: &str, what: &str) {
        let (at, now) = (self.begun.elapsed(), self.now.load(Ordering::Relaxed));
        let mut shown = self.shown.lock();
        let shown = shown.entry((now, flow.to_owned())).or_default();
        if shown.len() < SHOWN {
            shown.push(format!("{at:.2?} disturbance {now} {flow}: {what}"));
        }
    }

    pub fn shown(&self) -> Vec<String> {
        self.shown.lock().values().flatten().cloned().collect()
    }

    pub fn counts(&self) -> BTreeMap<(usize, &'static str), Counts> {
        self.counts.lock().clone()
    }

    /// Whether an error is the price of a kill.
    fn excused(&self, through: &[&str], before: (u64, bool)) -> bool {
        before.1 || self.changes(through) != before
    }

    pub fn failed(&self, flow: &'static str, through: &[&str], before: (u64, bool), why: &str) {
        if self.excused(through, before) {
            let reason = reason(why);
            self.count(flow, |c| *c.killed.entry(reason).or_default() += 1);
        } else {
            self.count(flow, |c| c.lost += 1);
            self.show(flow, why);
        }
    }

    pub fn before(&self, through: &[&str]) -> (u64, bool) {
        self.changes(through)
    }
}

/// The kind of an error, as the client sees it.
fn reason(why: &str) -> String {
    let kinds = [
        ("refused", "connection refused"),
        ("reset", "connection reset"),
        ("closed", "connection closed"),
        ("no answer", "no answer"),
        ("status 5", "status 5xx"),
    ];
    let kind = kinds.iter().find(|(part, _)| why.contains(part));
    kind.map_or("other", |(_, kind)| kind).to_owned()
}

impl Flow {
    /// Sends until `stop`.
    pub async fn run(self, book: Arc<Book>, stop: CancellationToken) {
        let mut judge = self.limit.map(|l| Judge::new(l, book.begun.elapsed()));
        let mut ticks = tokio::time::interval(self.pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut connection, mut seen) = (None, book.before(self.through));
        while !stop.is_cancelled() {
            ticks.tick().await;
            let before = book.before(self.through);
            if before != seen {
                seen = before;
                if let Some(judge) = &mut judge {
                    judge.refill();
                }
            }
            self.ask(&book, before, &mut connection, judge.as_mut())
                .await;
        }
    }

    /// Sends one request on a connection of its own.
    pub async fn once(&self, book: &Book) {
        let before = book.before(self.through);
        self.ask(book, before, &mut None, None).await;
    }

    async fn ask(
        &self,
        book: &Book,
        before: (u64, bool),
        kept: &mut Option<Connection>,
        mut judge: Option<&mut Judge>,
    ) {
        let sent = book.begun.elapsed();
        book.count(self.name, |c| c.sent += 1);
        let answer = self.exchange(kept).await;
        let (status, body) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                *kept = None;
                book.failed(self.name, self.through, before, &error.to_string());
                return;
            }
        };
        let (passed, answered) = (status != 429, book.begun.elapsed());
        if passed && status != 200 {
            let why = format!("status {status}: {body}");
            book.failed(self.name, self.through, before, &why);
        } else if passed && body.trim() != self.from {
            book.count(self.name, |c| c.misrouted += 1);
            book.show(self.name, &format!("answered by {}", body.trim()));
        }
        if !passed {
            book.count(self.name, |c| c.limited += 1);
        }
        let mut right = match &mut judge {
            Some(judge) => judge.right(sent, answered, passed),
            None => passed,
        };
        if let Some(judge) = judge.filter(|_| passed && !right && book.take_fill(self.through)) {
            judge.refill();
            let reason = "bucket filled once more, as stated".to_owned();
            book.count(self.name, |c| *c.killed.entry(reason).or_default() += 1);
            right = true;
        }
        if !right && book.before(self.through) == before {
            book.count(self.name, |c| {
                *if passed {
                    &mut c.passed_wrongly
                } else {
                    &mut c.refused_wrongly
                } += 1;
            });
            book.show(self.name, if passed { "above" } else { "below" });
        }
    }

    async fn exchange(
        &self,
        kept: &mut Option<Connection>,
    ) -> trimtab_cluster::Result<(u16, String)> {
        // As every client does that keeps connections.
        if kept.as_ref().is_some_and(Connection::is_closed) {
            *kept = None;
        }
        let connection = match kept {
            Some(connection) => connection,
            None => kept.insert(self.open.connection().await?),
        };
        connection.send(&self.host, &self.request).await
    }
}
