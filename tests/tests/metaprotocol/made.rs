//! Objects as text, and what `translate` makes of them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use trimtab::{manifests, translate};
use trimtab_metaprotocol::module::Metaprotocol;

/// What `translate` makes of objects.
pub(crate) struct Made {
    /// Generated objects as `Kind namespace/name`.
    pub(crate) objects: Vec<String>,
    /// All of them, with what goes over xDS.
    pub(crate) text: String,
    pub(crate) refused: Vec<String>,
}

impl Made {
    pub(crate) fn has(&self, part: &str) -> bool {
        self.objects.iter().any(|o| o.contains(part))
    }

    /// One refusal has all the parts.
    pub(crate) fn told(&self, parts: &[&str]) {
        let has = |line: &String| parts.iter().all(|part| line.contains(part));
        assert!(
            self.refused.iter().any(has),
            "{parts:?}: {:#?}",
            self.refused
        );
    }

    pub(crate) fn quiet(&self) {
        assert_eq!(self.refused, [] as [String; 0]);
    }
}

pub(crate) async fn made_with(config: &str, objects: &str) -> Made {
    let mut configuration = translate::configuration(None).unwrap();
    configuration.edit::<Metaprotocol>(|c| *c = serde_saphyr::from_str(config).unwrap());
    let documents = manifests::parse(Path::new("test.yaml"), objects).unwrap();
    let passed = translate::pass(&documents, &BTreeMap::new(), &configuration).await;
    let (_, output) = passed.unwrap();
    let name = |o: &Value| {
        let text = |field: &str| o["metadata"][field].as_str().unwrap_or_default().to_owned();
        let kind = o["kind"].as_str().unwrap_or_default();
        format!("{kind} {}/{}", text("namespace"), text("name"))
    };
    let all = output.objects.iter().chain(&output.resources);
    Made {
        objects: output.objects.iter().map(name).collect(),
        text: all.map(Value::to_string).collect::<Vec<_>>().join("\n"),
        refused: output.refused,
    }
}

pub(crate) async fn made(objects: &str) -> Made {
    made_with("{}", objects).await
}

pub(crate) fn service(name: &str, namespace: &str, ip: &str, port: &str, number: u16) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{clusterIP: {ip}, selector: {{app: {name}}}, ports: [{{name: {port}, port: {number}}}]}}\n"
    )
}

/// `day`: when it was made; 0: not known.
pub(crate) fn object(kind: &str, name: &str, namespace: &str, day: u8, spec: &str) -> String {
    let group = match kind {
        "MetaRouter" => "metaprotocol.aeraki.io/v1alpha1",
        "DubboAuthorizationPolicy" => "dubbo.aeraki.io/v1alpha1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        "Service" => "v1",
        redis if redis.starts_with("Redis") => "redis.aeraki.io/v1alpha1",
        _ => "networking.istio.io/v1",
    };
    let created = if day > 0 {
        format!(", creationTimestamp: \"2026-03-{day:02}T00:00:00Z\"")
    } else {
        String::new()
    };
    format!(
        "---\napiVersion: {group}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}{created}}}\n{spec}\n"
    )
}

pub(crate) fn entry(name: &str, namespace: &str, day: u8, addresses: &str, more: &str) -> String {
    let spec = format!(
        "spec: {{hosts: [{name}.{namespace}.example], addresses: {addresses}, resolution: STATIC, {more}\
         ports: [{{number: 7001, name: tcp-metaprotocol-thrift, protocol: TCP}}], endpoints: [{{address: 10.66.0.9}}]}}"
    );
    object("ServiceEntry", name, namespace, day, &spec)
}

pub(crate) fn router(host: &str, namespace: &str, day: u8, more: &str) -> String {
    let spec = format!(
        "spec: {{hosts: ['{host}'], {more}routes: [{{name: all, route: [{{destination: {{host: sink.kiosk.svc.cluster.local}}}}]}}]}}"
    );
    object("MetaRouter", "grab", namespace, day, &spec)
}
