//! Objects with a mistake somewhere, through `translate`: nothing stops, what is refused gives nothing, and what is given
//! has no value that Envoy refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Value, json};
use trimtab::manifests::{self, Document};
use trimtab::translate;
use trimtab_kit::envoy::header;
use trimtab_kit::envoy::re2::{self, Engine};

use super::random::{FIXED, Random, seeds};

/// Objects of one namespace. The one that is changed comes last, and is called `changed`.
const GROUPS: &[&str] = &[
    "
{apiVersion: v1, kind: Service, metadata: {name: changed, namespace: NS}, spec: {selector: {app: a}, ports: [{name: http, port: 80}]}}
---
apiVersion: microservice.slime.io/v1alpha2
kind: SmartLimiter
metadata: {name: changed, namespace: NS}
spec:
  sets:
    _base:
      descriptor:
      - condition: 'true'
        match:
        - {name: x-tier, regex_match: '[a-z]+'}
        - {name: ':path', prefix_match: /a, invert_match: true}
        - {name: q, matchSource: QueryMatch, exact_match: '1'}
        action:
          quota: '100'
          fill_interval: {seconds: 1}
          headers_to_add: [{key: x-limited, value: 50% off}]
          response: {status: 503, body: 'no'}
",
    "
{apiVersion: v1, kind: Service, metadata: {name: changed, namespace: NS}, spec: {selector: {app: a}, ports: [{name: http, port: 80}]}}
---
apiVersion: microservice.netease.com/v1alpha1
kind: SmartLimiter
metadata: {name: changed, namespace: NS}
spec:
  descriptors:
  - condition: 'true'
    action: {quota: '10', fill_interval: {seconds: 1, nanos: 0}}
    match: [{name: x, suffix_match: a}]
",
    "
{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: NS}, spec: {clusterIP: 10.0.0.1, selector: {app: a}, ports: [{name: tcp-metaprotocol-dubbo, port: 20880}]}}
---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {name: changed, namespace: NS}
spec:
  hosts: [orders.NS.svc.cluster.local]
  routes:
  - name: first
    match: {attributes: {interface: {exact: a.B}, method: {regex: 'get.*'}, foo: {prefix: x}}}
    route:
    - {destination: {host: orders.NS.svc.cluster.local}, weight: 90}
    - {destination: {host: orders.NS.svc.cluster.local, subset: v1, port: {number: 20880}}, weight: 10}
    mirror: {host: orders.NS.svc.cluster.local}
    mirrorPercentage: {value: 5}
    requestMutation: [{key: a, value: b}]
  localRateLimit:
    tokenBucket: {maxTokens: 5, tokensPerFill: 5, fillInterval: 1s}
    conditions:
    - match: {attributes: {method: {exact: a}}}
      tokenBucket: {maxTokens: 5, tokensPerFill: 5, fillInterval: 1s}
  exportTo: ['.']
",
    "
{apiVersion: v1, kind: Service, metadata: {name: books, namespace: NS}, spec: {clusterIP: 10.0.0.2, selector: {app: a}, ports: [{name: tcp-metaprotocol-thrift, port: 9090}]}}
---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {name: changed, namespace: NS}
spec:
  hosts: [books.NS.svc.cluster.local]
  routes:
  - match: {attributes: {method: {exact: buy}, tenant: {regex: 'a|b'}}}
    route: [{destination: {host: books.NS.svc.cluster.local}}]
  - route: [{destination: {host: books.NS.svc.cluster.local}}]
  globalRateLimit:
    domain: d
    requestTimeout: 100ms
    rateLimitService: 'outbound|8081||limits.NS.svc.cluster.local'
    descriptors: [{property: method, descriptorKey: method}]
",
    "
{apiVersion: v1, kind: Service, metadata: {name: cache, namespace: NS}, spec: {clusterIP: 10.0.0.3, selector: {app: a}, ports: [{name: tcp-redis, port: 6379}]}}
---
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisDestination
metadata: {name: changed, namespace: NS}
spec:
  host: cache.NS.svc.cluster.local
  trafficPolicy: {connectionPool: {redis: {mode: CLUSTER, discoveryEndpoints: ['cache.NS.svc.cluster.local:6379'], auth: {plain: {password: p}}}}}
",
    "
{apiVersion: v1, kind: Service, metadata: {name: cache, namespace: NS}, spec: {clusterIP: 10.0.0.3, selector: {app: a}, ports: [{name: tcp-redis, port: 6379}]}}
---
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisService
metadata: {name: changed, namespace: NS}
spec:
  host: [cache.NS.svc.cluster.local]
  settings: {opTimeout: 1s, caseInsensitive: true, auth: {plain: {password: p}}}
  redis:
  - match: {key: {prefix: a}}
    route: {host: cache.NS.svc.cluster.local, port: 6379}
  faults: [{type: ERROR, percentage: {value: 5}, commands: [GET]}]
