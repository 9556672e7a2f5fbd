//! What rules of VirtualServices and routes of the Gateway API put into a scope.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a broken test must stop with its reason"
)]

#[allow(dead_code, reason = "other tests use the rest")]
mod mesh;

use mesh::Mesh;
use trimtab_lazyload::object::FenceKey;

/// Entries and the size of the scope of a fence `NAMESPACE/reader` over objects.
fn scope(namespace: &str, hosts: &str, objects: &str) -> (Vec<String>, String) {
    let text = format!(
        "apiVersion: microservice.slime.io/v1alpha1
kind: ServiceFence
metadata: {{name: reader, namespace: {namespace}}}
spec: {{enable: true, host: {hosts}}}
---
{objects}"
    );
    let mesh = Mesh::parse(&text).expect("a mesh");
    let index = mesh.index();
    let key = FenceKey {
        namespace: namespace.to_owned(),
        name: "reader".to_owned(),
    };
    let scope = mesh.part(&index, &key).expect("a fence").scope;
    let size = format!("{} of {}", scope.size.services, scope.size.mesh_services);
    (scope.entries.into_keys().collect(), size)
}

fn service(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}
---
"
    )
}

fn routes(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
---
"
    )
}

fn gateway_api(kind: &str, namespace: &str, parent: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: try-next, namespace: {namespace}}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: {parent}, namespace: books, port: 80}}]
  rules: {rules}
---
"
    )
}

const LAMP: &str = "hall/lamp.hall.svc.cluster.local";
const DIM: &str = "hall/dim-lamp.hall.svc.cluster.local";

fn hall(spec: &str) -> String {
    service("hall", "lamp") + &service("hall", "dim-lamp") + &routes("hall", "lamp", spec)
}

#[test]
fn fault_s6_a_rule_for_another_namespace_that_is_for_this_one_too() {
    let hosts = "{lamp.hall.svc.cluster.local: {}}";
    let both = hall(
        "{hosts: [lamp], http: [{match: [{sourceNamespace: attic}, {uri: {prefix: /dim}}], route: [{destination: {host: dim-lamp}}]}, {route: [{destination: {host: lamp}}]}]}",
    );
    let (entries, size) = scope("home", hosts, &both);
    assert_eq!(entries, [DIM, LAMP]);
    assert_eq!(size, "2 of 2");
    let (entries, size) = scope("attic", hosts, &both);
    assert_eq!(entries, [LAMP], "istiod brings the cluster by itself");
    assert_eq!(size, "2 of 2");
    let only = hall(
        "{hosts: [lamp], http: [{match: [{sourceNamespace: attic}], route: [{destination: {host: dim-lamp}}]}, {route: [{destination: {host: lamp}}]}]}",
    );
    let (entries, size) = scope("home", hosts, &only);
    assert_eq!(entries, [LAMP], "no route of home leads there");
    assert_eq!(size, "1 of 2");
}

#[test]
fn fault_s6_copies_weights_and_rules_that_nothing_reaches() {
    let hosts = "{lamp.hall.svc.cluster.local: {}}";
    let odd = "match: [{sourceNamespace: attic}, {uri: {prefix: /dim}}]";
    let to_lamp = "route: [{destination: {host: lamp}}]";
    let dim = "{destination: {host: dim-lamp}}";
    for (rules, needed) in [
        (
            format!("{{{odd}, {to_lamp}, mirror: {{host: dim-lamp}}}}"),
            true,
        ),
        (format!("{{{odd}, {to_lamp}, mirrors: [{dim}]}}"), true),
        (
            format!(
                "{{{odd}, {to_lamp}, mirror: {{host: dim-lamp}}, mirrorPercentage: {{value: 0}}}}"
            ),
            false,
        ),
        (
            format!(
                "{{{odd}, route: [{{destination: {{host: lamp}}, weight: 100}}, {{destination: {{host: dim-lamp}}, weight: 0}}]}}"
            ),
            false,
        ),
        (
            format!("{{{odd}, route: [{dim}], redirect: {{authority: a.example}}}}"),
            false,
        ),
        (format!("{{{to_lamp}}}, {{{odd}, route: [{dim}]}}"), false),
        (
            format!("{{match: [{{uri: {{prefix: /}}}}], {to_lamp}}}, {{{odd}, route: [{dim}]}}"),
            false,
        ),
    ] {
        let mesh = hall(&format!("{{hosts: [lamp], http: [{rules}]}}"));
        let (entries, _) = scope("home", hosts, &mesh);
        let all = [DIM, LAMP];
        assert_eq!(
            entries,
            if needed { &all[..] } else { &all[1..] },
            "{rules}"
        );
    }
}

#[test]
fn fault_s6_tcp_and_tls_bring_their_clusters_for_all_namespaces() {
    for kind in ["tcp", "tls"] {
        let rule = "{match: [{sourceNamespace: attic, sniHosts: [lamp.hall.svc.cluster.local]}], route: [{destination: {host: dim-lamp}}]}";
        let mesh = hall(&format!("{{hosts: [lamp], {kind}: [{rule}]}}"));
        let (entries, size) = scope("home", "{lamp.hall.svc.cluster.local: {}}", &mesh);
        assert_eq!(entries, [LAMP], "{kind}");
        assert_eq!(size, "2 of 2", "{kind}");
    }
}

