//! What can be told of an object when no operator answers: what its status says, and since when.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use trimtab_crds::manifests::trimtab_crds;
use trimtab_kit::describe::{ConditionView, conditions};
use trimtab_kit::module::DescribeRequest;

use crate::reach::{self, CHART, CONTAINER};

/// Time limit of each question to the API server.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An installation of Trimtab, as its Deployment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Installation {
    /// `namespace/name`.
    name: String,
    ready: i32,
    wanted: i32,
}

/// The text about an object; none: there is no cluster to ask, or no such object.
pub(crate) async fn describe(
    kind: &str,
    request: &DescribeRequest,
    asked: &str,
) -> anyhow::Result<String> {
    let config = kube::Config::infer().await?;
    let client = Client::try_from(config)?;
    let object = find(&client, kind, request).await?;
    let installed = installations(&client).await;
    Ok(text(&object, asked, installed.as_deref(), Timestamp::now()))
}

/// Resources that a word may mean, by the names in our CRDs. A kind may be in two groups, of which one has the short name.
fn resources(word: &str) -> Vec<ApiResource> {
    let word = word.to_lowercase();
    let crds = trimtab_crds();
    let found = crds.iter().map(|(_, crd)| &crd.spec.names).find(|names| {
        let short = names.short_names.iter().flatten();
        let mut all = short.chain([&names.plural]).chain(&names.singular);
        all.any(|name| *name == word) || names.kind.to_lowercase() == word
    });
    let kind = found.map(|names| &names.kind);
    let same = crds
        .iter()
        .filter(|(_, crd)| Some(&crd.spec.names.kind) == kind);
    let mut out = Vec::new();
    for (_, crd) in same {
        for version in crd.spec.versions.iter().filter(|v| v.served) {
            let names = &crd.spec.names;
            let gvk = GroupVersionKind::gvk(&crd.spec.group, &version.name, &names.kind);
            out.push(ApiResource::from_gvk_with_plural(&gvk, &names.plural));
        }
    }
    out
}

