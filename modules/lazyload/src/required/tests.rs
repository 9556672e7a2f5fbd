use std::collections::BTreeSet;

use serde_json::{Value, json};
use trimtab_mesh::model::{
    CustomPolicy, ExtensionClusters, FilterClusters, KeyServers, PluginClusters, Pod, ServiceEntry,
    Telemetry,
};
use trimtab_mesh::table::Row;

use super::*;

/// Requirements that follow a mesh.
struct Fixture {
    mesh: Arc<Mesh>,
    of: Arc<Requirements>,
}

impl Fixture {
    fn new(config: &str) -> Self {
        let config: LazyloadConfig = serde_saphyr::from_str(config).unwrap();
        let mesh = Mesh::new("");
        let of = Requirements::new(&config, &mesh, Arc::default());
        mesh.table::<FilterClusters>().follow(&of);
        mesh.table::<PluginClusters>().follow(&of);
        mesh.table::<ExtensionClusters>().follow(&of);
        mesh.table::<CustomPolicy>().follow(&of);
        mesh.table::<Telemetry>().follow(&of);
        mesh.table::<KeyServers>().follow(&of);
        mesh.table::<MeshConfig>().follow(&of);
        mesh.table::<Pod>().follow(&of);
        mesh.table::<ServiceEntry>().follow(&of);
        Self { mesh, of }
    }

    fn put<R: Row<Object: serde::de::DeserializeOwned>>(
        &self,
        namespace: &str,
        name: &str,
        rest: &Value,
    ) {
        let mut object = json!({"metadata": {"namespace": namespace, "name": name}});
        merge(&mut object, rest);
        self.mesh.put::<R>(serde_json::from_value(object).unwrap());
    }

    fn mesh(&self, text: &str) {
        let data = json!({"data": {"mesh": text}});
        self.put::<MeshConfig>("istio-system", "istio", &data);
    }

    fn pod(&self, name: &str, labels: &Value, annotations: &Value) {
        let pod = json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": {"containers": [{"name": "app"}]}});
        self.put::<Pod>("desk", name, &pod);
    }

    fn needs(&self) -> Needs {
        let selector = [("app".to_owned(), "orders".to_owned())].into();
        self.of.of("desk", Some(&selector))
    }