#[test]
fn fault_s6_a_delegates_rule_too() {
    let delegate = routes(
        "rules",
        "dim",
        "{http: [{match: [{sourceNamespace: attic}, {uri: {prefix: /dim}}], route: [{destination: {host: dim-lamp.hall.svc.cluster.local}}]}]}",
    );
    let root = hall(
        "{hosts: [lamp], http: [{delegate: {name: dim, namespace: rules}}, {route: [{destination: {host: lamp}}]}]}",
    );
    let (entries, _) = scope(
        "home",
        "{lamp.hall.svc.cluster.local: {}}",
        &(root + &delegate),
    );
    assert_eq!(entries, [DIM, LAMP]);
}

#[test]
fn fault_s6_only_the_ports_that_a_route_names_count() {
    let wide = "apiVersion: v1
kind: Service
metadata: {name: wide, namespace: hall}
spec: {selector: {app: wide}, ports: [{name: http, port: 80}, {name: http-more, port: 8080}]}
---
";
    let bytes = |port: &str| {
        let spec = format!(
            "{{hosts: [lamp], http: [{{route: [{{destination: {{host: wide{port}}}}}]}}]}}"
        );
        let text = format!(
            "apiVersion: microservice.slime.io/v1alpha1
kind: ServiceFence
metadata: {{name: reader, namespace: home}}
spec: {{enable: true, host: {{lamp.hall.svc.cluster.local: {{}}}}}}
---
{}{wide}{}",
            service("hall", "lamp"),
            routes("hall", "lamp", &spec)
        );
        let mesh = Mesh::parse(&text).expect("a mesh");
        let index = mesh.index();
        let key = FenceKey {
            namespace: "home".to_owned(),
            name: "reader".to_owned(),
        };
        mesh.part(&index, &key).expect("a fence").scope.size.bytes
    };
    let (all, one, none) = (
        bytes(""),
        bytes(", port: {number: 80}"),
        bytes(", port: {number: 81}"),
    );
    assert!(all > one && one > none, "{all} {one} {none}");
}

#[test]
fn fault_s11_a_clients_own_route_of_the_gateway_api() {
    let rules = "[{backendRefs: [{name: shelf-next, namespace: books, port: 80}]}]";
    let own = "books/shelf.books.svc.cluster.local";
    let more = "home/shelf.books.svc.cluster.local";
    let hosts = "{shelf.books: {stable: {}}}";
    for kind in ["HTTPRoute", "GRPCRoute"] {
        let mesh = |owner: &str| {
            service("books", "shelf")
                + &service("books", "shelf-next")
                + &gateway_api(kind, owner, "shelf", rules)
        };
        let (entries, size) = scope("home", hosts, &mesh("home"));
        assert_eq!(entries, [own, more], "{kind}");
        assert_eq!(size, "2 of 2", "{kind}: the cluster comes by the route");
        let (entries, _) = scope("attic", hosts, &mesh("home"));
        assert_eq!(entries, [own], "{kind} of another namespace");
        let (entries, size) = scope("home", hosts, &mesh("books"));
        assert_eq!(
            entries,
            [own],
            "{kind} of the Service's namespace comes with it"
        );
        assert_eq!(size, "2 of 2", "{kind}");
    }
    let alone = service("books", "shelf") + &gateway_api("HTTPRoute", "home", "gone", rules);
    let (entries, _) = scope("home", "{gone.books.svc.cluster.local: {}}", &alone);
    assert_eq!(
        entries,
        ["books/gone.books.svc.cluster.local"],
        "the Service is not there"
    );
}

#[test]
fn fault_s17_a_wildcard_brings_no_namespace() {
    let mesh = |owner: &str, host: &str| {
        ["novels", "poems", "maps", "cards"]
            .map(|name| service("print", name))
            .concat()
            + &routes(
                owner,
                "timeouts",
                &format!(
                    "{{hosts: [\"{host}\"], http: [{{timeout: 5s, route: [{{destination: {{host: poems.print.svc.cluster.local}}}}]}}]}}"
                ),
            )
    };
    let novels = "print/novels.print.svc.cluster.local";
    let hosts = "{novels.print: {stable: {}}}";
    for host in [
        "*.print.svc.cluster.local",
        "*.svc.cluster.local",
        "*.cluster.local",
    ] {
        let (entries, size) = scope("home", hosts, &mesh("print", host));
        assert_eq!(entries, [novels], "{host}");
        assert_eq!(size, "2 of 4", "{host}");
        let (entries, size) = scope("home", hosts, &mesh("rules", host));
        assert_eq!(
            entries,
            [novels, "rules/novels.print.svc.cluster.local"],
            "{host}"
        );
        assert_eq!(size, "2 of 4", "{host}");
    }
}

#[test]
fn fault_s17_a_wildcard_over_exact_entries() {
    let entry = |name: &str| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: outside}}
spec: {{hosts: [{name}.example.com], resolution: DNS, ports: [{{number: 80, name: http, protocol: HTTP}}]}}
---
"
        )
    };
    let mesh = entry("one")
        + &entry("two")
        + &routes(
            "outside",
            "all",
            "{hosts: [\"*.example.com\"], http: [{timeout: 5s, route: [{destination: {host: one.example.com}}]}]}",
        );
    let (entries, size) = scope("home", "{two.example.com: {}}", &mesh);
    assert_eq!(entries, ["outside/two.example.com"]);
    assert_eq!(size, "2 of 2");
}
