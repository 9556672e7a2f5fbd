//! Aeraki's data plane: configurations against the messages of its proxies, and the defects of its control plane that
//! must not come back.

use std::collections::BTreeSet;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use trimtab_metaprotocol::output::Translation;
use trimtab_metaprotocol::proto;
use trimtab_metaprotocol::proto::generated::aeraki::meta_protocol_proxy as messages;
use trimtab_metaprotocol::translate::translate;

use crate::golden::{canonical, envoy_filters, input, load, names};

const FILTERS: &[&str] = &[
    "aeraki.meta_protocol.filters.local_ratelimit",
    "aeraki.meta_protocol.filters.ratelimit",
    "aeraki.meta_protocol.filters.metadata_exchange",
    "aeraki.meta_protocol.filters.istio_stats",
    "aeraki.meta_protocol.filters.router",
];

/// Every MetaProtocolProxy value, with the name of its object.
fn configs(out: &Translation) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for filter in envoy_filters(out) {
        for patch in filter["spec"]["configPatches"].as_array().expect("patches") {
            let value = &patch["patch"]["value"];
            if value["typed_config"]["type_url"] == proto::META_PROTOCOL_PROXY {
                assert_eq!(value["name"], proto::FILTER);
                let name = filter["metadata"]["name"].as_str().unwrap_or_default();
                found.push((name.to_owned(), value["typed_config"]["value"].clone()));
            }
        }
    }
    found
}

/// The configurations of one side: `outbound`, `inbound` or `gateway-outbound`.
fn side(out: &Translation, side: &str) -> Vec<Value> {
    let prefix = format!("aeraki-{side}-");
    configs(out)
        .into_iter()
        .filter(|(name, _)| name.starts_with(&prefix))
        .map(|(_, config)| config)
        .collect()
}

/// Reads a configuration as a proxy does; unknown fields and wrong types are errors.
fn read(config: &Value) -> Result<messages::v1alpha::MetaProtocolProxy, String> {
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).map_err(|e| e.to_string())?;
    let kind = pool
        .get_message_by_name("aeraki.meta_protocol_proxy.v1alpha.MetaProtocolProxy")
        .ok_or("the message is not among the descriptors")?;
    let message = DynamicMessage::deserialize(kind, config).map_err(|e| e.to_string())?;
    messages::v1alpha::MetaProtocolProxy::decode(message.encode_to_vec().as_slice())
        .map_err(|e| e.to_string())
}

#[test]
fn every_configuration_is_what_the_proxies_read_field_by_field() {
    use messages::v1alpha::meta_protocol_proxy::RouteSpecifier;
    let mut seen = 0;
    for name in names() {
        for (object, config) in configs(&load(&name)) {
            let what = format!("{name}, {object}");
            let message = read(&config).unwrap_or_else(|e| panic!("{what}: {e}"));
            seen += 1;
            assert!(!message.stat_prefix.is_empty(), "{what}");
            assert!(!message.application_protocol.is_empty(), "{what}");
            assert!(message.codec.is_some_and(|c| !c.name.is_empty()), "{what}");
            match message.route_specifier.expect("routes are required") {
                RouteSpecifier::Rds(rds) => {
                    assert!(!rds.route_config_name.is_empty(), "{what}");
                    assert!(rds.config_source.is_some(), "{what}");
                }
                RouteSpecifier::RouteConfig(routes) => {
                    assert!(routes.routes.iter().all(|r| r.route.is_some()), "{what}");
                }
            }
            let order: Vec<usize> = message
                .meta_protocol_filters
                .iter()
                .map(|f| {
                    check_limit(&what, f);
                    let known = FILTERS.iter().position(|n| *n == f.name);
                    known.unwrap_or_else(|| panic!("{what}: no proxy has {}", f.name))
                })
                .collect();
            assert!(
                order.is_sorted() && order.last() == Some(&4),
                "{what}: {order:?}"
            );
        }
    }
    assert!(seen > 80, "{seen} configurations");
}

