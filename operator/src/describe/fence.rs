//! `trimtab describe servicefence` and `trimtab describe pod`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::bail;
use clap::Args;
use serde::Deserialize;
use trimtab_lazyload::engine::FenceView;

use super::Server;

/// A ServiceFence or a pod.
#[derive(Clone, Debug, Args)]
pub struct NameArgs {
    /// Name
    name: String,
    /// Namespace
    #[arg(short = 'n', long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Views {
    items: Vec<FenceView>,
}

/// A fence from a running operator, as text.
pub(super) async fn fence(args: NameArgs) -> anyhow::Result<String> {
    let path = ["lazyload", "fences", &args.namespace, &args.name];
    match args.server.ask::<FenceView>(&path).await? {
        Ok(view) => Ok(text(&view)),
        Err(message) => bail!("{message}"),
    }
}

/// The fences of a pod, as text.
pub(super) async fn pod(args: NameArgs) -> anyhow::Result<String> {
    let path = ["lazyload", "pods", &args.namespace, &args.name];
    match args.server.ask::<Views>(&path).await? {
        Ok(views) => Ok(views.items.iter().map(text).collect::<Vec<_>>().join("\n")),
        Err(message) => bail!("{message}"),
    }
}

fn text(view: &FenceView) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write(&mut out, view);
    out
}

fn write(out: &mut String, view: &FenceView) -> std::fmt::Result {
    writeln!(out, "ServiceFence {}", view.fence)?;
    writeln!(out, "  mode:      {}", view.mode)?;
    let selector: Vec<String> = view
        .selector
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    writeln!(out, "  pods with: {}", selector.join(", "))?;
    for [kind, status, reason, message] in &view.conditions {
        writeln!(out, "  {kind}: {status} ({reason}): {message}")?;
    }
    let size = &view.size;
    writeln!(
        out,
        "  scope:     {} of {} services, about {} of {} of configuration",
        size.services,
        size.mesh_services,
        bytes(size.bytes),
        bytes(size.mesh_bytes)
    )?;
    writeln!(out, "  hosts:")?;
    let width = view
        .entries
        .keys()
        .map(String::len)
        .max()
        .unwrap_or_default();
    for (entry, reasons) in &view.entries {
        writeln!(out, "    {entry:width$}  {}", reasons.join("; "))?;
    }
    let mut by_caller: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for dependency in &view.dependencies {
        by_caller
            .entry(&dependency.caller)
            .or_default()
            .push(dependency);
    }
    for (caller, dependencies) in by_caller {
        writeln!(out, "  learned of {caller}:")?;
        let width = dependencies
            .iter()
            .map(|d| d.host.len())
            .max()
            .unwrap_or_default();
        for d in dependencies {
            writeln!(
                out,
                "    {:width$}  {:10}  {}, since {}, last {}",
                d.host,
                d.state.as_str(),
                d.evidence.join(" and "),
                d.first_seen,
                d.last_seen
            )?;
        }
    }
    Ok(())
}

/// Bytes in the unit that reads best.
fn bytes(n: i64) -> String {
    let n = n as f64;
    if n >= 1e6 {
        format!("{:.1} MB", n / 1e6)
    } else if n >= 1e3 {
        format!("{:.1} kB", n / 1e3)
    } else {
        format!("{n:.0} B")
    }
}
