//! Names and values of headers, statuses and intervals, against Envoy.

use serde_json::{Value, json};
use trimtab_kit::envoy::{header, is_duration, is_error_status};

use super::judge::{Case, Depth, compare};
use super::random::{FIXED, Random, seeds};

const LOCAL_RATE_LIMIT: &str =
    "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

/// Pieces of names that are tokens.
const TOKEN: &[&str] = &[
    "x", "X", "row", "-", "_", ".", "!", "#", "1", "Host", "host", "~", "`",
];
/// Pieces that are not.
const ODD: &[&str] = &[
    ":", " ", "\t", "\r", "\n", "\0", "\r\n", "é", "(", "/", "\"", "\u{7f}", "%",
];

fn pieces(random: &mut Random, odd: usize) -> String {
    if random.percent(3) {
        return String::new();
    }
    if random.percent(3) {
        let length = random.between(1000, 17_000);
        return "q".repeat(length);
    }
    (0..random.between(1, 4))
        .map(|_| {
            if random.percent(odd) {
                random.pick(ODD)
            } else {
                random.pick(TOKEN)
            }
        })
        .collect()
}

fn limited(actions: &Value) -> Value {
    json!({"match": {"prefix": "/"}, "route": {"cluster": "c", "rate_limits": [{"actions": [actions]}]}})
}

fn looked_for(random: &mut Random) -> Case {
    let name = pieces(random, 25);
    let header = json!({"name": name, "string_match": {"exact": "1"}});
    Case {
        text: format!("header {name:.40?}"),
        passes: header::matched(&name).is_ok(),
        route: limited(
            &json!({"header_value_match": {"descriptor_value": "d", "headers": [header]}}),
        ),
    }
}

fn parameter(random: &mut Random) -> Case {
    let name = pieces(random, 25);
    let query = json!({"name": name, "string_match": {"exact": "1"}});
    let action = json!({"descriptor_value": "d", "query_parameters": [query]});
    Case {
        text: format!("parameter {name:.40?}"),
        passes: header::parameter(&name).is_ok(),
        route: limited(&json!({"query_parameter_value_match": action})),
    }
}

/// The filter of a limit, as the configuration of a route.
fn filter(change: impl FnOnce(&mut Value)) -> Value {
    let all = json!({"default_value": {"numerator": 100}});
    let bucket = json!({"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "1s"});
    let mut config = json!({
        "@type": LOCAL_RATE_LIMIT,
        "stat_prefix": "x",
        "token_bucket": bucket,
        "filter_enabled": all,
        "filter_enforced": all,
    });
    change(&mut config);
    json!({
        "match": {"prefix": "/"},
        "direct_response": {"status": 200},
        "typed_per_filter_config": {"envoy.filters.http.local_ratelimit": config},
    })
}

/// A header to add. Envoy would send names that are no tokens, and values with control characters, as they are: those are
/// refused here on purpose, and are not drawn.
fn added(random: &mut Random) -> Case {
    const BREAKS: &[&str] = &[":", "\r", "\n", "\0", "\r\n"];
    let mut name = pieces(random, 0);
    if random.percent(20) {
        name.insert_str(0, random.pick(BREAKS));
    }
    let mut value = pieces(random, 0);
    for _ in 0..random.below(3) {
        value.push_str(random.pick(&["%", " ", "\t", "é", "%REQ(x)%", "\r", "\n", "\0"]));
    }
    let escaped = value.replace('%', "%%");
    Case {
        text: format!("added {name:.40?}: {value:.40?}"),
        passes: header::added(&name).is_ok() && header::value(&value).is_ok(),
        route: filter(|f| {
            f["response_headers_to_add"] = json!([{"header": {"key": name, "value": escaped}}]);
        }),
    }
}

fn cases(seed: u64, n: usize) -> Vec<Case> {
    let mut random = Random::new(seed);
    let random = &mut random;
    (0..n)
        .map(|i| match i % 4 {
            0 => looked_for(random),
            1 => parameter(random),
            _ => added(random),
        })
        .collect()
}

fn statuses() -> Vec<Case> {
    let status = |code: i32| Case {
        text: format!("status {code}"),
        passes: is_error_status(code),
        route: filter(|f| f["status"] = json!({"code": code})),
    };
    (400..600).map(status).collect()
}

fn durations() -> Vec<Case> {
    let seconds = [
        0,
        1,
        31_536_000,
        9_223_372_035,
        9_223_372_036,
        9_223_372_037,
        10_000_000_000,
        315_576_000_000,
    ];
    let timeout = |seconds: u64| Case {
        text: format!("{seconds} s"),
        passes: is_duration(std::time::Duration::from_secs(seconds)),
        route: json!({"match": {"prefix": "/"}, "route": {"cluster": "c", "timeout": format!("{seconds}s")}}),
    };
    seconds.into_iter().map(timeout).collect()
}

#[test]
fn fault_t9_a_header_passes_if_envoy_takes_it() {
    compare("headers", &cases(FIXED, 200), Depth::Slice(30));
    compare("statuses", &statuses(), Depth::Slice(3));
    compare("durations", &durations(), Depth::Full);
}

#[test]
#[ignore = "minutes: make fuzz"]
fn full_headers() {
    for seed in seeds() {
        compare("headers", &cases(seed, 800), Depth::Full);
    }
    compare("statuses", &statuses(), Depth::Full);
}
