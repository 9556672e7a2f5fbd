//! What is sent without a request: after a refusal, with what an answer is withheld for, and with what refers to it.

use std::time::Duration;

use super::super::order::Order;
use super::super::state::Mode;
use super::{Rig, ack, listed, nack, refusal, strings, subscribe};
use crate::info::{Awaits, Clock};
use crate::scope::View;
use crate::types::CDS;

fn answer(rig: &mut Rig, mode: Mode, nonce: &str, good: bool) {
    match mode {
        Mode::Delta if good => rig.delta(ack(nonce)),
        Mode::Delta => rig.delta(nack(nonce)),
        _ => rig.sotw(
            &[],
            nonce,
            (!good).then(|| refusal("Address already in use")),
        ),
    };
}

fn wildcard(mode: Mode) -> Rig {
    let mut rig = Rig::seeing(mode, View::default());
    if mode == Mode::Delta {
        rig.delta(subscribe(&["*"]));
    } else {
        rig.sotw(&[], "", None);
    }
    rig
}

const MODES: [Mode; 2] = [Mode::Delta, Mode::FullSotw];

#[test]
fn fault_m8_what_was_refused_is_tried_again_later_and_later() {
    for mode in MODES {
        let mut rig = wildcard(mode);
        let first = rig.push().expect("an empty response").nonce.clone();
        answer(&mut rig, mode, &first, true);
        rig.set("a", "1");
        let nonce = rig.expect(&["a@1"], &[]);
        answer(&mut rig, mode, &nonce, false);
        for pause in [30, 60, 120] {
            while let Some(push) = rig.push() {
                assert!(listed(&push).0.is_empty(), "nothing but what is good");
                answer(&mut rig, mode, &push.nonce, true);
            }
            let at = rig.session.wake_at().expect("a time");
            assert_eq!(at, rig.now + Duration::from_secs(pause));
            rig.now = at;
            let nonce = rig.expect(&["a@1"], &[]);
            answer(&mut rig, mode, &nonce, pause == 120);
        }
        rig.silent();
        assert_eq!(rig.session.wake_at(), None);
        let infos = rig.session.report(&rig.table, &Clock::now());
        assert!(infos[0].is_synced());
    }
}

#[test]
fn a_retry_is_of_the_current_content_only() {
    let mut rig = wildcard(Mode::Delta);
    let first = rig.push().expect("an empty response").nonce.clone();
    rig.delta(ack(&first));
    rig.set("a", "1");
    let nonce = rig.expect(&["a@1"], &[]);
    rig.delta(nack(&nonce));
    rig.set("a", "2");
    let nonce = rig.expect(&["a@2"], &[]);
    rig.delta(ack(&nonce));
    rig.now += Duration::from_secs(31);
    rig.silent();
    rig.set("b", "1");
    let nonce = rig.expect(&["b@1"], &[]);
    rig.delta(nack(&nonce));
    rig.remove("b");
    rig.now += Duration::from_secs(31);
    rig.silent();
    assert_eq!(rig.session.wake_at(), None);
}

#[test]
fn fault_m7_changes_do_not_wait_for_a_withheld_answer_and_nothing_of_it_is_lost() {
    for mode in MODES {
        let mut rig = wildcard(mode);
        rig.session.patience = Some(Duration::from_secs(1));
        rig.set("slow", "1");
        let first = rig.push().expect("a message").nonce.clone();
        rig.set("new", "1");
        rig.silent();
        assert_eq!(
            rig.session.wake_at(),
            Some(rig.now + Duration::from_secs(1))
        );
        rig.now += Duration::from_secs(1);
        let push = rig.push().expect("both");
        let (mut sent, _) = listed(&push);
        sent.sort_unstable();
        assert_eq!(sent, strings(&["new@1", "slow@1"]));
        rig.set("new", "2");
        rig.now += Duration::from_secs(1);
        rig.silent();
        answer(&mut rig, mode, &first, true);
        rig.silent();
        answer(&mut rig, mode, &push.nonce, true);
        let push = rig.push().expect("what came last");
        assert!(listed(&push).0.contains(&"new@2".to_owned()));
        answer(&mut rig, mode, &push.nonce, true);
        rig.silent();
    }
}

