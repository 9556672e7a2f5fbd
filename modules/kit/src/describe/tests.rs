use trimtab_xds::{Refusal, Stamp, Subscription};

use super::*;

const TYPE: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second)
}

fn stamp(version: &str) -> Stamp {
    Stamp {
        version: version.to_owned(),
        at: Some(at(60)),
    }
}

fn resource(name: &str, current: &str, acked: Option<&str>) -> ResourceInfo {
    ResourceInfo {
        name: name.to_owned(),
        current: Some(current.to_owned()),
        sent: None,
        acked: acked.map(stamp),
        refused: None,
        awaits: None,
    }
}

fn node(id: &str, resources: Vec<ResourceInfo>) -> NodeInfo {
    NodeInfo {
        id: id.to_owned(),
        identity: None,
        audiences: Vec::new(),
        subscriptions: vec![Subscription {
            type_url: TYPE.to_owned(),
            stream: 1,
            delta: true,
            wildcard: false,
            last_refusal: None,
            resources,
        }],
    }
}

fn parts() -> Vec<Part> {
    vec![Part::new(TYPE, "a", "2"), Part::new(TYPE, "b", "2")]
}

#[test]
fn a_proxy_is_as_bad_as_the_worst_that_it_has() {
    let id = "sidecar~10.0.0.1~cart-0.shop~shop.svc.cluster.local";
    let told = |resources| holder(&node(id, resources), &parts());
    let good = told(vec![resource("a", "2", Some("2"))]).unwrap();
    assert_eq!(good.proxy, "shop/cart-0");
    assert_eq!(good.holding, Holding::Accepted);
    assert_eq!(good.detail, "a 2 since 1970-01-01T00:01:00Z");
    let old = vec![
        resource("a", "2", Some("2")),
        ResourceInfo {
            awaits: Some(Awaits::Answer),
            ..resource("b", "2", Some("1"))
        },
    ];
    let old = told(old).unwrap();
    assert_eq!(old.holding, Holding::Older);
    assert_eq!(old.detail, "b: should have 2, has 1, has not answered");
    let refused = |culprit| ResourceInfo {
        refused: Some(Refusal {
            version: "2".to_owned(),
            message: "no\u{1b}[31m".to_owned(),
            at: at(1),
            culprit,
        }),
        ..resource("a", "2", Some("1"))
    };
    let bad = told(vec![refused(Culprit::Known), resource("b", "2", Some("2"))]).unwrap();
    assert_eq!(bad.holding, Holding::Refuses);
    assert_eq!(bad.detail, "a 2, and keeps 1: no\\u{1b}[31m");
    let doubt = told(vec![refused(Culprit::Unknown)]).unwrap();
    assert_eq!(doubt.holding, Holding::InDoubt);
    assert_eq!(told(vec![resource("c", "2", Some("2"))]), None);
}

#[test]
fn the_first_line_is_the_answer() {
    const WORDS: Words = Words {
        yes: "LIMITING",
        partly: "PARTLY",
        no: "NOT LIMITING",
    };
    let told = |answer, in_force: &str, causes: &[Cause]| {
        let in_force = in_force.to_owned();
        let causes = causes.to_vec();
        let verdict = Verdict {
            answer,
            in_force,
            causes,
        };
        verdict.text("X a/b", WORDS)
    };
    let cause = Cause::new("NoProxy", "nobody").fix("inject");
    assert_eq!(told(Answer::Yes, "10/1s", &[]), "X a/b: LIMITING: 10/1s\n");
    assert_eq!(
        told(Answer::No, "", std::slice::from_ref(&cause)),
        "X a/b: NOT LIMITING: NoProxy: nobody\n  fix: inject\n"
    );
    assert_eq!(
        told(Answer::Partly, "10/1s", &[cause, Cause::new("B", "b")]),
        "X a/b: PARTLY: 10/1s\n  but NoProxy: nobody\n  fix: inject\n  also B: b\n"
    );
}

#[test]
fn many_proxies_are_cut_and_the_bad_ones_come_first() {
    let holder = |n: usize, holding| Holder {
        proxy: format!("a/{n:03}"),
        holding,
        detail: "d".to_owned(),
    };
    let mut all: Vec<Holder> = (0..40).map(|n| holder(n, Holding::Accepted)).collect();
    all.push(holder(40, Holding::Refuses));
    let text = holders(&all);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "  proxies: 40 of 41 have it");
    assert_eq!(lines[1], "    a/040  REFUSES  d");
    assert_eq!(lines.last(), Some(&"    and 11 more"));
}
