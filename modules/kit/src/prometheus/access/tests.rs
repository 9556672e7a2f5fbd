//! What is taken and what is refused.

use super::*;

const SECTION: Section = Section {
    name: "a.prometheus",
    longest_timeout: Duration::from_secs(300),
};

fn parse(text: &str) -> Access {
    let mut access: Access = serde_json::from_str(text).unwrap();
    if access.address.is_empty() {
        access.address = "https://p".to_owned();
    }
    access
}

#[test]
fn what_is_right_is_taken() {
    let all = r#"{"address": "https://thanos.example/prom", "timeout": "300s", "bearerTokenFile": "/t", "caFile": "/ca",
        "certFile": "/cert", "keyFile": "/key", "headers": {"X-Scope-OrgID": "team a", "x-b": "1"}}"#;
    for text in [
        all,
        "{}",
        r#"{"address": "http://127.0.0.1:9090/"}"#,
        r#"{"address": "http://127.0.0.1:9090/?tenant=shop"}"#,
        r#"{"headers": {"Authorization": "Basic eDp5"}}"#,
    ] {
        let access = parse(text);
        access.check(&SECTION).unwrap();
        let again = serde_json::from_str(&serde_json::to_string(&access).unwrap());
        assert_eq!(access, again.unwrap());
    }
    serde_json::from_str::<Access>(r#"{"tokenfile": "/t"}"#).unwrap_err();
}

#[test]
fn what_is_wrong_is_named_with_its_key_and_the_fix() {
    for (text, key, fix) in [
        (r#"{"address": "p:9090"}"#, "address", "http://"),
        (r#"{"address": "ftp://p"}"#, "address", "http://"),
        (r#"{"address": "http://"}"#, "address", "http://"),
        (r#"{"address": "http://p/#a"}"#, "address", "http://"),
        (r#"{"address": "http://p/?query=up"}"#, "address", "http://"),
        (
            r#"{"address": "http://p/?a=b&%74ime=1"}"#,
            "address",
            "http://",
        ),
        (
            r#"{"address": "http://p/x/api/v1/query"}"#,
            "address",
            "http://",
        ),
        (
            r#"{"address": "http://p/api/v1/query/?a=b"}"#,
            "address",
            "http://",
        ),
        (r#"{"timeout": "0"}"#, "timeout", "at most 5m"),
        (r#"{"timeout": "301s"}"#, "timeout", "at most 5m"),
        (r#"{"certFile": "/c"}"#, "certFile", "set keyFile"),
        (r#"{"keyFile": "/k"}"#, "keyFile", "set certFile"),
        (
            r#"{"address": "http://p", "caFile": "/ca"}"#,
            "caFile",
            "https://",
        ),
        (
            r#"{"address": "http://p", "certFile": "/c", "keyFile": "/k"}"#,
            "certFile",
            "https://",
        ),
        (r#"{"headers": {"a b": "c"}}"#, "headers.a b", "letters"),
        (r#"{"headers": {"": "c"}}"#, "headers.", "letters"),
        (r#"{"headers": {"a": "b\nc"}}"#, "headers.a", "one line"),
        (r#"{"headers": {"a": ""}}"#, "headers.a", "one line"),
        (
            r#"{"headers": {"A": "1", "a": "2"}}"#,
            "headers.a",
            "remove one",
        ),
        (
            r#"{"headers": {"Content-Length": "1"}}"#,
            "headers.Content-Length",
            "remove it",
        ),
    ] {
        refused(text, key, fix);
    }
}

fn refused(text: &str, key: &str, fix: &str) {
    let error = parse(text).check(&SECTION).unwrap_err();
    assert_eq!(error.key, format!("a.prometheus.{key}"), "{text}: {error}");
    assert!(error.fix.contains(fix), "{text}: {error}");
}

#[test]
fn who_asks_is_said_once_and_bounds_let_something_in() {
    for (text, key, fix) in [
        (
            r#"{"bearerTokenFile": "/t", "headers": {"authorization": "x"}}"#,
            "headers.Authorization",
            "remove one",
        ),
        (
            r#"{"address": "http://u:p@h", "bearerTokenFile": "/t"}"#,
            "address",
            "remove one",
        ),
        (
            r#"{"basicAuth": {"username": "u", "passwordFile": "/p"}, "bearerTokenFile": "/t"}"#,
            "basicAuth",
            "remove one",
        ),
        (
            r#"{"basicAuth": {"passwordFile": "/p"}}"#,
            "basicAuth.username",
            "name of the user",
        ),
        (
            r#"{"basicAuth": {"username": "u"}}"#,
            "basicAuth.passwordFile",
            "password alone",
        ),
        (r#"{"maxBytes": 0}"#, "maxBytes", "from 1"),
        (r#"{"maxSeries": 0}"#, "maxSeries", "from 1"),
        (r#"{"maxBytes": 99999999999}"#, "maxBytes", "from 1"),
    ] {
        refused(text, key, fix);
    }
}

#[test]
fn fault_t11_no_message_about_an_address_shows_its_password() {
    for address in [
        "ftp://reader:hush@p",
        "http://reader:hush@p:99999",
        "http://reader:hush@p/?time=1",
        "http://reader:hu/sh@p",
        "reader:hush@p",
        "http://reader:x@hush@",
    ] {
        let access = Access {
            address: address.to_owned(),
            ..Access::default()
        };
        let error = access.check(&SECTION).unwrap_err().to_string();
        assert!(!error.contains("hu"), "{address}: {error}");
        assert!(error.contains("***@"), "{address}: {error}");
    }
}

#[test]
fn fault_t11_user_and_password_of_an_address_are_taken_out_of_it() {
    for (address, base, password) in [
        ("http://u:p%40%2Fs@p:9090", "http://p:9090/", Some("p@/s")),
        ("http://u@p:9090/", "http://p:9090/", Some("")),
        ("https://p/prom/", "https://p/prom", None),
        ("https://p/prom//", "https://p/prom", None),
        ("https://p", "https://p/", None),
        ("https://p/?", "https://p/", None),
        (
            "https://u:x@p/prom/?a=b%26&c",
            "https://p/prom?a=b%26&c",
            Some("x"),
        ),
        ("http://u:100%25%zz@p", "http://p/", Some("100%%zz")),
    ] {
        let access = Access {
            address: address.to_owned(),
            ..Access::default()
        };
        let (url, found) = access.url(&SECTION).unwrap();
        assert_eq!(url.as_str(), base, "{address}");
        let found = found.map(|userinfo| userinfo.password);
        assert_eq!(found.as_deref(), password, "{address}");
    }
}
