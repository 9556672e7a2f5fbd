//! Bounds of one port. What a stranger leaves open must not keep anybody else out, nor take the files that all ports share.

use std::time::{Duration, Instant};

/// With fewer bytes a peer of HTTP/1 has said nothing: the shortest request is longer.
const REQUEST: usize = 16;
/// Length of the preface of HTTP/2.
const PREFACE: usize = 24;
/// Time until a peer has said something.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// Pause between two log lines about the same.
const TOLD: Duration = Duration::from_secs(60);
/// File descriptors of a process whose limit cannot be read.
const FILES: usize = 1024;

/// What happens to a connection that is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// It is closed.
    Refuse,
    /// It is taken, and the one that was served longest ago is closed.
    CloseOldest,
}

/// A port, for its share of the files that the process may have open. All shares together leave a quarter for everything
/// else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// The xDS server.
    Xds,
    /// Access logs.
    AccessLogs,
    /// Pushed metrics.
    Metrics,
    /// Pages, JSON and probes.
    Http,
}

impl Share {
    #[cfg(test)]
    const ALL: [Self; 4] = [Self::Xds, Self::AccessLogs, Self::Metrics, Self::Http];

    fn sixteenths(self) -> usize {
        match self {
            Self::Xds => 6,
            Self::AccessLogs => 4,
            Self::Metrics | Self::Http => 1,
        }
    }

    /// Connections of a process with so many files.
    fn of(self, files: usize) -> usize {
        (files / 16 * self.sixteenths()).max(1)
    }
}

/// Bounds of one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at a time.
    pub connections: usize,
    /// What happens to one more.
    pub full: Full,
    /// Bytes without which a peer has said nothing.
    pub greeting: usize,
    /// Time for them.
    pub first_bytes: Duration,
    /// Time for which nothing may go either way afterwards.
    pub idle: Duration,
}

impl Bounds {
    /// For connections with one request after the other: a new one takes the place of the one that has waited longest for
    /// a request.
    pub fn requests(connections: usize, share: Share) -> Self {
        Self {
            connections: connections.min(share.of(files())),
            full: Full::CloseOldest,
            greeting: REQUEST,
            first_bytes: FIRST_BYTES,
            idle: Duration::from_secs(60),
        }
    }

    /// For connections of HTTP/2 that stay, and whose peers are asked whether they are there: those that are there keep
    /// their place. `asked`: the pause between two such questions.
    pub fn streams(connections: usize, share: Share, asked: Duration) -> Self {
        Self {
            connections: connections.min(share.of(files())),
            full: Full::Refuse,
            greeting: PREFACE,
            first_bytes: FIRST_BYTES,
            idle: asked.saturating_mul(3),
        }
    }
}

/// Files that this process may have open.
fn files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    open_files(&limits).unwrap_or(FILES)
}

/// The soft limit of open files.
fn open_files(limits: &str) -> Option<usize> {
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

/// Log lines: the first, and then one a minute that counts the others.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    told: Option<Instant>,
    since: u64,
}

impl Complaints {
    /// How many there were since the last line, if it is time for one.
    pub(super) fn add(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        let recent = |told: Instant| now.saturating_duration_since(told) < TOLD;
        if self.told.is_some_and(recent) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_t13_a_minute_has_one_log_line() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.add(now), Some(1));
        for second in 1..60 {
            assert_eq!(complaints.add(now + Duration::from_secs(second)), None);
        }
        assert_eq!(complaints.add(now + Duration::from_secs(60)), Some(60));
    }

    #[test]
    fn the_limit_of_files_is_read() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(open_files(limits), Some(1024));
        let unlimited = "Max open files unlimited unlimited files";
        assert_eq!(open_files(unlimited), Some(usize::MAX));
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn fault_t13_all_ports_together_leave_files() {
        for files in [256, 1024, 65_536, 1 << 20] {
            let all: usize = Share::ALL.iter().map(|share| share.of(files)).sum();
            assert!(all <= files / 4 * 3, "{all} of {files}");
        }
        assert!(Share::ALL.iter().all(|share| share.of(3) == 1));
    }
}
