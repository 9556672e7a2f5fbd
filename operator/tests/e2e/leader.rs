//! Two replicas in this process on one API: one writes, the other is ready and goes on when the first stops.

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use trimtab::operator::Operator;
use trimtab_embedded::Embedded;
use trimtab_lab::http;
use trimtab_lab::process::wait_until;

use crate::support::{BOUND, Dial, bucket, mesh, operator, status_where};

const ELECTION: &str = "{limiter: {refresh: 100ms}, leaderElection: {enabled: true, namespace: default, name: mesh, \
                        leaseDuration: 7s, renewDeadline: 2900ms, retryPeriod: 500ms}}";

async fn ready(operator: &Operator, leader: &str) {
    wait_until(leader, BOUND, || async {
        let said = http::get(operator.http, "/readyz").await;
        let said = said.map_err(|e| e.to_string())?;
        let good = said.starts_with(&format!("ok\n{leader}"));
        if good { Ok(()) } else { Err(said) }
    })
    .await
    .unwrap();
}

async fn holder(embedded: &Embedded) -> String {
    let api: Api<Lease> = Api::namespaced(embedded.client(), "default");
    let spec = api.get("mesh").await.unwrap().spec.unwrap();
    spec.holder_identity.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_replicas_one_writes_and_the_other_goes_on() {
    let embedded = mesh(true);
    let (high, low) = (Dial::default(), Dial::default());
    high.set(0.9);
    low.set(0.1);
    let first = operator(&embedded, &high, ELECTION).await;
    bucket(&embedded, Some(15)).await;
    let limiting =
        |s: &trimtab_crds::limiter::LimiterStatus| s.state.as_deref() == Some("Limiting");
    status_where(&embedded, "limiting", limiting).await;
    let second = operator(&embedded, &low, ELECTION).await;
    ready(&first, "leader: this replica").await;
    ready(&second, "leader: trimtab_").await;
    let series = http::get(second.http, "/metrics").await.unwrap();
    assert!(series.contains("\ntrimtab_leader{} 0\n"), "{series}");
    assert!(
        series.contains("\ntrimtab_limiter_queue_depth{} 0.0\n"),
        "{series}"
    );
    assert!(
        !series.contains("\ntrimtab_limiters{"),
        "the leader has them"
    );
    let series = http::get(first.http, "/metrics").await.unwrap();
    assert!(series.contains("\ntrimtab_leader{} 1\n"), "{series}");
    assert!(series.contains("\ntrimtab_limiters{"), "{series}");
    let told = http::get(second.http, "/api/v1/leader").await.unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["holder"], holder(&embedded).await);
    let limit = http::get(second.http, "/api/v1/limiters/default/a")
        .await
        .unwrap();
    let limit: serde_json::Value = serde_json::from_str(&limit).unwrap();
    assert_eq!(
        limit["state"], "Limiting",
        "it shows what the leader decides: {limit}"
    );
    bucket(&embedded, Some(15)).await;
    first.stop().await.unwrap();
    // By its own metric there is nothing to limit.
    bucket(&embedded, None).await;
    ready(&second, "leader: this replica").await;
    second.stop().await.unwrap();
    assert_eq!(holder(&embedded).await, "", "the Lease is given back");
}
