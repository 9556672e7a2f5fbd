//! The resolved input: one plain struct with all that decisions and outputs depend on.
//!
//! It is the `in.yaml` of golden cases, the admin dump and what a bug report attaches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trimtab_crds::Duration;
use trimtab_crds::limiter::{Delivery, DescriptorStatus, LimiterSpec};
use trimtab_kit::identity::XdsEndpoint;
use trimtab_kit::problem::Problem;
use trimtab_mesh::model::{LimitPatch, TargetPort};
use trimtab_mesh::{Protocol, layer7_kinds};

use trimtab_kit::sources::MetricSource;

use crate::config::{AdaptiveConfig, LimiterConfig};
use crate::decide::adaptive::decided::Decided;
use crate::decide::bucket::Bucket;
use crate::owner::Owner;

/// Everything about one limiter at one time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimiterInput {
    /// The object.
    pub owner: Owner,
    /// What it says.
    pub spec: LimiterSpec,
    /// What it points at.
    #[serde(default)]
    pub target: TargetFacts,
    /// Values by `<set>.<metric>`; a metric that is not of one set stands under each.
    #[serde(default)]
    pub metrics: BTreeMap<String, Reading>,
    /// The decisions before this one, by set and index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<DescriptorStatus>,
    /// Paths of the rules whose metrics have given no number for longer than `holdFor`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub overdue: BTreeSet<String>,
    /// With delivery ECDS, the limits in the default configurations of filters, by descriptor; none: those that are decided now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<BTreeMap<String, Bucket>>,
    /// What the law of strategy `adaptive` has decided, by set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub adaptive: BTreeMap<String, Decided>,
    /// The operator's settings.
    #[serde(default)]
    pub settings: Arc<Settings>,
}

/// Pods behind a limiter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetFacts {
    /// Labels for the EnvoyFilter of `_base`.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
    /// By set name: `_base` and the subsets that exist.
    #[serde(default)]
    pub sets: BTreeMap<String, SetFacts>,
    /// Ports of the limiter's Service, sorted; empty: not known, or the pods are not found by a Service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    /// Another limiter, before this one by name, has the same pods: two filters of one name would count a request twice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// Hosts of DestinationRules, as written, that were probably meant for this target, with its host: Istio takes a name
    /// with a dot as it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub misread: BTreeMap<String, String>,
    /// Other limiters of the same pods and ports, with their delivery where they say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub neighbours: BTreeMap<String, Option<Delivery>>,
    /// The limiter that comes first by name and limits the same pods and ports by strategy `adaptive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive_elsewhere: Option<String>,
    /// Outbound virtual hosts of the rules that no proxy has, as far as is known, with why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub no_virtual_host: BTreeMap<String, String>,
    /// EnvoyFilters of others that limit the same pods, or change how they are limited, by namespace and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rivals: Vec<Rival>,
    /// Why the target cannot be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<TargetProblem>,
}

/// An EnvoyFilter that Trimtab has not made, for pods of the limiter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rival {
    /// `namespace/name`.
    pub name: String,
    /// Its priority.
    pub priority: i32,
    /// Whether istiod applies it before or after the limiter's own.
    pub order: Order,
    /// Sets with pods that it is for, and whether it is for all pods of the set.
    pub sets: BTreeMap<String, bool>,
    /// What it does.
    pub patches: Vec<LimitPatch>,
}

/// Which of two EnvoyFilters istiod applies first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The other one.
    Before,
    /// The limiter's.
    After,
    /// It depends on their age, or on the release of Istio.
    Unknown,
}

/// Pods of one set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetFacts {
    /// Labels of the subset, on top of the selector.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Ready pods.
    #[serde(default)]
    pub pods: i64,
    /// How their proxies can be reached; none: nobody has looked, as with endpoints that are no pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Reach>,
}

/// Which Ready pods have a proxy that can hold a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reach {
    /// Pods that have one.
    #[serde(default)]
    pub proxies: i64,
    /// Pods that have none, by why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub without: BTreeMap<Gap, i64>,
    /// By port of the Service: pods that have one, and get the port's traffic without it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub around: BTreeMap<u16, i64>,
    /// Revisions of the proxies that are of another one than the limiter.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub revisions: BTreeSet<String>,
}

