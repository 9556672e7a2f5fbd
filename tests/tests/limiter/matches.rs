//! Each match kind on a real Envoy, with both deliveries: what matches is limited to 2 per minute, the rest is free.

use trimtab_crds::limiter::Delivery;
use trimtab_lab::envoy;
use trimtab_lab::http::Request;

use crate::cases::{self, Case};
use crate::lab::{Mesh, drive, drive_case, free, limited, nowhere, tally};

fn get() -> Request {
    Request::get("/")
}

fn with(name: &str, value: &str) -> Request {
    get().header(name, value)
}

fn from(address: &str) -> Request {
    with("x-forwarded-for", address)
}

async fn matching(case: &str, hit: &Request, misses: &[Request]) {
    for delivery in [Delivery::EnvoyFilter, Delivery::Ecds] {
        let driven = drive_case(case, delivery).await;
        let what = format!("{case} by {delivery:?}");
        limited(&what, driven.mesh.inbound, hit).await;
        for miss in misses {
            free(&what, driven.mesh.inbound, miss).await;
        }
        let served = 2 + 4 * misses.len() as u64;
        assert_eq!(
            driven.pod.requests(),
            served,
            "{what}: refused requests do not reach the pod"
        );
    }
}

macro_rules! matching {
    ($($test:ident: $case:literal, $hit:expr, [$($miss:expr),*];)+) => {
        $(#[tokio::test]
        async fn $test() {
            matching($case, &$hit, &[$($miss),*]).await;
        })+
    };
}

matching! {
    header_exact: "match-header-exact", with("tier", "free"), [get(), with("tier", "freedom")];
    header_regex: "match-header-regex", with("id", "42"), [get(), with("id", "42a"), with("id", "a42")];
    header_prefix: "match-header-prefix", with("agent", "Mozilla/5"), [get(), with("agent", "curl Mozilla")];
    header_suffix: "match-header-suffix", with("agent", "goodbot"), [get(), with("agent", "botany")];
    header_empty: "match-header-empty", with("token", ""), [get(), with("token", "a")];
    header_present: "match-header-present", with("token", "a"), [get()];
    header_absent: "match-header-absent", get(), [with("token", "a"), with("token", "")];
    // A header that is absent has no value to compare with: Envoy counts it on neither side.
    header_inverted: "match-header-inverted", with("tier", "free"), [get(), with("tier", "gold")];
    several_headers: "match-header-several", with("tier", "free").header("token", "a"), [get(), with("tier", "free"), with("token", "a")];
    method: "match-pseudo-method", get().method("POST"), [get()];
    path: "match-pseudo-path", Request::get("/slow/1"), [get(), Request::get("/a/slow")];
    authority: "match-pseudo-authority", with("host", "a.example.com"), [with("host", "example.org")];
    query_exact: "match-query-exact", Request::get("/?page=1"), [get(), Request::get("/?page=2"), with("page", "1")];
    query_regex: "match-query-regex", Request::get("/?page=12"), [get(), Request::get("/?page=1a")];
    query_prefix: "match-query-prefix", Request::get("/?page=ab"), [get(), Request::get("/?page=ba")];
    query_suffix: "match-query-suffix", Request::get("/?page=az"), [get(), Request::get("/?page=za")];
    query_present: "match-query-present", Request::get("/?page=az"), [get(), Request::get("/?pages=1")];
    query_absent: "match-query-absent", get(), [Request::get("/?page=1")];
    query_inverted: "match-query-inverted", get(), [Request::get("/?page=1")];
    query_old_spelling: "match-query-old-spelling", Request::get("/?page=1"), [get()];
    source_range_v4: "match-source-cidr-v4", from("10.9.1.1"), [get(), from("10.8.1.1")];
    source_range_v6: "match-source-cidr-v6", from("2001:db8::7"), [get(), from("2001:db9::7")];
    mixed: "match-mixed", Request::get("/?page=1").header("tier", "free").header("x-forwarded-for", "10.9.1.1"), [
        Request::get("/?page=1").header("tier", "free"),
        Request::get("/?page=1").header("x-forwarded-for", "10.9.1.1"),
        with("tier", "free").header("x-forwarded-for", "10.9.1.1")
    ];
}

#[tokio::test]
async fn addresses_have_a_bucket_each_and_a_request_counts_once() {
    for delivery in [Delivery::EnvoyFilter, Delivery::Ecds] {
        let driven = drive_case("match-source-ip", delivery).await;
        limited("the first address", driven.mesh.inbound, &from("10.9.8.7")).await;
        limited("the second address", driven.mesh.inbound, &from("10.9.8.6")).await;
        free("another address", driven.mesh.inbound, &from("10.9.8.5")).await;
    }
}

#[tokio::test]
async fn a_range_shares_one_bucket() {
    let driven = drive_case("match-source-cidr-v4", Delivery::EnvoyFilter).await;
    assert_eq!(
        tally(driven.mesh.inbound, 2, &from("10.9.1.1"), 429).await,
        (2, 0)
    );
    assert_eq!(
        tally(driven.mesh.inbound, 2, &from("10.9.2.2"), 429).await,
        (0, 2)
    );
}

