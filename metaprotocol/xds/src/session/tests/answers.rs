//! Accepted, refused and stale answers, and changes while a message is in flight.

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::google::rpc;

use super::{Rig, ack, listed, nack, refusal, rejections, strings, subscribe};
use crate::info::{Clock, Culprit, ResourceInfo};
use crate::session::Action;

// Rule 2.
#[test]
fn an_ack_gets_no_response_and_only_one_response_is_in_flight() {
    let mut rig = Rig::new(false);
    rig.set("a", "1");
    rig.sotw(&["a"], "", None);
    let nonce = rig.expect(&["a@1"], &[]);
    rig.set("a", "2");
    rig.set("a", "3");
    rig.silent();
    let actions = rig.sotw(&["a"], &nonce, None);
    assert!(actions.iter().any(|action| matches!(action, Action::Ack)));
    let nonce = rig.expect(&["a@3"], &[]);
    rig.sotw(&["a"], &nonce, None);
    let actions = rig.sotw(&["a"], &nonce, None);
    assert!(
        actions.is_empty(),
        "a repeated answer does nothing: {actions:?}"
    );
    rig.silent();
}

#[test]
fn a_change_that_is_undone_while_in_flight_is_sent_again() {
    let mut rig = Rig::new(true);
    rig.set("a", "1");
    rig.delta(subscribe(&["a"]));
    let nonce = rig.expect(&["a@1"], &[]);
    rig.delta(ack(&nonce));
    rig.set("a", "2");
    let nonce = rig.expect(&["a@2"], &[]);
    rig.set("a", "1");
    rig.delta(ack(&nonce));
    rig.expect(&["a@1"], &[]);
}

#[test]
fn a_removal_while_in_flight_is_sent_after_the_ack() {
    let mut rig = Rig::new(true);
    rig.set("a", "1");
    rig.delta(subscribe(&["a"]));
    let nonce = rig.expect(&["a@1"], &[]);
    rig.remove("a");
    rig.delta(ack(&nonce));
    let nonce = rig.expect(&[], &["a"]);
    rig.delta(ack(&nonce));
    rig.silent();
}

// Rule 3.
#[test]
fn a_nack_is_reported_once_and_the_content_is_not_sent_again() {
    for delta in [false, true] {
        let mut rig = Rig::new(delta);
        let answer = |rig: &mut Rig, nonce: &str, error: Option<rpc::Status>| {
            if delta {
                rig.delta(DeltaDiscoveryRequest {
                    error_detail: error,
                    ..ack(nonce)
                })
            } else {
                rig.sotw(&["a"], nonce, error)
            }
        };
        rig.set("a", "1");
        if delta {
            rig.delta(subscribe(&["a"]));
        } else {
            rig.sotw(&["a"], "", None);
        }
        let nonce = rig.expect(&["a@1"], &[]);
        answer(&mut rig, &nonce, None);
        rig.set("a", "2");
        let nonce = rig.expect(&["a@2"], &[]);
        let actions = answer(&mut rig, &nonce, Some(refusal("bad interval")));
        let reported = actions.iter().find_map(|action| match action {
            Action::Rejected {
                origin,
                rejection,
                message,
                ..
            } => Some((origin.as_str(), rejection, message.as_str())),
            _ => None,
        });
        let (origin, rejection, message) = reported.expect("a report");
        assert_eq!(
            (origin, rejection.version.as_str(), message),
            ("default/a", "2", "bad interval")
        );
        assert_eq!(
            rejection.last_good.as_ref().map(|good| good.version()),
            Some("1")
        );
        rig.silent();
        assert_eq!(
            rejections(&answer(&mut rig, &nonce, Some(refusal("bad interval")))),
            0
        );
        rig.silent();
        rig.set("a", "3");
        let nonce = rig.expect(&["a@3"], &[]);
        answer(&mut rig, &nonce, None);
        rig.silent();
    }
}