/// Why a pod cannot hold a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Gap {
    /// No Envoy runs in it.
    NoSidecar,
    /// It is on the host's network.
    HostNetwork,
    /// The node's proxy carries its traffic.
    Ambient,
    /// A waypoint, which takes no EnvoyFilter by labels.
    Waypoint,
    /// A gateway's limit on a sidecar, or the other way round.
    OtherRole,
    /// Its proxy is of another revision of Istio than the limiter's label says.
    OtherRevision,
}

/// A port of a Service. istiod names inbound virtual hosts by `port`, not by `target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    /// The Service's port.
    pub port: u16,
    /// The workload's port; none when the Service gives the name of a container port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<u16>,
    /// Why no proxy sees requests on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<Opaque>,
}

/// What a port carries in place of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Opaque {
    /// Bytes.
    Tcp,
    /// TLS of the application, or HTTPS.
    Tls,
    /// UDP or SCTP, which Istio does not carry.
    Udp,
    /// TCP of a protocol that MetaRouters route.
    Layer7,
}

/// Second parts of the names of ports that MetaRouters route.
const LAYER7: [&str; 3] = ["dubbo", "metaprotocol", "thrift"];

impl Opaque {
    /// What istiod makes of a protocol; none: HTTP, or found out on the connection.
    pub(crate) fn of(protocol: Option<Protocol>) -> Option<Self> {
        match protocol {
            None => Some(Self::Udp),
            Some(Protocol::Tcp) => Some(Self::Tcp),
            Some(Protocol::Tls) => Some(Self::Tls),
            Some(Protocol::Http | Protocol::Http2 | Protocol::Auto) => None,
        }
    }

    /// In words.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Tls => "TLS of the application",
            Self::Udp => "UDP or SCTP",
            Self::Layer7 => {
                "a protocol of MetaRouters, which have limits of their own (localRateLimit)"
            }
        }
    }
}

impl ServicePort {
    pub(crate) fn of(port: &trimtab_mesh::model::ServicePort) -> Self {
        let mut kinds = layer7_kinds(&port.name, port.app_protocol.as_deref());
        let layer7 = kinds.any(|(kind, _)| LAYER7.contains(&&*kind.to_ascii_lowercase()));
        let opaque = Opaque::of(port.protocol());
        Self {
            port: port.number,
            target: match port.target {
                None => Some(port.number),
                Some(TargetPort::Number(number)) => Some(number),
                Some(TargetPort::Name(_)) => None,
            },
            opaque: match opaque {
                Some(Opaque::Tcp) if layer7 => Some(Opaque::Layer7),
                other => other,
            },
        }
    }
}

/// Why a target cannot be found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum TargetProblem {
    /// There is no Service of the limiter's name.
    ServiceNotFound,
    /// The Service selects nothing.
    ServiceWithoutSelector,
    /// No ServiceEntry has the host.
    ServiceEntryNotFound,
    /// The ServiceEntry selects no workload.
    ServiceEntryWithoutSelector,
    /// A gateway limiter without labels would hit all workloads.
    SelectorMissing,
    /// Another object of the same name and namespace is in force.
    Shadowed {
        /// API version of the other.
        by: String,
    },
}

impl TargetProblem {
    /// As a condition of `owner`.
    pub fn problem(&self, owner: &Owner, host: &str) -> Problem {
        let (ns, name) = (&owner.namespace, &owner.name);
        match self {
            Self::ServiceNotFound => Problem::of_field(
                "metadata.name",
                "ServiceNotFound",
                format!(
                    "there is no Service {ns}/{name}: name the limiter like its Service, or set spec.workloadSelector or spec.host"
                ),
            ),
            Self::ServiceWithoutSelector => Problem::of_field(
                "metadata.name",
                "ServiceWithoutSelector",
                format!(
                    "Service {ns}/{name} has no selector: set spec.workloadSelector to the labels of its pods"
                ),
            ),
            Self::ServiceEntryNotFound => Problem::of_field(
                "spec.host",
                "ServiceEntryNotFound",
                format!(
                    "no ServiceEntry in namespace {ns} has the host \"{host}\": create it, or correct spec.host"
                ),
            ),
            Self::ServiceEntryWithoutSelector => Problem::of_field(
                "spec.host",
                "ServiceEntryWithoutSelector",
                format!(
                    "the ServiceEntry of \"{host}\" has neither a workloadSelector nor a label app: add one, or set spec.workloadSelector"
                ),
            ),
            Self::SelectorMissing => Problem::of_field(
                "spec.workloadSelector",
                "SelectorMissing",
                "a gateway limiter needs the labels of the gateway's pods: set spec.workloadSelector, for example {istio: ingressgateway}",
            ),
            Self::Shadowed { by } => Problem::of_field(
                "metadata.name",
                "Conflict",
                format!(
                    "a SmartLimiter {ns}/{name} of {by} is in force and would write the same objects: delete one of the two"
                ),
            ),
        }
    }
}

