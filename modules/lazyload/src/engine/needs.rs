//! What a fence needs besides what its pods call, and what of the first calls is not carried.

use std::collections::{BTreeMap, BTreeSet};

use super::fallback_routing::place;
use super::{Engine, WorkItem};
use crate::config::{GlobalSidecarMode, LazyloadConfig};
use crate::fallback::FallbackInput;
use crate::mesh::ResolvedFence;
use crate::object::FenceKey;
use crate::required::{Needs, Touched};
use crate::scope::{Reason, Required, Scope};
use crate::status::FallbackState;

/// Services that are named in one status.
const MOST_SERVICES: usize = 8;
/// Hosts of one remark.
const MOST_HOSTS: usize = 8;

impl Engine {
    /// Ports of the mesh that a fallback has.
    pub(super) fn found(&self, config: &LazyloadConfig, place: &str) -> BTreeSet<u16> {
        match config.fallback.global_sidecar_mode {
            GlobalSidecarMode::Cluster => self.ports.of(None),
            GlobalSidecarMode::Namespace => self.ports.of(Some(place)),
        }
    }

    /// Ports of the mesh that a fallback must not have.
    pub(super) fn not_http(&self, config: &LazyloadConfig, place: &str) -> BTreeSet<u16> {
        match config.fallback.global_sidecar_mode {
            GlobalSidecarMode::Cluster => self.ports.not_http(None),
            GlobalSidecarMode::Namespace => self.ports.not_http(Some(place)),
        }
    }

    /// HTTP ports on which calls of a namespace to hosts out of scope are carried; `None`: it has no fallback.
    fn carried(&self, config: &LazyloadConfig, namespace: &str) -> Option<BTreeSet<u16>> {
        let place = place(config, namespace)?;
        let input = FallbackInput {
            config: config.clone(),
            ports: self.found(config, &place),
            ..FallbackInput::default()
        };
        Some(input.all_ports())
    }

    /// Whether pods of a fallback reject what the mesh does not know.
    pub(super) fn registry_only(&self, config: &LazyloadConfig, place: &str) -> bool {
        let said = config.fallback.registry_only;
        let said = said.or_else(|| self.index.registry_only(place));
        let mesh = || self.mesh_config.read().as_ref().map(|m| m.registry_only());
        said.or_else(mesh).unwrap_or_default()
    }

    /// Namespaces with fences whose own Sidecars say otherwise of unknown hosts than what holds for the fallback that they
    /// share.
    pub(super) fn apart(&self, config: &LazyloadConfig, place: &str) -> BTreeMap<String, bool> {
        let shared = config.fallback.global_sidecar_mode == GlobalSidecarMode::Cluster;
        if !shared || !config.fallback.tcp {
            return BTreeMap::new();
        }
        let common = self.registry_only(config, place);
        let mut namespaces = self.index.namespaces();
        namespaces.remove(&config.istio_namespace);
        let own = namespaces
            .into_iter()
            .filter_map(|namespace| Some((self.index.registry_only(&namespace)?, namespace)));
        let other = own.filter(|(only, _)| *only != common);
        other.map(|(only, namespace)| (namespace, only)).collect()
    }

    /// What a fence needs besides what its pods call.
    pub(super) fn needs(&self, key: &FenceKey, resolved: &ResolvedFence) -> Needs {
        let mut out = self.required.of(&key.namespace, resolved.selector.as_ref());
        if let Some(inherited) = &resolved.inherits
            && let Some(host) = inherited.egress_proxy()
        {
            out.hosts.insert(Required {
                host: host.trim_end_matches('.').to_ascii_lowercase(),
                namespace: None,
                reason: Reason::EgressProxy(inherited.from.clone()),
                called: false,
            });
        }
        let config = self.config();
        if let Some(ports) = self.carried(&config, &key.namespace) {
            let services = self.ports.tcp_on(&ports, &key.namespace);
            out.hosts.extend(services.into_iter().map(|tcp| Required {
                host: tcp.host.to_string(),
                namespace: Some(tcp.namespace.to_string()),
                reason: Reason::TcpPort(tcp.port),
                called: true,
            }));
        }
        out
    }

    /// Services whose first calls are not carried.
    pub(super) fn not_carried(&self, key: &FenceKey) -> Vec<String> {
        let config = self.config();
        let place = place(&config, &key.namespace);
        let (Some(place), Some(ports)) = (place, self.carried(&config, &key.namespace)) else {
            return Vec::new();
        };
        let apart = self.apart(&config, &place).contains_key(&key.namespace);
        if config.fallback.tcp && !apart {
            return Vec::new();
        }
        let inner = self.inner.lock();
        let Some(entry) = inner.fences.get(key) else {
            return Vec::new();
        };
        let imported = |host: &str| {
            let united = &entry.union;
            united.imports.services.contains_key(host) || united.entries.contains_key(host)
        };
        let of = &key.namespace;
        self.ports.not_on(&ports, of, MOST_SERVICES, imported)
    }

    /// Fences that are touched, of those that are known.
    pub(super) fn touched(&self, touched: &Touched) -> BTreeSet<FenceKey> {
        let of = |key: &FenceKey| touched.all || touched.namespaces.contains(&key.namespace);
        if *touched == Touched::default() {
            return BTreeSet::new();
        }
        let inner = self.inner.lock();
        inner.fences.keys().filter(|key| of(key)).cloned().collect()
    }

    /// What has changed of needs and ports. Gives fences whose scope must be worked out again.
    pub(super) fn absorb_needs(&self) -> BTreeSet<FenceKey> {
        let mut out = self.touched(&self.required.drain_changes());
        let (scopes, statuses) = self.ports.drain_changes();
        let with = |namespace: &str| {
            let state = self.fallback_state(namespace);
            state != FallbackState::Unused
        };
        let scopes = self.touched(&scopes);
        out.extend(scopes.into_iter().filter(|key| with(&key.namespace)));
        for key in self.touched(&statuses) {
            if with(&key.namespace) {
                self.queue.push(WorkItem::Fence(key));
            }
        }
        out
    }
}

/// Remarks on what a fence needs and its scope does not have.
pub(super) fn remarks(needs: &Needs, scope: &Scope) -> Vec<String> {
    let mut out: Vec<String> = needs.remarks.iter().cloned().collect();
    let absent = needs.unnamed.iter();
    let absent = absent.filter(|host| !scope.entries.contains_key(*host) && !whole(host, scope));
    let absent: Vec<&str> = absent.map(String::as_str).collect();
    if !absent.is_empty() {
        let more = absent.len().saturating_sub(MOST_HOSTS);
        let shown = &absent[..absent.len() - more];
        let more = if more > 0 { " and others" } else { "" };
        out.push(format!(
            "{}{more}: if the pods' proxies answer DNS (ISTIO_META_DNS_CAPTURE) and no other DNS server has these names, they cannot be called: set ISTIO_META_DNS_CAPTURE in the MeshConfig's defaultConfig.proxyMetadata with lazyload.dnsHosts: true, or name them in spec.host",
            shown.join(", ")
        ));
    }
    out
}

/// Whether an entry for its whole namespace, or for everything, has a host.
fn whole(host: &str, scope: &Scope) -> bool {
    let namespace = host.split('/').next().unwrap_or_default();
    [
        format!("{namespace}/*"),
        crate::scope::EVERYTHING.to_owned(),
    ]
    .iter()
    .any(|entry| scope.entries.contains_key(entry))
}