#[test]
fn a_refused_batch_is_tried_one_by_one_and_only_the_bad_one_is_reported() {
    let mut rig = Rig::new(true);
    for name in ["a", "b", "c"] {
        rig.set(name, "1");
    }
    rig.delta(subscribe(&["a", "b", "c"]));
    let nonce = rig.expect(&["a@1", "b@1", "c@1"], &[]);
    assert_eq!(rejections(&rig.delta(nack(&nonce))), 0);
    let nonce = rig.expect(&["a@1"], &[]);
    rig.delta(ack(&nonce));
    let nonce = rig.expect(&["b@1"], &[]);
    assert_eq!(rejections(&rig.delta(nack(&nonce))), 1);
    let nonce = rig.expect(&["c@1"], &[]);
    rig.delta(ack(&nonce));
    rig.silent();
}

#[test]
fn a_removal_in_a_refused_response_is_sent_again() {
    let mut rig = Rig::new(true);
    rig.set("a", "1");
    rig.delta(subscribe(&["a"]));
    let nonce = rig.expect(&["a@1"], &[]);
    rig.delta(ack(&nonce));
    rig.remove("a");
    rig.set("b", "1");
    rig.delta(subscribe(&["b"]));
    let push = rig.push().expect("a message");
    assert_eq!(listed(&push), (strings(&["b@1"]), strings(&["a"])));
    rig.delta(nack(&push.nonce));
    let nonce = rig.expect(&[], &["a"]);
    rig.delta(ack(&nonce));
    let nonce = rig.expect(&["b@1"], &[]);
    assert_eq!(rejections(&rig.delta(nack(&nonce))), 1);
    rig.silent();
}

#[test]
fn a_refused_removal_is_not_forgotten_when_the_name_comes_and_goes() {
    let mut rig = Rig::new(true);
    rig.set("a", "1");
    rig.delta(subscribe(&["a"]));
    let nonce = rig.expect(&["a@1"], &[]);
    rig.delta(ack(&nonce));
    rig.remove("a");
    rig.set("b", "1");
    rig.delta(subscribe(&["b"]));
    let push = rig.push().expect("a message");
    rig.delta(nack(&push.nonce));
    rig.set("a", "2");
    let nonce = rig.expect(&["a@2"], &[]);
    rig.delta(nack(&nonce));
    let nonce = rig.expect(&["b@1"], &[]);
    rig.delta(ack(&nonce));
    rig.silent();
    rig.remove("a");
    rig.expect(&[], &["a"]);
}

#[test]
fn after_a_reconnect_a_node_gets_the_current_content_once_and_then_what_it_had_accepted() {
    let mut rig = Rig::new(false);
    rig.set("a", "1");
    rig.sotw(&["a"], "", None);
    let nonce = rig.expect(&["a@1"], &[]);
    rig.sotw(&["a"], &nonce, None);
    rig.set("a", "2");
    let nonce = rig.expect(&["a@2"], &[]);
    rig.sotw(&["a"], &nonce, Some(refusal("bad")));
    rig.reconnect();
    rig.sotw(&["a"], &nonce, None);
    let nonce = rig.expect(&["a@2"], &[]);
    rig.sotw(&["a"], &nonce, Some(refusal("bad")));
    let nonce = rig.expect(&["a@1"], &[]);
    rig.sotw(&["a"], &nonce, None);
    rig.silent();
    rig.set("a", "3");
    let nonce = rig.expect(&["a@3"], &[]);
    rig.sotw(&["a"], &nonce, None);
    assert!(
        rig.table.rejection_of("a", "node").is_none(),
        "an ACK clears the rejection"
    );
}

#[test]
fn a_node_that_refuses_even_its_last_good_content_is_left_alone() {
    let mut rig = Rig::new(false);
    rig.set("a", "1");
    rig.sotw(&["a"], "", None);
    let nonce = rig.expect(&["a@1"], &[]);
    rig.sotw(&["a"], &nonce, None);
    rig.set("a", "2");
    let nonce = rig.expect(&["a@2"], &[]);
    rig.sotw(&["a"], &nonce, Some(refusal("bad")));
    rig.reconnect();
    rig.sotw(&["a"], "", None);
    let nonce = rig.expect(&["a@2"], &[]);
    rig.sotw(&["a"], &nonce, Some(refusal("bad")));
    let nonce = rig.expect(&["a@1"], &[]);
    rig.sotw(&["a"], &nonce, Some(refusal("bad as well")));
    rig.silent();
    rig.set("a", "3");
    rig.expect(&["a@3"], &[]);
}

