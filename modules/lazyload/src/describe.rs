//! Fences as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::engine::{Engine, FenceView};
use crate::object::FenceKey;
use crate::scope::size;

pub(crate) fn no_fence(key: &FenceKey) -> String {
    format!("there is no ServiceFence {key}")
}

pub(crate) fn no_pod(namespace: &str, name: &str) -> String {
    format!("no ServiceFence selects the pod {namespace}/{name}, or there is no such pod")
}

/// A fence as text.
pub(crate) fn fence(engine: &Engine, namespace: &str, name: &str) -> Result<String, String> {
    let key = FenceKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let view = engine.fence_view(&key).ok_or_else(|| no_fence(&key))?;
    Ok(text(&view))
}

/// The fences of a pod as text.
pub(crate) fn pod(engine: &Engine, namespace: &str, name: &str) -> Result<String, String> {
    let views = engine.pod_views(namespace, name);
    if views.is_empty() {
        return Err(no_pod(namespace, name));
    }
    Ok(views.iter().map(text).collect::<Vec<_>>().join("\n"))
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
    for condition in &view.conditions {
        writeln!(out, "  {condition}")?;
    }
    let scope = &view.size;
    writeln!(
        out,
        "  scope:     {} of {} services, about {} of {} of configuration; a proxy takes about {} of {} of memory for them",
        scope.services,
        scope.mesh_services,
        bytes(scope.bytes),
        bytes(scope.mesh_bytes),
        bytes(size::memory(scope.services)),
        bytes(size::memory(scope.mesh_services)),
    )?;
    entries(out, view)?;
    dependencies(out, view)
}

fn dependencies(out: &mut String, view: &FenceView) -> std::fmt::Result {
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

fn entries(out: &mut String, view: &FenceView) -> std::fmt::Result {
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
    if !view.excluded.is_empty() {
        writeln!(out, "  left out:")?;
        for entry in &view.excluded {
            writeln!(out, "    {entry}")?;
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