",
    "
{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: NS}, spec: {clusterIP: 10.0.0.1, selector: {app: a}, ports: [{name: tcp-dubbo, port: 20880}]}}
---
apiVersion: dubbo.aeraki.io/v1alpha1
kind: DubboAuthorizationPolicy
metadata: {name: changed, namespace: NS}
spec:
  action: DENY
  rules:
  - from: [{source: {principals: ['cluster.local/ns/*'], namespaces: ['shop*'], notNamespaces: [a]}}]
",
    "
{apiVersion: v1, kind: Service, metadata: {name: changed, namespace: NS}, spec: {selector: {app: a}, ports: [{name: http, port: 80}]}}
---
apiVersion: microservice.slime.io/v1alpha1
kind: ServiceFence
metadata: {name: changed, namespace: NS}
spec:
  enable: true
  host: {a.NS.svc.cluster.local: {stable: {}}, '*.example.com': {stable: {}}}
  namespaceSelector: [shop]
  workloadSelector: {labels: {app: a}}
",
    "
{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: NS}, spec: {clusterIP: 10.0.0.1, selector: {app: a}, ports: [{name: tcp-metaprotocol-dubbo, port: 20880}]}}
---
{apiVersion: metaprotocol.aeraki.io/v1alpha1, kind: MetaRouter, metadata: {name: r, namespace: NS}, spec: {hosts: [orders.NS.svc.cluster.local], routes: [{route: [{destination: {host: orders.NS.svc.cluster.local, subset: v1}}]}]}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: changed, namespace: NS}
spec:
  host: orders.NS.svc.cluster.local
  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: user}}}
  subsets: [{name: v1, labels: {version: v1}}]
",
    "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: changed, namespace: NS}
spec:
  hosts: [api.NS.example]
  addresses: [10.9.0.1]
  ports: [{number: 9090, name: tcp-metaprotocol-thrift, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 10.9.1.1, ports: {tcp-metaprotocol-thrift: 9191}, weight: 5}]
",
];

fn odd_value(random: &mut Random) -> Value {
    match random.below(24) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(0),
        4 => json!(1_000_000_000_000_i64),
        5 => json!(4_294_967_296_u64),
        6 => json!(0.5),
        7 => json!([]),
        8 => json!({}),
        9 => json!(["a", "a"]),
        10 => json!({"a": {"b": 1}}),
        11 => json!("a".repeat(random.between(60, 70_000))),
        _ => json!(random.pick(&[
            "",
            "*",
            ".",
            "~",
            "host",
            "Host",
            ":path",
            "a\nb",
            "a\rb",
            "\0",
            "a b",
            "é",
            "/a**",
            "x*+",
            "a{2}{3}",
            "([a-z]{1,20}[.]){1,60}shop",
            "[\\w--\\d]",
            "\\p{LU}",
            "(?P<shelf.no>x)",
            "\\x{1F4D6}",
            "(?=x)",
            "\\C",
            "[\\w-.]+",
            "a{,3}",
            "(",
            "50%",
            "%REQ(x)%",
            "-5s",
            "0s",
            "49ms",
            "2562047h47m16.854775807s",
            "1.2.3.4",
            "::1",
            "10.0.0.0/8",
            "outbound|80||a.b",
            "xn--a",
            "A.B",
            "a..b",
            "unix:///x",
            "1e999",
        ])),
    }
}

/// Every place in `value`, as a JSON pointer.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    let mut below = |key: &str, value: &Value| {
        let key = key.replace('~', "~0").replace('/', "~1");
        let at = format!("{at}/{key}");
        places(value, &at, out);
        out.push(at);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| below(k, v)),
        Value::Array(list) => {
            for (i, v) in list.iter().enumerate() {
                below(&i.to_string(), v);
            }
        }
        _ => {}
    }
}

/// Changes one place of the spec.
fn change(random: &mut Random, object: &mut Value) {
    let mut all = Vec::new();
    places(&object["spec"], "/spec", &mut all);
    if all.is_empty() {
        return;
    }
    let at = &all[random.below(all.len())];
    let (parent, key) = at.rsplit_once('/').unwrap();
    let kind = random.below(10);
    match object.pointer_mut(parent) {
        Some(Value::Object(map)) if kind == 0 => drop(map.remove(key)),
        Some(Value::Object(map)) if kind == 1 => {
            let value = map.remove(key).unwrap_or_default();
            let name = odd_value(random);
            map.insert(name.as_str().unwrap_or("other").to_owned(), value);
        }
        Some(Value::Array(list)) if kind < 2 => {
            let first = list.first().cloned().unwrap_or_default();
            list.push(first);
        }
        _ => {
            if let Some(place) = object.pointer_mut(at) {
                *place = odd_value(random);
            }
        }
    }
}

