//! `trimtab describe` and `trimtab xds`: what applies and why, from a running operator or from files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use serde_json::Value;
use trimtab_kit::api::ErrorBody;
use trimtab_kit::module::DescribeRequest;

use crate::described::answer;
use crate::nodes::{self, Node};
use crate::{manifests, translate, unanswered};

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

impl Server {
    /// What the operator answers at a path; the inner error says that there is no such thing.
    async fn ask(
        &self,
        path: &[&str],
        query: &BTreeMap<String, String>,
    ) -> anyhow::Result<Result<reqwest::Response, String>> {
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
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        let answer = client.get(url).send().await.with_context(|| {
            format!(
                "no operator answers at {}: run one, or name its address with --server",
                self.server
            )
        })?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            let text = answer.text().await?;
            let body = serde_json::from_str::<ErrorBody>(&text);
            return Ok(Err(body.map_or(text, |body| body.error)));
        }
        Ok(Ok(answer.error_for_status()?))
    }

    async fn json<T: DeserializeOwned>(&self, path: &[&str]) -> anyhow::Result<T> {
        let answer = self.ask(path, &BTreeMap::new()).await?;
        Ok(answer.map_err(anyhow::Error::msg)?.json().await?)
    }
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
    server: &Server,
    error: anyhow::Error,
) -> anyhow::Result<Described> {
    let nobody = error.chain().any(|cause| {
        let cause = cause.downcast_ref::<reqwest::Error>();
        cause.is_some_and(|e| e.is_connect() || e.is_timeout())
    });
    if !nobody {
        return Err(error);
    }
    match unanswered::describe(kind, request, &server.server).await {
        Ok(text) => Ok(Described {
            text,
            unanswered: true,
            ..Described::default()
        }),
        Err(other) => Err(error.context(format!("nor is there a cluster to ask ({other:#})"))),
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
        let path = ["describe", &args.kind, &request.namespace, &request.name];
        let answer = match args.server.ask(&path, &request.attributes).await {
            Ok(answer) => answer,
            Err(error) => {
                return without_operator(&args.kind, &request, &args.server, error).await;
            }
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
            let mut list: Value = server.json(&["xds", "nodes"]).await?;
            let nodes: Vec<Node> = serde_json::from_value(list["items"].take())?;
            Ok((nodes::table(&nodes), false))
        }
        XdsCommand::Diff { node, server } => {
            // As it is printed, an id that no path can have.
            if node != nodes::NO_ID && !node.contains('\\') {
                let found: Node = server.json(&["xds", "nodes", &node]).await?;
                return Ok(nodes::diff(&found));
            }
            let mut list: Value = server.json(&["xds", "nodes"]).await?;
            let all: Vec<Node> = serde_json::from_value(list["items"].take())?;
            let found = all.iter().find(|found| found.shown_id() == node);
            let found = found.with_context(|| format!("no proxy is connected as {node}"))?;
            Ok(nodes::diff(found))
        }
    }
}
