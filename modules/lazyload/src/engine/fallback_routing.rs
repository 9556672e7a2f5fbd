//! The fallback, in an order in which no call is lost: pods first, then the EnvoyFilters, then Sidecars.

use std::collections::{BTreeMap, BTreeSet};

use trimtab_crds::istio::EnvoyFilter;
use trimtab_mesh::names::service_host;

use super::Engine;
use crate::config::{GlobalSidecarMode, LazyloadConfig};
use crate::fallback::{self, FallbackInput, NAME};
use crate::scope::{Services, Settings};
use crate::status::FallbackState;

/// What is known of the fallback.
#[derive(Debug, Default)]
pub struct FallbackRoutingState {
    /// Namespaces of fallbacks that have had ready pods since their Service is there.
    ready: BTreeSet<String>,
    /// Namespaces of fallbacks that have a Service and have had no ready pod since we look.
    waiting: BTreeSet<String>,
    /// What the last write put in place, by the fallback's namespace. `None`: nothing was written yet.
    written: Option<BTreeMap<String, Wired>>,
    /// What stopped the last write.
    error: Option<String>,
}

/// What an EnvoyFilter has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wired {
    /// HTTP ports.
    ports: BTreeSet<u16>,
    /// Whether it leads to a fallback; one without pods gets no calls.
    to_fallback: bool,
    /// Whether the fallback's own pods reject what the mesh does not know.
    registry_only: bool,
    /// Namespaces whose own Sidecars say otherwise of that, with what they say: their TCP is not carried.
    apart: BTreeMap<String, bool>,
}

/// What must be there for the fallback.
#[derive(Clone, Debug, Default)]
pub struct FallbackRouting {
    /// EnvoyFilters. Those of a fallback without pods are there for `passthroughByDefault` only, and do not lead to it.
    pub filters: Vec<EnvoyFilter>,
    /// Ports that the Service of each fallback must have, by its namespace, when they differ from what it has.
    pub ports: BTreeMap<String, BTreeSet<u16>>,
    /// Namespaces in which EnvoyFilters stay as they are: an earlier run may have wired a fallback whose pods are away just
    /// now, and scopes rely on it.
    pub keep: BTreeSet<String>,
    /// Port of the fallback's pods that takes HTTP.
    pub target: u16,
    /// What is wired when it is written.
    state: BTreeMap<String, Wired>,
}

/// Namespaces of fallbacks to which calls are led.
fn places(config: &LazyloadConfig) -> BTreeSet<String> {
    if fallback::is_needed(&config.fallback) {
        namespaces(config)
    } else {
        BTreeSet::new()
    }
}

/// Namespaces of fallbacks, whether calls are led there or past them.
fn namespaces(config: &LazyloadConfig) -> BTreeSet<String> {
    if !config.fallback.enabled {
        return BTreeSet::new();
    }
    match config.fallback.global_sidecar_mode {
        GlobalSidecarMode::Cluster => BTreeSet::from([config.fallback_namespace().to_owned()]),
        GlobalSidecarMode::Namespace => config.fallback.namespace.iter().cloned().collect(),
    }
}

/// Namespace of the fallback that calls of a namespace are led to, if any are.
pub(super) fn place(config: &LazyloadConfig, namespace: &str) -> Option<String> {
    let mut places = places(config);
    match config.fallback.global_sidecar_mode {
        GlobalSidecarMode::Cluster => places.pop_first(),
        GlobalSidecarMode::Namespace => places.take(namespace),
    }
}

/// The configuration for the EnvoyFilter of one fallback, which leads to it or past it.
fn part(config: &LazyloadConfig, namespace: &str, wired: &Wired) -> LazyloadConfig {
    let mut out = config.clone();
    out.fallback.registry_only = Some(wired.registry_only);
    if config.fallback.global_sidecar_mode == GlobalSidecarMode::Namespace {
        out.fallback.namespace = vec![namespace.to_owned()];
    }
    if !wired.to_fallback {
        out.fallback = fallback::without_pods(&out.fallback);
    }
    out
}

