//! What is known of a cluster: gathered by effects, judged without any. Lists are sorted.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::health::{Health, Query};
use crate::version::Version;

/// What was asked for, or why it is not known.
pub type Asked<T> = Result<T, String>;

/// All that is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Facts {
    /// This program.
    pub client: Version,
    /// The API server.
    pub kubernetes: Kubernetes,
    /// Control planes of Istio.
    pub istiods: Asked<Vec<Istiod>>,
    /// Our CRDs, as this program has them, and what the cluster has.
    pub crds: Asked<Vec<Crd>>,
    /// Kinds of Istio's that the modules write, as `plural.group`, and whether the cluster serves them.
    pub written_kinds: Asked<BTreeMap<String, bool>>,
    /// Rights.
    pub rights: Asked<Rights>,
    /// Metric sources as they answer from here; absent: the operator was asked.
    #[serde(default)]
    pub metrics: Option<Asked<Vec<Query>>>,
    /// The metrics API of Kubernetes, where the configuration asks it.
    #[serde(default)]
    pub metrics_api: Option<Asked<()>>,
    /// The operator; absent: it is not installed.
    #[serde(default)]
    pub operator: Option<Operator>,
    /// Objects of our kinds, by `plural.group`.
    pub objects: BTreeMap<String, Asked<Objects>>,
    /// Namespaces with objects of ours.
    pub namespaces: Asked<Vec<Namespace>>,
    /// Sidecars and gateways, by namespace, revision and release.
    pub proxies: Asked<Vec<Proxies>>,
    /// Releases that objects need.
    pub needs: Vec<Need>,
    /// What products before Trimtab have left.
    pub leftovers: Asked<Leftovers>,
}

/// The API server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubernetes {
    /// `gitVersion`.
    pub version: String,
    /// How many seconds its clock is ahead of the one here.
    #[serde(default)]
    pub clock_ahead: Option<i64>,
}

/// A control plane of Istio.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Istiod {
    /// Deployment, `NAMESPACE/NAME`.
    pub place: String,
    /// `istio.io/rev`.
    pub revision: String,
    /// Of its image; absent: the image has no version in its tag.
    #[serde(default)]
    pub version: Option<String>,
}

/// One of our CRDs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Crd {
    /// `plural.group`.
    pub name: String,
    /// Versions that this program reads.
    pub wanted: BTreeSet<String>,
    /// Absent: it is not installed.
    #[serde(default)]
    pub found: Option<FoundCrd>,
}

/// What the cluster has of a CRD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FoundCrd {
    /// Versions that are served.
    pub served: BTreeSet<String>,
    /// Fields, values and rules of this program that its schema does not have.
    #[serde(default)]
    pub lacks: Vec<String>,
}

/// Rights that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rights {
    /// Whose: the operator's ServiceAccount, or the user who installs.
    pub subject: String,
    /// It is the operator's account; else the rights are those that an installation grants, or needs.
    pub of_operator: bool,
    /// How many were asked for.
    pub asked: usize,
    /// Those that are missing.
    pub missing: Vec<Missing>,
}

/// A right that is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Missing {
    /// `resource.group`.
    pub resource: String,
    /// The only object that it is about.
    #[serde(default)]
    pub name: String,
    /// Namespaces where it is missing; empty: everywhere.
    #[serde(default)]
    pub namespaces: BTreeSet<String>,
    /// Verbs.
    pub verbs: BTreeSet<String>,
}

/// The operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operator {
    /// Deployment, `NAMESPACE/NAME`.
    pub place: String,
    /// Replicas that are wanted.
    pub wanted: i32,
    /// Replicas that are ready.
    pub ready: i32,
    /// Its pods.
    pub pods: Vec<Replica>,
    /// Why they are not known; empty: they are.
    #[serde(default)]
    pub pods_unread: String,
    /// What it says.
    pub health: Asked<Health>,
    /// How many seconds its clock is ahead of the API server's.
    #[serde(default)]
    pub clock_ahead: Option<i64>,
    /// The Lease; absent: leaders are not elected.
    #[serde(default)]
    pub lease: Option<Asked<Lease>>,
    /// Services of its chart.
    pub services: Asked<Vec<Service>>,
    /// `xds.advertise`; empty: none.
    #[serde(default)]
    pub advertised: String,
}

