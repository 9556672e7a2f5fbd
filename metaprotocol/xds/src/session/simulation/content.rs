//! Contents of a name.

use bytes::Bytes;
use proptest::prelude::*;

use crate::resource::{Resource, Scoped};
use crate::scope::{Audience, Scope};

/// A message whose first field is the name of a cluster.
const ROUTE: &[u8] = b"\n\x05later";

/// What a name has, and for whom.
#[derive(Debug, Clone)]
pub(super) enum Content {
    All(u8),
    Mine(u8),
    Others(u8),
    /// A variant for the client, and one for everyone.
    Both(u8, u8),
    /// For everyone but the client.
    NotMine(u8),
    /// For everyone but others, so that the client sees it.
    NotOthers(u8),
    /// A variant for the client, and one for everyone else.
    Apart(u8, u8),
}

pub(super) fn content() -> impl Strategy<Value = Content> {
    let version = 0..4_u8;
    prop_oneof![
        4 => version.clone().prop_map(Content::All),
        2 => version.clone().prop_map(Content::Mine),
        1 => version.clone().prop_map(Content::Others),
        1 => (version.clone(), version.clone()).prop_map(|(mine, all)| Content::Both(mine, all)),
        2 => version.clone().prop_map(Content::NotMine),
        1 => version.clone().prop_map(Content::NotOthers),
        1 => (version.clone(), version).prop_map(|(mine, rest)| Content::Apart(mine, rest)),
    ]
}

pub(super) fn mine() -> Audience {
    Audience::Namespace("mine".into())
}

pub(super) fn scoped(name: &str, content: &Content) -> Vec<Scoped> {
    let others = || Scope::only([Audience::Namespace("others".into())]);
    let variants = match *content {
        Content::All(version) => vec![(version, Scope::All)],
        Content::Mine(version) => vec![(version, Scope::only([mine()]))],
        Content::Others(version) => vec![(version, others())],
        Content::Both(own, all) => vec![(own, Scope::only([mine()])), (all, Scope::All)],
        Content::NotMine(version) => vec![(version, Scope::except([mine()]))],
        Content::NotOthers(version) => vec![(
            version,
            Scope::except([Audience::Namespace("others".into())]),
        )],
        Content::Apart(own, rest) => vec![
            (own, Scope::only([mine()])),
            (rest, Scope::except([mine()])),
        ],
    };
    let variant = |(version, scope): (u8, Scope)| Scoped {
        resource: Resource {
            name: name.to_owned(),
            version: format!("v{version}"),
            // Every other version refers to a cluster.
            body: Bytes::from_static(if version % 2 == 1 { ROUTE } else { b"" }),
            origin: String::new(),
        },
        scope,
    };
    variants.into_iter().map(variant).collect()
}
