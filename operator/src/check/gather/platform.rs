//! The API server with its clock, and istiods.

use std::time::Duration;

use anyhow::Context as _;
use axum::http::{Request, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use k8s_openapi::api::apps::v1::Deployment;
use kube::client::Body;
use kube::{Api, Client, ResourceExt};
use trimtab_kit::istiod::Release;

use super::super::facts::{Asked, Istiod, Kubernetes};
use super::api::each;
use super::place;

/// Time limit of the first question, which tells whether there is a cluster.
const FIRST: Duration = Duration::from_secs(20);
/// Label of istiod's Deployments and pods.
const ISTIOD: &str = "app=istiod";
/// Label with a revision.
pub(super) const REVISION: &str = "istio.io/rev";

/// What the API server says of itself, and when.
pub(super) struct Clock {
    version: String,
    /// How many seconds it is ahead of the clock here.
    ahead: Option<i64>,
}

impl Clock {
    /// Asks for the version.
    pub(super) async fn read(client: &Client) -> anyhow::Result<Self> {
        let asked = async {
            let request = Request::get("/version").body(Body::empty())?;
            let begun = Timestamp::now();
            let answer = client.send(request).await?;
            let date = answer.headers().get(header::DATE);
            let date = date.and_then(|date| rfc2822::parse(date.to_str().ok()?).ok());
            let middle = begun + begun.duration_until(Timestamp::now()) / 2;
            let ahead = date.map(|date| date.timestamp().as_second() - middle.as_second());
            anyhow::Ok(Self {
                version: client.apiserver_version().await?.git_version,
                ahead,
            })
        };
        let answer = tokio::time::timeout(FIRST, asked).await;
        let answer = answer
            .context("no answer in time")
            .and_then(|answer| answer);
        answer.context("the API server cannot be asked for its version")
    }

    pub(super) fn facts(&self) -> Kubernetes {
        Kubernetes {
            version: self.version.clone(),
            clock_ahead: self.ahead,
        }
    }

    /// How many seconds a clock that says `now` is ahead of the API server's.
    pub(super) fn compared(&self, now: Timestamp) -> Option<i64> {
        let here = now.as_second() - Timestamp::now().as_second();
        self.ahead.map(|ahead| here - ahead)
    }
}

/// Control planes, sorted by place.
pub(super) async fn istiods(client: &Client) -> Asked<Vec<Istiod>> {
    let api: Api<Deployment> = Api::all(client.clone());
    let mut out = Vec::new();
    each(&api, ISTIOD, |deployment| out.push(istiod(&deployment))).await?;
    out.sort();
    Ok(out)
}

fn istiod(deployment: &Deployment) -> Istiod {
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let labels = template.and_then(|t| t.metadata.as_ref()?.labels.as_ref());
    let revision = labels.and_then(|labels| labels.get(REVISION));
    let revision = revision.or_else(|| deployment.labels().get(REVISION));
    let pod = template.and_then(|template| template.spec.as_ref());
    let mut images = pod
        .iter()
        .flat_map(|pod| &pod.containers)
        .filter_map(|c| c.image.as_deref());
    Istiod {
        place: place(deployment),
        revision: revision.cloned().unwrap_or_default(),
        version: images.find_map(version_of),
    }
}

/// The version in the tag of an image of Istio's.
pub(super) fn version_of(image: &str) -> Option<String> {
    let name = image.split('@').next()?.rsplit('/').next()?;
    let (_, tag) = name.split_once(':')?;
    Release::read(tag).map(|_| tag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_a_tag() {
        for (image, version) in [
            ("docker.io/istio/pilot:1.31.0", Some("1.31.0")),
            (
                "localhost:5000/istio/proxyv2:1.30.4-distroless",
                Some("1.30.4-distroless"),
            ),
            ("istio/proxyv2:1.29.2@sha256:00", Some("1.29.2")),
            ("localhost:5000/istio/pilot", None),
            ("istio/pilot@sha256:00", None),
            ("istio/pilot:latest", None),
        ] {
            assert_eq!(version_of(image).as_deref(), version, "{image}");
        }
    }
}
