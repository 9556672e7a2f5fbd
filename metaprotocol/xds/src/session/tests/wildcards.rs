//! A wildcard that is in sync is remembered as a whole, and its first answer comes in parts.

use super::super::state::MAX_RESOURCES;
use super::{Rig, ack, listed, nack, rejections, strings, subscribe, unsubscribe};
use crate::info::{Clock, ResourceInfo};
use crate::table::Table;

fn name(index: usize) -> String {
    format!("r{index:04}")
}

/// A delta stream that asked for everything, of which there is more than fits into two messages.
fn rig() -> (Rig, usize) {
    let mut rig = Rig::new(true);
    let count = 2 * MAX_RESOURCES + 1;
    for index in 0..count {
        rig.set(&name(index), "1");
    }
    rig.delta(subscribe(&["*"]));
    (rig, count)
}

/// Answers everything; returns what was sent and removed, in order.
fn answer_all(rig: &mut Rig) -> (Vec<String>, Vec<String>) {
    let (mut sent, mut removed) = (Vec::new(), Vec::new());
    while let Some(push) = rig.push() {
        let (items, gone) = listed(&push);
        sent.extend(items);
        removed.extend(gone);
        rig.delta(ack(&push.nonce));
    }
    (sent, removed)
}

#[test]
fn a_stream_in_step_keeps_nothing_for_each_name() {
    let (mut rig, count) = rig();
    assert_eq!(answer_all(&mut rig).0.len(), count);
    assert!(rig.session.resources.is_empty());
    rig.set(&name(3), "2");
    rig.set("new", "1");
    rig.remove(&name(4));
    let expected = (strings(&["r0003@2", "new@1"]), strings(&["r0004"]));
    assert_eq!(answer_all(&mut rig), expected);
    assert!(rig.session.resources.is_empty());
    let infos = rig.session.report(&rig.table, &Clock::now());
    assert_eq!(infos.len(), count, "one came and one went");
    assert!(infos.iter().all(ResourceInfo::is_synced));
}

#[test]
fn changes_before_behind_and_within_the_message_in_flight_are_sent_once() {
    let (mut rig, count) = rig();
    let first = rig.push().expect("a message");
    rig.delta(ack(&first.nonce));
    let second = rig.push().expect("a message");
    let last = name(count - 1);
    for index in [0, MAX_RESOURCES, count - 1] {
        rig.set(&name(index), "2");
    }
    for index in [1, MAX_RESOURCES + 1] {
        rig.remove(&name(index));
    }
    rig.delta(ack(&second.nonce));
    let (mut sent, mut removed) = answer_all(&mut rig);
    sent.sort_unstable();
    removed.sort_unstable();
    let mut expected = vec![
        format!("{}@2", name(0)),
        format!("{}@2", name(MAX_RESOURCES)),
    ];
    expected.push(format!("{last}@2"));
    assert_eq!(sent, expected);
    assert_eq!(removed, vec![name(1), name(MAX_RESOURCES + 1)]);
    assert!(rig.session.resources.is_empty());
}

#[test]
fn a_name_that_goes_before_it_was_sent_is_not_sent() {
    let (mut rig, count) = rig();
    let first = rig.push().expect("a message");
    rig.remove(&name(count - 1));
    rig.delta(ack(&first.nonce));
    let (sent, removed) = answer_all(&mut rig);
    assert_eq!(sent.len(), count - 1 - MAX_RESOURCES);
    assert!(removed.is_empty(), "the client never had it");
}

#[test]
fn one_bad_resource_of_a_long_first_answer_is_found_and_is_all_that_is_kept() {
    let (mut rig, count) = rig();
    let bad = format!("{}@1", name(MAX_RESOURCES / 2));
    let (mut messages, mut reports, mut good) = (0, 0, 0);
    while let Some(push) = rig.push() {
        messages += 1;
        if listed(&push).0.contains(&bad) {
            reports += rejections(&rig.delta(nack(&push.nonce)));
        } else {
            good += push.items.len();
            rig.delta(ack(&push.nonce));
        }
    }
    assert_eq!((reports, good), (1, count - 1));
    assert!(messages < 100, "{messages} messages");
    let kept: Vec<&str> = rig.session.resources.keys().map(|name| &**name).collect();
    assert_eq!(kept, [name(MAX_RESOURCES / 2)]);
}

#[test]
fn behind_the_compaction_point_only_what_differs_is_sent() {
    let mut rig = Rig::new(true);
    rig.table = Table::with_log_capacity(4);
    for index in 0..1_000 {
        rig.set(&name(index), "1");
    }
    rig.delta(subscribe(&["*"]));
    answer_all(&mut rig);
    for index in 0..20 {
        rig.set(&name(index), "2");
        rig.set(&name(index), if index % 2 == 0 { "1" } else { "3" });
    }
    rig.remove(&name(500));
    let (sent, removed) = answer_all(&mut rig);
    assert_eq!(sent.len(), 10, "the others are as they were: {sent:?}");
    assert_eq!(removed, vec![name(500)]);
}

#[test]
fn a_removed_name_that_comes_back_with_the_same_content_is_sent_again() {
    let (mut rig, _) = rig();
    answer_all(&mut rig);
    rig.remove("r0001");
    let nonce = rig.expect(&[], &["r0001"]);
    rig.set("r0001", "1");
    rig.delta(ack(&nonce));
    rig.expect(&["r0001@1"], &[]);
}

#[test]
fn a_wildcard_that_was_left_is_answered_from_the_start() {
    let (mut rig, count) = rig();
    let first = rig.push().expect("a message");
    rig.delta(unsubscribe(&["*"]));
    rig.delta(ack(&first.nonce));
    rig.silent();
    assert!(rig.session.resources.is_empty());
    rig.delta(subscribe(&["*"]));
    assert_eq!(answer_all(&mut rig).0.len(), count);
}
