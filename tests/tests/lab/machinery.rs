//! Processes, pods, traffic and plots.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::{self, KeepAlive, Request};
use trimtab_lab::load::{Load, Second, Targets, burst};
use trimtab_lab::plot::{self, Axis, Marker, PALETTE, Plot, Series, Style};
use trimtab_lab::ports::free_address;
use trimtab_lab::process::{Process, Spec, wait_until};
use trimtab_lab::prometheus::{ENVOY_METRICS_PATH, Prometheus, Target};
use trimtab_lab::upstream::METRICS_PATH;
use trimtab_tests::mesh::{Listener, Telemetry};

use crate::support::{BOUND, counts, folder, pod, proxy, run};

#[tokio::test]
async fn prometheus_scrapes_pods_and_istios_metric_and_keeps_its_data_over_a_kill() {
    let (pod, listen) = (pod("reviews-1", 50.0).await, free_address().unwrap());
    let telemetry = Telemetry {
        reporter: "destination".into(),
        destination_service: "reviews.default.svc.cluster.local".into(),
        namespace: "default".into(),
        pod: "reviews-1".into(),
    };
    let envoy = run(
        &proxy(Listener::inbound(9080, listen, pod.address()).counting(telemetry)),
        &[],
        "scraped",
    )
    .await;
    let pods = [Target::new(pod.address(), METRICS_PATH).label("tier", "gold")];
    let interval = Duration::from_millis(250);
    let mut prometheus = Prometheus::start(&folder("prometheus"), interval, &pods)
        .await
        .unwrap();

    burst(listen, 7, &Request::get("/")).await.unwrap();
    let requests = "workload_requests_total{namespace=\"default\",pod=\"reviews-1\",tier=\"gold\"}";
    prometheus.wait_value(requests, BOUND, seven).await.unwrap();
    prometheus
        .set_targets(&[
            pods[0].clone(),
            Target::new(envoy.admin(), ENVOY_METRICS_PATH),
        ])
        .unwrap();
    let counted = "sum(istio_requests_total{destination_service=~\"reviews.*\",response_code=\"200\",\
                   response_flags=\"-\",destination_workload_namespace=\"default\",pod=\"reviews-1\"})";
    prometheus.wait_value(counted, BOUND, seven).await.unwrap();

    prometheus.kill();
    assert!(prometheus.query("up").await.is_err());
    prometheus.set_targets(&[]).unwrap();
    prometheus.restart().await.unwrap();
    // Nothing is scraped any more: what is there comes from before the kill.
    let kept = "max_over_time(workload_requests_total[5m])";
    prometheus.wait_value(kept, BOUND, seven).await.unwrap();
}

