//! Which rules of `domainAliases` match a host of the mesh.

use regex::Regex;

use crate::config::DomainAlias;
use crate::scope::once;

/// How many hosts each rule matches.
#[derive(Debug, Default)]
pub(super) struct AliasUses {
    rules: Vec<(Regex, usize)>,
    /// Grows when a rule matches its first host, or none any more.
    pub(super) turns: u64,
}

impl AliasUses {
    pub(super) fn new(rules: &[DomainAlias]) -> Self {
        let patterns = rules.iter().filter_map(|r| Regex::new(&r.pattern).ok());
        Self {
            rules: patterns.map(|pattern| (pattern, 0)).collect(),
            turns: 0,
        }
    }

    /// A host comes or goes.
    pub(super) fn count(&mut self, host: &str, there: bool) {
        for (pattern, hosts) in &mut self.rules {
            if once(pattern, host) {
                let before = *hosts;
                *hosts = if there {
                    before + 1
                } else {
                    before.saturating_sub(1)
                };
                self.turns += u64::from((before == 0) != (*hosts == 0));
            }
        }
    }

    /// Rules that match no host.
    pub(super) fn unused(&self) -> Vec<usize> {
        let rules = self.rules.iter().enumerate();
        let unused = rules.filter(|(_, (_, hosts))| *hosts == 0);
        unused.map(|(index, _)| index).collect()
    }
}
