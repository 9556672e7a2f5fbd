//! Services that share a TCP port with a ServiceEntry without an address.

use crate::case::{Case, check};

const BANK: &str = "calls ledger.bank.example\nentry till/ledger ledger.bank.example";

/// `BANK` stands for the fence and the ServiceEntry.
fn banks(text: &str) {
    check(&text.replace("BANK", BANK));
}

#[test]
fn fault_s1_a_service_entry_without_an_address_brings_those_of_its_tcp_port() {
    banks(
        "
BANK DNS TCP:5432
service stock/stockdb tcp-sql:5432 @10.96.0.40
service stock/cache tcp-sql:6379 @10.96.0.41
= stock/stockdb.stock.svc till/ledger.bank.example

BANK DNS_ROUND_ROBIN TCP:5432
service stock/stockdb tcp-sql:5432
= stock/stockdb.stock.svc till/ledger.bank.example

BANK STATIC TCP:5432
service stock/stockdb tls-sql:5432
= stock/stockdb.stock.svc till/ledger.bank.example

BANK DNS MONGO:27017
service stock/stockdb mongo:27017
= stock/stockdb.stock.svc till/ledger.bank.example

BANK DNS REDIS:6379
service stock/stockdb redis:6379
= stock/stockdb.stock.svc till/ledger.bank.example

BANK DNS MYSQL:3306
service stock/stockdb mysql:3306
= stock/stockdb.stock.svc till/ledger.bank.example

BANK DNS TCP:5432 TCP:6000
service stock/stockdb sql:5432
service stock/otherdb tcp:6000
= stock/otherdb.stock.svc stock/stockdb.stock.svc till/ledger.bank.example

BANK DNS TCP:5432
entry stock/a a.example NONE TCP:5432 @10.7.0.1
entry stock/b b.example NONE TCP:5432 @10.8.0.0/16
= stock/a.example stock/b.example till/ledger.bank.example",
    );
}

#[test]
fn fault_s1_however_the_service_entry_came_into_scope() {
    check(
        "
learned ledger.bank.example
entry till/ledger ledger.bank.example DNS TCP:5432
service stock/stockdb tcp-sql:5432
= stock/stockdb.stock.svc till/ledger.bank.example

config {stableHost: [ledger.bank.example]}
entry till/ledger ledger.bank.example DNS TCP:5432
service stock/stockdb tcp-sql:5432
= stock/stockdb.stock.svc till/ledger.bank.example

namespaces till
entry till/ledger ledger.bank.example DNS TCP:5432
service stock/stockdb tcp-sql:5432
= stock/stockdb.stock.svc till/*

calls till/*.bank.example
entry till/ledger ledger.bank.example DNS TCP:5432
service stock/stockdb tcp-sql:5432
= stock/stockdb.stock.svc till/*.bank.example

calls ledger.bank.example
fallback global-sidecar.istio-system.svc.cluster.local
entry till/ledger ledger.bank.example DNS TCP:5432
service stock/stockdb tcp-sql:5432
= istio-system/global-sidecar.istio-system.svc stock/stockdb.stock.svc till/ledger.bank.example",
    );
}

#[test]
fn fault_s1_others_are_not_added() {
    banks(
        "
BANK DNS TCP:5432
service stock/other tcp-sql:5433
service stock/web http-sql:5432
service stock/headless tcp-sql:5432 @None
alias stock/alias db.example
entry stock/alike alike.example DNS TCP:5432
= till/ledger.bank.example

BANK DNS TCP:5432 @10.5.0.1
service stock/stockdb tcp-sql:5432
= till/ledger.bank.example

BANK NONE TCP:5432
service stock/stockdb tcp-sql:5432
= till/ledger.bank.example

BANK DNS TLS:5432 HTTP:6379
service stock/stockdb tcp-sql:5432 redis:6379
= till/ledger.bank.example

BANK DNS TCP:5432
yaml {kind: Service, metadata: {namespace: stock, name: own, annotations: {networking.istio.io/exportTo: .}}, spec: {ports: [{name: tcp, port: 5432}]}}
= till/ledger.bank.example",
    );
    // A destination has no listener, so that it takes nothing.
    check(
        "
calls front
service home/front http:80
http home/front front -> ledger.bank.example
entry till/ledger ledger.bank.example DNS TCP:5432
service stock/stockdb tcp-sql:5432
= home/front.home.svc",
    );
}

#[test]
fn fault_s1_a_range_takes_the_addresses_in_it() {
    banks(
        "
BANK STATIC TCP:5432 @10.96.0.0/24
service stock/in tcp-sql:5432 @10.96.0.40
service stock/out tcp-sql:5432 @10.96.1.40
service stock/nowhere tcp-sql:5432
= stock/in.stock.svc till/ledger.bank.example

BANK STATIC TCP:5432 @10.96.0.40/32
service stock/in tcp-sql:5432 @10.96.0.40
= till/ledger.bank.example

BANK NONE TCP:5432 @10.96.0.0/24
service stock/in tcp-sql:5432 @10.96.0.40
= till/ledger.bank.example

BANK DNS TCP:5432
entry stock/range range.example STATIC TCP:5432 TCP:6000 @10.96.0.0/16
service far/in tcp:6000 @10.96.7.7
service far/out tcp:6000 @10.99.7.7
= far/in.far.svc stock/range.example till/ledger.bank.example",
    );
}

#[test]
fn fault_s1_what_is_added_has_its_virtual_services_and_says_why() {
    banks(
        "
BANK DNS TCP:5432
service stock/stockdb tcp-sql:5432
tcp hub/canary stockdb.stock.svc.cluster.local -> new.stock.svc.cluster.local
service stock/new tcp-sql:5433
= hub/stockdb.stock.svc stock/stockdb.stock.svc till/ledger.bank.example",
    );
    let text = format!("{BANK} DNS TCP:5432\nservice stock/stockdb tcp-sql:5432");
    let scope = Case::of(&text).scope();
    let reasons = &scope.entries["stock/stockdb.stock.svc.cluster.local"];
    let shown: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    let wanted = "TCP port 5432, whose connections ledger.bank.example would take";
    assert_eq!(shown, [wanted]);
}