#[test]
fn a_delta_client_that_asks_again_for_a_refused_content_gets_the_last_good_one() {
    let mut rig = Rig::new(true);
    rig.set("a", "1");
    rig.delta(subscribe(&["a"]));
    let nonce = rig.expect(&["a@1"], &[]);
    rig.delta(ack(&nonce));
    rig.set("a", "2");
    let nonce = rig.expect(&["a@2"], &[]);
    rig.delta(DeltaDiscoveryRequest {
        resource_names_subscribe: strings(&["a"]),
        ..nack(&nonce)
    });
    let nonce = rig.expect(&["a@1"], &[]);
    rig.delta(ack(&nonce));
    rig.silent();
}

// Rule 4.
#[test]
fn a_stale_nonce_voids_a_sotw_request_but_not_the_names_of_a_delta_request() {
    let mut rig = Rig::new(false);
    rig.set("a", "1");
    rig.set("b", "1");
    rig.sotw(&["a"], "", None);
    let nonce = rig.expect(&["a@1"], &[]);
    let actions = rig.sotw(&["a", "b"], "", None);
    assert!(matches!(actions.as_slice(), [Action::Stale]), "{actions:?}");
    rig.silent();
    rig.sotw(&["a", "b"], &nonce, None);
    rig.expect(&["b@1"], &[]);

    let mut rig = Rig::new(true);
    rig.set("a", "1");
    rig.set("b", "1");
    rig.delta(subscribe(&["a"]));
    let nonce = rig.expect(&["a@1"], &[]);
    let stale = DeltaDiscoveryRequest {
        resource_names_subscribe: strings(&["b"]),
        ..nack("old")
    };
    let actions = rig.delta(stale);
    assert!(actions.iter().any(|action| matches!(action, Action::Stale)));
    assert!(!actions.iter().any(|action| matches!(action, Action::Nack)));
    rig.silent();
    rig.delta(ack(&nonce));
    rig.expect(&["b@1"], &[]);
}

#[test]
fn a_name_left_and_taken_up_again_while_a_response_is_in_flight_is_sent_again() {
    let mut rig = Rig::new(false);
    rig.set("a", "1");
    rig.set("b", "1");
    rig.sotw(&["a", "b"], "", None);
    let first = rig.expect(&["a@1", "b@1"], &[]);
    rig.sotw(&["a", "b"], &first, None);
    rig.set("b", "2");
    let second = rig.expect(&["b@2"], &[]);
    rig.sotw(&["b"], "older", None);
    rig.sotw(&["a", "b"], "older", None);
    rig.silent();
    rig.sotw(&["a", "b"], &second, None);
    rig.expect(&["a@1"], &[]);
}

/// Answers with `words` where given; returns what was said of each name.
fn reports(actions: Vec<Action>) -> Vec<String> {
    let mut out = Vec::new();
    for action in actions {
        match action {
            Action::Accepted(all) => {
                out.extend(all.iter().map(|(entry, _)| format!("{} ack", entry.name())));
            }
            Action::Rejected { name, .. } => out.push(format!("{name} nack")),
            Action::Suspected { entries, .. } => {
                out.extend(
                    entries
                        .iter()
                        .map(|entry| format!("{} doubt", entry.name())),
                );
            }
            _ => {}
        }
    }
    out.sort_unstable();
    out
}

fn refused(nonce: &str, words: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        error_detail: Some(refusal(words)),
        ..ack(nonce)
    }
}

#[test]
fn fault_t10_a_refused_batch_of_which_no_member_is_refused_alone_stays_in_doubt() {
    let mut rig = Rig::new(true);
    rig.set("a", "1");
    rig.set("b", "1");
    rig.delta(subscribe(&["a", "b"]));
    let nonce = rig.expect(&["a@1", "b@1"], &[]);
    let said = reports(rig.delta(refused(&nonce, "no host header")));
    assert_eq!(said, ["a doubt", "b doubt"]);
    for name in ["a@1", "b@1"] {
        let nonce = rig.expect(&[name], &[]);
        assert!(reports(rig.delta(ack(&nonce))).is_empty(), "{name}");
    }
    rig.silent();
    let infos = rig.session.report(&rig.table, &Clock::now());
    for info in &infos {
        let refusal = info.refusal().expect("a refusal");
        assert_eq!(refusal.culprit, Culprit::Unknown);
        assert_eq!(refusal.message, "no host header");
        assert!(!info.is_synced() && info.acked.is_none());
    }
    rig.set("a", "2");
    let nonce = rig.expect(&["a@2"], &[]);
    assert_eq!(reports(rig.delta(ack(&nonce))), ["a ack"]);
    let infos = rig.session.report(&rig.table, &Clock::now());
    assert_eq!(infos.iter().filter(|info| info.is_synced()).count(), 1);
}