async fn find(
    client: &Client,
    kind: &str,
    request: &DescribeRequest,
) -> anyhow::Result<DynamicObject> {
    let DescribeRequest {
        namespace, name, ..
    } = request;
    let resources = resources(kind);
    anyhow::ensure!(
        !resources.is_empty(),
        "without an operator only objects of Trimtab's own kinds are told, such as smartlimiter, and not {kind}"
    );
    for resource in resources.iter().rev() {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
        let answer = tokio::time::timeout(TIMEOUT, api.get_opt(name)).await;
        let answer = answer.context("the API server does not answer")?;
        match answer {
            Ok(Some(mut object)) => {
                // The API server leaves them out where lists are read.
                object.types = Some(kube::core::TypeMeta {
                    api_version: resource.api_version.clone(),
                    kind: resource.kind.clone(),
                });
                return Ok(object);
            }
            // The CRD may not be installed.
            Ok(None) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("the API server has no {kind} {namespace}/{name} either")
}

/// Deployments of Trimtab, as all commands find them; none: they may not be read.
async fn installations(client: &Client) -> Option<Vec<Installation>> {
    let found = reach::deployments(client, None).await.ok()?;
    // That the usual namespace has none says nothing of those that may not be listed.
    if found.is_empty() {
        reach::deployments_in(client, None).await.ok()?;
    }
    let installation = |deployment: &Deployment| Installation {
        name: format!(
            "{}/{}",
            deployment.namespace().unwrap_or_default(),
            deployment.name_any()
        ),
        ready: deployment
            .status
            .as_ref()
            .and_then(|status| status.ready_replicas)
            .unwrap_or_default(),
        wanted: deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1),
    };
    Some(found.iter().map(installation).collect())
}

/// Who wrote the status last, and when, as the API server has noted it.
fn last_written(object: &DynamicObject) -> Option<(Timestamp, String)> {
    let fields = object.metadata.managed_fields.iter().flatten();
    let of_status = fields.filter(|f| f.subresource.as_deref() == Some("status"));
    let times = of_status.filter_map(|f| {
        let time = f.time.as_ref()?.0;
        Some((time, f.manager.clone().unwrap_or_default()))
    });
    times.max()
}

fn text(
    object: &DynamicObject,
    asked: &str,
    installed: Option<&[Installation]>,
    now: Timestamp,
) -> String {
    let kind = object.types.as_ref().map_or("", |types| &types.kind);
    let namespace = object.namespace().unwrap_or_default();
    let (answer, why, fix) = whether_it_runs(asked, installed);
    let mut out = format!(
        "{kind} {namespace}/{}: {answer}: {why}\n  fix: {fix}\n",
        object.name_any()
    );
    // A string takes whatever is written to it.
    let status = &object.data["status"];
    let _ = match last_written(object) {
        Some((at, who)) => {
            let ago = now.as_second() - at.as_second();
            writeln!(
                out,
                "  status last written {at} by {who}, {} ago; what follows is of then",
                age(ago)
            )
        }
        None if status.is_null() => {
            writeln!(out, "  it never had a status: Trimtab has not seen it")
        }
        None => writeln!(
            out,
            "  the API server does not say when the status was written"
        ),
    };
    for field in ["state", "limit", "reason"] {
        if let Some(value) = status[field].as_str() {
            let _ = writeln!(out, "  {field}: {value}");
        }
    }
    let observed = status["observedGeneration"].as_i64();
    let generation = object.metadata.generation;
    if observed.is_some() && observed != generation {
        out.push_str("  the object was changed since: its newest version was never looked at\n");
    }
    out.push_str(match installed {
        Some(all) if all.iter().any(|i| i.ready > 0) => "",
        Some(_) => "  proxies keep what they have; those that start now have no limits over ECDS, and changes reach nobody\n",
        None => "  where it does not run, proxies keep what they have; those that start then have no limits over ECDS, and changes reach nobody\n",
    });
    let all: Vec<Condition> =
        serde_json::from_value(status["conditions"].clone()).unwrap_or_default();
    let all: Vec<ConditionView> = all.iter().map(ConditionView::from).collect();
    out.push_str(&conditions(&all));
    out
}

fn whether_it_runs(
    asked: &str,
    installed: Option<&[Installation]>,
) -> (&'static str, String, String) {
    const FORWARD: &str = "forward the port and name it with --server";
    let Some(installed) = installed else {
        return (
            "NOBODY ANSWERS",
            format!("no operator answers at {asked}, and Deployments may not be listed"),
            format!("see that Trimtab runs; {FORWARD}"),
        );
    };
    let told: Vec<String> = installed
        .iter()
        .map(|i| {
            format!(
                "Deployment {}: {} of {} replicas Ready",
                i.name, i.ready, i.wanted
            )
        })
        .collect();
    let told = told.join(", ");
    let Some(first) = installed.first() else {
        return (
            "TRIMTAB DOES NOT RUN",
            format!(
                "nobody decides or changes anything; no Deployment with the label {CHART} has a container {CONTAINER}"
            ),
            format!("install the chart; if Trimtab runs in another way, {FORWARD}"),
        );
    };
    let (namespace, name) = first.name.split_once('/').unwrap_or_default();
    if installed.iter().all(|i| i.ready == 0) {
        return (
            "TRIMTAB DOES NOT RUN",
            format!("nobody decides or changes anything ({told})"),
            format!(
                "kubectl -n {namespace} describe deployment {name}; kubectl -n {namespace} logs deployment/{name} --previous"
            ),
        );
    }
    (
        "NOBODY ANSWERS HERE",
        format!("Trimtab runs ({told}), but nobody answers at {asked}"),
        format!("kubectl -n {namespace} port-forward deployment/{name} 8080, and ask again"),
    )
}

fn age(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(status: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "microservice.slime.io/v1alpha2", "kind": "SmartLimiter",
            "metadata": {"namespace": "shop", "name": "cart", "generation": 3, "managedFields": [
                {"manager": "kubectl", "operation": "Apply", "time": "2026-11-30T12:00:00Z"},
                {"manager": "trimtab/limiter", "operation": "Apply", "subresource": "status", "time": "2026-11-30T10:00:00Z"},
            ]},
            "status": status,
        }))
        .unwrap()
    }

    fn told(installed: Option<&[Installation]>) -> String {
        let status = json!({"state": "Limiting", "limit": "10/60s per pod", "reason": "true holds; quota 10", "observedGeneration": 2,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "the limiter works", "lastTransitionTime": "2026-11-30T09:00:00Z"}]});
        let now = "2026-11-30T13:00:00Z".parse().unwrap();
        text(&object(&status), "http://127.0.0.1:8080", installed, now)
    }

    #[test]
    fn a_dead_operator_is_the_first_line() {
        let down = Installation {
            name: "istio-system/trimtab".to_owned(),
            ready: 0,
            wanted: 2,
        };
        let wanted = [
            "SmartLimiter shop/cart: TRIMTAB DOES NOT RUN: nobody decides or changes anything (Deployment istio-system/trimtab: 0 of 2 replicas Ready)",
            "  fix: kubectl -n istio-system describe deployment trimtab; kubectl -n istio-system logs deployment/trimtab --previous",
            "  status last written 2026-11-30T10:00:00Z by trimtab/limiter, 3h ago; what follows is of then",
            "  state: Limiting",
            "  limit: 10/60s per pod",
            "  reason: true holds; quota 10",
            "  the object was changed since: its newest version was never looked at",
            "  proxies keep what they have; those that start now have no limits over ECDS, and changes reach nobody",
            "  conditions:",
            "    Ready True Ready: the limiter works",
        ];
        let text = told(Some(std::slice::from_ref(&down)));
        assert_eq!(text.lines().collect::<Vec<_>>(), wanted);
        let running = Installation { ready: 1, ..down };
        let text = told(Some(&[running]));
        assert!(text.contains("NOBODY ANSWERS HERE: Trimtab runs"), "{text}");
        assert!(text.contains("port-forward deployment/trimtab"), "{text}");
        assert!(!text.contains("changes reach nobody"), "{text}");
        assert!(
            told(None).contains("NOBODY ANSWERS: no operator answers at http://127.0.0.1:8080")
        );
        assert!(told(Some(&[])).contains("install the chart"));
    }

    #[test]
    fn an_object_that_was_never_seen_says_so() {
        let mut object = object(&Value::Null);
        object.metadata.managed_fields = None;
        let text = text(&object, "x", None, Timestamp::UNIX_EPOCH);
        assert!(text.contains("it never had a status"), "{text}");
    }

    #[test]
    fn kinds_have_all_their_names() {
        let groups = |word: &str| {
            let all = resources(word);
            all.iter().map(|r| r.group.clone()).collect::<Vec<_>>()
        };
        let both = ["microservice.netease.com", "microservice.slime.io"].map(str::to_owned);
        for word in ["smartlimiter", "smartlimiters", "SmartLimiter", "sml"] {
            assert_eq!(groups(word), both, "{word}");
        }
        assert_eq!(groups("rsvc"), ["redis.aeraki.io"]);
        assert_eq!(groups("dap"), ["dubbo.aeraki.io"]);
        assert!(groups("pod").is_empty());
    }
}
