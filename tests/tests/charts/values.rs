//! Values: what is refused, and that schema, README and operator agree on the keys.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use trimtab::config::Config;

use crate::helm::{chart, render};

/// A value, and what helm says of it.
const REFUSED: [(&str, &str); 22] = [
    (
        "replicaCount=-1",
        "at '/replicaCount': minimum: got -1, want 0",
    ),
    (
        "config.leaderElection.enabled=false",
        "replicaCount: with more than one replica, all would write",
    ),
    (
        "leaderElection.leaseDuration=soon",
        "at '/leaderElection/leaseDuration': 'soon' does not match pattern",
    ),
    ("replicas=1", "additional properties 'replicas' not allowed"),
    (
        "config.limiter.refesh=5s",
        "at '/config/limiter': additional properties 'refesh' not allowed",
    ),
    (
        "config.limiter.refresh=soon",
        "at '/config/limiter/refresh': 'soon' does not match pattern",
    ),
    (
        "config.limiter.delivery=RDS",
        "at '/config/limiter/delivery': value must be one of 'EnvoyFilter', 'ECDS'",
    ),
    (
        "config.http.address=127.0.0.1:8080",
        "at '/config/http/address': '127.0.0.1:8080' does not match pattern",
    ),
    (
        "config.xds.address=0.0.0.0:0",
        "at '/config/xds/address': '0.0.0.0:0' does not match pattern",
    ),
    (
        "config.xds.advertise=trimtab",
        "at '/config/xds/advertise': 'trimtab' does not match pattern",
    ),
    (
        "config.metaprotocol.dataPlane=Both",
        "at '/config/metaprotocol/dataPlane': value must be one of 'Auto', 'Aeraki', 'Envoy'",
    ),
    (
        "config.xds.limits.streams=0",
        "at '/config/xds/limits/streams': minimum: got 0, want 1",
    ),
    (
        "config.metrics.prometheus.timeout=5s",
        "at '/config/metrics/prometheus': missing property 'address'",
    ),
    (
        "config.metrics.mds=null",
        "at '/config/metrics/mds': got null, want object",
    ),
    (
        "config.lazyload.learn.accessLog.address=127.0.0.1:8082",
        "at '/config/lazyload/learn/accessLog/address': '127.0.0.1:8082' does not match pattern",
    ),
    (
        "config.lazyload.mode=enforce",
        "at '/config/lazyload/mode': value must be one of 'Observe', 'Exclude', 'Enforce', 'Auto'",
    ),
    (
        "fallback.enabled=true,config.lazyload.enabled=false",
        "fallback.enabled: config.lazyload.enabled is false",
    ),
    (
        "fallback.enabled=true,config.lazyload.fallback.enabled=false",
        "fallback.enabled: config.lazyload.fallback.enabled is false",
    ),
    (
        "image.repository=",
        "at '/image/repository': minLength: got 0, want 1",
    ),
    (
        "image.digest=latest",
        "at '/image/digest': 'latest' does not match pattern",
    ),
    (
        "livenessProbe.httpGet.path=/",
        "at '/livenessProbe': additional properties 'httpGet' not allowed",
    ),
    (
        "serviceAccount.create=false",
        "serviceAccount.name: name the ServiceAccount to use, or set serviceAccount.create to true",
    ),
];

#[test]
fn bad_values_are_refused_by_name() {
    for (argument, message) in REFUSED {
        let error =
            render("trimtab", &["--set", argument]).expect_err(&format!("{argument} was accepted"));
        assert!(error.contains(message), "{argument}: {error}");
    }
    let error = render("trimtab-crds", &["--set", "kept=false"]).unwrap_err();
    assert!(
        error.contains("additional properties 'kept' not allowed"),
        "{error}"
    );
}

