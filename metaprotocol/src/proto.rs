//! Messages of Aeraki's proxies, generated from `proto/`, and their names.

/// The generated messages.
#[allow(
    missing_docs,
    clippy::pedantic,
    rustdoc::all,
    reason = "generated code"
)]
pub mod generated {
    include!(concat!(env!("OUT_DIR"), "/aeraki_protos.rs"));
}

/// Encoded `FileDescriptorSet` of the messages, for checks of configurations in their JSON form.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Name of the network filter.
pub const FILTER: &str = "envoy.filters.network.meta_protocol_proxy";
/// Type of the network filter.
pub const META_PROTOCOL_PROXY: &str =
    "type.googleapis.com/aeraki.meta_protocol_proxy.v1alpha.MetaProtocolProxy";
/// Type of the istio_stats filter's configuration.
pub const ISTIO_STATS: &str =
    "type.googleapis.com/aeraki.meta_protocol_proxy.filters.istio_stats.v1alpha.IstioStats";
/// Type of the local rate limit filter's configuration.
pub const LOCAL_RATE_LIMIT: &str =
    "type.googleapis.com/aeraki.meta_protocol_proxy.filters.local_ratelimit.v1alpha.LocalRateLimit";
/// Type of the global rate limit filter's configuration.
pub const RATE_LIMIT: &str =
    "type.googleapis.com/aeraki.meta_protocol_proxy.filters.ratelimit.v1alpha.RateLimit";
/// Type of the carrier of routes.
pub const HTTP_ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
