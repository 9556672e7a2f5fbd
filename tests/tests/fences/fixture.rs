//! What the tests share: an operator on an API in memory, a clock, objects, waiting.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use jiff::{SignedDuration, Timestamp};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab::standalone;
use trimtab_crds::fence::{FenceStatus, ServiceFence};
use trimtab_crds::istio::Sidecar;
use trimtab_embedded::Embedded;
use trimtab_kit::clock::Clock;
use trimtab_lab::process::wait_until;
use trimtab_lazyload::module::Lazyload;
use trimtab_metaprotocol::module::Metaprotocol;

use crate::history::{History, hosts};
use crate::logs;

/// Bound of every wait: generous, because few cores may be busy with other tests.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// A clock whose two hands the test moves.
#[derive(Clone)]
pub(crate) struct Hands(Arc<Mutex<(Timestamp, Duration)>>);

impl Hands {
    fn new() -> Self {
        Self(Arc::new(Mutex::new((Timestamp::now(), Duration::ZERO))))
    }

    /// Time passes.
    pub(crate) fn advance(&self, by: Duration) {
        let mut hands = self.0.lock();
        hands.0 += by;
        hands.1 += by;
    }

    /// The wall clock alone is set.
    pub(crate) fn jump(&self, hours: i64) {
        self.0.lock().0 += SignedDuration::from_hours(hours);
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        self.0.lock().0
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().1
    }
}

/// An API, everything that was stored in it, and a clock.
pub(crate) struct Fixture {
    pub(crate) api: Embedded,
    pub(crate) clock: Hands,
    pub(crate) sidecars: History<Sidecar>,
    pub(crate) fences: History<ServiceFence>,
    markers: AtomicUsize,
    _stop: DropGuard,
}

/// The grace of every test, and a little more.
pub(crate) const GRACE: Duration = Duration::from_secs(301);