#[tokio::test]
async fn a_pod_reports_its_measured_load() {
    let pod = pod("reviews-1", 20.0).await;
    burst(pod.address(), 30, &Request::get("/")).await.unwrap();
    assert!(
        pod.cpu_ratio() > 1.0,
        "30 requests at once are more than 20 a second: {}",
        pod.cpu_ratio()
    );
    pod.set_capacity(10_000.0);
    assert!(pod.cpu_ratio() < 0.1);
    let text = http::get(pod.address(), METRICS_PATH).await.unwrap();
    assert!(
        text.contains("workload_requests_total{namespace=\"default\",pod=\"reviews-1\"} 30\n"),
        "{text}"
    );
    wait_until("the load to fade", BOUND, || {
        let ratio = pod.cpu_ratio();
        std::future::ready(if ratio < 1e-9 {
            Ok(())
        } else {
            Err(format!("it is {ratio}"))
        })
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_load_generator_keeps_its_rate_and_counts_every_arrival() {
    let (first, second) = (pod("a", 100.0).await, pod("b", 100.0).await);
    let targets = Targets::new(vec![first.address(), second.address()]);
    let load = Load {
        targets,
        request: Request::get("/"),
        max_in_flight: 1_000,
    };
    let sum =
        |seconds: &[Second], field: fn(&Second) -> u64| seconds.iter().map(field).sum::<u64>();
    let running = load.start(|_| 200.0);
    wait_until("100 arrivals", BOUND, || {
        let offered = sum(&running.seconds(), |second| second.offered);
        std::future::ready(if offered >= 100 {
            Ok(())
        } else {
            Err(format!("{offered} so far"))
        })
    })
    .await
    .unwrap();
    let offered = sum(&running.seconds(), |second| second.offered);
    let due = running.elapsed().as_secs_f64() * 200.0;
    assert!(
        offered as f64 <= due,
        "{offered} arrivals when {due} were due"
    );

    let seconds = running.stop().await;
    let offered = sum(&seconds, |second| second.offered);
    assert_eq!(sum(&seconds, |second| second.status(200)), offered);
    assert_eq!(sum(&seconds, |second| second.unsent + second.failed), 0);
    assert_eq!(first.requests() + second.requests(), offered);
    assert!(first.requests().abs_diff(second.requests()) <= 1);
}

#[tokio::test]
async fn arrivals_beyond_the_bound_are_counted_not_delayed() {
    // Connections are taken by the kernel, and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let targets = Targets::new(vec![silent.local_addr().unwrap()]);
    let running = Load {
        targets,
        request: Request::get("/"),
        max_in_flight: 3,
    }
    .start(|_| 500.0);
    let unsent = || {
        running
            .seconds()
            .iter()
            .map(|second| second.unsent)
            .sum::<u64>()
    };
    wait_until("arrivals without a place", BOUND, || {
        std::future::ready(if unsent() > 20 {
            Ok(())
        } else {
            Err(format!("{} so far", unsent()))
        })
    })
    .await
    .unwrap();
    // Closing the listener resets the three connections that were waiting in it.
    drop(silent);
    is_consistent(&running.stop().await);
}

fn is_consistent(seconds: &[Second]) {
    let sum = |field: fn(&Second) -> u64| seconds.iter().map(field).sum::<u64>();
    assert!(sum(|second| second.failed) >= 3);
    assert_eq!(
        sum(|second| second.failed) + sum(|second| second.unsent),
        sum(|second| second.offered)
    );
}

#[tokio::test]
async fn a_held_connection_survives_until_its_proxy_dies() {
    let (pod, listen) = (pod("reviews-1", 100.0).await, free_address().unwrap());
    let mut envoy = run(
        &proxy(Listener::inbound(9080, listen, pod.address())),
        &[],
        "held",
    )
    .await;
    let mut held = KeepAlive::connect(listen).await.unwrap();
    assert_eq!(
        held.send(&Request::get("/")).await.unwrap().body,
        "reviews-1\n"
    );
    assert!(held.survived().await);
    envoy.kill();
    assert!(!held.survived().await);
    assert!(!envoy.ready().await);
    envoy.restart().await.unwrap();
    assert_eq!(
        burst(listen, 2, &Request::get("/")).await.unwrap(),
        counts([(200, 2)])
    );
}

#[tokio::test]
async fn a_failed_start_tells_the_end_of_the_log_and_a_dropped_process_is_gone() {
    let at = || free_address().unwrap();
    let mut config = proxy(Listener::inbound(9080, at(), at())).bootstrap();
    config["static_resources"]["listeners"][0]["nonsense"] = json!(true);
    let error = Envoy::start(&config, &folder("refused"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("ended with") && error.contains("nonsense"),
        "{error}"
    );

    let log = folder("sleeper").join("log");
    let args = ["1000"].map(OsString::from).into();
    let mut sleeper = Process::start(Spec {
        name: "sleeper".into(),
        program: "/bin/sleep".into(),
        args,
        log,
    })
    .unwrap();
    assert!(sleeper.is_running());
    let never = || std::future::ready(Err("not yet".to_owned()));
    let error = sleeper
        .wait_ready(Duration::from_millis(50), never)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("sleeper to be ready") && error.contains("not yet"),
        "{error}"
    );
    let entry = PathBuf::from(format!("/proc/{}", sleeper.pid()));
    assert!(entry.exists());
    drop(sleeper);
    assert!(!entry.exists());
}

#[test]
fn plot_golden() {
    let series = |label: &str, color: usize, axis, style, value: &dyn Fn(f64) -> f64| Series {
        label: label.into(),
        color: PALETTE[color].into(),
        points: (0..=60)
            .map(|t| (f64::from(t), value(f64::from(t))))
            .collect(),
        axis,
        style,
    };
    let offered = |t: f64| {
        if (15.0..45.0).contains(&t) {
            400.0
        } else {
            120.0
        }
    };
    let drawn = plot::svg(&Plot {
        title: "reviews: load & limit".into(),
        x_axis: "time (s)".into(),
        left_axis: "requests per second".into(),
        right_axis: "CPU of a pod (ratio)".into(),
        series: vec![
            series("offered", 0, Axis::Left, Style::Area, &offered),
            series("accepted", 2, Axis::Left, Style::Line, &|t| {
                if (30.0..31.0).contains(&t) {
                    f64::NAN
                } else {
                    offered(t).min(180.0)
                }
            }),
            series("limit", 1, Axis::Left, Style::Step, &|t| {
                if t < 20.0 { 400.0 } else { 180.0 }
            }),
            series("CPU", 3, Axis::Right, Style::Dashed, &|t| {
                offered(t).min(180.0) / 200.0
            }),
        ],
        markers: [
            (15.0, "overload begins"),
            (16.0, "limit on <single>"),
            (59.0, "scaled up to 3 pods"),
        ]
        .map(|(x, label)| Marker {
            x,
            label: label.into(),
        })
        .into(),
    });
    is_golden(&drawn);
    assert!(
        drawn.contains("load &amp; limit") && drawn.contains("&lt;single&gt;"),
        "text is escaped"
    );
}

fn is_golden(drawn: &str) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/plot.svg");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&golden, drawn).unwrap();
    }
    assert_eq!(
        drawn,
        std::fs::read_to_string(&golden).unwrap(),
        "UPDATE_EXPECT=1 writes the file anew"
    );
}

/// Counters are whole numbers; Prometheus gives every value as a float.
fn seven(value: f64) -> bool {
    (value - 7.0).abs() < 0.5
}
