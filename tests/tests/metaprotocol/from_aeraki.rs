//! What comes from Aeraki's installation: its CRDs, and the settings of the mesh.

use std::path::Path;
use std::time::Duration;

use kube::Api;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::manifests::{self, Document};
use trimtab::operator::Operator;
use trimtab::translate;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_embedded::Embedded;
use trimtab_lab::process::wait_until;

const BOUND: Duration = Duration::from_secs(60);

fn config(more: &str) -> Config {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::parse(more).unwrap();
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    config
}

/// An API server with Aeraki's CRD of ApplicationProtocol.
fn with_aerakis_crd() -> Embedded {
    let embedded = Embedded::new();
    let ours = trimtab_crds::manifests::trimtab_crds()
        .into_iter()
        .map(|(_, crd)| crd);
    for mut crd in ours.chain(trimtab_crds::manifests::istio_crds()) {
        if crd.spec.names.kind == "ApplicationProtocol" {
            "Namespaced".clone_into(&mut crd.spec.scope);
        }
        embedded.install_crd(&crd).unwrap();
    }
    embedded
}

#[tokio::test]
async fn fault_m17_namespaced_protocols_of_aerakis_crd_are_read() {
    let embedded = with_aerakis_crd();
    for object in [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "default"},
            "spec": {"clusterIP": "10.20.0.9", "selector": {"app": "a"}, "ports": [{"name": "tcp-metaprotocol-own", "port": 9000}]}}),
        json!({"apiVersion": "metaprotocol.aeraki.io/v1alpha1", "kind": "ApplicationProtocol",
            "metadata": {"name": "own", "namespace": "istio-system"}, "spec": {"protocol": "own", "codec": "own.codec"}}),
    ] {
        embedded.load(object).unwrap();
    }
    let operator = Operator::start(
        config("metaprotocol: {dataPlane: Aeraki}"),
        embedded.client(),
        CancellationToken::new(),
    )
    .await
    .unwrap();
    let kind = GroupVersionKind::gvk("metaprotocol.aeraki.io", "v1alpha1", "ApplicationProtocol");
    let protocols: Api<DynamicObject> = Api::namespaced_with(
        embedded.client(),
        "istio-system",
        &ApiResource::from_gvk(&kind),
    );
    wait_until("a status, and filters with the codec", BOUND, || async {
        let status = protocols.get("own").await.map_err(|e| e.to_string())?.data["status"].clone();
        let filters: Api<EnvoyFilter> = Api::all(embedded.client());
        let filters = filters
            .list(&<_>::default())
            .await
            .map_err(|e| e.to_string())?;
        let text = serde_json::to_string(&filters.items).map_err(|e| e.to_string())?;
        if status["conditions"][0]["status"] == "True" && text.contains("own.codec") {
            Ok(())
        } else {
            Err(format!("{status} {text}"))
        }
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
}

const PROTOCOL: &str = "apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {clusterIP: 10.20.0.9, selector: {app: a}, ports: [{name: tcp-metaprotocol-dubbo, port: 9000}]}
";

/// Output with a MeshConfig in the ConfigMap, and a configuration.
async fn translated(mesh: Option<(&str, &str)>, more: &str) -> String {
    let mut documents = manifests::parse(Path::new("in.yaml"), PROTOCOL).unwrap();
    if let Some((name, text)) = mesh {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "istio-system"}, "data": {"mesh": text}});
        documents.push(Document::new("istio.yaml", map));
    }
    let mut config = config(more);
    "trimtab.istio-system.svc:15010".clone_into(&mut config.xds.advertise);
    let (_, output) = translate::pass(&documents, &<_>::default(), &config)
        .await
        .unwrap();
    assert_eq!(output.refused, Vec::<String>::new());
    translate::print(&output, true, true).unwrap()
}

const AERAKI: &str = "metaprotocol: {dataPlane: Aeraki";

