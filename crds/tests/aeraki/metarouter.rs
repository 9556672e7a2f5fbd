//! MetaRouter and ApplicationProtocol.

use serde_json::{Value, json};
use trimtab_crds::metaprotocol::{AttributeMatch, MetaRouterSpec};

use super::{apply, assert_accepted, assert_refused, columns, with};

const VERSION: &str = "metaprotocol.aeraki.io/v1alpha1";

fn router(spec: &Value) -> Result<Value, String> {
    apply(VERSION, "MetaRouter", spec)
}

fn base() -> Value {
    json!({
        "hosts": ["demo.default.svc.cluster.local"],
        "routes": [{"route": [{"destination": {"host": "demo.default.svc.cluster.local"}}]}],
    })
}

fn to(weights: &[i64]) -> Value {
    weights
        .iter()
        .map(|w| json!({"destination": {"host": "demo.default.svc.cluster.local", "subset": format!("v{w}")}, "weight": w}))
        .collect()
}

fn route(change: &Value) -> Value {
    let route = with(&json!({"route": to(&[100])}), change);
    with(&base(), &json!({"routes": [route]}))
}

fn attributes(attributes: &Value) -> Value {
    route(&json!({"match": {"attributes": attributes}}))
}

fn local(limit: &Value) -> Value {
    json!({"hosts": ["a.b"], "localRateLimit": limit})
}

fn global(change: &Value) -> Value {
    let limit = json!({"domain": "d", "rateLimitService": "outbound|8081||limits.default.svc.cluster.local",
        "descriptors": [{"property": "method", "descriptorKey": "m"}]});
    json!({"hosts": ["a.b"], "globalRateLimit": with(&limit, change)})
}

/// Everything that Aeraki documents, in its spelling.
fn everything() -> Value {
    json!({
        "hosts": ["demo.default.svc.cluster.local"],
        "gateways": ["istio-system/ingress", "local"],
        "routes": [
            {"name": "canary",
             "match": {"attributes": {"interface": {"exact": "a.Demo"}, "method": {"prefix": "say"}, "user": {"regex": "[a-c].*"}, "foo": {}}},
             "route": [
                {"destination": {"host": "demo.default.svc.cluster.local", "subset": "v1", "port": {"number": 20880}}, "weight": 30},
                {"destination": {"host": "demo.default.svc.cluster.local", "subset": "v2"}, "weight": 70}],
             "mirror": {"host": "shadow.default.svc.cluster.local", "port": {"number": 20880}},
             "mirrorPercentage": {"value": 0.5},
             "requestMutation": [{"key": "k", "value": "v"}],
             "responseMutation": [{"key": "k", "value": "v"}],
             "timeout": "1m30s",
             "retries": {"attempts": 3}},
            {"route": [{"destination": {"host": "demo.default.svc.cluster.local"}}]}],
        "localRateLimit": {
            "tokenBucket": {"maxTokens": 5, "tokensPerFill": 5, "fillInterval": "60s"},
            "conditions": [{"match": {"attributes": {"method": {"exact": "sayHello"}}},
                "tokenBucket": {"maxTokens": 2, "tokensPerFill": 2, "fillInterval": "1m"}}]},
        "globalRateLimit": {"match": {"attributes": {"method": {"exact": "sayHello"}}}, "domain": "production",
            "requestTimeout": "100ms", "denyOnFail": true,
            "rateLimitService": "outbound|8081||rate-limit-server.metaprotocol.svc.cluster.local",
            "descriptors": [{"property": "method", "descriptorKey": "method"}]},
        "exportTo": ["."],
    })
}

#[test]
fn no_documented_field_is_pruned_and_the_types_hold_them_all() {
    let given = everything();
    let stored = assert_accepted(router(&given), &given);
    assert_eq!(stored, given);
    let typed: MetaRouterSpec = serde_json::from_value(stored).unwrap();
    assert_eq!(serde_json::to_value(&typed).unwrap(), given);
    assert_eq!(typed.host(), "demo.default.svc.cluster.local");
    assert_eq!(typed.routes[0].mirror_share(), Some(0.5));
    assert_eq!(typed.routes[1].mirror_share(), None);
}

