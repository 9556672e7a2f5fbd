//! Asks a cluster. What cannot be read is told as such, and stops nothing else.

mod api;
mod declared;
mod installation;
mod leftovers;
mod mesh;
mod metrics;
mod objects;
mod operator;
mod platform;
mod rights;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Client, ResourceExt};

use self::declared::Declared;
use super::facts::Facts;
use crate::config::Config;
use crate::reach::{self, Server};
use crate::version::Version;

/// Gathers all facts. An error: there is nothing to check.
pub(super) async fn gather(
    client: Client,
    namespace: Option<&str>,
    config: Option<&Path>,
    server: &Server,
) -> anyhow::Result<Facts> {
    let clock = platform::Clock::read(&client).await?;
    let found = reach::deployments(&client, namespace).await;
    let found = found.context("the operator cannot be looked for: name its namespace with -n")?;
    let deployment = found.into_iter().next();
    let given = config.map(Config::load).transpose()?;
    let (config, unread) = match (&given, &deployment) {
        (Some(given), _) => (given.clone(), None),
        (None, Some(deployment)) => match declared::installed(&client, deployment).await {
            Ok(config) => (config, None),
            Err(why) => (Config::default(), Some(why)),
        },
        (None, None) => (Config::default(), None),
    };
    let declared = Declared::of(&config, &client)?;
    let objects = objects::objects(&client, &declared.needs()).await;
    let mesh = mesh::Mesh::read(&client).await;
    let written: BTreeSet<String> = objects.namespaces.keys().cloned().collect();
    let subject = rights::Subject::of(&client, deployment.as_ref(), namespace).await;
    let rights = match unread {
        Some(why) => Err(why),
        None => {
            rights::rights(
                &client,
                &subject,
                &declared.rights(&config, subject.namespace()),
                &written,
            )
            .await
        }
    };
    let operator = operator::operator(&client, deployment.as_ref(), &config, server, &clock).await;
    Ok(Facts {
        client: Version::own(),
        kubernetes: clock.facts(),
        istiods: platform::istiods(&client).await,
        crds: installation::crds(&client).await,
        written_kinds: installation::kinds(&client, &declared.outputs()).await,
        rights,
        metrics: match &given {
            Some(given) => metrics::queries(&client, given, &mesh).await,
            None => None,
        },
        metrics_api: metrics::api(&client, &config).await,
        operator,
        namespaces: mesh::namespaces(&client, &objects.namespaces, &mesh).await,
        proxies: mesh.proxies(),
        needs: objects.needs,
        objects: objects.by_kind,
        leftovers: leftovers::leftovers(&client).await,
    })
}

/// `NAMESPACE/NAME`.
fn place(deployment: &Deployment) -> String {
    format!(
        "{}/{}",
        deployment.namespace().unwrap_or_default(),
        deployment.name_any()
    )
}