#[tokio::test]
async fn fault_m20_access_logs_and_traces_are_those_of_the_mesh() {
    let mesh = "accessLogFile: /dev/stdout\naccessLogEncoding: JSON\naccessLogFormat: '{\"mine\": \"%DURATION%\"}'\nenableTracing: true\ndefaultConfig: {tracing: {sampling: 12.5}}\nrootNamespace: istio-config\n";
    let none = translated(None, &format!("{AERAKI}}}")).await;
    assert!(
        !none.contains("accessLog") && !none.contains("tracing"),
        "{none}"
    );
    assert!(none.contains("\"namespace\": \"istio-system\""));

    let read = translated(Some(("istio", mesh)), &format!("{AERAKI}}}")).await;
    for part in [
        "/dev/stdout",
        "%DURATION%",
        "\"jsonFormat\"",
        "\"mine\"",
        "12.5",
        "\"namespace\": \"istio-config\"",
    ] {
        assert!(read.contains(part), "no {part} in {read}");
    }
    assert!(!read.contains("\"namespace\": \"istio-system\""), "{read}");

    let own = "accessLog: {path: /var/log/own}, tracing: {sampling: 3}, rootNamespace: elsewhere";
    let own = translated(Some(("istio", mesh)), &format!("{AERAKI}, {own}}}")).await;
    for part in ["/var/log/own", "\"namespace\": \"elsewhere\""] {
        assert!(own.contains(part), "no {part} in {own}");
    }
    assert!(!own.contains("/dev/stdout") && !own.contains("12.5") && !own.contains("istio-config"));

    let off = translated(
        Some(("istio", mesh)),
        &format!("{AERAKI}, accessLog: {{path: ''}}, tracing: {{sampling: 0}}}}"),
    )
    .await;
    assert!(!off.contains("accessLog") && !off.contains("12.5"), "{off}");

    for (name, more) in [
        (
            "istio-canary",
            "mesh: {configMap: istio-system/istio-canary}",
        ),
        ("istio", ""),
    ] {
        let found = translated(Some((name, mesh)), &format!("{AERAKI}}}\n{more}")).await;
        assert_eq!(found, read, "{name}");
    }
    for (name, more) in [("istio-canary", ""), ("istio", "mesh: {configMap: ''}")] {
        let found = translated(Some((name, mesh)), &format!("{AERAKI}}}\n{more}")).await;
        assert_eq!(found, none, "{name}");
    }
    assert!(
        Config::parse("mesh: {configMap: istio}")
            .is_err_and(|e| e.to_string().contains("mesh.configMap"))
    );
}

#[tokio::test]
async fn fault_m20_a_changed_mesh_config_is_followed() {
    let embedded = trimtab::standalone::embedded().unwrap();
    for document in manifests::parse(Path::new("in.yaml"), PROTOCOL).unwrap() {
        trimtab::standalone::load(&embedded, &document).unwrap();
    }
    let map = |text: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": text}});
    embedded.load(map("accessLogFile: /first")).unwrap();
    let operator = Operator::start(
        config(&format!("{AERAKI}}}")),
        embedded.client(),
        CancellationToken::new(),
    )
    .await
    .unwrap();
    let filters: Api<EnvoyFilter> = Api::all(embedded.client());
    let logs_to = |path: &'static str| {
        let filters = filters.clone();
        wait_until(path, BOUND, move || {
            let filters = filters.clone();
            async move {
                let list = filters
                    .list(&<_>::default())
                    .await
                    .map_err(|e| e.to_string())?;
                let text = serde_json::to_string(&list.items).map_err(|e| e.to_string())?;
                let other = ["/first", "/second"]
                    .into_iter()
                    .any(|p| p != path && text.contains(p));
                if text.contains(path) && !other {
                    Ok(())
                } else {
                    Err(text)
                }
            }
        })
    };
    logs_to("/first").await.unwrap();
    embedded.load(map("accessLogFile: /second")).unwrap();
    logs_to("/second").await.unwrap();
    // What istiod could not read either changes nothing.
    embedded.load(map("accessLogFile: [")).unwrap();
    embedded.load(map("accessLogFile: /first")).unwrap();
    logs_to("/first").await.unwrap();
    operator.stop().await.unwrap();
}

