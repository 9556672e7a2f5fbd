//! Who sees what, and who tells of it.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType;
use serde_json::json;
use tokio::net::TcpStream;
use trimtab_dataplane::{LINGER, Listen, Snapshot, snapshot};
use trimtab_lab::http::{KeepAlive, Request, send};
use trimtab_lab::ports::loopback;
use trimtab_xds::{CDS, EDS, LDS, RDS};

use super::{Lab, Mesh, host, mesh, say};
use crate::cases::Case;
use crate::http::pod;
use crate::lab::{Fixture, until};
use crate::logs::Receiver;

const GROUP: &str = "shop/web-1";

/// A mesh where nothing runs.
fn quiet() -> Mesh {
    Mesh {
        http: 80,
        tcp: 81,
        servers: vec![("a", loopback(1)), ("b", loopback(2))],
        bytes: loopback(3),
        calls: None,
        limits: Vec::new(),
        more: Vec::new(),
        pod: [127, 79, 8, 1].into(),
        fallbacks: vec![[127, 79, 8, 10].into()],
        log: None,
    }
}

#[tokio::test]
async fn access_logs_tell_which_pod_called_what_before_the_call_has_ended() {
    let (a, b) = (pod("a").await, pod("b").await);
    let servers = vec![("a", a.address()), ("b", b.address())];
    let receiver = Receiver::start().await;
    let mut mesh = mesh(4, servers, 1).await;
    mesh.log = Some(receiver.address());
    let lab = Lab::start("logs", mesh, &["a"]).await;
    let mut held = KeepAlive::connect(lab.http()).await.expect("the proxy");
    assert_eq!(lab.call(&mut held, "a").await, "a");
    assert_eq!(lab.call(&mut held, "b").await, "b");
    let mut bytes = TcpStream::connect(lab.tcp()).await.expect("the proxy");
    say(&mut bytes, "one").await;
    until("both are told", || {
        let seen = receiver.seen();
        let of = |what: &str, at| seen.iter().any(|s| s.what == what && s.at == at);
        let tcp = format!("{}:{}", host("bytes"), lab.mesh.tcp);
        of(&host("b"), AccessLogType::DownstreamStart)
            && of(&host("b"), AccessLogType::DownstreamEnd)
            && of(&tcp, AccessLogType::TcpUpstreamConnected)
    })
    .await;
    for entry in receiver.seen() {
        assert_eq!(entry.from, lab.mesh.pod.to_string(), "{entry:?}");
        assert_eq!(entry.log, "trimtab");
        assert_ne!(entry.what, host("a"), "it is called directly");
    }
    // The connection is still open.
    say(&mut bytes, "two").await;
}

#[tokio::test]
async fn other_proxies_see_all_and_nothing_that_is_for_pods_or_the_fallback() {
    let (a, b) = (pod("a").await, pod("b").await);
    let servers = vec![("a", a.address()), ("b", b.address())];
    let mut mesh = mesh(5, servers, 1).await;
    mesh.log = Some(loopback(1));
    let snapshot = mesh.seeing(&["a"]).snapshot(None);
    let updates = snapshot.updates(None);
    let fixture = Fixture::start_with("other", |cache| {
        cache.update_all(updates);
    })
    .await;
    for type_url in [CDS, LDS, RDS] {
        for name in snapshot.everyone().names(type_url) {
            fixture.until_held(type_url, name).await;
        }
    }
    let node = fixture.cache.node(crate::lab::NODE).expect("the proxy");
    let held = node.subscriptions.iter().flat_map(|s| &s.resources);
    let names: Vec<&str> = held
        .filter(|r| r.current.is_some())
        .map(|r| r.name.as_str())
        .collect();
    assert!(names.len() > 6, "{names:?}");
    let own = mesh.pod.to_string();
    let foreign = |n: &&str| n.contains("trimtab") || n.contains(&own);
    assert_eq!(names.iter().find(|n| foreign(n)), None);
    let at = loopback(mesh.http);
    for name in ["a", "b"] {
        let answer = send(at, &Request::get("/").header("host", &host(name))).await;
        assert_eq!(answer.expect("an answer").body.trim(), name);
    }
}

