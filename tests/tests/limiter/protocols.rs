//! Protocols on HTTP, headers that tell the limit, and buckets by value: counted on a real Envoy.

use std::path::PathBuf;

use regex::Regex;
use serde_json::{Value, json};
use trimtab_crds::limiter::Delivery;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{self, Request, Response};
use trimtab_lab::upstream::Upstream;
use trimtab_limiter::input::LimiterInput;

use crate::cases::{self, Case};
use crate::lab::{self, Driven, Mesh, drive, folder, free, limited, pod};

const BOTH: [Delivery; 2] = [Delivery::EnvoyFilter, Delivery::Ecds];
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

/// A limiter of 2 requests a minute for what matches, with this answer.
fn limiter(matches: &Value, response: &Value) -> LimiterInput {
    let mut input = cases::input("single");
    let rule = json!({"condition": "true", "match": matches,
        "action": {"quota": "2", "fill_interval": {"seconds": 60}, "response": response}});
    let rule = serde_json::from_value(rule).expect("a descriptor");
    input.spec.sets.insert("_base".to_owned(), vec![rule]);
    input
}

/// A call of this content type. That it is gRPC shows in the content type; the transport is HTTP/1.1 here.
fn call(content_type: &str) -> Request {
    Request::get("/helloworld.Greeter/SayHello")
        .method("POST")
        .header("content-type", content_type)
}

/// The answer to the third request: two are served.
async fn refusal(driven: &Driven, request: &Request) -> Response {
    let at = driven.mesh.inbound;
    for _ in 0..2 {
        let served = http::send(at, request).await.expect("an answer");
        assert_eq!((served.status, grpc(&served)), (200, None), "{served:?}");
    }
    http::send(at, request).await.expect("an answer")
}

fn grpc(response: &Response) -> Option<&str> {
    response.headers.get("grpc-status").map(String::as_str)
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers.get(name).map(String::as_str)
}

#[tokio::test]
async fn fault_l16_refused_grpc_calls_are_resource_exhausted() {
    for delivery in BOTH {
        for (response, status) in [
            (json!({}), "8"),
            (json!({"status": 503}), "8"),
            (json!({"grpcStatus": "FromStatus"}), "14"),
            (json!({"grpcStatus": "FromStatus", "status": 403}), "7"),
        ] {
            let input = limiter(&json!([]), &response);
            let driven = drive("grpc", input, delivery).await;
            let answer = refusal(&driven, &call("application/grpc+proto")).await;
            let what = format!("{response} by {delivery:?}: {answer:?}");
            assert_eq!(
                (answer.status, grpc(&answer)),
                (200, Some(status)),
                "{what}"
            );
            assert_eq!(header(&answer, "grpc-message"), Some("local_rate_limited"));
            assert_eq!(driven.pod.requests(), 2, "{what}");
        }
    }
}

/// The configuration of a limiter by EnvoyFilter, changed before Envoy reads it.
async fn changed(
    what: &str,
    input: LimiterInput,
    change: impl Fn(&mut Value),
) -> (Mesh, Envoy, Upstream) {
    let pod = pod().await;
    let mesh = Mesh::new(pod.address());
    let case = Case::delivered_by(input, Delivery::EnvoyFilter, "");
    let mut config = mesh.merged(&case.envoy_filters());
    let listeners = config["static_resources"]["listeners"].as_array_mut();
    for listener in listeners.into_iter().flatten() {
        change(&mut listener["filter_chains"][0]["filters"][0]["typed_config"]);
    }
    let envoy = Envoy::start(&config, &folder(what))
        .await
        .expect("an Envoy");
    (mesh, envoy, pod)
}

