//! Names and types of Envoy.

/// Routes of the Thrift filter.
pub(crate) const TRDS: &str =
    "type.googleapis.com/envoy.extensions.filters.network.thrift_proxy.v3.RouteConfiguration";
/// Routes of the Dubbo filter.
pub(crate) const DRDS: &str = "type.googleapis.com/envoy.extensions.filters.network.dubbo_proxy.v3.MultipleRouteConfiguration";
/// Routes of the generic filter.
pub(crate) const GENERIC_RDS: &str =
    "type.googleapis.com/envoy.extensions.filters.network.generic_proxy.v3.RouteConfiguration";
/// Configuration of a filter.
pub(crate) const ECDS: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
