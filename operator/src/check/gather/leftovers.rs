//! Slime's and Aeraki's objects, and webhooks.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, RuleWithOperations, ServiceReference,
    ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};

use super::super::facts::{Asked, Leftovers, Webhook};
use super::api::{ask, each};
use super::operator::ready_endpoints;
use super::place;

/// Label of Aeraki's controller.
const AERAKI: &str = "app=aeraki";
/// Istio's kinds that Trimtab writes.
const ISTIO: &str = "networking.istio.io";
const ISTIO_PLURALS: [&str; 5] = [
    "destinationrules",
    "envoyfilters",
    "serviceentries",
    "sidecars",
    "virtualservices",
];

/// What is left.
pub(super) async fn leftovers(client: &Client) -> Asked<Leftovers> {
    let mut slime_boots = Vec::new();
    let kind = GroupVersionKind::gvk("config.netease.com", "v1alpha1", "SlimeBoot");
    let boots = ApiResource::from_gvk_with_plural(&kind, "slimeboots");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &boots);
    each(&api, "", |boot| {
        let namespace = boot.namespace().unwrap_or_default();
        slime_boots.push(format!("SlimeBoot {namespace}/{}", boot.name_any()));
    })
    .await?;
    slime_boots.sort();
    let mut rivals = Vec::new();
    let api: Api<Deployment> = Api::all(client.clone());
    each(&api, AERAKI, |deployment| {
        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        if replicas != Some(0) {
            rivals.push(format!("Deployment {}", place(&deployment)));
        }
    })
    .await?;
    rivals.sort();
    Ok(Leftovers {
        slime_boots,
        rivals,
        webhooks: webhooks(client).await?,
    })
}

/// A webhook as both kinds of configurations have it.
struct Found {
    webhook: Webhook,
    service: Option<ServiceReference>,
}

async fn webhooks(client: &Client) -> Asked<Vec<Webhook>> {
    let mut found = Vec::new();
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    each(&api, "", |configuration| {
        let title = format!(
            "ValidatingWebhookConfiguration {}",
            configuration.name_any()
        );
        for webhook in configuration.webhooks.into_iter().flatten() {
            let policy = webhook.failure_policy.as_deref();
            let made = one(&title, webhook.name, policy, webhook.rules.as_deref());
            let service = webhook.client_config.service;
            found.extend(made.map(|webhook| Found { webhook, service }));
        }
    })
    .await?;
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    each(&api, "", |configuration| {
        let title = format!("MutatingWebhookConfiguration {}", configuration.name_any());
        for webhook in configuration.webhooks.into_iter().flatten() {
            let policy = webhook.failure_policy.as_deref();
            let made = one(&title, webhook.name, policy, webhook.rules.as_deref());
            let service = webhook.client_config.service;
            found.extend(made.map(|webhook| Found { webhook, service }));
        }
    })
    .await?;
    let mut out = Vec::new();
    for Found { webhook, service } in found {
        let answers = match &service {
            Some(service) => answers(client, &service.namespace, &service.name).await?,
            None => true,
        };
        let service = service.map(|service| format!("{}/{}", service.namespace, service.name));
        out.push(Webhook {
            service: service.unwrap_or_default(),
            answers,
            ..webhook
        });
    }
    out.sort();
    Ok(out)
}

/// `None`: it looks at no kinds that matter here.
fn one(
    configuration: &str,
    name: String,
    policy: Option<&str>,
    rules: Option<&[RuleWithOperations]>,
) -> Option<Webhook> {
    let rules = rules.unwrap_or_default();
    let resources: BTreeSet<String> = rules.iter().flat_map(resources).collect();
    (!resources.is_empty()).then(|| Webhook {
        configuration: configuration.to_owned(),
        name,
        resources,
        fails_closed: policy != Some("Ignore"),
        ..Webhook::default()
    })
}

fn resources(rule: &RuleWithOperations) -> Vec<String> {
    let own = trimtab_crds::manifests::trimtab_crds();
    let mut groups: BTreeSet<&str> = own.iter().map(|(_, crd)| crd.spec.group.as_str()).collect();
    groups.insert(ISTIO);
    let asked = rule.api_groups.iter().flatten().map(String::as_str);
    let asked: Vec<&str> = asked
        .filter(|group| *group == "*" || groups.contains(group))
        .collect();
    let writes = |operation: &String| ["*", "CREATE", "UPDATE"].contains(&operation.as_str());
    if !rule.operations.iter().flatten().any(writes) {
        return Vec::new();
    }
    // With the group "*" a rule may be about kinds of others alone, such as pods.
    let matters = |resource: &&String| {
        let plural = resource.split('/').next().unwrap_or_default();
        let mut plurals = own.iter().map(|(_, crd)| crd.spec.names.plural.as_str());
        plural == "*" || ISTIO_PLURALS.contains(&plural) || plurals.any(|own| own == plural)
    };
    let plurals = rule.resources.iter().flatten().filter(matters);
    plurals
        .flat_map(|plural| asked.iter().map(move |group| format!("{plural}.{group}")))
        .collect()
}

/// Whether a Service has somebody behind it.
async fn answers(client: &Client, namespace: &str, name: &str) -> Asked<bool> {
    let api: Api<Service> = Api::namespaced(client.clone(), namespace);
    let Some(service) = ask(api.get_opt(name)).await? else {
        return Ok(false);
    };
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    if kind == Some("ExternalName") {
        return Ok(true);
    }
    Ok(ready_endpoints(client, namespace, name).await? > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_webhooks_of_what_trimtab_reads_or_writes_matter() {
        let of = |rule: &Value| {
            let rule: RuleWithOperations = serde_json::from_value(rule.clone()).unwrap();
            one("V x", "x".to_owned(), Some("Fail"), Some(&[rule]))
        };
        let rule = |group: &str, operation: &str| {
            of(
                &json!({"apiGroups": [group], "apiVersions": ["*"], "operations": [operation], "resources": ["metarouters"]}),
            )
        };
        let found = rule("metaprotocol.aeraki.io", "CREATE").unwrap();
        assert!(found.fails_closed);
        assert_eq!(
            found.resources,
            ["metarouters.metaprotocol.aeraki.io".to_owned()].into()
        );
        assert!(rule("*", "*").is_some());
        assert_eq!(rule("apps", "CREATE"), None);
        assert_eq!(rule("metaprotocol.aeraki.io", "DELETE"), None);
        let pods = json!({"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["pods"]});
        assert_eq!(of(&pods), None);
    }
}
