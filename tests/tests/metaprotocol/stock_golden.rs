//! Every golden case of the stock filters on a real Envoy: it accepts what is in the objects and what goes over xDS.

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::filters::network::{
    dubbo_proxy, generic_proxy, thrift_proxy,
};
use prost::Message;
use serde_json::{Value, json};
use trimtab_lab::envoy;
use trimtab_metaprotocol::input::Delivery;
use trimtab_metaprotocol::output::Translation;
use trimtab_xds::{DRDS, ECDS, GENERIC_RDS, TRDS};

use crate::golden::{canonical, envoy_filters, input, load, names};
use crate::lab::Mesh;

/// Cases that stock proxies have something of.
fn cases() -> Vec<String> {
    let stock = |name: &String| {
        ["thrift-", "dubbo-", "generic-", "redis-", "zookeeper-"]
            .iter()
            .any(|p| name.starts_with(p))
            && load(name).programs.iter().any(|p| !p.target.is_aeraki())
    };
    names().into_iter().filter(stock).collect()
}

/// The objects for stock proxies.
fn stock(out: &Translation) -> Vec<Value> {
    let aeraki = |f: &Value| f.to_string().contains("meta_protocol_proxy");
    envoy_filters(out)
        .into_iter()
        .filter(|f| !aeraki(f))
        .collect()
}

fn mesh(name: &str) -> Mesh {
    let input = input(name);
    let mut mesh = Mesh::default();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let own = input.own_cluster();
    mesh.outbound(input.port.number, &own);
    mesh.cluster(&own, nowhere);
    for port in input.port.on_pods() {
        mesh.inbound(port);
        mesh.cluster(&format!("inbound|{port}||"), nowhere);
    }
    mesh.cluster("outbound|8081||limits.shop.svc.cluster.local", nowhere);
    mesh
}

#[test]
fn envoy_accepts_every_object() {
    let cases = cases();
    assert!(cases.len() >= 15, "{cases:?}");
    for name in cases {
        let made = load(&name);
        let without_files = |text: String| text.replace("/etc/secrets/shop/", "/dev/null?");
        let config =
            mesh(&name).bootstrap(&stock(&made), Some(SocketAddr::from(([127, 0, 0, 1], 1))));
        let config = without_files(config.to_string());
        if config.contains("/dev/null?") {
            // The files of Secrets are not here; a test of Redis has them.
            continue;
        }
        let config: Value = serde_json::from_str(&config).expect("JSON");
        if let Err(reason) = envoy::validate(&config) {
            panic!("{name}: {reason}");
        }
    }
}

/// What ECDS delivers stands in the chain instead of the request for it.
#[test]
fn envoy_accepts_every_filter_that_goes_over_ecds() {
    let mut seen = 0;
    for name in cases() {
        let made = load(&name);
        for resource in made.resources.iter().filter(|r| r.type_url == ECDS) {
            let content = canonical(&resource.canonical);
            let text = content.to_string();
            if text.contains("/etc/secrets/") {
                continue;
            }
            let mut typed = content["typedConfig"].clone();
            let url = typed["typeUrl"].take();
            typed = json!({"@type": typed["@type"], "type_url": url, "value": typed["value"]});
            let mut filters = stock(&made);
            for filter in &mut filters {
                for patch in filter["spec"]["configPatches"]
                    .as_array_mut()
                    .expect("patches")
                {
                    let value = &mut patch["patch"]["value"];
                    if value["name"] == resource.name.as_str() {
                        *value = json!({"name": "x", "typed_config": typed});
                        seen += 1;
                    }
                }
            }
            let config = mesh(&name).bootstrap(&filters, None);
            if let Err(reason) = envoy::validate(&config) {
                panic!("{name}: {reason}");
            }
        }
    }
    assert!(seen >= 3, "{seen}");
}

/// The bodies are Envoy's messages, with the name that is asked for.
#[test]
fn bodies_are_envoys_messages() {
    let mut seen = 0;
    for name in cases() {
        for resource in load(&name).resources {
            let body = resource.body.as_slice();
            let found = match resource.type_url.as_str() {
                TRDS => thrift_proxy::v3::RouteConfiguration::decode(body).map(|m| m.name),
                DRDS => dubbo_proxy::v3::MultipleRouteConfiguration::decode(body).map(|m| m.name),
                GENERIC_RDS => generic_proxy::v3::RouteConfiguration::decode(body).map(|m| m.name),
                ECDS => TypedExtensionConfig::decode(body).map(|m| m.name),
                _ => continue,
            };
            assert_eq!(found.as_deref(), Ok(resource.name.as_str()), "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
}

#[test]
fn programs_say_filter_and_delivery() {
    for (name, delivery) in [
        ("thrift-default", Delivery::Ecds),
        ("thrift-route-discovery", Delivery::RouteDiscovery),
        ("thrift-inline", Delivery::Inline),
        ("redis-default", Delivery::Inline),
        ("zookeeper-default", Delivery::Inline),
    ] {
        let programs = load(name).programs;
        assert_eq!(programs.len(), 1, "{name}");
        assert_eq!(programs[0].delivery, delivery, "{name}");
    }
}