/// What the filters check when they are loaded.
fn check_limit(what: &str, filter: &messages::v1alpha::MetaProtocolFilter) {
    use messages::filters::{local_ratelimit, ratelimit};
    let Some(any) = &filter.config else { return };
    if any.type_url == proto::LOCAL_RATE_LIMIT {
        let limit = local_ratelimit::v1alpha::LocalRateLimit::decode(any.value.as_slice()).unwrap();
        assert!(!limit.stat_prefix.is_empty(), "{what}");
        let conditions = limit.conditions.iter().map(|c| {
            assert!(c.r#match.is_some(), "{what}");
            c.token_bucket.expect("required")
        });
        for bucket in limit.token_bucket.into_iter().chain(conditions) {
            let interval = bucket.fill_interval.expect("required");
            assert!(
                interval.seconds > 0 || interval.nanos >= 50_000_000,
                "{what}"
            );
            assert!(bucket.max_tokens > 0, "{what}");
            assert!(
                bucket.tokens_per_fill.is_some_and(|t| t.value > 0),
                "{what}"
            );
        }
    } else if any.type_url == proto::RATE_LIMIT {
        let limit = ratelimit::v1alpha::RateLimit::decode(any.value.as_slice()).unwrap();
        assert!(limit.rate_limit_service.is_some(), "{what}");
        assert!(
            !limit.domain.is_empty() && !limit.descriptors.is_empty(),
            "{what}"
        );
        assert!(
            limit.r#match.is_some_and(|m| !m.metadata.is_empty()),
            "{what}: it would limit nothing"
        );
    } else {
        assert_eq!(any.type_url, proto::ISTIO_STATS, "{what}");
    }
}

#[test]
fn the_field_check_finds_what_proxies_would_refuse() {
    let config = side(&load("local-limit"), "inbound").remove(0);
    assert!(read(&config).is_ok());
    let mut unknown = config.clone();
    unknown["statsPrefix"] = json!("x");
    assert!(read(&unknown).unwrap_err().contains("statsPrefix"));
    let mut nested = config.clone();
    nested["metaProtocolFilters"][0]["config"]["tokens"] = json!(1);
    assert!(read(&nested).is_err(), "also inside an Any");
    let mut kind = config;
    kind["applicationProtocol"] = json!(7);
    assert!(read(&kind).is_err());
}

/// Listener names or destination ports that the patches of a side match.
fn places(out: &Translation, side: &str) -> BTreeSet<String> {
    let prefix = format!("aeraki-{side}-");
    let mut found = BTreeSet::new();
    for filter in envoy_filters(out) {
        if !filter["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .starts_with(&prefix)
        {
            continue;
        }
        for patch in filter["spec"]["configPatches"].as_array().unwrap() {
            let listener = &patch["match"]["listener"];
            assert_eq!(
                listener["filterChain"]["filter"]["name"],
                "envoy.filters.network.tcp_proxy"
            );
            let port = &listener["filterChain"]["destinationPort"];
            found.insert(match port.as_u64() {
                Some(port) => format!("{}:{port}", listener["name"].as_str().unwrap()),
                None => listener["name"].as_str().unwrap().to_owned(),
            });
        }
    }
    found
}

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|i| (*i).to_owned()).collect()
}

#[test]
fn the_inbound_side_matches_the_port_on_the_pods() {
    let out = load("target-port");
    assert_eq!(places(&out, "inbound"), set(&["virtualInbound:9090"]));
    let routes = &side(&out, "inbound")[0]["routeConfig"]["routes"];
    assert_eq!(routes[0]["route"]["cluster"], "inbound|9090||");
    let several = places(&load("target-ports-differ"), "inbound");
    assert_eq!(
        several,
        set(&["virtualInbound:9090", "virtualInbound:9091"])
    );
}

#[test]
fn every_address_of_a_service_is_matched() {
    let all = set(&["10.96.0.7_20880", "10.112.0.7_20880", "2001:db8::7_20880"]);
    assert_eq!(places(&load("every-address"), "outbound"), all);
    let pods = set(&["10.244.1.5_20880", "10.244.2.9_20880", "fd00::5_20880"]);
    assert_eq!(places(&load("headless"), "outbound"), pods);
}

#[test]
fn all_attributes_of_a_match_are_kept_in_order() {
    let out = load("routes");
    let routes = canonical(&out.resources[0].canonical);
    let headers = &routes["virtualHosts"][0]["routes"][0]["match"]["headers"];
    let names: Vec<&str> = headers
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|h| h["name"].as_str())
        .collect();
    assert_eq!(names, ["batchJob", "interface", "method", "tier"]);
    assert_eq!(headers[0]["presentMatch"], true);
}

#[test]
fn a_mistake_in_a_limit_never_deletes_filters_or_routes() {
    for name in ["bad-limit-keeps-filters", "bad-limit-without-last"] {
        let (bad, plain) = (load(name), load("default"));
        let objects = |o: &Translation| -> Vec<Option<String>> {
            o.envoy_filters
                .iter()
                .map(|f| f.metadata.name.clone())
                .collect()
        };
        assert_eq!(objects(&bad), objects(&plain), "{name}");
        assert!(!bad.retained && bad.resources.len() == 1, "{name}");
        assert!(
            bad.refusals
                .iter()
                .any(|r| r.problem.reason == "InvalidDuration"),
            "{name}"
        );
    }
    let kept = &side(&load("bad-limit-keeps-filters"), "inbound")[0]["metaProtocolFilters"][0];
    assert_eq!(
        kept["config"]["tokenBucket"]["maxTokens"], 9,
        "the last good limit holds"
    );
}

