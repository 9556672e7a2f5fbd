//! What a process cannot judge is not taken away from clients that have it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::*;
use crate::unresolved::Unresolved;

/// A table that cannot judge something, with its first contents.
fn rig(mode: Mode, what: &Unresolved) -> Rig {
    let mut rig = Rig::seeing(mode, View::default());
    rig.set("a", "2");
    rig.set("b", "1");
    rig.table.holds.set("x", what.clone());
    rig.table.holds.begin(rig.now);
    rig.now += Duration::from_secs(1);
    rig
}

fn with_versions(names: &[&str]) -> DeltaDiscoveryRequest {
    let had = [("a", "1"), ("b", "1"), ("gone", "1")];
    DeltaDiscoveryRequest {
        initial_resource_versions: had.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
        ..subscribe(names)
    }
}

#[test]
fn fault_m2_a_delta_client_keeps_what_it_has_until_it_is_known() {
    for names in [&["*"][..], &[], &["a", "b", "gone"]] {
        let mut rig = rig(Mode::Delta, &Unresolved::Everything);
        rig.session.on_delta(with_versions(names), rig.now);
        if names.len() == 3 {
            rig.silent();
        } else {
            // The first response to a wildcard may be empty.
            let nonce = rig.expect(&[], &[]);
            rig.session.on_delta(ack(&nonce), rig.now);
        }
        rig.set("b", "2");
        let nonce = rig.expect(&["b@2"], &[]);
        rig.session.on_delta(ack(&nonce), rig.now);
        rig.remove("b");
        let nonce = rig.expect(&[], &["b"]);
        rig.session.on_delta(ack(&nonce), rig.now);
        rig.silent();
        rig.table.holds.set("x", Unresolved::Nothing);
        rig.expect(&["a@2"], &["gone"]);
    }
}

#[test]
fn fault_m2_only_what_is_unknown_is_held() {
    let what = Unresolved::Names(BTreeSet::from(["gone".to_owned()]));
    let mut rig = rig(Mode::Delta, &what);
    let mut request = with_versions(&["*"]);
    request
        .initial_resource_versions
        .extend(HashMap::from([("old".to_owned(), "1".to_owned())]));
    rig.session.on_delta(request, rig.now);
    rig.expect(&["a@2"], &["old"]);
}

#[test]
fn fault_m2_a_client_without_anything_gets_what_is_known() {
    for mode in [Mode::Delta, Mode::Sotw, Mode::FullSotw] {
        let mut rig = rig(mode, &Unresolved::Everything);
        if mode == Mode::Delta {
            rig.session.on_delta(subscribe(&["*"]), rig.now);
        } else {
            rig.sotw(&[], "", None);
        }
        rig.expect(&["a@2", "b@1"], &[]);
    }
}

#[test]
fn fault_m2_a_client_of_state_of_the_world_keeps_what_it_has_too() {
    for mode in [Mode::Sotw, Mode::FullSotw] {
        let mut rig = rig(mode, &Unresolved::Everything);
        let names = if mode == Mode::Sotw {
            &["a", "b"][..]
        } else {
            &[]
        };
        let request = DiscoveryRequest {
            resource_names: strings(names),
            version_info: "1".to_owned(),
            ..DiscoveryRequest::default()
        };
        rig.session.on_sotw(request, rig.now);
        rig.silent();
        rig.set("a", "3");
        if mode == Mode::Sotw {
            let nonce = rig.expect(&["a@3"], &[]);
            rig.sotw(names, &nonce, None);
        } else {
            rig.silent();
        }
        rig.table.holds.set("x", Unresolved::Nothing);
        let rest = if mode == Mode::Sotw {
            &["b@1"][..]
        } else {
            &["a@3", "b@1"]
        };
        rig.expect(rest, &[]);
    }
}
