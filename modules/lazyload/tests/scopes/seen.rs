//! What is written with its namespace.

use crate::case::{Case, check};

#[test]
fn fault_s12_a_namespace_is_written_as_it_stands() {
    let text = "
namespaces books overseas
calls attic/*
service books/shelf http:80
= attic/* books/* overseas/*
! attic
! overseas";
    check(text);
    let size = Case::of(text).scope().size;
    assert_eq!((size.services, size.mesh_services), (1, 1));
    check(
        "
calls ./*
= home/*

config {stableHost: [overseas/*, registry/a.b]}
= overseas/* registry/a.b

namespaces overseas
entry overseas/a a.sea.example DNS HTTP:80
service books/shelf http:80
http hub/sea a.sea.example -> shelf.books.svc.cluster.local
= hub/a.sea.example overseas/*",
    );
}

#[test]
fn fault_s12_a_host_with_its_namespace_is_written_as_it_stands() {
    check(
        "
calls registry/shop.stock.api.counting overseas/*.sea.example books/far.books.svc.cluster.local
service books/shelf http:80
= books/far.books.svc overseas/*.sea.example registry/shop.stock.api.counting
! imported if istiod has it

calls */shop.stock.api.counting */shelf.books.svc.cluster.local
service books/shelf http:80
= */shop.stock.api.counting books/shelf.books.svc

calls shelf.books.svc.clusterset.local
= books/shelf.books.svc.clusterset.local

calls attic/shelf.books.svc.cluster.local
service books/shelf http:80
= attic/shelf.books.svc
! namespace attic

calls books/shelf
service books/shelf http:80
= books/shelf.books.svc

calls edge/a.api.example
entry edge/api *.api.example NONE TLS:443
= edge/*.api.example

calls overseas/*.sea.example
service books/shelf http:80
http hub/sea a.sea.example -> shelf.books.svc.cluster.local
http overseas/sea b.sea.example -> shelf.books.svc.cluster.local
= books/shelf.books.svc hub/a.sea.example overseas/*.sea.example

learned shop.stock.api.counting
= ~/*",
    );
}
