//! `trimtab describe` and `trimtab xds`: what applies and why, from a running operator or from files.

mod fence;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use serde_json::Value;
use trimtab_kit::clock::SystemClock;
use trimtab_metaprotocol::engine::{Engine, RouterView};
use trimtab_metaprotocol::explain::{Explanation, explain};
use trimtab_metaprotocol::object::{Kind, ObjectKey};
use trimtab_xds::ResourceCache;

use crate::config::Config;
use crate::nodes::{self, Node};
use crate::{manifests, standalone, translate};

/// Time limit of a question to an operator.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the running operator is.
#[derive(Clone, Debug, Args)]
pub struct Server {
    /// HTTP address of the operator; in a cluster forward its port first
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: String,
}

/// What to describe.
#[derive(Clone, Debug, Subcommand)]
pub enum What {
    /// A MetaRouter: what is made of it, and which way a call takes
    #[command(alias = "mr")]
    Metarouter(RouterArgs),
    /// A ServiceFence: what its workload may reach, why, and what was learned
    #[command(alias = "svf")]
    Servicefence(fence::NameArgs),
    /// A pod: the ServiceFences that it belongs to
    Pod(fence::NameArgs),
}

/// A MetaRouter.
#[derive(Clone, Debug, Args)]
pub struct RouterArgs {
    /// Name
    name: String,
    /// Namespace
    #[arg(short = 'n', long, default_value = "default")]
    namespace: String,
    /// Attribute of a call, e.g. method=sayHello: shows the way of such a call
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
    /// Ask no operator: read these files or folders
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// With -f: configuration file
    #[arg(long, requires = "files")]
    config: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
}

/// Questions about the xDS server.
#[derive(Clone, Debug, Subcommand)]
pub enum XdsCommand {
    /// Connected proxies, with the numbers of resources that they hold, wait for and refuse
    Nodes {
        /// The operator
        #[command(flatten)]
        server: Server,
    },
    /// What a proxy has against what it should have; exit code 1 when they differ
    Diff {
        /// Node id, as `trimtab xds nodes` prints it
        node: String,
        /// The operator
        #[command(flatten)]
        server: Server,
    },
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| {
            format!("\"{text}\" is not NAME=VALUE: write for example method=sayHello")
        })?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Server {
    /// The JSON answer; `None`: there is no such thing.
    async fn ask<T: DeserializeOwned>(&self, path: &[&str]) -> anyhow::Result<Result<T, String>> {
        let mut url = reqwest::Url::parse(&self.server).with_context(|| {
            format!(
                "--server {}: write for example http://127.0.0.1:8080",
                self.server
            )
        })?;
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("--server {}: an http URL is needed", self.server))?
            .pop_if_empty()
            .extend(["api", "v1"])
            .extend(path);
        let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        let answer = client.get(url).send().await.with_context(|| {
            format!(
                "no operator answers at {}: run one, or name its address with --server",
                self.server
            )
        })?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(Err(answer.text().await?.trim().to_owned()));
        }
        Ok(Ok(answer.error_for_status()?.json().await?))
    }
}

/// Answers `trimtab describe`.
pub async fn describe(what: What) -> anyhow::Result<String> {
    let args = match what {
        What::Metarouter(args) => args,
        What::Servicefence(args) => return fence::fence(args).await,
        What::Pod(args) => return fence::pod(args).await,
    };
    let view = if args.files.is_empty() {
        let path = ["metaprotocol", "routers", &args.namespace, &args.name];
        match args.server.ask::<RouterView>(&path).await? {
            Ok(view) => view,
            Err(text) => bail!("{text}"),
        }
    } else {
        offline(&args).await?
    };
    Ok(text(&view, &args.attributes.into_iter().collect()))
}

