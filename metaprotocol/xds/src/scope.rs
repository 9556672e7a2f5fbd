//! Who may see a resource.
//!
//! A resource names its audiences, a stream belongs to some. Both are small sets, so a decision is a few comparisons,
//! and the table and the index keep one set for each audience, so that neither a change nor a new stream costs work for
//! what it may not see.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// A set of proxies that a resource can be meant for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Audience {
    /// Proxies of a Kubernetes namespace: by certificate `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`, or by the
    /// node metadata where nodes are trusted.
    Namespace(String),
    /// Proxies with this very SPIFFE ID in their certificate.
    Spiffe(String),
    /// Proxies whose `node.cluster` or whose node metadata `TRIMTAB_GROUP` is this, where nodes are trusted.
    Group(String),
    /// The proxy with this `node.id`, where nodes are trusted.
    Node(String),
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::Spiffe(id) => f.write_str(id),
            Self::Group(name) => write!(f, "group {name}"),
            Self::Node(id) => write!(f, "node {id}"),
        }
    }
}

/// Who may see a resource; others are answered as if it did not exist.
///
/// ```
/// use trimtab_xds::{Audience, Scope};
/// let scope = Scope::only([Audience::Namespace("shop".to_owned())]);
/// assert_ne!(scope, Scope::All);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Scope {
    /// Every client that may connect.
    #[default]
    All,
    /// Clients that belong to one of these; none if it is empty.
    Only(Arc<BTreeSet<Audience>>),
    /// Clients that belong to none of these; everyone if it is empty.
    Except(Arc<BTreeSet<Audience>>),
}

impl Scope {
    /// A scope of some audiences.
    pub fn only(audiences: impl IntoIterator<Item = Audience>) -> Self {
        Self::Only(Arc::new(audiences.into_iter().collect()))
    }

    /// A scope of everyone but some audiences.
    pub fn except(audiences: impl IntoIterator<Item = Audience>) -> Self {
        Self::Except(Arc::new(audiences.into_iter().collect()))
    }
}

/// The audiences that a stream belongs to; fixed by its first request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View(pub(crate) BTreeSet<Audience>);

impl View {
    /// O(min(a, b) log) for a audiences of the stream and b of the resource; both are a handful.
    pub(crate) fn admits(&self, scope: &Scope) -> bool {
        match scope {
            Scope::All => true,
            Scope::Only(audiences) => self.is_in(audiences),
            Scope::Except(audiences) => !self.is_in(audiences),
        }
    }

    fn is_in(&self, audiences: &BTreeSet<Audience>) -> bool {
        if audiences.len() < self.0.len() {
            audiences.iter().any(|audience| self.0.contains(audience))
        } else {
            self.0.iter().any(|audience| audiences.contains(audience))
        }
    }
}

/// Which streams a change affects: those that could see the resource before or can see it now. Those that a scope excepts
/// count as well: they are woken and find that nothing changed for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) all: bool,
    pub(crate) audiences: BTreeSet<Audience>,
}

impl Reach {
    pub(crate) fn add(&mut self, scope: &Scope) {
        match scope {
            Scope::All | Scope::Except(_) => self.all = true,
            Scope::Only(audiences) => self.audiences.extend(audiences.iter().cloned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(name: &str) -> Audience {
        Audience::Namespace(name.into())
    }

    #[test]
    fn a_view_admits_what_shares_an_audience_with_it() {
        let view = View([space("a"), Audience::Node("n".into())].into());
        assert!(view.admits(&Scope::All));
        assert!(view.admits(&Scope::only([space("b"), space("a"), space("c")])));
        assert!(view.admits(&Scope::only([Audience::Node("n".into())])));
        assert!(!view.admits(&Scope::only([space("b")])));
        assert!(!view.admits(&Scope::only([])));
        assert!(
            !view.admits(&Scope::only([Audience::Group("a".into())])),
            "a group is no namespace"
        );
        assert!(!View::default().admits(&Scope::only([space("a")])));
    }

    #[test]
    fn an_exception_is_the_opposite_of_a_scope_of_the_same_audiences() {
        let view = View([space("a"), Audience::Node("n".into())].into());
        for audiences in [
            vec![],
            vec![space("a")],
            vec![space("b")],
            vec![space("b"), space("c"), Audience::Node("n".into())],
        ] {
            for view in [&view, &View::default()] {
                let only = view.admits(&Scope::only(audiences.clone()));
                assert_ne!(only, view.admits(&Scope::except(audiences.clone())));
            }
        }
    }
}
