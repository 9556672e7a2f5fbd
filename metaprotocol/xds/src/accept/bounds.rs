//! How many connections there may be, and what is said when one cannot be taken.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// One address may have one part of this many of all connections. Loopback may have all: a forwarded port or the proxies of
/// this machine come from there.
const PER_ADDRESS: usize = 4;
/// Pause between two log lines.
const QUIET: Duration = Duration::from_secs(60);
/// Files of a process whose limit cannot be read.
const FILES: usize = 1024;

/// The connections of a listener. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Places {
    open: Arc<Mutex<Open>>,
    most: usize,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place among the connections; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    address: IpAddr,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self {
            open: Arc::default(),
            most,
        }
    }

    /// As many as asked for, but of the files that the process may have open three eighths: it needs some for other things.
    pub(super) fn within_files(most: usize) -> Self {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let files = open_files(&limits).unwrap_or(FILES);
        Self::new(most.min(files / 8 * 3).max(1))
    }

    /// A place for a connection from `address`, if it may have one.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut open = self.open.lock();
        let own = open.by_address.get(&address).copied().unwrap_or_default();
        let most = (self.most / PER_ADDRESS).max(1);
        if open.all >= self.most || (own >= most && !address.is_loopback()) {
            return None;
        }
        open.all += 1;
        *open.by_address.entry(address).or_default() += 1;
        Some(Place {
            places: self.clone(),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.open.lock();
        open.all -= 1;
        if let Some(own) = open.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
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
        let recent = |told: Instant| now.saturating_duration_since(told) < QUIET;
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
    fn fault_t13_one_address_never_has_all_places_and_a_place_is_given_back() {
        let places = Places::new(8);
        let stranger: IpAddr = [10, 0, 0, 1].into();
        let mut taken: Vec<Place> = (0..2).map_while(|_| places.enter(stranger)).collect();
        assert_eq!(taken.len(), 2);
        assert!(places.enter(stranger).is_none(), "a quarter is all");
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert!(places.enter(mapped).is_none(), "the same address");
        taken.pop();
        taken.extend(places.enter(stranger));
        let local: IpAddr = [127, 0, 0, 1].into();
        taken.extend(std::iter::from_fn(|| places.enter(local)));
        assert_eq!(taken.len(), 8);
        assert!(places.enter([10, 0, 0, 2].into()).is_none());
        taken.clear();
        assert!(places.open.lock().by_address.is_empty());
        assert_eq!(places.open.lock().all, 0);
    }

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
        assert_eq!(open_files(""), None);
    }
}
