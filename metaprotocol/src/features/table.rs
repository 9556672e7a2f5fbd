//! The table itself.

use super::Support::{No, NotApplicable, Partly, Yes};
use super::{Feature, Support, Target};

const USE_GENERIC: &str = "use a port named tcp-dubbo with proxies that have generic_proxy, and no weights in this router";
const USE_AERAKI: &str = "use proxies with Aeraki's MetaProtocol filter, or remove the field";
const USE_DUBBO_PROXY: &str =
    "let proxies have dubbo_proxy, and ask for neither timeout nor retries in the same router";
const NO_REQUESTS: &str = "the filter only counts requests and has no routes";
const PLAIN_TCP: &str = "use a VirtualService with TCP routes for this port";

const fn no(reason: &'static str, fix: &'static str) -> Support {
    No { reason, fix }
}

/// Whether `target` does `feature`.
pub fn support(feature: Feature, target: Target) -> Support {
    match target {
        Target::AerakiDubbo | Target::AerakiThrift | Target::AerakiOther => aeraki(feature, target),
        Target::ThriftProxy => thrift_proxy(feature),
        Target::DubboProxy => dubbo_proxy(feature),
        Target::GenericProxyDubbo => generic_proxy(feature),
        Target::RedisProxy => redis_proxy(feature),
        Target::ZookeeperProxy | Target::KafkaBroker => counting(feature, target),
    }
}

fn aeraki(feature: Feature, target: Target) -> Support {
    match feature {
        Feature::MatchInterface
        | Feature::MatchInterfacePattern
        | Feature::MatchMethod
        | Feature::MatchMethodPattern
        | Feature::MatchGroupVersion
        | Feature::MatchAttribute
        | Feature::RequestMutation
        | Feature::ResponseMutation => aeraki_codec(feature, target),
        Feature::MatchArgument | Feature::MatchArgumentPattern => no(
            "the codec does not expose the arguments of a call",
            "match an attachment, or use stock proxies with dubbo_proxy",
        ),
        Feature::Weights
        | Feature::Subsets
        | Feature::Mirror
        | Feature::LocalRateLimit
        | Feature::LocalRateLimitConditions
        | Feature::Gateways
        | Feature::AccessLog
        | Feature::Tracing
        | Feature::StandardMetrics
        | Feature::IdleTimeout
        | Feature::LiveRoutes => Yes,
        Feature::ConsistentHash => Partly("the attribute must be one that the codec exposes"),
        Feature::GlobalRateLimit => Partly(
            "the proxy asks the service over a new connection for each request, without the time limit, and one descriptor for each property",
        ),
        Feature::Timeout => no(
            "Aeraki's proxy has no time limit per request",
            "use a stock proxy with generic_proxy for Dubbo, or remove the field",
        ),
        Feature::Retries => no(
            "Aeraki's proxy does not try a request again",
            "use a stock proxy with generic_proxy for Dubbo, or remove the field",
        ),
        Feature::Authorization => no(
            "the authorization filter is not in Aeraki's published proxies",
            "use Istio's AuthorizationPolicy with principals and namespaces",
        ),
        Feature::Multiplexing => Partly("only with codecs that carry a request id"),
        Feature::KeyPrefix | Feature::Faults => NotApplicable,
    }
}

fn aeraki_codec(feature: Feature, target: Target) -> Support {
    match (target, feature) {
        (Target::AerakiDubbo, Feature::ResponseMutation) => {
            Partly("only responses that carry attachments")
        }
        (Target::AerakiDubbo, Feature::MatchGroupVersion) => {
            Partly("as the attachments group and version, which callers send")
        }
        (Target::AerakiThrift, Feature::MatchMethod | Feature::MatchMethodPattern) => Yes,
        (Target::AerakiThrift, Feature::RequestMutation | Feature::ResponseMutation) => no(
            "Aeraki's Thrift codec cannot write attributes",
            "remove the field",
        ),
        (Target::AerakiThrift, Feature::MatchGroupVersion) => NotApplicable,
        (Target::AerakiThrift, _) => no(
            "Aeraki's Thrift codec exposes the attribute method only",
            "match method, or use stock proxies with thrift_proxy",
        ),
        (Target::AerakiOther, _) => Partly("attributes that the codec exposes"),
        _ => Yes,
    }
}

