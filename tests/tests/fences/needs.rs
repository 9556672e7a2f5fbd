//! What a workload loses by a Sidecar if nobody thinks of it: policies, servers that its proxies ask, names, first calls.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::{Value, json};
use trimtab::config::Config;
use trimtab::translate::{self, Output};
use trimtab_crds::fence::FenceStatus;
use trimtab_lab::process::wait_until;

use crate::fixture::{BOUND, Fixture, PLAIN, service};

const OFF: &str = "lazyload: {fallback: {enabled: false}}";

/// `trimtab translate` on a text.
async fn translated(name: &str, text: &str, config: &str) -> Output {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file = format!("needs-{name}-{}.yaml", std::process::id());
    let file: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
    std::fs::write(&file, text).unwrap();
    let mut config: Config = serde_saphyr::from_str(config).unwrap();
    "x:15010".clone_into(&mut config.xds.advertise);
    let out = translate::run(&[file], "default", &BTreeMap::new(), &config).await;
    out.unwrap()
}

/// Entries of the only Sidecar.
fn entries(out: &Output) -> Vec<&str> {
    let mut all = out.objects.iter().filter(|o| o["kind"] == "Sidecar");
    let sidecar = all.next().expect("a Sidecar");
    assert!(all.next().is_none(), "one");
    let egress = sidecar["spec"]["egress"]
        .as_array()
        .unwrap()
        .last()
        .unwrap();
    let hosts = egress["hosts"].as_array().unwrap().iter();
    hosts.map(|h| h.as_str().unwrap()).collect()
}

fn told(out: &Output, part: &str) -> bool {
    out.notes.iter().any(|note| note.contains(part))
}

const SERVICES: &str = "
---
apiVersion: v1
kind: Service
metadata: {name: desk, namespace: inn}
spec: {selector: {app: desk}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: judge, namespace: court}
spec: {selector: {app: judge}, ports: [{name: grpc, port: 9191}]}
---
apiVersion: v1
kind: Service
metadata: {name: scribe, namespace: court}
spec: {selector: {app: scribe}, ports: [{name: grpc, port: 4317}]}
---
# Of proxies' own calls no route counts.
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: judge, namespace: third}
spec:
  hosts: [judge.court.svc.cluster.local]
  http: [{route: [{destination: {host: scribe.court.svc.cluster.local}}]}]
---
apiVersion: microservice.slime.io/v1alpha1
kind: ServiceFence
metadata: {name: desk, namespace: inn}
spec: {enable: true, workloadSelector: {fromService: true}}
";

#[tokio::test]
async fn fault_s3_servers_that_filters_ask() {
    let filter = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: ask, namespace: istio-system}
spec:
  workloadSelector: {labels: {app: desk}}
  configPatches:
  - applyTo: HTTP_ROUTE
    match: {context: SIDECAR_INBOUND}
    patch:
      operation: MERGE
      value:
        typed_per_filter_config:
          envoy.filters.http.lua:
            '@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute
            source_code: {inline_string: \"function envoy_on_request(h) h:httpCall('outbound|9191|v1|judge.court.svc.cluster.local', {}, '', 5) end\"}
";
    let out = translated("filter", &format!("{filter}{SERVICES}"), OFF).await;
    assert_eq!(out.refused, [""; 0]);
    assert_eq!(entries(&out), ["court/judge.court.svc.cluster.local"]);
    let missing = filter.replace("judge", "nobody");
    let out = translated("missing", &format!("{missing}{SERVICES}"), OFF).await;
    assert!(
        told(&out, "nobody.court.svc.cluster.local"),
        "{:?}",
        out.notes
    );
    assert!(
        told(&out, "EnvoyFilter istio-system/ask"),
        "{:?}",
        out.notes
    );
}

#[tokio::test]
async fn fault_s3_servers_of_providers_and_of_plugins() {
    let text = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - {name: judge, envoyExtAuthzHttp: {service: court/judge.court.svc.cluster.local, port: 9191}}
    - {name: logs, envoyHttpAls: {service: scribe.court.svc.cluster.local, port: 4317}}
    defaultProviders: {accessLogging: [logs]}
---
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: istio-system}
spec: {action: CUSTOM, provider: {name: judge}, rules: [{}]}
---
apiVersion: telemetry.istio.io/v1alpha1
kind: Telemetry
metadata: {name: other, namespace: elsewhere}
spec: {accessLogging: [{disabled: true}]}
";
    let out = translated("providers", &format!("{text}{SERVICES}"), OFF).await;
    assert_eq!(out.refused, [""; 0]);
    let both = [
        "court/judge.court.svc.cluster.local",
        "court/scribe.court.svc.cluster.local",
    ];
    assert_eq!(entries(&out), both);
    let undefined = text.replace("provider: {name: judge}", "provider: {name: jury}");
    let out = translated("undefined", &format!("{undefined}{SERVICES}"), OFF).await;
    assert_eq!(entries(&out), [both[1]]);
    assert!(told(
        &out,
        "provider jury of AuthorizationPolicy istio-system/ask"
    ));
    let plugin = "
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: w, namespace: inn}
spec: {url: 'oci://x/y', pluginConfig: {upstream: 'outbound|9191||judge.court.svc.cluster.local'}}
---
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: t, namespace: inn}
spec: {selector: {matchLabels: {app: other}}, lua: {inlineCode: 'x(\"outbound|4317||scribe.court.svc.cluster.local\")'}}
";
    let out = translated("plugin", &format!("{plugin}{SERVICES}"), OFF).await;
    assert_eq!(entries(&out), [both[0]]);
}

