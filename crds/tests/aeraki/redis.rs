//! RedisService and RedisDestination.

use serde_json::{Value, json};
use trimtab_crds::redis::{PlainAuth, RedisDestinationSpec, RedisServiceSpec};

use super::{apply, assert_accepted, assert_refused, columns, with};

const VERSION: &str = "redis.aeraki.io/v1alpha1";
const HOST: &str = "cache.default.svc.cluster.local";

fn service(spec: &Value) -> Result<Value, String> {
    apply(VERSION, "RedisService", spec)
}

fn destination(spec: &Value) -> Result<Value, String> {
    apply(VERSION, "RedisDestination", spec)
}

fn with_settings(settings: &Value) -> Value {
    json!({"host": [HOST], "settings": settings})
}

fn pool(redis: &Value) -> Value {
    json!({"host": HOST, "trafficPolicy": {"connectionPool": {"redis": redis}}})
}

#[test]
fn no_documented_field_of_a_service_is_pruned() {
    let given = json!({
        "host": [HOST],
        "settings": {"caseInsensitive": true, "opTimeout": "1m", "enableCommandStats": true,
            "maxBufferSizeBeforeFlush": 1024, "bufferFlushTimeout": "3ms", "maxUpstreamUnknownConnections": 100,
            "enableHashtagging": true, "enableRedirection": true, "readPolicy": "PREFER_REPLICA",
            "auth": {"secret": {"name": "s", "passwordField": "p", "usernameField": "u"}}},
        "redis": [
            {"match": {"key": {"prefix": "a:", "removePrefix": true}}, "route": {"host": HOST, "port": 6379},
             "mirror": [{"route": {"host": HOST}, "percentage": {"value": 12.5}, "excludeReadCommands": true}]},
            {"route": {"host": HOST}}],
        "faults": [{"type": "ERROR", "percentage": {"value": 50.0}, "delay": "1s", "commands": ["get"]}],
    });
    let stored = assert_accepted(service(&given), &given);
    assert_eq!(stored, given);
    let typed: RedisServiceSpec = serde_json::from_value(stored).unwrap();
    assert_eq!(serde_json::to_value(typed).unwrap(), given);
}

#[test]
fn no_documented_field_of_a_destination_is_pruned() {
    let given = json!({"host": HOST, "trafficPolicy": {"connectionPool": {
        "tcp": {"maxConnections": 10, "connectTimeout": "100ms", "tcpKeepalive": {"probes": 3, "time": "7200s", "interval": "75s"}},
        "redis": {"mode": "CLUSTER", "auth": {"plain": {"password": "p", "username": "u"}},
            "discoveryEndpoints": ["a", "a.b:6379", "[2001:db8::1]:6379"]}}}});
    let stored = assert_accepted(destination(&given), &given);
    assert_eq!(stored, given);
    let typed: RedisDestinationSpec = serde_json::from_value(stored).unwrap();
    assert_eq!(serde_json::to_value(typed).unwrap(), given);
}

#[test]
fn good_services_pass_with_defaults() {
    let given = json!({"host": [HOST, "other"], "settings": {}, "faults": [{"percentage": {"value": 1}, "delay": "0s"}]});
    let stored = assert_accepted(service(&given), &given);
    assert_eq!(stored["settings"]["opTimeout"], "60s");
    let typed: RedisServiceSpec = serde_json::from_value(stored).unwrap();
    assert_eq!(
        typed.faults[0].r#type,
        trimtab_crds::redis::FaultType::Delay
    );
    for policy in [
        "MASTER",
        "PREFER_MASTER",
        "REPLICA",
        "PREFER_REPLICA",
        "ANY",
    ] {
        let given = with_settings(&json!({"readPolicy": policy}));
        assert_accepted(service(&given), &given);
    }
}

