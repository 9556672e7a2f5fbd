//! `redis.aeraki.io/v1alpha1`: RedisService and RedisDestination.
//!
//! Objects written for Aeraki apply unchanged; Aeraki checks none of them, the schema does.

mod auth;
mod destination;
mod schema;
mod service;

pub use auth::{Auth, PlainAuth, SecretReference};
pub use destination::{
    ConnectionPool, Mode, RedisDestination, RedisDestinationSpec, RedisPool, TcpKeepalive,
    TcpSettings, TrafficPolicy,
};
pub use service::{
    Fault, FaultType, KeyMatch, Mirror, Percent, ReadPolicy, RedisService, RedisServiceSpec, Route,
    RouteDestination, RouteMatch, Settings,
};

/// API group.
pub const GROUP: &str = "redis.aeraki.io";
/// `opTimeout` of settings that say none.
pub const DEFAULT_OP_TIMEOUT: &str = "60s";
