//! A status says when a limit can be on no proxy.

use std::time::Duration;

use serde_json::{Value, json};
use trimtab_crds::limiter::DescriptorState;
use trimtab_kit::answers::Outcome;
use trimtab_kit::engine::Engine as _;
use trimtab_limiter::index::V1alpha2;
use trimtab_limiter::input::Proxies;
use trimtab_limiter::status::{Report, status as status_of};
use trimtab_mesh::model::{DestinationRule, Namespace, Pod, Service, ServiceEntry, VirtualService};
use trimtab_xds::{Delivery, ECDS};

use crate::fixture::{Fixture, limiter, one};
use crate::truth::{http, matched, meshed, message, plain, pod, service, status, told};

#[tokio::test]
async fn fault_l7_a_limit_that_no_proxy_can_hold_is_no_limit() {
    let alone = json!({"containers": [{"name": "cart"}]});
    let args =
        |role: &str| json!({"containers": [{"name": "istio-proxy", "args": ["proxy", role]}]});
    let annotated = |name: &str, value: &str| json!({"annotations": {name: value}});
    let none = json!({});
    for (metadata, spec, words) in [
        (
            none.clone(),
            alone.clone(),
            "without the container istio-proxy",
        ),
        (
            none.clone(),
            json!({"hostNetwork": true, "containers": [{"name": "istio-proxy"}]}),
            "on the host's network",
        ),
        (
            annotated("ambient.istio.io/redirection", "enabled"),
            alone,
            "ambient mode",
        ),
        (none.clone(), args("waypoint"), "a waypoint"),
        (none, args("router"), "a gateway, which needs gateway: true"),
        (
            annotated("traffic.sidecar.istio.io/excludeInboundPorts", "8080"),
            meshed(),
            "excludeInboundPorts",
        ),
        (
            annotated("traffic.sidecar.istio.io/includeInboundPorts", "9000"),
            meshed(),
            "includeInboundPorts",
        ),
    ] {
        for delivery in ["EnvoyFilter", "ECDS"] {
            let fixture = Fixture::new();
            fixture.put::<Service>(http());
            fixture.put::<Pod>(pod("cart-0", &metadata, &spec));
            let mut limiter = one("true", "10");
            limiter["delivery"] = json!(delivery);
            fixture.limiter("cart", 1, &limiter);
            let status = status(&fixture).await;
            assert_eq!(told(&status, "Programmed"), "False NoProxy", "{words}");
            assert_eq!(told(&status, "Ready"), "False NoProxy", "{words}");
            let why = message(&status, "Programmed");
            assert!(why.contains(words), "{words}: {why}");
            assert_eq!(status.state.as_deref(), Some("NoProxy"), "{words}");
            assert_eq!(status.descriptors[0].state, DescriptorState::NoProxy);
            assert_eq!(fixture.view("cart").state, "NoProxy");
        }
    }
}

#[tokio::test]
async fn fault_l7_what_is_programmed_follows_the_pods() {
    let fixture = Fixture::new();
    fixture.put::<Service>(http());
    let alone = json!({"containers": [{"name": "cart"}]});
    fixture.put::<Pod>(pod("cart-0", &json!({}), &meshed()));
    fixture.limiter("cart", 1, &one("true", "10"));
    let first = status(&fixture).await;
    assert_eq!(told(&first, "Programmed"), "True Programmed");
    assert!(message(&first, "Programmed").contains("1 Ready pods"));
    assert_eq!(first.state.as_deref(), Some("Limiting"));
    fixture.put::<Pod>(pod("cart-1", &json!({}), &alone));
    let second = status(&fixture).await;
    assert_eq!(told(&second, "Programmed"), "False PartiallyProgrammed");
    let why = message(&second, "Programmed");
    assert!(why.contains("1 of 2 Ready pods limit"), "{why}");
    assert_eq!(second.state.as_deref(), Some("Limiting"));
    fixture.delete::<Pod>(pod("cart-0", &json!({}), &meshed()));
    let third = status(&fixture).await;
    assert_eq!(told(&third, "Programmed"), "False NoProxy");
    fixture.delete::<Pod>(pod("cart-1", &json!({}), &alone));
    let none = status(&fixture).await;
    assert_eq!(told(&none, "Programmed"), "Unknown NoPods");
    assert_eq!(told(&none, "Ready"), "True NoPods");
}

