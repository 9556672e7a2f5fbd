//! One API server with both releases of istiod, in which meshes come and go.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{ApiResource, DeleteParams, DynamicObject, PostParams};
use kube::{Api, Client as KubeClient};
use serde_json::{Value, json};
use trimtab_cluster::{Cluster, Istiod, Minor, Namespace};
use trimtab_lazyload::predict::Release;

use crate::ads::Judge;
use crate::compare::{Batch, ROLE};
use crate::meshes::{SmallMesh, namespaces};
use crate::registry::Registry;

/// Requests at a time.
pub const WIDTH: usize = 24;

/// What came of meshes.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Predictions that istiod does not keep.
    pub differences: Vec<String>,
    /// Calls that a scope changes.
    pub changed: Vec<String>,
    /// Calls that were compared.
    pub calls: usize,
    /// Calls whose listener another host has too, so that one of both gets the connections.
    pub shared: usize,
    /// Differences that are another decision of istiod's, of what it decides by the order of a map.
    pub otherwise: usize,
    /// Kinds of the objects.
    pub kinds: BTreeSet<String>,
}

impl Outcome {
    pub fn summary(&self) -> String {
        format!(
            "{} clients differ (besides {} differences that istiod decides by chance), {} calls of {} are changed by their \
             scopes (and {} share their connections with another host)",
            self.differences.len(),
            self.otherwise,
            self.changed.len(),
            self.calls,
            self.shared
        )
    }

    pub fn add(&mut self, other: Self, first: usize) {
        let from = |text: String| format!("meshes from {first}: {text}");
        self.differences
            .extend(other.differences.into_iter().map(from));
        self.changed.extend(other.changed.into_iter().map(from));
        self.calls += other.calls;
        self.shared += other.shared;
        self.otherwise += other.otherwise;
        self.kinds.extend(other.kinds);
    }
}

/// The API server and the judges.
pub struct World {
    /// Where all differences are written.
    report: PathBuf,
    client: KubeClient,
    /// The Service that an API server makes for itself.
    own: Value,
    pub judges: Vec<(Release, Judge)>,
    _istiods: Vec<Istiod>,
}

/// Gateway API CRDs count for istiod when they say of which release they are.
const BUNDLE: &str = "gateway.networking.k8s.io/bundle-version";

impl World {
    pub async fn start(meshes: usize) -> Self {
        let cluster = Cluster::shared().await.unwrap();
        let crds: Vec<Value> = trimtab_crds::manifests::gateway_api_crds()
            .into_iter()
            .map(|crd| {
                let mut crd = serde_json::to_value(crd).unwrap();
                // The API server wants a word of those who may use the protected group.
                crd["metadata"]["annotations"] = json!({BUNDLE: "v1.5.0", "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/2466"});
                crd
            })
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": crds});
        let apply = ["apply", "--server-side", "-f", "-"];
        cluster.kubectl(&apply, &list.to_string()).await.unwrap();
        let wait = [
            "wait",
            "--for=condition=established",
            "--timeout=60s",
            "crd",
            "--all",
        ];
        cluster.kubectl(&wait, "").await.unwrap();
        for name in (0..meshes).flat_map(namespaces) {
            // Another run of this process made it.
            let _ = Namespace::named(cluster, &name).await;
        }
        let mut istiods = Vec::new();
        let mut judges = Vec::new();
        for (minor, release) in [
            (Minor::Newest, Release::V1_31),
            (Minor::Previous, Release::V1_30),
        ] {
            let istiod = Istiod::start_minor(cluster, minor).await.unwrap();
            judges.push((release, Judge::new(&istiod).await));
            istiods.push(istiod);
        }
        let client = cluster.client().await.unwrap();
        let services: Api<k8s_openapi::api::core::v1::Service> =
            Api::namespaced(client.clone(), "default");
        let mut own = serde_json::to_value(services.get("kubernetes").await.unwrap()).unwrap();
        own["kind"] = json!("Service");
        Self {
            own,
            report: cluster.dir().join("differences.txt"),
            client,
            judges,
            _istiods: istiods,
        }
    }

