//! Translation is total and deterministic: no input of the right shape stops it, and equal inputs give equal bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use proptest::prelude::*;
use prost::Message;
use trimtab_metaprotocol::input::{
    DataPlane, Destination, Endpoint, GatewayBinding, GlobalRateLimit, HostFacts, KeyValue,
    LimitCondition, LimitDescriptor, LocalRateLimit, Mirror, Port, Protocol, Retries, Route,
    Router, ServicePortInput, Settings, Source, SubsetFacts, TokenBucket, ValueMatch,
    WeightedDestination,
};
use trimtab_metaprotocol::owner::Owner;
use trimtab_metaprotocol::proto;
use trimtab_metaprotocol::span::Span;
use trimtab_metaprotocol::translate::translate;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "",
            "*",
            ".",
            "~",
            "method",
            "interface",
            "a.shop.svc.cluster.local",
            "v1",
            "[",
            "outbound|80||a.b",
            "1.2.3.4",
            "a b",
            "\0",
            "é",
            "a\nb",
            "shop",
            "argument[0]",
        ])
        .prop_map(str::to_owned),
        ".{0,12}",
    ]
}

fn span() -> impl Strategy<Value = Span> {
    prop_oneof![
        prop::sample::select(vec!["100ms", "1s", "0", "49ms", "-1s", "x", "99999999999h"])
            .prop_map(Span::new),
        ".{0,6}".prop_map(Span::new),
    ]
}

fn matches() -> impl Strategy<Value = BTreeMap<String, ValueMatch>> {
    let value = prop_oneof![
        text().prop_map(ValueMatch::Exact),
        text().prop_map(ValueMatch::Prefix),
        text().prop_map(ValueMatch::Regex),
        Just(ValueMatch::Present),
    ];
    prop::collection::btree_map(text(), value, 0..3)
}

fn destination() -> impl Strategy<Value = Destination> {
    (text(), text(), prop::option::of(any::<u16>())).prop_map(|(host, subset, port)| Destination {
        host,
        subset,
        port,
    })
}

fn key_values() -> impl Strategy<Value = Vec<KeyValue>> {
    let one = (text(), text()).prop_map(|(key, value)| KeyValue { key, value });
    prop::collection::vec(one, 0..3)
}

fn route() -> impl Strategy<Value = Route> {
    let weighted =
        (destination(), any::<u32>()).prop_map(|(destination, weight)| WeightedDestination {
            destination,
            weight,
        });
    let mirror = (destination(), any::<f64>()).prop_map(|(destination, percent)| Mirror {
        destination,
        percent,
    });
    (
        (text(), matches(), prop::collection::vec(weighted, 0..3)),
        prop::option::of(mirror),
        (key_values(), key_values()),
        prop::option::of(span()),
        prop::option::of(any::<u32>()),
    )
        .prop_map(
            |((name, matches, destinations), mirror, mutations, timeout, attempts)| Route {
                name,
                matches,
                destinations,
                mirror,
                request_mutation: mutations.0,
                response_mutation: mutations.1,
                timeout,
                retries: attempts.map(|attempts| Retries { attempts }),
                ..Route::default()
            },
        )
}

fn bucket() -> impl Strategy<Value = TokenBucket> {
    (any::<u32>(), any::<u32>(), span()).prop_map(|(max_tokens, tokens_per_fill, fill_interval)| {
        TokenBucket {
            max_tokens,
            tokens_per_fill,
            fill_interval,
        }
    })
}

fn local() -> impl Strategy<Value = LocalRateLimit> {
    let condition =
        (matches(), bucket()).prop_map(|(matches, bucket)| LimitCondition { matches, bucket });
    (
        prop::option::of(bucket()),
        prop::collection::vec(condition, 0..3),
    )
        .prop_map(|(bucket, conditions)| LocalRateLimit { bucket, conditions })
}

fn global() -> impl Strategy<Value = GlobalRateLimit> {
    let descriptor = (text(), text()).prop_map(|(property, descriptor_key)| LimitDescriptor {
        property,
        descriptor_key,
    });
    (
        prop::option::of(matches()),
        text(),
        prop::option::of(span()),
        any::<bool>(),
        text(),
        prop::collection::vec(descriptor, 0..3),
    )
        .prop_map(
            |(matches, domain, timeout, deny_on_fail, cluster, descriptors)| GlobalRateLimit {
                matches,
                domain,
                timeout,
                deny_on_fail,
                cluster,
                descriptors,
            },
        )
}

fn router() -> impl Strategy<Value = Router> {
    (
        prop::collection::vec(route(), 0..3),
        prop::option::of(local()),
        prop::option::of(global()),
        prop::collection::vec(text(), 0..3),
    )
        .prop_map(
            |(routes, local_rate_limit, global_rate_limit, export_to)| Router {
                owner: Owner {
                    kind: "MetaRouter".to_owned(),
                    namespace: "shop".to_owned(),
                    name: "r".to_owned(),
                    ..Owner::default()
                },
                routes,
                local_rate_limit,
                global_rate_limit,
                export_to,
                gateways: Vec::new(),
            },
        )
}