#[tokio::test]
async fn fault_l7_a_port_without_http_is_refused() {
    for (port, words) in [
        (json!({"name": "tcp-cart", "port": 7000}), "carries TCP"),
        (
            json!({"name": "http", "port": 53, "protocol": "UDP"}),
            "UDP",
        ),
        (json!({"name": "https", "port": 443}), "TLS"),
        (
            json!({"name": "web", "port": 80, "appProtocol": "tcp"}),
            "carries TCP",
        ),
        (json!({"name": "redis", "port": 6379}), "carries TCP"),
    ] {
        let number = port["port"].clone();
        for target in [json!({}), json!({"port": number})] {
            let fixture = Fixture::new();
            fixture.put::<Service>(service(&port));
            fixture.put::<Pod>(pod("cart-0", &json!({}), &meshed()));
            let mut limiter = one("true", "10");
            limiter["target"] = target;
            fixture.limiter("cart", 1, &limiter);
            let status = status(&fixture).await;
            for kind in ["Accepted", "Programmed", "Ready"] {
                assert_eq!(told(&status, kind), "False PortNotHTTP", "{port}");
            }
            let why = message(&status, "Accepted");
            assert!(why.contains(words), "{port}: {why}");
            assert_eq!(status.state.as_deref(), Some("Refused"));
        }
    }
    for port in [
        json!({"port": 80}),
        json!({"name": "grpc-cart", "port": 80}),
        json!({"name": "tcp", "port": 80, "appProtocol": "kubernetes.io/h2c"}),
    ] {
        let fixture = Fixture::new();
        fixture.put::<Service>(service(&port));
        fixture.put::<Pod>(pod("cart-0", &json!({}), &meshed()));
        fixture.limiter("cart", 1, &one("true", "10"));
        let status = status(&fixture).await;
        assert_eq!(told(&status, "Ready"), "True Ready", "{port}");
    }
}

/// A limiter of the calls of `cart` to a host.
fn outbound(host: &str, port: Option<i64>) -> Value {
    let mut limiter = one("true", "10");
    limiter["target"] = json!({"direction": "outbound", "host": [host]});
    if let Some(port) = port {
        limiter["target"]["port"] = json!(port);
    }
    limiter
}

#[tokio::test]
async fn fault_l7_hosts_that_no_proxy_has() {
    for (host, port, words) in [
        (
            "stock",
            Some(80),
            "write \"stock.default.svc.cluster.local:80\"",
        ),
        ("stock.default.svc.cluster.local", None, "<host>:<port>"),
        (
            "stock.default.svc.cluster.local:81",
            None,
            "no port 81: use 80 or 7000",
        ),
        ("stock.default.svc.cluster.local:7000", None, "carries TCP"),
        (
            "nobody.example.com:443",
            None,
            "no Service, ServiceEntry or VirtualService",
        ),
        ("pay.example.com:8443", None, "has no port 8443"),
    ] {
        let fixture = hosts();
        fixture.limiter("cart", 1, &outbound(host, port));
        let status = status(&fixture).await;
        for kind in ["Programmed", "Ready"] {
            assert_eq!(told(&status, kind), "False NoSuchVirtualHost", "{host}");
        }
        let why = message(&status, "Programmed");
        assert!(why.contains(words), "{host}: {why}");
        assert_eq!(status.state.as_deref(), Some("NoProxy"), "{host}");
    }
    for (host, port) in [
        ("stock.default.svc.cluster.local", Some(80)),
        ("stock.default.svc.cluster.local:80", None),
        ("pay.example.com", Some(80)),
        ("routed.example.com:80", None),
        ("allow_any", None),
    ] {
        let fixture = hosts();
        fixture.limiter("cart", 1, &outbound(host, port));
        let status = status(&fixture).await;
        assert_eq!(told(&status, "Ready"), "True Ready", "{host}");
    }
    for url in [
        "https://pay.example.com/v1",
        "pay.example.com/v1",
        "pay example.com",
    ] {
        let fixture = hosts();
        fixture.limiter("cart", 1, &outbound(url, Some(443)));
        let status = status(&fixture).await;
        assert_eq!(told(&status, "Accepted"), "False InvalidTarget", "{url}");
    }
}

