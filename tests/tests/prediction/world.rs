//! One API server with both releases of istiod, in which meshes come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{ApiResource, DeleteParams, DynamicObject, PostParams};
use kube::{Api, Client as KubeClient};
use serde_json::{Value, json};
use trimtab_cluster::{Cluster, Istiod, Minor, Namespace};
use trimtab_crds::fence::{ServiceFenceSpec, Strategy};
use trimtab_lazyload::config::LazyloadConfig;
use trimtab_lazyload::mesh::Index;
use trimtab_lazyload::object::FenceKey;
use trimtab_lazyload::predict::{Client, Egress, Given, Release, predict};
use trimtab_lazyload::scope::{ScopeInput, Services, Settings, compute};
use trimtab_mesh::Mesh;
use trimtab_mesh::Protocol::{Auto, Tcp, Tls};
use trimtab_mesh::model::{
    DestinationRule, GrpcRoute, HttpRoute, Labels, Service, ServiceEntry, VirtualService,
};

use crate::ads::{Judge, Sidecar, differences};
use crate::calls::{Answer, Call, answer};
use crate::meshes::{SmallMesh, namespaces};

const DOMAIN: &str = "cluster.local";
/// So long istiod may take for a change.
const BOUND: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(250);
/// Requests at a time.
const WIDTH: usize = 24;

/// The clients of a mesh: with the random Sidecar, without one, and with the scope of a fence.
const APPS: [&str; 3] = ["client", "free", "fenced"];

/// What came of meshes.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Predictions that istiod does not keep.
    pub differences: Vec<String>,
    /// Calls that a scope changes.
    pub changed: Vec<String>,
    /// Calls that were compared.
    pub calls: usize,
    /// Kinds of the objects.
    pub kinds: BTreeSet<String>,
}

