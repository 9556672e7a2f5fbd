//! A server under load: a process of its own, told what to do over stdin, measured over `/proc`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Trimtab's.
    Ours,
    /// go-control-plane with its LinearCache.
    Linear,
    /// go-control-plane with its SnapshotCache.
    Snapshot,
    /// The bare socket loop.
    Floor,
}

impl Kind {
    /// As it is called in the results.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ours => "trimtab",
            Self::Linear => "linear",
            Self::Snapshot => "snapshot",
            Self::Floor => "floor",
        }
    }

    fn command(self, peer: &Path) -> Result<Command> {
        let mut own = Command::new(std::env::current_exe().context("own program")?);
        let mut go = Command::new(peer);
        match self {
            Self::Ours => own.arg("serve"),
            Self::Floor => own.arg("floor"),
            Self::Linear => go.args(["-cache", "linear"]),
            Self::Snapshot => go.args(["-cache", "snapshot"]),
        };
        Ok(match self {
            Self::Ours | Self::Floor => own,
            Self::Linear | Self::Snapshot => go,
        })
    }
}

/// A running server; it ends with this value.
#[derive(Debug)]
pub struct Server {
    pub kind: Kind,
    pub port: u16,
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    process: String,
}

impl Server {
    /// Starts it; it listens when this returns.
    pub async fn start(kind: Kind, peer: &Path) -> Result<Self> {
        let mut child = kind
            .command(peer)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!(
                    "the server '{}' cannot be started; `make bench-xds` builds what it needs",
                    kind.label()
                )
            })?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = lines.next_line().await?.context("the server ended")?;
        let port = first
            .strip_prefix("ready ")
            .with_context(|| format!("'{first}' is not 'ready PORT'"))?
            .parse()?;
        let process = format!("/proc/{}", child.id().context("the server ended")?);
        Ok(Self {
            kind,
            port,
            child,
            stdin,
            lines,
            process,
        })
    }

    /// Sends a command; [`Self::done`] waits for its end.
    pub async fn tell(&mut self, command: &str) -> Result<()> {
        self.stdin
            .write_all(format!("{command}\n").as_bytes())
            .await
            .with_context(|| format!("the server '{}' is gone", self.kind.label()))
    }

    /// The answer to the oldest command without one.
    pub async fn done(&mut self) -> Result<String> {
        let line = self.lines.next_line().await?;
        match line.as_deref().and_then(|line| line.strip_prefix("ok")) {
            Some(rest) => Ok(rest.trim().to_owned()),
            None => bail!("the server '{}' said {line:?}", self.kind.label()),
        }
    }

    /// A command and its answer.
    pub async fn order(&mut self, command: &str) -> Result<String> {
        self.tell(command).await?;
        self.done().await
    }

    /// CPU time of all its threads so far. A thread that ended is missing; these servers end none under load.
    pub fn cpu(&self) -> Duration {
        let Ok(threads) = std::fs::read_dir(format!("{}/task", self.process)) else {
            return Duration::ZERO;
        };
        let nanoseconds = |thread: std::fs::DirEntry| -> Option<u64> {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        Duration::from_nanos(threads.flatten().filter_map(nanoseconds).sum())
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> f64 {
        let status =
            std::fs::read_to_string(format!("{}/status", self.process)).unwrap_or_default();
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .unwrap_or(0.0)
    }

    /// Ends it.
    pub async fn stop(mut self) -> Result<()> {
        self.child.kill().await.context("the server does not end")
    }
}