/// What [`outbound`] may name.
fn hosts() -> Fixture {
    let fixture = Fixture::new();
    fixture.put::<Service>(http());
    fixture.put::<Pod>(pod("cart-0", &json!({}), &meshed()));
    fixture.put::<Service>(json!({"metadata": {"namespace": "default", "name": "stock"},
        "spec": {"selector": {"app": "stock"}, "ports": [{"name": "http", "port": 80}, {"name": "tcp-x", "port": 7000}]}}));
    fixture.put::<ServiceEntry>(json!({"metadata": {"namespace": "default", "name": "pay"},
        "spec": {"hosts": ["pay.example.com"], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]}}));
    fixture.put::<VirtualService>(
        json!({"metadata": {"namespace": "default", "name": "routed"},
        "spec": {"hosts": ["routed.example.com"]}}),
    );
    fixture
}

#[tokio::test]
async fn fault_l7_a_host_that_comes_later_is_noticed() {
    let fixture = hosts();
    fixture.limiter("cart", 1, &outbound("late.example.com:80", None));
    let first = status(&fixture).await;
    assert_eq!(told(&first, "Ready"), "False NoSuchVirtualHost");
    let rule = json!({"metadata": {"namespace": "default", "name": "late"},
        "spec": {"hosts": ["late.example.com"]}});
    fixture.put::<VirtualService>(rule.clone());
    assert_eq!(told(&status(&fixture).await, "Ready"), "True Ready");
    fixture.delete::<VirtualService>(rule);
    let last = status(&fixture).await;
    assert_eq!(told(&last, "Ready"), "False NoSuchVirtualHost");
    fixture.put::<ServiceEntry>(json!({"metadata": {"namespace": "other", "name": "late"},
        "spec": {"hosts": ["late.example.com"], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]}}));
    assert_eq!(told(&status(&fixture).await, "Ready"), "True Ready");
}

#[tokio::test]
async fn fault_l7_delivery_ecds_counts_the_proxies_that_ask() {
    let fixture = Fixture::new();
    fixture.put::<Service>(http());
    for name in ["cart-0", "cart-1"] {
        fixture.put::<Pod>(pod(name, &json!({}), &meshed()));
    }
    let mut limiter = one("true", "10");
    limiter["delivery"] = json!("ECDS");
    fixture.limiter("cart", 1, &limiter);
    let first = status(&fixture).await;
    assert_eq!(told(&first, "Programmed"), "False NoProxy");
    assert_eq!(first.state.as_deref(), Some("NoProxy"));
    let name = fixture.cache.names(ECDS).pop().expect("a value");
    let version = fixture.cache.get(ECDS, &name).expect("it").version.clone();
    let has_it = |stream: u64, node: &str| Delivery::Acked {
        stream,
        node: node.to_owned(),
        type_url: ECDS.to_owned(),
        name: name.clone(),
        version: version.clone(),
        latency: Duration::ZERO,
    };
    fixture.answers.take(&has_it(1, "cart-0"));
    let second = status(&fixture).await;
    assert_eq!(told(&second, "Programmed"), "False PartiallyProgrammed");
    let why = message(&second, "Programmed");
    assert!(why.contains("1 of 2 proxies"), "{why}");
    assert_eq!(second.state.as_deref(), Some("Limiting"));
    fixture.answers.take(&has_it(2, "cart-1"));
    let third = status(&fixture).await;
    assert_eq!(told(&third, "Programmed"), "True Programmed");
    assert!(message(&third, "Programmed").starts_with("2 of 2 connected proxies have it"));
}

