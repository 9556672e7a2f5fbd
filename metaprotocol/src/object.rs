//! Names of users' objects and of services.

use std::fmt;
use std::str::FromStr;

use kube::core::{ApiResource, GroupVersionKind};
use serde::Serialize;

/// A kind whose status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Kind {
    /// `metaprotocol.aeraki.io`.
    ApplicationProtocol,
    /// `dubbo.aeraki.io`.
    DubboAuthorizationPolicy,
    /// `metaprotocol.aeraki.io`.
    MetaRouter,
    /// `redis.aeraki.io`.
    RedisDestination,
    /// `redis.aeraki.io`.
    RedisService,
}

impl Kind {
    /// All of them, sorted.
    pub const ALL: [Self; 5] = [
        Self::ApplicationProtocol,
        Self::DubboAuthorizationPolicy,
        Self::MetaRouter,
        Self::RedisDestination,
        Self::RedisService,
    ];

    /// Those of Redis and Dubbo, sorted: `trimtab describe` tells of them alike.
    pub const DESCRIBED: [Self; 3] = [
        Self::DubboAuthorizationPolicy,
        Self::RedisDestination,
        Self::RedisService,
    ];

    /// The kind as objects write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApplicationProtocol => "ApplicationProtocol",
            Self::DubboAuthorizationPolicy => "DubboAuthorizationPolicy",
            Self::MetaRouter => "MetaRouter",
            Self::RedisDestination => "RedisDestination",
            Self::RedisService => "RedisService",
        }
    }

    /// Whether objects of the kind have a namespace.
    pub fn namespaced(self) -> bool {
        self != Self::ApplicationProtocol
    }

    /// Where the API server has it.
    pub fn resource(self) -> ApiResource {
        let (group, plural) = match self {
            Self::ApplicationProtocol => ("metaprotocol.aeraki.io", "applicationprotocols"),
            Self::DubboAuthorizationPolicy => ("dubbo.aeraki.io", "dubboauthorizationpolicies"),
            Self::MetaRouter => ("metaprotocol.aeraki.io", "metarouters"),
            Self::RedisDestination => ("redis.aeraki.io", "redisdestinations"),
            Self::RedisService => ("redis.aeraki.io", "redisservices"),
        };
        let gvk = GroupVersionKind::gvk(group, "v1alpha1", self.as_str());
        ApiResource::from_gvk_with_plural(&gvk, plural)
    }
}

/// A user's object. Shown as `Kind namespace/name`, as problems name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectKey {
    /// Kind.
    pub kind: Kind,
    /// Namespace; empty for kinds without one.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            namespace,
            name,
        } = self;
        write!(f, "{} {namespace}/{name}", kind.as_str())
    }
}

impl FromStr for ObjectKey {
    type Err = ();

    /// Reads `Kind namespace/name` of one of our kinds.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, name) = text.split_once(' ').ok_or(())?;
        let kind = Kind::ALL.into_iter().find(|k| k.as_str() == kind);
        let (namespace, name) = name.split_once('/').ok_or(())?;
        Ok(Self {
            kind: kind.ok_or(())?,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// A Service or ServiceEntry: the owner of generated objects, as their labels name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ServiceKey {
    /// `Service` or `ServiceEntry`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name as labels hold it: a long one is cut and ends in a hash.
    pub name: String,
}

impl ServiceKey {
    /// As an applier knows owners: the namespace, and kind and name in one.
    pub fn to_owner(&self) -> (String, String) {
        (
            self.namespace.clone(),
            format!("{}/{}", self.kind, self.name),
        )
    }

    /// From what [`Self::to_owner`] gives.
    pub fn from_owner(namespace: &str, owner: &str) -> Option<Self> {
        let (kind, name) = owner.split_once('/')?;
        Some(Self {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}
