//! Who may ask the API server now. An address has few turns at a time, so that whoever sends junk waits for itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Reviews under way at the same time.
const CONCURRENT: usize = 32;
/// Those of one address. A node that hides many proxies behind its address has more than enough: a review takes milliseconds.
pub(super) const PER_ADDRESS: usize = 4;
/// Reviews that one address may have under way or waiting.
pub(super) const WAITING: usize = 256;

pub(super) struct Turns {
    all: Semaphore,
    addresses: Mutex<HashMap<Option<IpAddr>, Queue>>,
}

#[derive(Clone)]
struct Queue {
    turns: Arc<Semaphore>,
    waiting: usize,
}

/// A turn; it ends when it is dropped.
pub(super) struct Turn<'t> {
    _all: Option<SemaphorePermit<'t>>,
    _own: Option<OwnedSemaphorePermit>,
    _place: Place<'t>,
}

/// A place in the queue of an address.
struct Place<'t> {
    turns: &'t Turns,
    address: Option<IpAddr>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut addresses = self.turns.addresses.lock();
        if let Some(queue) = addresses.get_mut(&self.address) {
            queue.waiting -= 1;
            if queue.waiting == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            all: Semaphore::new(CONCURRENT),
            addresses: Mutex::default(),
        }
    }
}

impl Turns {
    /// Waits for a turn of this address; `None`: too many wait already.
    pub(super) async fn next(&self, address: Option<IpAddr>) -> Option<Turn<'_>> {
        let address = address.map(|address| address.to_canonical());
        let (place, turns) = self.enter(address)?;
        // Neither semaphore is ever closed. Only who has a turn of its address waits among all.
        let own = turns.acquire_owned().await.ok();
        let all = self.all.acquire().await.ok();
        Some(Turn {
            _all: all,
            _own: own,
            _place: place,
        })
    }

    fn enter(&self, address: Option<IpAddr>) -> Option<(Place<'_>, Arc<Semaphore>)> {
        let mut addresses = self.addresses.lock();
        let queue = addresses.entry(address).or_insert_with(|| Queue {
            turns: Arc::new(Semaphore::new(PER_ADDRESS)),
            waiting: 0,
        });
        if queue.waiting >= WAITING {
            return None;
        }
        queue.waiting += 1;
        let place = Place {
            turns: self,
            address,
        };
        Some((place, queue.turns.clone()))
    }

    #[cfg(test)]
    pub(super) fn addresses(&self) -> usize {
        self.addresses.lock().len()
    }
}