#[test]
fn clusters_go_some_time_after_their_last_route() {
    let case = |seen: &[&str]| quiet().seeing(seen).input().0;
    let start = Instant::now();
    let all = snapshot(&case(&["a", "bytes"]), None, start);
    let less = snapshot(&case(&["bytes"]), Some(&all), start);
    let a = format!("outbound|80||{}", host("a"));
    let has = |snapshot: &Snapshot, type_url: &'static str| {
        let own = snapshot.of_group(GROUP).expect("what it is served");
        own.names(type_url).any(|n| n == a)
    };
    assert!(has(&less, CDS) && has(&less, EDS));
    let due = less.due().expect("a time");
    assert_eq!(due, start + LINGER);
    // A change in between does not put it off.
    let early = due.checked_sub(Duration::from_millis(1)).expect("a time");
    let again = snapshot(&case(&[]), Some(&less), early);
    assert!(has(&again, CDS));
    assert_eq!(again.due(), Some(due));
    let gone = snapshot(&case(&[]), Some(&again), due);
    assert!(!has(&gone, CDS) && !has(&gone, EDS));
    let back = snapshot(&case(&["a"]), Some(&again), early);
    let kept = snapshot(&case(&["a"]), Some(&back), due + LINGER);
    assert!(has(&kept, CDS), "it is used again");
}

#[test]
fn a_change_of_one_scope_changes_nothing_of_others() {
    let of = |seen: &[&str]| {
        let mut case = quiet().seeing(seen);
        let mut other = case.pod_labels[0].clone();
        other.name = "other".into();
        other.labels.clear();
        other.address = Some([127, 79, 8, 2].into());
        case.pod_labels.push(other);
        case.objects.push(
            json!({"kind": "Sidecar", "metadata": {"name": "default", "namespace": "shop"},
            "spec": {"egress": [{"hosts": ["*/*"]}]}}),
        );
        case.snapshot(None)
    };
    let (before, after) = (of(&[]), of(&["a", "bytes"]));
    let changed: Vec<String> = after
        .updates(Some(&before))
        .into_iter()
        .flat_map(|u| u.set.into_iter().map(|s| s.resource.name).chain(u.remove))
        .collect();
    let changed: BTreeSet<&str> = changed.iter().map(String::as_str).collect();
    let names = [
        "127.79.8.1_80".to_owned(),
        format!("outbound|80||{}", host("a")),
        format!("outbound|81||{}", host("bytes")),
        // Endpoints of what was in the place of that cluster.
        "trimtab-fallback|81".to_owned(),
    ];
    assert_eq!(changed, names.iter().map(String::as_str).collect());
    let same = of(&[]).updates(Some(&before));
    assert!(same.iter().all(|u| u.set.is_empty() && u.remove.is_empty()));
}

#[test]
fn pods_that_cannot_be_told_apart_from_others_see_all() {
    let groups = |case: &Case| {
        let (input, problems) = case.input();
        let reasons: Vec<&str> = problems.iter().map(|p| p.reason).collect();
        let pods: Vec<String> = input.pods.iter().map(|p| p.name.clone()).collect();
        (pods, reasons.join(" "))
    };
    let good = quiet().seeing(&["a"]);
    assert_eq!(groups(&good), (vec!["web-1".to_owned()], String::new()));
    let mut without = good.clone();
    without.fallback = None;
    assert_eq!(groups(&without), (vec![], "NotFollowed".to_owned()));
    let mut elsewhere = good.clone();
    elsewhere.listen = Listen::Addresses;
    assert_eq!(groups(&elsewhere), (vec![], "NotFollowed".to_owned()));
    for (address, reason) in [
        (None, "NoAddress"),
        (Some([127, 79, 8, 10].into()), "AddressInUse"),
        (Some(Ipv6Addr::LOCALHOST.into()), "NoFallback"),
    ] {
        let mut case = good.clone();
        case.pod_labels[0].address = address;
        assert_eq!(groups(&case), (vec![], reason.to_owned()));
    }
    let mut twice = good.clone();
    let mut second = twice.pod_labels[0].clone();
    second.name = "web-2".into();
    twice.pod_labels.push(second);
    let first = vec!["web-1".to_owned()];
    assert_eq!(groups(&twice), (first, "AddressInUse".to_owned()));
}

#[test]
fn a_world_made_from_the_one_before_is_the_same_as_one_made_anew() {
    let of = |seen: &[&str]| quiet().seeing(seen).input().0;
    let start = Instant::now();
    let mut last = snapshot(&of(&["a"]), None, start);
    let mut time = start;
    for seen in [vec![], vec!["a", "bytes"], vec!["b"], vec!["b"], vec![]] {
        time += 2 * LINGER;
        last = snapshot(&of(&seen), Some(&last), time);
        // And once more, for what was kept for a while.
        time += 2 * LINGER;
        last = snapshot(&of(&seen), Some(&last), time);
        assert_eq!(last.due(), None);
        let anew = snapshot(&of(&seen), None, start);
        let differences = anew.updates(Some(&last));
        assert!(
            differences
                .iter()
                .all(|u| u.set.is_empty() && u.remove.is_empty())
        );
    }
}
