//! Answers, one after the other, and a server that gives them.

use std::collections::VecDeque;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use trimtab_kit::clock::ManualClock;
use trimtab_kit::prometheus::Row;

use super::*;
use crate::config::Retention;
use crate::edges::Limits;
use crate::learn::Skip;
use crate::learn::testing::{front, small};
use crate::object::Caller;

const STEP: Duration = Duration::from_secs(15);

/// `NAMESPACE/WORKLOAD HOST VALUE`, with `<` before it when the host's proxy reports.
fn rows(lines: &[&str]) -> Answer {
    let row = |line: &&str| {
        let reporter = if line.starts_with('<') {
            "destination"
        } else {
            "source"
        };
        let [caller, host, value] = line
            .trim_start_matches('<')
            .split(' ')
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        let (namespace, workload) = caller.split_once('/').unwrap();
        let labels = [
            ("source_workload", workload),
            ("source_workload_namespace", namespace),
            ("destination_service", host),
            ("reporter", reporter),
        ];
        let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        Row {
            labels,
            value: value.parse().unwrap(),
            at: 0.0,
        }
    };
    Answer {
        rows: lines.iter().map(row).collect(),
        ..Answer::default()
    }
}

struct Play {
    counters: Counters,
    at: Duration,
}

/// What an answer told: `HOST`, `HOST?` for one that brings nothing back, and who was watched.
type Told = (Vec<String>, Option<Vec<String>>, Skipped);

impl Play {
    fn new() -> Self {
        Self {
            counters: Counters::default(),
            at: STEP,
        }
    }

    fn answers(&mut self, answers: &[Option<Answer>; 2]) -> Told {
        self.at += STEP;
        let window = Window {
            at: self.at,
            longest: STEP * 2,
        };
        let rules = Rules::default();
        let status_update = self.counters.absorb(answers, &window, &small(), &rules);
        let seen = status_update.observed_calls.iter().map(|s| {
            let mark = if s.revives { "" } else { "?" };
            format!("{}{mark}", s.host.as_str())
        });
        let watched = status_update.watched.map(|(callers, by)| {
            assert_eq!(by, STEP);
            callers.iter().map(Caller::to_string).collect()
        });
        (seen.collect(), watched, status_update.skipped)
    }

    fn http(&mut self, lines: &[&str]) -> Told {
        self.answers(&[Some(rows(lines)), Some(Answer::default())])
    }
}

const A: &str = "a.shop.svc.cluster.local";

#[test]
fn a_counter_that_moves_is_a_call() {
    let mut play = Play::new();
    let (seen, watched, _) = play.http(&["shop/front a.shop 5", "shop/front redis.data 1"]);
    assert_eq!(
        seen,
        [format!("{A}?"), "redis.data.svc.cluster.local?".to_owned()]
    );
    assert_eq!(watched, None);
    let (seen, watched, _) = play.http(&["shop/front a.shop 5", "shop/front redis.data 2"]);
    assert_eq!(seen, ["redis.data.svc.cluster.local"]);
    assert_eq!(watched.unwrap(), ["shop/front"]);
    // New series, of either reporter, are calls.
    let more = [
        "shop/front a.shop 5",
        "shop/front redis.data 2",
        "<shop/back a 1",
    ];
    let (seen, watched, _) = play.http(&more);
    assert_eq!(seen, [A]);
    assert_eq!(watched.unwrap(), ["shop/front"]);
    // A reset is a call, and nobody knows what was lost with it.
    let (seen, watched, _) = play.http(&[
        "shop/front a.shop 5",
        "shop/front redis.data 1",
        "<shop/back a 1",
    ]);
    assert_eq!(seen, ["redis.data.svc.cluster.local"]);
    assert_eq!(watched.unwrap(), [""; 0]);
}

#[test]
fn fault_t7_with_a_label_of_the_scrape_only_the_callers_own_proxy_counts() {
    let told = |line: &str, namespace: Option<&str>| {
        let mut answer = rows(&[line]);
        let labels = &mut answer.rows[0].labels;
        labels.extend(namespace.map(|n| ("namespace".to_owned(), n.to_owned())));
        let window = Window {
            at: STEP,
            longest: STEP,
        };
        let rules = Rules {
            namespace_label: "namespace".to_owned(),
            ..Rules::default()
        };
        let answers = [Some(answer), Some(Answer::default())];
        let mut counters = Counters::default();
        let news = counters.absorb(&answers, &window, &small(), &rules);
        (
            news.observed_calls.len(),
            news.skipped.get(Skip::Unverified),
        )
    };
    assert_eq!(told("shop/front a.shop 5", Some("shop")), (1, 0));
    assert_eq!(told("shop/front a.shop 5", Some("bank")), (0, 1));
    assert_eq!(told("shop/front a.shop 5", None), (0, 1));
    assert_eq!(told("<shop/front a.shop 5", Some("shop")), (0, 1));
}

