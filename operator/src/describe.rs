//! `trimtab describe` and `trimtab xds`: what applies and why, from a running operator or from files.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::Value;
use trimtab_kit::module::DescribeRequest;

use crate::described::answer;
use crate::nodes::{self, Node};
use crate::reach::{HERE, Reached, Server};
use crate::{manifests, translate, unanswered};

/// What to describe.
#[derive(Clone, Debug, Args)]
pub struct DescribeArgs {
    /// Kind: smartlimiter (sml), servicefence (svf), pod, metarouter (mr), redisservice (rsvc), redisdestination (rd) or
    /// dubboauthorizationpolicy (dap)
    kind: String,
    /// Name
    name: String,
    /// Namespace
    #[arg(short = 'n', long, default_value = "default")]
    namespace: String,
    /// Attribute of a call, e.g. method=sayHello: shows the way of such a call through a MetaRouter
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
    /// Ask no operator: read these files or folders; - is standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// With -f: value of a metric, e.g. cpu=0.85
    #[arg(long = "metric", requires = "files", value_parser = translate::metric)]
    metrics: Vec<(String, f64)>,
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

/// What `trimtab describe` tells.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// The text.
    pub text: String,
    /// Objects of the files that were refused.
    pub refused: Vec<String>,
    /// No operator answered: the text is what the API server has.
    pub unanswered: bool,
}

/// What the API server has of an object when no operator answers.
async fn without_operator(
    kind: &str,
    request: &DescribeRequest,
    asked: &str,
    error: anyhow::Error,
) -> anyhow::Result<Described> {
    match unanswered::describe(kind, request, asked).await {
        Ok(text) => Ok(Described {
            text,
            unanswered: true,
            ..Described::default()
        }),
        Err(other) => Err(error.context(format!("nor does the cluster tell of it ({other:#})"))),
    }
}

/// Answers `trimtab describe`.
pub async fn describe(args: DescribeArgs) -> anyhow::Result<Described> {
    let request = DescribeRequest {
        namespace: args.namespace,
        name: args.name,
        attributes: args.attributes.into_iter().collect(),
    };
    if args.files.is_empty() {
        let reached = match args.server.open().await {
            Ok(reached) => reached,
            Err(error) if args.server.url().is_some() => return Err(error),
            Err(error) => return without_operator(&args.kind, &request, HERE, error).await,
        };
        let (namespace, name) = (&request.namespace, &request.name);
        let path = ["api", "v1", "describe", &args.kind, namespace, name];
        let answer = match reached.ask(&path, &request.attributes).await {
            Ok(answer) => answer,
            Err(error) if reached.is_silence(&error) => {
                let place = reached.place();
                return without_operator(&args.kind, &request, &place, error).await;
            }
            Err(error) => return Err(error),
        };
        let text = answer.map_err(anyhow::Error::msg)?.text().await?;
        return Ok(Described {
            text,
            ..Described::default()
        });
    }
    let config = translate::configuration(args.config.as_deref())?;
    let mut input = manifests::read(&args.files)?;
    input.place(&request.namespace);
    let metrics = args.metrics.into_iter().collect();
    let (pass, _) = translate::pass(&input.documents, &metrics, &config).await?;
    let mut refused = input.refused;
    refused.extend_from_slice(pass.not_loaded());
    match answer(pass.modules(), &args.kind, &request) {
        Ok(text) => Ok(Described {
            text,
            refused,
            unanswered: false,
        }),
        Err(error) => {
            let refused = refused.iter().map(|r| format!("\nrefused: {r}"));
            let refused: Vec<String> = refused.collect();
            let refused = refused.concat();
            anyhow::bail!("{error} (in the files given with -f){refused}")
        }
    }
}

/// Answers `trimtab xds`. Returns the text, and whether there is a difference.
pub async fn xds(command: XdsCommand) -> anyhow::Result<(String, bool)> {
    match command {
        XdsCommand::Nodes { server } => {
            let nodes = all_nodes(&server.open().await?).await?;
            Ok((nodes::table(&nodes), false))
        }
        XdsCommand::Diff { node, server } => {
            let operator = server.open().await?;
            // As it is printed, an id that no path can have.
            if node != nodes::NO_ID && !node.contains('\\') {
                let found: Node = operator.get(&["api", "v1", "xds", "nodes", &node]).await?;
                return Ok(nodes::diff(&found));
            }
            let all = all_nodes(&operator).await?;
            let found = all.iter().find(|found| found.shown_id() == node);
            let found = found.with_context(|| format!("no proxy is connected as {node}"))?;
            Ok(nodes::diff(found))
        }
    }
}

async fn all_nodes(operator: &Reached) -> anyhow::Result<Vec<Node>> {
    let mut list: Value = operator.get(&["api", "v1", "xds", "nodes"]).await?;
    Ok(serde_json::from_value(list["items"].take())?)
}
