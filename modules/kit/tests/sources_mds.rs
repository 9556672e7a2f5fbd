//! Metric discovery over real gRPC.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that cannot go on ends its test"
)]

use std::sync::Arc;
use std::time::Duration;

use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use trimtab_kit::clock::ManualClock;
use trimtab_kit::sources::mds_proto::metric_discovery_client::MetricDiscoveryClient;
use trimtab_kit::sources::mds_proto::{PushRequest, Series, series::Target};
use trimtab_kit::sources::{
    Failure, MdsConfig, MdsPushers, MdsSource, MdsStore, MetricSource as _, PodFacts, Sample,
    SampleRequest, SampleRequestId, mds_serve, mds_well_known,
};

struct Server {
    source: MdsSource,
    clock: ManualClock,
    client: MetricDiscoveryClient<tonic::transport::Channel>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(max_series: usize) -> Server {
    let clock = ManualClock::default();
    let store = MdsStore::new(
        MdsConfig {
            max_series,
            ..MdsConfig::default()
        },
        Arc::new(clock.clone()),
    );
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let serving = mds_serve(
        listener,
        store.clone(),
        MdsPushers::default(),
        CancellationToken::new(),
    );
    let task = tokio::spawn(async move { serving.await.unwrap() });
    let client = MetricDiscoveryClient::connect(format!("http://{address}"))
        .await
        .unwrap();
    Server {
        source: MdsSource::new(store),
        clock,
        client,
        task,
    }
}

fn series(name: &str, target: Target, value: f64, ttl: Option<i64>) -> Series {
    Series {
        name: name.into(),
        namespace: "ns".into(),
        target: Some(target),
        value,
        ttl: ttl.map(|seconds| mds_well_known::Duration { seconds, nanos: 0 }),
        at: None,
    }
}

impl Server {
    async fn read(&self, name: &str) -> Option<Sample> {
        let sample_request = SampleRequest {
            id: SampleRequestId(3),
            set: "_base".into(),
            namespace: "ns".into(),
            service: "svc".into(),
            pods: ["a", "b"]
                .iter()
                .map(|n| PodFacts::new("ns", n, true))
                .collect::<Vec<_>>()
                .into(),
            metrics: vec![name.to_owned()],
            ..SampleRequest::default()
        };
        self.source
            .sample(&[sample_request])
            .await
            .get(SampleRequestId(3), name)
            .cloned()
    }
}

#[tokio::test]
async fn a_put_is_read_until_its_time_to_live_ends() {
    let mut server = serve(100).await;
    let batch = vec![
        series("queue.depth", Target::Service("svc".into()), 9.0, Some(5)),
        series("load", Target::Pod("a".into()), 1.0, None),
        series("load", Target::Pod("b".into()), 2.0, Some(60)),
        series("load", Target::Pod("c".into()), f64::NAN, None),
    ];
    let response = server
        .client
        .put(PushRequest { series: batch })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (
            response.accepted,
            response.rejected.len(),
            response.rejected[0].index
        ),
        (3, 1, 3)
    );
    assert_eq!(server.read("queue.depth").await, Some(Ok(9.0)));
    assert_eq!(server.read("load").await, Some(Ok(1.5)));
    assert_eq!(server.read("never.pushed").await, None);

    server.clock.advance(Duration::from_secs(5));
    assert_eq!(server.read("queue.depth").await, Some(Err(Failure::Stale)));
    server.clock.advance(Duration::from_secs(25));
    assert_eq!(server.read("load.max").await, Some(Ok(2.0)));
    assert_eq!(server.read("load.count").await, Some(Ok(1.0)));
    server.clock.advance(Duration::from_secs(30));
    assert_eq!(server.read("load").await, Some(Err(Failure::Stale)));
}

#[tokio::test]
async fn a_stream_answers_each_batch_in_order() {
    let mut server = serve(2).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let mut responses = server
        .client
        .push(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    for (round, accepted) in [(0, 1), (1, 1), (2, 0)] {
        let one = series(
            &format!("m{round}"),
            Target::Service("svc".into()),
            f64::from(round),
            None,
        );
        sender
            .send(PushRequest { series: vec![one] })
            .await
            .unwrap();
        let response = tokio::time::timeout(Duration::from_secs(20), responses.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(response.accepted, accepted);
        assert_eq!(
            response.rejected.len(),
            usize::try_from(1 - accepted).unwrap()
        );
        assert!(
            response.rejected.iter().all(|r| r.reason.contains("full")),
            "{response:?}"
        );
    }
    drop(sender);
    let end = tokio::time::timeout(Duration::from_secs(20), responses.message())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(end, None);
    assert_eq!(server.read("m1").await, Some(Ok(1.0)));
    assert_eq!(server.source.provides().len(), 2 * 6);
    assert_eq!(server.source.health().failed, 1);
}
