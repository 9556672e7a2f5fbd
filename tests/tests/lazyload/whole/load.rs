//! Calls and connections that go on all the time, and what became of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use trimtab_lab::http::{KeepAlive, Request};

use super::fixture::host;
use crate::collector::BOUND;

/// What became of the calls so far.
#[derive(Default)]
pub(super) struct Counts {
    stop: AtomicBool,
    pub(super) good: AtomicU64,
    pub(super) connections: AtomicU64,
    lost: parking_lot::Mutex<Vec<String>>,
}

/// Callers that run until [`Load::end`].
pub(super) struct Load {
    counts: Arc<Counts>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// A caller of each name, over connections that are kept, and one that connects anew each time.
    pub(super) fn start(http: SocketAddr, tcp: SocketAddr, names: &[&'static str]) -> Self {
        let counts = Arc::new(Counts::default());
        let calls = names
            .iter()
            .map(|name| tokio::spawn(counts.clone().call(http, name)));
        let mut tasks: Vec<_> = calls.collect();
        tasks.push(tokio::spawn(counts.clone().connect(tcp)));
        Self { counts, tasks }
    }

    pub(super) fn good(&self) -> u64 {
        self.counts.good.load(Ordering::Relaxed)
    }

    pub(super) fn sum(&self) -> u64 {
        self.good() + self.counts.connections.load(Ordering::Relaxed)
    }

    /// Ends all, and gives what was lost.
    pub(super) async fn end(self) -> Vec<String> {
        self.counts.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let lost = self.counts.lost.lock().clone();
        println!(
            "{} requests, {} connections, {} lost",
            self.counts.good.load(Ordering::Relaxed),
            self.counts.connections.load(Ordering::Relaxed),
            lost.len()
        );
        lost
    }
}

impl Counts {
    fn lose(&self, what: String) {
        self.lost.lock().push(what);
    }

    /// One connection after the other: a proxy that leaves asks for that with `connection: close`.
    async fn call(self: Arc<Self>, at: SocketAddr, name: &'static str) {
        let request = Request::get("/").header("host", &host(name));
        let mut kept: Option<KeepAlive> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let connection = match kept.take() {
                Some(connection) => Ok(connection),
                None => KeepAlive::connect(at).await,
            };
            let mut connection = match connection {
                Ok(connection) => connection,
                Err(error) => {
                    self.lose(format!("{name}: connect: {error}"));
                    continue;
                }
            };
            match connection.send(&request).await {
                Ok(answer) if answer.status == 200 && answer.body.trim() == name => {
                    self.good.fetch_add(1, Ordering::Relaxed);
                    let mut headers = answer.headers.iter();
                    if !headers.any(|(k, v)| k == "connection" && v == "close") {
                        kept = Some(connection);
                    }
                }
                other => self.lose(format!("{name}: {other:?}")),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn connect(self: Arc<Self>, at: SocketAddr) {
        while !self.stop.load(Ordering::Relaxed) {
            let exchange = async {
                let mut stream = TcpStream::connect(at).await?;
                stream.write_all(b"hello").await?;
                let mut back = [0; 5];
                stream.read_exact(&mut back).await
            };
            match tokio::time::timeout(BOUND, exchange).await {
                Ok(Ok(_)) => {
                    self.connections.fetch_add(1, Ordering::Relaxed);
                }
                other => self.lose(format!("connection: {other:?}")),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
