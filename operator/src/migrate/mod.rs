//! `trimtab migrate`: from another product, or another way, to Trimtab. It reads and prints, and changes nothing.
//!
//! The reports are pure functions of objects (`slime`, `aeraki`, `lazyxds`, `ratelimit`, `ambient`); here they get them.

mod aeraki;
mod ambient;
mod cluster;
mod lazyxds;
mod objects;
mod ratelimit;
mod report;
mod slime;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, FromArgMatches, ValueEnum};
use serde_json::Value;

use crate::config::Config;
use crate::manifests::{self, Document};
use crate::{modules, translate};
use objects::Objects;

/// What is migrated from where.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Where from
    #[arg(value_enum)]
    from: Source,
    /// Files or folders with its objects, - is standard input; without any, the cluster of the kubeconfig is read
    #[arg(short = 'f', long = "filename")]
    files: Vec<PathBuf>,
    /// Output format
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Also write the values of the chart to this file
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// Also write the objects to apply to this file
    #[arg(long, value_name = "FILE")]
    objects: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Source {
    /// Slime: limiter and lazyload
    Slime,
    /// Aeraki, with its proxies or with Envoy's
    Aeraki,
    /// lazyxds
    Lazyxds,
    /// Hand-made EnvoyFilters with a local rate limit: prints SmartLimiters
    IstioRatelimit,
    /// What stops working in namespaces that move to Istio's ambient mode
    Ambient,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

impl MigrateArgs {
    /// The arguments of a command line, without the names of program and command.
    pub fn of(args: &[&str]) -> Result<Self, clap::Error> {
        let command = Self::augment_args(clap::Command::new("migrate").no_binary_name(true));
        Self::from_arg_matches(&command.try_get_matches_from(args)?)
    }
}

/// What came out.
#[derive(Debug)]
pub struct Migration {
    /// For standard output.
    pub text: String,
    /// For standard error.
    pub remarks: Vec<String>,
    /// All could be read, and of rate limits all could be expressed.
    pub complete: bool,
}

/// Reads, and says what a migration is.
pub async fn migrate(args: &MigrateArgs) -> anyhow::Result<Migration> {
    let (objects, not_read) = if args.files.is_empty() {
        let access = kube::Config::infer().await;
        let access = access.context("no cluster: set KUBECONFIG, or name files with -f")?;
        cluster::read(&kube::Client::try_from(access)?).await?
    } else {
        let input = manifests::read(&args.files)?;
        let found = input.documents.into_iter().map(|d| placed(d.object));
        let found = found.collect();
        (Objects(found), [input.refused, input.remarks].concat())
    };
    let mut report = match args.from {
        // Twice: what the operator refuses depends on the values, which the first report has.
        Source::Slime => {
            let draft = slime::report(&objects, &modules::all(), &[]);
            let refused = refused(&objects, &draft.values).await;
            slime::report(&objects, &modules::all(), &refused)
        }
        Source::Aeraki => {
            let draft = aeraki::report(&objects, &[]);
            let refused = refused(&objects, &draft.values).await;
            aeraki::report(&objects, &refused)
        }
        Source::Lazyxds => lazyxds::report(&objects),
        Source::IstioRatelimit => ratelimit::report(&objects),
        Source::Ambient => ambient::report(&objects),
    };
    report.not_read = not_read;
    if let Some(file) = &args.values {
        let values = Some(&report.values).filter(|v| !v.is_null());
        write(file, values.map(std::slice::from_ref), "--values")?;
    }
    if let Some(file) = &args.objects {
        let objects = Some(report.objects.as_slice()).filter(|o| !o.is_empty());
        write(file, objects, "--objects")?;
    }
    let limits = args.from == Source::IstioRatelimit;
    let text = match args.output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
        Output::Text if limits => report.commented()?,
        Output::Text => report.text()?,
    };
    Ok(Migration {
        text,
        complete: report.not_read.is_empty() && (!limits || report.decisions.is_empty()),
        remarks: report.not_read,
    })
}