#[test]
fn good_routers_pass() {
    for good in [
        base(),
        with(&base(), &json!({"hosts": ["org.apache.dubbo.DemoService"]})),
        with(&base(), &json!({"hosts": ["istio.io."]})),
        with(&base(), &json!({"exportTo": ["*"]})),
        with(&base(), &json!({"exportTo": ["~"]})),
        with(&base(), &json!({"exportTo": [".", "other"]})),
        with(&base(), &json!({"gateways": ["ingress"]})),
        route(&json!({"route": to(&[30, 70])})),
        route(&json!({"route": [{"destination": {"host": "a.b", "subset": ""}}]})),
        route(&json!({"mirror": {"host": "a.b"}, "mirrorPercentage": {"value": 0}})),
        route(&json!({"mirror": {"host": "a.b"}, "mirrorPercentage": {}})),
        route(&json!({"timeout": "0s", "retries": {"attempts": 0}})),
        attributes(&json!({"a": {"exact": ""}, "b": {"regex": "*"}})),
        local(&json!({"tokenBucket": {"maxTokens": 1, "fillInterval": "100ms"}})),
        local(
            &json!({"conditions": [{"match": {"attributes": {"a": {}}}, "tokenBucket": {"maxTokens": 1, "tokensPerFill": 1, "fillInterval": "1.5h"}}]}),
        ),
        global(&json!({})),
    ] {
        assert_accepted(router(&good), &good);
    }
}

#[test]
fn bad_hosts_gateways_and_exports_are_refused() {
    for (change, want) in [
        (json!({"hosts": "DELETE"}), "spec.hosts"),
        (json!({"hosts": []}), "at least 1 items"),
        (json!({"hosts": ["a.b", "c.d"]}), "at most 1 items"),
        (json!({"hosts": ["*.default.svc"]}), "full DNS names"),
        (json!({"hosts": ["10.0.0.1"]}), "full DNS names"),
        (json!({"hosts": ["-a.b"]}), "full DNS names"),
        (json!({"hosts": ["a..b"]}), "full DNS names"),
        (json!({"hosts": ["x".repeat(256)]}), "Too long"),
        (json!({"gateways": ["a/b/c"]}), "namespace/name or name"),
        (json!({"exportTo": ["Bad Name"]}), "names of namespaces"),
        (json!({"exportTo": ["*", "a"]}), "stand alone"),
        (json!({"exportTo": ["~", "."]}), "stand alone"),
        (json!({"exportTo": ["a", "a"]}), "twice"),
        (json!({"routes": []}), "at least one of routes"),
        (json!({"routes": "DELETE"}), "at least one of routes"),
    ] {
        let bad = with(&base(), &change);
        assert_refused(router(&bad), &bad, want);
    }
}

#[test]
fn bad_destinations_are_refused() {
    for (change, want) in [
        (json!({"route": "DELETE"}), "route"),
        (json!({"route": []}), "at least 1 items"),
        (json!({"route": to(&[30, 60])}), "sum to 100"),
        (json!({"route": to(&[101])}), "less than or equal to 100"),
        (json!({"route": [{"weight": 100}]}), "destination"),
        (
            json!({"route": [{"destination": {"host": "a b"}}]}),
            "host in body should match",
        ),
        (
            json!({"route": [{"destination": {"host": ""}}]}),
            "at least 1 chars",
        ),
        (
            json!({"route": [{"destination": {"host": "a", "subset": "v.1"}}]}),
            "subset in body should match",
        ),
        (
            json!({"route": [{"destination": {"host": "a", "port": {"number": 0}}}]}),
            "greater than or equal to 1",
        ),
        (
            json!({"route": [{"destination": {"host": "a", "port": {"number": 65536}}}]}),
            "less than or equal to 65535",
        ),
        (
            json!({"route": [{"destination": {"host": "a", "port": {}}}]}),
            "number",
        ),
    ] {
        let bad = route(&change);
        assert_refused(router(&bad), &bad, want);
    }
}

