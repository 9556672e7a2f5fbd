//! First requests, reconnects, wildcards.

use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DiscoveryRequest, ResourceLocator,
};

use super::{Rig, ack, listed, nack, strings, subscribe, unsubscribe};
use crate::session::Action;
use crate::session::state::MAX_RESOURCES;
use crate::table::Table;

// Rule 1 and 9: the first request is answered with what exists; a missing name is no deletion.
#[test]
fn sotw_first_request_is_answered_with_what_exists() {
    let mut rig = Rig::new(false);
    rig.set("a", "1");
    rig.set("other", "1");
    rig.sotw(&["a", "b"], "", None);
    let nonce = rig.expect(&["a@1"], &[]);
    rig.sotw(&["a", "b"], &nonce, None);
    rig.silent();
    rig.set("b", "1");
    rig.expect(&["b@1"], &[]);
}

#[test]
fn sotw_with_nothing_to_give_stays_silent_until_it_exists() {
    let mut rig = Rig::new(false);
    rig.sotw(&["a"], "", None);
    rig.silent();
    rig.set("a", "1");
    let nonce = rig.expect(&["a@1"], &[]);
    rig.sotw(&["a"], &nonce, None);
    rig.remove("a");
    rig.silent();
}

// Rule 5.
#[test]
fn the_first_request_of_a_new_stream_is_answered_whatever_its_nonce() {
    let mut rig = Rig::new(false);
    rig.set("a", "1");
    rig.sotw(&["a"], "from-elsewhere", None);
    let nonce = rig.expect(&["a@1"], &[]);
    rig.reconnect();
    rig.sotw(&["a"], &nonce, None);
    let again = rig.expect(&["a@1"], &[]);
    assert_ne!(nonce, again, "nonces of two streams never match");
}

// Rule 6.
#[test]
fn a_delta_reconnect_gets_only_the_differences() {
    let mut rig = Rig::new(true);
    for name in ["same", "newer", "fresh"] {
        rig.set(name, "2");
    }
    let initial = [
        ("same", "2"),
        ("newer", "1"),
        ("gone", "1"),
        ("not-wanted", "1"),
    ];
    rig.delta(DeltaDiscoveryRequest {
        initial_resource_versions: initial
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .into(),
        ..subscribe(&["same", "newer", "gone", "fresh"])
    });
    let push = rig.push().expect("a message");
    let (mut sent, removed) = listed(&push);
    sent.sort_unstable();
    assert_eq!(
        (sent, removed),
        (strings(&["fresh@2", "newer@2"]), strings(&["gone"]))
    );
    rig.delta(ack(&push.nonce));
    rig.silent();
}

#[test]
fn a_delta_reconnect_with_the_same_versions_is_silent_except_for_the_end_of_a_wildcard() {
    let initial: std::collections::HashMap<String, String> =
        [("a".to_owned(), "1".to_owned())].into();
    for (names, answered) in [(vec!["a"], false), (vec!["*"], true), (vec![], true)] {
        let mut rig = Rig::new(true);
        rig.set("a", "1");
        rig.delta(DeltaDiscoveryRequest {
            initial_resource_versions: initial.clone(),
            ..subscribe(&names)
        });
        let push = rig.push();
        assert_eq!(push.is_some(), answered, "{names:?}");
        if let Some(push) = push {
            assert_eq!(listed(&push), (vec![], vec![]), "{names:?}");
        }
    }
}

// Rule 7.
#[test]
fn a_delta_subscription_of_a_known_name_resends_and_of_a_missing_one_gets_its_removal() {
    let mut rig = Rig::new(true);
    rig.set("a", "1");
    rig.delta(subscribe(&["a", "missing"]));
    let nonce = rig.expect(&["a@1"], &["missing"]);
    rig.delta(ack(&nonce));
    rig.delta(subscribe(&["a"]));
    let nonce = rig.expect(&["a@1"], &[]);
    rig.delta(ack(&nonce));
    rig.set("missing", "1");
    rig.expect(&["missing@1"], &[]);
}