/// Kinds of the whole cluster, or of either scope.
const OF_CLUSTER: [&str; 4] = [
    "ApplicationProtocol",
    "CustomResourceDefinition",
    "Namespace",
    "ValidatingWebhookConfiguration",
];

/// An object of a file in the namespace where kubectl puts it: commands name it.
fn placed(mut object: Value) -> Value {
    if !OF_CLUSTER.contains(&objects::text(&object, "/kind"))
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata
            .entry("namespace")
            .or_insert_with(|| "default".into());
    }
    object
}

/// Writes documents of YAML.
fn write(file: &Path, values: Option<&[Value]>, flag: &str) -> anyhow::Result<()> {
    let Some(values) = values else {
        bail!("{flag}: this migration has none: leave it out");
    };
    let texts = values.iter().map(manifests::yaml);
    let texts: Vec<String> = texts.collect::<anyhow::Result<_>>()?;
    std::fs::write(file, texts.join("---\n"))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Kinds that the operator is asked about.
const OURS: [&str; 7] = [
    "SmartLimiter",
    "ServiceFence",
    "MetaRouter",
    "ApplicationProtocol",
    "RedisService",
    "RedisDestination",
    "DubboAuthorizationPolicy",
];

/// What the operator would refuse: it runs once on the objects, as `translate` does. What it generated counts as not there,
/// as do the objects of the product that goes.
async fn refused(objects: &Objects, values: &Value) -> Vec<String> {
    // Of a version that nobody serves the report says enough.
    let old = |o: &Value| {
        o["kind"] == "SmartLimiter" && o["apiVersion"] == "microservice.slime.io/v1alpha1"
    };
    let mine = |o: &Value| OURS.contains(&o["kind"].as_str().unwrap_or_default()) && !old(o);
    if !objects.0.iter().any(mine) {
        return Vec::new();
    }
    let surroundings = [
        "Service",
        "Pod",
        "EndpointSlice",
        "Namespace",
        "DestinationRule",
        "ServiceEntry",
        "Gateway",
    ];
    let wanted =
        |o: &Value| mine(o) || surroundings.contains(&o["kind"].as_str().unwrap_or_default());
    let documents: Vec<Document> = objects
        .0
        .iter()
        .filter(|o| wanted(o))
        .map(|object| {
            let mut object = object.clone();
            // The status is of another program, and the rest of another API server.
            if let Some(fields) = object.as_object_mut()
                && OURS.contains(&fields["kind"].as_str().unwrap_or_default())
            {
                fields.remove("status");
            }
            if let Some(metadata) = object["metadata"].as_object_mut() {
                let kept = ["name", "namespace", "labels", "annotations"];
                metadata.retain(|key, _| kept.contains(&key.as_str()));
            }
            Document::new(INPUT, object)
        })
        .collect();
    match Box::pin(translate::pass(
        &documents,
        &BTreeMap::new(),
        &installed(values),
    ))
    .await
    {
        Ok((_, output)) => {
            let before = format!("{INPUT}: ");
            let lines = output.refused.iter();
            lines
                .map(|line| line.strip_prefix(&before).unwrap_or(line).to_owned())
                .collect()
        }
        Err(error) => vec![format!("the objects could not be tried: {error:#}")],
    }
}

/// Stands for the file of an object.
const INPUT: &str = "objects";

/// The configuration that the chart makes of the values; without what is refused of them, which the report says.
fn installed(values: &Value) -> Config {
    let text = manifests::yaml(&values["config"]).unwrap_or_default();
    let mut config = Config::parse(&text).unwrap_or_default();
    if let Some(domain) = values["clusterDomain"].as_str() {
        domain.clone_into(&mut config.mesh.domain);
    }
    config.xds.advertise = translate::xds_address();
    config
}