#[test]
fn bad_services_are_refused() {
    for (bad, want) in [
        (json!({}), "host"),
        (json!({"host": []}), "at least 1 items"),
        (json!({"host": [HOST, HOST]}), "twice"),
        (json!({"host": ["*"]}), "full DNS names"),
        (
            with_settings(&json!({"readPolicy": "SLAVE"})),
            "supported values",
        ),
        (
            with_settings(&json!({"opTimeout": "60"})),
            "a number with a unit",
        ),
        (
            with_settings(&json!({"opTimeout": "0s"})),
            "longer than nothing",
        ),
        (
            with_settings(&json!({"bufferFlushTimeout": "3"})),
            "a number with a unit",
        ),
        (
            with_settings(&json!({"maxBufferSizeBeforeFlush": -1})),
            "greater than or equal to 0",
        ),
        (
            with_settings(&json!({"auth": {}})),
            "exactly one of secret and plain",
        ),
        (
            with_settings(&json!({"auth": {"secret": {"name": "s"}, "plain": {"password": "p"}}})),
            "exactly one of secret and plain",
        ),
        (
            with_settings(&json!({"auth": {"secret": {"name": ""}}})),
            "at least 1 chars",
        ),
        (with_settings(&json!({"auth": {"plain": {}}})), "password"),
    ] {
        assert_refused(service(&bad), &bad, want);
    }
}

#[test]
fn bad_redis_routes_and_faults_are_refused() {
    let route = |route: Value| json!({"host": [HOST], "redis": [route]});
    let fault = |fault: Value| json!({"host": [HOST], "faults": [fault]});
    for (bad, want) in [
        (route(json!({"match": {}})), "route"),
        (route(json!({"route": {"host": ""}})), "at least 1 chars"),
        (
            route(json!({"route": {"host": "a", "port": 70000}})),
            "less than or equal to 65535",
        ),
        (
            route(json!({"route": {"host": "a"}, "mirror": [{}]})),
            "route",
        ),
        (
            route(
                json!({"route": {"host": "a"}, "mirror": [{"route": {"host": "b"}, "percentage": {"value": 101}}]}),
            ),
            "less than or equal to 100",
        ),
        (fault(json!({"type": "ABORT"})), "supported values"),
        (
            fault(json!({"percentage": {"value": 101}})),
            "less than or equal to 100",
        ),
        (fault(json!({"delay": "soon"})), "a number with a unit"),
    ] {
        assert_refused(service(&bad), &bad, want);
    }
}

#[test]
fn bad_destinations_are_refused() {
    let good = json!({"host": HOST});
    assert_accepted(destination(&good), &good);
    let tcp = |tcp: Value| json!({"host": HOST, "trafficPolicy": {"connectionPool": {"tcp": tcp}}});
    for (bad, want) in [
        (json!({}), "host"),
        (json!({"host": "a b"}), "should match"),
        (pool(&json!({"mode": "SENTINEL"})), "supported values"),
        (
            pool(&json!({"auth": {}})),
            "exactly one of secret and plain",
        ),
        (
            pool(&json!({"discoveryEndpoints": ["a:b"]})),
            "host or host:port",
        ),
        (
            pool(&json!({"discoveryEndpoints": ["2001:db8::1"]})),
            "square brackets",
        ),
        (
            tcp(json!({"maxConnections": -1})),
            "greater than or equal to 0",
        ),
        (tcp(json!({"connectTimeout": "0s"})), "longer than nothing"),
        (
            tcp(json!({"tcpKeepalive": {"time": "5"}})),
            "a number with a unit",
        ),
    ] {
        assert_refused(destination(&bad), &bad, want);
    }
    let given = pool(&json!({}));
    let stored = assert_accepted(destination(&given), &given);
    assert_eq!(with(&stored, &json!({})), pool(&json!({"mode": "PROXY"})));
}

#[test]
fn passwords_are_not_printed() {
    let auth = PlainAuth {
        password: "hunter2".to_owned(),
        username: Some("app".to_owned()),
    };
    let text = format!("{auth:?}");
    assert!(text.contains("app") && !text.contains("hunter2"), "{text}");
}

#[test]
fn columns_answer_the_first_questions() {
    assert_eq!(
        columns("redis.aeraki.io_redisservices.yaml"),
        ["Hosts", "Accepted", "Programmed", "Age"]
    );
    assert_eq!(
        columns("redis.aeraki.io_redisdestinations.yaml"),
        ["Host", "Mode", "Accepted", "Programmed", "Age"]
    );
}
