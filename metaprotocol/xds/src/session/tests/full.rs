//! Messages that list everything.

use super::super::state::{Action, Mode};
use super::{Rig, listed, refusal, rejections, strings};
use crate::scope::View;

fn rig() -> Rig {
    Rig::seeing(Mode::FullSotw, View::default())
}

fn versions(rig: &mut Rig) -> (Vec<String>, String) {
    let push = rig.push().expect("a message");
    (listed(&push).0, push.nonce.clone())
}

#[test]
fn a_first_answer_may_be_empty_and_comes_once() {
    let mut rig = rig();
    rig.sotw(&[], "", None);
    let (all, nonce) = versions(&mut rig);
    assert!(all.is_empty());
    rig.sotw(&[], &nonce, None);
    rig.silent();
}

#[test]
fn a_bad_one_that_the_client_names_is_tried_alone_after_the_others_are_in() {
    let mut rig = rig();
    for name in ["a", "b", "c"] {
        rig.set(name, "1");
    }
    rig.sotw(&[], "", None);
    let (_, nonce) = versions(&mut rig);
    rig.sotw(&[], &nonce, None);
    for name in ["a", "b", "c"] {
        rig.set(name, "2");
    }
    let (all, nonce) = versions(&mut rig);
    assert_eq!(all, strings(&["a@2", "b@2", "c@2"]));
    let first = rig.sotw(&[], &nonce, Some(refusal("Error adding listener(s) b: no")));
    assert_eq!(rejections(&first), 0, "three could be meant");
    let (all, nonce) = versions(&mut rig);
    assert_eq!(all, strings(&["a@2", "b@1", "c@2"]), "the old b stays");
    rig.sotw(&[], &nonce, None);
    let (all, nonce) = versions(&mut rig);
    assert_eq!(all, strings(&["a@2", "b@2", "c@2"]));
    let last = rig.sotw(&[], &nonce, Some(refusal("Error adding listener(s) b: no")));
    let [
        Action::Nack,
        Action::Rejected {
            name, rejection, ..
        },
    ] = last.as_slice()
    else {
        panic!("{last:?}");
    };
    assert_eq!((&**name, rejection.version.as_str()), ("b", "2"));
    let (all, nonce) = versions(&mut rig);
    assert_eq!(
        all,
        strings(&["a@2", "b@1", "c@2"]),
        "once more what counts, as a client may apply parts of what it refuses"
    );
    rig.sotw(&[], &nonce, None);
    rig.silent();
    rig.set("a", "3");
    let (all, _) = versions(&mut rig);
    assert_eq!(
        all,
        strings(&["a@3", "b@1", "c@2"]),
        "later messages repeat the good b"
    );
}

#[test]
fn a_bad_one_that_the_client_does_not_name_is_found_by_halves() {
    let mut rig = rig();
    let names: Vec<String> = (0..16).map(|i| format!("r{i:02}")).collect();
    for name in &names {
        rig.set(name, "1");
    }
    rig.sotw(&[], "", None);
    let mut messages = 0;
    let mut reported = Vec::new();
    while let Some(push) = rig.push() {
        messages += 1;
        let bad = listed(&push).0.contains(&"r11@1".to_owned());
        let actions = rig.sotw(&[], &push.nonce, bad.then(|| refusal("bad")));
        reported.extend(actions.into_iter().filter_map(|action| match action {
            Action::Rejected { name, .. } => Some(name.to_string()),
            _ => None,
        }));
    }
    assert_eq!(reported, ["r11"]);
    assert!(messages <= 16, "{messages} messages for one bad in sixteen");
    rig.set("r00", "2");
    let (all, _) = versions(&mut rig);
    assert_eq!(all.len(), 15, "what it never accepted is left out");
}

#[test]
fn after_a_reconnect_the_bad_one_is_tried_once() {
    let mut rig = rig();
    rig.set("a", "1");
    rig.set("bad", "1");
    rig.sotw(&["a", "bad"], "", None);
    let (_, nonce) = versions(&mut rig);
    rig.sotw(&["a", "bad"], &nonce, Some(refusal("bad: no")));
    let (all, nonce) = versions(&mut rig);
    assert_eq!(all, strings(&["a@1"]));
    rig.sotw(&["a", "bad"], &nonce, None);
    let (_, nonce) = versions(&mut rig);
    let actions = rig.sotw(&["a", "bad"], &nonce, Some(refusal("bad: no")));
    assert_eq!(rejections(&actions), 1);
    rig.reconnect();
    rig.sotw(&["a", "bad"], "", None);
    let mut tried = 0;
    while let Some(push) = rig.push() {
        let bad = listed(&push).0.contains(&"bad@1".to_owned());
        tried += usize::from(bad);
        let refused = bad.then(|| refusal("bad: no"));
        rig.sotw(&["a", "bad"], &push.nonce, refused);
    }
    assert_eq!(tried, 2, "with the others, and alone");
    rig.set("bad", "2");
    let (all, _) = versions(&mut rig);
    assert_eq!(all, strings(&["a@1", "bad@2"]), "a new content is tried");
}

#[test]
fn what_the_client_holds_from_before_goes_even_if_all_that_is_new_is_bad() {
    let mut rig = rig();
    rig.set("bad", "1");
    // The client may hold a resource that was removed while it was away.
    rig.sotw(&[], "", None);
    let (all, nonce) = versions(&mut rig);
    assert_eq!(all, strings(&["bad@1"]));
    rig.sotw(&[], &nonce, Some(refusal("bad: no")));
    let (all, nonce) = versions(&mut rig);
    assert!(all.is_empty(), "a message that it can accept");
    rig.sotw(&[], &nonce, None);
    rig.silent();
}

#[test]
fn a_client_that_refuses_everything_is_left_alone() {
    let mut rig = rig();
    for name in ["a", "b", "c"] {
        rig.set(name, "1");
    }
    rig.sotw(&[], "", None);
    let mut messages = 0;
    let mut reports = 0;
    while let Some(push) = rig.push() {
        messages += 1;
        assert!(messages < 20, "a loop");
        reports += rejections(&rig.sotw(&[], &push.nonce, Some(refusal("no"))));
    }
    assert!(reports >= 3, "each is reported: {reports}");
}
