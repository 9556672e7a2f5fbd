//! Types that proxies ask for, and their names.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Longest text that a client may send and that is kept, in bytes: ids, names, versions, reasons.
pub(crate) const MAX_TEXT: usize = 4 << 10;

/// Type URL of an extension config, the resource of the extension config discovery service.
pub const ECDS: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// Type URL of a listener.
pub const LDS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// Type URL of a cluster.
pub const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// Type URL of the endpoints of a cluster.
pub const EDS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// Type URL of an HTTP route configuration.
pub const RDS: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// Type URL of a Thrift route configuration. Envoy asks for it on the aggregated service only.
pub const TRDS: &str =
    "type.googleapis.com/envoy.extensions.filters.network.thrift_proxy.v3.RouteConfiguration";
/// Type URL of a Dubbo route configuration. Envoy asks for it on the aggregated service only.
pub const DRDS: &str = "type.googleapis.com/envoy.extensions.filters.network.dubbo_proxy.v3.MultipleRouteConfiguration";
/// Type URL of a generic proxy route configuration. Envoy asks for it on the aggregated service only.
pub const GENERIC_RDS: &str =
    "type.googleapis.com/envoy.extensions.filters.network.generic_proxy.v3.RouteConfiguration";

/// What comes before the name of a message in a type URL.
const PREFIX: &str = "type.googleapis.com/";

/// The name of a resource that an authority of its own serves, `xdstp://AUTHORITY/TYPE/PATH`, as Envoy asks for it when
/// the authority is in `config_sources` of its bootstrap.
///
/// The message in the resource must carry this very name. Envoy asks in a canonical form, whatever form its own
/// configuration has, and a request is answered by exactly the name in it; so characters are escaped here as Envoy 1.40
/// does. Keep colons out of `path`: older versions escape them and this one does not.
///
/// ```
/// use trimtab_xds::{TRDS, xdstp_name};
/// assert_eq!(
///     xdstp_name("trimtab", TRDS, "default/hello"),
///     "xdstp://trimtab/envoy.extensions.filters.network.thrift_proxy.v3.RouteConfiguration/default/hello"
/// );
/// ```
pub fn xdstp_name(authority: &str, type_url: &str, path: &str) -> String {
    xdstp_name_with(authority, type_url, path, &BTreeMap::new())
}

/// As [`xdstp_name`], with context parameters; a name with other parameters is a name of its own.
///
/// ```
/// use trimtab_xds::{TRDS, xdstp_name_with};
/// let name = xdstp_name_with("trimtab", TRDS, "hello", &[("zone", "a=b")].into());
/// assert!(name.ends_with("/hello?zone=a%3Db"));
/// ```
pub fn xdstp_name_with(
    authority: &str,
    type_url: &str,
    path: &str,
    context: &BTreeMap<&str, &str>,
) -> String {
    let message = type_url.strip_prefix(PREFIX).unwrap_or(type_url);
    let parameters: Vec<String> = context
        .iter()
        .map(|(key, value)| format!("{}={}", escaped(key, "%#[]&="), escaped(value, "%#[]&=")))
        .collect();
    let mark = if parameters.is_empty() { "" } else { "?" };
    format!(
        "xdstp://{}/{message}/{}{mark}{}",
        escaped(authority, "%/?#"),
        escaped(path, "%?#[]"),
        parameters.join("&")
    )
}

/// The reserved characters, and what is not printable ASCII before the tilde, in the form `%HH`.
fn escaped(text: &str, reserved: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = (b' '..b'~').contains(&byte) && !reserved.as_bytes().contains(&byte);
        if plain {
            out.push(char::from(byte));
        } else {
            // A string takes whatever is written to it.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Order on an aggregated stream, so that a proxy has what a resource refers to before the resource:
/// <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations>.
pub(crate) fn rank(type_url: &str) -> u8 {
    match type_url {
        CDS => 0,
        EDS => 1,
        LDS => 2,
        RDS => 3,
        _ => 4,
    }
}

/// Whether these may name clusters.
pub(crate) fn refers_to_clusters(type_url: &str) -> bool {
    !matches!(type_url, CDS | EDS)
}

/// Whether a resource of `parent` may need resources of `child`, which Envoy waits for when it takes a changed parent.
pub(crate) fn depends(parent: &str, child: &str) -> bool {
    match parent {
        CDS => matches!(child, EDS | ECDS),
        LDS => !matches!(child, CDS | EDS | LDS),
        // A filter from there may take its routes from here.
        ECDS => !matches!(child, CDS | EDS | LDS | ECDS),
        _ => false,
    }
}

/// Whether Envoy acknowledges a resource that it refused before, as long as it has not changed.
pub(crate) fn remembers_refusals(type_url: &str) -> bool {
    type_url == ECDS
}

/// Whether a state-of-the-world response must list everything because what it lacks is removed:
/// <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#deleting-resources>.
pub(crate) fn is_full_state(type_url: &str) -> bool {
    matches!(type_url, CDS | LDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_come_before_endpoints_listeners_and_routes() {
        let mut urls = vec![ECDS, RDS, TRDS, LDS, EDS, CDS];
        urls.sort_by_key(|url| rank(url));
        assert_eq!(urls, vec![CDS, EDS, LDS, RDS, ECDS, TRDS]);
    }

    #[test]
    fn reserved_and_unprintable_characters_are_escaped_and_parameters_sorted() {
        let context = [("b", "&= "), ("a", "?")].into();
        let name = xdstp_name_with("x/y", TRDS, "a b/~é?", &context);
        let (start, rest) = name.split_once("/envoy.").unwrap();
        assert_eq!(start, "xdstp://x%2Fy");
        assert!(rest.ends_with("/a b/%7E%C3%A9%3F?a=?&b=%26%3D "), "{rest}");
    }
}
