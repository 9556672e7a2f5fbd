//! An xDS server that knows nothing of Kubernetes.
//!
//! [`ResourceCache`] has the desired state, one set of resources for each type, shared by all nodes, like go-control-plane's
//! `MuxCache` of `LinearCache`s: the host puts encoded resources in, atomically and versioned by content, and the cache
//! wakes exactly the streams that subscribe to what changed. Each stream is driven by a sans-IO session that has no clock,
//! no socket and no channel, so every protocol rule is a plain unit test. [`serve`] and [`serve_with`] are the thin tonic
//! shell: state-of-the-world and delta, on the aggregated service and on those of
//! clusters, endpoints, listeners, routes and extension configs, plain or with mutual TLS.
//!
//! A [`Scope`] says which clients may see a resource; a client gets no sign of the others, and a change of them does
//! not wake it. [`ResourceCache::nodes`] lists what each client was sent, accepted and refused.
//!
//! On an aggregated stream, a listener or route waits until the client has acknowledged the clusters and endpoints that it
//! names: Envoy sends the ACK when it can use them, and a route to an unknown cluster would lose calls. It waits for a
//! bounded time, and everything else goes on. What a changed resource refers to is sent again after it: a changed cluster
//! is not used before its endpoints came. A refusal counts for its stream, and is tried again after a pause.
//!
//! | path | cost |
//! |---|---|
//! | [`ResourceCache::update_scoped`] | changed names, each O(log names), + streams that they affect |
//! | a push | names that changed for the stream since its last one (of listeners and clusters over state of the world: all that it sees, as the protocol demands) |
//! | an ACK or a NACK | names in the response that it answers |
//! | a subscription | names in it; a wildcard: names that the stream may see |
//! | an idle stream | nothing |
//! | memory of a stream | names it subscribes to; a delta wildcard: names that are not up to date at the client |
//!
//! ```
//! use trimtab_xds::{ECDS, Resource, ResourceCache, content_version};
//!
//! let cache = ResourceCache::new();
//! let resource = Resource {
//!     name: "limits".to_owned(),
//!     version: content_version(b"limit: 5"),
//!     body: bytes::Bytes::from_static(b"an encoded TypedExtensionConfig"),
//!     origin: "default/reviews".to_owned(),
//! };
//! assert_eq!(cache.update(ECDS, vec![resource.clone()], &[]), 1);
//! assert_eq!(cache.update(ECDS, vec![resource], &[]), 0, "the same content is no change");
//! cache.mark_ready();
//! ```

pub mod accept;
mod authenticate;
mod cache;
mod changelog;
mod codec;
mod cow_map;
mod encode;
mod entry;
mod error;
mod identity;
mod index;
mod info;
mod options;
mod protocol;
mod references;
mod rejections;
mod resource;
mod responses;
mod scope;
mod server;
mod services;
mod session;
mod stats;
mod store;
mod stream;
mod table;
mod tls;
mod types;
mod unresolved;
mod wake;

pub use accept::listen;
pub use authenticate::{
    AuthenticateError, Authenticated, Authenticator, ServerCertificate, Tokens,
};
pub use cache::{ResourceCache, Update};
pub use error::{ServeError, TlsError};
pub use identity::{GROUP_KEY, IdentityError, NodeTrust, SpiffeId};
pub use info::{Awaits, Culprit, NodeInfo, Refusal, ResourceInfo, Stamp, StreamInfo, Subscription};
pub use options::{Limits, Security, ServerOptions, TlsFiles};
pub use resource::{Resource, Scoped, content_version};
pub use scope::{Audience, Scope};
pub use server::{serve, serve_with};
pub use stats::{Stats, TypeStats};
pub use store::Delivery;
pub use tls::{MeshCertificate, Tls};
pub use types::{CDS, DRDS, ECDS, EDS, GENERIC_RDS, LDS, RDS, TRDS, xdstp_name, xdstp_name_with};
pub use unresolved::Unresolved;
