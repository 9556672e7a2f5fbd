//! `trimtab describe smartlimiter`: each cause of "my limit does nothing" is in the first line, with what to change.
//!
//! A case is a folder of `golden/describe` with `in.yaml` and `out.txt`, the text for the limiter `cart` of namespace `shop`. In
//! `in.yaml`, `answer` is the first word of the answer, `cause` the reason that the first lines name, `fix` words that they
//! have; `objects` is the mesh, `values` and `failures` what the metric source says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use serde::Deserialize;
use serde_json::{Value, json};
use trimtab_kit::engine::Engine as _;
use trimtab_kit::sources::Failure;
use trimtab_limiter::describe::text;
use trimtab_limiter::index::{FirstForm, Form, LimiterKey, V1alpha2};
use trimtab_mesh::model::{
    DestinationRule, LimitPatches, Namespace, Pod, Service, ServiceEntry, VirtualService,
};
use trimtab_xds::{Delivery, ECDS};

use crate::fixture::Fixture;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    answer: String,
    #[serde(default)]
    cause: Option<String>,
    #[serde(default)]
    fix: Vec<String>,
    objects: Vec<Value>,
    #[serde(default)]
    values: BTreeMap<String, f64>,
    #[serde(default)]
    failures: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/describe")
}

fn load(fixture: &Fixture, object: Value) {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let first = object["apiVersion"] == "microservice.netease.com/v1alpha1";
    match kind.as_str() {
        "Service" => fixture.put::<Service>(object),
        "Pod" => fixture.put::<Pod>(object),
        "Namespace" => fixture.put::<Namespace>(object),
        "DestinationRule" => fixture.put::<DestinationRule>(object),
        "ServiceEntry" => fixture.put::<ServiceEntry>(object),
        "VirtualService" => fixture.put::<VirtualService>(object),
        "EnvoyFilter" => fixture.put::<LimitPatches>(object),
        "SmartLimiter" if first => fixture.put::<FirstForm>(object),
        "SmartLimiter" => fixture.put::<V1alpha2>(object),
        other => panic!("no kind {other}"),
    }
}

async fn described(case: &Case) -> String {
    let fixture = Fixture::new();
    for (name, value) in &case.values {
        fixture.source.set(name, *value);
    }
    for name in &case.failures {
        fixture.source.fail(name, Failure::Empty);
    }
    for object in &case.objects {
        load(&fixture, object.clone());
    }
    // Past the wait for first samples.
    for _ in 0..3 {
        fixture.tick(6).await;
        fixture.jobs();
    }
    let found = fixture.engine.description("shop", "cart");
    text(&found.expect("the limiter"))
}