#[tokio::test]
#[allow(
    clippy::too_many_lines,
    reason = "one mesh and what each of its parts must give"
)]
async fn fault_s2_the_sidecar_of_the_namespace_is_followed() {
    let fixture = Fixture::shop();
    let sidecar = |namespace: &str, spec: Value| {
        json!({"apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
        "metadata": {"namespace": namespace, "name": "default"}, "spec": spec})
    };
    let root = sidecar(
        "istio-system",
        json!({"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}),
    );
    fixture.put(root);
    let operator = fixture.operator(PLAIN).await;
    fixture.fence("shop", "front", json!({})).await;
    let has = |what: &'static str, good: fn(&Value) -> bool| {
        let fixture = &fixture;
        wait_until(what, BOUND, move || async move {
            let spec = fixture
                .sidecar("shop", "front")
                .await
                .map(|s| json!(s.spec));
            let spec = spec.unwrap_or_default();
            if good(&spec) {
                Ok(())
            } else {
                Err(spec.to_string())
            }
        })
    };
    let mode = |spec: &Value| spec["outboundTrafficPolicy"]["mode"].clone();
    has("that of the root namespace", |s| {
        s["outboundTrafficPolicy"]["mode"] == "REGISTRY_ONLY"
    })
    .await
    .unwrap();
    let of = |status: &FenceStatus, text: &str| {
        let programmed = status.conditions.iter().find(|c| c.type_ == "Programmed");
        programmed.is_some_and(|c| c.message.contains(text))
    };
    let says =
        |text: &'static str| fixture.status_where("shop", "front", text, move |s| of(s, text));
    says("outboundTrafficPolicy as in Sidecar istio-system/default").await;
    let ingress = json!([{"port": {"number": 80, "protocol": "HTTP", "name": "http"}, "defaultEndpoint": "127.0.0.1:8080"}]);
    fixture
        .apply(sidecar(
            "shop",
            json!({"ingress": ingress, "egress": [{"hosts": ["./*"]}]}),
        ))
        .await;
    has("its own comes", |s| {
        s["ingress"][0]["defaultEndpoint"] == "127.0.0.1:8080"
            && s["outboundTrafficPolicy"].is_null()
    })
    .await
    .unwrap();
    says("ingress as in Sidecar shop/default").await;
    let pool = json!({"egress": [{"hosts": ["./*"]}], "inboundConnectionPool": {"tcp": {"maxConnections": 7}}});
    fixture.apply(sidecar("shop", pool)).await;
    has("it changes", |s| {
        s["ingress"].is_null() && s["inboundConnectionPool"]["tcp"]["maxConnections"] == 7
    })
    .await
    .unwrap();
    fixture
        .delete("networking.istio.io/v1", "Sidecar", "shop", "default")
        .await;
    has("it goes", |s| {
        s["outboundTrafficPolicy"]["mode"] == "REGISTRY_ONLY"
    })
    .await
    .unwrap();
    fixture
        .delete(
            "networking.istio.io/v1",
            "Sidecar",
            "istio-system",
            "default",
        )
        .await;
    has("both are gone", |s| {
        s["egress"].is_array() && s["outboundTrafficPolicy"].is_null()
    })
    .await
    .unwrap();
    let last = fixture.sidecar("shop", "front").await.unwrap();
    assert_eq!(mode(&json!(last.spec)), Value::Null);
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_s2_the_egress_proxy_of_an_inherited_sidecar_is_in_scope() {
    let text = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: inn}
spec:
  egress: [{hosts: ['*/*']}]
  outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: judge.court.svc.cluster.local, port: {number: 9191}}}
";
    let out = translated("egress", &format!("{text}{SERVICES}"), OFF).await;
    assert_eq!(entries(&out), ["court/judge.court.svc.cluster.local"]);
    let policy = &out.objects[0]["spec"]["outboundTrafficPolicy"];
    assert_eq!(
        policy["egressProxy"]["host"],
        "judge.court.svc.cluster.local"
    );
}