#[test]
fn fault_t10_who_is_refused_alone_clears_the_others() {
    for first in ["a", "b"] {
        let mut rig = Rig::new(true);
        rig.set("a", "1");
        rig.set("b", "1");
        rig.delta(subscribe(&["a", "b"]));
        let nonce = rig.expect(&["a@1", "b@1"], &[]);
        rig.delta(refused(&nonce, "no"));
        let mut said = Vec::new();
        for name in ["a", "b"] {
            let nonce = rig.expect(&[&format!("{name}@1")], &[]);
            let answer = if name == first {
                refused(&nonce, "no")
            } else {
                ack(&nonce)
            };
            said.extend(reports(rig.delta(answer)));
        }
        said.sort_unstable();
        let expected = if first == "a" {
            ["a nack", "b ack"]
        } else {
            ["a ack", "b nack"]
        };
        assert_eq!(said, expected);
        rig.silent();
    }
}

#[test]
fn fault_t10_a_client_that_hides_a_refusal_is_believed_only_if_the_words_are_explained() {
    for (words, cleared) in [("no", true), ("other", false)] {
        let mut rig = Rig::new(true);
        rig.session.remembers_refusals = true;
        rig.set("a", "1");
        rig.set("b", "1");
        rig.delta(subscribe(&["a", "b"]));
        let nonce = rig.expect(&["a@1", "b@1"], &[]);
        rig.delta(refused(&nonce, "no"));
        let nonce = rig.expect(&["a@1"], &[]);
        rig.delta(ack(&nonce));
        let nonce = rig.expect(&["b@1"], &[]);
        let said = reports(rig.delta(refused(&nonce, words)));
        assert_eq!(said.contains(&"a ack".to_owned()), cleared, "{words}");
        let infos = rig.session.report(&rig.table, &Clock::now());
        let synced: Vec<bool> = infos.iter().map(ResourceInfo::is_synced).collect();
        assert_eq!(synced, [cleared, false], "{words}");
    }
}

#[test]
fn a_resource_that_the_words_name_is_the_only_one_in_doubt() {
    let mut rig = Rig::new(true);
    for name in ["one", "two", "three"] {
        rig.set(name, "1");
    }
    rig.delta(subscribe(&["one", "three", "two"]));
    let nonce = rig.expect(&["one@1", "three@1", "two@1"], &[]);
    let said = reports(rig.delta(refused(&nonce, "Error adding listener(s) two: in use")));
    assert_eq!(said, ["two doubt"]);
    let nonce = rig.expect(&["one@1", "three@1"], &[]);
    assert_eq!(reports(rig.delta(ack(&nonce))), ["one ack", "three ack"]);
    let nonce = rig.expect(&["two@1"], &[]);
    assert_eq!(
        reports(rig.delta(ack(&nonce))),
        ["two ack"],
        "in use no more"
    );
    rig.silent();
}

#[test]
fn fault_t6_a_long_refusal_is_cut_and_takes_no_more_memory_than_it_shows() {
    let mut rig = Rig::new(true);
    rig.set("a", "1");
    rig.delta(subscribe(&["a"]));
    let nonce = rig.expect(&["a@1"], &[]);
    let actions = rig.delta(refused(&nonce, &"ü".repeat(1 << 20)));
    let kept = actions.iter().find_map(|action| match action {
        Action::Rejected { message, .. } => Some(message.capacity()),
        _ => None,
    });
    assert!(kept.is_some_and(|kept| kept <= 4096), "{kept:?}");
    let last = rig.session.last_nack.as_ref().expect("a refusal");
    assert!(last.capacity() <= 4096);
}