fn schema(name: &str) -> Value {
    let text = std::fs::read_to_string(chart(name).join("values.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Keys of a value, as a schema has to name them.
fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .map(|map| map.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

/// Holds that `schema` names exactly the keys of `value`, at every depth at which it names keys.
fn same_keys(path: &str, schema: &Value, value: &Value) {
    if let Some(properties) = schema.get("properties") {
        assert_eq!(
            keys(properties),
            keys(value),
            "{path}: left: values.schema.json, right: what there is"
        );
        assert_eq!(schema["additionalProperties"], false, "{path}");
        for (key, schema) in properties.as_object().unwrap() {
            same_keys(&format!("{path}.{key}"), schema, &value[key]);
        }
    } else if schema["additionalProperties"].is_object() {
        for (key, value) in value.as_object().into_iter().flatten() {
            same_keys(
                &format!("{path}.{key}"),
                &schema["additionalProperties"],
                value,
            );
        }
    }
}

#[test]
fn the_schema_knows_every_key_of_the_operators_configuration() {
    let access = "basicAuth: {username: u, passwordFile: f}, bearerTokenFile: f, caFile: f, certFile: f, keyFile: f, headers: {a: b}";
    let all = "metrics: {prometheus: {address: 'https://p', ACCESS, handlers: {cpu: {query: q, type: PerPod, aggregate: max, timeout: 1s, maxAge: 1m}}}, metricsServer: {}, mds: {}}\n\
        xds: {tls: {}, tokens: {}}\n\
        mesh: {certificate: {istiod: {}, files: {}}}\n\
        lazyload: {learn: {accessLog: {}, prometheus: {ACCESS}}}\n\
        metaprotocol: {accessLog: {path: p, format: f}, tracing: {sampling: 1}, idleTimeout: 1h, vips: {v4: 240.241.0.0/16, v6: 'fd00::/64'}}";
    let config: Config = serde_saphyr::from_str(&all.replace("ACCESS", access)).unwrap();
    let value = serde_json::to_value(config.effective()).unwrap();
    same_keys("config", &schema("trimtab")["properties"]["config"], &value);
}

/// Values that are given to Kubernetes, the operator or Grafana as they are: their keys are not the chart's.
const PASSED_ON: [&str; 13] = [
    "config",
    "rules",
    "resources",
    "podSecurityContext",
    "securityContext",
    "podLabels",
    "podAnnotations",
    "commonLabels",
    "labels",
    "livenessProbe",
    "readinessProbe",
    "affinity",
    "nodeSelector",
];

/// Dotted names of all values of a chart.
fn leaves(prefix: &str, value: &Value, out: &mut BTreeSet<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        let empty = value.as_object().is_none_or(serde_json::Map::is_empty);
        if empty || PASSED_ON.contains(&key.as_str()) {
            out.insert(path);
        } else {
            leaves(&path, value, out);
        }
    }
}

/// Dotted names that a schema allows, to the same depth.
fn allowed(prefix: &str, schema: &Value, out: &mut BTreeSet<String>) {
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        if schema.get("properties").is_none() || PASSED_ON.contains(&key.as_str()) {
            out.insert(path);
        } else {
            allowed(&path, schema, out);
        }
    }
}

#[test]
fn values_schema_and_readme_name_the_same_keys() {
    for name in ["trimtab", "trimtab-crds"] {
        let text = std::fs::read_to_string(chart(name).join("values.yaml")).unwrap();
        let (mut values, mut schematic) = (BTreeSet::new(), BTreeSet::new());
        leaves("", &serde_saphyr::from_str(&text).unwrap(), &mut values);
        allowed("", &schema(name), &mut schematic);
        assert!(
            schematic.remove("global"),
            "a chart can be a part of another"
        );
        assert_eq!(
            values, schematic,
            "{name}: left: values.yaml, right: values.schema.json"
        );
        let readme = std::fs::read_to_string(chart(name).join("README.md")).unwrap();
        let listed: BTreeSet<String> = readme
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .map(ToOwned::to_owned)
            .collect();
        assert_eq!(
            values, listed,
            "{name}: left: values.yaml, right: the table in README.md"
        );
    }
}

/// A step from a schema to one inside it.
#[derive(Clone)]
enum Step {
    Key(String),
    Item,
}

/// Every place where a schema lists the values that are allowed.
fn enumerations(schema: &Value, at: &[Step], out: &mut Vec<(Vec<Step>, Vec<Value>)>) {
    if let Some(allowed) = schema["enum"].as_array() {
        out.push((at.to_vec(), allowed.clone()));
    }
    let mut inner: Vec<(Step, &Value)> = Vec::new();
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        inner.push((Step::Key(key.clone()), schema));
    }
    inner.push((Step::Key("any".to_owned()), &schema["additionalProperties"]));
    inner.push((Step::Item, &schema["items"]));
    for (step, schema) in inner.iter().filter(|(_, s)| s.is_object()) {
        let mut at = at.to_vec();
        at.push(step.clone());
        enumerations(schema, &at, out);
    }
}

#[test]
fn fault_o37_a_wrong_value_of_a_list_is_told_which_are_allowed() {
    let mut all = Vec::new();
    enumerations(&schema("trimtab"), &[], &mut all);
    assert!(all.len() >= 18, "{}", all.len());
    for (at, allowed) in all {
        let wrong = at
            .iter()
            .skip(1)
            .rev()
            .fold(Value::from("Wrong"), |value, step| match step {
                Step::Key(key) => json!({key: value}),
                Step::Item => json!([value]),
            });
        let Some(Step::Key(first)) = at.first() else {
            panic!("a schema of an object");
        };
        let set = format!("{first}={wrong}");
        let error = render("trimtab", &["--set-json", &set]).unwrap_err();
        assert!(error.contains("value must be one of"), "{set}: {error}");
        for value in allowed.iter().filter_map(Value::as_str) {
            assert!(
                error.contains(&format!("'{value}'")),
                "{set}: {value}: {error}"
            );
        }
    }
    let error = render("trimtab", &["--set", "logLevel=verbose"]).unwrap_err();
    assert!(error.contains("off|error|warn|info|debug|trace"), "{error}");
}