    /// Hosts of `desk/orders`, sorted.
    fn hosts(&self) -> Vec<String> {
        let needs = self.needs();
        let hosts: BTreeSet<String> = needs.hosts.into_iter().map(|h| h.host).collect();
        hosts.into_iter().collect()
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn filter(host: &str, selector: &Value) -> Value {
    json!({"spec": {"workloadSelector": {"labels": selector}, "configPatches": [
        {"applyTo": "HTTP_FILTER", "patch": {"operation": "MERGE", "value": {"cluster_name": format!("outbound|80||{host}")}}}]}})
}

#[test]
fn fault_s3_filters_of_the_pods_of_the_namespace_and_of_the_root_namespace() {
    let of = Fixture::new("{}");
    of.put::<FilterClusters>("desk", "a", &filter("own.x", &json!({"app": "orders"})));
    of.put::<FilterClusters>("desk", "b", &filter("all.x", &json!({})));
    of.put::<FilterClusters>("desk", "c", &filter("other.x", &json!({"app": "stock"})));
    of.put::<FilterClusters>("shop", "d", &filter("shop.x", &json!({})));
    let root = filter("root.x", &json!({"tier": "web"}));
    of.put::<FilterClusters>("istio-system", "e", &root);
    let touched = of.of.drain_changes();
    assert!(touched.all && touched.namespaces.contains("desk"));
    assert_eq!(of.hosts(), ["all.x", "own.x"]);
    of.pod("o-1", &json!({"app": "orders", "tier": "web"}), &json!({}));
    assert_eq!(of.hosts(), ["all.x", "own.x", "root.x"]);
    of.mesh("rootNamespace: shop");
    assert_eq!(of.hosts(), ["all.x", "own.x", "shop.x"]);
    let plugin = json!({"spec": {"selector": {"matchLabels": {"app": "orders"}}, "pluginConfig": {"u": "outbound|80||wasm.x"}}});
    of.put::<PluginClusters>("desk", "p", &plugin);
    let lua = json!({"spec": {"lua": {"inlineCode": "'outbound|80||lua.x'"}}});
    of.put::<ExtensionClusters>("desk", "l", &lua);
    assert_eq!(of.hosts(), ["all.x", "lua.x", "own.x", "shop.x", "wasm.x"]);
    of.of.drain_changes();
    of.put::<FilterClusters>("desk", "a", &filter("own.x", &json!({"app": "orders"})));
    assert_eq!(of.of.drain_changes(), Touched::default());
}

const PROVIDERS: &str = "
extensionProviders:
- {name: doorman, envoyExtAuthzHttp: {service: doorman.guard.svc.cluster.local, port: 9000}}
- {name: spans, opentelemetry: {service: watch/spans.watch.svc.cluster.local, port: 4317}}
- {name: old-spans, zipkin: {service: zipkin.watch.svc.cluster.local, port: 9411}}
- {name: logs, envoyOtelAls: {service: logs.watch.svc.cluster.local, port: 4317}}
- {name: file, envoyFileAccessLog: {path: /dev/stdout}}
";
const DOORMAN: &str = "doorman.guard.svc.cluster.local";
const SPANS: &str = "spans.watch.svc.cluster.local";
const ZIPKIN: &str = "zipkin.watch.svc.cluster.local";
const LOGS: &str = "logs.watch.svc.cluster.local";

fn telemetry(selector: &Value, rest: &Value) -> Value {
    let mut out = json!({"spec": {"selector": {"matchLabels": selector}}});
    merge(&mut out["spec"], rest);
    out
}

#[test]
fn fault_s3_a_policy_that_has_a_provider_decide() {
    let of = Fixture::new("{}");
    let policy = |name: &str| json!({"spec": {"action": "CUSTOM", "provider": {"name": name}}});
    of.put::<CustomPolicy>("desk", "p", &policy("doorman"));
    let remark = |text: &str| {
        let remarks = of.needs().remarks;
        let found = remarks
            .iter()
            .any(|r| r.contains("doorman") && r.contains(text));
        assert!(found, "{remarks:?}");
    };
    remark("no MeshConfig");
    of.mesh("extensionProviders: []");
    remark("not in extensionProviders");
    of.mesh(PROVIDERS);
    assert_eq!(of.hosts(), [DOORMAN]);
    assert_eq!(of.needs().remarks, BTreeSet::new());
    of.mesh("extensionProviders: [");
    assert_eq!(of.hosts(), [DOORMAN], "as it was before");
    let remarks = of.needs().remarks;
    assert!(
        remarks.iter().any(|r| r.contains("cannot be read")),
        "{remarks:?}"
    );
    of.mesh(PROVIDERS);
    of.put::<CustomPolicy>("desk", "p", &policy("file"));
    assert_eq!(of.needs(), Needs::default(), "without a server");
}

#[test]
fn fault_s3_traces_of_the_last_level_that_says_something() {
    let of = Fixture::new("{}");
    let none = json!({});
    let by = |name: &str| json!({"tracing": [{"providers": [{"name": name}]}]});
    of.mesh(&format!(
        "{PROVIDERS}\ndefaultProviders: {{tracing: [old-spans, spans]}}"
    ));
    assert_eq!(of.hosts(), [ZIPKIN], "the first counts");
    of.put::<Telemetry>("istio-system", "all", &telemetry(&none, &by("spans")));
    assert_eq!(of.hosts(), [SPANS]);
    let client =
        json!({"tracing": [{"match": {"mode": "CLIENT"}, "providers": [{"name": "old-spans"}]}]});
    of.put::<Telemetry>("desk", "own", &telemetry(&none, &client));
    assert_eq!(of.hosts(), [SPANS, ZIPKIN], "one a side");
    let off = json!({"tracing": [{"disableSpanReporting": true}]});
    of.put::<Telemetry>("desk", "pods", &telemetry(&json!({"app": "orders"}), &off));
    assert_eq!(of.hosts(), [""; 0]);
    of.put::<Telemetry>("desk", "pods", &telemetry(&json!({"app": "other"}), &off));
    assert_eq!(of.hosts(), [SPANS, ZIPKIN]);
}

#[test]
fn fault_s3_access_logs_and_what_turns_them_off() {
    let of = Fixture::new("{}");
    let none = json!({});
    of.mesh(&format!(
        "{PROVIDERS}\ndefaultProviders: {{accessLogging: [logs]}}"
    ));
    assert_eq!(of.hosts(), [LOGS]);
    let file = json!({"accessLogging": [{"providers": [{"name": "file"}]}]});
    of.put::<Telemetry>("istio-system", "all", &telemetry(&none, &file));
    assert_eq!(of.hosts(), [""; 0]);
    let logs =
        json!({"accessLogging": [{"providers": [{"name": "logs"}], "match": {"mode": "SERVER"}}]});
    of.put::<Telemetry>("desk", "own", &telemetry(&none, &logs));
    assert_eq!(of.hosts(), [LOGS]);
    let off = json!({"accessLogging": [{"disabled": true}]});
    of.put::<Telemetry>("desk", "pods", &telemetry(&json!({"app": "orders"}), &off));
    assert_eq!(of.hosts(), [""; 0]);
    let metrics = json!({"metrics": [{"providers": [{"name": "prometheus"}]}]});
    of.put::<Telemetry>(
        "desk",
        "pods",
        &telemetry(&json!({"app": "orders"}), &metrics),
    );
    assert_eq!(of.hosts(), [LOGS]);
    assert_eq!(
        of.needs().remarks,
        BTreeSet::new(),
        "every mesh has prometheus"
    );
}

#[test]
fn fault_s3_keys_that_proxies_fetch() {
    let spec = json!({"spec": {"jwtRules": [{"issuer": "a", "jwksUri": "http://keys.guard.svc.cluster.local/certs"}]}});
    for (config, wanted) in [
        ("{}", &[][..]),
        ("remoteJwks: true", &["keys.guard.svc.cluster.local"]),
    ] {
        let of = Fixture::new(config);
        of.put::<KeyServers>("desk", "r", &spec);
        assert_eq!(of.hosts(), wanted);
    }
}

fn entry(hosts: &[&str], spec: &Value) -> Value {
    let mut out = json!({"spec": {"hosts": hosts, "resolution": "STATIC", "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]}});
    merge(&mut out["spec"], spec);
    out
}

#[test]
fn fault_s9_names_of_pods_whose_proxies_answer_dns() {
    let of = Fixture::new("{}");
    let none = json!({});
    let till = entry(&["Till.Shop.internal", "*.shop.internal"], &none);
    of.put::<ServiceEntry>("legacy", "till", &till);
    of.put::<ServiceEntry>(
        "legacy",
        "own",
        &entry(&["hidden.x"], &json!({"exportTo": ["."]})),
    );
    of.put::<ServiceEntry>(
        "legacy",
        "none",
        &entry(&["pass.x"], &json!({"resolution": "NONE"})),
    );
    of.put::<ServiceEntry>(
        "legacy",
        "net",
        &entry(&["net.x"], &json!({"addresses": ["10.0.0.0/8"]})),
    );
    let single = json!({"resolution": "NONE", "addresses": ["10.9.9.9"]});
    of.put::<ServiceEntry>("legacy", "single", &entry(&["single.x"], &single));
    let all = ["single.x", "till.shop.internal"];
    let unnamed = |wanted: &[&str]| {
        let found: Vec<String> = of.needs().unnamed.into_iter().collect();
        assert_eq!(found, wanted);
    };
    unnamed(&["legacy/single.x", "legacy/till.shop.internal"]);
    assert_eq!(of.hosts(), [""; 0], "nobody says whether DNS is captured");
    of.mesh("accessLogFile: /dev/stdout");
    assert_eq!(of.needs(), Needs::default(), "it is not");
    of.mesh("defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"true\"}}");
    assert_eq!(of.hosts(), all);
    let config = |value: &str| json!({"proxy.istio.io/config": format!("proxyMetadata: {{ISTIO_META_DNS_CAPTURE: \"{value}\"}}")});
    of.pod("o-1", &json!({"app": "orders"}), &config("false"));
    assert_eq!(of.hosts(), [""; 0], "the pod says otherwise");
    of.of.drain_changes();
    of.pod("o-1", &json!({"app": "orders"}), &config("true"));
    assert!(of.of.drain_changes().namespaces.contains("desk"));
    assert_eq!(of.hosts(), all);
    // Only what is seen and named touches anything.
    of.put::<ServiceEntry>(
        "legacy",
        "own",
        &entry(&["hidden2.x"], &json!({"exportTo": ["."]})),
    );
    of.put::<ServiceEntry>(
        "legacy",
        "till",
        &entry(
            &["till.shop.internal"],
            &json!({"location": "MESH_INTERNAL"}),
        ),
    );
    assert_eq!(of.of.drain_changes(), Touched::default());
    of.mesh.remove::<ServiceEntry>("legacy", "till");
    assert!(of.of.drain_changes().namespaces.contains("desk"));
    assert_eq!(of.hosts(), ["single.x"]);
}

#[test]
fn fault_s9_a_key_turns_names_off() {
    let of = Fixture::new("dnsHosts: false");
    of.put::<ServiceEntry>("legacy", "till", &entry(&["till.x"], &json!({})));
    of.mesh("defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"true\"}}");
    let needs = of.needs();
    assert_eq!(needs.hosts, BTreeSet::new());
    assert_eq!(needs.unnamed, BTreeSet::from(["legacy/till.x".to_owned()]));
}