/// Answers `trimtab xds`. Returns the text, and whether there is a difference.
pub async fn xds(command: XdsCommand) -> anyhow::Result<(String, bool)> {
    match command {
        XdsCommand::Nodes { server } => {
            let answer = server.ask::<Value>(&["xds", "nodes"]).await?;
            let mut list = answer.map_err(anyhow::Error::msg)?;
            let nodes: Vec<Node> = serde_json::from_value(list["items"].take())?;
            Ok((nodes::table(&nodes), false))
        }
        XdsCommand::Diff { node, server } => {
            let found = server.ask::<Node>(&["xds", "nodes", &node]).await?;
            Ok(nodes::diff(&found.map_err(anyhow::Error::msg)?))
        }
    }
}

async fn offline(args: &RouterArgs) -> anyhow::Result<RouterView> {
    let config = match &args.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    let embedded = standalone::embedded()?;
    for document in manifests::read(&args.files)? {
        standalone::load(&embedded, &document)?;
    }
    let index = translate::metaprotocol_index(&embedded.client(), &config).await?;
    let engine = Engine::new(index, Arc::new(SystemClock::new()), ResourceCache::new());
    engine.absorb_events();
    let (namespace, name) = (&args.namespace, &args.name);
    let Some(mut view) = engine.router_view(namespace, name) else {
        bail!(
            "there is no MetaRouter {namespace}/{name} in the files: name it with -n NAMESPACE NAME"
        );
    };
    let key = ObjectKey {
        kind: Kind::MetaRouter,
        namespace: namespace.clone(),
        name: name.clone(),
    };
    if let Some(status) = engine.status_to_write(&key) {
        view.status = status;
    }
    Ok(view)
}

/// The answer in words.
fn text(view: &RouterView, attributes: &BTreeMap<String, String>) -> String {
    let mut out = format!("MetaRouter {}/{}\n", view.namespace, view.name);
    // A string takes whatever is written to it.
    let mut say = |line: String| {
        let _ = writeln!(out, "{line}");
    };
    match &view.host {
        None => say("  there is no host with a layer-7 port for it".to_owned()),
        Some(host) => {
            say(format!(
                "  host {} of {} {}/{}",
                host.host, host.kind, host.namespace, host.name
            ));
            if !view.in_force {
                let other = host.router.as_deref().unwrap_or("none");
                say(format!(
                    "  not in force: the MetaRouter of this host is {other}"
                ));
            }
            for port in &host.ports {
                say(format!(
                    "  port {} {}: {}",
                    port.number,
                    port.name,
                    port.programs.join(", ")
                ));
                for object in &port.objects {
                    say(format!("    object {object}"));
                }
                for resource in &port.resources {
                    say(format!(
                        "    resource {} version {}",
                        resource.name, resource.version
                    ));
                }
            }
            for problem in &host.problems {
                say(format!("  problem {problem}"));
            }
        }
    }
    for condition in view.status["conditions"].as_array().into_iter().flatten() {
        let field = |name: &str| condition[name].as_str().unwrap_or_default().to_owned();
        let (kind, status) = (field("type"), field("status"));
        say(format!(
            "  {kind} {status} {}: {}",
            field("reason"),
            field("message")
        ));
    }
    if attributes.is_empty() {
        return out;
    }
    for input in &view.inputs {
        let _ = write!(out, "\nA call to port {} with", input.port.number);
        for (name, value) in attributes {
            let _ = write!(out, " {name}={value}");
        }
        out.push('\n');
        way(&explain(input, view.routes.as_ref(), attributes), &mut out);
    }
    out
}

fn way(explanation: &Explanation, out: &mut String) {
    for step in &explanation.steps {
        let name = if step.name.is_empty() {
            String::new()
        } else {
            format!(" \"{}\"", step.name)
        };
        let outcome = step
            .missed
            .as_ref()
            .map_or_else(|| "takes it".to_owned(), |why| format!("not: {why}"));
        let _ = writeln!(out, "  routes[{}]{name}: {outcome}", step.route);
    }
    if explanation.clusters.is_empty() {
        out.push_str("  no route takes it: the proxy refuses it\n");
    }
    let total: u32 = explanation.clusters.iter().map(|(_, weight)| weight).sum();
    for (cluster, weight) in &explanation.clusters {
        let share = 100.0 * f64::from(*weight) / f64::from(total.max(1));
        let _ = writeln!(out, "  {share:.0}% to {cluster}");
    }
}
