use std::time::Duration;

use trimtab_xds::Culprit;

use super::*;

const A: &str = "type.a";
const B: &str = "type.b";

fn ack(stream: u64, node: &str, type_url: &str, name: &str, version: &str) -> Delivery {
    Delivery::Acked {
        stream,
        node: node.to_owned(),
        type_url: type_url.to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        latency: Duration::ZERO,
    }
}

fn nack(stream: u64, node: &str, type_url: &str, name: &str, version: &str) -> Delivery {
    Delivery::Nacked {
        stream,
        node: node.to_owned(),
        type_url: type_url.to_owned(),
        name: Some(name.to_owned()),
        version: version.to_owned(),
        message: format!("bad {name}"),
        origin: "Kind shop/a".to_owned(),
        culprit: Culprit::Known,
    }
}

fn suspected(answer: Delivery) -> Delivery {
    let Delivery::Nacked {
        stream,
        node,
        type_url,
        name,
        version,
        message,
        origin,
        ..
    } = answer
    else {
        panic!("no refusal");
    };
    Delivery::Nacked {
        stream,
        node,
        type_url,
        name,
        version,
        message,
        origin,
        culprit: Culprit::Unknown,
    }
}

/// Proxies, those that hold, refuse, suspect.
fn counts(outcome: &Outcome) -> [usize; 4] {
    let Outcome {
        proxies,
        holding,
        refusing,
        suspecting,
        ..
    } = outcome;
    [*proxies, *holding, *refusing, *suspecting]
}

#[test]
fn an_answer_counts_for_its_type_name_version_and_stream() {
    let answers = Answers::default();
    answers.take(&nack(1, "p", A, "x", "2"));
    assert_eq!(counts(&answers.of(&[Part::new(A, "x", "2")])), [1, 0, 1, 0]);
    for other in [
        ack(1, "p", B, "x", "2"),
        ack(1, "p", A, "y", "2"),
        ack(1, "p", A, "x", "1"),
        ack(2, "p", A, "y", "2"),
    ] {
        answers.take(&other);
        let outcome = answers.of(&[Part::new(A, "x", "2")]);
        assert_eq!((outcome.refusing, outcome.holding), (1, 0), "{other:?}");
        assert_eq!(outcome.words.unwrap().message, "bad x");
    }
    answers.take(&ack(3, "p", A, "x", "1"));
    assert_eq!(
        counts(&answers.of(&[Part::new(A, "x", "2")])),
        [2, 0, 1, 0],
        "an older version is not the present one"
    );
    answers.take(&ack(1, "p", A, "x", "2"));
    assert_eq!(counts(&answers.of(&[Part::new(A, "x", "2")])), [2, 1, 0, 0]);
    assert_eq!(counts(&answers.of(&[Part::new(A, "x", "3")])), [2, 0, 0, 0]);
}

#[test]
fn streams_of_one_type_are_proxies_and_those_of_different_types_are_one() {
    let answers = Answers::default();
    answers.take(&ack(1, "p", A, "x", "1"));
    answers.take(&ack(2, "p", B, "y", "1"));
    let both = [Part::new(A, "x", "1"), Part::new(B, "y", "1")];
    assert_eq!(counts(&answers.of(&both)), [1, 1, 0, 0]);
    answers.take(&ack(3, "p", A, "x", "1"));
    assert_eq!(counts(&answers.of(&both)), [2, 2, 0, 0]);
    answers.take(&nack(2, "p", B, "y", "1"));
    assert_eq!(counts(&answers.of(&both)), [2, 1, 1, 0]);
}

#[test]
fn what_a_stream_said_ends_with_it_and_with_its_subscription() {
    let answers = Answers::default();
    answers.take(&nack(1, "p", A, "x", "1"));
    answers.take(&nack(1, "p", A, "y", "1"));
    answers.take(&ack(2, "q", A, "x", "1"));
    answers.changed();
    answers.take(&Delivery::Left {
        stream: 1,
        node: "p".to_owned(),
        type_url: A.to_owned(),
        name: "y".to_owned(),
    });
    assert_eq!(counts(&answers.of(&[Part::new(A, "y", "1")])), [0; 4]);
    let closed = Delivery::Closed {
        stream: 1,
        node: "p".to_owned(),
    };
    answers.take(&closed);
    assert_eq!(counts(&answers.of(&[Part::new(A, "x", "1")])), [1, 1, 0, 0]);
    assert!(!answers.is_open(1) && answers.is_open(2));
    assert_eq!(answers.changed().resources.len(), 2);
}

#[test]
fn of_a_batch_that_was_refused_nothing_counts_as_taken() {
    let answers = Answers::default();
    for name in ["x", "y"] {
        answers.take(&suspected(nack(1, "p", A, name, "1")));
    }
    let outcome = answers.of(&[Part::new(A, "y", "1")]);
    assert_eq!(counts(&outcome), [1, 0, 0, 1]);
    assert!(
        outcome.problem().unwrap().contains("p says: bad x")
            || outcome.problem().unwrap().contains("p says: bad y")
    );
    answers.take(&nack(1, "p", A, "x", "1"));
    answers.take(&ack(1, "p", A, "y", "1"));
    assert_eq!(counts(&answers.of(&[Part::new(A, "x", "1")])), [1, 0, 1, 0]);
    assert_eq!(counts(&answers.of(&[Part::new(A, "y", "1")])), [1, 1, 0, 0]);
}

#[test]
fn objects_hear_of_answers_to_what_they_have_a_part_in_and_of_blame() {
    let answers = Answers::default();
    let program = |parts: &[(&str, &str)], blamed: &[&str]| {
        let part =
            |(object, name): &(&str, &str)| ((*object).to_owned(), vec![Part::new(A, name, "1")]);
        answers.program(Programmed {
            parts: parts.iter().map(part).collect(),
            blamed: blamed
                .iter()
                .map(|o| ((*o).to_owned(), Words::default()))
                .collect(),
        });
        answers.changed().objects.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(program(&[("a", "x"), ("b", "y")], &["b"]), ["a", "b"]);
    assert_eq!(
        program(&[("a", "x"), ("b", "y")], &["b"]),
        Vec::<String>::new()
    );
    assert_eq!(program(&[("a", "x"), ("b", "y")], &["a"]), ["a", "b"]);
    assert!(answers.blame("a").is_some() && answers.blame("b").is_none());
    answers.take(&ack(1, "p", A, "x", "1"));
    assert_eq!(answers.changed().objects, BTreeSet::from(["a".to_owned()]));
    assert_eq!(counts(&answers.of(&answers.parts_of("a"))), [1, 1, 0, 0]);
}

#[test]
fn a_content_of_others_is_theirs() {
    let answers = Answers::default();
    answers.take(&ack(1, "p", A, "x", "1"));
    answers.take(&ack(2, "q", A, "x", "2"));
    let part = Part {
        versions: ["1", "2"].map(str::to_owned).into(),
        ..Part::new(A, "x", "1")
    };
    assert_eq!(counts(&answers.of(&[part])), [2, 2, 0, 0]);
    assert_eq!(answers.about(&Part::new(A, "x", "2")), 1);
}