#[test]
fn bad_routes_are_refused() {
    for (change, want) in [
        (
            json!({"mirrorPercentage": {"value": 5}}),
            "only with mirror",
        ),
        (
            json!({"mirror": {"host": "a.b"}, "mirrorPercentage": {"value": 100.5}}),
            "less than or equal to 100",
        ),
        (
            json!({"mirror": {"host": "a.b"}, "mirrorPercentage": {"value": -1}}),
            "greater than or equal to 0",
        ),
        (
            json!({"requestMutation": [{"key": "", "value": "v"}]}),
            "requestMutation[0].key",
        ),
        (
            json!({"requestMutation": [{"key": "k"}]}),
            "requestMutation[0].value",
        ),
        (
            json!({"responseMutation": [{"key": "k", "value": ""}]}),
            "responseMutation[0].value",
        ),
        (json!({"timeout": "5"}), "a number with a unit"),
        (json!({"timeout": "-1s"}), "a number with a unit"),
        (
            json!({"retries": {"attempts": 11}}),
            "less than or equal to 10",
        ),
        (json!({"retries": {}}), "attempts"),
    ] {
        let bad = route(&change);
        assert_refused(router(&bad), &bad, want);
    }
}

#[test]
fn bad_matches_are_refused() {
    for (given, want) in [
        (json!({"": {"exact": "a"}}), "needs a name"),
        (
            json!({"a": {"exact": "a", "prefix": "b"}}),
            "one of exact, prefix, regex",
        ),
        (
            json!({"a": {"exact": "", "regex": "b"}}),
            "one of exact, prefix, regex",
        ),
        (json!({"a": {"regex": ""}}), "at least 1 chars"),
        (json!({"a": {"prefix": ""}}), "at least 1 chars"),
        (json!({"a": "b"}), "must be of type object"),
    ] {
        let bad = attributes(&given);
        assert_refused(router(&bad), &bad, want);
    }
}

#[test]
fn a_null_attribute_means_present_and_survives() {
    let given = attributes(&json!({"foo": null, "bar": {}}));
    let stored = assert_accepted(router(&given), &given);
    assert_eq!(stored, given);
    let typed: MetaRouterSpec = serde_json::from_value(stored).unwrap();
    let matches = typed.routes[0].matches.as_ref().unwrap();
    let wanted: Vec<_> = matches.by_name().collect();
    assert_eq!(
        wanted,
        [
            ("bar", AttributeMatch::Present),
            ("foo", AttributeMatch::Present)
        ]
    );
    assert_eq!(serde_json::to_value(&typed).unwrap(), given);
}

