//! What each filter can do: the one table that translators decide by and that `docs/metaprotocol-features.md` shows.
//!
//! Sources: Envoy's protos and runs of a real Envoy 1.40 for the stock filters, Aeraki's protos and codecs for its proxies.

mod docs;
mod table;
mod wanted;

use serde::Serialize;

use crate::input::{Protocol, StockFilter};

pub use docs::document;
pub use table::support;
pub use wanted::{RequiredFeature, wanted};

/// A filter that requests pass through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// Aeraki's proxy with its Dubbo codec.
    AerakiDubbo,
    /// Aeraki's proxy with its Thrift codec.
    AerakiThrift,
    /// Aeraki's proxy with any other codec.
    AerakiOther,
    /// Envoy's Thrift filter.
    ThriftProxy,
    /// Envoy's Dubbo filter.
    DubboProxy,
    /// Envoy's generic filter with its Dubbo codec.
    GenericProxyDubbo,
    /// Envoy's Redis filter.
    RedisProxy,
    /// Envoy's ZooKeeper filter: series only.
    ZookeeperProxy,
    /// Envoy's Kafka filter: series only, and not in ordinary builds.
    KafkaBroker,
}

impl Target {
    /// All, in the order of the table.
    pub const ALL: [Self; 9] = [
        Self::AerakiDubbo,
        Self::AerakiThrift,
        Self::AerakiOther,
        Self::ThriftProxy,
        Self::DubboProxy,
        Self::GenericProxyDubbo,
        Self::RedisProxy,
        Self::ZookeeperProxy,
        Self::KafkaBroker,
    ];

    /// Name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::AerakiDubbo => "Aeraki, Dubbo",
            Self::AerakiThrift => "Aeraki, Thrift",
            Self::AerakiOther => "Aeraki, other codecs",
            Self::ThriftProxy => "thrift_proxy",
            Self::DubboProxy => "dubbo_proxy",
            Self::GenericProxyDubbo => "generic_proxy (Dubbo)",
            Self::RedisProxy => "redis_proxy",
            Self::ZookeeperProxy => "zookeeper_proxy",
            Self::KafkaBroker => "kafka_broker",
        }
    }

    /// Whether it is a filter of Aeraki's proxies.
    pub fn is_aeraki(self) -> bool {
        matches!(
            self,
            Self::AerakiDubbo | Self::AerakiThrift | Self::AerakiOther
        )
    }

    /// The compiled-in filter that it needs; `None` for Aeraki's.
    pub fn stock_filter(self) -> Option<StockFilter> {
        Some(match self {
            Self::AerakiDubbo | Self::AerakiThrift | Self::AerakiOther => return None,
            Self::ThriftProxy => StockFilter::ThriftProxy,
            Self::DubboProxy => StockFilter::DubboProxy,
            Self::GenericProxyDubbo => StockFilter::GenericProxy,
            Self::RedisProxy => StockFilter::RedisProxy,
            Self::ZookeeperProxy => StockFilter::ZookeeperProxy,
            Self::KafkaBroker => StockFilter::KafkaBroker,
        })
    }

    /// The filter of Aeraki's proxies for a protocol; `None` when it is one of Envoy's own.
    pub fn of_aeraki(protocol: &Protocol) -> Option<Self> {
        let Protocol::MetaProtocol { codec, .. } = protocol else {
            return None;
        };
        Some(match codec.as_deref() {
            Some("aeraki.meta_protocol.codec.dubbo") => Self::AerakiDubbo,
            Some("aeraki.meta_protocol.codec.thrift") => Self::AerakiThrift,
            _ => Self::AerakiOther,
        })
    }

    /// Filters of stock Envoy for a protocol, the usual one first; empty: there is none.
    pub fn of_envoy(protocol: &Protocol) -> Vec<Self> {
        match protocol {
            Protocol::MetaProtocol { codec, .. } => match codec.as_deref() {
                Some("aeraki.meta_protocol.codec.dubbo") => {
                    vec![Self::DubboProxy, Self::GenericProxyDubbo]
                }
                Some("aeraki.meta_protocol.codec.thrift") => vec![Self::ThriftProxy],
                _ => Vec::new(),
            },
            Protocol::Dubbo => vec![Self::DubboProxy, Self::GenericProxyDubbo],
            Protocol::Thrift => vec![Self::ThriftProxy],
            Protocol::Redis => vec![Self::RedisProxy],
            Protocol::Zookeeper => vec![Self::ZookeeperProxy],
            Protocol::Kafka => vec![Self::KafkaBroker],
        }
    }
}

