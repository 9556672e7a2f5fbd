use trimtab_kit::condition::MAX_MESSAGE;
use trimtab_kit::problem::Problem;

use super::*;
use crate::features::Target;

fn facts() -> Facts {
    Facts {
        key: ObjectKey {
            kind: Kind::MetaRouter,
            namespace: "shop".into(),
            name: "orders".into(),
        },
        generation: 3,
        refusals: Vec::new(),
        in_force: true,
        idle: "nobody wants it".into(),
        programs: [Program {
            target: Target::ThriftProxy,
            delivery: Delivery::Ecds,
        }]
        .into(),
        retained: false,
        write_error: None,
        served: false,
        answers: Outcome::default(),
        blame: None,
        routes: 2,
    }
}

fn refusal(object: &str, reason: &'static str, blocks: bool) -> Refusal {
    Refusal::mistake(
        Problem::new(object, "spec.x", reason, "is wrong: mend it"),
        blocks,
    )
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn told(facts: &Facts) -> Vec<String> {
    let status = router_status(facts, &[], at(1));
    let conditions = status.conditions.iter();
    conditions
        .map(|c| format!("{} {} {}", c.type_, c.status, c.reason))
        .collect()
}

#[test]
fn proxies_decide_whether_it_is_programmed() {
    let mut facts = facts();
    assert_eq!(told(&facts)[2], "Programmed True NoProxies");
    facts.answers.proxies = 2;
    facts.answers.holding = 1;
    assert_eq!(told(&facts)[2], "Programmed False Pending");
    facts.answers.holding = 2;
    assert_eq!(told(&facts)[2], "Programmed True Programmed");
    let words = Words {
        node: "pod".into(),
        message: "bad regex".into(),
    };
    facts.answers.refusing = 1;
    facts.answers.words = Some(words.clone());
    assert_eq!(told(&facts)[2], "Programmed False Rejected");
    let status = router_status(&facts, &[], at(1));
    assert!(status.conditions[2].message.contains("pod says: bad regex"));
    facts.answers = Outcome::default();
    facts.blame = Some(words);
    assert_eq!(told(&facts)[2], "Programmed False Rejected");
    facts.write_error = Some(("Forbidden", "apply".into()));
    assert_eq!(told(&facts)[2], "Programmed False Forbidden");
    facts.in_force = false;
    assert_eq!(told(&facts)[2], "Programmed False NotInForce");
    assert_eq!(router_status(&facts, &[], at(1)).routes, None);
}

#[test]
fn inline_delivery_asks_no_proxy() {
    let mut facts = facts();
    facts.programs = [Program {
        target: Target::ThriftProxy,
        delivery: Delivery::Inline,
    }]
    .into();
    assert_eq!(told(&facts)[2], "Programmed True Written");
    assert_eq!(router_status(&facts, &[], at(1)).proxies, None);
}

#[test]
fn mistakes_references_and_remarks_have_conditions_of_their_own() {
    let own = "MetaRouter shop/orders";
    let mut facts = facts();
    facts.refusals = vec![refusal(own, "Unreachable", false)];
    assert_eq!(
        told(&facts),
        [
            "Accepted True Unreachable",
            "ResolvedRefs True ResolvedRefs",
            "Programmed True NoProxies"
        ]
    );
    facts.refusals.push(refusal(own, "UnknownHost", true));
    assert_eq!(
        told(&facts),
        [
            "Accepted True Unreachable",
            "ResolvedRefs False UnknownHost",
            "Programmed False UnknownHost"
        ]
    );
    facts.refusals.push(refusal(own, "InvalidRegex", true));
    assert_eq!(told(&facts)[0], "Accepted False InvalidRegex");
    // A problem of the service is no mistake of the router.
    facts.refusals = vec![refusal("Service shop/orders", "UnknownProtocol", true)];
    assert_eq!(
        told(&facts),
        [
            "Accepted True Accepted",
            "ResolvedRefs False UnknownProtocol",
            "Programmed False UnknownProtocol"
        ]
    );
}

#[test]
fn transition_times_stay_until_the_status_changes_and_messages_are_bounded() {
    let mut facts = facts();
    let first = router_status(&facts, &[], at(1)).conditions;
    let second = router_status(&facts, &first, at(9)).conditions;
    assert_eq!(first, second, "the same facts give the same status");
    facts.write_error = Some(("ApiError", "é".repeat(5000)));
    let third = router_status(&facts, &second, at(9)).conditions;
    assert_eq!(third[0].last_transition_time.0, at(1));
    assert_eq!(third[2].last_transition_time.0, at(9));
    assert_eq!(third[2].message.chars().count(), MAX_MESSAGE);
    let many = (0..9).map(|i| {
        let problem = Problem::new(
            "MetaRouter shop/orders",
            format!("f{i}"),
            "InvalidRegex",
            "x",
        );
        Refusal::mistake(problem, false)
    });
    facts.refusals = many.collect();
    let status = router_status(&facts, &[], at(1));
    assert!(status.conditions[0].message.ends_with("; and 4 more"));
}
