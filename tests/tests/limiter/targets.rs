//! Each target kind and strategy on a real Envoy: the target is limited, its neighbours are free.

use trimtab_crds::limiter::Delivery;
use trimtab_lab::envoy::Envoy;
use trimtab_lab::http::Request;

use crate::cases;
use crate::lab::{Mesh, RATINGS, SECOND, drive_case, folder, free, limited, pod, tally};

const BOTH: [Delivery; 2] = [Delivery::EnvoyFilter, Delivery::Ecds];

fn to(host: &str, path: &str) -> Request {
    Request::get(path).header("host", host)
}

#[tokio::test]
async fn an_inbound_port() {
    for delivery in BOTH {
        let driven = drive_case("target-inbound-port", delivery).await;
        limited("9080", driven.mesh.inbound, &Request::get("/")).await;
        free("9090", driven.mesh.other, &Request::get("/")).await;
        free("outbound", driven.mesh.outbound, &to(RATINGS, "/")).await;
    }
}

#[tokio::test]
async fn a_port_of_the_service() {
    for delivery in BOTH {
        let driven = drive_case("target-service-port", delivery).await;
        limited("80", driven.mesh.service, &Request::get("/")).await;
        free("8080", driven.mesh.service, &to(SECOND, "/")).await;
        free("9080", driven.mesh.inbound, &Request::get("/")).await;
    }
}

#[tokio::test]
async fn a_port_of_the_workload_means_the_ports_of_the_service() {
    for delivery in BOTH {
        let driven = drive_case("target-workload-port", delivery).await;
        limited("80", driven.mesh.service, &Request::get("/")).await;
        limited("8080", driven.mesh.service, &to(SECOND, "/")).await;
        free("9080", driven.mesh.inbound, &Request::get("/")).await;
    }
}

#[tokio::test]
async fn a_port_that_is_written_twice_counts_once() {
    for delivery in BOTH {
        let driven = drive_case("target-host-with-port", delivery).await;
        limited("the host", driven.mesh.outbound, &to(RATINGS, "/")).await;
        limited("the route", driven.mesh.outbound, &to(RATINGS, "/slow")).await;
    }
}

#[tokio::test]
async fn all_inbound_ports() {
    for delivery in BOTH {
        let driven = drive_case("target-all-ports", delivery).await;
        // Buckets belong to a route's or a listener's configuration, so each port has its own.
        limited("9080", driven.mesh.inbound, &Request::get("/")).await;
        limited("9090", driven.mesh.other, &Request::get("/")).await;
        free("outbound", driven.mesh.outbound, &to(RATINGS, "/")).await;
    }
}

#[tokio::test]
async fn a_port_and_all_ports_in_one_limiter() {
    for delivery in BOTH {
        let driven = drive_case("target-overlap", delivery).await;
        let free_tier = Request::get("/").header("tier", "free");
        assert_eq!(
            tally(driven.mesh.inbound, 3, &free_tier, 429).await,
            (2, 1),
            "the rule of the port by {delivery:?}"
        );
        // A request of the narrow rule is a request of the wide rule too.
        let others = tally(driven.mesh.inbound, 6, &Request::get("/"), 429).await;
        assert!(
            others == (2, 4) || others == (1, 5),
            "the rule of all ports by {delivery:?}: {others:?}"
        );
    }
}

#[tokio::test]
async fn an_own_target_replaces_the_shared_one() {
    let driven = drive_case("target-spec", Delivery::EnvoyFilter).await;
    limited("9080", driven.mesh.inbound, &Request::get("/")).await;
    assert_eq!(
        tally(driven.mesh.other, 5, &Request::get("/"), 429).await,
        (3, 2)
    );
}

#[tokio::test]
async fn an_outbound_route() {
    for (case, delivery) in [
        ("target-outbound-route", Delivery::EnvoyFilter),
        ("target-outbound-route", Delivery::Ecds),
    ] {
        let driven = drive_case(case, delivery).await;
        limited(case, driven.mesh.outbound, &to(RATINGS, "/slow")).await;
        free("another route", driven.mesh.outbound, &to(RATINGS, "/")).await;
        free("inbound", driven.mesh.inbound, &Request::get("/")).await;
    }
}

#[tokio::test]
async fn an_outbound_route_of_any_host() {
    let driven = drive_case("target-outbound-route-any-host", Delivery::EnvoyFilter).await;
    limited("the route", driven.mesh.outbound, &to(RATINGS, "/slow")).await;
    free("another route", driven.mesh.outbound, &to(RATINGS, "/")).await;
}