#[test]
fn a_delta_client_that_left_a_name_hears_no_more_of_it() {
    let mut rig = Rig::new(true);
    rig.set("a", "1");
    rig.set("b", "1");
    rig.delta(subscribe(&["a", "b"]));
    let nonce = rig.expect(&["a@1", "b@1"], &[]);
    rig.set("a", "2");
    let actions = rig.delta(DeltaDiscoveryRequest {
        response_nonce: nonce,
        ..unsubscribe(&["a", "never"])
    });
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Unwatch(name) if &**name == "a"))
    );
    rig.remove("a");
    rig.silent();
    assert_eq!(
        rig.session.resources.len(),
        1,
        "the state of a left name is freed"
    );
}

// Rule 8.
#[test]
fn delta_wildcards_follow_additions_changes_and_removals() {
    for first in [vec![], vec!["*"]] {
        let mut rig = Rig::new(true);
        let actions = rig.delta(subscribe(&first));
        assert!(
            actions
                .iter()
                .any(|action| matches!(action, Action::WatchAll(true)))
        );
        let nonce = rig.expect(&[], &[]);
        rig.delta(ack(&nonce));
        rig.set("a", "1");
        rig.set("b", "1");
        let nonce = rig.expect(&["a@1", "b@1"], &[]);
        rig.remove("b");
        rig.delta(ack(&nonce));
        let nonce = rig.expect(&[], &["b"]);
        rig.delta(ack(&nonce));
        rig.delta(unsubscribe(&["*"]));
        rig.set("a", "2");
        rig.silent();
        assert!(rig.session.resources.is_empty());
    }
}

#[test]
fn unsubscribing_one_name_under_a_wildcard_sends_it_again() {
    let mut rig = Rig::new(true);
    rig.set("a", "1");
    rig.delta(subscribe(&["*", "a", "missing"]));
    let push = rig.push().expect("a message");
    assert_eq!(listed(&push), (strings(&["a@1"]), strings(&["missing"])));
    rig.delta(ack(&push.nonce));
    rig.delta(unsubscribe(&["a", "missing"]));
    rig.expect(&["a@1"], &["missing"]);
}

#[test]
fn sotw_no_names_mean_everything_only_before_the_first_name() {
    let mut rig = Rig::new(false);
    rig.set("a", "1");
    rig.set("b", "1");
    rig.sotw(&[], "", None);
    let nonce = rig.expect(&["a@1", "b@1"], &[]);
    rig.sotw(&[], &nonce, None);
    rig.set("c", "1");
    let nonce = rig.expect(&["c@1"], &[]);
    rig.sotw(&["a"], &nonce, None);
    let nonce = rig.expect(&["a@1"], &[]);
    rig.set("b", "2");
    rig.sotw(&[], &nonce, None);
    rig.set("a", "2");
    rig.silent();
    assert!(
        rig.session.resources.is_empty(),
        "fewer names free the state"
    );
}

#[test]
fn sotw_names_that_are_added_are_sent_and_the_others_are_not_repeated() {
    let mut rig = Rig::new(false);
    rig.set("a", "1");
    rig.set("b", "1");
    rig.sotw(&["a"], "", None);
    let nonce = rig.expect(&["a@1"], &[]);
    rig.sotw(&["a"], &nonce, None);
    rig.sotw(&["a", "b"], &nonce, None);
    let nonce = rig.expect(&["b@1"], &[]);
    let actions = rig.sotw(&["b"], &nonce, None);
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Unwatch(name) if &**name == "a"))
    );
    rig.set("a", "2");
    rig.silent();
}

#[test]
fn a_stream_behind_the_compaction_point_finds_what_changed() {
    let mut rig = Rig::new(true);
    rig.table = Table::with_log_capacity(4);
    for name in ["a", "b", "c"] {
        rig.set(name, "1");
    }
    rig.delta(subscribe(&["a", "b"]));
    let nonce = rig.expect(&["a@1", "b@1"], &[]);
    rig.delta(ack(&nonce));
    rig.set("b", "2");
    for version in 0..100 {
        rig.set("c", &format!("v{version}"));
    }
    rig.expect(&["b@2"], &[]);
}

