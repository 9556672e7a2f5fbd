//! The texts of `trimtab xds`.

use super::*;

fn node(refused: bool) -> Node {
    let version = |v: &str| Version {
        version: v.to_owned(),
        at: None,
    };
    let refusal = Refused {
        version: "2".into(),
        message: "bad regex".into(),
        in_doubt: false,
        at: None,
    };
    let resource = Resource {
        name: "a_80".into(),
        current: Some("2".into()),
        sent: Some(version("2")),
        acknowledged: Some(version(if refused { "1" } else { "2" })),
        refused: refused.then_some(refusal),
        waits_for: None,
        in_step: !refused,
    };
    Node {
        id: "pod.shop".into(),
        identity: None,
        audiences: Vec::new(),
        subscriptions: vec![Subscription {
            type_url: "routes".into(),
            stream: 1,
            delta: false,
            wildcard: false,
            last_refusal: None,
            resources: vec![resource],
        }],
        mistakes: Vec::new(),
    }
}

#[test]
fn differences_are_told_with_the_words_of_the_proxy() {
    let (text, differs) = diff(&node(true));
    assert!(differs);
    assert!(
        text.contains("should have 2, has 1") && text.contains("bad regex"),
        "{text}"
    );
    let (text, differs) = diff(&node(false));
    assert!(!differs && text.contains("has all 1"), "{text}");
    let mut with_mistake = node(false);
    with_mistake.mistakes = vec!["VirtualService shop/a: no".into()];
    let (text, differs) = diff(&with_mistake);
    assert!(
        !differs && text.contains("mistake: VirtualService shop/a: no"),
        "{text}"
    );
    let rows = table(&[node(true), node(false)]);
    assert!(
        rows.contains("0        0        1        pod.shop"),
        "{rows}"
    );
    assert!(
        rows.contains("1        0        0        pod.shop"),
        "{rows}"
    );
}

fn waiting(waits_for: WaitsFor) -> Node {
    let mut node = node(false);
    let resource = &mut node.subscriptions[0].resources[0];
    resource.acknowledged.as_mut().unwrap().version = "1".into();
    resource.in_step = false;
    resource.waits_for = Some(waits_for);
    node
}

#[test]
fn fault_m6_each_state_says_what_is_waited_for() {
    for (waits_for, words) in [
        (WaitsFor::Answer, "has 1; was sent 2 and has not answered"),
        (
            WaitsFor::AnswerAbout(vec!["till".into(), "desk".into()]),
            "has 1; 2 waits for the answer about till, desk",
        ),
        (
            WaitsFor::Clusters,
            "has 1; 2 waits until the proxy has the clusters that it names",
        ),
        (WaitsFor::Turn, "has 1; 2 is about to be sent"),
    ] {
        let node = waiting(waits_for);
        let (text, differs) = diff(&node);
        assert!(differs && text.contains(words), "{text}");
        assert!(table(&[node]).contains("0        1        0        pod.shop"));
    }
    let mut removed = waiting(WaitsFor::Answer);
    removed.subscriptions[0].resources[0].current = None;
    let (text, _) = diff(&removed);
    let words = "should have none, has 1; was sent the removal and has not answered";
    assert!(text.contains(words), "{text}");
}

#[test]
fn fault_m6_a_refusal_of_an_older_version_is_none_of_the_current_one() {
    let mut older = node(true);
    older.subscriptions[0].resources[0].current = Some("3".into());
    older.subscriptions[0].resources[0].waits_for = Some(WaitsFor::Answer);
    let (text, _) = diff(&older);
    assert!(text.contains("was sent 3 and has not answered"), "{text}");
    assert!(table(&[older]).contains("0        1        0        pod.shop"));
    let mut doubtful = node(true);
    let refused = doubtful.subscriptions[0].resources[0].refused.as_mut();
    refused.unwrap().in_doubt = true;
    let (text, _) = diff(&doubtful);
    assert!(
        text.contains("which of them is bad is not known: bad regex"),
        "{text}"
    );
}

#[test]
fn fault_m6_what_proxies_say_is_escaped_and_no_id_has_a_name() {
    let mut evil = node(true);
    evil.id = "a\n\u{1b}[31m\u{202e}b".into();
    evil.subscriptions[0].resources[0].name = "x\r\u{7}".into();
    let refused = evil.subscriptions[0].resources[0].refused.as_mut();
    refused.unwrap().message = "no\u{1b}]0;title\u{7}\nnext".into();
    evil.mistakes = vec!["VirtualService a\u{7}b".into()];
    let mut nobody = node(false);
    nobody.id.clear();
    nobody.mistakes.clear();
    let text = table(&[evil.clone(), nobody.clone()]) + &diff(&evil).0 + &diff(&nobody).0;
    let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!text.contains(bad), "{text:?}");
    assert_eq!(text.lines().count(), 7, "{text}");
    assert!(
        text.contains("a\\n\\u{1b}[31m") && text.contains("(no id)"),
        "{text}"
    );
}

#[test]
fn proxies_that_share_an_id_are_told_apart() {
    let mut twins = node(true);
    let mut other = twins.subscriptions[0].clone();
    other.stream = 2;
    twins.subscriptions.push(other);
    assert!(table(&[twins.clone()]).contains("pod.shop (2 streams)"));
    assert!(diff(&twins).0.contains("(stream 2)"));
}
