//! The engine: keeps what was made of each host, turns events into outputs, and hands them to the xDS cache and the
//! API server. Synchronous and without I/O; the kit drives it.

mod contract;
mod desired;
mod facts;
mod host;
mod object_view;
mod told;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use trimtab_kit::answers::{Answers, Changed};
use trimtab_kit::clock::Clock;
use trimtab_kit::engine::WriteError;
use trimtab_kit::events::Events;
use trimtab_kit::host::Context;
use trimtab_kit::queue::WorkQueue;
use trimtab_xds::{ResourceCache, Unresolved, Update};

use crate::index::{Changes, Index, Name};
use crate::object::{ObjectKey, ServiceKey};
use crate::secrets::SecretReader;
use crate::translate::MODULE;
use crate::vip::Ranges;
pub use contract::WorkItem;
pub use desired::{Desired, Held};
use host::HostState;
pub use object_view::{ObjectView, UsedPort};
pub use view::{HostView, PortView, ResourceView, RouterSummary, RouterView, Tally};

/// Hosts resolved under one hold of the lock.
const BATCH: usize = 64;

/// Type URL and name of an xDS resource.
pub(crate) type ResourceKey = (String, String);

/// The engine.
pub struct Engine {
    /// State from watches.
    pub index: Arc<Index>,
    inner: Mutex<Inner>,
    clock: Arc<dyn Clock>,
    xds: ResourceCache,
    answers: Arc<Answers>,
    queue: WorkQueue<WorkItem>,
    /// Whether addresses are given to ServiceEntries that have none, and which.
    vips: Ranges,
    secrets: Option<SecretReader>,
    /// How long events are gathered.
    gather: Duration,
    /// What is refused of objects whose status others write.
    pub(crate) events: Arc<Events>,
    /// Plain proxies listen where they are told, and need no addresses of services.
    plain: bool,
    /// Objects come from files: there are no proxies.
    offline: bool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Inner {
    hosts: BTreeMap<String, HostState>,
    /// Hosts of an owner of generated objects.
    owners: HashMap<ServiceKey, BTreeSet<String>>,
    /// Hosts that desire a generated object, by kind and name: what one host drops, another may desire.
    desired: HashMap<(&'static str, Name), BTreeSet<String>>,
    /// Hosts in whose outputs a user's object has a part.
    users: HashMap<ObjectKey, BTreeSet<String>>,
    /// Hosts by resource.
    resources: HashMap<ResourceKey, String>,
    /// Hosts with a mistake of which no good version is known, since the first pass, with the names of their routes: what an
    /// earlier process made of them is not known. Absent before that pass.
    unresolved: Option<BTreeMap<String, Vec<String>>>,
    /// Failed writes by owner.
    errors: HashMap<ServiceKey, WriteError>,
}

/// What a batch leads to.
#[derive(Default)]
struct Batch {
    updates: BTreeMap<String, Update>,
    work: BTreeSet<WorkItem>,
}

impl Engine {
    /// An engine without hosts.
    pub fn new(
        index: Arc<Index>,
        context: &Context,
        gather: Duration,
        vips: Ranges,
        secrets: Option<SecretReader>,
    ) -> Arc<Self> {
        Arc::new(Self {
            index,
            inner: Mutex::default(),
            clock: context.clock.clone(),
            xds: context.xds.clone(),
            answers: context.answers.clone(),
            plain: context.plain,
            offline: context.offline,
            gather,
            vips,
            secrets,
            events: Arc::default(),
            queue: WorkQueue::default(),
        })
    }

    /// Takes over what events have changed. Returns whether addresses in the mesh may have changed.
    fn absorb_events(&self) -> bool {
        let Changes {
            hosts,
            objects,
            addresses,
        } = self.index.drain_changes();
        for batch in hosts.chunks(BATCH) {
            let mut out = Batch::default();
            let mut inner = self.inner.lock();
            for host in batch {
                let last_good = inner.hosts.get(host).and_then(|h| h.last_good.clone());
                let resolved = self.index.resolve(host, last_good.as_ref());
                inner.take(host, resolved, self.plain, &mut out);
                // Plain proxies have no istiod: those objects have a status of ours.
                let state = inner.hosts.get(host).filter(|_| !self.plain);
                let told = state.map(|state| told::events(&self.index, state));
                self.events.set(host, told.unwrap_or_default());
            }
            // Under the lock: what was made later must not be overtaken by this.
            let changed = self.xds.update_all(out.updates.into_values().collect());
            drop(inner);
            tracing::debug!(
                hosts = batch.len(),
                resources = changed,
                "hosts were resolved"
            );
            for work in out.work {
                self.queue.push(work);
            }
        }
        for object in objects {
            self.queue.push(WorkItem::Status(object));
        }
        let unresolved = self.inner.lock().unresolved();
        self.xds.set_unresolved(MODULE, &unresolved);
        addresses
    }

    /// Has the statuses written that answers of proxies have changed.
    fn take_answers(&self, changed: &Changed) {
        let inner = self.inner.lock();
        let hosts: BTreeSet<&String> = changed
            .resources
            .iter()
            .filter_map(|k| inner.resources.get(k))
            .collect();
        let states = hosts.iter().filter_map(|h| inner.hosts.get(*h));
        let mut objects: BTreeSet<ObjectKey> =
            states.flat_map(|h| h.objects.iter().cloned()).collect();
        drop(inner);
        objects.extend(changed.objects.iter().filter_map(|o| o.parse().ok()));
        for object in objects {
            self.queue.push(WorkItem::Status(object));
        }
    }
}

impl Inner {
    /// Routes that proxies keep if they have them: nobody knows what they should be.
    fn unresolved(&mut self) -> Unresolved {
        let hosts = &self.hosts;
        let unresolved = self.unresolved.get_or_insert_with(|| {
            let all = hosts
                .iter()
                .map(|(host, s)| (host.clone(), s.unknown_routes()));
            all.filter(|(_, names)| !names.is_empty()).collect()
        });
        unresolved.retain(|host, _| hosts.get(host).is_some_and(HostState::retained));
        if unresolved.is_empty() {
            Unresolved::Nothing
        } else {
            Unresolved::Names(unresolved.values().flatten().cloned().collect())
        }
    }

    /// Puts what was resolved in the place of what a host had.
    fn take(
        &mut self,
        host: &str,
        resolved: crate::index::ResolvedHost,
        plain: bool,
        out: &mut Batch,
    ) {
        let old = self.hosts.remove(host);
        let new = HostState::new(resolved, old.as_ref(), plain);
        self.unlink(host, old.as_ref());
        let before = old.unwrap_or_default();
        diff(&before, &new, out);
        for key in before.resources.keys() {
            if !new.resources.contains_key(key) {
                self.resources.remove(key);
            }
        }
        if before.owner != new.owner || !before.same_objects(&new) {
            let owners = before.owner.iter().chain(&new.owner);
            out.work.extend(owners.cloned().map(WorkItem::Objects));
        }
        let objects = before.objects.union(&new.objects);
        out.work.extend(objects.cloned().map(WorkItem::Status));
        if !new.is_empty() {
            self.link(host, &new);
            self.hosts.insert(host.to_owned(), new);
        }
    }

    fn unlink(&mut self, host: &str, old: Option<&HostState>) {
        let Some(old) = old else { return };
        if let Some(owner) = &old.owner {
            drop_from(&mut self.owners, owner, host);
        }
        for key in &old.objects {
            drop_from(&mut self.users, key, host);
        }
        for key in old.desired() {
            drop_from(&mut self.desired, &key, host);
        }
    }

    fn link(&mut self, host: &str, new: &HostState) {
        let owned = || host.to_owned();
        if let Some(owner) = &new.owner {
            self.owners
                .entry(owner.clone())
                .or_default()
                .insert(owned());
        }
        for key in &new.objects {
            self.users.entry(key.clone()).or_default().insert(owned());
        }
        for key in new.desired() {
            self.desired.entry(key).or_default().insert(owned());
        }
        for key in new.resources.keys() {
            self.resources.insert(key.clone(), owned());
        }
    }
}

fn drop_from<K: std::hash::Hash + Eq>(map: &mut HashMap<K, BTreeSet<String>>, key: &K, host: &str) {
    if let Some(hosts) = map.get_mut(key) {
        hosts.remove(host);
        if hosts.is_empty() {
            map.remove(key);
        }
    }
}

/// What changes in the xDS cache.
fn diff(old: &HostState, new: &HostState, out: &mut Batch) {
    let update =
        |updates: &mut BTreeMap<String, Update>, type_url: &str, f: &dyn Fn(&mut Update)| {
            let update = updates
                .entry(type_url.to_owned())
                .or_insert_with(|| Update {
                    type_url: type_url.to_owned(),
                    ..Update::default()
                });
            f(update);
        };
    for (key, resource) in &new.resources {
        if old.resources.get(key) != Some(resource) {
            update(&mut out.updates, &key.0, &|u| u.set.push(resource.to_xds()));
        }
    }
    for key in old.resources.keys() {
        if !new.resources.contains_key(key) {
            update(&mut out.updates, &key.0, &|u| u.remove.push(key.1.clone()));
        }
    }
}
