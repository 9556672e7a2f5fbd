//! `metaprotocol.aeraki.io/v1alpha1`: MetaRouter and ApplicationProtocol.
//!
//! Objects written for Aeraki apply unchanged. What Aeraki checks in a webhook is checked by the schema here.
//! Added fields: `timeout` and `retries` of a route.

mod application_protocol;
mod matching;
mod ratelimit;
mod route;
mod router;
mod schema;
mod status;

pub use application_protocol::{ApplicationProtocol, ApplicationProtocolSpec};
pub use matching::{AttributeMatch, Match, StringMatch};
pub use ratelimit::{
    GlobalRateLimit, LimitCondition, LimitDescriptor, LocalRateLimit, TokenBucket,
};
pub use route::{
    Destination, KeyValue, MetaRoute, Percent, PortSelector, Retries, RouteDestination,
};
pub use router::{MetaRouter, MetaRouterSpec};
pub use status::{MetaRouterStatus, ProxyCounts};

/// API group.
pub const GROUP: &str = "metaprotocol.aeraki.io";
/// `requestTimeout` of a global limit that says none.
pub const DEFAULT_LIMIT_TIMEOUT: &str = "20ms";
