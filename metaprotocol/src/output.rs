//! What a translation gives.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_kit::problem::Problem;
use trimtab_xds::{Audience, Resource, Scope, Scoped, content_version};

use crate::features::{Feature, Target};
use crate::input::{Delivery, Router};

/// Outputs of one service port. Sorted; the same input gives the same bytes.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// Sorted by namespace and name.
    pub envoy_filters: Vec<EnvoyFilter>,
    /// `networking.istio.io/v1` VirtualServices as JSON, sorted by namespace and name.
    pub virtual_services: Vec<Value>,
    /// For the xDS server, sorted by type and name.
    pub resources: Vec<XdsResource>,
    /// What proxies cannot do, and what is wrong with the user's objects.
    pub refusals: Vec<Refusal>,
    /// What each family of proxies runs.
    pub programs: Vec<Program>,
    /// Nothing may be changed at the proxies: what is in force stays, although it is not among the outputs. Set when a
    /// mistake was found and nothing good is known to put in its place.
    pub retained: bool,
    /// What the caller keeps as `last_good` of the next input.
    pub in_force: Option<Router>,
}

/// What one family of proxies runs, for the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    /// The filter.
    pub target: Target,
    /// How routes reach it.
    pub delivery: Delivery,
}

/// One resource of the xDS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdsResource {
    /// Type URL.
    pub type_url: String,
    /// Name that proxies subscribe to.
    pub name: String,
    /// Canonical JSON of the content: its hash is the version, equal on all replicas.
    pub canonical: String,
    /// The encoded message.
    pub body: Vec<u8>,
    /// The user's object, `Kind namespace/name`, or the host when there is none.
    pub origin: String,
    /// Namespaces whose proxies may read it; `None`: all.
    pub readers: Option<BTreeSet<String>>,
}

impl XdsResource {
    /// Version of the content.
    pub fn version(&self) -> String {
        content_version(self.canonical.as_bytes())
    }

    /// As the server wants it.
    pub fn to_xds(&self) -> Scoped {
        let scope = match &self.readers {
            None => Scope::All,
            Some(namespaces) => Scope::only(namespaces.iter().cloned().map(Audience::Namespace)),
        };
        let resource = Resource {
            name: self.name.clone(),
            version: self.version(),
            body: self.body.clone().into(),
            origin: self.origin.clone(),
        };
        Scoped { resource, scope }
    }
}

/// Something that was asked for and is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Object, field, reason, what to change.
    #[serde(flatten)]
    pub problem: Problem,
    /// The filter that cannot do it; absent: it is wrong everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// The feature; absent: a mistake, not a lack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature: Option<Feature>,
    /// Whether the routes as a whole are not applied because of it, so that the last good ones stay.
    pub blocks_routes: bool,
}

impl Refusal {
    /// A mistake in an object.
    pub fn mistake(problem: Problem, blocks_routes: bool) -> Self {
        Self {
            problem,
            target: None,
            feature: None,
            blocks_routes,
        }
    }
}

impl Translation {
    /// Adds the outputs of another data plane of the same port.
    pub fn extend(&mut self, other: Self) {
        self.envoy_filters.extend(other.envoy_filters);
        self.virtual_services.extend(other.virtual_services);
        self.resources.extend(other.resources);
        for refusal in other.refusals {
            if !self.refusals.contains(&refusal) {
                self.refusals.push(refusal);
            }
        }
        self.programs.extend(other.programs);
        self.retained |= other.retained;
    }

    /// Puts all lists in their order.
    pub fn sort(&mut self) {
        let key = |f: &EnvoyFilter| (f.metadata.namespace.clone(), f.metadata.name.clone());
        self.envoy_filters.sort_by_key(key);
        let text = |v: &Value, field: &str| v["metadata"][field].as_str().map(str::to_owned);
        self.virtual_services
            .sort_by_key(|v| (text(v, "namespace"), text(v, "name")));
        self.resources
            .sort_by(|a, b| (&a.type_url, &a.name).cmp(&(&b.type_url, &b.name)));
        self.programs.sort_unstable();
    }
}
