//! What protects the HTTP endpoints from web pages of other sites.
//!
//! A page of another site may neither change nor read anything here. What changes state needs a header that no browser
//! sends on its own. Besides, a request must be for a name of ours: else a page whose own name is made to lead here, which
//! browsers take for the same site, could do all that our pages do.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Extension, Request};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use trimtab_kit::api::ApiError;
use trimtab_kit::listen::Ends;
use trimtab_mesh::names::service_host;

/// Every request that changes state must have it. A page of another site can send it only after a preflight, which we
/// never allow.
pub const REQUEST_HEADER: &str = "x-trimtab-request";

/// Our pages get their scripts and styles as files from here, the status page a worker from a text in it. Nothing comes from
/// elsewhere, nothing inline runs, no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; worker-src blob:; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Probes say nothing but whether all is well, and the kubelet may be told to ask by any name.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Names by which clients may call the HTTP port, besides those of loopback and the address that a connection came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnNames {
    /// `http.hosts`, in lower case.
    configured: BTreeSet<String>,
    /// What follows the name of a Service in our namespace.
    of_services: Vec<String>,
}

impl OwnNames {
    /// The configured names and those of the Services in `namespace`, if this is a cluster.
    pub fn new(configured: &[String], namespace: Option<&str>, domain: &str) -> Self {
        let lower = configured.iter().map(|name| name.to_ascii_lowercase());
        let of = |namespace: &str| {
            let full = service_host("", namespace, domain);
            let short = full
                .strip_suffix(domain)
                .map(|short| short.trim_end_matches('.'));
            [
                format!(".{namespace}"),
                short.unwrap_or(&full).to_owned(),
                full.clone(),
            ]
        };
        Self {
            configured: lower.collect(),
            of_services: namespace.map(of).into_iter().flatten().collect(),
        }
    }

    fn has(&self, host: &str, local: IpAddr) -> bool {
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
            let address = address.to_canonical();
            return address.is_loopback()
                || address == local.to_canonical()
                || self.configured.contains(bare.unwrap_or(host));
        }
        let of_service = |end: &String| {
            let name = host.strip_suffix(end.as_str());
            name.is_some_and(|name| !name.is_empty() && !name.contains('.'))
        };
        host == "localhost"
            || host.ends_with(".localhost")
            || self.configured.contains(host)
            || self.of_services.iter().any(of_service)
    }
}

/// Refuses what a page of another site may have sent.
pub(super) async fn only_from_here(
    Extension(names): Extension<Arc<OwnNames>>,
    Extension(ends): Extension<Ends>,
    request: Request,
    next: Next,
) -> Response {
    let local = ends.local.ip();
    match from_here(
        &names,
        local,
        request.method(),
        request.uri(),
        request.headers(),
    ) {
        Ok(()) => next.run(request).await,
        Err(why) => ApiError::new(StatusCode::FORBIDDEN, why).into_response(),
    }
}

fn from_here(
    names: &OwnNames,
    local: IpAddr,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), &'static str> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if reads && PROBES.contains(&uri.path()) {
        return Ok(());
    }
    let host = own_host(names, local, uri, headers)
        .ok_or("Host: it is no name of Trimtab; add it to http.hosts in the configuration")?;
    let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap_or_default());
    for origin in headers.get_all(header::ORIGIN) {
        let origin = origin.to_str().ok().and_then(|o| o.split_once("://"));
        let same =
            origin.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host.as_str()));
        if !same {
            return Err("Origin: it is not the host that the request is for");
        }
    }
    // A link to one of our pages may be anywhere: who follows it reads the page, the site with the link does not.
    let link = reads
        && text("sec-fetch-mode") == Some("navigate")
        && text("sec-fetch-dest") == Some("document");
    if !link && !matches!(text("sec-fetch-site"), None | Some("same-origin" | "none")) {
        return Err("Sec-Fetch-Site: requests from other sites are refused");
    }
    // Methods that no route has are answered 405 by the routes, and change nothing.
    if *method == Method::POST && !headers.contains_key(REQUEST_HEADER) {
        return Err("requests that change state need a header: add -H 'X-Trimtab-Request: 1'");
    }
    Ok(())
}

/// The host that a request is for, if it is ours by all that the request says.
fn own_host(names: &OwnNames, local: IpAddr, uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host: Authority = hosts.next()?.to_str().ok()?.parse().ok()?;
    if hosts.next().is_some() || host.as_str().contains('@') {
        return None;
    }
    let whole = uri.authority();
    let of_uri = whole.is_none_or(|whole| whole.as_str().eq_ignore_ascii_case(host.as_str()));
    (of_uri && names.has(host.host(), local)).then_some(host)
}

