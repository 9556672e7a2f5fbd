//! The lazyload module offline: what ServiceFences make, by what they say and what their status has learned.

use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use trimtab_crds::fence::ServiceFence;
use trimtab_crds::istio::{DestinationRule, ServiceEntry, Sidecar, VirtualService};
use trimtab_kit::clock::SystemClock;
use trimtab_kit::watch::Feed;
use trimtab_lazyload::auto::Action;
use trimtab_lazyload::engine::{Desired, Engine};
use trimtab_lazyload::fallback::{FallbackInput, manifests};
use trimtab_lazyload::object::FenceKey;

use super::Output;
use crate::config::Config;

type Listed<K> = Vec<Arc<K>>;

async fn list<K>(client: &Client) -> anyhow::Result<Listed<K>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let list = Api::<K>::all(client.clone())
        .list(&<_>::default())
        .await
        .with_context(|| format!("list of {}", K::plural(&())))?;
    Ok(list.items.into_iter().map(Arc::new).collect())
}

fn feed<K>(to: &Arc<impl Feed<K>>, objects: &Listed<K>) {
    to.reset(objects.clone(), &[]);
}

/// Adds Sidecars and automatic fences. Returns how many ServiceFences there are.
pub(super) async fn translate_all(
    client: &Client,
    config: &Config,
    out: &mut Output,
) -> anyhow::Result<usize> {
    if !config.lazyload.enabled {
        return Ok(0);
    }
    let engine = Engine::new(
        Arc::new(config.lazyload.clone()),
        Arc::new(SystemClock::new()),
    );
    let mut fences = list::<ServiceFence>(client).await?;
    let services = list::<Service>(client).await?;
    let namespaces = list::<Namespace>(client).await?;
    let pods = list::<Pod>(client).await?;
    feed(&engine.auto, &fences);
    feed(&engine.auto, &namespaces);
    feed(&engine.auto, &services);
    feed(&engine.auto, &pods);
    fences.extend(automatic(&engine, out)?);
    if fences.is_empty() {
        return Ok(0);
    }
    feed(&engine.index, &pods);
    let slices = list::<EndpointSlice>(client).await?;
    let (services, slices) = with_fallback(config, services, slices)?;
    feed(&engine.index, &services);
    feed(&engine.index, &slices);
    feed(&engine.index, &list::<ServiceEntry>(client).await?);
    feed(&engine.index, &list::<VirtualService>(client).await?);
    feed(&engine.index, &list::<DestinationRule>(client).await?);
    feed(&engine.index, &list::<Sidecar>(client).await?);
    feed(&engine.index, &fences);
    engine.absorb();
    // As if the fallback were wired: what is printed is the end of the roll-out.
    engine.note_wiring(&engine.wiring(), None);
    engine.absorb();
    for key in engine.fences() {
        one(&engine, &key, out)?;
    }
    Ok(fences.len())
}

/// The fences that labels and annotations ask for, as objects and as they would be read back.
fn automatic(engine: &Engine, out: &mut Output) -> anyhow::Result<Listed<ServiceFence>> {
    let mut made = Vec::new();
    for key in engine.auto.take_changes() {
        if let Some(Action::Apply(fence)) = engine.auto.decide(&key) {
            out.fences.push(object(fence.as_ref())?);
            made.push(Arc::new(*fence));
        }
    }
    Ok(made)
}

fn object<K: Resource<DynamicType = ()> + Serialize>(of: &K) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(of)?;
    value["apiVersion"] = K::api_version(&()).into();
    value["kind"] = K::kind(&()).into();
    Ok(value)
}

/// The mesh with a fallback that has a pod, unless the input has one. The status of the pod is not part of a review.
fn with_fallback(
    config: &Config,
    mut services: Listed<Service>,
    mut slices: Listed<EndpointSlice>,
) -> anyhow::Result<(Listed<Service>, Listed<EndpointSlice>)> {
    let input = FallbackInput {
        config: config.lazyload.clone(),
        ..FallbackInput::default()
    };
    for manifest in manifests(&input) {
        if manifest["kind"] != "Service" {
            continue;
        }
        let service: Service = serde_json::from_value(manifest)?;
        let same = |o: &Arc<Service>| {
            o.name_any() == service.name_any() && o.namespace() == service.namespace()
        };
        let slice = json!({
            "metadata": {
                "name": format!("{}-offline", service.name_any()),
                "namespace": service.namespace(),
                "labels": {"kubernetes.io/service-name": service.name_any()},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}],
            "ports": [{"name": "http-80", "port": 15080, "protocol": "TCP"}],
        });
        slices.push(Arc::new(serde_json::from_value(slice)?));
        if !services.iter().any(same) {
            services.push(Arc::new(service));
        }
    }
    Ok((services, slices))
}

/// One fence: its Sidecar, and its conditions as notes or refusals.
fn one(engine: &Engine, key: &FenceKey, out: &mut Output) -> anyhow::Result<()> {
    // The conditions are worked out with the status.
    let _ = engine.news(key);
    if let Desired::Write(sidecar) = engine.desired(key) {
        let mut sidecar = *sidecar;
        sidecar.metadata.owner_references = None;
        out.sidecars.push(object(&sidecar)?);
    }
    let conditions = engine.fence_view(key).map(|v| v.conditions);
    for [kind, status, reason, message] in conditions.into_iter().flatten() {
        let line = format!("ServiceFence {key}: {kind}: {reason}: {message}");
        match (kind.as_str(), status.as_str()) {
            ("Accepted", "False") => out.refused.push(line),
            ("Programmed", "False") if reason == "Unsupported" => out.refused.push(line),
            ("Accepted", _) if reason == "Accepted" => {}
            ("FallbackReady", _) => {}
            _ => out.notes.push(line),
        }
    }
    if let Some(size) = engine.scope_size(key) {
        out.notes.push(format!(
            "ServiceFence {key}: scope: {} of {} services, about {} of {} bytes of configuration",
            size.services, size.mesh_services, size.bytes, size.mesh_bytes
        ));
    }
    Ok(())
}
