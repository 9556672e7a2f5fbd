//! How commands reach a running operator: at an address, or in a cluster by a port-forward of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use trimtab_kit::api::ErrorBody;
use trimtab_kit::lease::LEADER_LABEL;

/// Where an operator is without a cluster, or behind a port-forward of somebody else.
pub(crate) const HERE: &str = "http://127.0.0.1:8080";
/// Time limit of a question to an operator.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Whether somebody answers on loopback is known at once.
const NEAR: Duration = Duration::from_secs(2);
/// Time limit of a question to the API server.
const CLUSTER: Duration = Duration::from_secs(10);
/// Label of the chart's objects.
pub(crate) const CHART: &str = "app.kubernetes.io/part-of=trimtab";
/// Container of the operator, and its port.
pub(crate) const CONTAINER: &str = "trimtab";
const PORT: &str = "http";

/// Where the running operator is.
#[derive(Clone, Debug, Default, Args)]
pub struct Server {
    /// HTTP address of the operator [default: http://127.0.0.1:8080 if one answers there, else a pod of the cluster, by a
    /// port-forward of the command's own]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

/// An operator that answers.
#[derive(Debug)]
pub struct Reached {
    url: Url,
    http: reqwest::Client,
    forward: Option<Forward>,
}

impl Server {
    /// At a URL, or where one is found.
    pub fn at(server: Option<String>) -> Self {
        Self { server }
    }

    /// The address that was asked for.
    pub fn url(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// Finds the operator.
    pub async fn open(&self) -> anyhow::Result<Reached> {
        if let Some(url) = &self.server {
            return Reached::at(url);
        }
        let here = Reached::at(HERE)?;
        if here.is_operator().await {
            return Ok(here);
        }
        let nobody = format!("no operator answers at {HERE}");
        let hint = "run one, or name its address with --server";
        let Ok(config) = kube::Config::infer().await else {
            bail!("{nobody}, and no cluster is known: {hint}");
        };
        let context = || format!("{nobody}, and none is found in the cluster: {hint}");
        let client = Client::try_from(config).with_context(context)?;
        let found = in_cluster(client, None).await.with_context(context)?;
        found.with_context(context)
    }
}

/// The operator of a cluster, by a port-forward to its leader, or to another pod; `None`: it is not installed.
pub async fn in_cluster(
    client: Client,
    namespace: Option<&str>,
) -> anyhow::Result<Option<Reached>> {
    let Some(deployment) = deployments(&client, namespace).await?.into_iter().next() else {
        return Ok(None);
    };
    let pods = pods_of(&client, &deployment).await?;
    let place = format!(
        "{}/{}",
        deployment.namespace().unwrap_or_default(),
        deployment.name_any()
    );
    let Some(pod) = best(&pods) else {
        bail!("Deployment {place} has no pod that runs");
    };
    Ok(Some(Reached::by_forward(client, pod).await?))
}

/// Deployments that run the operator, sorted by place. Without a namespace, all namespaces; where these may not be listed,
/// the usual one.
pub(crate) async fn deployments(
    client: &Client,
    namespace: Option<&str>,
) -> anyhow::Result<Vec<Deployment>> {
    match deployments_in(client, namespace).await {
        Err(_) if namespace.is_none() => {
            deployments_in(client, Some(trimtab_crds::NAMESPACE)).await
        }
        found => found,
    }
}

/// As [`deployments`], of this namespace, or of all, and an error where they may not be listed.
pub(crate) async fn deployments_in(
    client: &Client,
    namespace: Option<&str>,
) -> anyhow::Result<Vec<Deployment>> {
    let api: Api<Deployment> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let asked = ListParams::default().labels(CHART);
    let found = soon(api.list(&asked)).await?.context("list Deployments")?;
    let mut found: Vec<Deployment> = found.items.into_iter().filter(is_operator).collect();
    found.sort_by_key(|d| (d.namespace(), d.name_any()));
    Ok(found)
}

/// The pods of a Deployment, sorted by name.
pub(crate) async fn pods_of(client: &Client, deployment: &Deployment) -> anyhow::Result<Vec<Pod>> {
    let namespace = deployment.namespace().unwrap_or_default();
    let spec = deployment.spec.as_ref();
    let labels = spec.and_then(|spec| spec.selector.match_labels.clone());
    let labels: Vec<String> = labels
        .unwrap_or_default()
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let asked = ListParams::default().labels(&labels.join(","));
    let mut pods = soon(api.list(&asked)).await?.context("list pods")?.items;
    pods.sort_by_key(ResourceExt::name_any);
    Ok(pods)
}

fn is_operator(deployment: &Deployment) -> bool {
    let pod = deployment
        .spec
        .as_ref()
        .and_then(|s| s.template.spec.as_ref());
    let containers = pod.map(|pod| pod.containers.as_slice()).unwrap_or_default();
    containers.iter().any(|c| c.name == CONTAINER)
}

/// The leader, or a pod that is ready, or one that runs.
fn best(pods: &[Pod]) -> Option<&Pod> {
    let runs = |pod: &&Pod| {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
    };
    let rank = |pod: &&Pod| (pod.labels().contains_key(LEADER_LABEL), is_ready(pod));
    let running = pods.iter().filter(runs);
    running.max_by_key(|pod| (rank(pod), std::cmp::Reverse(pod.name_any())))
}

/// Whether a pod has the condition Ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

/// A question to the API server, within its time limit.
async fn soon<T>(asked: impl Future<Output = T>) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(CLUSTER, asked).await;
    answer.context("the API server does not answer")
}

impl Reached {
    fn at(url: &str) -> anyhow::Result<Self> {
        let example = || format!("--server {url}: write for example {HERE}");
        let parsed = Url::parse(url).with_context(example)?;
        anyhow::ensure!(!parsed.cannot_be_a_base(), example());
        Ok(Self {
            url: parsed,
            http: reqwest::Client::builder().timeout(TIMEOUT).build()?,
            forward: None,
        })
    }