#[tokio::test]
async fn each_cause_is_in_the_first_lines_with_its_fix() {
    let folders = std::fs::read_dir(root()).expect("the folder of cases");
    let mut names: Vec<String> = folders
        .map(|f| {
            f.expect("a folder")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    assert!(names.len() >= 20, "the cases are there: {names:?}");
    for name in names {
        let folder = root().join(&name);
        let yaml = std::fs::read_to_string(folder.join("in.yaml")).expect("in.yaml");
        let case: Case =
            serde_saphyr::from_str(&yaml).unwrap_or_else(|error| panic!("{name}: {error}"));
        let told = described(&case).await;
        let head: Vec<&str> = told.lines().take(3).collect();
        let head = head.join("\n");
        let begin = format!("SmartLimiter shop/cart: {}", case.answer);
        assert!(told.starts_with(&begin), "{name}: {told}");
        let words = case.cause.iter().chain(&case.fix);
        for word in words {
            assert!(
                head.contains(word.as_str()),
                "{name}: no \"{word}\" in\n{head}"
            );
        }
        expect_file![folder.join("out.txt")].assert_eq(&told);
    }
}

/// A limiter by ECDS with one pod, whose proxy is connected as `stream`.
async fn connected() -> (Fixture, String, String) {
    let fixture = Fixture::new();
    let service = json!({"kind": "Service", "metadata": {"namespace": "shop", "name": "cart"},
        "spec": {"selector": {"app": "cart"}, "ports": [{"name": "http", "port": 80}]}});
    load(&fixture, service);
    let pod = json!({"kind": "Pod", "metadata": {"namespace": "shop", "name": "cart-0", "labels": {"app": "cart"}},
        "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    load(&fixture, pod);
    let limiter = json!({"kind": "SmartLimiter", "apiVersion": "microservice.slime.io/v1alpha2",
        "metadata": {"namespace": "shop", "name": "cart", "generation": 1, "uid": "u"},
        "spec": {"delivery": "ECDS", "sets": {"_base": {"descriptor": [
            {"condition": "true", "action": {"quota": "5", "fill_interval": {"seconds": 1}}}]}}}});
    load(&fixture, limiter);
    fixture.tick(1).await;
    fixture.jobs();
    let name = fixture.cache.names(ECDS).first().expect("a value").clone();
    let version = fixture
        .cache
        .get(ECDS, &name)
        .expect("it is served")
        .version
        .clone();
    (fixture, name, version)
}

/// What all proxies say together; what each of them has is in `tests/cluster/described.rs`, with real ones.
#[tokio::test]
async fn what_proxies_refuse_and_that_none_is_connected_is_the_answer() {
    let (fixture, name, version) = connected().await;
    let told = |fixture: &Fixture| {
        fixture.engine.answers_changed(&fixture.answers.changed());
        text(
            &fixture
                .engine
                .description("shop", "cart")
                .expect("the limiter"),
        )
    };
    let nobody = told(&fixture);
    assert!(
        nobody.starts_with("SmartLimiter shop/cart: NOT LIMITING: NoProxy: no proxy is connected to Trimtab's xDS server for it: check xds.advertise"),
        "{nobody}"
    );
    assert!(nobody.contains("shop/cart-0  NOT CONNECTED"), "{nobody}");
    let nack = Delivery::Nacked {
        stream: 1,
        node: "p".to_owned(),
        type_url: ECDS.to_owned(),
        name: Some(name.clone()),
        version: version.clone(),
        message: "no such filter".to_owned(),
        origin: "SmartLimiter shop/cart".to_owned(),
        culprit: trimtab_xds::Culprit::Known,
    };
    fixture.answers.take(&nack);
    let refused = told(&fixture);
    assert!(
        refused.starts_with("SmartLimiter shop/cart: NOT LIMITING: Rejected: 1 of 1 proxies refuse it and keep the last good state; p says: no such filter\n  fix: correct the rule"),
        "{refused}"
    );
    fixture.answers.take(&Delivery::Acked {
        stream: 2,
        node: "q".to_owned(),
        type_url: ECDS.to_owned(),
        name,
        version,
        latency: std::time::Duration::ZERO,
    });
    let some = told(&fixture);
    assert!(
        some.starts_with("SmartLimiter shop/cart: PARTLY LIMITING: 5/1s for each proxy\n  but Rejected: 1 of 2 proxies refuse it"),
        "{some}"
    );
}

/// Somebody else's EnvoyFilter has the name of ours, or the API server refuses it.
#[tokio::test]
async fn what_cannot_be_written_is_the_answer() {
    let (fixture, _, _) = connected().await;
    let key = LimiterKey {
        namespace: "shop".to_owned(),
        name: "cart".to_owned(),
        form: Form::V1alpha2,
    };
    let message =
        "EnvoyFilter shop/cart.shop.ratelimit exists and is not Trimtab's: delete or rename it";
    fixture
        .engine
        .written(&key, Some(("Conflict", message.to_owned())));
    let told = text(
        &fixture
            .engine
            .description("shop", "cart")
            .expect("the limiter"),
    );
    let begin = format!("SmartLimiter shop/cart: NOT LIMITING: Conflict: {message}");
    assert!(told.starts_with(&begin), "{told}");
}

#[tokio::test]
async fn a_limiter_that_is_not_there_names_those_that_are() {
    let (fixture, _, _) = connected().await;
    assert!(fixture.engine.description("shop", "card").is_none());
    let told = fixture.engine.missing("shop", "card");
    assert_eq!(
        told,
        "there is no SmartLimiter shop/card; there are shop/cart"
    );
    let told = fixture.engine.missing("default", "cart");
    assert!(told.ends_with("there are shop/cart"), "{told}");
}