/// One metric value with its freshness.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reading {
    /// Fresh or held value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// How old it is.
    #[serde(default)]
    pub state: ReadingState,
    /// Why there is no fresh value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Reading {
    /// A value of this tick.
    pub fn fresh(value: f64) -> Self {
        Self {
            value: Some(value),
            state: ReadingState::Fresh,
            failure: None,
        }
    }
}

/// Freshness of a [`Reading`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReadingState {
    /// Of this tick.
    #[default]
    Fresh,
    /// The last good value, not older than `holdFor`.
    Held,
    /// No value, and none since less than `holdFor`.
    Waiting,
    /// No value for longer than `holdFor`.
    Expired,
}

/// The operator's settings that outputs depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// Delivery of limiters that do not say.
    pub delivery: Delivery,
    /// `holdFor` of limiters that do not say.
    pub hold_for: Duration,
    /// Insert the local rate limit filter. Off when the user inserts it with an EnvoyFilter of their own.
    pub insert_local_rate_limit: bool,
    /// RE2 for `match.proxy.proxyVersion`.
    pub proxy_version: String,
    /// How proxies reach Trimtab's xDS server; without an address ECDS is refused.
    pub xds: XdsEndpoint,
    /// Whether there is a Prometheus for `spec.metrics`.
    pub prometheus: bool,
    /// Names that metric sources provide; an expression that uses another one is refused.
    pub known_metrics: BTreeSet<String>,
    /// Which proxies there are, and whether they can be asked.
    #[serde(skip_serializing_if = "Proxies::is_default")]
    pub proxies: Proxies,
    /// How services are measured for strategy `adaptive`.
    #[serde(skip_serializing_if = "is_default")]
    pub adaptive: AdaptiveConfig,
    /// Time between two samples.
    #[serde(skip_serializing_if = "is_usual_refresh")]
    pub refresh: Duration,
}

fn is_default(config: &AdaptiveConfig) -> bool {
    *config == AdaptiveConfig::default()
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's skip_serializing_if passes a reference
fn is_usual_refresh(refresh: &Duration) -> bool {
    *refresh == LimiterConfig::default().refresh
}

/// Which proxies hold limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proxies {
    /// Those of Istio, in pods.
    #[default]
    Istio,
    /// Those of Istio, and none can be asked: objects come from files.
    Offline,
    /// Plain Envoys, which are in no pod that is known.
    Plain,
}

impl Proxies {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde's skip_serializing_if passes a reference
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            delivery: Delivery::EnvoyFilter,
            hold_for: Duration::from_secs(60),
            insert_local_rate_limit: true,
            proxy_version: String::new(),
            xds: XdsEndpoint::plain("trimtab.istio-system.svc:15010"),
            prometheus: true,
            known_metrics: BTreeSet::new(),
            proxies: Proxies::Istio,
            adaptive: AdaptiveConfig::default(),
            refresh: LimiterConfig::default().refresh,
        }
    }
}

impl Settings {
    /// Settings of a configuration: the one way to them, for all ways to run.
    pub fn new(
        config: &LimiterConfig,
        xds: &XdsEndpoint,
        sources: &[Arc<dyn MetricSource>],
    ) -> Self {
        Self {
            delivery: config.delivery,
            hold_for: config.hold_for,
            insert_local_rate_limit: !config.disable_insert_local_rate_limit,
            proxy_version: config.proxy_version.clone(),
            xds: xds.clone(),
            prometheus: sources.iter().any(|s| s.name() == "prometheus"),
            known_metrics: sources.iter().flat_map(|s| s.provides()).collect(),
            proxies: Proxies::Istio,
            adaptive: config.adaptive.clone(),
            refresh: config.refresh,
        }
    }
}

impl LimiterInput {
    /// Delivery in force.
    pub fn delivery(&self) -> Delivery {
        self.spec.delivery.unwrap_or(self.settings.delivery)
    }

    /// `holdFor` in force. One that is not a duration is refused, and counts as left out.
    pub fn hold_for(&self) -> Duration {
        let own = self.spec.hold_for.as_deref();
        own.and_then(|text| text.parse().ok())
            .unwrap_or(self.settings.hold_for)
    }
}
