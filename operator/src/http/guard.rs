//! What protects the HTTP endpoints from web pages of other sites.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Every request that changes state must have it. A page of another site can send it only after a preflight, which we
/// never allow.
pub const REQUEST_HEADER: &str = "x-trimtab-request";

/// Our pages get their scripts and styles as files from here, the status page a worker from a text in it. Nothing comes from
/// elsewhere, nothing inline runs, no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; worker-src blob:; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Refuses POST requests that a page of another site may have sent.
pub(super) async fn only_from_here(request: Request, next: Next) -> Response {
    // Other methods are answered 405 by the routes themselves.
    if request.method() == Method::POST
        && let Err(why) = from_here(request.headers())
    {
        return (StatusCode::FORBIDDEN, format!("{why}\n")).into_response();
    }
    next.run(request).await
}

fn from_here(headers: &HeaderMap) -> Result<(), &'static str> {
    let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap_or_default());
    if !headers.contains_key(REQUEST_HEADER) {
        return Err("requests that change state need a header: add -H 'X-Trimtab-Request: 1'");
    }
    if !matches!(text("sec-fetch-site"), None | Some("same-origin" | "none")) {
        return Err("Sec-Fetch-Site: requests from other sites are refused");
    }
    let Some(origin) = text("origin") else {
        return Ok(());
    };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    match (authority, text("host")) {
        (Some(authority), Some(host)) if authority.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err("Origin: it is not the host that the request is for"),
    }
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
            (vec![(header, "1"), ("origin", "http://here:8080")], true),
            (vec![(header, "1"), ("origin", "http://here:8081")], false),
            (vec![(header, "1"), ("origin", "https://elsewhere")], false),
            (vec![(header, "1"), ("origin", "null")], false),
        ] {
            let mut map = HeaderMap::new();
            map.insert("host", HeaderValue::from_static("here:8080"));
            for (name, value) in &headers {
                map.insert(*name, HeaderValue::from_static(value));
            }
            assert_eq!(from_here(&map).is_ok(), good, "{headers:?}");
        }
    }
}