#[test]
fn fault_m1_what_a_changed_resource_refers_to_is_sent_again() {
    for delta in [false, true] {
        let mut rig = Rig::new(delta);
        rig.set("a", "1");
        rig.set("b", "1");
        let names = ["a", "b", "missing"];
        if delta {
            rig.delta(subscribe(&names));
        } else {
            rig.sotw(&names, "", None);
        }
        let push = rig.push().expect("a message");
        let reply = |rig: &mut Rig, nonce: &str| {
            if delta {
                rig.delta(ack(nonce));
            } else {
                rig.sotw(&names, nonce, None);
            }
        };
        for name in ["a", "missing", "other"] {
            rig.session.send_again(name, &rig.table, rig.now);
        }
        rig.silent();
        reply(&mut rig, &push.nonce);
        let nonce = rig.expect(&["a@1"], &[]);
        reply(&mut rig, &nonce);
        rig.silent();
    }
    let mut rig = wildcard(Mode::Delta);
    rig.set("a", "1");
    let nonce = rig.push().expect("a message").nonce.clone();
    rig.delta(ack(&nonce));
    rig.silent();
    rig.session.send_again("a", &rig.table, rig.now);
    let nonce = rig.expect(&["a@1"], &[]);
    rig.delta(ack(&nonce));
    rig.silent();
    assert!(
        rig.session.resources.is_empty(),
        "and nothing is kept of it"
    );
}

#[test]
fn fault_m7_only_what_names_a_pending_cluster_waits() {
    for mode in [Mode::Delta, Mode::FullSotw, Mode::Sotw] {
        let mut rig = Rig::seeing(mode, View::default());
        let mut order = Order::default();
        order.on_queued(["later"].into_iter(), rig.now);
        rig.set_body("needs", "1", b"\n\x05later");
        rig.set_body("free", "1", b"\n\x05other");
        if mode == Mode::Delta {
            rig.delta(subscribe(&["*"]));
        } else {
            rig.sotw(&["*"], "", None);
        }
        let sent = |rig: &mut Rig, order: Option<&Order>| {
            let push = rig.session.next_push(&rig.table, rig.now, order);
            push.map(|push| (listed(&push).0, push.nonce.clone()))
        };
        let (names, nonce) = sent(&mut rig, Some(&order)).expect("a message");
        assert_eq!(names, strings(&["free@1"]), "{mode:?}");
        let wild = |rig: &mut Rig, nonce: &str| {
            if mode == Mode::Delta {
                rig.delta(ack(nonce));
            } else {
                rig.sotw(&["*"], nonce, None);
            }
        };
        wild(&mut rig, &nonce);
        assert!(sent(&mut rig, Some(&order)).is_none());
        let infos = rig.session.report(&rig.table, &Clock::now());
        assert_eq!(infos[1].awaits, Some(Awaits::Clusters));
        // A removal goes with what replaces it.
        rig.remove("free");
        assert!(sent(&mut rig, Some(&order)).is_none());
        order.on_answered(CDS, true);
        assert!(order.is_empty());
        let (names, nonce) = sent(&mut rig, None).expect("a message");
        assert_eq!(names, strings(&["needs@1"]), "{mode:?}");
        wild(&mut rig, &nonce);
        rig.silent();
    }
}

#[test]
fn a_content_that_no_longer_names_the_cluster_does_not_wait() {
    let mut rig = Rig::new(true);
    let mut order = Order::default();
    order.on_queued(["later"].into_iter(), rig.now);
    rig.set_body("a", "1", b"\n\x05later");
    rig.delta(subscribe(&["a"]));
    assert!(
        rig.session
            .next_push(&rig.table, rig.now, Some(&order))
            .is_none()
    );
    rig.set_body("a", "2", b"\n\x05other");
    let push = rig.session.next_push(&rig.table, rig.now, Some(&order));
    assert_eq!(listed(&push.expect("a message")).0, strings(&["a@2"]));
    assert!(!rig.session.holds());
}

#[test]
fn fault_m6_a_wildcard_that_never_answered_waits_for_all_and_says_why() {
    let mut rig = wildcard(Mode::Delta);
    let first = rig.push().expect("an empty response").nonce.clone();
    rig.delta(ack(&first));
    let mut rig = wildcard(Mode::Delta);
    for index in 0..300 {
        rig.set(&format!("r{index:03}"), "1");
    }
    let push = rig.push().expect("a message");
    let infos = rig.session.report(&rig.table, &Clock::now());
    assert_eq!(infos.len(), 300);
    let answers = infos.iter().filter(|i| i.awaits == Some(Awaits::Answer));
    assert_eq!(answers.count(), push.items.len());
    let others = infos
        .iter()
        .filter(|i| matches!(i.awaits, Some(Awaits::Other(_))));
    assert_eq!(others.count(), 300 - push.items.len());
}

#[test]
fn fault_m6_a_change_behind_an_unanswered_response_says_what_it_waits_for() {
    let mut rig = Rig::new(true);
    rig.set("shelf", "1");
    rig.set("till", "1");
    rig.delta(subscribe(&["shelf"]));
    let nonce = rig.expect(&["shelf@1"], &[]);
    rig.delta(ack(&nonce));
    rig.delta(subscribe(&["till"]));
    rig.expect(&["till@1"], &[]);
    rig.set("shelf", "2");
    let infos = rig.session.report(&rig.table, &Clock::now());
    assert_eq!(infos[0].awaits, Some(Awaits::Other(strings(&["till"]))));
    assert_eq!(infos[1].awaits, Some(Awaits::Answer));
}
