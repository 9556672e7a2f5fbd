//! A TCP proxy in front of the API server that can hold bytes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Each byte from the client arrives later by the delay; answers come at once.
pub struct Slow {
    address: SocketAddr,
    millis: Arc<AtomicU64>,
}

impl Slow {
    pub async fn start(server: &str) -> Self {
        let target = server.trim_start_matches("https://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let millis = Arc::new(AtomicU64::new(0));
        let delay = millis.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_client, to_server, delay.clone()));
                tokio::spawn(carry(from_server, to_client, Arc::default()));
            }
        });
        Self { address, millis }
    }

    pub fn server(&self) -> String {
        format!("https://{}", self.address)
    }

    pub fn delay(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap();
        self.millis.store(millis, Ordering::Relaxed);
    }
}

/// Also the end of the connection comes late: what was sent before it arrives.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin + Send + 'static,
    millis: Arc<AtomicU64>,
) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((at, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(at).await;
            if bytes.is_empty() || to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    });
    loop {
        let mut bytes = vec![0; 16 << 10];
        let read = from.read(&mut bytes).await.unwrap_or(0);
        bytes.truncate(read);
        let at = Instant::now() + Duration::from_millis(millis.load(Ordering::Relaxed));
        if sender.send((at, bytes)).is_err() || read == 0 {
            return;
        }
    }
}