#[test]
fn only_attributes_take_null_so_that_api_servers_drop_the_others() {
    fn nullable(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if map.get("nullable") == Some(&json!(true)) {
                    found.push(path.to_owned());
                }
                for (key, below) in map {
                    nullable(below, &format!("{path}/{key}"), found);
                }
            }
            Value::Array(items) => items.iter().for_each(|v| nullable(v, path, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for (_, crd) in trimtab_crds::manifests::trimtab_crds() {
        if crd.spec.group.ends_with("aeraki.io") {
            let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
            let spec = &schema["openAPIV3Schema"]["properties"]["spec"];
            nullable(spec, &crd.spec.names.kind, &mut found);
        }
    }
    assert_eq!(found.len(), 3, "{found:?}");
    for path in found {
        assert!(path.ends_with("attributes/additionalProperties"), "{path}");
    }
}

#[test]
fn bad_limits_are_refused() {
    let bucket = json!({"maxTokens": 1, "tokensPerFill": 1, "fillInterval": "1s"});
    let bad_bucket = |change| local(&json!({"tokenBucket": with(&bucket, &change)}));
    let condition = |c: Value| local(&json!({"conditions": [c]}));
    for (bad, want) in [
        (local(&json!({})), "tokenBucket, conditions or both"),
        (
            local(&json!({"conditions": []})),
            "tokenBucket, conditions or both",
        ),
        (
            bad_bucket(json!({"maxTokens": 0})),
            "greater than or equal to 1",
        ),
        (
            bad_bucket(json!({"maxTokens": 4_294_967_296_i64})),
            "less than or equal to 4294967295",
        ),
        (bad_bucket(json!({"maxTokens": "DELETE"})), "maxTokens"),
        (
            bad_bucket(json!({"tokensPerFill": 0})),
            "greater than or equal to 1",
        ),
        (
            bad_bucket(json!({"fillInterval": "DELETE"})),
            "fillInterval",
        ),
        (
            bad_bucket(json!({"fillInterval": "0s"})),
            "longer than nothing",
        ),
        (
            bad_bucket(json!({"fillInterval": "60"})),
            "a number with a unit",
        ),
        (condition(json!({"match": {}})), "tokenBucket"),
        (condition(json!({"tokenBucket": bucket})), "match"),
        (global(&json!({"domain": "DELETE"})), "domain"),
        (global(&json!({"domain": ""})), "domain"),
        (
            global(&json!({"rateLimitService": "DELETE"})),
            "rateLimitService",
        ),
        (global(&json!({"descriptors": []})), "at least 1 items"),
        (
            global(&json!({"descriptors": [{"property": "p"}]})),
            "descriptorKey",
        ),
        (
            global(&json!({"descriptors": [{"property": "", "descriptorKey": "k"}]})),
            "property",
        ),
        (
            global(&json!({"requestTimeout": "0s"})),
            "longer than nothing",
        ),
    ] {
        assert_refused(router(&bad), &bad, want);
    }
}

#[test]
fn defaults_are_filled_in() {
    let given = local(&json!({"tokenBucket": {"maxTokens": 1, "fillInterval": "1s"}}));
    let stored = assert_accepted(router(&given), &given);
    assert_eq!(stored["localRateLimit"]["tokenBucket"]["tokensPerFill"], 1);
    let given = global(&json!({}));
    let stored = assert_accepted(router(&given), &given);
    assert_eq!(stored["globalRateLimit"]["requestTimeout"], "20ms");
}

#[test]
fn unknown_fields_are_pruned() {
    let given = with(&base(), &json!({"surprise": 1}));
    assert_eq!(assert_accepted(router(&given), &given), base());
}

#[test]
fn application_protocols_need_both_fields() {
    let kind = "ApplicationProtocol";
    let good = json!({"protocol": "demo", "codec": "aeraki.meta_protocol.codec.demo"});
    let stored = assert_accepted(apply(VERSION, kind, &good), &good);
    assert_eq!(stored, good);
    for (change, want) in [
        (json!({"protocol": "DELETE"}), "protocol"),
        (json!({"protocol": ""}), "at least 1 chars"),
        (json!({"codec": "DELETE"}), "codec"),
        (json!({"codec": ""}), "at least 1 chars"),
        (json!({"codec": "a b"}), "no space"),
        (json!({"protocol": "a-b"}), "one part of a port name"),
    ] {
        let bad = with(&good, &change);
        assert_refused(apply(VERSION, kind, &bad), &bad, want);
    }
}

#[test]
fn columns_answer_the_first_questions() {
    assert_eq!(
        columns("metaprotocol.aeraki.io_metarouters.yaml"),
        [
            "Hosts",
            "Accepted",
            "Programmed",
            "Proxies",
            "Refused",
            "Data plane",
            "Delivery",
            "Age"
        ]
    );
    assert_eq!(
        columns("metaprotocol.aeraki.io_applicationprotocols.yaml"),
        ["Protocol", "Codec", "Accepted", "Age"]
    );
}

#[test]
fn scopes_are_aerakis() {
    for (name, crd) in trimtab_crds::manifests::trimtab_crds() {
        let cluster = name == "metaprotocol.aeraki.io_applicationprotocols.yaml";
        assert_eq!(crd.spec.scope == "Cluster", cluster, "{name}");
    }
}
