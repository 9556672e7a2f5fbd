use std::sync::Arc;

use serde_json::{Value, json};
use trimtab_crds::gateway_api;

use super::{GrpcRoute, HttpRoute};
use crate::Mesh;
use crate::model::route::{Part, Test};
use crate::model::{RouteKind, VirtualService};

fn http(spec: &Value) -> Option<Arc<HttpRoute>> {
    let mesh = Mesh::new("");
    let object = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "try", "namespace": "home"}, "spec": spec});
    let object: gateway_api::HttpRoute = serde_json::from_value(object).expect("an HTTPRoute");
    mesh.put::<HttpRoute>(object);
    mesh.table::<HttpRoute>().get("home", "try")
}

fn grpc(spec: &Value) -> Option<Arc<GrpcRoute>> {
    let mesh = Mesh::new("");
    let object = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute",
        "metadata": {"name": "try", "namespace": "home"}, "spec": spec});
    let object: gateway_api::GrpcRoute = serde_json::from_value(object).expect("a GRPCRoute");
    mesh.put::<GrpcRoute>(object);
    mesh.table::<GrpcRoute>().get("home", "try")
}

fn shelf(port: Option<u16>) -> Value {
    json!([{"group": "", "kind": "Service", "name": "shelf", "namespace": "books", "port": port}])
}

fn hosts(route: &VirtualService) -> Vec<&str> {
    route.destinations.iter().map(|host| &**host).collect()
}

#[test]
fn fault_s11_a_route_of_a_service_is_a_virtual_service() {
    let route = http(&json!({"parentRefs": shelf(Some(80)), "rules": [{
        "matches": [{"path": {"type": "PathPrefix", "value": "/new/"}}, {"headers": [{"name": "a", "value": "b"}]}],
        "filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "copy", "port": 80}}}],
        "backendRefs": [{"name": "next", "namespace": "books", "port": 80}, {"name": "none", "port": 80, "weight": 0}],
    }]}));
    let route = route.expect("a route");
    let [service] = &*route.services else {
        panic!("{route:?}")
    };
    assert_eq!(service.kind, RouteKind::HttpRoute);
    assert_eq!(&*service.hosts[0], "shelf.books.svc.cluster.local");
    assert_eq!(
        hosts(service),
        [
            "copy.home.svc.cluster.local",
            "next.books.svc.cluster.local"
        ],
        "a backend without a share is none"
    );
    assert_eq!(service.http.len(), 2, "one rule for each match");
    let first = &service.http[0].matches[0];
    assert_eq!(first.source.port, Some(80));
    assert_eq!(first.request[&Part::Uri], Test::Prefix("/new".into()));
}

#[test]
fn fault_s11_parents_that_are_no_services_count_for_nothing() {
    let rules = json!([{"backendRefs": [{"name": "next", "port": 80}]}]);
    for parent in [
        json!({"name": "shelf"}),
        json!({"name": "shelf", "kind": "Service"}),
        json!({"name": "shelf", "kind": "Gateway", "group": "gateway.networking.k8s.io"}),
    ] {
        let spec = json!({"parentRefs": [parent], "rules": rules});
        assert_eq!(http(&spec), None, "{parent}");
    }
}

#[test]
fn fault_s11_what_istiod_refuses_is_no_route() {
    for rule in [
        json!({"filters": [{"type": "ExtensionRef"}], "backendRefs": [{"name": "next", "port": 80}]}),
        json!({"backendRefs": [{"name": "next.books", "port": 80}]}),
        json!({"backendRefs": [{"name": "next"}]}),
        json!({"backendRefs": [{"name": "next", "port": 80, "filters": [{"type": "RequestMirror"}]}]}),
    ] {
        let spec = json!({"parentRefs": shelf(None), "rules": [rule]});
        assert_eq!(http(&spec), None, "{rule}");
    }
}

#[test]
fn fault_s11_a_grpc_route_is_one_too() {
    let route = grpc(&json!({"parentRefs": shelf(None), "rules": [{
        "matches": [{"method": {"service": "Shelf", "method": "Get"}}],
        "backendRefs": [{"name": "next", "namespace": "books", "port": 80}],
    }]}));
    let route = route.expect("a route");
    let rule = &route.services[0].http[0];
    assert_eq!(
        rule.matches[0].request[&Part::Uri],
        Test::Exact("/Shelf/Get".into())
    );
    assert_eq!(hosts(&route.services[0]), ["next.books.svc.cluster.local"]);
}