/// Largest numbers of items, by the path of the list in the schema.
fn bound(kind: &str, path: &[&str], keyword: &str) -> Value {
    let (_, crd) = trimtab_crds::manifests::trimtab_crds()
        .into_iter()
        .find(|(_, crd)| crd.spec.names.kind == kind)
        .unwrap();
    let schema = crd.spec.versions[0]
        .schema
        .as_ref()
        .and_then(|s| s.open_api_v3_schema.as_ref());
    let mut node = serde_json::to_value(schema).unwrap()["properties"]["spec"].clone();
    for step in path {
        node = match *step {
            "[]" => node["items"].clone(),
            field => node["properties"][field].clone(),
        };
    }
    node[keyword].clone()
}

#[test]
fn limits_on_sizes_are_those_of_the_page() {
    for (kind, path, keyword, limit) in [
        ("MetaRouter", &["routes"][..], "maxItems", 256),
        ("MetaRouter", &["gateways"], "maxItems", 64),
        ("MetaRouter", &["exportTo"], "maxItems", 64),
        ("MetaRouter", &["routes", "[]", "route"], "maxItems", 16),
        (
            "MetaRouter",
            &["routes", "[]", "match", "attributes"],
            "maxProperties",
            32,
        ),
        (
            "MetaRouter",
            &["routes", "[]", "requestMutation"],
            "maxItems",
            64,
        ),
        ("RedisService", &["host"], "maxItems", 64),
        ("RedisService", &["redis"], "maxItems", 256),
        ("RedisService", &["faults"], "maxItems", 64),
        ("DubboAuthorizationPolicy", &["rules"], "maxItems", 64),
    ] {
        assert_eq!(bound(kind, path, keyword), limit, "{kind} {path:?}");
    }
}

/// What Aeraki wrote under the name that is ours now is taken over in place; what somebody else wrote is not.
#[tokio::test]
async fn fault_o19_objects_that_aeraki_wrote_are_taken_over() {
    let embedded = with_aerakis_crd();
    let outbound = "aeraki-outbound-a.default.svc.cluster.local-10.20.0.9-9000";
    let inbound = "aeraki-inbound-a.default.svc.cluster.local-9000";
    for object in [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "default"},
            "spec": {"clusterIP": "10.20.0.9", "selector": {"app": "a"}, "ports": [{"name": "tcp-metaprotocol-dubbo", "port": 9000}]}}),
        json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
            "metadata": {"name": outbound, "namespace": "istio-system", "labels": {"manager": "Aeraki"}}, "spec": {}}),
        json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
            "metadata": {"name": inbound, "namespace": "default", "labels": {"manager": "me"}}, "spec": {}}),
    ] {
        embedded.load(object).unwrap();
    }
    let operator = Operator::start(
        config("metaprotocol: {dataPlane: Aeraki}"),
        embedded.client(),
        CancellationToken::new(),
    )
    .await
    .unwrap();
    wait_until("the filter is Trimtab's", BOUND, || async {
        let filters: Api<EnvoyFilter> = Api::namespaced(embedded.client(), "istio-system");
        let filter = filters.get(outbound).await.map_err(|e| e.to_string())?;
        let labels = filter.metadata.labels.unwrap_or_default();
        if labels.contains_key("app.kubernetes.io/managed-by")
            && !filter.spec.config_patches.is_empty()
        {
            Ok(())
        } else {
            Err(format!("{labels:?}"))
        }
    })
    .await
    .unwrap();
    let filters: Api<EnvoyFilter> = Api::namespaced(embedded.client(), "default");
    let other = filters.get(inbound).await.unwrap();
    assert!(other.spec.config_patches.is_empty(), "{other:?}");
    operator.stop().await.unwrap();
}
