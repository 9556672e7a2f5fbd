//! DestinationRules.

use std::sync::Arc;

use trimtab_crds::istio::{self, DestinationRuleSpec};

use super::Identity;
use crate::names::{full_host, meant};
use crate::table::{ByKey, Keyed, Known, Row};
use crate::{ExportDefaults, Exports, Trust};

/// A DestinationRule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DestinationRule {
    /// Which rule.
    pub id: Identity,
    /// Full host or wildcard.
    pub host: Arc<str>,
    /// Host that its author may have meant, see [`meant`].
    pub meant: Option<Arc<str>>,
    /// Who sees it.
    pub exports: Exports,
    /// What it says.
    pub spec: DestinationRuleSpec,
}

/// Rules of a host in the order in which they count: those of the host's own namespace, then the older ones. The first to
/// name a subset or a policy decides it. Those of namespaces that do not decide on the host are left out: Istio takes them
/// for callers of their own namespace only.
pub fn in_order<'a>(
    rules: impl IntoIterator<Item = &'a Arc<DestinationRule>>,
    trust: Trust<'_>,
    namespace: &str,
) -> Vec<&'a Arc<DestinationRule>> {
    let rules = rules.into_iter();
    let mut rules: Vec<_> = rules
        .filter(|rule| trust.decides(&rule.id.namespace, namespace))
        .collect();
    rules.sort_by_key(|rule| (*rule.id.namespace != *namespace, rule.id.age()));
    rules
}

/// By its host, and by the host that was probably meant.
impl Keyed for DestinationRule {
    fn keys(&self) -> impl Iterator<Item = &str> {
        self.meant.as_deref().into_iter().chain([&*self.host])
    }
}

impl Row for DestinationRule {
    type Object = istio::DestinationRule;
    type Index = ByKey;

    fn read(object: &Arc<istio::DestinationRule>, known: &Known<'_, Self>) -> Option<Self> {
        let id = Identity::of(object.as_ref());
        let host = full_host(&object.spec.host, &id.namespace, known.domain);
        Some(Self {
            meant: meant(&host, known.domain).map(Into::into),
            host: host.into(),
            exports: Exports::new(object.spec.export_to.iter().map(String::as_str)),
            spec: object.spec.clone(),
            id,
        })
    }

    fn under(&self, defaults: &ExportDefaults) -> Option<Self> {
        let exports = self.exports.under(&defaults.destination_rules)?;
        Some(Self {
            exports,
            ..self.clone()
        })
    }
}