/// Tells browsers to take answers for what they say they are, and to show them in no frame.
pub(super) async fn protected(mut response: Response) -> Response {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ] {
        let headers = response.headers_mut();
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        method: &str,
        uri: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(), &'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let names = OwnNames::new(&["Mesh.Example".to_owned()], Some("mesh"), "c.local");
        let local = "10.0.0.7".parse().unwrap();
        let method = method.parse().unwrap();
        from_here(&names, local, &method, &uri.parse().unwrap(), &map)
    }

    #[test]
    fn fault_o27_what_another_site_may_have_sent_is_refused() {
        let header = "x-trimtab-request";
        for (headers, good) in [
            (vec![], false),
            (vec![(header, "1")], true),
            (vec![(header, "1"), ("sec-fetch-site", "same-origin")], true),
            (vec![(header, "1"), ("sec-fetch-site", "cross-site")], false),
            (vec![(header, "1"), ("sec-fetch-site", "same-site")], false),
            (vec![("sec-fetch-site", "same-origin")], false),
            (
                vec![(header, "1"), ("origin", "http://localhost:8080")],
                true,
            ),
            (
                vec![(header, "1"), ("origin", "http://localhost:8081")],
                false,
            ),
            (vec![(header, "1"), ("origin", "https://elsewhere")], false),
            (vec![(header, "1"), ("origin", "null")], false),
            (
                vec![
                    (header, "1"),
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                ],
                false,
            ),
        ] {
            let mut all = vec![("host", "localhost:8080")];
            all.extend(headers.clone());
            assert_eq!(check("POST", "/x", &all).is_ok(), good, "{headers:?}");
        }
    }

    #[test]
    fn fault_t8_no_other_site_reads_anything() {
        let own = ("host", "localhost:8080");
        for path in [
            "/",
            "/api/v1/limiters",
            "/metrics",
            "/lazyload/debug/svfReset",
        ] {
            let get = |headers: &[(&'static str, &str)]| check("GET", path, headers).is_ok();
            assert!(get(&[own]), "{path}");
            assert!(!get(&[own, ("sec-fetch-site", "cross-site")]));
            assert!(!get(&[
                own,
                ("sec-fetch-site", "same-site"),
                ("sec-fetch-mode", "no-cors")
            ]));
            assert!(!get(&[own, ("origin", "http://other.example")]));
            let link = [
                own,
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document"),
            ];
            assert!(get(&link));
            let frame = [
                own,
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "iframe"),
            ];
            assert!(!get(&frame));
            assert!(!get(&[("host", "other.example")]));
            assert!(!get(&[]));
        }
        for probe in PROBES {
            check("GET", probe, &[("host", "other.example")]).unwrap();
            check("POST", probe, &[("host", "other.example")]).unwrap_err();
        }
    }

    #[test]
    fn fault_t8_only_our_names_lead_here() {
        for (host, good) in [
            ("localhost", true),
            ("LOCALHOST:8080", true),
            ("status.localhost:8080", true),
            ("127.0.0.1:8080", true),
            ("127.9.9.9", true),
            ("[::1]:8080", true),
            ("[::ffff:10.0.0.7]:8080", true),
            ("10.0.0.7:8080", true),
            ("mesh.example", true),
            ("mesh.example.:443", true),
            ("trimtab.mesh", true),
            ("trimtab.mesh.svc:8080", true),
            ("trimtab.mesh.svc.c.local.:8080", true),
            ("10.0.0.8:8080", false),
            ("other.example", false),
            ("localhost.other.example", false),
            ("127.0.0.1.other.example", false),
            ("a.mesh.example", false),
            ("mesh.svc.c.local", false),
            ("trimtab.bank.svc.c.local", false),
            ("a.trimtab.mesh.svc", false),
            ("trimtab.mesh.svc.other.example", false),
            ("localhost@other.example", false),
            ("", false),
        ] {
            assert_eq!(check("GET", "/", &[("host", host)]).is_ok(), good, "{host}");
        }
        let two = [("host", "localhost"), ("host", "other.example")];
        check("GET", "/", &two).unwrap_err();
        check("GET", "http://other.example/", &[("host", "localhost")]).unwrap_err();
        check("GET", "http://localhost/", &[("host", "localhost")]).unwrap();
    }
}
