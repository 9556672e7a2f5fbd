//! Proxies without Istio: a plain Envoy gets all of its configuration from Trimtab.
//!
//! [`bootstrap()`] makes the file that such an Envoy starts with. [`discover`] reads what is behind the services of a mesh,
//! [`resources`] makes listeners, clusters, endpoints and routes of it, and [`Served::updates`] says what leads from one
//! state to the next, for [`trimtab_xds::ResourceCache::update_all`]. All of that is pure; [`module`] has the watches
//! and the task that puts it in the cache.
//!
//! | of a port | gives |
//! |---|---|
//! | any | a cluster `outbound\|PORT\|SUBSET\|HOST` for the service and for each subset, with its endpoints |
//! | HTTP, gRPC | a listener and a route configuration, shared by the HTTP services of one address and port |
//! | TCP, TLS | a listener with a TCP proxy |
//! | a protocol of MetaRouters | a listener with Envoy's filter, and its routes as a resource of their own |
//!
//! Where proxies listen is [`Listen`].
//!
//! [`snapshot()`] makes what every proxy is served where some see only a part: the proxy of a pod what the pod's Sidecar
//! imports, and the way to a fallback proxy for all else.

mod address;
mod bootstrap;
mod clusters;
mod discover;
mod fallback;
mod host;
mod input;
mod isolate;
mod kept;
mod limits;
mod listeners;
mod make;
mod managed;
pub mod module;
mod objects;
mod ports;
mod routes;
mod served;
mod sidecar;
mod snapshot;
mod virtual_service;
mod wire;

pub use address::{AddressError, XdsAddress};
pub use bootstrap::{AUTHORITY, BootstrapOptions, XDS_CLUSTER, XdsTls, bootstrap};
pub use discover::{Discovered, LastGood, StandaloneObjects, discover};
pub use fallback::{ACCESS_LOG_CLUSTER, ACCESS_LOG_NAME, FALLBACK_GROUP, HOST_TAG, PORT_TAG};
pub use input::{
    AppProtocol, Balancing, EndpointInput, FallbackInput, HttpLimit, HttpMatch, HttpRetries,
    HttpRoute, Listen, PodInput, PortInput, ServiceInput, StandaloneInput,
};
pub use limits::limits;
pub use served::{Opened, Served, TYPES};
pub use snapshot::{LINGER, Snapshot, snapshot};

use make::Side;

/// Everything that proxies are served which see all services.
///
/// `before` is what they were served last: a port whose MetaRouter has a mistake, without a good one known, keeps what
/// it had. The same arguments give the same resources with the same versions.
pub fn resources(input: &StandaloneInput, before: Option<&Served>) -> Served {
    make::make(input, &Side::everything(input.listen.clone()), before, None)
}