fn thrift_proxy(feature: Feature) -> Support {
    match feature {
        Feature::MatchInterface => Partly("the service of multiplexed calls"),
        Feature::MatchMethod
        | Feature::Weights
        | Feature::Subsets
        | Feature::Mirror
        | Feature::AccessLog
        | Feature::Gateways => Yes,
        Feature::MatchInterfacePattern => no(
            "thrift_proxy compares the service name as a whole",
            "write the name with exact",
        ),
        Feature::MatchMethodPattern => no(
            "thrift_proxy compares the method as a whole",
            "write one route for each method with exact",
        ),
        Feature::MatchAttribute => Partly("headers of the THeader transport"),
        Feature::GlobalRateLimit => Partly(
            "a connection whose call was refused never answers again: callers must reconnect",
        ),
        Feature::LiveRoutes => Partly("with route discovery; new connections only with ECDS"),
        Feature::MatchArgument | Feature::MatchArgumentPattern => no(
            "thrift_proxy does not read arguments",
            "match the method or a header",
        ),
        Feature::RequestMutation | Feature::ResponseMutation => no(
            "thrift_proxy cannot set headers by route",
            "remove the field",
        ),
        Feature::ConsistentHash => no(
            "thrift_proxy has no hash policy",
            "use another load balancer in the DestinationRule",
        ),
        Feature::LocalRateLimit | Feature::LocalRateLimitConditions => no(
            "thrift_proxy has no local rate limit filter",
            "use globalRateLimit",
        ),
        Feature::Timeout => no(
            "thrift_proxy has no time limit per request",
            "set the time limit in callers",
        ),
        Feature::Retries => no("thrift_proxy does not try a call again", "retry in callers"),
        Feature::Authorization => no(
            "there is no authorization by method for Thrift in Envoy",
            "use Istio's AuthorizationPolicy with principals and namespaces",
        ),
        Feature::Tracing => no("thrift_proxy has no tracing", "trace in callers"),
        Feature::StandardMetrics => no(
            "Istio's metric filter does not read Thrift",
            "use Envoy's own thrift series",
        ),
        Feature::Multiplexing | Feature::IdleTimeout => no(
            "thrift_proxy has no such setting",
            "set idle timeouts in the DestinationRule",
        ),
        Feature::MatchGroupVersion | Feature::KeyPrefix | Feature::Faults => NotApplicable,
    }
}

fn dubbo_proxy(feature: Feature) -> Support {
    match feature {
        Feature::MatchInterface
        | Feature::MatchMethod
        | Feature::MatchMethodPattern
        | Feature::MatchAttribute
        | Feature::Weights
        | Feature::Subsets
        | Feature::Gateways => Yes,
        Feature::MatchInterfacePattern => {
            Partly("a regex is compared with the attachment interface, which callers send")
        }
        Feature::MatchGroupVersion => Partly(
            "patterns are compared with the attachments group and version, which callers send",
        ),
        Feature::MatchArgument => Partly("arguments that are texts"),
        Feature::MatchArgumentPattern => no(
            "dubbo_proxy compares arguments as a whole",
            "write one route for each value with exact",
        ),
        Feature::LiveRoutes => Partly("with route discovery; new connections only with ECDS"),
        Feature::Mirror => no("Envoy's Dubbo filters cannot mirror", USE_AERAKI),
        Feature::RequestMutation | Feature::ResponseMutation => {
            no("Envoy's Dubbo filters cannot set attachments", USE_AERAKI)
        }
        Feature::ConsistentHash => no("Envoy's Dubbo filters have no hash policy", USE_AERAKI),
        Feature::LocalRateLimit | Feature::LocalRateLimitConditions | Feature::GlobalRateLimit => {
            no("Envoy's Dubbo filters cannot limit requests", USE_AERAKI)
        }
        Feature::Timeout => no("dubbo_proxy has no time limit per request", USE_GENERIC),
        Feature::Retries => no("dubbo_proxy does not try a call again", USE_GENERIC),
        Feature::AccessLog => no("dubbo_proxy has no access log", USE_GENERIC),
        Feature::Tracing => no("dubbo_proxy has no tracing", USE_GENERIC),
        Feature::Authorization => no(
            "the Dubbo authorization filter is not in stock Envoy",
            "use Istio's AuthorizationPolicy with principals and namespaces",
        ),
        Feature::StandardMetrics => no(
            "Istio's metric filter does not read Dubbo",
            "use Envoy's own dubbo series",
        ),
        Feature::Multiplexing | Feature::IdleTimeout => no(
            "dubbo_proxy has no such setting",
            "set idle timeouts in the DestinationRule",
        ),
        Feature::KeyPrefix | Feature::Faults => NotApplicable,
    }
}