fn protocol() -> impl Strategy<Value = Protocol> {
    let codec = prop::sample::select(vec![
        None,
        Some("aeraki.meta_protocol.codec.dubbo"),
        Some("aeraki.meta_protocol.codec.thrift"),
        Some("own"),
    ]);
    prop_oneof![
        4 => (text(), codec, any::<bool>()).prop_map(|(application_protocol, codec, multiplexing)| {
            Protocol::MetaProtocol {
                application_protocol,
                codec: codec.map(str::to_owned),
                multiplexing,
            }
        }),
        1 => prop::sample::select(vec![
            Protocol::Dubbo, Protocol::Thrift, Protocol::Redis, Protocol::Zookeeper, Protocol::Kafka,
        ]),
    ]
}

fn input() -> impl Strategy<Value = ServicePortInput> {
    let planes = prop::collection::btree_set(
        prop::sample::select(vec![DataPlane::Aeraki, DataPlane::Envoy]),
        0..3,
    );
    let gateway = (text(), any::<u16>()).prop_map(|(name, port)| GatewayBinding {
        namespace: "edge".to_owned(),
        name,
        selector: BTreeMap::new(),
        port,
        taken_by: None,
    });
    (
        (text(), protocol(), any::<u16>()),
        prop::collection::vec(any::<IpAddr>(), 0..3),
        prop::option::of(router()),
        prop::option::of(router()),
        (any::<bool>(), any::<bool>(), planes),
        prop::collection::vec(gateway, 0..2),
    )
        .prop_map(assemble)
}

type Parts = (
    (String, Protocol, u16),
    Vec<IpAddr>,
    Option<Router>,
    Option<Router>,
    (bool, bool, BTreeSet<DataPlane>),
    Vec<GatewayBinding>,
);

fn assemble(parts: Parts) -> ServicePortInput {
    let (what, vips, router, last, flags, gateways) = parts;
    let (host, protocol, number) = what;
    let (headless, selected, planes) = flags;
    let facts = HostFacts {
        misread: <_>::default(),
        ports: BTreeMap::from([(number, "tcp".to_owned())]),
        hash_attribute: Some("user".to_owned()),
        subsets: BTreeMap::from([("v1".to_owned(), SubsetFacts::default())]),
    };
    let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
    ServicePortInput {
        hosts: BTreeMap::from([
            (host.clone(), facts.clone()),
            ("a.shop.svc.cluster.local".to_owned(), facts),
        ]),
        host,
        namespace: "shop".to_owned(),
        service: "a".to_owned(),
        source: Source::Service,
        port: Port {
            number,
            targets: vec![],
            name: "tcp-metaprotocol-x".to_owned(),
        },
        protocol,
        endpoints: vips
            .iter()
            .map(|a| Endpoint {
                address: *a,
                port: 1,
            })
            .collect(),
        vips,
        headless,
        visible_to: None,
        closed: <_>::default(),
        workload_selector: if selected { labels } else { BTreeMap::new() },
        router,
        last_good: last.map(Box::new),
        gateways,
        redis: None,
        redis_destinations: BTreeMap::new(),
        dubbo_policies: Vec::new(),
        settings: Arc::new(Settings {
            data_planes: planes,
            ..Settings::default()
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_input_stops_it_and_what_it_gives_can_be_used(input in input()) {
        let out = translate(&input);
        for resource in out.resources.iter().filter(|r| r.type_url == proto::HTTP_ROUTES) {
            let routes = RouteConfiguration::decode(resource.body.as_slice()).unwrap();
            prop_assert_eq!(&routes.name, &resource.name);
            prop_assert_eq!(routes.virtual_hosts.len(), 1);
            prop_assert!(!routes.virtual_hosts[0].routes.is_empty());
        }
        for filter in &out.envoy_filters {
            let name = filter.metadata.name.as_deref().unwrap_or_default();
            prop_assert!(name.len() <= 253 && !name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-'), "{}", name);
            prop_assert!(!filter.spec.config_patches.is_empty());
        }
        for refusal in &out.refusals {
            prop_assert!(!refusal.problem.message.is_empty());
        }
        prop_assert!(!out.retained || out.refusals.iter().any(|r| r.blocks_routes), "frozen without a reason");
    }

    #[test]
    fn the_same_input_gives_the_same_bytes_whatever_the_order_of_addresses(input in input()) {
        let mut turned = input.clone();
        turned.vips.reverse();
        turned.endpoints.reverse();
        let (a, b) = (translate(&input), translate(&turned));
        prop_assert_eq!(
            serde_json::to_string(&a.envoy_filters).unwrap(),
            serde_json::to_string(&b.envoy_filters).unwrap()
        );
        prop_assert_eq!(a.resources, b.resources);
    }
}