/// Something that a user can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Feature {
    /// Exact interface or service name.
    MatchInterface,
    /// Prefix, regex or presence of the interface.
    MatchInterfacePattern,
    /// Exact method, or any.
    MatchMethod,
    /// Prefix or regex of the method.
    MatchMethodPattern,
    /// Group and version of a Dubbo service.
    MatchGroupVersion,
    /// Any other attribute: attachment, header, field of the codec.
    MatchAttribute,
    /// Exact argument of the call, `argument[N]`.
    MatchArgument,
    /// Prefix, regex or presence of an argument.
    MatchArgumentPattern,
    /// Several destinations with weights.
    Weights,
    /// Subsets of DestinationRules.
    Subsets,
    /// A copy of requests.
    Mirror,
    /// Attributes set in requests.
    RequestMutation,
    /// Attributes set in responses.
    ResponseMutation,
    /// Consistent hash by an attribute.
    ConsistentHash,
    /// Limit per request at each proxy.
    LocalRateLimit,
    /// Local limit for requests that match.
    LocalRateLimitConditions,
    /// Limit per request held by a rate limit service.
    GlobalRateLimit,
    /// Time limit of a call.
    Timeout,
    /// Calls that are tried again.
    Retries,
    /// Routes at gateways.
    Gateways,
    /// Authorization by interface and method.
    Authorization,
    /// Access log per request.
    AccessLog,
    /// Tracing.
    Tracing,
    /// Istio's standard series.
    StandardMetrics,
    /// Several requests in flight on one upstream connection.
    Multiplexing,
    /// Idle connections are closed.
    IdleTimeout,
    /// A change of routes moves calls on live connections and touches no listener.
    LiveRoutes,
    /// Routes by prefix of keys.
    KeyPrefix,
    /// Injected delays and errors.
    Faults,
}

impl Feature {
    /// All, in the order of the table.
    pub const ALL: [Self; 29] = [
        Self::MatchInterface,
        Self::MatchInterfacePattern,
        Self::MatchMethod,
        Self::MatchMethodPattern,
        Self::MatchGroupVersion,
        Self::MatchAttribute,
        Self::MatchArgument,
        Self::MatchArgumentPattern,
        Self::Weights,
        Self::Subsets,
        Self::Mirror,
        Self::RequestMutation,
        Self::ResponseMutation,
        Self::ConsistentHash,
        Self::LocalRateLimit,
        Self::LocalRateLimitConditions,
        Self::GlobalRateLimit,
        Self::Timeout,
        Self::Retries,
        Self::Gateways,
        Self::Authorization,
        Self::AccessLog,
        Self::Tracing,
        Self::StandardMetrics,
        Self::Multiplexing,
        Self::IdleTimeout,
        Self::LiveRoutes,
        Self::KeyPrefix,
        Self::Faults,
    ];

    /// Name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::MatchInterface => "match interface or service, exact",
            Self::MatchInterfacePattern => "match interface by prefix, regex, presence",
            Self::MatchMethod => "match method, exact or presence",
            Self::MatchMethodPattern => "match method by prefix, regex",
            Self::MatchGroupVersion => "match group and version",
            Self::MatchAttribute => "match attachment, header or codec attribute",
            Self::MatchArgument => "match argument of the call, exact",
            Self::MatchArgumentPattern => "match argument by prefix, regex, presence",
            Self::Weights => "weighted destinations",
            Self::Subsets => "subsets",
            Self::Mirror => "mirror",
            Self::RequestMutation => "request mutation",
            Self::ResponseMutation => "response mutation",
            Self::ConsistentHash => "consistent hash by attribute",
            Self::LocalRateLimit => "local rate limit per request",
            Self::LocalRateLimitConditions => "local rate limit with conditions",
            Self::GlobalRateLimit => "global rate limit per request",
            Self::Timeout => "timeout",
            Self::Retries => "retries",
            Self::Gateways => "gateways",
            Self::Authorization => "authorization by interface and method",
            Self::AccessLog => "access log",
            Self::Tracing => "tracing",
            Self::StandardMetrics => "Istio's standard series",
            Self::Multiplexing => "multiplexed upstream connections",
            Self::IdleTimeout => "idle timeout",
            Self::LiveRoutes => "routes change on live connections",
            Self::KeyPrefix => "routes by key prefix",
            Self::Faults => "faults",
        }
    }

    /// What becomes of routes that ask for it where it is not supported.
    pub fn loss(self) -> UnsupportedEffect {
        match self {
            Self::MatchInterface
            | Self::MatchInterfacePattern
            | Self::MatchMethod
            | Self::MatchMethodPattern
            | Self::MatchGroupVersion
            | Self::MatchAttribute
            | Self::MatchArgument
            | Self::MatchArgumentPattern
            | Self::Weights
            | Self::KeyPrefix => UnsupportedEffect::BlocksRoutes,
            _ => UnsupportedEffect::WithoutIt,
        }
    }
}

/// What becomes of routes that ask for a feature which is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsupportedEffect {
    /// The routes would send calls elsewhere than the user wrote: none of them is applied, the last good ones stay.
    BlocksRoutes,
    /// The routes are applied without it, and a condition says so.
    WithoutIt,
}

/// Whether a filter does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Yes.
    Yes,
    /// Yes, with a limit that users must know.
    Partly(&'static str),
    /// No.
    No {
        /// Why.
        reason: &'static str,
        /// What the user can do.
        fix: &'static str,
    },
    /// The question makes no sense for the protocol.
    NotApplicable,
}

impl Support {
    /// Whether it can be used.
    pub fn usable(self) -> bool {
        matches!(self, Self::Yes | Self::Partly(_))
    }
}
