//! Host names, as Istio reads them.

/// Lower case, without the trailing dot. `None`: empty, with a port, or no host name.
pub fn normal(name: &str) -> Option<String> {
    let name = name.trim().trim_end_matches('.').to_ascii_lowercase();
    let odd = |c: char| c == ':' || c == '/' || c.is_whitespace() || c.is_control();
    (!name.is_empty() && !name.contains(odd)).then_some(name)
}

/// Name and namespace of the Service that a host is of: `name.namespace.svc.domain` and nothing else.
pub fn service_of<'a>(host: &'a str, domain: &str) -> Option<(&'a str, &'a str)> {
    let rest = host.strip_suffix(domain)?.strip_suffix(".svc.")?;
    let (name, namespace) = rest.split_once('.')?;
    let whole = !name.is_empty() && !namespace.is_empty() && !namespace.contains('.');
    (whole && !name.starts_with('*')).then_some((name, namespace))
}

/// Host of a Service.
pub fn service_host(name: &str, namespace: &str, domain: &str) -> String {
    format!("{name}.{namespace}.svc.{domain}")
}

/// What hosts of Services end with.
pub fn service_suffix(domain: &str) -> String {
    format!(".svc.{domain}")
}

/// The host as Istio reads it in its own objects (VirtualService, DestinationRule, Sidecar): a name without a dot is of
/// the object's namespace, a name with a dot is full as it is. `reviews.shop` and `reviews.shop.svc` are no short forms.
pub fn full_host(host: &str, namespace: &str, domain: &str) -> String {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host.contains('.') || host == "*" || host.is_empty() {
        host
    } else {
        service_host(&host, namespace, domain)
    }
}

/// Whether a pattern that begins with `*` covers a host, or the other, narrower pattern.
pub fn covers(pattern: &str, host: &str) -> bool {
    pattern.strip_prefix('*').is_some_and(|suffix| {
        host.len() > pattern.len() - 1 && host.trim_start_matches('*').ends_with(suffix)
    })
}

/// The key that wildcards are found by: what stands after the first dot, for `*.b.c` and `*-a.b.c` alike.
pub fn wild_key(pattern: &str) -> &str {
    pattern.split_once('.').map_or("", |(_, rest)| rest)
}

/// Keys of all wildcards that may cover a host, the longest first; the last is that of `*`.
pub fn wild_keys(host: &str) -> impl Iterator<Item = &str> {
    let dots = host.match_indices('.').map(|(at, _)| &host[at + 1..]);
    dots.chain([""])
}

/// What a user may have meant by a host with dots that is no Service: `orders.shop` and `orders.shop.svc` are read as they are.
pub fn meant(host: &str, domain: &str) -> Option<String> {
    let rest = host.strip_suffix(".svc").unwrap_or(host);
    let (name, namespace) = rest.split_once('.')?;
    let short = !name.is_empty() && !namespace.is_empty() && !namespace.contains('.');
    short.then(|| service_host(name, namespace, domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_o14_a_name_with_a_dot_is_full() {
        for (host, wanted) in [
            ("orders", "orders.shop.svc.mesh.local"),
            ("Orders.", "orders.shop.svc.mesh.local"),
            ("orders.shop", "orders.shop"),
            ("orders.shop.svc", "orders.shop.svc"),
            ("orders.shop.svc.mesh.local", "orders.shop.svc.mesh.local"),
            ("example.com", "example.com"),
            ("*", "*"),
            ("*.example.com", "*.example.com"),
        ] {
            assert_eq!(full_host(host, "shop", "mesh.local"), wanted, "{host}");
        }
        let full = Some("orders.shop.svc.mesh.local".to_owned());
        assert_eq!(meant("orders.shop", "mesh.local"), full);
        assert_eq!(meant("orders.shop.svc", "mesh.local"), full);
        assert_eq!(meant("orders", "mesh.local"), None);
        assert_eq!(meant("a.b.example.com", "mesh.local"), None);
    }
}