    async fn by_forward(client: Client, pod: &Pod) -> anyhow::Result<Self> {
        let forward = Forward::open(client, pod).await?;
        let local = Self::at(&format!("http://127.0.0.1:{}", forward.port))?;
        Ok(Self {
            forward: Some(forward),
            ..local
        })
    }

    /// Whether it is Trimtab that answers: other programs like the port too.
    async fn is_operator(&self) -> bool {
        #[derive(Deserialize)]
        struct Index {
            #[serde(rename = "version")]
            _version: String,
            #[serde(rename = "openapi")]
            _openapi: String,
        }
        let asked = self.get::<Index>(&["api", "v1"]);
        matches!(tokio::time::timeout(NEAR, asked).await, Ok(Ok(_)))
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        match &self.forward {
            Some(forward) => forward.pod.clone(),
            None => self.url.to_string(),
        }
    }

    /// What the operator answers at a path; the inner error says that there is no such thing.
    pub async fn ask(
        &self,
        path: &[&str],
        query: &BTreeMap<String, String>,
    ) -> anyhow::Result<Result<reqwest::Response, String>> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("--server {}: an http URL is needed", self.url))?
            .pop_if_empty()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let answer = self.http.get(url).send().await;
        let answer = answer.map_err(|error| self.silent(error))?;
        if answer.status() == StatusCode::NOT_FOUND {
            let text = answer.text().await?;
            let body = serde_json::from_str::<ErrorBody>(&text);
            return Ok(Err(body.map_or(text, |body| body.error)));
        }
        Ok(Ok(answer.error_for_status()?))
    }

    /// The JSON at a path.
    pub async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> anyhow::Result<T> {
        let answer = self.ask(path, &BTreeMap::new()).await?;
        Ok(answer.map_err(anyhow::Error::msg)?.json().await?)
    }

    /// Whether an error of [`Self::ask`] means that nobody answers.
    pub(crate) fn is_silence(&self, error: &anyhow::Error) -> bool {
        let causes = || {
            error
                .chain()
                .filter_map(|e| e.downcast_ref::<reqwest::Error>())
        };
        // A status is an answer, also through a port-forward.
        let answered = causes().any(reqwest::Error::is_status);
        !answered && (self.forward.is_some() || causes().any(|e| e.is_connect() || e.is_timeout()))
    }

    fn silent(&self, error: reqwest::Error) -> anyhow::Error {
        let failed = self.forward.as_ref().and_then(|f| f.failed.lock().clone());
        let error = match failed {
            Some(why) => anyhow::anyhow!("the port-forward failed: {why}"),
            None => error.without_url().into(),
        };
        error.context(format!(
            "no operator answers at {}: run one, or name its address with --server",
            self.place()
        ))
    }
}