#[test]
fn one_bad_route_is_never_left_out_of_the_list() {
    let kept = load("bad-route-keeps-last-good");
    let routes = canonical(&kept.resources[0].canonical);
    let routes = routes["virtualHosts"][0]["routes"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(routes.len(), 1);
    assert_eq!(routes[0]["name"], "before");
    assert!(!kept.retained);
    let retained = load("bad-route-frozen");
    assert!(retained.retained && retained.resources.is_empty());
    assert!(
        !retained.envoy_filters.is_empty(),
        "filters stay, they do not hold the routes"
    );
}

#[test]
fn several_servers_of_a_gateway_each_get_a_filter_and_a_listener() {
    let out = load("gateway");
    assert_eq!(
        places(&out, "gateway-outbound"),
        set(&["0.0.0.0_20880", "0.0.0.0_30880"])
    );
    let ports: Vec<&Value> = out
        .virtual_services
        .iter()
        .map(|v| &v["spec"]["tcp"][0]["match"][0]["port"])
        .collect();
    assert_eq!(ports, [20880, 30880]);
    for service in &out.virtual_services {
        let to = &service["spec"]["tcp"][0]["route"][0]["destination"];
        assert_eq!(
            to["port"]["number"], 20880,
            "the service's port, not the server's"
        );
    }
    let limited = |o: &Translation, s: &str| {
        let text = json!(side(o, s)).to_string();
        text.contains("filters.local_ratelimit\"")
    };
    assert!(
        limited(&out, "inbound") && !limited(&out, "gateway-outbound"),
        "counted once"
    );
    let external = load("gateway-limits");
    assert!(
        limited(&external, "gateway-outbound"),
        "not dropped where there is no sidecar"
    );
    let taken = load("gateway-taken");
    assert_eq!(places(&taken, "gateway-outbound"), set(&["0.0.0.0_30880"]));
    assert!(
        taken
            .refusals
            .iter()
            .any(|r| r.problem.reason == "Conflict")
    );
}

#[test]
fn a_global_limit_without_a_match_limits_all_requests() {
    let filters = &side(&load("global-limit"), "inbound")[0]["metaProtocolFilters"];
    let config = &filters[0]["config"];
    assert_eq!(
        config["timeout"], "0.020s",
        "absent does not stop the controller"
    );
    let tests = config["match"]["metadata"].as_array().unwrap();
    assert_eq!(tests.len(), 2);
    assert!(tests.iter().all(|t| t["presentMatch"] == true));
}

#[test]
fn exports_limit_who_gets_the_routes() {
    let namespaces = |o: &Translation| -> BTreeSet<String> {
        o.envoy_filters
            .iter()
            .filter(|f| {
                f.metadata
                    .name
                    .as_deref()
                    .unwrap_or_default()
                    .contains("-outbound-")
            })
            .filter_map(|f| f.metadata.namespace.clone())
            .collect()
    };
    let some = load("export-to");
    assert_eq!(namespaces(&some), set(&["shop", "web"]));
    assert_eq!(some.resources[0].readers, Some(set(&["shop", "web"])));
    let all = load("export-to-all");
    assert_eq!(namespaces(&all), set(&["istio-system"]));
    assert_eq!(all.resources[0].readers, None);
    let none = load("export-to-none");
    assert!(namespaces(&none).is_empty() && none.envoy_filters.len() == 1);
    let invalid = load("export-to-invalid");
    assert_eq!(
        namespaces(&invalid),
        set(&["shop"]),
        "narrowed, not widened"
    );
}

#[test]
fn only_proxies_with_the_filter_are_configured() {
    for filter in envoy_filters(&load("aeraki-proxies-only")) {
        assert_eq!(
            filter["spec"]["workloadSelector"]["labels"]["proxy"],
            "meta"
        );
        for patch in filter["spec"]["configPatches"].as_array().unwrap() {
            assert_eq!(
                patch["match"]["proxy"]["metadata"]["PROXY_KIND"],
                "meta-protocol"
            );
        }
    }
}

#[test]
fn one_change_touches_one_resource_and_nothing_else() {
    let before = input("routes");
    let mut after = before.clone();
    let router = after.router.as_mut().unwrap();
    router.routes[3].destinations[0].weight = 80;
    router.routes[3].destinations[1].weight = 20;
    router.owner.generation += 1;
    let (a, b) = (translate(&before), translate(&after));
    assert_eq!(
        envoy_filters(&a),
        envoy_filters(&b),
        "no object is written, no listener drains"
    );
    assert_ne!(a.resources[0].version(), b.resources[0].version());
}

#[test]
fn a_port_name_without_a_protocol_is_refused_and_named() {
    for (case, reason) in [
        ("port-name-too-short", "InvalidPortName"),
        ("unknown-protocol", "UnknownProtocol"),
    ] {
        let out = load(case);
        assert!(out.envoy_filters.is_empty() && out.retained, "{case}");
        assert_eq!(out.refusals[0].problem.reason, reason);
    }
}