#[tokio::test]
async fn fault_l7_matches_that_no_request_has() {
    for (matcher, words) in [
        (
            json!({"name": ":method", "exact_match": "get"}),
            "write GET",
        ),
        (
            json!({"name": ":path", "exact_match": "list"}),
            "write /list",
        ),
        (
            json!({"name": ":path", "prefix_match": "https://shop/list"}),
            "write /list",
        ),
    ] {
        let status = matched(&matcher).await;
        assert_eq!(told(&status, "Accepted"), "False InvalidMatch", "{matcher}");
        let why = message(&status, "Accepted");
        assert!(why.contains(words), "{matcher}: {why}");
    }
    for name in ["method", "Path", "authority"] {
        let matcher = json!({"name": name, "exact_match": "x"});
        let status = matched(&matcher).await;
        assert_eq!(told(&status, "Accepted"), "True AcceptedWithRemarks");
        assert_eq!(told(&status, "Ready"), "True AcceptedWithRemarks");
        let wanted = format!("write \":{}\"", name.to_lowercase());
        assert!(message(&status, "Ready").contains(&wanted), "{name}");
    }
    let mapped = json!({"matchSource": "SourceIpMatch", "exact_match": "::ffff:10.0.0.1,::ffff:10.1.0.0/112"});
    let fixture = plain(&mapped);
    fixture.tick(1).await;
    let desired = fixture.jobs().into_values().find_map(|job| job.desired);
    let text = serde_json::to_string(&desired).expect("JSON");
    assert!(
        text.contains("10.0.0.1") && text.contains("10.1.0.0"),
        "{text}"
    );
    assert!(!text.contains("ffff"), "{text}");
}

#[tokio::test]
async fn fault_l7_a_subset_without_pods_is_told() {
    let fixture = Fixture::new();
    fixture.put::<Service>(http());
    fixture.put::<Pod>(pod("cart-0", &json!({}), &meshed()));
    fixture.put::<DestinationRule>(json!({"metadata": {"namespace": "default", "name": "cart"},
        "spec": {"host": "cart", "subsets": [{"name": "v2", "labels": {"version": "v2"}}]}}));
    let mut limiter = one("true", "10");
    limiter["sets"]["v2"] = limiter["sets"]["_base"].clone();
    fixture.limiter("cart", 1, &limiter);
    let status = status(&fixture).await;
    assert_eq!(told(&status, "Programmed"), "Unknown NoPods");
    assert!(message(&status, "Programmed").contains("set v2 has no Ready pods"));
}

#[tokio::test]
async fn fault_l7_a_port_that_an_older_service_has_is_told() {
    let fixture = Fixture::new();
    let dated = |name: &str, port: u16, year: u16| {
        let mut object = service(&json!({"name": "http", "port": port, "targetPort": 8080}));
        object["metadata"]["name"] = json!(name);
        object["metadata"]["creationTimestamp"] = json!(format!("{year}-01-01T00:00:00Z"));
        object
    };
    fixture.put::<Service>(dated("cart", 81, 2021));
    fixture.put::<Pod>(pod("cart-0", &json!({}), &meshed()));
    let mut limiter = one("true", "10");
    limiter["target"] = json!({"port": 81});
    fixture.limiter("cart", 1, &limiter);
    assert_eq!(told(&status(&fixture).await, "Ready"), "True Ready");
    fixture.put::<Service>(dated("newer", 80, 2022));
    fixture.put::<Service>(dated("older", 80, 2020));
    let hidden = status(&fixture).await;
    assert_eq!(told(&hidden, "Programmed"), "False NoSuchVirtualHost");
    let why = message(&hidden, "Programmed");
    assert!(why.contains("Service older"), "{why}");
    fixture.delete::<Service>(dated("older", 80, 2020));
    assert_eq!(told(&status(&fixture).await, "Ready"), "True Ready");
}

