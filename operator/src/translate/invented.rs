//! Values that no input has and that stand in the outputs all the same.

use kube::Api;
use kube::api::{DynamicObject, ListParams};
use serde_json::Value;
use trimtab_embedded::Embedded;

use super::{Output, xds_address};
use crate::config::Config;
use crate::manifests::Document;

/// A line for each of them.
pub(super) async fn remarks(
    embedded: &Embedded,
    documents: &[Document],
    config: &Config,
    output: &Output,
) -> anyhow::Result<Vec<String>> {
    let printed: Vec<String> = output.objects.iter().map(Value::to_string).collect();
    let is_printed = |text: &str| printed.iter().any(|object| object.contains(text));
    let mut out = Vec::new();
    let xds = xds_address();
    if config.file.is_none() && is_printed(&xds) {
        out.push(format!(
            "assumed: proxies reach Trimtab at {xds}, where the chart installs it: name another address in a file for --config, xds.advertise"
        ));
    }
    let Some(kind) = embedded.kind("v1", "Service") else {
        return Ok(out);
    };
    let api: Api<DynamicObject> = Api::all_with(embedded.client(), &kind.resource);
    for service in api.list(&ListParams::default()).await?.items {
        let (namespace, name) = (&service.metadata.namespace, &service.metadata.name);
        let is_this = |document: &&Document| {
            let text = |pointer: &str| document.object.pointer(pointer).and_then(Value::as_str);
            text("/kind") == Some("Service")
                && text("/metadata/name") == name.as_deref()
                && text("/metadata/namespace").or(Some("default")) == namespace.as_deref()
        };
        let Some(document) = documents.iter().find(is_this) else {
            continue;
        };
        let given = document.object.pointer("/spec/clusterIP").is_some();
        let address = service.data["spec"]["clusterIP"].as_str();
        if let Some(address) = address.filter(|address| !given && is_printed(address)) {
            out.push(format!(
                "assumed: {}: spec.clusterIP is {address}, as the file has none: the cluster gives another one, so write that",
                document.title()
            ));
        }
    }
    Ok(out)
}
