//! ExternalNames.

use crate::case::{Case, check};

/// `CATALOG` stands for a Service whose route leads to the ExternalName `index`.
fn catalogs(text: &str) {
    let objects = "calls catalog.books
service books/catalog http:80
alias books/index blue.art.svc.cluster.local
service art/blue http:80";
    check(&text.replace("CATALOG", objects));
}

#[test]
fn fault_s5_a_route_to_an_external_name_brings_it_and_its_target() {
    let wanted = "= art/blue.art.svc books/catalog.books.svc books/index.books.svc";
    for route in [
        "http books/catalog catalog -> index",
        "http books/catalog *.books.svc.cluster.local -> index",
        "http books/catalog catalog -> catalog index",
        "tcp books/catalog catalog -> index",
        "tls books/catalog catalog -> index",
        "yaml {kind: VirtualService, metadata: {namespace: books, name: c}, spec: {hosts: [catalog], http: [{route: [{destination: {host: catalog}}], mirror: {host: index}}]}}",
        "yaml {kind: VirtualService, metadata: {namespace: books, name: c}, spec: {hosts: [catalog], http: [{delegate: {name: rules}}]}}
yaml {kind: VirtualService, metadata: {namespace: books, name: rules}, spec: {http: [{route: [{destination: {host: index}}]}]}}",
    ] {
        catalogs(&format!("CATALOG\n{route}\n{wanted}"));
    }
    catalogs(
        "
CATALOG
http hub/catalog catalog.books.svc.cluster.local -> index.books.svc.cluster.local
= art/blue.art.svc books/catalog.books.svc books/index.books.svc hub/catalog.books.svc",
    );
    let text = "calls catalog.books
service books/catalog http:80
http books/catalog catalog -> index
alias books/index blue.books.svc.cluster.local
service books/blue http:80";
    let size = Case::of(text).scope().size;
    let services = (size.services, size.mesh_services);
    assert_eq!(services, (2, 2), "an ExternalName is no service");
}

#[test]
fn fault_s5_what_does_not_help_is_not_added() {
    catalogs(
        "
CATALOG
yaml {kind: VirtualService, metadata: {namespace: books, name: c}, spec: {hosts: [catalog], http: [{route: [{destination: {host: catalog}, weight: 100}, {destination: {host: index}, weight: 0}]}]}}
= books/catalog.books.svc

CATALOG
yaml {kind: VirtualService, metadata: {namespace: books, name: c}, spec: {hosts: [catalog], http: [{match: [{sourceNamespace: attic}], route: [{destination: {host: index}}]}]}}
= books/catalog.books.svc

calls catalog.books
service books/catalog http:80
http books/catalog catalog -> index
alias books/index nobody.example
= books/catalog.books.svc

calls catalog.books
service books/catalog http:80
http books/catalog catalog -> index
alias books/index next.books.svc.cluster.local
alias books/next blue.books.svc.cluster.local
service books/blue http:80
= books/catalog.books.svc
! Istio follows one step only",
    );
}

#[test]
fn fault_s7_an_external_name_is_in_by_the_namespace_of_its_target() {
    for target in [
        "prices.head.svc.cluster.local",
        "prices.head.svc.cluster.local.",
        "Prices.head.svc.cluster.local",
        "prices.head",
        "prices.head.svc",
    ] {
        for found in ["calls rates", "learned rates.home.svc.cluster.local"] {
            check(&format!(
                "{found}
alias home/rates {target}
service head/prices http:80
= head/prices.head.svc head/rates.home.svc"
            ));
        }
    }
    check(
        "
calls rates
alias home/rates prices
service home/prices http:80
= home/prices.home.svc home/rates.home.svc

calls rates
alias home/rates api.example
entry edge/api api.example DNS HTTP:80
= edge/api.example edge/rates.home.svc

calls rates
alias home/rates prices.head.svc.cluster.local
= head/prices.head.svc head/rates.home.svc

calls one.a1
alias a1/one two.a2.svc.cluster.local
alias a2/two covers.art.svc.cluster.local
service art/covers http:80
= art/covers.art.svc art/one.a1.svc

calls one.a1
alias a1/one two.a2.svc.cluster.local
alias a2/two one.a1.svc.cluster.local
= ~/*
! leads back to itself",
    );
}

#[test]
fn fault_s7_virtual_services_of_either_name_are_in() {
    check(
        "
calls rates.branch
alias branch/rates prices.head.svc.cluster.local
service head/prices http:80
http hub/prices prices.head.svc.cluster.local -> dear.shop.svc.cluster.local
= head/prices.head.svc head/rates.branch.svc hub/prices.head.svc

calls rates.branch
alias branch/rates prices.head.svc.cluster.local
service head/prices http:80
http branch/rates rates -> dear.shop.svc.cluster.local
= branch/rates.branch.svc head/prices.head.svc head/rates.branch.svc

calls rates.branch
alias branch/rates prices.head.svc.cluster.local
service head/prices http:80
http hub/rates rates.branch.svc.cluster.local -> dear.shop.svc.cluster.local
= branch/rates.branch.svc head/prices.head.svc head/rates.branch.svc hub/rates.branch.svc

calls rates.branch till.branch
alias branch/rates prices.head.svc.cluster.local
service head/prices http:80
service branch/till http:80
http branch/till till -> rates
= branch/rates.branch.svc branch/till.branch.svc head/prices.head.svc head/rates.branch.svc",
    );
}

#[test]
fn fault_s7_a_whole_namespace_has_its_names_and_lends_them() {
    check(
        "
namespaces branch
alias branch/rates prices.head.svc.cluster.local
service head/prices http:80
= branch/* head/prices.head.svc head/rates.branch.svc

namespaces head
calls rates.branch
alias branch/rates prices.head.svc.cluster.local
service head/prices http:80
= head/*

calls */*
alias branch/rates prices.head.svc.cluster.local
= */*",
    );
}
