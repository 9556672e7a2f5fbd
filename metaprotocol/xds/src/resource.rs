//! Resources as the host puts them in.

use bytes::Bytes;

use crate::scope::Scope;

/// One resource, encoded once and shared by all streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The name that clients subscribe to.
    pub name: String,
    /// Version of the content, see [`content_version`].
    pub version: String,
    /// The encoded message, that is, the `value` of a `google.protobuf.Any` with the type URL of the table.
    pub body: Bytes,
    /// What the resource was made from, for example `Kind default/a`: the log names it with a NACK.
    pub origin: String,
}

/// A resource and who may see it.
///
/// A name can have several variants with different scopes; a stream sees the first that admits it. So the listeners of
/// two groups of proxies can share a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scoped {
    /// What is served.
    pub resource: Resource,
    /// Whom it is served to.
    pub scope: Scope,
}

impl From<Resource> for Scoped {
    fn from(resource: Resource) -> Self {
        Self {
            resource,
            scope: Scope::All,
        }
    }
}

/// Version of a content: equal on all replicas and after a restart, so that a client that reconnects is sent nothing.
///
/// Give it a canonical form (sorted keys), not protobuf bytes: protobuf maps are encoded in an order that differs from
/// one process to the next.
///
/// ```
/// use trimtab_xds::content_version;
/// assert_eq!(content_version(b"a"), content_version(b"a"));
/// assert_ne!(content_version(b"a"), content_version(b"b"));
/// ```
pub fn content_version(canonical: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(canonical))
}