#[test]
fn a_message_is_bounded_and_the_rest_follows() {
    let mut rig = Rig::new(true);
    let count = 2 * MAX_RESOURCES + 1;
    for index in 0..count {
        rig.set(&format!("r{index:04}"), "1");
    }
    rig.delta(subscribe(&["*"]));
    let mut seen = 0;
    while let Some(push) = rig.push() {
        assert!(push.items.len() <= MAX_RESOURCES);
        seen += push.items.len();
        rig.delta(ack(&push.nonce));
    }
    assert_eq!(seen, count, "each resource exactly once");
}

#[test]
fn convergence_counts_from_the_later_of_publication_and_subscription() {
    let mut rig = Rig::new(true);
    rig.set("a", "1");
    rig.now += Duration::from_secs(3600);
    rig.delta(subscribe(&["a"]));
    let nonce = rig.expect(&["a@1"], &[]);
    assert_eq!(rig.session.pending_since(), Some(rig.now));
    rig.now += Duration::from_millis(7);
    let actions = rig.delta(ack(&nonce));
    let latency = actions.iter().find_map(|action| match action {
        Action::Accepted(accepted) => accepted.first().map(|(_, latency)| *latency),
        _ => None,
    });
    assert_eq!(latency, Some(Duration::from_millis(7)));
}

#[test]
fn fault_m8_a_delta_subscription_after_a_refusal_is_answered() {
    let mut rig = Rig::new(true);
    rig.set("a", "1");
    rig.delta(subscribe(&["a"]));
    let nonce = rig.expect(&["a@1"], &[]);
    rig.delta(nack(&nonce));
    rig.silent();
    rig.delta(subscribe(&["a"]));
    let nonce = rig.expect(&["a@1"], &[]);
    rig.delta(nack(&nonce));
    rig.silent();
    rig.delta(subscribe(&["*"]));
    let nonce = rig.expect(&[], &[]);
    rig.delta(ack(&nonce));
    rig.delta(subscribe(&["*"]));
    rig.expect(&[], &[]);
}

#[test]
fn fault_m8_locators_are_names_and_no_wildcard() {
    let locator = |name: &str| ResourceLocator {
        name: name.into(),
        ..ResourceLocator::default()
    };
    for delta in [false, true] {
        let mut rig = Rig::new(delta);
        rig.set("a", "1");
        rig.set("b", "1");
        if delta {
            rig.delta(DeltaDiscoveryRequest {
                resource_locators_subscribe: vec![locator("a")],
                ..DeltaDiscoveryRequest::default()
            });
        } else {
            let request = DiscoveryRequest {
                resource_locators: vec![locator("a")],
                ..DiscoveryRequest::default()
            };
            rig.session.on_sotw(request, rig.now);
        }
        rig.expect(&["a@1"], &[]);
        assert!(!rig.session.is_wildcard());
    }
    let mut rig = Rig::new(true);
    rig.set("a", "1");
    rig.delta(subscribe(&["a"]));
    let nonce = rig.expect(&["a@1"], &[]);
    rig.delta(DeltaDiscoveryRequest {
        resource_locators_unsubscribe: vec![locator("a")],
        ..ack(&nonce)
    });
    assert!(rig.session.resources.is_empty());
}

#[test]
fn fault_m8_a_sotw_request_without_a_nonce_is_a_new_start() {
    let mut rig = Rig::new(false);
    for name in ["a", "b"] {
        rig.set(name, "1");
    }
    rig.sotw(&["a"], "", None);
    let nonce = rig.expect(&["a@1"], &[]);
    rig.sotw(&["a"], &nonce, None);
    rig.sotw(&[], &nonce, None);
    rig.silent();
    rig.sotw(&["b"], "", None);
    let nonce = rig.expect(&["b@1"], &[]);
    rig.sotw(&["b"], &nonce, None);
    rig.sotw(&["b"], "", None);
    rig.expect(&["b@1"], &[]);
}