#[tokio::test]
async fn an_outbound_host() {
    for delivery in BOTH {
        let driven = drive_case("target-outbound-host", delivery).await;
        assert_eq!(
            tally(driven.mesh.outbound, 1, &to(RATINGS, "/slow"), 429).await,
            (1, 0)
        );
        assert_eq!(
            tally(driven.mesh.outbound, 3, &to(RATINGS, "/"), 429).await,
            (1, 2),
            "the routes of a host share its bucket"
        );
        let details = to("details.default.svc.cluster.local:9080", "/");
        free("another host", driven.mesh.outbound, &details).await;
    }
}

#[tokio::test]
async fn a_gateway_route() {
    for delivery in BOTH {
        let driven = drive_case("gateway-route", delivery).await;
        limited(
            "the route",
            driven.mesh.gateway,
            &to("a.example.com", "/slow"),
        )
        .await;
        free(
            "another route",
            driven.mesh.gateway,
            &to("a.example.com", "/"),
        )
        .await;
        free(
            "another host",
            driven.mesh.gateway,
            &to("b.example.com", "/slow"),
        )
        .await;
    }
}

#[tokio::test]
async fn gateway_hosts_have_a_bucket_each() {
    for delivery in BOTH {
        let driven = drive_case("gateway-host", delivery).await;
        limited("a", driven.mesh.gateway, &to("a.example.com", "/")).await;
        limited("b", driven.mesh.gateway, &to("b.example.com", "/")).await;
    }
}

#[tokio::test]
async fn a_gateway_shares_an_average() {
    let driven = drive_case("gateway-average", Delivery::EnvoyFilter).await;
    assert_eq!(
        tally(driven.mesh.gateway, 5, &to("a.example.com", "/"), 429).await,
        (1, 4),
        "3 a minute: one each 20 s"
    );
}

#[tokio::test]
async fn the_workloads_of_a_service_entry_and_of_a_selector() {
    for case in ["service-entry", "workload-selector"] {
        let driven = drive_case(case, Delivery::EnvoyFilter).await;
        assert_eq!(
            tally(driven.mesh.inbound, 4, &Request::get("/"), 429).await,
            (1, 3),
            "{case}: 2 a minute, one each 30 s"
        );
    }
}

