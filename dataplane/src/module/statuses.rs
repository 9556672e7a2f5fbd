//! The condition of objects that have no module of ours: only those that proxies refuse, and those that they did.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;
use trimtab_crds::istio::{DestinationRule, ServiceEntry, VirtualService};
use trimtab_kit::answers::Words;
use trimtab_kit::condition::{Draft, stamp};
use trimtab_kit::queue::Key;
use trimtab_kit::write::StatusPatch;

/// An object of Kubernetes or Istio. Shown as `Kind namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Subject {
    kind: Kind,
    namespace: String,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    DestinationRule,
    Service,
    ServiceEntry,
    VirtualService,
}

impl Key for Subject {}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl Subject {
    /// The object with this title, if it is of these kinds.
    pub(super) fn of(title: &str) -> Option<Self> {
        let (kind, name) = title.split_once(' ')?;
        let (namespace, name) = name.split_once('/')?;
        let kind = match kind {
            "DestinationRule" => Kind::DestinationRule,
            "Service" => Kind::Service,
            "ServiceEntry" => Kind::ServiceEntry,
            "VirtualService" => Kind::VirtualService,
            _ => return None,
        };
        Some(Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// A status of these conditions.
    pub(super) fn status(&self, conditions: &[Condition]) -> StatusPatch {
        let (namespace, name) = (self.namespace.as_str(), self.name.as_str());
        let status = json!({"conditions": conditions});
        match self.kind {
            Kind::DestinationRule => StatusPatch::of::<DestinationRule>(namespace, name, &status),
            Kind::Service => StatusPatch::of::<Service>(namespace, name, &status),
            Kind::ServiceEntry => StatusPatch::of::<ServiceEntry>(namespace, name, &status),
            Kind::VirtualService => StatusPatch::of::<VirtualService>(namespace, name, &status),
        }
    }
}

/// Conditions of an object; `None`: those of `before` hold, or there were none and nothing is wrong.
pub(super) fn conditions(
    blame: Option<&Words>,
    before: Option<&[Condition]>,
    now: Timestamp,
) -> Option<Vec<Condition>> {
    let draft = match (blame, before) {
        (None, None) => return None,
        (None, Some(_)) => Draft::new("Programmed", true, "Programmed", "proxies take it"),
        (Some(Words { node, message }), _) => Draft::new(
            "Programmed",
            false,
            "Rejected",
            format!(
                "proxies refuse what is made of it, and are served without it or with what they took before: correct it; {node} says: {message}"
            ),
        ),
    };
    let before = before.unwrap_or_default();
    let mut now = stamp([draft], 0, before, now);
    for condition in &mut now {
        // Which generation proxies refuse is not known here.
        condition.observed_generation = None;
    }
    (now != before).then_some(now)
}
