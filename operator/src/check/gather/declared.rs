//! What the modules of a configuration declare: rights, kinds that they write, needs of objects.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::core::ApiResource;
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;
use trimtab_kit::clock::SystemClock;
use trimtab_kit::host::{Context, Host};
use trimtab_kit::needs::Needs;
use trimtab_kit::rights::Right;
use trimtab_mesh::Mesh;

use super::api::ask;
use super::rights::Scoped;
use crate::config::Config;
use crate::operator;

/// Volume and key of the chart with the configuration.
const VOLUME: &str = "config";
const KEY: &str = "config.yaml";

/// Modules that are set up and do nothing.
pub(super) struct Declared {
    host: Host,
}

impl Declared {
    /// By the configuration.
    pub(super) fn of(config: &Config, client: &Client) -> anyhow::Result<Self> {
        let clock = Arc::new(SystemClock::new());
        let mut host = Host::new(Context {
            mesh: Mesh::new(&config.mesh.domain),
            mesh_config: config.mesh.config_map().map_err(anyhow::Error::msg)?,
            offline: true,
            ..Context::new(client.clone(), clock, CancellationToken::new())
        });
        operator::set_up(config, &mut host).context("the configuration")?;
        Ok(Self { host })
    }

    /// What objects need.
    pub(super) fn needs(&self) -> Vec<&Needs> {
        let modules = self.host.modules().iter();
        modules.flat_map(|module| &module.needs).collect()
    }

    /// Kinds that modules write.
    pub(super) fn outputs(&self) -> Vec<&ApiResource> {
        let modules = self.host.modules().iter();
        modules.flat_map(|module| &module.outputs).collect()
    }

    /// Rights of the operator in `namespace`: those of modules, and those of the process.
    pub(super) fn rights(&self, config: &Config, namespace: &str) -> Vec<Scoped> {
        let modules = self.host.modules().iter();
        let of_modules = modules.flat_map(|module| module.rights.clone());
        let everywhere = |right| Scoped {
            right,
            namespace: None,
        };
        let mut out: Vec<Scoped> = Right::merged(of_modules)
            .into_iter()
            .map(everywhere)
            .collect();
        let review = |group: &str, resource: &str, verb| Right {
            group: group.to_owned(),
            resource: resource.to_owned(),
            name: String::new(),
            verbs: BTreeSet::from([verb]),
        };
        let inside = |namespace: &str, right| Scoped {
            right,
            namespace: Some(namespace.to_owned()),
        };
        if config.metrics.metrics_server.is_some() {
            out.push(everywhere(review("metrics.k8s.io", "pods", "list")));
        }
        if let Some(tokens) = &config.xds.tokens {
            out.push(everywhere(review(
                "authentication.k8s.io",
                "tokenreviews",
                "create",
            )));
            let authority = &tokens.authority;
            let secret = Right::on::<Secret>(&["get", "update"]).named(&authority.name);
            out.push(inside(&authority.namespace, secret));
            out.push(inside(
                &authority.namespace,
                Right::on::<Secret>(&["create"]),
            ));
        }
        let election = &config.leader_election;
        if election.enabled {
            let lease = Right::on::<Lease>(&["get", "list", "watch", "update"]);
            out.push(inside(&election.namespace, lease.named(&election.name)));
            out.push(inside(&election.namespace, Right::on::<Lease>(&["create"])));
            out.push(inside(namespace, Right::on::<Pod>(&["patch"])));
        }
        out
    }
}

/// The configuration that the chart has installed.
pub(super) async fn installed(client: &Client, deployment: &Deployment) -> Result<Config, String> {
    let namespace = deployment.namespace().unwrap_or_default();
    let pod = deployment
        .spec
        .as_ref()
        .and_then(|s| s.template.spec.as_ref());
    let mut volumes = pod
        .and_then(|pod| pod.volumes.as_ref())
        .into_iter()
        .flatten();
    let volume = volumes.find(|volume| volume.name == VOLUME);
    let name = volume.and_then(|volume| Some(volume.config_map.as_ref()?.name.clone()));
    let name = name.unwrap_or_else(|| deployment.name_any());
    let title = format!("ConfigMap {namespace}/{name}");
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let found = ask(api.get(&name))
        .await
        .map_err(|why| format!("{title}: {why}"))?;
    let text = found.data.unwrap_or_default().remove(KEY);
    let text = text.ok_or_else(|| format!("{title} has no {KEY}"))?;
    let config = Config::parse(&text).map_err(|error| format!("{title}: {error:#}"))?;
    Ok(Config {
        in_cluster: true,
        ..config
    })
}