impl Fixture {
    /// An empty mesh.
    pub(crate) fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let api = standalone::embedded().unwrap();
        let stop = CancellationToken::new();
        Self {
            clock: Hands::new(),
            sidecars: History::watch(api.client(), &stop),
            fences: History::watch(api.client(), &stop),
            markers: AtomicUsize::new(0),
            _stop: stop.drop_guard(),
            api,
        }
    }

    /// Namespace `shop` with workload `front` (pods `front-1`, 10.0.0.1) and Services `front`, `cart`, `stock`, and
    /// `redis` in `data`.
    pub(crate) fn shop() -> Self {
        let fixture = Self::new();
        fixture.workload("shop", "front", "10.0.0.1");
        fixture.workload("shop", "cart", "10.0.0.2");
        fixture.workload("shop", "stock", "10.0.0.3");
        fixture.workload("data", "redis", "10.0.0.4");
        fixture
    }

    /// An operator with the module alone. `text` is its configuration.
    pub(crate) async fn operator(&self, text: &str) -> Operator {
        let operator = self.started(text).await;
        wait_until("readiness", BOUND, || async {
            let missing = operator.readiness.missing();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("{missing:?}"))
            }
        })
        .await
        .unwrap();
        operator
    }

    /// The same, perhaps not ready yet.
    pub(crate) async fn started(&self, text: &str) -> Operator {
        let mut config = Config::default();
        config
            .modules
            .insert("lazyload".to_owned(), serde_saphyr::from_str(text).unwrap());
        config.check().unwrap();
        self.started_with(config).await
    }

    pub(crate) async fn started_with(&self, mut config: Config) -> Operator {
        config.http.address.set_port(0);
        config.xds.address.set_port(0);
        config.edit::<Metaprotocol>(|c| c.enabled = false);
        config.edit::<Lazyload>(|c| {
            let logs = json!({"address": "127.0.0.1:0", "trusted": ["127.0.0.1"]});
            c.learn.access_log = Some(serde_json::from_value(logs).unwrap());
            c.writes.gather = trimtab_crds::Duration::from_millis(10);
        });
        let (client, clock) = (self.api.client(), Arc::new(self.clock.clone()));
        Operator::start_at(config, client, Vec::new(), clock, CancellationToken::new())
            .await
            .unwrap()
    }

    // --- objects ---

    /// Stores an object as it is. A pod's ReplicaSet is stored before it: what has no owner is collected.
    pub(crate) fn put(&self, mut object: Value) {
        if let Some(namespace) = object["metadata"]["namespace"].as_str() {
            self.api.ensure_namespace(namespace).unwrap();
        }
        if object["kind"] == "Pod" {
            let namespace = object["metadata"]["namespace"].clone();
            let owner = &mut object["metadata"]["ownerReferences"][0];
            let set = json!({
                "apiVersion": owner["apiVersion"], "kind": owner["kind"],
                "metadata": {"namespace": namespace, "name": owner["name"]},
            });
            let set = self.api.load(set).unwrap();
            owner["uid"] = set["metadata"]["uid"].clone();
        }
        self.api.load(object).unwrap();
    }

    /// A Service with the selector `app: NAME`.
    pub(crate) fn service(&self, namespace: &str, name: &str) {
        self.put(service(namespace, name));
    }

    /// A Service with its pods' address, and one pod `NAME-1` of workload `NAME`.
    pub(crate) fn workload(&self, namespace: &str, name: &str, address: &str) {
        self.service(namespace, name);
        self.pod(namespace, name, &json!({"app": name}), address);
        self.endpoints(namespace, name, &[address]);
    }

    /// A pod `WORKLOAD-1`.
    pub(crate) fn pod(&self, namespace: &str, workload: &str, labels: &Value, address: &str) {
        self.put(pod(namespace, workload, labels, address));
    }

    pub(crate) fn endpoints(&self, namespace: &str, service: &str, addresses: &[&str]) {
        self.put(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": namespace, "name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "endpoints": [{"addresses": addresses}], "ports": [{"port": 80}],
        }));
    }

    /// The fallback with a ready pod; without pods when `ready` is false.
    pub(crate) fn fallback(&self, ready: bool) {
        let mut service = service("istio-system", "trimtab-fallback");
        service["metadata"]["name"] = json!(trimtab_lazyload::fallback::NAME);
        self.put(service);
        let addresses: &[&str] = if ready { &["10.0.9.1"] } else { &[] };
        self.endpoints("istio-system", trimtab_lazyload::fallback::NAME, addresses);
    }

    /// Applies an object as a user does, with server-side apply.
    pub(crate) async fn apply(&self, object: Value) {
        let namespace = object["metadata"]["namespace"].as_str().unwrap();
        self.api.ensure_namespace(namespace).unwrap();
        let api = self.dynamic(&object, namespace);
        let name = object["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::apply("user").force();
        api.patch(name, &params, &Patch::Apply(&object))
            .await
            .unwrap();
    }

    fn dynamic(&self, object: &Value, namespace: &str) -> Api<DynamicObject> {
        let text = |key: &str| object[key].as_str().unwrap();
        let (group, version) = text("apiVersion")
            .split_once('/')
            .unwrap_or(("", text("apiVersion")));
        let kind = GroupVersionKind::gvk(group, version, text("kind"));
        let resource = ApiResource::from_gvk(&kind);
        Api::namespaced_with(self.api.client(), namespace, &resource)
    }

    /// Deletes an object of a kind (`apiVersion` and `kind`).
    pub(crate) async fn delete(&self, version: &str, kind: &str, namespace: &str, name: &str) {
        let object = json!({"apiVersion": version, "kind": kind});
        let api = self.dynamic(&object, namespace);
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// A ServiceFence that is enabled; `spec` is added.
    pub(crate) async fn fence(&self, namespace: &str, name: &str, spec: Value) {
        let mut whole = json!({"enable": true});
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        self.apply(json!({
            "apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
            "metadata": {"namespace": namespace, "name": name}, "spec": whole,
        }))
        .await;
    }

    pub(crate) async fn delete_fence(&self, namespace: &str, name: &str) {
        let version = "microservice.slime.io/v1alpha1";
        self.delete(version, "ServiceFence", namespace, name).await;
    }

    /// Replaces the status of a fence, as anyone with the right may.
    pub(crate) async fn set_status(&self, namespace: &str, name: &str, status: Value) {
        let api: Api<ServiceFence> = Api::namespaced(self.api.client(), namespace);
        let fence = api.get(name).await.unwrap();
        let mut whole = serde_json::to_value(&fence).unwrap();
        whole["metadata"]["resourceVersion"] = Value::Null;
        whole["metadata"]["managedFields"] = Value::Null;
        whole["status"] = status;
        let fence: ServiceFence = serde_json::from_value(whole).unwrap();
        api.replace_status(name, &<_>::default(), &fence)
            .await
            .unwrap();
    }

    // --- looking ---

    pub(crate) async fn sidecar(&self, namespace: &str, name: &str) -> Option<Sidecar> {
        let api: Api<Sidecar> = Api::namespaced(self.api.client(), namespace);
        api.get_opt(name).await.unwrap()
    }

    pub(crate) async fn fence_of(&self, namespace: &str, name: &str) -> Option<ServiceFence> {
        let api: Api<ServiceFence> = Api::namespaced(self.api.client(), namespace);
        api.get_opt(name).await.unwrap()
    }

    pub(crate) async fn status(&self, namespace: &str, name: &str) -> FenceStatus {
        let fence = self.fence_of(namespace, name).await;
        fence.and_then(|f| f.status).unwrap_or_default()
    }

    /// Waits for a status.
    pub(crate) async fn status_where(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        good: impl Fn(&FenceStatus) -> bool,
    ) -> FenceStatus {
        wait_until(what, BOUND, || async {
            let status = self.status(namespace, name).await;
            if good(&status) {
                Ok(status)
            } else {
                Err(format!("{status:#?}"))
            }
        })
        .await
        .unwrap()
    }

    /// Waits for a reason of a condition of a fence.
    pub(crate) async fn condition(&self, namespace: &str, name: &str, kind: &str, reason: &str) {
        let what = format!("{namespace}/{name}: {kind} {reason}");
        self.status_where(namespace, name, &what, |s| reason_of(s, kind) == reason)
            .await;
    }

    /// Waits for the hosts of a fence's Sidecar.
    pub(crate) async fn hosts_where(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        good: impl Fn(&BTreeSet<String>) -> bool,
    ) -> BTreeSet<String> {
        wait_until(what, BOUND, || async {
            let found = self.sidecar(namespace, name).await.map(|s| hosts(&s));
            match found {
                Some(hosts) if good(&hosts) => Ok(hosts),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap()
    }

    /// Waits until the Sidecar names exactly these services, `NAMESPACE/NAME` each, besides what every scope has.
    pub(crate) async fn scope(&self, namespace: &str, name: &str, services: &[&str]) {
        let wanted: BTreeSet<String> = services.iter().map(|s| entry(s)).collect();
        let what = format!("{namespace}/{name} names {wanted:?}");
        self.hosts_where(namespace, name, &what, |hosts| {
            let essential = |h: &&String| h.contains("istio-system/");
            let own: BTreeSet<String> = hosts
                .iter()
                .filter(|h| !essential(h) && *h != "~/*")
                .cloned()
                .collect();
            own == wanted
        })
        .await;
    }

    /// Waits until there is no Sidecar of this name.
    pub(crate) async fn no_sidecar(&self, namespace: &str, name: &str) {
        wait_until("no Sidecar", BOUND, || async {
            match self.sidecar(namespace, name).await {
                None => Ok(()),
                Some(sidecar) => Err(format!("{sidecar:?}")),
            }
        })
        .await
        .unwrap();
    }

    /// Waits until everything that happened before is worked off: events are taken in order, and each of two fences that
    /// are made one after the other is written after them.
    pub(crate) async fn settle(&self) {
        for _ in 0..2 {
            let name = format!("marker-{}", self.markers.fetch_add(1, Ordering::Relaxed));
            self.fence(
                "markers",
                &name,
                json!({"workloadSelector": {"labels": {"app": name}}}),
            )
            .await;
            let what = format!("markers/{name} is programmed");
            self.status_where("markers", &name, &what, |s| {
                !reason_of(s, "Programmed").is_empty()
            })
            .await;
            self.delete_fence("markers", &name).await;
        }
    }

    /// Versions of the Sidecars and fences of a namespace so far.
    pub(crate) async fn writes(&self, namespace: &str) -> usize {
        self.caught_up().await;
        self.sidecars.count(namespace) + self.fences.count(namespace)
    }

    /// Waits until the histories have what is stored now.
    pub(crate) async fn caught_up(&self) {
        let sidecars: Api<Sidecar> = Api::all(self.api.client());
        let fences: Api<ServiceFence> = Api::all(self.api.client());
        wait_until("the histories", BOUND, || async {
            let sidecars = sidecars.list(&<_>::default()).await.unwrap();
            let fences = fences.list(&<_>::default()).await.unwrap();
            let has = |namespace: Option<String>, name: String, version: Option<String>| {
                let namespace = namespace.unwrap_or_default();
                let last = self.sidecars.of(&namespace, &name).pop().flatten();
                let last = last.and_then(|s| s.resource_version());
                let fence = self.fences.of(&namespace, &name).pop().flatten();
                let fence = fence.and_then(|f| f.resource_version());
                last == version || fence == version
            };
            let all = sidecars
                .iter()
                .map(|s| (s.namespace(), s.name_any(), s.resource_version()));
            let all = all.chain(
                fences
                    .iter()
                    .map(|f| (f.namespace(), f.name_any(), f.resource_version())),
            );
            for (namespace, name, version) in all {
                if !has(namespace, name.clone(), version) {
                    return Err(name);
                }
            }
            Ok(())
        })
        .await
        .unwrap();
    }

    /// No version of the fence's Sidecar named less than the one before.
    pub(crate) async fn never_narrowed(&self, namespace: &str, name: &str) {
        self.caught_up().await;
        let removals = self.sidecars.removals(namespace, name);
        assert!(removals.is_empty(), "{namespace}/{name} lost {removals:?}");
    }
}

/// Sends logs to an operator and waits until it has taken them.
pub(crate) async fn log(operator: &Operator, messages: Vec<StreamAccessLogsMessage>) {
    logs::send(
        operator.listeners["lazyload.learn.accessLog.address"],
        messages,
    )
    .await;
}

/// The reason of a condition; empty: there is none.
pub(crate) fn reason_of<'a>(status: &'a FenceStatus, kind: &str) -> &'a str {
    let found = status.conditions.iter().find(|c| c.type_ == kind);
    found.map_or("", |c| c.reason.as_str())
}

/// The Sidecar's entry for a service `NAMESPACE/NAME`; anything with a dot or a `*` is taken as it is.
pub(crate) fn entry(service: &str) -> String {
    match service.split_once('/') {
        Some((namespace, name)) if !name.contains(['.', '*']) => {
            format!("{namespace}/{name}.{namespace}.svc.cluster.local")
        }
        _ => service.to_owned(),
    }
}

pub(crate) fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
    })
}

/// A pod `WORKLOAD-1` of a Deployment's ReplicaSet.
pub(crate) fn pod(namespace: &str, workload: &str, labels: &Value, address: &str) -> Value {
    let mut labels = labels.clone();
    labels["pod-template-hash"] = json!("5d");
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": format!("{workload}-1"), "labels": labels, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{workload}-5d"), "controller": true},
        ]},
        "spec": {"serviceAccountName": workload, "containers": [{"name": "app", "image": "app"}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

/// A user's Sidecar.
pub(crate) fn user_sidecar(namespace: &str, name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"workloadSelector": {"labels": labels}, "egress": [{"hosts": ["./*"]}]},
    })
}

/// Configuration without a fallback.
pub(crate) const PLAIN: &str = "fallback: {enabled: false}";
