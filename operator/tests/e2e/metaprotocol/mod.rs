//! The MetaProtocol module in the running operator.

mod commands;
mod objects;
mod outages;
mod proxies;
mod statuses;

use std::time::Duration;

use kube::Api;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trimtab::operator::Operator;
use trimtab::standalone;
use trimtab_crds::istio::{EnvoyFilter, VirtualService};
use trimtab_embedded::Embedded;
use trimtab_lab::process::wait_until;
use trimtab_metaprotocol::object::Kind;

use crate::support::{BOUND, config, ring};

/// Host of the Service that most tests are about.
pub const HOST: &str = "orders.shop.svc.cluster.local";
/// Its route resource.
pub const ROUTES: &str = "orders.shop.svc.cluster.local_20880";
/// Operators for Aeraki's proxies.
pub const AERAKI: &str = "metaprotocol: {dataPlane: Aeraki}";

/// An empty API.
pub fn api() -> Embedded {
    ring();
    standalone::embedded().unwrap()
}

pub fn load(embedded: &Embedded, object: Value) {
    if let Some(namespace) = object["metadata"]["namespace"].as_str() {
        embedded.ensure_namespace(namespace).unwrap();
    }
    embedded.load(object).unwrap();
}

pub fn service(name: &str, port: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"selector": {"app": name}, "ports": [{"name": port, "port": 20880}]}})
}

pub fn subsets() -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"host": HOST, "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]}})
}

#[allow(clippy::needless_pass_by_value, reason = "callers write it in place")]
pub fn router_with(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "metaprotocol.aeraki.io/v1alpha1", "kind": "MetaRouter",
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
}

/// All calls to one subset.
pub fn router(subset: &str) -> Value {
    router_with(
        "orders",
        json!({"hosts": [HOST],
        "routes": [{"route": [{"destination": {"host": HOST, "subset": subset}}]}]}),
    )
}

/// A Dubbo service with a router.
pub fn mesh() -> Embedded {
    let embedded = api();
    load(&embedded, service("orders", "tcp-metaprotocol-dubbo"));
    load(&embedded, subsets());
    load(&embedded, router("v1"));
    embedded
}

pub async fn operator(embedded: &Embedded, text: &str) -> Operator {
    Operator::start(config(text), embedded.client(), CancellationToken::new())
        .await
        .unwrap()
}

pub async fn ready(operator: &Operator) {
    wait_until("ready", BOUND, || async {
        let missing = operator.readiness.missing();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{missing:?}"))
        }
    })
    .await
    .unwrap();
}

/// Names of the EnvoyFilters, with their namespaces.
pub async fn filters(embedded: &Embedded) -> Vec<String> {
    let api: Api<EnvoyFilter> = Api::all(embedded.client());
    let list = api.list(&ListParams::default()).await.unwrap();
    let mut names: Vec<String> = list
        .iter()
        .map(|f| {
            let text = |t: &Option<String>| t.clone().unwrap_or_default();
            format!("{}/{}", text(&f.metadata.namespace), text(&f.metadata.name))
        })
        .collect();
    names.sort();
    names
}

pub async fn virtual_services(embedded: &Embedded) -> Vec<VirtualService> {
    let api: Api<VirtualService> = Api::all(embedded.client());
    api.list(&ListParams::default()).await.unwrap().items
}

/// Waits for a number of EnvoyFilters.
pub async fn filters_are(embedded: &Embedded, wanted: usize) -> Vec<String> {
    wait_until(&format!("{wanted} EnvoyFilters"), BOUND, || async {
        let found = filters(embedded).await;
        if found.len() == wanted {
            Ok(found)
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
    .unwrap()
}

/// An object as it is.
pub async fn get(embedded: &Embedded, kind: Kind, name: &str) -> Value {
    let resource = kind.resource();
    let api: Api<DynamicObject> = if kind.namespaced() {
        Api::namespaced_with(embedded.client(), "shop", &resource)
    } else {
        Api::all_with(embedded.client(), &resource)
    };
    serde_json::to_value(api.get(name).await.unwrap()).unwrap()
}

/// Condition of an object as `status reason`, and its message.
pub fn condition(object: &Value, kind: &str) -> (String, String) {
    let list = object["status"]["conditions"].as_array();
    let found = list.into_iter().flatten().find(|c| c["type"] == kind);
    let text = |field: &str| {
        let value = found.and_then(|c| c[field].as_str());
        value.unwrap_or_default().to_owned()
    };
    (
        format!("{} {}", text("status"), text("reason")),
        text("message"),
    )
}

/// Waits until conditions of an object are as `wanted`: type, then `status reason`.
pub async fn told(embedded: &Embedded, kind: Kind, name: &str, wanted: &[(&str, &str)]) -> Value {
    wait_until(&format!("{name}: {wanted:?}"), BOUND, || async {
        let object = get(embedded, kind, name).await;
        let good = |(kind, wanted): &(&str, &str)| condition(&object, kind).0 == *wanted;
        if wanted.iter().all(good) {
            Ok(object)
        } else {
            Err(object["status"].to_string())
        }
    })
    .await
    .unwrap()
}

/// Waits until a resource's version is not `old`, and gives it; `None`: it does not exist.
pub async fn version_not(operator: &Operator, old: Option<&str>) -> Option<String> {
    wait_until(&format!("a version other than {old:?}"), BOUND, || async {
        let now = operator.cache.get(trimtab_xds::RDS, ROUTES);
        let now = now.map(|r| r.version.clone());
        if now.as_deref() == old {
            Err(format!("{now:?}"))
        } else {
            Ok(now)
        }
    })
    .await
    .unwrap()
}

/// Waits until nothing is written any more, and gives the number of writes.
pub async fn quiet(embedded: &Embedded) -> u64 {
    let mut before = u64::MAX;
    wait_until("no more writes", BOUND, move || {
        let now = embedded.write_count();
        let same = now == before;
        before = now;
        async move {
            tokio::time::sleep(Duration::from_millis(700)).await;
            if same { Ok(now) } else { Err(format!("{now}")) }
        }
    })
    .await
    .unwrap()
}
