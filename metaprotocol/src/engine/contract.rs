//! What the driver asks of the engine, and what it and the proxies report back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use trimtab_crds::istio::ServiceEntry;
use trimtab_kit::answers::Changed;
use trimtab_kit::engine::{Engine as Contract, WriteError};
use trimtab_kit::queue::{Key, WorkQueue};
use trimtab_kit::write::{StatusPatch, Writes};

use super::{Desired, Engine};
use crate::index::Name;
use crate::object::{Kind, ObjectKey, ServiceKey};
use crate::status::{object_status, router_status};
use crate::vip::{Assignment, Ranges, allocate};

/// Something to write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkItem {
    /// The generated objects of a Service or ServiceEntry.
    Objects(ServiceKey),
    /// The status of a user's object.
    Status(ObjectKey),
    /// Addresses of ServiceEntries that have none.
    Addresses,
}

impl Key for WorkItem {}

impl std::fmt::Display for WorkItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Objects(service) => write!(f, "objects of {service}"),
            Self::Status(object) => write!(f, "status of {object}"),
            Self::Addresses => f.write_str("addresses of ServiceEntries"),
        }
    }
}

impl Contract for Engine {
    type Key = WorkItem;

    fn queue(&self) -> &WorkQueue<WorkItem> {
        &self.queue
    }

    async fn changed(&self) {
        self.index.changed().await;
    }

    fn gather(&self) -> Duration {
        self.gather
    }

    async fn prepare(&self) {
        if let Some(secrets) = &self.secrets {
            secrets.read(&self.index).await;
        }
    }

    fn absorb(&self) {
        if self.absorb_events() && self.vips != Ranges::default() {
            self.queue.push(WorkItem::Addresses);
        }
    }

    fn writes(self: &Arc<Self>, key: &WorkItem) -> Writes {
        match key {
            WorkItem::Objects(owner) => match self.desired(owner) {
                Some(desired) => self.objects(owner, desired),
                None => Writes::none(),
            },
            WorkItem::Status(_) => Writes::none(),
            WorkItem::Addresses => self.addresses(),
        }
    }

    /// A failure shows in the status of those who have a part in the objects.
    fn written(&self, key: &WorkItem, error: Option<WriteError>) {
        let WorkItem::Objects(owner) = key else {
            return;
        };
        let mut inner = self.inner.lock();
        let before = match &error {
            Some(error) => inner.errors.insert(owner.clone(), error.clone()),
            None => inner.errors.remove(owner),
        };
        if before == error {
            return;
        }
        let hosts = inner.owners.get(owner).into_iter().flatten();
        let states = hosts.filter_map(|h| inner.hosts.get(h));
        let objects: Vec<ObjectKey> = states.flat_map(|s| s.objects.iter().cloned()).collect();
        drop(inner);
        for object in objects {
            self.queue.push(WorkItem::Status(object));
        }
    }

    fn status(&self, key: &WorkItem) -> Option<StatusPatch> {
        let WorkItem::Status(object) = key else {
            return None;
        };
        Some(StatusPatch {
            resource: object.kind.resource(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            status: self.status_of(object)?,
            whole: &[],
        })
    }

    fn answers_changed(&self, changed: &Changed) {
        self.take_answers(changed);
    }
}

impl Engine {
    fn objects(self: &Arc<Self>, owner: &ServiceKey, desired: Desired) -> Writes {
        let Desired {
            filters,
            virtual_services,
            held,
        } = desired;
        let held = Arc::new(held);
        let keep = |kind: &'static str| {
            let (engine, held) = (self.clone(), held.clone());
            move |name: &Name| held.holds(&name.1) || engine.is_desired(kind, name)
        };
        let key = owner.to_owner();
        Writes::none()
            .objects_but(key.clone(), filters, keep("EnvoyFilter"))
            .objects_but(key, virtual_services, keep("VirtualService"))
    }

    /// The version of an entry is a condition: one that was changed meanwhile is looked at again first.
    fn addresses(&self) -> Writes {
        let (entries, taken) = self.index.addresses();
        let allocation = allocate(&self.vips, &entries, &taken);
        for problem in &allocation.problems {
            tracing::warn!(%problem, "a ServiceEntry gets no address");
        }
        let mut writes = Writes::none();
        for assignment in &allocation.assignments {
            let Assignment {
                namespace,
                name,
                addresses,
            } = assignment;
            let version = self.index.entry_version(namespace, name);
            let fields = json!({
                "metadata": {"resourceVersion": version},
                "spec": {"addresses": addresses},
            });
            writes = writes.merge::<ServiceEntry>(namespace, name, fields);
        }
        writes
    }

    /// The status of an object, when it is there and its status says something else.
    pub(super) fn status_of(&self, key: &ObjectKey) -> Option<Value> {
        let seen = self.index.seen(key)?;
        let facts = self.facts(key, &seen);
        let conditions = seen.status.get("conditions").cloned();
        let before = conditions
            .and_then(|c| serde_json::from_value::<Vec<_>>(c).ok())
            .unwrap_or_default();
        let now = self.clock.now();
        let status = if key.kind == Kind::MetaRouter {
            serde_json::to_value(router_status(&facts, &before, now))
        } else {
            serde_json::to_value(object_status(&facts, &before, now))
        };
        status.ok().filter(|s| *s != seen.status)
    }
}