#[tokio::test]
async fn fault_s18_a_fence_of_gateways_is_refused() {
    let text = "
apiVersion: v1
kind: Pod
metadata: {name: desk-1, namespace: inn, labels: {app: desk, gateway.networking.k8s.io/gateway-name: desk}}
spec: {containers: [{name: istio-proxy, image: auto}]}
";
    let out = translated("gateway", &format!("{text}{SERVICES}"), OFF).await;
    assert!(out.objects.iter().all(|o| o["kind"] != "Sidecar"));
    assert!(
        out.refused
            .iter()
            .any(|r| r.contains("Programmed: Gateway") && r.contains("gateway")),
        "{:?}",
        out.refused
    );
    let bare = "
---
apiVersion: v1
kind: Pod
metadata: {name: desk-2, namespace: inn, labels: {app: desk}}
spec: {containers: [{name: app, image: app}]}
";
    let out = translated("some", &format!("{text}{bare}{SERVICES}"), OFF).await;
    assert_eq!(entries(&out), ["~/*"]);
    assert_eq!(out.refused, [""; 0]);
    assert!(told(&out, "1 of 2 pods obey no Sidecar"), "{:?}", out.notes);
    let host = text
        .replace("gateway.networking.k8s.io/gateway-name: desk", "part: two")
        .replace("{containers", "{hostNetwork: true, containers");
    let out = translated("host", &format!("{host}{SERVICES}"), OFF).await;
    assert!(
        out.refused
            .iter()
            .any(|r| r.contains("Programmed: NoSidecar")),
        "{:?}",
        out.refused
    );
}

#[tokio::test]
async fn fault_s9_hosts_that_only_istios_dns_knows() {
    let till = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: till, namespace: legacy}
spec:
  hosts: [till.inn.internal, '*.wild.internal']
  ports: [{number: 8080, name: http, protocol: HTTP}]
  resolution: DNS
  endpoints: [{address: till.example}]
";
    let out = translated("unknown", &format!("{till}{SERVICES}"), OFF).await;
    assert_eq!(entries(&out), ["~/*"]);
    assert!(told(&out, "legacy/till.inn.internal"), "{:?}", out.notes);
    let mesh = "
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: 'defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"true\"}}'
";
    let out = translated("captured", &format!("{till}{mesh}{SERVICES}"), OFF).await;
    assert_eq!(entries(&out), ["legacy/till.inn.internal"]);
    let key = "lazyload: {dnsHosts: false, fallback: {enabled: false}}";
    let out = translated("key", &format!("{till}{mesh}{SERVICES}"), key).await;
    assert_eq!(entries(&out), ["~/*"]);
    assert!(told(&out, "legacy/till.inn.internal"), "{:?}", out.notes);
    let plain = mesh.replace("\"true\"", "\"false\"");
    let out = translated("plain", &format!("{till}{plain}{SERVICES}"), OFF).await;
    assert!(!told(&out, "till.inn.internal"), "{:?}", out.notes);
}

/// Ports of the fallback's Service.
async fn ports(fixture: &Fixture, wanted: &[i32]) {
    wait_until("the ports of the fallback", BOUND, || async {
        let api: Api<Service> = Api::namespaced(fixture.api.client(), "istio-system");
        let service = api.get("global-sidecar").await.map_err(|e| e.to_string())?;
        let ports = service.spec.and_then(|s| s.ports).unwrap_or_default();
        let http = ports
            .iter()
            .filter(|p| p.name.as_deref().is_some_and(|n| n.starts_with("http")));
        let mut found: Vec<i32> = http.map(|p| p.port).collect();
        found.sort_unstable();
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
#[allow(
    clippy::too_many_lines,
    reason = "one mesh and what each of its parts must give"
)]
async fn fault_s10_what_is_carried_and_what_is_not() {
    let fixture = Fixture::shop();
    let on = |namespace: &str, name: &str, exports: &str, port: Value| {
        let mut object = service(namespace, name);
        object["metadata"]["annotations"] = json!({"networking.istio.io/exportTo": exports});
        object["spec"]["ports"] = json!([port]);
        object
    };
    fixture.put(on("data", "site", "*", json!({"port": 8000})));
    fixture.put(on(
        "attic",
        "diary",
        ".",
        json!({"name": "http", "port": 5432}),
    ));
    fixture.put(on(
        "stock",
        "db",
        "*",
        json!({"name": "tcp-sql", "port": 5432}),
    ));
    fixture.fallback(true);
    let operator = fixture.operator("{}").await;
    fixture.fence("shop", "front", json!({})).await;
    fixture
        .condition("shop", "front", "Programmed", "Programmed")
        .await;
    let own: i32 = service("shop", "front")["spec"]["ports"][0]["port"]
        .as_i64()
        .unwrap()
        .try_into()
        .unwrap();
    let mut wanted = vec![80, own, 8000];
    wanted.sort_unstable();
    wanted.dedup();
    ports(&fixture, &wanted).await;
    let says = |text: &'static str, there: bool| {
        fixture.status_where("shop", "front", text, move |status| {
            let ready = status
                .conditions
                .iter()
                .find(|c| c.type_ == "FallbackReady");
            ready.is_some_and(|c| c.message.contains(text) == there)
        })
    };
    says("but not to db.stock.svc.cluster.local:5432", true).await;
    // HTTP for all beside TCP: who may see the database calls it directly.
    fixture
        .apply(on(
            "attic",
            "diary",
            "*",
            json!({"name": "http", "port": 5432}),
        ))
        .await;
    wanted.push(5432);
    wanted.sort_unstable();
    ports(&fixture, &wanted).await;
    fixture
        .hosts_where("shop", "front", "the database is in scope", |hosts| {
            hosts.contains("stock/db.stock.svc.cluster.local")
        })
        .await;
    says("db.stock", false).await;
    operator.stop().await.unwrap();
}