fn host(config: &LazyloadConfig, namespace: &str) -> String {
    service_host(NAME, namespace, &config.domain)
}

/// What scopes need to know of the configuration.
pub(super) fn settings(config: &LazyloadConfig) -> Settings {
    let hosts = places(config).iter().map(|n| host(config, n)).collect();
    Settings::new(config, hosts)
}

impl Engine {
    /// What calls of a namespace to hosts out of scope meet.
    pub fn fallback_state(&self, namespace: &str) -> FallbackState {
        let config = self.config();
        if places(&config).is_empty() {
            return FallbackState::Unused;
        }
        let Some(place) = place(&config, namespace) else {
            // Nothing is wired there, so that its calls pass as by default.
            if config.fallback.passthrough_by_default {
                return FallbackState::Unused;
            }
            return FallbackState::NotReady(format!(
                "namespace {namespace} has no fallback: add it to lazyload.fallback.namespace, or set globalSidecarMode to cluster"
            ));
        };
        let inner = self.inner.lock();
        if let Some(error) = &inner.fallback_routing.error {
            return FallbackState::NotReady(format!("its EnvoyFilters cannot be written: {error}"));
        }
        if !inner.fallback_routing.ready.contains(&place) {
            return FallbackState::NotReady(format!(
                "there is no ready pod of Service {place}/{NAME}: install it with the chart's value fallback.enabled, or set lazyload.fallback.enabled to false"
            ));
        }
        let wired = inner
            .fallback_routing
            .written
            .as_ref()
            .and_then(|written| written.get(&place))
            .is_some_and(|wired| wired.to_fallback);
        if wired {
            FallbackState::Ready
        } else {
            FallbackState::NotReady("its EnvoyFilters are not written yet".to_owned())
        }
    }

    /// Ready pods of each fallback that calls are led to, by its namespace.
    pub fn fallback_endpoints(&self) -> BTreeMap<String, usize> {
        let config = self.config();
        let mesh = self.index.services();
        let places = places(&config).into_iter().map(|namespace| {
            let entries = mesh.host(&host(&config, &namespace));
            let endpoints = entries.iter().map(|entry| mesh.endpoints(entry)).sum();
            (namespace, endpoints)
        });
        places.collect()
    }

    /// Looks whether fallbacks have come or gone, or ports have changed. True: there is something to write.
    pub(super) fn wiring_changed(&self) -> bool {
        let config = self.config();
        let (mut ready, mut waiting) = (BTreeSet::new(), BTreeSet::new());
        for namespace in places(&config) {
            let host = host(&config, &namespace);
            let (there, endpoints) = {
                let mesh = self.index.services();
                let entries = mesh.host(&host);
                let counts = entries.iter().map(|entry| mesh.endpoints(entry));
                (!entries.is_empty(), counts.sum::<usize>())
            };
            let was = self
                .inner
                .lock()
                .fallback_routing
                .ready
                .contains(&namespace);
            // Pods that are restarted take nothing away: their Service stays.
            if there && (was || endpoints > 0) {
                ready.insert(namespace);
            } else if there {
                waiting.insert(namespace);
            }
        }
        let wanted = self.wanted(&config, &ready);
        let mut inner = self.inner.lock();
        let moved = inner.fallback_routing.ready != ready;
        inner.fallback_routing.ready = ready;
        if moved {
            let all: Vec<_> = inner.fences.keys().cloned().collect();
            inner.again.extend(all);
        }
        let kept = std::mem::replace(&mut inner.fallback_routing.waiting, waiting);
        kept != inner.fallback_routing.waiting
            || inner.fallback_routing.written.as_ref() != Some(&wanted)
    }