/// A local port that leads to the HTTP port of a pod until it is dropped.
#[derive(Debug)]
struct Forward {
    port: u16,
    pod: String,
    /// Why the last connection failed.
    failed: Arc<Mutex<Option<String>>>,
    serving: JoinHandle<()>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Forward {
    async fn open(client: Client, pod: &Pod) -> anyhow::Result<Self> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let title = format!("Pod {namespace}/{name}");
        let to = http_port(pod).with_context(|| format!("{title} has no port named {PORT}"))?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let failed = Arc::<Mutex<Option<String>>>::default();
        let (api, told): (Api<Pod>, _) = (Api::namespaced(client, &namespace), failed.clone());
        let serving = tokio::spawn(async move {
            while let Ok((local, _)) = listener.accept().await {
                let (api, name, told) = (api.clone(), name.clone(), told.clone());
                tokio::spawn(async move {
                    let carried = carry(local, &api, &name, to).await;
                    *told.lock() = carried.err().map(|error| format!("{error:#}"));
                });
            }
        });
        Ok(Self {
            port,
            pod: title,
            failed,
            serving,
        })
    }
}

async fn carry(
    mut local: tokio::net::TcpStream,
    api: &Api<Pod>,
    name: &str,
    port: u16,
) -> anyhow::Result<()> {
    let mut forwarder = soon(api.portforward(name, &[port])).await??;
    let refused = forwarder.take_error(port);
    let stream = forwarder.take_stream(port);
    let mut stream = stream.context("the API server gives no stream")?;
    tokio::io::copy_bidirectional(&mut local, &mut stream).await?;
    drop(stream);
    if let Some(refused) = refused
        && let Ok(Some(why)) = tokio::time::timeout(NEAR, refused).await
    {
        bail!("{why}");
    }
    Ok(())
}

fn http_port(pod: &Pod) -> Option<u16> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|c| c.ports.iter().flatten());
    let port = ports.find(|p| p.name.as_deref() == Some(PORT))?;
    u16::try_from(port.container_port).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, labels: &serde_json::Value, ready: &str) -> Pod {
        let pod = json!({
            "metadata": {"name": name, "namespace": "istio-system", "labels": labels},
            "spec": {"containers": [
                {"name": "proxy", "ports": [{"containerPort": 15090}]},
                {"name": "trimtab", "ports": [{"name": "http", "containerPort": 8081}]},
            ]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn the_leader_is_asked_or_a_pod_that_is_ready() {
        let none = json!({});
        let (a, b) = (pod("a", &none, "False"), pod("b", &none, "True"));
        let leader = pod("c", &json!({LEADER_LABEL: "trimtab"}), "False");
        let name = |pods: &[Pod]| best(pods).map(ResourceExt::name_any);
        assert_eq!(name(&[a.clone(), b.clone()]).as_deref(), Some("b"));
        assert_eq!(name(&[a.clone(), b, leader]).as_deref(), Some("c"));
        assert_eq!(
            name(&[a.clone(), pod("z", &none, "False")]).as_deref(),
            Some("a")
        );
        assert_eq!(name(&[]), None);
        assert_eq!(http_port(&a), Some(8081));
    }

    #[test]
    fn an_address_is_a_url() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for wrong in ["here", "mailto:x", ""] {
            let error = format!("{:#}", Reached::at(wrong).unwrap_err());
            assert!(
                error.contains("write for example http://127.0.0.1:8080"),
                "{error}"
            );
        }
        assert_eq!(Reached::at("http://h:1/x").unwrap().place(), "http://h:1/x");
    }
}
