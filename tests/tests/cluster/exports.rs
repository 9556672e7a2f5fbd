//! Who sees objects without `exportTo`, by the MeshConfig: what istiod sends to proxies against Trimtab's rule.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::Api;
use serde_json::{Value, json};
use trimtab_cluster::{Istiod, Minor, Namespace, Proxy};
use trimtab_crds::istio::{DestinationRule, VirtualService};
use trimtab_mesh::{Mesh, model};

use crate::fixture::cluster;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: silent, namespace: NAMESPACE}
spec: {selector: {app: silent}, ports: [{name: http, port: 8071}]}
---
apiVersion: v1
kind: Service
metadata: {name: open, namespace: NAMESPACE, annotations: {networking.istio.io/exportTo: "*"}}
spec: {selector: {app: open}, ports: [{name: http, port: 8071}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: marked, namespace: NAMESPACE}
spec:
  hosts: [open.NAMESPACE.svc.cluster.local]
  http: [{name: marked-by-NAMESPACE, route: [{destination: {host: open.NAMESPACE.svc.cluster.local}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: marked, namespace: NAMESPACE}
spec: {host: open.NAMESPACE.svc.cluster.local, subsets: [{name: marked, labels: {app: open}}]}
"#;

/// What a proxy has of the Service `silent`, and of the VirtualService and the DestinationRule of `open`.
fn sent(dump: &Value, owner: &str) -> Result<[bool; 3], String> {
    let text = dump.to_string();
    // The Service that all see is there: so are the others, if they come at all.
    let cluster = format!("outbound|8071||open.{owner}.svc.cluster.local");
    let route = format!("open.{owner}.svc.cluster.local:8071");
    if !text.contains(&cluster) || !text.contains(&route) {
        return Err(format!("no cluster {cluster}, or no virtual host {route}"));
    }
    Ok([
        format!("outbound|8071||silent.{owner}."),
        format!("marked-by-{owner}"),
        format!("outbound|8071|marked|open.{owner}."),
    ]
    .map(|part| text.contains(&part)))
}

/// The same by Trimtab's rule, from the objects as the API server has them.
async fn predicted(mesh_config: &Value, owner: &Namespace<'_>, client: &str) -> [bool; 3] {
    let mesh = Mesh::new("");
    mesh.table::<model::MeshConfig>().follow(&mesh);
    mesh.put::<model::MeshConfig>(ConfigMap {
        data: Some([("mesh".to_owned(), mesh_config.to_string())].into()),
        ..ConfigMap::default()
    });
    let (name, from) = (owner.name(), owner.client().clone());
    let silent: Api<Service> = Api::namespaced(from.clone(), name);
    mesh.put::<model::Service>(silent.get("silent").await.unwrap());
    let routes: Api<VirtualService> = Api::namespaced(from.clone(), name);
    mesh.put::<model::VirtualService>(routes.get("marked").await.unwrap());
    let rules: Api<DestinationRule> = Api::namespaced(from, name);
    mesh.put::<model::DestinationRule>(rules.get("marked").await.unwrap());
    let silent: Arc<model::Service> = mesh.table().get(name, "silent").unwrap();
    let route: Arc<model::VirtualService> = mesh.table().get(name, "marked").unwrap();
    let rule: Arc<model::DestinationRule> = mesh.table().get(name, "marked").unwrap();
    [&silent.exports, &route.exports, &rule.exports].map(|e| e.visible(name, client))
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_of_exports_hide_what_istiod_hides() {
    let cluster = cluster().await;
    let owner = Namespace::create(cluster, "exports-own").await.unwrap();
    let other = Namespace::create(cluster, "exports-other").await.unwrap();
    owner.apply(OBJECTS).await.unwrap();
    let pods = [
        owner.pod("client-0", &[("app", "client")]).await.unwrap(),
        other.pod("client-0", &[("app", "client")]).await.unwrap(),
    ];
    let all = |list: &[&str]| {
        json!({"defaultServiceExportTo": list, "defaultVirtualServiceExportTo": list,
            "defaultDestinationRuleExportTo": list})
    };
    let (own, everybody) = ([true; 3], [true; 3]);
    for (config, expected) in [
        (json!({}), [own, everybody]),
        (all(&["."]), [own, [false; 3]]),
        (all(&["*", "."]), [own, [true, true, false]]),
        (all(&[other.name()]), [[false, false, true], [true; 3]]),
    ] {
        let istiod = Istiod::start_with(cluster, Minor::Newest, &config)
            .await
            .unwrap();
        for (pod, expected) in pods.iter().zip(expected) {
            let proxy = Proxy::start(cluster, &istiod, pod).await.unwrap();
            let sent = proxy
                .wait_config("clusters and routes", |dump| sent(dump, owner.name()))
                .await
                .unwrap();
            let what = format!("{config} from {}", pod.namespace);
            assert_eq!(sent, expected, "istiod: {what}");
            let ours = predicted(&config, &owner, &pod.namespace).await;
            assert_eq!(ours, sent, "Trimtab: {what}");
        }
    }
}
