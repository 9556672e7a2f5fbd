//! Layer-7 objects that make the operator use each of its rights on them.

use std::time::Duration;

use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use trimtab_crds::istio::{ServiceEntry, VirtualService};
use trimtab_embedded::Embedded;
use trimtab_lab::LabError;
use trimtab_lab::process::wait_until;
use trimtab_metaprotocol::object::Kind;

const BOUND: Duration = Duration::from_secs(60);
const HOST: &str = "orders.default.svc.cluster.local";

fn router(gateways: &Value) -> Value {
    json!({"apiVersion": "metaprotocol.aeraki.io/v1alpha1", "kind": "MetaRouter", "metadata": {"name": "orders", "namespace": "default"},
        "spec": {"hosts": [HOST], "gateways": gateways, "routes": [{"route": [{"destination": {"host": HOST}}]}]}})
}

/// One object of each kind.
pub(crate) fn load(embedded: &Embedded) {
    let port = |name: &str, number: i32| json!({"name": name, "port": number});
    let redis = json!({"mode": "PROXY", "auth": {"secret": {"name": "keys"}}});
    for object in [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "orders", "namespace": "default"},
            "spec": {"selector": {"app": "orders"}, "ports": [port("tcp-metaprotocol-dubbo", 20880), port("tcp-redis", 6379)]}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "default"}, "stringData": {"password": "p"}}),
        json!({"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "edge", "namespace": "default"},
            "spec": {"selector": {"istio": "edge"}, "servers": [{"port": {"number": 20880, "name": "tcp-metaprotocol-dubbo"}}]}}),
        json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": "out", "namespace": "default"},
            "spec": {"hosts": ["out.example.com"], "resolution": "DNS", "ports": [{"number": 7000, "name": "tcp-dubbo"}]}}),
        json!({"apiVersion": "metaprotocol.aeraki.io/v1alpha1", "kind": "ApplicationProtocol", "metadata": {"name": "own"},
            "spec": {"protocol": "own", "codec": "own.codec"}}),
        json!({"apiVersion": "redis.aeraki.io/v1alpha1", "kind": "RedisService", "metadata": {"name": "orders", "namespace": "default"},
            "spec": {"host": [HOST], "redis": [{"route": {"host": HOST}}]}}),
        json!({"apiVersion": "redis.aeraki.io/v1alpha1", "kind": "RedisDestination", "metadata": {"name": "orders", "namespace": "default"},
            "spec": {"host": HOST, "trafficPolicy": {"connectionPool": {"redis": redis}}}}),
        json!({"apiVersion": "dubbo.aeraki.io/v1alpha1", "kind": "DubboAuthorizationPolicy", "metadata": {"name": "all", "namespace": "default"},
            "spec": {"rules": [{}]}}),
        router(&json!(["edge"])),
    ] {
        embedded.load(object).expect("the object is good");
    }
}

async fn services(
    embedded: &Embedded,
    what: &str,
    good: impl Fn(&[VirtualService]) -> bool,
) -> Result<(), LabError> {
    wait_until(what, BOUND, || async {
        let api: Api<VirtualService> = Api::namespaced(embedded.client(), "default");
        let list = api.list(&<_>::default()).await.map_err(|e| e.to_string())?;
        if good(&list.items) {
            Ok(())
        } else {
            Err(format!("{:?}", list.items))
        }
    })
    .await
}

/// Everything that an operator does with these objects.
pub(crate) async fn whole_life(embedded: &Embedded) -> Result<(), LabError> {
    services(embedded, "a VirtualService", |list| list.len() == 1).await?;
    for (kind, name) in [
        (Kind::MetaRouter, "orders"),
        (Kind::RedisService, "orders"),
        (Kind::RedisDestination, "orders"),
        (Kind::DubboAuthorizationPolicy, "all"),
        (Kind::ApplicationProtocol, "own"),
    ] {
        wait_until(&format!("a status of {}", kind.as_str()), BOUND, || async {
            let resource = kind.resource();
            let api: Api<DynamicObject> = if kind.namespaced() {
                Api::namespaced_with(embedded.client(), "default", &resource)
            } else {
                Api::all_with(embedded.client(), &resource)
            };
            let object = api.get(name).await.map_err(|e| e.to_string())?;
            match object.data["status"]["conditions"].as_array() {
                Some(list) if !list.is_empty() => Ok(()),
                _ => Err(object.data.to_string()),
            }
        })
        .await?;
    }
    wait_until("an address", BOUND, || async {
        let api: Api<ServiceEntry> = Api::namespaced(embedded.client(), "default");
        let entry = api.get("out").await.map_err(|e| e.to_string())?;
        match entry.spec.addresses.as_slice() {
            [address] if address.starts_with("240.241.0.") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    // A field that another manager added can only be taken away by an update.
    let api: Api<VirtualService> = Api::namespaced(embedded.client(), "default");
    let list = api.list(&<_>::default()).await.expect("a list");
    let name = list.items[0].metadata.name.clone().unwrap_or_default();
    let somebody = PatchParams {
        field_manager: Some("somebody".to_owned()),
        ..PatchParams::default()
    };
    let edit = Patch::Merge(json!({"spec": {"exportTo": ["."]}}));
    api.patch(&name, &somebody, &edit).await.expect("a patch");
    services(embedded, "the added field is gone", |list| {
        list.len() == 1 && list[0].spec.export_to.is_empty()
    })
    .await?;
    embedded
        .load(router(&json!([])))
        .expect("the object is good");
    services(embedded, "the VirtualService is gone", <[_]>::is_empty).await
}