impl Outcome {
    pub fn add(&mut self, other: Self, first: usize) {
        let from = |text: String| format!("meshes from {first}: {text}");
        self.differences
            .extend(other.differences.into_iter().map(from));
        self.changed.extend(other.changed.into_iter().map(from));
        self.calls += other.calls;
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
    judges: Vec<(Release, Judge)>,
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

    /// Applies meshes, compares, and takes them away again.
    pub async fn judge(&self, meshes: &[SmallMesh]) -> Outcome {
        let objects: Vec<Value> = meshes
            .iter()
            .flat_map(|mesh| mesh.objects.clone())
            .collect();
        let made = self.create(objects).await;
        let all = std::iter::once(&self.own).chain(&made);
        let mesh = Registry::new(all);
        let fences: Vec<Fence> = meshes.iter().map(|small| mesh.fence(small)).collect();
        let sidecars = meshes.iter().zip(&fences).flat_map(|(mesh, fence)| {
            let of = |app: &str, entries: &[String]| {
                json!({"apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
                    "metadata": {"name": app, "namespace": mesh.client},
                    "spec": {"workloadSelector": {"labels": {"app": app}}, "egress": [{"hosts": entries}]}})
            };
            [of("client", &mesh.entries), of("fenced", &fence.entries)]
        });
        let sidecars = self.create(sidecars.collect()).await;
        let mut out = Outcome::default();
        out.kinds.extend(
            made.iter()
                .filter_map(|o| Some(o["kind"].as_str()?.to_owned())),
        );
        for (release, judge) in &self.judges {
            let given = self
                .compare(meshes, &mesh, &fences, (*release, judge), &mut out)
                .await;
            safe(meshes, &mesh, &fences, *release, &given, &mut out);
        }
        self.delete(sidecars.into_iter().chain(made).collect())
            .await;
        out
    }

    /// What istiod gives each client, when it is as predicted or does not become so.
    async fn compare(
        &self,
        meshes: &[SmallMesh],
        mesh: &Registry,
        fences: &[Fence],
        (release, judge): (Release, &Judge),
        out: &mut Outcome,
    ) -> BTreeMap<(usize, &'static str), Given> {
        let end = Instant::now() + BOUND;
        let asked = meshes
            .iter()
            .zip(fences)
            .flat_map(|(small, fence)| APPS.map(|app| (small, fence, app)));
        let one = |(small, fence, app): (&SmallMesh, &Fence, &'static str)| {
            let entries = match app {
                "client" => Some(small.entries.clone()),
                "fenced" => Some(fence.entries.clone()),
                _ => None,
            };
            let predicted = mesh.predict(&small.client, app, entries.as_deref(), release);
            let sidecar = Sidecar {
                namespace: small.client.clone(),
                app,
            };
            let number = small.number;
            async move {
                loop {
                    let given = judge.given(&sidecar).await;
                    let differ = differences(&predicted, &given);
                    if differ.is_empty() || Instant::now() > end {
                        return ((number, app), given, differ, entries);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        let mut answers = futures::stream::iter(asked.map(one)).buffer_unordered(WIDTH);
        let mut all = BTreeMap::new();
        while let Some((key, given, differ, entries)) = answers.next().await {
            if !differ.is_empty() {
                let (number, app) = key;
                out.differences.push(format!(
                    "{release:?} mesh {number} {app} {entries:?}\n{}\n{}",
                    differ.join("\n"),
                    yaml(&meshes[number])
                ));
            }
            all.insert(key, given);
        }
        all
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

/// A mesh as objects, to copy into a case.
fn yaml(mesh: &SmallMesh) -> String {
    let objects = mesh.objects.iter().map(ToString::to_string);
    objects.collect::<Vec<_>>().join("\n")
}

/// The scope of a fence that names what a workload calls.
struct Fence {
    entries: Vec<String>,
}

/// The same objects as the prediction reads them.
struct Registry {
    index: Arc<Index>,
    _mesh: Arc<Mesh>,
}

impl Registry {
    fn new<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Self {
        let mesh = Mesh::new(DOMAIN);
        let index = Index::new(&config(), &mesh);
        index.attach(&mesh);
        for object in objects {
            let object = object.clone();
            match object["kind"].as_str().unwrap() {
                "Service" => mesh.put::<Service>(serde_json::from_value(object).unwrap()),
                "ServiceEntry" => mesh.put::<ServiceEntry>(serde_json::from_value(object).unwrap()),
                "VirtualService" => {
                    mesh.put::<VirtualService>(serde_json::from_value(object).unwrap());
                }
                "DestinationRule" => {
                    mesh.put::<DestinationRule>(serde_json::from_value(object).unwrap());
                }
                "HTTPRoute" => mesh.put::<HttpRoute>(serde_json::from_value(object).unwrap()),
                "GRPCRoute" => mesh.put::<GrpcRoute>(serde_json::from_value(object).unwrap()),
                other => panic!("{other}"),
            }
        }
        Self { index, _mesh: mesh }
    }

    fn predict(
        &self,
        namespace: &str,
        app: &str,
        entries: Option<&[String]>,
        release: Release,
    ) -> Given {
        let labels = Labels::from([("app".to_owned(), app.to_owned())]);
        let client = Client {
            namespace,
            labels: Some(&labels),
            domain: DOMAIN,
            root: "istio-system",
            release,
        };
        let egress =
            entries.map(|entries| Egress::new(entries.iter().map(String::as_str), namespace));
        predict(&client, egress.as_ref(), &*self.index.services())
    }

    fn fence(&self, mesh: &SmallMesh) -> Fence {
        let key = FenceKey {
            namespace: mesh.client.clone(),
            name: "fenced".to_owned(),
        };
        let host = mesh
            .calls
            .iter()
            .map(|host| (host.clone(), Strategy::default()));
        let spec = ServiceFenceSpec {
            host: host.collect(),
            ..ServiceFenceSpec::default()
        };
        let none = BTreeMap::new();
        let before = BTreeMap::new();
        let settings = Settings::new(&config(), Vec::new());
        let input = ScopeInput {
            fence: &key,
            spec: &spec,
            created: None,
            learned: &[],
            before: &before,
            fading: &none,
            now: Timestamp::UNIX_EPOCH,
            settings: &settings,
            required: &[],
        };
        let scope = compute(&input, &*self.index.services());
        Fence {
            entries: scope.entries.into_keys().collect(),
        }
    }

    /// Whether the call of one host goes to another that has no address.
    fn is_taken(&self, answer: &Answer, call: &Call) -> bool {
        let services = self.index.services();
        let takes = |host: &str| {
            let entries = services.host(host).into_iter();
            let mut open = entries.filter(|e| e.addresses.is_empty());
            open.any(|e| e.ports.iter().any(|p| p.number == call.port))
        };
        let mut hosts = answer.connected();
        hosts.any(|host| host != call.host && takes(host))
    }

    /// Calls to a host, at the addresses and ports of what it is.
    fn calls(&self, host: &str) -> Vec<Call> {
        let services = self.index.services();
        let mut of = host.to_owned();
        for _ in 0..8 {
            let target = services.host(&of).iter().find_map(|e| e.target.clone());
            let Some(target) = target else { break };
            of = target.to_string();
        }
        let mut entries = services.host(&of);
        if entries.is_empty() {
            entries = services.covering(&of);
        }
        let mut out = BTreeSet::new();
        for entry in &entries {
            let address = entry.addresses.first().map(ipnet::IpNet::addr);
            for port in &entry.ports {
                for http in [true, false] {
                    let fits = match port.protocol {
                        Auto => true,
                        Tcp | Tls => !http,
                        _ => http,
                    };
                    if fits {
                        out.insert(Call {
                            host: host.to_owned(),
                            address,
                            port: port.number,
                            http,
                        });
                    }
                }
            }
        }
        if entries.is_empty() {
            out.insert(Call {
                host: host.to_owned(),
                address: None,
                port: 80,
                http: true,
            });
        }
        out.into_iter().collect()
    }
}

fn config() -> LazyloadConfig {
    LazyloadConfig {
        domain: DOMAIN.to_owned(),
        ..LazyloadConfig::default()
    }
}

/// Whether several objects have one host: istiod looks an exact entry up and finds one of them.
fn has_rivals(mesh: &SmallMesh) -> bool {
    let mut hosts = BTreeSet::new();
    let mut all = mesh.objects.iter().filter_map(|object| {
        let meta = |field: &str| object["metadata"][field].as_str().unwrap();
        let (name, namespace) = (meta("name"), meta("namespace"));
        match object["kind"].as_str().unwrap() {
            "Service" => Some(format!("{name}.{namespace}.svc.{DOMAIN}")),
            "ServiceEntry" => object["spec"]["hosts"][0].as_str().map(ToOwned::to_owned),
            _ => None,
        }
    });
    !all.all(|host| hosts.insert(host))
}

/// Whether calls get in scope what they get without a Sidecar.
fn safe(
    meshes: &[SmallMesh],
    mesh: &Registry,
    fences: &[Fence],
    release: Release,
    given: &BTreeMap<(usize, &'static str), Given>,
    out: &mut Outcome,
) {
    for (small, fence) in meshes.iter().zip(fences) {
        if has_rivals(small) {
            continue;
        }
        let free = &given[&(small.number, "free")];
        let scoped = &given[&(small.number, "fenced")];
        for call in small.calls.iter().flat_map(|host| mesh.calls(host)) {
            let (without, with) = (answer(free, &call), answer(scoped, &call));
            // What is unknown without a Sidecar, fails there, or goes to another host, may become what it likes.
            let open = without == Answer::default() || without.fails();
            if open || mesh.is_taken(&without, &call) {
                continue;
            }
            out.calls += 1;
            if without != with {
                out.changed.push(format!(
                    "{release:?} mesh {} {call:?} of {}, scope {:?}\n  without {without:?}\n  in scope {with:?}\n{}",
                    small.number,
                    small.client,
                    fence.entries,
                    yaml(small)
                ));
            }
        }
    }
}
