//! What the configuration says about scopes.

use jiff::SignedDuration;
use regex::Regex;

use crate::config::{GlobalSidecarMode, LazyloadConfig};

/// The part of the configuration that scopes depend on, ready for use.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Domain of the cluster.
    pub domain: String,
    /// Namespaces that every scope has.
    pub essentials: Vec<String>,
    /// Hosts, or `namespace/*`, that every scope has.
    pub stable: Vec<String>,
    /// Hosts of the fallback.
    pub fallback: Vec<String>,
    /// How long what has expired stays.
    pub grace: SignedDuration,
    /// Namespaces that the configuration names, with their keys; not those that it has by itself.
    pub namespaces: Vec<(String, String)>,
    /// Domains of dispatches, with their keys.
    pub dispatched: Vec<(String, String)>,
    aliases: Vec<(Regex, Vec<String>)>,
}

impl Settings {
    /// Of a configuration. `fallback`: host names of the fallback's Services, none when there is no fallback.
    ///
    /// A rule of `domainAliases` that is not a regular expression is left out; `LazyloadConfig::check` refuses it before.
    pub fn new(config: &LazyloadConfig, fallback: Vec<String>) -> Self {
        let aliases = config.domain_aliases.iter().filter_map(|alias| {
            let pattern = Regex::new(&alias.pattern).ok()?;
            Some((pattern, alias.templates.clone()))
        });
        Self {
            domain: config.domain.clone(),
            essentials: vec![config.istio_namespace.clone(), config.namespace.clone()],
            stable: config.stable_host.clone(),
            fallback,
            grace: SignedDuration::try_from(*config.retention.grace).unwrap_or(SignedDuration::MAX),
            namespaces: namespaces(config),
            dispatched: dispatched(config),
            aliases: aliases.collect(),
        }
    }

    /// Pattern of a rule of `domainAliases`.
    pub(super) fn alias_pattern(&self, index: usize) -> &str {
        self.aliases.get(index).map_or("", |(p, _)| p.as_str())
    }

    /// Whether a rule of `domainAliases` counts for a host.
    pub(super) fn alias_matches(&self, index: usize, host: &str) -> bool {
        self.aliases.get(index).is_some_and(|(p, _)| once(p, host))
    }

    /// Hosts that a host stands for besides itself. A pattern counts when it matches exactly once.
    pub fn aliases(&self, host: &str) -> Vec<String> {
        let mut out = Vec::new();
        for (pattern, templates) in &self.aliases {
            let mut matches = pattern.captures_iter(host);
            let (Some(captures), None) = (matches.next(), matches.next()) else {
                continue;
            };
            for template in templates {
                let mut alias = String::new();
                captures.expand(template, &mut alias);
                if alias != host && !out.contains(&alias) {
                    out.push(alias);
                }
            }
        }
        out
    }
}

/// Whether a pattern of `domainAliases` counts for a host: it matches exactly once.
pub(crate) fn once(pattern: &Regex, host: &str) -> bool {
    pattern.find_iter(host).take(2).count() == 1
}

fn namespaces(config: &LazyloadConfig) -> Vec<(String, String)> {
    let (own, fallback, fences) = (LazyloadConfig::default(), &config.fallback, &config.fences);
    let mut out = Vec::new();
    let mut name = |key: String, name: &str| {
        if !name.is_empty() && name != own.istio_namespace && name != own.namespace {
            out.push((key, name.to_owned()));
        }
    };
    name("istioNamespace".to_owned(), &config.istio_namespace);
    name("namespace".to_owned(), &config.namespace);
    if fallback.enabled {
        match fallback.global_sidecar_mode {
            GlobalSidecarMode::Cluster => {
                let key = "fallback.clusterGsNamespace".to_owned();
                name(key, &fallback.cluster_gs_namespace);
            }
            GlobalSidecarMode::Namespace => {
                for (i, namespace) in fallback.namespace.iter().enumerate() {
                    name(format!("fallback.namespace[{i}]"), namespace);
                }
            }
        }
    }
    for (key, list) in [
        ("fences.blackNamespaceList", &fences.black_namespace_list),
        ("fences.whiteNamespaceList", &fences.white_namespace_list),
    ] {
        for namespace in list.split(',') {
            name(key.to_owned(), namespace.trim());
        }
    }
    out
}

fn dispatched(config: &LazyloadConfig) -> Vec<(String, String)> {
    let dispatches = config.fallback.dispatches.iter().enumerate();
    let dispatches = dispatches.filter(|_| config.fallback.enabled);
    let domains = dispatches.flat_map(|(i, dispatch)| {
        let domains = dispatch.domains.iter().enumerate();
        domains.map(move |(j, domain)| {
            let key = format!("fallback.dispatches[{i}].domains[{j}]");
            (key, domain.clone())
        })
    });
    domains.collect()
}
