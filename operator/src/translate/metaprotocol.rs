//! The MetaProtocol module offline.

use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::{DestinationRule, Gateway, ServiceEntry};
use trimtab_crds::metaprotocol::{ApplicationProtocol, MetaRouter};
use trimtab_crds::redis::{RedisDestination, RedisService};
use trimtab_kit::watch::Feed;
use trimtab_metaprotocol::error::Problem;
use trimtab_metaprotocol::index::Index;
use trimtab_metaprotocol::output::XdsResource;
use trimtab_metaprotocol::status::is_remark;
use trimtab_metaprotocol::translate::translate;

use super::Output;
use crate::config::Config;

/// Address of the xDS server in objects that are made offline, when the configuration has none.
const XDS_ADDRESS: &str = "trimtab.istio-system.svc:15010";

/// The index of all objects of an API server.
pub async fn index(client: &Client, config: &Config) -> anyhow::Result<Arc<Index>> {
    let address = if config.xds.advertise.is_empty() {
        XDS_ADDRESS
    } else {
        &config.xds.advertise
    };
    let module = &config.metaprotocol;
    let index = Index::new(&module.domain, Arc::new(module.settings(address)));
    feed::<Service>(client, &index).await?;
    feed::<EndpointSlice>(client, &index).await?;
    feed::<ServiceEntry>(client, &index).await?;
    feed::<DestinationRule>(client, &index).await?;
    feed::<Gateway>(client, &index).await?;
    feed::<MetaRouter>(client, &index).await?;
    feed::<ApplicationProtocol>(client, &index).await?;
    feed::<RedisService>(client, &index).await?;
    feed::<RedisDestination>(client, &index).await?;
    feed::<DubboAuthorizationPolicy>(client, &index).await?;
    if module.read_secrets {
        let list = Api::<Secret>::all(client.clone())
            .list(&<_>::default())
            .await?;
        let secrets = list.items.into_iter();
        index.set_secrets(
            secrets
                .map(trimtab_metaprotocol::controller::secret)
                .collect(),
        );
    }
    Ok(index)
}

async fn feed<K>(client: &Client, index: &Arc<Index>) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
    Index: Feed<K>,
{
    let list = Api::<K>::all(client.clone())
        .list(&<_>::default())
        .await
        .with_context(|| format!("list of {}", K::plural(&())))?;
    index.reset(list.items.into_iter().map(Arc::new).collect(), &[]);
    Ok(())
}

/// Adds the outputs of all ports. Returns how many ports and routers there are.
pub(super) async fn translate_all(
    client: &Client,
    config: &Config,
    out: &mut Output,
) -> anyhow::Result<usize> {
    if !config.metaprotocol.enabled {
        return Ok(0);
    }
    let index = index(client, config).await?;
    let (_, _, routers) = index.sizes();
    let resolved = index.mesh().resolve();
    let tell = |problem: &Problem, out: &mut Output| {
        let line = problem.to_string();
        let list = if is_remark(problem.reason) {
            &mut out.notes
        } else {
            &mut out.refused
        };
        if !list.contains(&line) {
            list.push(line);
        }
    };
    for problem in &resolved.problems {
        tell(problem, out);
    }
    for input in &resolved.inputs {
        let made = translate(input);
        for refusal in &made.refusals {
            tell(&refusal.problem, out);
        }
        out.objects.extend(made.envoy_filters);
        out.virtual_services.extend(made.virtual_services);
        out.resources.extend(made.resources);
    }
    let key = |r: &XdsResource| (r.type_url.clone(), r.name.clone());
    out.resources.sort_by_key(key);
    let text = |v: &Value, field: &str| v["metadata"][field].as_str().map(str::to_owned);
    out.virtual_services
        .sort_by_key(|v| (text(v, "namespace"), text(v, "name")));
    Ok(resolved.inputs.len() + routers)
}

/// A resource of the xDS server as a document.
pub(super) fn shown(resource: &XdsResource) -> Value {
    let content: Value = serde_json::from_str(&resource.canonical).unwrap_or(Value::Null);
    json!({
        "kind": "XdsResource",
        "typeUrl": resource.type_url,
        "name": resource.name,
        "version": resource.version(),
        "origin": resource.origin,
        "content": content,
    })
}
