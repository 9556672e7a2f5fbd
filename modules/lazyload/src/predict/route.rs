//! A route with its rules, and the order of what is in one list.

use std::sync::Arc;

use jiff::Timestamp;
use trimtab_mesh::model::VirtualService;
use trimtab_mesh::model::route::HttpRule;

/// A VirtualService as a proxy has it.
#[derive(Clone, Debug)]
pub struct Route {
    /// The object; the oldest of those of the Gateway API that are joined.
    pub object: Arc<VirtualService>,
    /// Its rules for HTTP, with those of delegates.
    pub http: Vec<HttpRule>,
}

/// In this order istiod goes through what is of one list.
pub(super) fn age(
    created: Option<Timestamp>,
    name: &str,
    namespace: &str,
) -> (Timestamp, String, String) {
    (
        created.unwrap_or(Timestamp::MAX),
        name.to_owned(),
        namespace.to_owned(),
    )
}
