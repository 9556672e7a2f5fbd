//! What a port speaks.

/// What istiod makes of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2, gRPC and gRPC-Web.
    Http2,
    /// TLS or HTTPS, passed through.
    Tls,
    /// Any other TCP.
    Tcp,
    /// Not said: HTTP and TCP are told apart on the connection.
    Auto,
}

impl Protocol {
    /// As istiod selects it: `appProtocol`, also when it does not know it, else the part of the name before the first dash.
    /// `None`: not carried (UDP, SCTP). Case does not matter. Source: Istio, "Protocol Selection" and
    /// `pkg/config/protocol`.
    pub fn of(transport: &str, name: &str, app_protocol: Option<&str>) -> Option<Self> {
        if transport.eq_ignore_ascii_case("UDP") || transport.eq_ignore_ascii_case("SCTP") {
            return None;
        }
        let name = name.to_ascii_lowercase();
        let prefix = || {
            if name.starts_with("grpc-web") {
                "grpc-web"
            } else {
                name.split('-').next().unwrap_or_default()
            }
        };
        let app_protocol = app_protocol.filter(|p| !p.is_empty());
        let app_protocol = app_protocol.map(str::to_ascii_lowercase);
        let said = app_protocol.as_deref().unwrap_or_else(prefix);
        Some(match said {
            "http" | "kubernetes.io/ws" => Self::Http,
            "http2" | "grpc" | "grpc-web" | "kubernetes.io/h2c" => Self::Http2,
            "https" | "tls" | "kubernetes.io/wss" => Self::Tls,
            "tcp" | "mongo" | "redis" | "mysql" => Self::Tcp,
            "udp" => return None,
            _ => Self::Auto,
        })
    }

    /// Whether requests are seen: HTTP of either version.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2)
    }
}

/// What the second part of a port's name, and its `appProtocol`, say beyond Istio's protocols: `dubbo` and no more of
/// `tcp-dubbo`, `metaprotocol` and `trpc` of `tcp-metaprotocol-trpc`. Of `DOMAIN/dubbo` and `tcp-dubbo` in `appProtocol`
/// the kind comes first.
pub fn layer7_kinds<'a>(
    name: &'a str,
    app_protocol: Option<&'a str>,
) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
    let mut parts = name.split('-').skip(1);
    let by_name = parts.next().map(|kind| (kind, parts.next()));
    let by_app = app_protocol.and_then(|text| {
        let text = text.rsplit('/').next().unwrap_or(text);
        let mut parts = text.strip_prefix("tcp-").unwrap_or(text).splitn(2, '-');
        Some((parts.next()?, parts.next()))
    });
    by_name.into_iter().chain(by_app)
}

#[cfg(test)]
mod tests {
    use super::Protocol::{self, Auto, Http, Http2, Tcp, Tls};

    #[test]
    fn fault_o14_one_rule_for_the_protocol_of_a_port() {
        for (transport, name, app, wanted) in [
            ("TCP", "http", None, Some(Http)),
            ("", "HTTP-web", None, Some(Http)),
            ("TCP", "http2-a", None, Some(Http2)),
            ("TCP", "grpc", None, Some(Http2)),
            ("TCP", "grpc-web", None, Some(Http2)),
            ("TCP", "grpc-web-x", None, Some(Http2)),
            ("TCP", "x", Some("grpc-web"), Some(Http2)),
            ("TCP", "http", Some("tcp"), Some(Tcp)),
            ("TCP", "http", Some("unknown"), Some(Auto)),
            ("TCP", "tls-x", Some(""), Some(Tls)),
            ("TCP", "https", None, Some(Tls)),
            ("TCP", "x", Some("kubernetes.io/h2c"), Some(Http2)),
            ("TCP", "redis", None, Some(Tcp)),
            ("TCP", "", None, Some(Auto)),
            ("TCP", "httpx", None, Some(Auto)),
            ("UDP", "http", None, None),
            ("SCTP", "http", Some("http"), None),
            ("TCP", "udp", None, None),
        ] {
            assert_eq!(
                Protocol::of(transport, name, app),
                wanted,
                "{transport} {name} {app:?}"
            );
        }
    }
}
