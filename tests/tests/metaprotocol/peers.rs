//! Clients and servers of the protocols: scripts of `clients/`, asked line by line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use trimtab_lab::process::cache_dir;

/// Far more than anything here takes; only a hang reaches it.
const BOUND: Duration = Duration::from_secs(30);

/// Answers with how often each came.
pub(crate) type Counts = BTreeMap<String, u64>;

/// `[("v1", 3)]` as counts.
pub(crate) fn counts(list: &[(&str, u64)]) -> Counts {
    list.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect()
}

/// A client or a server of `clients/`, which is asked line by line and dies with the test.
pub(crate) struct Peer {
    what: String,
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

/// The program of a script in `clients/`.
fn program(script: &str) -> PathBuf {
    let cache = cache_dir();
    let path = match script {
        s if s.starts_with("thrift") => cache.join("thriftpy2/bin/python"),
        s if s.ends_with(".py") => cache.join("python3-dubbo/bin/python"),
        _ => {
            let modules = cache.join("dubbo-node/node_modules");
            assert!(
                modules.is_dir(),
                "{} is missing: run make deps",
                modules.display()
            );
            return "node".into();
        }
    };
    assert!(
        path.is_file(),
        "{} is missing: run make deps",
        path.display()
    );
    path
}

impl Peer {
    pub(crate) fn start(script: &str, args: &[String]) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/metaprotocol/clients")
            .join(script);
        let mut child = Command::new(program(script))
            .arg(&file)
            .args(args)
            .env("NODE_PATH", cache_dir().join("dubbo-node/node_modules"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("{script}: {e}: run make deps"));
        let stdout = child.stdout.take().expect("stdout");
        Self {
            what: format!("{script} {args:?}"),
            stdin: child.stdin.take().expect("stdin"),
            _child: child,
            lines: BufReader::new(stdout).lines(),
        }
    }

    async fn line(&mut self) -> String {
        tokio::time::timeout(BOUND, self.lines.next_line())
            .await
            .unwrap_or_else(|_| panic!("{} does not answer", self.what))
            .expect("a line")
            .unwrap_or_else(|| panic!("{} has ended", self.what))
    }

    async fn tell(&mut self, text: &str) -> String {
        let line = format!("{text}\n");
        self.stdin
            .write_all(line.as_bytes())
            .await
            .expect("it listens");
        self.line().await
    }

    /// Lets a client make calls; how often each answer came.
    pub(crate) async fn ask(&mut self, wanted: Value) -> Counts {
        let answer = self.tell(&wanted.to_string()).await;
        serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{}: {answer}: {e}", self.what))
    }

    /// How many calls a server had.
    pub(crate) async fn calls(&mut self) -> u64 {
        self.tell("").await.parse().expect("a number")
    }
}

/// A server of `clients/` with its address.
pub(crate) async fn server(script: &str, name: &str) -> (Peer, SocketAddr) {
    let mut peer = Peer::start(script, &[name.to_owned()]);
    let port = peer.line().await.parse().expect("a port");
    (peer, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// A client of `clients/` at an address.
pub(crate) fn client(script: &str, at: SocketAddr, more: &[&str]) -> Peer {
    let mut args = vec![at.ip().to_string(), at.port().to_string()];
    args.extend(more.iter().map(|a| (*a).to_owned()));
    Peer::start(script, &args)
}