#[tokio::test]
async fn fault_l7_ambient_by_the_label_of_a_namespace() {
    let fixture = Fixture::new();
    let namespace = |labels: Value| json!({"metadata": {"name": "default", "labels": labels}});
    fixture.put::<Namespace>(namespace(json!({})));
    fixture.put::<Service>(http());
    let alone = json!({"containers": [{"name": "cart"}]});
    fixture.put::<Pod>(pod("cart-0", &json!({}), &alone));
    fixture.limiter("cart", 1, &one("true", "10"));
    fixture.tick(60).await;
    let why = message(&status(&fixture).await, "Programmed");
    assert!(why.contains("without the container istio-proxy"), "{why}");
    fixture.put::<Namespace>(namespace(json!({"istio.io/dataplane-mode": "ambient"})));
    fixture.tick(60).await;
    let why = message(&status(&fixture).await, "Programmed");
    assert!(why.contains("in ambient mode"), "{why}");
    let own = json!({"labels": {"app": "cart", "istio.io/dataplane-mode": "none"}});
    fixture.put::<Pod>(pod("cart-0", &own, &alone));
    fixture.tick(60).await;
    let why = message(&status(&fixture).await, "Programmed");
    assert!(why.contains("without the container istio-proxy"), "{why}");
    fixture.put::<Pod>(pod("cart-0", &json!({}), &meshed()));
    assert_eq!(
        told(&status(&fixture).await, "Programmed"),
        "True Programmed"
    );
}

#[test]
fn standalone_a_limit_that_no_proxy_is_there_to_hold_says_so_first() {
    let mut input = crate::cases::input("ecds-limiting");
    std::sync::Arc::make_mut(&mut input.settings).proxies = Proxies::Plain;
    let case = crate::cases::Case::of(input);
    let now = jiff::Timestamp::UNIX_EPOCH;
    let of = |report: &Report<'_>| {
        let (input, validated) = (&case.input, &case.validated);
        status_of(input, validated, &case.decisions, report, &[], now)
    };
    let alone = of(&Report::default());
    assert_eq!(alone.state.as_deref(), Some("Limiting"));
    let reason = alone.reason.unwrap_or_default();
    let begin = "no proxy is connected that is served it; decided: {cpu}>0.8 holds";
    assert!(reason.starts_with(begin), "{reason}");
    let programmed = Outcome {
        proxies: 1,
        holding: 1,
        ..Outcome::default()
    };
    let held = of(&Report {
        programmed,
        ..Report::default()
    });
    let reason = held.reason.unwrap_or_default();
    assert!(reason.starts_with("{cpu}>0.8 holds"), "{reason}");
}

#[tokio::test]
async fn what_is_said_of_pods_is_not_said_twice_after_a_restart() {
    let service = json!({"metadata": {"namespace": "default", "name": "a"}, "spec": {"selector": {"app": "a"}}});
    let text = |fixture: &Fixture| fixture.view("a").reason;
    let before = Fixture::new();
    before.put::<Service>(service.clone());
    before.source.set("cpu", 0.9);
    before.limiter("a", 1, &one("{cpu}>0.8", "5"));
    before.tick(1).await;
    let told = text(&before);
    let begin = "set _base has no Ready pods, so nothing holds it; decided: {cpu}>0.8 holds";
    assert!(told.starts_with(begin), "{told}");
    let status = before.jobs().into_values().find_map(|job| job.status);

    let after = Fixture::new();
    after.put::<Service>(service);
    let mut object = limiter("a", 1, &one("{cpu}>0.8", "5"));
    object["status"] = json!(status.expect("a status"));
    after.put::<V1alpha2>(object);
    after.engine.absorb();
    assert_eq!(text(&after), told, "before the first sample");
}