    /// What is to be wired. Without a fallback, unknown calls go where Istio sends them, unless they are to pass by default.
    fn wanted(&self, config: &LazyloadConfig, ready: &BTreeSet<String>) -> BTreeMap<String, Wired> {
        let all = namespaces(config).into_iter().filter_map(|namespace| {
            let to_fallback = ready.contains(&namespace);
            if !to_fallback && !config.fallback.passthrough_by_default {
                return None;
            }
            let wired = Wired {
                ports: self.found(config, &namespace),
                to_fallback,
                registry_only: self.registry_only(config, &namespace),
                apart: if to_fallback {
                    self.apart(config, &namespace)
                } else {
                    BTreeMap::new()
                },
            };
            Some((namespace, wired))
        });
        all.collect()
    }

    /// Hosts of the fallback's Services.
    pub fn fallback_hosts(&self) -> BTreeSet<String> {
        let config = self.config();
        places(&config).iter().map(|n| host(&config, n)).collect()
    }

    /// What must be there now.
    pub fn fallback_routing(&self) -> FallbackRouting {
        let config = self.config();
        let (ready, waiting) = {
            let inner = self.inner.lock();
            (
                inner.fallback_routing.ready.clone(),
                inner.fallback_routing.waiting.clone(),
            )
        };
        let input = FallbackInput {
            config: (*config).clone(),
            ..FallbackInput::default()
        };
        let state = self.wanted(&config, &ready);
        let mut filters = Vec::new();
        for (namespace, wired) in &state {
            let input = FallbackInput {
                config: part(&config, namespace, wired),
                ports: wired.ports.clone(),
                ..input.clone()
            };
            filters.extend(fallback::filters(&input));
            let apart = wired.apart.iter();
            filters.extend(apart.map(|(own, only)| fallback::own_policy(&input, own, *only)));
        }
        filters.sort_by(|a, b| a.metadata.namespace.cmp(&b.metadata.namespace));
        let mut out = FallbackRouting {
            filters,
            keep: match config.fallback.global_sidecar_mode {
                GlobalSidecarMode::Cluster if waiting.is_empty() => waiting,
                GlobalSidecarMode::Cluster => BTreeSet::from([config.istio_namespace.clone()]),
                GlobalSidecarMode::Namespace => waiting,
            },
            target: input.proxy_options().http.port(),
            state,
            ..FallbackRouting::default()
        };
        for namespace in &ready {
            let entries = self.index.services().host(&host(&config, namespace));
            let has: BTreeSet<u16> = entries
                .iter()
                .flat_map(|e| e.ports.iter().map(|p| p.number))
                .collect();
            let all_ports = FallbackInput {
                ports: self.found(&config, namespace),
                ..input.clone()
            }
            .all_ports();
            // One that is HTTP no more must go: servers there may be the first to speak.
            let wrong = self.not_http(&config, namespace);
            if !all_ports.is_subset(&has) || !wrong.is_disjoint(&has) {
                out.ports.insert(namespace.clone(), all_ports);
            }
        }
        out
    }

    /// How the write of the fallback routing went.
    pub fn note_wiring(&self, fallback_routing: &FallbackRouting, error: Option<String>) {
        let mut inner = self.inner.lock();
        let before = (
            inner.fallback_routing.written.is_some(),
            inner.fallback_routing.error.clone(),
        );
        let places = |all: &BTreeMap<String, Wired>| -> BTreeSet<String> {
            let led = all.iter().filter(|(_, wired)| wired.to_fallback);
            led.map(|(namespace, _)| namespace.clone()).collect()
        };
        let written = inner.fallback_routing.written.as_ref();
        let new_places = written.is_none_or(|w| places(w) != places(&fallback_routing.state));
        if error.is_none() {
            inner.fallback_routing.written = Some(fallback_routing.state.clone());
        }
        let failed = before.1 != error;
        inner.fallback_routing.error = error;
        if failed || new_places {
            let all: Vec<_> = inner.fences.keys().cloned().collect();
            inner.again.extend(all);
            drop(inner);
            self.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
