//! What proxies say to limits, in the status.

use std::time::Duration;

use serde_json::json;
use trimtab_kit::answers::{Programmed, Words};
use trimtab_kit::engine::Engine as _;
use trimtab_xds::{Culprit, Delivery, ECDS, LDS, RDS};

use crate::fixture::{Fixture, one};

/// A limiter that is delivered by ECDS.
async fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.service("a", 1);
    let mut spec = one("true", "5");
    spec["delivery"] = json!("ECDS");
    fixture.limiter("a", 1, &spec);
    fixture.tick(1).await;
    fixture.jobs();
    fixture
}

/// Status, reason and message of `Applied` and `Ready`, once answers have reached the engine; those of before where nothing
/// is to be written.
fn conditions(fixture: &Fixture, before: &[String]) -> Vec<String> {
    fixture.engine.answers_changed(&fixture.answers.changed());
    let statuses = fixture.jobs().into_values().filter_map(|job| job.status);
    let conditions = statuses.flat_map(|s| s.conditions.clone());
    let told: Vec<String> = conditions
        .filter(|c| ["Applied", "Ready"].contains(&c.type_.as_str()))
        .map(|c| format!("{} {} {}: {}", c.type_, c.status, c.reason, c.message))
        .collect();
    if told.is_empty() {
        before.to_vec()
    } else {
        told
    }
}

fn version(fixture: &Fixture, name: &str) -> String {
    fixture
        .cache
        .get(ECDS, name)
        .expect("it is served")
        .version
        .clone()
}

fn nack(stream: u64, type_url: &str, name: &str, version: &str) -> Delivery {
    Delivery::Nacked {
        stream,
        node: "p".to_owned(),
        type_url: type_url.to_owned(),
        name: Some(name.to_owned()),
        version: version.to_owned(),
        message: "no such filter".to_owned(),
        origin: "SmartLimiter default/a".to_owned(),
        culprit: Culprit::Known,
    }
}

fn ack(stream: u64, type_url: &str, name: &str, version: &str) -> Delivery {
    Delivery::Acked {
        stream,
        node: "p".to_owned(),
        type_url: type_url.to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        latency: Duration::ZERO,
    }
}

fn says(told: &[String], applied: &str) {
    assert!(told[0].starts_with(applied), "{told:?}");
    let ready = applied.contains("True");
    assert_eq!(told[1].starts_with("Ready True"), ready, "{told:?}");
}

#[tokio::test]
async fn fault_m3_only_an_answer_to_the_limit_changes_its_status() {
    let fixture = fixture().await;
    let names = fixture.cache.names(ECDS);
    let name = names.first().expect("a value");
    let version = version(&fixture, name);
    // Others that may have its name.
    for (type_url, other) in [
        (LDS, name.as_str()),
        (RDS, "default/a"),
        (ECDS, "default/a"),
    ] {
        fixture.answers.take(&nack(1, type_url, other, &version));
    }
    fixture.answers.take(&ack(1, ECDS, name, &version));
    let told = conditions(
        &fixture,
        &["Applied True".to_owned(), "Ready True".to_owned()],
    );
    says(&told, "Applied True");
    fixture.answers.take(&nack(1, ECDS, name, &version));
    let told = conditions(&fixture, &[]);
    says(&told, "Applied False Rejected: 1 of 1 proxies refuse it");
    assert!(told[0].ends_with("p says: no such filter"), "{told:?}");
    for other in [
        ack(1, LDS, name, &version),
        ack(1, ECDS, "other", &version),
        ack(1, ECDS, name, "older"),
        ack(2, ECDS, "other", &version),
    ] {
        fixture.answers.take(&other);
        let told = conditions(&fixture, &told);
        says(&told, "Applied False Rejected");
    }
    // A second proxy of that node id has it.
    fixture.answers.take(&ack(3, ECDS, name, &version));
    let told = conditions(&fixture, &told);
    says(&told, "Applied False Rejected");
    fixture.answers.take(&Delivery::Closed {
        stream: 1,
        node: "p".to_owned(),
    });
    let told = conditions(&fixture, &told);
    says(&told, "Applied True");
}

#[tokio::test]
async fn fault_t10_a_limit_of_a_refused_batch_is_not_applied() {
    let fixture = fixture().await;
    let names = fixture.cache.names(ECDS);
    let name = names.first().expect("a value");
    let version = version(&fixture, name);
    let Delivery::Nacked {
        stream,
        node,
        type_url,
        name: refused,
        message,
        origin,
        ..
    } = nack(1, ECDS, name, &version)
    else {
        panic!("no refusal");
    };
    fixture.answers.take(&Delivery::Nacked {
        stream,
        node,
        type_url,
        name: refused,
        version: version.clone(),
        message,
        origin,
        culprit: Culprit::Unknown,
    });
    let told = conditions(&fixture, &[]);
    says(&told, "Applied False Rejected");
    assert!(
        told[0].contains("together with other resources"),
        "{told:?}"
    );
    fixture.answers.take(&ack(1, ECDS, name, &version));
    says(&conditions(&fixture, &[]), "Applied True");
}

#[tokio::test]
async fn fault_t10_a_limit_that_spoils_routes_is_not_applied() {
    let fixture = fixture().await;
    let words = Words {
        node: "p".to_owned(),
        message: "regex too large".to_owned(),
    };
    let object = "SmartLimiter.microservice.slime.io default/a".to_owned();
    fixture.answers.program(Programmed {
        blamed: [(object, words)].into(),
        ..Programmed::default()
    });
    let told = conditions(&fixture, &[]);
    says(&told, "Applied False Rejected");
    assert!(told[0].ends_with("p says: regex too large"), "{told:?}");
    fixture.answers.program(Programmed::default());
    let names = fixture.cache.names(ECDS);
    let name = names.first().expect("a value");
    fixture
        .answers
        .take(&ack(1, ECDS, name, &version(&fixture, name)));
    says(&conditions(&fixture, &[]), "Applied True");
}