    /// Writes down what differs; where.
    pub fn report(&self, outcome: &Outcome) -> String {
        let all = [
            outcome.differences.join("\n\n"),
            outcome.changed.join("\n\n"),
        ];
        std::fs::write(&self.report, all.join("\n\n")).unwrap();
        self.report.display().to_string()
    }

    /// Applies meshes, compares, and takes them away again. `root`: a Sidecar of the root namespace.
    pub async fn judge(&self, meshes: &[SmallMesh], root: Option<Value>) -> Outcome {
        let of = |part: fn(&SmallMesh) -> Vec<Value>| meshes.iter().flat_map(part).collect();
        let first = |mesh: &SmallMesh| {
            let defaults = mesh.defaults.iter().take(1);
            mesh.objects.iter().chain(defaults).cloned().collect()
        };
        let second = |mesh: &SmallMesh| {
            let defaults = mesh.defaults.iter().skip(1);
            mesh.later.iter().chain(defaults).cloned().collect()
        };
        let mut made = self.create(root.into_iter().collect()).await;
        made.extend(self.create(of(first)).await);
        // The API server's clock has seconds.
        let now = Timestamp::now().as_second();
        while Timestamp::now().as_second() == now {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        made.extend(self.create(of(second)).await);
        let mut out = Outcome::default();
        let kinds = made
            .iter()
            .filter_map(|o| Some(o["kind"].as_str()?.to_owned()));
        out.kinds.extend(kinds);
        let registry = Registry::new(std::iter::once(&self.own).chain(&made));
        let batch = Batch::new(meshes, &registry);
        let sidecars = meshes.iter().flat_map(|mesh| {
            let spec = |(role, mut spec): (&str, Value)| {
                spec["workloadSelector"] = json!({"labels": {ROLE: role}});
                json!({"apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
                    "metadata": {"name": role, "namespace": mesh.client}, "spec": spec})
            };
            batch.sidecars(mesh).into_iter().map(spec)
        });
        made.extend(self.create(sidecars.collect()).await);
        for (release, judge) in &self.judges {
            batch.compare(*release, judge, &mut out).await;
        }
        self.delete(made.into_iter().rev().collect()).await;
        out
    }

    async fn create(&self, objects: Vec<Value>) -> Vec<Value> {
        let each = objects.into_iter().map(|object| async move {
            let api = self.api(&object);
            let sent: DynamicObject = serde_json::from_value(object.clone()).unwrap();
            let made = api.create(&PostParams::default(), &sent).await;
            let made = made.unwrap_or_else(|error| panic!("{object}: {error}"));
            let mut made = serde_json::to_value(made).unwrap();
            for field in ["apiVersion", "kind"] {
                made[field] = object[field].clone();
            }
            made
        });
        futures::stream::iter(each).buffered(WIDTH).collect().await
    }

    async fn delete(&self, objects: Vec<Value>) {
        let each = objects.into_iter().map(|object| async move {
            let name = object["metadata"]["name"].as_str().unwrap();
            self.api(&object)
                .delete(name, &DeleteParams::default())
                .await
                .unwrap();
        });
        futures::stream::iter(each)
            .buffered(WIDTH)
            .collect::<Vec<()>>()
            .await;
    }

    fn api(&self, object: &Value) -> Api<DynamicObject> {
        let api_version = object["apiVersion"].as_str().unwrap();
        let kind = object["kind"].as_str().unwrap();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let plural = match kind {
            "ServiceEntry" => "serviceentries".to_owned(),
            kind => format!("{}s", kind.to_lowercase()),
        };
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            plural,
        };
        let namespace = object["metadata"]["namespace"].as_str().unwrap();
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }
}
