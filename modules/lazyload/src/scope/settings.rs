//! What the configuration says about scopes.

use jiff::SignedDuration;
use regex::Regex;

use crate::config::LazyloadConfig;

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
            aliases: aliases.collect(),
        }
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