fn generic_proxy(feature: Feature) -> Support {
    match feature {
        Feature::MatchInterface
        | Feature::MatchInterfacePattern
        | Feature::MatchMethod
        | Feature::MatchMethodPattern
        | Feature::MatchGroupVersion
        | Feature::MatchAttribute
        | Feature::Subsets
        | Feature::Timeout
        | Feature::AccessLog
        | Feature::Tracing
        | Feature::Gateways => Yes,
        Feature::Retries => Partly("after failed connections and resets, by number only"),
        Feature::LiveRoutes => Partly("with route discovery; new connections only with ECDS"),
        Feature::Weights => no(
            "generic_proxy accepts weighted clusters and then fails every request",
            USE_DUBBO_PROXY,
        ),
        Feature::MatchArgument | Feature::MatchArgumentPattern => {
            no("generic_proxy does not read arguments", USE_DUBBO_PROXY)
        }
        Feature::Multiplexing => no(
            "the setting belongs to Aeraki's proxies",
            "remove the field",
        ),
        Feature::IdleTimeout => no(
            "generic_proxy has no such setting",
            "set idle timeouts in the DestinationRule",
        ),
        same => dubbo_proxy(same),
    }
}

fn redis_proxy(feature: Feature) -> Support {
    match feature {
        Feature::KeyPrefix | Feature::Faults | Feature::Mirror => Yes,
        Feature::Subsets => no(
            "a RedisService names hosts and ports only",
            "make a service of its own for the subset",
        ),
        Feature::ConsistentHash => Partly("keys are always hashed"),
        Feature::Timeout => Partly("one for all commands: settings.opTimeout of the RedisService"),
        Feature::LiveRoutes => no(
            "Envoy does not survive a change of redis_proxy over xDS, so that routes are in the EnvoyFilter and a change drains the listener",
            "let callers reconnect",
        ),
        Feature::IdleTimeout | Feature::Multiplexing | Feature::MatchGroupVersion => NotApplicable,
        Feature::StandardMetrics => no(
            "Istio's metric filter does not read Redis",
            "use Envoy's own redis series",
        ),
        Feature::AccessLog | Feature::Tracing => no(
            "redis_proxy has none",
            "use settings.enableCommandStats of the RedisService",
        ),
        Feature::Authorization => no(
            "redis_proxy does not authorize commands",
            "use Istio's AuthorizationPolicy with principals and namespaces",
        ),
        _ => no(
            "routes of Redis come from a RedisService",
            "write a RedisService for the host",
        ),
    }
}

fn counting(feature: Feature, target: Target) -> Support {
    match feature {
        _ if target == Target::KafkaBroker => no(
            "kafka_broker is not in ordinary builds of Envoy, and a proxy without it refuses the listener",
            "remove the protocol from the port's name",
        ),
        Feature::StandardMetrics => Partly("Istio's TCP series, and series of the filter"),
        Feature::MatchGroupVersion | Feature::KeyPrefix | Feature::Faults => NotApplicable,
        _ => no(NO_REQUESTS, PLAIN_TCP),
    }
}
