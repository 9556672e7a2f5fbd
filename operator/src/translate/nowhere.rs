//! Objects that lead nowhere: what they select or are for is not in the input. That may be meant, as a review often goes
//! without pods, so it is no refusal.

use std::collections::BTreeMap;

use kube::api::{DynamicObject, ListParams};
use kube::{Api, ResourceExt};
use serde_json::Value;
use trimtab_embedded::Embedded;

type Labels = BTreeMap<String, String>;

const LIMITER: &str = "microservice.slime.io/v1alpha2";
const FENCE: &str = "microservice.slime.io/v1alpha1";
const PROTOCOL: &str = "metaprotocol.aeraki.io/v1alpha1";
const ENTRY: &str = "networking.istio.io/v1";

/// A line for each of them.
pub(super) async fn remarks(embedded: &Embedded) -> anyhow::Result<Vec<String>> {
    let pods = list(embedded, "v1", "Pod").await?;
    let services = list(embedded, "v1", "Service").await?;
    let mut out = Vec::new();
    for limiter in list(embedded, LIMITER, "SmartLimiter").await? {
        let selector = labels(&limiter.data["spec"]["workloadSelector"]);
        if !selector.is_empty() {
            out.extend(unselected("SmartLimiter", &limiter, &selector, &pods));
        }
    }
    for fence in list(embedded, FENCE, "ServiceFence").await? {
        let mut selector = labels(&fence.data["spec"]["workloadSelector"]["labels"]);
        if selector.is_empty() {
            let service = services
                .iter()
                .find(|s| s.name_any() == fence.name_any() && s.namespace() == fence.namespace());
            selector = service.map_or_else(Labels::new, |s| labels(&s.data["spec"]["selector"]));
        }
        if selector.is_empty() {
            out.push(format!(
                "ServiceFence {}: it is for no pods: no Service of its name is in the input, and spec.workloadSelector.labels is empty",
                title(&fence)
            ));
        } else {
            out.extend(unselected("ServiceFence", &fence, &selector, &pods));
        }
    }
    let entries = list(embedded, ENTRY, "ServiceEntry").await?;
    let ports: Vec<String> = services
        .iter()
        .chain(&entries)
        .flat_map(protocols)
        .collect();
    for protocol in list(embedded, PROTOCOL, "ApplicationProtocol").await? {
        let name = protocol.data["spec"]["protocol"].as_str();
        let used = |name: &str| ports.iter().any(|port| uses(port, name));
        if let Some(name) = name.filter(|name| !used(name)) {
            out.push(format!(
                "ApplicationProtocol {}: spec.protocol: no port of the input uses it: name one like tcp-metaprotocol-{name}",
                protocol.name_any()
            ));
        }
    }
    Ok(out)
}

async fn list(
    embedded: &Embedded,
    api_version: &str,
    kind: &str,
) -> anyhow::Result<Vec<DynamicObject>> {
    let Some(kind) = embedded.kind(api_version, kind) else {
        return Ok(Vec::new());
    };
    let api: Api<DynamicObject> = Api::all_with(embedded.client(), &kind.resource);
    Ok(api.list(&ListParams::default()).await?.items)
}

fn labels(value: &Value) -> Labels {
    let all = value.as_object().into_iter().flatten();
    all.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn title(object: &DynamicObject) -> String {
    format!(
        "{}/{}",
        object.namespace().unwrap_or_default(),
        object.name_any()
    )
}

fn unselected(
    kind: &str,
    object: &DynamicObject,
    selector: &Labels,
    pods: &[DynamicObject],
) -> Option<String> {
    let selects = |pod: &&DynamicObject| {
        let of_pod = pod.labels();
        pod.namespace() == object.namespace()
            && selector.iter().all(|(k, v)| of_pod.get(k) == Some(v))
    };
    let wanted: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pods.iter().find(selects).is_none().then(|| {
        format!(
            "{kind} {}: no pod of the input has the labels {}",
            title(object),
            wanted.join(",")
        )
    })
}

/// Names and protocols of ports.
fn protocols(object: &DynamicObject) -> Vec<String> {
    let ports = object.data["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten();
    let words = ports.flat_map(|port| [&port["name"], &port["appProtocol"], &port["protocol"]]);
    words
        .filter_map(Value::as_str)
        .map(str::to_lowercase)
        .collect()
}

/// Whether a port is of a protocol: `tcp-metaprotocol-NAME`, with or without a part behind it.
fn uses(port: &str, protocol: &str) -> bool {
    let (_, rest) = port.split_once("metaprotocol-").unwrap_or_default();
    let rest = rest.strip_prefix(&protocol.to_lowercase());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{manifests, standalone};

    async fn remarks_of(text: &str) -> Vec<String> {
        let embedded = standalone::embedded().unwrap();
        for document in manifests::parse(Path::new("in.yaml"), text).unwrap() {
            standalone::load(&embedded, &document).unwrap();
        }
        remarks(&embedded).await.unwrap()
    }

    const ALL: &str = "
apiVersion: microservice.slime.io/v1alpha2
kind: SmartLimiter
metadata: {name: l, namespace: shop}
spec: {workloadSelector: {app: l}, sets: {_base: {descriptor: [{condition: 'true', action: {quota: '1', fill_interval: {seconds: 1}}}]}}}
---
apiVersion: microservice.slime.io/v1alpha1
kind: ServiceFence
metadata: {name: f, namespace: shop}
spec: {enable: true, workloadSelector: {labels: {app: f}}}
---
apiVersion: microservice.slime.io/v1alpha1
kind: ServiceFence
metadata: {name: s, namespace: shop}
spec: {enable: true}
---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: p}
spec: {protocol: qq, codec: c}
";

    #[tokio::test]
    async fn fault_o30_objects_that_lead_nowhere_say_so() {
        let found = remarks_of(ALL).await.join("\n");
        for part in [
            "SmartLimiter shop/l: no pod of the input has the labels app=l",
            "ServiceFence shop/f: no pod of the input has the labels app=f",
            "ServiceFence shop/s: it is for no pods",
            "ApplicationProtocol p: spec.protocol: no port",
        ] {
            assert!(found.contains(part), "{part}: {found}");
        }
        let pod = |app: &str, namespace: &str| {
            format!(
                "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {app}, namespace: {namespace}, labels: {{app: {app}}}}}}}\n"
            )
        };
        let service = "---\n{apiVersion: v1, kind: Service, metadata: {name: s, namespace: shop}, spec: {selector: {app: f}, ports: [{name: tcp-metaprotocol-qq-x, port: 1}]}}\n";
        let whole = [ALL, &pod("l", "shop"), &pod("f", "shop"), service].concat();
        assert_eq!(remarks_of(&whole).await, Vec::<String>::new());
        let elsewhere = [ALL, &pod("l", "other"), &pod("f", "shop"), service].concat();
        assert_eq!(remarks_of(&elsewhere).await.len(), 1);
        let near = whole.replace("metaprotocol-qq-x", "metaprotocol-qqq");
        assert_eq!(remarks_of(&near).await.len(), 1);
    }
}
