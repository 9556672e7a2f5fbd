//! What can go wrong around the real processes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// A failure of the laboratory itself, never of what is observed in it.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program is not on this machine.
    #[error("{program} was not found ({looked}); run `make deps`, or set {variable} to its path")]
    Missing {
        /// Name of the program.
        program: &'static str,
        /// Where it was looked for.
        looked: String,
        /// The environment variable that names it.
        variable: &'static str,
    },
    /// A program is there but does not start.
    #[error("{name} ({path}) cannot be started: {source}")]
    Spawn {
        /// Name of the process.
        name: String,
        /// The program.
        path: PathBuf,
        /// The reason of the operating system.
        source: std::io::Error,
    },
    /// A process ended while its readiness was awaited.
    #[error("{name} ended with {status} before it was ready; its log {log} ends with:\n{tail}")]
    Exited {
        /// Name of the process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// A condition did not become true in time.
    #[error("{what} was awaited for {bound:?} in vain: {reason}{tail}")]
    TimedOut {
        /// The condition.
        what: String,
        /// How long it was awaited.
        bound: Duration,
        /// What was seen last.
        reason: String,
        /// The last lines of a log, or nothing.
        tail: String,
    },
    /// Nothing usable was free.
    #[error("no free port between {from} and {to} on 127.0.0.1; close some listeners")]
    NoPort {
        /// First port tried.
        from: u16,
        /// First port not tried.
        to: u16,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The reason of the operating system.
        source: std::io::Error,
    },
    /// A peer did not speak as expected.
    #[error("http://{address}{path}: {reason}")]
    Http {
        /// The peer.
        address: SocketAddr,
        /// Path of the request.
        path: String,
        /// What happened.
        reason: String,
    },
    /// A configuration lacks what is needed to run it.
    #[error("configuration: {0}")]
    Config(String),
}

impl LabError {
    /// Wraps a file error with the file's name.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
