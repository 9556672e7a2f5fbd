//! Values of pods, and messages.

use super::*;
use crate::sources::SampleRequestId;

fn pod(name: &str, ready: bool, request: Option<f64>, limit: Option<f64>) -> PodFacts {
    PodFacts {
        cpu_request: request,
        cpu_limit: limit,
        memory_request: request,
        memory_limit: limit,
        ..PodFacts::new("ns", name, ready)
    }
}

fn sample_request(pods: Vec<PodFacts>) -> SampleRequest {
    SampleRequest {
        id: SampleRequestId(1),
        namespace: "ns".into(),
        service: "svc".into(),
        pods: pods.into(),
        ..SampleRequest::default()
    }
}

fn used(list: &[(&str, f64)]) -> UsedByPod {
    let at = Some(Timestamp::now());
    let used = |v: f64| Used {
        cores: Some(v),
        bytes: Some(v * 10.0),
        at,
    };
    let pods = list
        .iter()
        .map(|(n, v)| ((*n).to_owned(), used(*v)))
        .collect();
    HashMap::from([("ns".to_owned(), pods)])
}

fn read(name: &str, used: &UsedByPod, sample_request: &SampleRequest) -> Sample {
    value(
        name,
        used,
        sample_request,
        Timestamp::now(),
        Duration::from_secs(60),
    )
}

#[test]
fn fractions_are_of_the_request_or_else_the_limit_of_ready_measured_pods() {
    let d = sample_request(vec![
        pod("a", true, Some(1.0), Some(9.0)),
        pod("b", true, None, Some(3.0)),
        pod("c", true, None, None),
        pod("starting", true, Some(100.0), None),
        pod("unready", false, Some(100.0), None),
    ]);
    let u = used(&[("a", 0.5), ("b", 2.5), ("c", 4.0), ("unready", 50.0)]);
    assert_eq!(read("cpu", &u, &d), Ok(3.0 / 4.0));
    assert_eq!(read("cpu.max", &u, &d), Ok(2.5 / 3.0));
    assert_eq!(read("cpu.cores", &u, &d), Ok(7.0));
    assert_eq!(read("memory.bytes", &u, &d), Ok(70.0));
    assert_eq!(read("memory", &u, &d), Ok(30.0 / 4.0));
}

#[test]
fn no_request_names_the_fix_and_cores_still_work() {
    let d = sample_request(vec![pod("a", true, None, Some(0.0))]);
    let u = used(&[("a", 0.5)]);
    let text = read("cpu", &u, &d).unwrap_err().to_string();
    assert!(
        text.contains("ns/svc")
            && text.contains("resources.requests.cpu")
            && text.contains("cpu.cores"),
        "{text}"
    );
    assert_eq!(read("cpu.cores", &u, &d), Ok(0.5));
}

#[test]
fn nothing_measured_is_empty_and_old_is_stale() {
    let d = sample_request(vec![pod("a", true, Some(1.0), None)]);
    assert_eq!(read("cpu", &UsedByPod::new(), &d), Err(Failure::Empty));
    assert_eq!(
        read("cpu", &used(&[("a", 1.0)]), &sample_request(vec![])),
        Err(Failure::Empty)
    );
    let later = Timestamp::now() + jiff::SignedDuration::from_secs(61);
    assert_eq!(
        value(
            "cpu",
            &used(&[("a", 1.0)]),
            &d,
            later,
            Duration::from_secs(60)
        ),
        Err(Failure::Stale)
    );
}

#[test]
fn fault_l20_usage_of_later_than_now_is_missing() {
    let d = sample_request(vec![pod("a", true, Some(1.0), None)]);
    let at = |ahead| Timestamp::now() - jiff::SignedDuration::from_secs(ahead);
    let read = |ahead| {
        value(
            "cpu",
            &used(&[("a", 1.0)]),
            &d,
            at(ahead),
            Duration::from_secs(60),
        )
    };
    assert_eq!(read(50), Ok(1.0));
    assert_eq!(read(70), Err(Failure::Future));
}

#[test]
fn a_pod_is_the_sum_of_its_containers_or_unknown() {
    let parse = |text: &str| serde_json::from_str::<PodMetrics>(text).unwrap().used();
    let whole = parse(
        r#"{"metadata":{"name":"a","namespace":"ns"},"timestamp":"2024-05-01T10:00:00Z","window":"15s",
            "containers":[{"name":"x","usage":{"cpu":"250m","memory":"1Ki"}},{"name":"y","usage":{"cpu":"1000000n","memory":"2"}}]}"#,
    );
    assert_eq!((whole.cores, whole.bytes), (Some(0.251), Some(1026.0)));
    let meshed = parse(
        r#"{"metadata":{"name":"a"},"containers":[{"name":"app","usage":{"cpu":"1500m"}},{"name":"istio-proxy","usage":{"cpu":"50m"}}]}"#,
    );
    assert_eq!(meshed.cores, Some(1.5), "fault L3: the proxy is left out");
    let gateway = parse(
        r#"{"metadata":{"name":"a"},"containers":[{"name":"istio-proxy","usage":{"cpu":"50m"}}]}"#,
    );
    assert_eq!(gateway.cores, Some(0.05));
    let part = parse(
        r#"{"metadata":{"name":"a"},"containers":[{"usage":{"cpu":"1"}},{"usage":{"cpu":"?"}}]}"#,
    );
    assert_eq!((part.cores, part.bytes), (None, None));
}