/// A pod of the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Replica {
    /// Name.
    pub name: String,
    /// Image.
    pub image: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Why its container waits, e.g. `ImagePullBackOff`.
    #[serde(default)]
    pub waits: String,
}

/// The Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lease {
    /// `NAMESPACE/NAME`.
    pub place: String,
    /// Who holds it; empty: nobody, or there is none.
    #[serde(default)]
    pub holder: String,
    /// For how many seconds it was watched.
    pub watched: u64,
    /// Whether it changed in this time.
    pub renewed: bool,
}

/// A Service of the chart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// `NAMESPACE/NAME`.
    pub place: String,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Endpoints that are ready.
    pub ready: usize,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Number.
    pub number: u16,
    /// `appProtocol`.
    #[serde(default)]
    pub app_protocol: String,
}

/// Objects of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Objects {
    /// Kind.
    pub kind: String,
    /// How many.
    pub total: usize,
    /// Those that are not as they should be.
    #[serde(default)]
    pub troubled: Vec<Troubled>,
}

/// An object that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Troubled {
    /// How bad, 0 is worst: nothing works, not known, nobody has looked.
    pub rank: u8,
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// Type of the condition; empty: it has none.
    #[serde(default)]
    pub condition: String,
    /// Its reason.
    #[serde(default)]
    pub reason: String,
    /// Its message.
    #[serde(default)]
    pub message: String,
}

/// A namespace with objects of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Namespace {
    /// Name.
    pub name: String,
    /// How many objects of ours.
    pub objects: usize,
    /// Whether its labels ask for sidecars.
    pub injected: bool,
    /// Whether it is in ambient mode.
    #[serde(default)]
    pub ambient: bool,
    /// Pods that run.
    pub pods: usize,
}

/// Proxies of the same kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proxies {
    /// Namespace.
    pub namespace: String,
    /// `istio.io/rev` of the pods; empty: they do not say.
    #[serde(default)]
    pub revision: String,
    /// Of the image; empty: its tag has none.
    #[serde(default)]
    pub version: String,
    /// How many.
    pub pods: usize,
}

/// A release that an object needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Need {
    /// `Kind NAMESPACE/NAME`.
    pub object: String,
    /// Its namespace.
    pub namespace: String,
    /// Path of the field.
    pub field: String,
    /// The proxies of the namespace need it; else istiod.
    pub of_proxies: bool,
    /// The first release that will do, e.g. `1.31`.
    pub since: String,
    /// What for.
    pub what: String,
    /// What to do without it.
    pub instead: String,
}

/// What others have left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Leftovers {
    /// Slime's own objects, `SlimeBoot NAMESPACE/NAME`.
    #[serde(default)]
    pub slime_boots: Vec<String>,
    /// Deployments of controllers that write what Trimtab writes.
    #[serde(default)]
    pub rivals: Vec<String>,
    /// Webhooks that look at our objects, or at those that Trimtab writes.
    #[serde(default)]
    pub webhooks: Vec<Webhook>,
}

/// A webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Webhook {
    /// Kind and name of the configuration.
    pub configuration: String,
    /// Its name there.
    pub name: String,
    /// Resources that it looks at, as `plural.group`.
    pub resources: BTreeSet<String>,
    /// Whether a webhook that does not answer refuses the object.
    pub fails_closed: bool,
    /// Service, `NAMESPACE/NAME`; empty: a URL.
    #[serde(default)]
    pub service: String,
    /// Whether the Service has an endpoint that is ready.
    #[serde(default)]
    pub answers: bool,
}
