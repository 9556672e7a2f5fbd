//! VirtualServices of wildcards, and hosts that only a VirtualService has.

use crate::case::check;

/// `SUPPLIER` stands for a wildcard ServiceEntry and an egress gateway.
fn suppliers(text: &str) {
    let objects =
        "entry outside/supplier *.paper.example NONE TLS:443 HTTP:80\nservice exit/door tls:443";
    check(&text.replace("SUPPLIER", objects));
}

#[test]
fn fault_s4_a_learned_wildcard_brings_the_virtual_services_under_it() {
    for kind in ["tls", "http"] {
        for namespace in ["home", "third"] {
            for found in [
                "learned *.paper.example",
                "calls *.paper.example",
                "calls orders.paper.example",
                "learned orders.paper.example",
                "config {stableHost: ['*.paper.example']}",
                "config {stableHost: [exit/x.y], domainAliases: [{pattern: '^x.y$', templates: ['*.paper.example']}]}",
            ] {
                let more = if found.contains("x.y") {
                    "exit/x.y"
                } else {
                    ""
                };
                suppliers(&format!(
                    "{found}\nSUPPLIER
{kind} {namespace}/orders orders.paper.example -> door.exit.svc.cluster.local
= {namespace}/orders.paper.example outside/*.paper.example {more}"
                ));
            }
        }
    }
}

#[test]
fn fault_s4_others_are_not_added() {
    suppliers(
        "
learned *.paper.example
SUPPLIER
tls outside/orders orders.paper.example -> door.exit.svc.cluster.local
= outside/*.paper.example

learned *.paper.example
SUPPLIER
tls third/orders orders.ink.example -> door.exit.svc.cluster.local
yaml {kind: VirtualService, metadata: {namespace: third, name: own}, spec: {hosts: [a.paper.example], exportTo: [.], http: [{route: [{destination: {host: door.exit.svc.cluster.local}}]}]}}
yaml {kind: VirtualService, metadata: {namespace: third, name: gate}, spec: {hosts: [b.paper.example], gateways: [g], http: [{route: [{destination: {host: door.exit.svc.cluster.local}}]}]}}
= outside/*.paper.example

learned *.paper.example
SUPPLIER
http third/all *.example -> door.exit.svc.cluster.local
http third/one orders.paper.example -> door.exit.svc.cluster.local
= outside/*.paper.example third/*.paper.example

calls *.ink.paper.example
SUPPLIER
= outside/*.paper.example",
    );
}

/// Rules of TLS take the wildcard's own chain away, whichever of its hosts they are for.
#[test]
fn fault_s4_rules_of_another_host_change_the_connections_of_a_wildcard() {
    suppliers(
        "
calls shop.paper.example
SUPPLIER
tls third/orders orders.paper.example -> door.exit.svc.cluster.local
= outside/*.paper.example third/orders.paper.example",
    );
}

/// `FRONT` stands for a host that only a VirtualService has, with two destinations.
fn fronts(text: &str) {
    let front = "http hub/all books.shop.example -> covers.art.svc.cluster.local texts.print.svc.cluster.local";
    check(&text.replace("FRONT", front));
}

#[test]
fn fault_s13_a_front_without_a_service_has_the_listeners_of_its_destinations() {
    fronts(
        "
calls books.shop.example
FRONT
service art/covers http:80
service print/texts grpc:90
= art/covers.art.svc hub/books.shop.example print/texts.print.svc

learned books.shop.example
FRONT
service art/covers http:80
service print/texts http:80
= art/covers.art.svc hub/books.shop.example print/texts.print.svc

calls books.shop.example
http hub/all *.shop.example -> covers.art.svc.cluster.local
service art/covers http:80
= art/covers.art.svc hub/books.shop.example

learned *.shop.example
http hub/all *.shop.example -> covers.art.svc.cluster.local
service art/covers http:80
= art/covers.art.svc hub/*.shop.example

calls books.shop.example
yaml {kind: VirtualService, metadata: {namespace: hub, name: all}, spec: {hosts: [books.shop.example], http: [{delegate: {name: rules, namespace: art}}]}}
yaml {kind: VirtualService, metadata: {namespace: art, name: rules}, spec: {http: [{route: [{destination: {host: covers}}]}]}}
service art/covers http:80
= art/covers.art.svc hub/books.shop.example

calls books.shop.example
yaml {kind: VirtualService, metadata: {namespace: hub, name: all}, spec: {hosts: [books.shop.example], http: [{match: [{port: 80}], route: [{destination: {host: covers.art.svc.cluster.local}}]}, {match: [{port: 90}], route: [{destination: {host: texts.print.svc.cluster.local}}]}]}}
service art/covers http:80
service print/texts http:90
= art/covers.art.svc hub/books.shop.example print/texts.print.svc

calls books.shop.example
http hub/all books.shop.example -> names.art.svc.cluster.local
alias art/names covers.art.svc.cluster.local
service art/covers http:80
= art/covers.art.svc art/names.art.svc hub/books.shop.example",
    );
}

#[test]
fn fault_s13_others_are_not_added() {
    fronts(
        "
calls books.shop.example
FRONT
service art/covers https:443
service print/texts tcp:90
= hub/books.shop.example
! no listener takes

calls books.shop.example
FRONT
service art/covers http:80
service print/texts tcp:90
= art/covers.art.svc hub/books.shop.example

calls books.shop.example
yaml {kind: VirtualService, metadata: {namespace: hub, name: all}, spec: {hosts: [books.shop.example], http: [{route: [{destination: {host: covers.art.svc.cluster.local}}], mirrors: [{destination: {host: texts.print.svc.cluster.local}}]}]}}
service art/covers http:80
service print/texts http:80
= art/covers.art.svc hub/books.shop.example

calls books.shop.example
FRONT
entry edge/own books.shop.example DNS HTTP:80
service art/covers http:80
service print/texts http:80
= edge/books.shop.example hub/books.shop.example",
    );
}

#[test]
fn fault_s13_the_ports_of_the_fallback_have_listeners() {
    let fallback = "
calls books.shop.example
fallback global-sidecar.istio-system.svc.cluster.local
FRONT
service art/covers http:80
service print/texts http:90";
    let global = "istio-system/global-sidecar.istio-system.svc";
    for (ports, more) in [
        ("http-80:80 http-90:90", ""),
        ("http-80:80", "print/texts.print.svc"),
        ("tcp-80:80", "art/covers.art.svc print/texts.print.svc"),
    ] {
        fronts(&format!(
            "{}\nservice istio-system/global-sidecar {ports}\n= {global} hub/books.shop.example {more}",
            fallback.trim()
        ));
    }
}
