//! Extension providers of the MeshConfig that policies and telemetry select, as istiod merges them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trimtab_mesh::model::{DefaultProviders, MeshConfig, Report, Side, Telemetry, selects};

use super::needs::{Needs, Pods, is_for};
use super::tables::{Place, Tables};
use crate::scope::{Reason, Required};

/// Names of providers, each with who asks for it.
pub(super) type Asked = BTreeSet<(String, String)>;

const SIDES: [Side; 2] = [Side::Client, Side::Server];
const DEFAULTS: &str = "defaultProviders of the MeshConfig";

/// The providers that are selected for some of the pods.
pub(super) fn asked(tables: &Tables, place: &Place<'_>, mesh: Option<&MeshConfig>) -> Asked {
    let mut out = Asked::new();
    for policy in place.rows(&tables.policies) {
        if is_for(&policy.selector, place.pods) {
            let (namespace, name) = (&policy.id.namespace, &policy.id.name);
            let by = format!("AuthorizationPolicy {namespace}/{name}");
            out.insert((policy.provider.to_string(), by));
        }
    }
    let none = DefaultProviders::default();
    let defaults = mesh.map_or(&none, |mesh| &mesh.default_providers);
    let mut near = place.rows(&tables.telemetries);
    near.sort_by_key(|row| row.id.age());
    for pods in place.pods {
        let levels = levels(&near, place, pods);
        traces(&levels, defaults, &mut out);
        logs(&levels, defaults, &mut out);
        metrics(&levels, defaults, &mut out);
    }
    out
}

/// The Telemetries of some pods: the oldest of the root namespace, of the namespace, and of the pods themselves.
fn levels<'a>(all: &'a [Arc<Telemetry>], place: &Place<'_>, pods: &Pods) -> Vec<&'a Telemetry> {
    let (namespace, root) = (place.namespace, place.root);
    let whole = |place: &str| {
        let mut here = all.iter().filter(|t| *t.id.namespace == *place);
        here.find(|t| t.selector.is_empty())
    };
    let own = (namespace != root).then(|| whole(namespace)).flatten();
    let mut here = all.iter().filter(|t| *t.id.namespace == *namespace);
    let selected = here.find(|t| !t.selector.is_empty() && selects(&t.selector, &pods.labels));
    let levels = [whole(root), own, selected].into_iter().flatten();
    levels.map(|row| &**row).collect()
}

fn name_of(telemetry: &Telemetry) -> String {
    format!("Telemetry {}/{}", telemetry.id.namespace, telemetry.id.name)
}

/// One provider a side: the last that is named, unless reports are off.
fn traces(levels: &[&Telemetry], defaults: &DefaultProviders, out: &mut Asked) {
    for side in SIDES {
        let first = defaults.tracing.first();
        let mut provider = first.map(|name| (name.clone(), DEFAULTS.to_owned()));
        let mut disabled = false;
        for level in levels {
            for report in level.tracing.iter().filter(|r| r.is_of(side)) {
                if let Some(name) = report.providers.first() {
                    provider = Some((name.clone(), name_of(level)));
                }
                disabled = report.disabled.unwrap_or(disabled);
            }
        }
        out.extend(provider.filter(|_| !disabled));
    }
}

/// The providers of the last level that names any, with what turns them off and on again.
fn logs(levels: &[&Telemetry], defaults: &DefaultProviders, out: &mut Asked) {
    let named = |reports: &[Report], side| -> BTreeSet<String> {
        let of_side = reports.iter().filter(|r| r.is_of(side));
        of_side.flat_map(|r| r.providers.iter().cloned()).collect()
    };
    let levels: Vec<_> = levels.iter().filter(|l| !l.logging.is_empty()).collect();
    for side in SIDES {
        let default: BTreeSet<String> = defaults.access_logging.iter().cloned().collect();
        let mut last = levels.iter().rev().map(|l| named(&l.logging, side));
        let counted = last.find(|names| !names.is_empty()).unwrap_or(default);
        let mut on: BTreeMap<String, String> = BTreeMap::new();
        if levels.is_empty() {
            on.extend(counted.iter().map(|n| (n.clone(), DEFAULTS.to_owned())));
        }
        let mut before: &[String] = &defaults.access_logging;
        for level in &levels {
            for report in &level.logging {
                if !report.providers.is_empty() {
                    before = &report.providers;
                }
                for name in before.iter().filter(|n| counted.contains(*n)) {
                    if !report.is_of(side) {
                        continue;
                    }
                    if report.disabled == Some(true) {
                        on.remove(name);
                    } else {
                        on.insert(name.clone(), name_of(level));
                    }
                }
            }
        }
        out.extend(on);
    }
}

/// The providers that are named last.
fn metrics(levels: &[&Telemetry], defaults: &DefaultProviders, out: &mut Asked) {
    let mut names = (&*defaults.metrics, DEFAULTS.to_owned());
    for level in levels {
        for report in level.metrics.iter().filter(|r| !r.providers.is_empty()) {
            names = (&*report.providers, name_of(level));
        }
    }
    let (names, by) = names;
    out.extend(names.iter().map(|name| (name.clone(), by.clone())));
}

/// From names to servers.
pub(super) fn resolve(asked: &Asked, mesh: Option<&MeshConfig>, out: &mut Needs) {
    for (name, by) in asked {
        let Some(provider) = mesh.and_then(|mesh| mesh.provider(name)) else {
            if !MeshConfig::is_built_in(name) {
                let why = if mesh.is_some() {
                    "is not in extensionProviders of the MeshConfig: define it, or correct the name"
                } else {
                    "cannot be looked up, as there is no MeshConfig: see mesh.configMap in the configuration"
                };
                out.remarks.insert(format!("provider {name} of {by} {why}"));
            }
            continue;
        };
        let Some(service) = provider.service() else {
            continue;
        };
        let (namespace, host) = match service.split_once('/') {
            Some((namespace, host)) => (Some(namespace.to_owned()), host),
            None => (None, service),
        };
        out.hosts.insert(Required {
            host: host.trim_end_matches('.').to_ascii_lowercase(),
            namespace,
            reason: Reason::Provider(name.clone(), by.clone()),
            called: false,
        });
    }
}
