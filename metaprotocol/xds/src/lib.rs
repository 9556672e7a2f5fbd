//! An xDS server that knows nothing of Kubernetes.
//!
//! [`SnapshotCache`] is the state of the world: the host puts encoded resources in, atomically and versioned by
//! content, and the cache wakes exactly the streams that subscribe to what changed. Each stream is driven by a sans-IO
//! session that has no clock, no socket and no channel, so every protocol rule is a plain unit test. [`serve`] is the
//! thin tonic shell: state-of-the-world and delta, on the aggregated service and on the extension config service.
//!
//! ```
//! use trimtab_xds::{ECDS, Resource, SnapshotCache, content_version};
//!
//! let cache = SnapshotCache::new();
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

mod cache;
mod changelog;
mod error;
mod index;
mod server;
mod session;
mod stats;
mod stream;
mod table;

pub use cache::{Delivery, SnapshotCache, StreamInfo};
pub use error::ServeError;
pub use server::serve;
pub use stats::Stats;
pub use table::{Resource, content_version};

/// Type URL of an extension config, the resource of the extension config discovery service.
pub const ECDS: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
