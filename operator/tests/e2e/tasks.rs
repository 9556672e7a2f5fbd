//! Every task of the operator is watched.

use tokio_util::sync::CancellationToken;
use trimtab::operator::Operator;

use crate::support::{config, mesh};

async fn operator() -> Operator {
    let client = mesh(false).client();
    Operator::start(config("{}"), client, CancellationToken::new())
        .await
        .unwrap()
}

#[tokio::test]
async fn fault_o40_a_task_that_panics_fails_or_ends_stops_the_process_with_an_error() {
    let mut panics = operator().await;
    panics.add_task("folder", async { panic!("at its first file") });
    let error = format!("{:#}", panics.wait().await.unwrap_err());
    assert!(
        error.contains("folder") && error.contains("panicked"),
        "{error}"
    );

    let mut fails = operator().await;
    fails.add_task("embedded API", async { anyhow::bail!("no sockets") });
    let error = format!("{:#}", fails.wait().await.unwrap_err());
    assert!(error.contains("no sockets"), "{error}");

    let mut ends = operator().await;
    ends.add_task("outputs", async { Ok(()) });
    let error = format!("{:#}", ends.wait().await.unwrap_err());
    assert!(
        error.contains("outputs") && error.contains("ended"),
        "{error}"
    );

    operator().await.stop().await.unwrap();
}
