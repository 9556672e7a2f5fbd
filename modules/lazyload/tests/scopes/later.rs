//! Objects that come later: the fence is marked, and others are not.

use serde_json::{Value, json};

use crate::case::{Case, entries, object, scope, web};
use crate::mesh::{Followed, apply, delete};

struct Mesh {
    case: Case,
    index: Followed,
}

impl Mesh {
    fn of(text: &str) -> Self {
        let case = Case::of(text);
        let index = case.mesh.index();
        scope(&case.mesh, &index);
        index.drain_changes();
        Self { case, index }
    }

    /// Whether the fence is marked, and how many entries its scope has.
    fn step(&self, object: &Value, gone: bool) -> (bool, usize) {
        if gone {
            delete(&self.index, object);
        } else {
            apply(&self.index, object);
        }
        let marked = self.index.drain_changes().fences.contains(&web());
        (marked, entries(&scope(&self.case.mesh, &self.index)).len())
    }

    fn put(&self, line: &str) -> (bool, usize) {
        self.step(&object(line), false)
    }

    fn delete(&self, line: &str) -> (bool, usize) {
        self.step(&object(line), true)
    }
}

const BANK: &str = "calls ledger.bank.example\nentry till/ledger ledger.bank.example DNS TCP:5432";

#[test]
fn fault_s1_a_service_of_the_port_marks_the_fence() {
    let mesh = Mesh::of(BANK);
    assert_eq!(mesh.put("service stock/db tcp:5433"), (false, 1));
    assert_eq!(mesh.put("service stock/db http:5432"), (false, 1));
    assert_eq!(mesh.put("service stock/db tcp:5432"), (true, 2));
    assert_eq!(mesh.put("service stock/db tcp:5433"), (true, 1));
    assert_eq!(mesh.put("service stock/db tcp:5432"), (true, 2));
    assert_eq!(mesh.delete("service stock/db tcp:5432"), (true, 1));
    assert_eq!(
        mesh.put("entry till/ledger ledger.bank.example DNS TCP:6000"),
        (true, 1)
    );
    assert_eq!(mesh.put("service stock/db tcp:5432"), (false, 1));
}

#[test]
fn fault_s1_the_pods_of_a_headless_service_have_listeners() {
    let mesh = Mesh::of(BANK);
    assert_eq!(
        mesh.put("service stock/many tcp:5432 @None").1,
        1,
        "it has no pods yet"
    );
    let slice = |address: &str| {
        json!({"kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [{"addresses": [address]}],
            "metadata": {"namespace": "stock", "name": "many", "labels": {"kubernetes.io/service-name": "many"}}})
    };
    assert_eq!(mesh.step(&slice("10.1.0.1"), false), (true, 2));
    assert_eq!(mesh.step(&slice("10.1.0.2"), false), (false, 2));
    assert_eq!(mesh.step(&slice("10.1.0.2"), true), (true, 1));
}

#[test]
fn fault_s4_a_virtual_service_under_a_wildcard_marks_the_fence() {
    let mesh =
        Mesh::of("learned *.paper.example\nentry outside/supplier *.paper.example NONE TLS:443");
    let tls = "tls buy/orders orders.paper.example -> door.exit.svc.cluster.local";
    assert_eq!(mesh.put(tls), (true, 2));
    assert_eq!(mesh.delete(tls), (true, 1));
    let other = "tls buy/orders orders.ink.example -> door.exit.svc.cluster.local";
    assert_eq!(mesh.put(other), (false, 1));
}

#[test]
fn fault_s5_s7_what_an_external_name_stands_for_marks_the_fence() {
    let mesh = Mesh::of("calls catalog.books\nservice books/catalog http:80");
    assert_eq!(mesh.put("http books/catalog catalog -> index"), (true, 1));
    assert_eq!(
        mesh.put("alias books/index blue.books.svc.cluster.local"),
        (true, 3)
    );
    assert_eq!(mesh.put("service books/blue http:80"), (true, 3));
    assert_eq!(
        mesh.put("alias books/blue red.books.svc.cluster.local"),
        (true, 1)
    );
    let mesh = Mesh::of("calls rates\nalias home/rates two.a2.svc.cluster.local");
    assert_eq!(mesh.put("service a2/two http:80"), (true, 2));
    assert_eq!(
        mesh.put("alias a2/two prices.head.svc.cluster.local"),
        (true, 2)
    );
    assert_eq!(mesh.put("service head/prices http:80"), (true, 2));
    assert_eq!(
        mesh.put("http hub/rates rates.home.svc.cluster.local -> dear.head.svc.cluster.local"),
        (true, 4)
    );
}

#[test]
fn fault_s13_destinations_and_services_of_a_front_mark_the_fence() {
    let mesh = Mesh::of("calls shop.example");
    let front = "http hub/all shop.example -> covers.art.svc.cluster.local";
    assert_eq!(mesh.put(front), (true, 1));
    assert_eq!(mesh.put("service art/covers http:80"), (true, 2));
    assert_eq!(mesh.put("service art/covers tcp:80"), (true, 1));
    assert_eq!(mesh.put("service art/covers http:80"), (true, 2));
    assert_eq!(
        mesh.put("entry edge/own shop.example DNS HTTP:80"),
        (true, 2)
    );
    assert_eq!(
        mesh.delete("entry edge/own shop.example DNS HTTP:80"),
        (true, 2)
    );
    assert_eq!(mesh.delete(front), (true, 1));
}