fn documents(random: &mut Random, namespace: &str) -> Vec<Document> {
    let group = random.pick(GROUPS).replace("NS", namespace);
    let file = PathBuf::from(namespace);
    let mut documents = manifests::parse(&file, &group).expect("a group");
    let object = &mut documents.last_mut().expect("an object").object;
    for _ in 0..random.between(1, 3) {
        change(random, object);
    }
    documents
}

/// What stands where Envoy reads an expression or the name of a header.
fn scan(value: &Value, problems: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(regex)) = map.get("regex")
                && (regex.is_empty() || re2::check(regex, Engine::Envoy).is_err())
            {
                problems.push(format!("the expression {regex:?}"));
            }
            for list in ["headers", "queryParameters"] {
                let matchers = map.get(list).and_then(Value::as_array);
                for name in matchers
                    .into_iter()
                    .flatten()
                    .filter_map(|m| m["name"].as_str())
                {
                    if header::matched(name).is_err() {
                        problems.push(format!("the name {name:?}"));
                    }
                }
            }
            if let (Some(Value::String(key)), true) = (map.get("key"), map.contains_key("value"))
                && map.get("append_action").is_some()
                && header::added(key).is_err()
            {
                problems.push(format!("the header {key:?}"));
            }
            map.values().for_each(|v| scan(v, problems));
        }
        Value::Array(list) => list.iter().for_each(|v| scan(v, problems)),
        _ => {}
    }
}

/// Rules of a limiter: a bad one is refused alone, so that only of one that has no other nothing may come.
fn rules(object: &Value) -> usize {
    let of = |list: &Value| list.as_array().map_or(0, Vec::len);
    let sets = object["spec"]["sets"].as_object();
    let in_sets = sets.into_iter().flat_map(|s| s.values());
    in_sets.map(|s| of(&s["descriptor"])).sum::<usize>() + of(&object["spec"]["descriptors"])
}

async fn translated(seed: u64, n: usize, batch: usize) {
    let mut random = Random::new(seed);
    let config = translate::configuration(None).expect("the defaults");
    let (mut refused, mut given) = (0, 0);
    for first in (0..n).step_by(batch) {
        let names: Vec<String> = (first..(first + batch).min(n))
            .map(|i| format!("f{i}"))
            .collect();
        let mut all = Vec::new();
        let mut several = BTreeSet::new();
        for name in &names {
            let documents = documents(&mut random, name);
            if documents.last().is_some_and(|d| rules(&d.object) > 1) {
                several.insert(name);
            }
            all.extend(documents);
        }
        let pass = translate::pass(&all, &BTreeMap::new(), &config).await;
        let (_, output) = pass.unwrap_or_else(|e| panic!("seed {seed}, from {first}: {e:#}"));
        let mut problems = Vec::new();
        for value in output.objects.iter().chain(&output.resources) {
            scan(value, &mut problems);
        }
        for name in &names {
            let limiter = format!("SmartLimiter {name}/changed");
            let was_refused = output.refused.iter().any(|r| r.contains(&limiter));
            let own = output
                .objects
                .iter()
                .filter(|o| o["metadata"]["namespace"] == **name);
            let own = own.count();
            refused += usize::from(
                output
                    .refused
                    .iter()
                    .any(|r| r.contains(&format!("{name}/changed"))),
            );
            given += usize::from(own > 0);
            if was_refused && own > 0 && !several.contains(name) {
                problems.push(format!("{limiter} is refused and gives {own} objects"));
            }
        }
        assert!(
            problems.is_empty(),
            "seed {seed}, from {first}: {problems:#?}"
        );
    }
    println!("objects: {refused} of {n} are refused, {given} give something");
    assert!(refused > 0 && given > 0, "both kinds are there");
}

#[tokio::test]
async fn the_objects_are_good_before_they_are_changed() {
    let config = translate::configuration(None).unwrap();
    for group in GROUPS {
        let group = group.replace("NS", "shop");
        let documents = manifests::parse(&PathBuf::from("good"), &group).unwrap();
        let (_, output) = translate::pass(&documents, &BTreeMap::new(), &config)
            .await
            .unwrap();
        let of_the_schema = |r: &&String| r.contains("is invalid");
        assert_eq!(output.refused.iter().find(of_the_schema), None, "{group}");
        assert!(!output.objects.is_empty(), "{group}: {:?}", output.refused);
    }
}

#[tokio::test]
async fn no_object_stops_it_and_what_is_refused_gives_nothing() {
    translated(FIXED, 300, 100).await;
}

#[tokio::test]
#[ignore = "minutes: make fuzz"]
async fn full_objects() {
    for seed in seeds() {
        translated(seed, 10_000, 200).await;
    }
}