#[test]
fn what_is_lost_ages_nobody() {
    let full = || rows(&["shop/front a.shop 5", "shop/back a.shop 1"]);
    let empty = || Some(Answer::default());
    let mut play = Play::new();
    play.answers(&[Some(full()), empty()]);
    let watched = |told: Told| told.1;
    // A caller vanishes; then one of its kinds of telemetry does.
    assert_eq!(
        watched(play.http(&["shop/front a.shop 5"])).unwrap(),
        ["shop/front"]
    );
    let tcp = || Some(rows(&["shop/front redis.data 5"]));
    play.answers(&[Some(full()), tcp()]);
    assert_eq!(
        watched(play.answers(&[Some(full()), tcp()])).unwrap(),
        ["shop/back", "shop/front"]
    );
    assert_eq!(
        watched(play.answers(&[Some(full()), empty()])).unwrap(),
        ["shop/back"]
    );
    // One answer fails, has a warning or is empty: neither this window nor the next one counts.
    let warned = || Answer {
        warnings: vec!["a store is gone".to_owned()],
        ..full()
    };
    for bad in [
        [None, empty()],
        [Some(full()), None],
        [Some(warned()), empty()],
        [empty(), empty()],
    ] {
        let mut play = Play::new();
        play.answers(&[Some(full()), empty()]);
        assert!(watched(play.answers(&[Some(full()), empty()])).is_some());
        assert_eq!(watched(play.answers(&bad)), None);
        assert_eq!(watched(play.answers(&[Some(full()), empty()])), None);
        assert!(watched(play.answers(&[Some(full()), empty()])).is_some());
    }
    // A gap.
    play.answers(&[Some(full()), empty()]);
    play.at += STEP * 2;
    assert_eq!(watched(play.answers(&[Some(full()), empty()])), None);
}

#[test]
fn names_that_are_none_are_skipped() {
    let mut play = Play::new();
    play.http(&["shop/front a 1"]);
    let lines = [
        "unknown/unknown a 1",
        "shop/front unknown 1",
        "shop/front PassthroughCluster 1",
        "shop/front BlackHoleCluster 1",
        "shop/front global-sidecar.trimtab 1",
        "shop/front 10.7.7.7 1",
        "shop/front 10.1.0.1:80 1",
        "shop/front a/b 1",
        "shop/front API.example.com:443 1",
        "shop/front b NaN",
    ];
    let (seen, _, skipped) = play.http(&lines);
    assert_eq!(seen, [A, "api.example.com"]);
    let counts = Skip::ALL.map(|skip| skipped.get(skip));
    assert_eq!(counts, [1, 5, 2, 0, 0]);
}

/// An answer of Prometheus 2.42, as it came.
const RECORDED: &str = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"destination_service":"a.shop.svc.cluster.local","destination_service_namespace":"shop","reporter":"source","source_workload":"front","source_workload_namespace":"shop"},"value":[1763725432.108,"1"]}]}}"#;
const EMPTY: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
const WARNED: &str = r#"{"status":"success","warnings":["a store is gone"],"data":{"resultType":"vector","result":[]}}"#;
const SCALAR: &str = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"4"]}}"#;
const REFUSED: &str = r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:1: parse error"}"#;

/// Gives its answers in turn, the same to both queries of a round, then an empty one.
async fn server(answers: Vec<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let mut answers: VecDeque<_> = answers.into_iter().flat_map(|a| [a, a]).collect();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                return;
            };
            let body = answers.pop_front().unwrap_or(EMPTY);
            let mut request = [0; 8192];
            let _ = stream.read(&mut request).await;
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json";
            let text = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    address
}

fn learner(address: &str, clock: &ManualClock) -> Learner {
    let config = PrometheusLearning {
        address: address.to_owned(),
        ..PrometheusLearning::default()
    };
    let backend = Backend {
        directory: Arc::new(small()),
        rules: Rules::default(),
        store: Arc::new(EdgeStore::new(Limits::new(&Retention::default(), 100))),
        clock: Arc::new(clock.clone()),
        answers: <_>::default(),
        stats: Arc::default(),
    };
    Learner::new(&config, backend).unwrap()
}

#[tokio::test]
async fn rounds_teach_the_store_and_tell_what_is_wrong() {
    let clock = ManualClock::default();
    let address = server(vec![RECORDED, RECORDED, REFUSED, SCALAR, WARNED, EMPTY]).await;
    let mut learner = learner(&address, &clock);
    let stats = learner.backend.stats.clone();
    let store = learner.backend.store.clone();
    learner.round().await;
    assert_eq!((stats.new_edges(), stats.windows()), (1, 0));
    clock.advance(STEP);
    learner.round().await;
    assert_eq!((stats.windows(), stats.watched()), (1, 1));
    assert_eq!(store.of(&front())[0].idle, STEP);
    for word in [
        "(bad_data)",
        "source_workload; correct the query in lazyload.learn.prometheus",
        "may lack series: a store is gone",
        "Prometheus has no series",
    ] {
        clock.advance(STEP);
        learner.round().await;
        let error = stats.error().unwrap();
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(
        (stats.queries(), stats.failures(), stats.windows()),
        (12, 4, 1)
    );
    assert_eq!(store.of(&front())[0].idle, STEP);
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_reported_and_asked_again() {
    let clock = ManualClock::default();
    let mut gone = learner("http://127.0.0.1:9", &clock);
    gone.round().await;
    assert!(
        gone.backend
            .stats
            .error()
            .unwrap()
            .contains("cannot be asked")
    );
    let config = PrometheusLearning {
        address: "prometheus:9090".to_owned(),
        ..PrometheusLearning::default()
    };
    let stop = CancellationToken::new();
    let error = run(&config, &gone.backend, stop.clone()).await.unwrap_err();
    assert!(error.to_string().contains("learn.prometheus.address"));
    stop.cancel();
    let config = PrometheusLearning {
        address: "http://127.0.0.1:9".to_owned(),
        ..PrometheusLearning::default()
    };
    run(&config, &gone.backend, stop).await.unwrap();
}
