//! The objects of a cluster, as far as a migration is about them.

use std::time::Duration;

use anyhow::Context;
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::Value;

use super::objects::Objects;

/// Group, version, kind and plural. Where a group has had several versions, the oldest is asked last.
const KINDS: &[(&str, &str, &str, &str)] = &[
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "Namespace", "namespaces"),
    ("", "v1", "Pod", "pods"),
    ("", "v1", "Service", "services"),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    ),
    ("apps", "v1", "DaemonSet", "daemonsets"),
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", "StatefulSet", "statefulsets"),
    ("config.netease.com", "v1alpha1", "SlimeBoot", "slimeboots"),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    (
        "dubbo.aeraki.io",
        "v1alpha1",
        "DubboAuthorizationPolicy",
        "dubboauthorizationpolicies",
    ),
    (
        "metaprotocol.aeraki.io",
        "v1alpha1",
        "ApplicationProtocol",
        "applicationprotocols",
    ),
    (
        "metaprotocol.aeraki.io",
        "v1alpha1",
        "MetaRouter",
        "metarouters",
    ),
    (
        "microservice.netease.com",
        "v1alpha1",
        "SmartLimiter",
        "smartlimiters",
    ),
    (
        "microservice.slime.io",
        "v1alpha1",
        "EnvoyPlugin",
        "envoyplugins",
    ),
    (
        "microservice.slime.io",
        "v1alpha1",
        "PluginManager",
        "pluginmanagers",
    ),
    (
        "microservice.slime.io",
        "v1alpha1",
        "ServiceFence",
        "servicefences",
    ),
    (
        "microservice.slime.io",
        "v1alpha2",
        "SmartLimiter",
        "smartlimiters",
    ),
    (
        "networking.istio.io",
        "v1",
        "DestinationRule",
        "destinationrules",
    ),
    (
        "networking.istio.io",
        "v1alpha3",
        "EnvoyFilter",
        "envoyfilters",
    ),
    ("networking.istio.io", "v1", "Gateway", "gateways"),
    (
        "networking.istio.io",
        "v1",
        "ServiceEntry",
        "serviceentries",
    ),
    ("networking.istio.io", "v1", "Sidecar", "sidecars"),
    (
        "networking.istio.io",
        "v1",
        "VirtualService",
        "virtualservices",
    ),
    (
        "redis.aeraki.io",
        "v1alpha1",
        "RedisDestination",
        "redisdestinations",
    ),
    (
        "redis.aeraki.io",
        "v1alpha1",
        "RedisService",
        "redisservices",
    ),
];

/// Objects a page.
const PAGE: u32 = 500;
/// Time limit of each question to the API server.
const LIMIT: Duration = Duration::from_secs(20);
const SILENT: &str =
    "the cluster does not answer: name files with -f, or another cluster by KUBECONFIG";

/// Reads all of them. A kind that is not installed has none; one that may not be read is a line in the second list.
pub async fn read(client: &Client) -> anyhow::Result<(Objects, Vec<String>)> {
    let asked = tokio::time::timeout(LIMIT, client.apiserver_version());
    asked.await.context(SILENT)?.context(SILENT)?;
    let (mut out, mut not_read) = (Vec::new(), Vec::new());
    for (group, version, kind, plural) in KINDS {
        let kind = GroupVersionKind::gvk(group, version, kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        match list(client, &resource).await {
            Ok(found) => out.extend(found),
            Err(words) => not_read.push(format!(
                "{plural}: {words}: may the account of this kubeconfig list them?"
            )),
        }
    }
    Ok((Objects(out), not_read))
}

async fn list(client: &Client, resource: &ApiResource) -> Result<Vec<Value>, String> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
    let mut params = ListParams::default().limit(PAGE);
    let mut out = Vec::new();
    loop {
        let page = match tokio::time::timeout(LIMIT, api.list(&params)).await {
            Ok(Ok(page)) => page,
            Ok(Err(kube::Error::Api(error))) if error.code == 404 => return Ok(out),
            Ok(Err(kube::Error::Api(error))) => return Err(error.message),
            Ok(Err(other)) => return Err(other.to_string()),
            Err(_) => return Err(format!("no answer within {} s", LIMIT.as_secs())),
        };
        for mut object in page.items {
            object.metadata.managed_fields = None;
            let mut value = serde_json::to_value(&object).unwrap_or_default();
            value["apiVersion"] = resource.api_version.clone().into();
            value["kind"] = resource.kind.clone().into();
            out.push(value);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(out),
        }
    }
}