#[tokio::test]
async fn two_rules_count_apart() {
    for delivery in [Delivery::EnvoyFilter, Delivery::Ecds] {
        let driven = drive_case("match-two-rules", delivery).await;
        assert_eq!(
            tally(driven.mesh.inbound, 5, &with("tier", "free"), 429).await,
            (2, 3)
        );
        assert_eq!(
            tally(driven.mesh.inbound, 5, &with("tier", "paid"), 429).await,
            (3, 2)
        );
        free("neither", driven.mesh.inbound, &get()).await;
    }
}

#[tokio::test]
async fn fault_l18_a_path_can_be_matched_with_any_query() {
    let matches = |spec: serde_json::Value| {
        let mut input = crate::cases::input("match-pseudo-path");
        for descriptor in input.spec.sets.values_mut().flatten() {
            descriptor.matches = vec![serde_json::from_value(spec.clone()).expect("a match")];
        }
        input
    };
    for (test, limited_paths, free_paths) in [
        (
            serde_json::json!({"name": ":path", "exact_match": "/li.st"}),
            vec!["/li.st"],
            vec!["/li.st?page=2", "/list"],
        ),
        (
            serde_json::json!({"name": ":path", "exact_match": "/li.st", "ignoreQuery": true}),
            vec!["/li.st", "/li.st?page=2"],
            vec!["/list", "/li.st/x", "/x?a=/li.st"],
        ),
        (
            serde_json::json!({"name": ":path", "regex_match": "/a|/b", "ignoreQuery": true}),
            vec!["/b?page=2"],
            vec!["/ab", "/c?/a"],
        ),
        (
            serde_json::json!({"name": ":path", "suffix_match": ".js", "ignoreQuery": true}),
            vec!["/x.js?v=1"],
            vec!["/x?f=a.js", "/xjs"],
        ),
    ] {
        for path in limited_paths {
            let driven = drive("path-query", matches(test.clone()), Delivery::EnvoyFilter).await;
            for free_path in &free_paths {
                free(free_path, driven.mesh.inbound, &Request::get(free_path)).await;
            }
            limited(path, driven.mesh.inbound, &Request::get(path)).await;
        }
    }
}

#[tokio::test]
async fn siblings_of_a_bad_rule_are_in_force() {
    let driven = drive_case("several-rules-one-bad", Delivery::EnvoyFilter).await;
    assert_eq!(
        tally(driven.mesh.inbound, 6, &with("tier", "free"), 429).await,
        (1, 5),
        "in steps: the rule between them moves when it is corrected"
    );
    assert_eq!(
        tally(driven.mesh.inbound, 6, &with("tier", "paid"), 429).await,
        (1, 5)
    );
}

/// Expressions that Envoy reads.
const RE2: &[&str] = &[
    "[0-9]+",
    "(?i)abc",
    "(?P<a>x)y",
    "(?<b>y)",
    "a{1000}",
    r"\p{Greek}+",
    r"\pN",
    r"\p{Lu}",
    r"\x{41}",
    r"\bA\B",
    "[[:alpha:]]",
    r"(?s-m:.)",
    r"\d\w\s",
    r"[^\x00-\x7f]",
    "a|b|",
    r"\Aab\z",
    r"é{2,3}",
    r"\\u",
    "(?U)a+",
    r"\<a",
    r"\b{start}a",
    "(a{10}){100}",
    r"[\w-.]+",
    r"\Qa.b\E",
    r"\p{^Greek}",
    "a{,3}",
    r"a\C",
];

/// Expressions that the `regex` crate or nobody reads.
const NOT_RE2: &[&str] = &[
    "(?x)a b",
    r"\u0041",
    r"\u{41}",
    r"\U00000041",
    "(?R)a",
    "a{1001}",
    r"\p{Alphabetic}",
    r"\p{sc=Greek}",
    "(?-u)a",
    "(?u:a)",
    "(?=a)",
    r"(a)\1",
    "[",
    "a**{",
    r"\p{Letter}",
    "x*+",
    "a{2}{3}",
    "([a-z]{1,20}[.]){1,60}shop",
    r"[\w--\d]",
    "(?P<shelf.no>x)",
    r"\x{1F4D6}",
    r"\x{100}",
];

/// A proxy refuses a whole configuration for one expression that it cannot read, so what passes here must pass there.
#[test]
fn an_expression_that_is_accepted_is_one_for_envoy() {
    let case = |regex: &str| {
        let mut input = cases::input("match-header-regex");
        for matcher in input
            .spec
            .sets
            .values_mut()
            .flatten()
            .flat_map(|d| &mut d.matches)
        {
            matcher.regex_match = Some(regex.to_owned());
        }
        Case::of(input)
    };
    for regex in NOT_RE2 {
        let refused = case(regex).refused();
        assert!(
            refused.len() == 1 && refused[0].starts_with("InvalidRegex"),
            "{regex}: {refused:?}"
        );
    }
    let mesh = Mesh::new(nowhere());
    for regex in RE2 {
        let filters = case(regex).envoy_filters();
        assert_eq!(filters.len(), 1, "{regex} is refused");
        let config = mesh.merged(&filters);
        envoy::validate(&config).unwrap_or_else(|e| panic!("{regex}: {e}"));
    }
}

#[tokio::test]
async fn a_custom_pair_on_two_routes_is_one_bucket() {
    for delivery in [Delivery::EnvoyFilter, Delivery::Ecds] {
        drive_case("custom-key-two-routes", delivery).await;
    }
}
