//! The connections of one port.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::bounds::{Bounds, Full};

/// One address may have one part of this many of a port's connections. Loopback may have all: a proxy or a port-forward
/// speaks for many there.
const PER_ADDRESS: usize = 4;

/// Who is connected. Clones share it.
#[derive(Clone)]
pub(super) struct Table {
    inner: Arc<Mutex<Inner>>,
    connections: usize,
    full: Full,
}

#[derive(Default)]
struct Inner {
    next: u64,
    open: BTreeMap<u64, Open>,
    by_address: HashMap<IpAddr, usize>,
    clock: Arc<AtomicU64>,
}

struct Open {
    served: Arc<AtomicU64>,
    close: CancellationToken,
}

/// A place among the connections; free again when it is dropped.
pub(super) struct Slot {
    table: Table,
    id: u64,
    address: IpAddr,
    served: Arc<AtomicU64>,
    clock: Arc<AtomicU64>,
    /// Cancelled when another connection gets the place.
    pub(super) close: CancellationToken,
}

impl Table {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            inner: Arc::default(),
            connections: bounds.connections,
            full: bounds.full,
        }
    }

    /// A place for a connection from `address`, if it may have one.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Slot> {
        let address = address.to_canonical();
        let mut inner = self.inner.lock();
        let own = inner.by_address.get(&address).copied().unwrap_or_default();
        let most = (self.connections / PER_ADDRESS).max(1);
        if !address.is_loopback() && own >= most {
            return None;
        }
        if inner.open.len() >= self.connections {
            if self.full == Full::Refuse {
                return None;
            }
            let served = |open: &Open| open.served.load(Ordering::Relaxed);
            let oldest = inner.open.iter().min_by_key(|(_, open)| served(open));
            let oldest = oldest.map(|(id, _)| *id)?;
            // Its task gives the rest back when it sees that.
            inner.open.remove(&oldest)?.close.cancel();
        }
        let clock = inner.clock.clone();
        let now = clock.fetch_add(1, Ordering::Relaxed);
        let served = Arc::new(AtomicU64::new(now));
        let close = CancellationToken::new();
        let id = inner.next;
        inner.next += 1;
        *inner.by_address.entry(address).or_default() += 1;
        let open = Open {
            served: served.clone(),
            close: close.clone(),
        };
        inner.open.insert(id, open);
        Some(Slot {
            table: self.clone(),
            id,
            address,
            served,
            clock,
            close,
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.inner.lock().open.len()
    }
}

impl Slot {
    /// The peer was answered now.
    pub(super) fn serve(&self) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        self.served.store(now, Ordering::Relaxed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inner = self.table.inner.lock();
        inner.open.remove(&self.id);
        if let Some(own) = inner.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                inner.by_address.remove(&self.address);
            }
        }
    }
}