#[tokio::test]
async fn fault_l16_grpc_web_gets_what_its_filter_makes_of_it() {
    let input = || limiter(&json!([]), &json!({}));
    let web = call("application/grpc-web+proto");
    let (mesh, _envoy, _pod) = changed("grpc-web", input(), |hcm| {
        let filter = json!({"name": "envoy.filters.http.grpc_web",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"}});
        hcm["http_filters"].as_array_mut().expect("filters").insert(0, filter);
    })
    .await;
    for _ in 0..2 {
        // The filter makes an error of the pod's answer, which is no gRPC.
        let answer = http::send(mesh.inbound, &web).await.expect("an answer");
        assert_ne!(grpc(&answer), Some("8"), "{answer:?}");
    }
    let answer = http::send(mesh.inbound, &web).await.expect("an answer");
    assert_eq!(
        (answer.status, grpc(&answer)),
        (429, Some("14")),
        "the filter makes UNAVAILABLE of the HTTP status: {answer:?}"
    );
    // Without Istio's filter, as on ports that are not named grpc-web, it is a call of HTTP.
    let driven = drive("grpc-web-plain", input(), Delivery::EnvoyFilter).await;
    let answer = refusal(&driven, &web).await;
    assert_eq!((answer.status, grpc(&answer)), (429, None), "{answer:?}");
}

#[tokio::test]
async fn fault_l16_an_upgrade_counts_once_and_is_refused_before_it() {
    let input = limiter(&json!([]), &json!({}));
    let (mesh, envoy, _pod) = changed("websocket", input, |hcm| {
        hcm["upgrade_configs"] = json!([{"upgrade_type": "websocket"}]);
    })
    .await;
    let upgrade = Request::get("/chat")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    for _ in 0..2 {
        let answer = http::send(mesh.inbound, &upgrade).await.expect("an answer");
        assert_ne!(answer.status, 429, "the pod declines it: {answer:?}");
    }
    let answer = http::send(mesh.inbound, &upgrade).await.expect("an answer");
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (429, "local_rate_limited")
    );
    let limited = "http_local_rate_limiter.http_local_rate_limit.rate_limited";
    assert_eq!(envoy.stat(limited).await.unwrap(), 1);
}

/// istiod's routes are dynamic: a proxy older than a field takes the rest. A field that no Envoy has stands for it.
#[tokio::test]
async fn fault_l16_a_proxy_without_a_field_takes_the_rest() {
    fn renamed(value: &mut Value) {
        match value {
            Value::Object(map) => {
                if let Some(field) = map.remove("rateLimitedAsResourceExhausted") {
                    map.insert("aFieldOfTomorrow".to_owned(), field);
                }
                map.values_mut().for_each(renamed);
            }
            Value::Array(list) => list.iter_mut().for_each(renamed),
            _ => {}
        }
    }
    let dir: PathBuf = folder("unknown-field-routes");
    let (mesh, _envoy, _pod) = changed("unknown-field", limiter(&json!([]), &json!({})), |hcm| {
        let mut routes = hcm["route_config"].clone();
        let before = routes.clone();
        renamed(&mut routes);
        if routes == before {
            return;
        }
        let name = routes["name"].as_str().expect("a name").to_owned();
        routes["@type"] = json!(ROUTES);
        let path = dir.join(format!("{}.json", name.replace('|', "-")));
        std::fs::write(&path, json!({"resources": [routes]}).to_string()).expect("a file");
        let fields = hcm.as_object_mut().expect("a connection manager");
        fields.remove("route_config");
        fields.insert(
            "rds".to_owned(),
            json!({"route_config_name": name, "config_source":
            {"resource_api_version": "V3", "path_config_source": {"path": path}}}),
        );
    })
    .await;
    assert!(std::fs::read_dir(&dir).unwrap().next().is_some());
    limited("the limit", mesh.inbound, &Request::get("/")).await;
}

#[tokio::test]
async fn fault_l16_answers_tell_the_limit_and_when_to_ask_again() {
    let tier = Request::get("/").header("tier", "free");
    let matches = json!([{"name": "tier", "exact_match": "free"}]);
    for delivery in BOTH {
        let response = json!({"rateLimitHeaders": true, "retryAfter": true});
        let driven = drive("told", limiter(&matches, &response), delivery).await;
        for (status, remaining, retry) in
            [(200, "1", None), (200, "0", None), (429, "0", Some("60"))]
        {
            let answer = http::send(driven.mesh.inbound, &tier).await.unwrap();
            let what = format!("{delivery:?}: {answer:?}");
            assert_eq!(answer.status, status, "{what}");
            assert_eq!(header(&answer, "x-ratelimit-limit"), Some("2"), "{what}");
            assert_eq!(
                header(&answer, "x-ratelimit-remaining"),
                Some(remaining),
                "{what}"
            );
            let reset = header(&answer, "x-ratelimit-reset").map(str::parse::<u64>);
            assert!(matches!(reset, Some(Ok(0..=60))), "{what}");
            assert_eq!(header(&answer, "retry-after"), retry, "{what}");
        }
        let other = http::send(driven.mesh.inbound, &Request::get("/"))
            .await
            .unwrap();
        let everything = header(&other, "x-ratelimit-limit");
        assert_eq!(everything, Some("4294967295"), "as the page says");
    }
    let driven = drive(
        "untold",
        limiter(&matches, &json!({})),
        Delivery::EnvoyFilter,
    )
    .await;
    let answer = http::send(driven.mesh.inbound, &tier).await.unwrap();
    assert_eq!(header(&answer, "x-ratelimit-limit"), None, "off by default");
}

fn user(name: &str) -> Request {
    Request::get("/").header("user", name)
}

#[tokio::test]
async fn fault_l16_each_value_has_a_bucket() {
    let matches = json!([{"name": "user", "present_match_separate": true}]);
    for delivery in BOTH {
        let driven = drive("values", limiter(&matches, &json!({})), delivery).await;
        let what = format!("{delivery:?}");
        for name in ["a", "b", "c"] {
            limited(&what, driven.mesh.inbound, &user(name)).await;
        }
        free(&what, driven.mesh.inbound, &Request::get("/")).await;
        let again = http::send(driven.mesh.inbound, &user("a")).await.unwrap();
        assert_eq!(again.status, 429, "{what}: it keeps its bucket");
    }
}

#[tokio::test]
async fn fault_l16_a_value_beyond_the_bound_takes_the_place_of_the_oldest() {
    let matches = json!([{"name": "user", "present_match_separate": true, "maxValues": 2}]);
    for delivery in BOTH {
        let driven = drive("bounded", limiter(&matches, &json!({})), delivery).await;
        let what = format!("{delivery:?}");
        for name in ["a", "b", "c"] {
            limited(&what, driven.mesh.inbound, &user(name)).await;
        }
        let kept = http::send(driven.mesh.inbound, &user("b")).await.unwrap();
        assert_eq!(kept.status, 429, "{what}: one of the last two");
        limited(&what, driven.mesh.inbound, &user("a")).await;
    }
}

#[tokio::test]
async fn fault_l16_values_beside_other_matches() {
    let both = |name: &str, tier: &str| user(name).header("tier", tier);
    let query = |name: &str| Request::get(&format!("/?user={name}"));
    for delivery in BOTH {
        let what = format!("{delivery:?}");
        // Of one tier.
        let matches = json!([{"name": "user", "present_match_separate": true}, {"name": "tier", "exact_match": "free"}]);
        let driven = drive("values-tier", limiter(&matches, &json!({})), delivery).await;
        limited(&what, driven.mesh.inbound, &both("a", "free")).await;
        limited(&what, driven.mesh.inbound, &both("b", "free")).await;
        free(&what, driven.mesh.inbound, &both("a", "paid")).await;
        // Two headers: a bucket for each pair.
        let matches = json!([{"name": "user", "present_match_separate": true}, {"name": "tier", "present_match_separate": true}]);
        let driven = drive("values-pair", limiter(&matches, &json!({})), delivery).await;
        limited(&what, driven.mesh.inbound, &both("a", "free")).await;
        limited(&what, driven.mesh.inbound, &both("a", "paid")).await;
        free(&what, driven.mesh.inbound, &user("a")).await;
        // Values of a query parameter that pass a test.
        let matches = json!([{"name": "user", "matchSource": "QueryMatch", "prefix_match": "a", "present_match_separate": true}]);
        let driven = drive("values-query", limiter(&matches, &json!({})), delivery).await;
        limited(&what, driven.mesh.inbound, &query("a1")).await;
        limited(&what, driven.mesh.inbound, &query("a2")).await;
        free(&what, driven.mesh.inbound, &query("b")).await;
        free(&what, driven.mesh.inbound, &Request::get("/")).await;
    }
}

/// A proxy that refuses buckets without a value must not lose its routes: it gets none.
#[test]
fn fault_l16_older_proxies_get_no_buckets_by_value() {
    let matches = json!([{"name": "user", "present_match_separate": true}]);
    for delivery in BOTH {
        let input = limiter(&matches, &json!({}));
        let case = Case::delivered_by(input, delivery, &lab::nowhere().to_string());
        for filter in case.envoy_filters() {
            let patches = filter["spec"]["configPatches"].as_array().unwrap();
            assert!(!patches.is_empty());
            for patch in patches {
                let version = patch["match"]["proxy"]["proxyVersion"].as_str();
                let version = regex(version.expect("a version"));
                for (istio, takes) in [
                    ("1.9.0", false),
                    ("1.25.7", false),
                    ("1.26.0", true),
                    ("1.30.1-distroless", true),
                    ("2.0.0", true),
                ] {
                    assert_eq!(version.is_match(istio), takes, "{istio}");
                }
            }
        }
    }
}

fn regex(text: &str) -> Regex {
    Regex::new(text).expect("an expression")
}

#[tokio::test]
async fn fault_l16_two_rules_that_tell_their_limit_tell_it_once() {
    for delivery in BOTH {
        let mut input = limiter(
            &json!([{"name": "tier", "exact_match": "free"}]),
            &json!({"rateLimitHeaders": true}),
        );
        let rules = input.spec.sets.get_mut("_base").expect("the rules");
        let mut second = rules[0].clone();
        second.matches[0].exact_match = Some("paid".to_owned());
        "3".clone_into(&mut second.action.quota);
        rules.push(second);
        let driven = drive("told-once", input, delivery).await;
        // The last of several lines would be that of the filter that the request does not match.
        for (tier, limit) in [("free", "2"), ("paid", "3")] {
            let request = Request::get("/").header("tier", tier);
            let answer = http::send(driven.mesh.inbound, &request).await.unwrap();
            assert_eq!(
                header(&answer, "x-ratelimit-limit"),
                Some(limit),
                "{delivery:?}"
            );
        }
    }
}