#[tokio::test]
async fn an_average_is_shared_by_the_pods() {
    for case in ["average-total", "average-divided"] {
        for delivery in BOTH {
            // Two pods of the service: 5 becomes 3 in 72 s for each, one each 24 s.
            let pods = [
                drive_case(case, delivery).await,
                drive_case(case, delivery).await,
            ];
            for driven in &pods {
                assert_eq!(
                    tally(driven.mesh.inbound, 5, &Request::get("/"), 429).await,
                    (1, 4),
                    "{case} by {delivery:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_pod_of_a_subset_has_both_limits_and_others_have_one() {
    let mut input = cases::input("subset");
    // Fixed, so that buckets have their whole quotas.
    for descriptor in input.spec.sets.values_mut().flatten() {
        descriptor.action.quota = descriptor.action.quota.replace("/{pod}", "");
    }
    let filters = cases::Case::of(input).envoy_filters();
    let pod = pod().await;
    // The order in which Istio applies objects of one age is that of their names; neither order may matter.
    for (i, order) in [[0, 1], [1, 0]].iter().enumerate() {
        let mesh = Mesh::new(pod.address());
        let ordered: Vec<_> = order.iter().map(|n| filters[*n].clone()).collect();
        let _envoy = Envoy::start(&mesh.merged(&ordered), &folder(&format!("subset-{i}")))
            .await
            .unwrap();
        assert_eq!(
            tally(mesh.inbound, 6, &Request::get("/"), 429).await,
            (3, 3),
            "a pod of the subset, order {order:?}"
        );
    }
    let mesh = Mesh::new(pod.address());
    let _envoy = Envoy::start(&mesh.merged(&filters[..1]), &folder("subset-base"))
        .await
        .unwrap();
    assert_eq!(
        tally(mesh.inbound, 6, &Request::get("/"), 429).await,
        (4, 2),
        "any other pod"
    );
}

#[tokio::test]
async fn a_written_zero_refuses_everything() {
    for delivery in BOTH {
        let driven = drive_case("quota-zero", delivery).await;
        assert_eq!(
            tally(driven.mesh.inbound, 3, &Request::get("/"), 429).await,
            (0, 3)
        );
        assert_eq!(driven.pod.requests(), 0);
    }
}

#[tokio::test]
async fn a_huge_quota_limits_nothing() {
    for delivery in BOTH {
        let driven = drive_case("quota-huge", delivery).await;
        assert_eq!(
            tally(driven.mesh.inbound, 50, &Request::get("/"), 429).await,
            (50, 0)
        );
    }
}

#[tokio::test]
async fn no_matching_request_meets_the_default_bucket() {
    // Slime's default bucket is a ceiling of 100000 requests per second for everything else; ours is none.
    let driven = drive_case("match-header-exact", Delivery::EnvoyFilter).await;
    assert_eq!(
        tally(driven.mesh.inbound, 200, &Request::get("/"), 429).await,
        (200, 0)
    );
}

#[tokio::test]
async fn two_limiters_of_one_gateway_do_not_disturb_each_other() {
    let (a, mut other) = (cases::load("gateway-average"), cases::input("gateway-host"));
    other.owner.name = "gw-b".to_owned();
    for descriptor in other.spec.sets.values_mut().flatten() {
        descriptor.target.as_mut().unwrap().host = vec!["b.example.com:80".to_owned()];
    }
    let mut filters = a.envoy_filters();
    filters.extend(cases::Case::of(other).envoy_filters());
    assert_eq!(filters.len(), 2);
    let pod = pod().await;
    let mesh = Mesh::new(pod.address());
    let _envoy = Envoy::start(&mesh.merged(&filters), &folder("two-limiters"))
        .await
        .unwrap();
    assert_eq!(
        tally(mesh.gateway, 5, &to("a.example.com", "/"), 429).await,
        (1, 4),
        "no request counts twice"
    );
    limited("b", mesh.gateway, &to("b.example.com", "/")).await;
}

#[tokio::test]
async fn limiters_of_two_services_with_the_same_pods_both_hold() {
    let (a, mut other) = (cases::load("single"), cases::input("single"));
    other.owner.name = "other".to_owned();
    other.target.shared = true;
    // Three a minute by one, two by the other: with one filter name the later would replace the earlier.
    let tokens = |input: &mut trimtab_limiter::input::LimiterInput, quota: &str| {
        for descriptor in input.spec.sets.values_mut().flatten() {
            descriptor.action.quota = quota.to_owned();
            descriptor.action.fill_interval = Some(trimtab_crds::limiter::FillInterval {
                seconds: 60,
                nanos: 0,
            });
        }
    };
    for (first, second, passed) in [("3", "5", 3), ("5", "2", 2)] {
        let (mut one, mut two) = (a.input.clone(), other.clone());
        tokens(&mut one, first);
        tokens(&mut two, second);
        let mut filters = cases::Case::of(one).envoy_filters();
        filters.extend(cases::Case::of(two).envoy_filters());
        let pod = pod().await;
        let mesh = Mesh::new(pod.address());
        let dir = folder(&format!("same-pods-{passed}"));
        let _envoy = Envoy::start(&mesh.merged(&filters), &dir).await.unwrap();
        assert_eq!(
            tally(mesh.inbound, 8, &Request::get("/"), 429).await,
            (passed, 8 - passed),
            "the tighter of {first} and {second} holds, and no request counts twice"
        );
    }
}

#[tokio::test]
async fn a_filter_that_the_user_inserts_is_used() {
    let mut filters = cases::load("insert-disabled").envoy_filters();
    let inserting = cases::load("target-all-ports").envoy_filters();
    let is_insertion = |patch: &&serde_json::Value| patch["applyTo"] == "HTTP_FILTER";
    let count = |filter: &serde_json::Value| {
        filter["spec"]["configPatches"]
            .as_array()
            .unwrap()
            .iter()
            .filter(is_insertion)
            .count()
    };
    assert_eq!((count(&filters[0]), count(&inserting[0])), (0, 1));
    let mut users = inserting[0].clone();
    users["metadata"]["name"] = serde_json::json!("users");
    users["spec"]["configPatches"]
        .as_array_mut()
        .unwrap()
        .retain(|patch| is_insertion(&patch));
    filters.insert(0, users);
    let pod = pod().await;
    let mesh = Mesh::new(pod.address());
    let _envoy = Envoy::start(&mesh.merged(&filters), &folder("users-filter"))
        .await
        .unwrap();
    limited("inbound", mesh.inbound, &Request::get("/")).await;
}
