//! What Aeraki's proxies look for: the chart has what the program prints, with what values say put in.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use trimtab::config::Config;
use trimtab_metaprotocol::bootstrap::{CONFIG_MAP, KEY, XdsServer, text};

use crate::helm::{chart, configuration, object, objects, render};

fn files() -> [(PathBuf, String); 2] {
    [("plain.json", false), ("tls.json", true)].map(|(name, tls)| {
        let server = XdsServer {
            cluster: "XDS-CLUSTER".to_owned(),
            host: "XDS-HOST".to_owned(),
            port: 65_000,
            tls,
        };
        (
            chart("trimtab").join("files/aeraki").join(name),
            text(&server) + "\n",
        )
    })
}

/// Writes the files anew.
pub(crate) fn write() {
    for (path, text) in files() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
        std::fs::write(path, text).expect("a file is written");
    }
}

#[test]
fn the_files_are_what_the_program_makes() {
    crate::copies::refresh();
    for (path, text) in files() {
        let have = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            have,
            text,
            "{}; to fix: UPDATE_EXPECT=1 cargo test -p trimtab-tests --test charts",
            path.display()
        );
    }
}

fn parsed(map: &Value) -> Value {
    serde_json::from_str(map["data"][KEY].as_str().expect("the key")).expect("JSON")
}

/// What `trimtab aeraki-bootstrap` prints.
fn printed(args: &[&str]) -> Value {
    let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
    let cli = trimtab::aeraki::AerakiBootstrapArgs::of(&args).expect("arguments");
    let printed = cli.text(&Config::default()).expect("text");
    objects(&printed).remove(0)
}

#[test]
fn fault_m19_aerakis_proxies_find_the_name_and_the_config_map() {
    assert!(!render("trimtab", &[]).unwrap().contains("aeraki-bootstrap"));
    let on = [
        "--set",
        "aeraki.enabled=true,config.xds.plaintext=true",
        "--set",
        "aeraki.namespaces={shop,edge}",
    ];
    let text = render("trimtab", &on).unwrap();
    let service = object(&text, "Service", "aeraki");
    let own = object(&text, "Service", "trimtab");
    assert_eq!(service["metadata"]["namespace"], "istio-system");
    assert_eq!(service["spec"]["selector"], own["spec"]["selector"]);
    assert_eq!(
        service["spec"]["ports"],
        json!([{"name": "grpc-xds", "port": 15010, "targetPort": "grpc-xds", "protocol": "TCP"}])
    );
    let maps: Vec<Value> = objects(&text)
        .into_iter()
        .filter(|o| o["metadata"]["name"] == CONFIG_MAP)
        .collect();
    let namespaces: Vec<&Value> = maps.iter().map(|m| &m["metadata"]["namespace"]).collect();
    assert_eq!(namespaces, ["edge", "shop"]);
    for map in &maps {
        let namespace = map["metadata"]["namespace"].as_str().unwrap();
        assert_eq!(parsed(map), parsed(&printed(&[namespace])));
    }
    let address = "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
    assert_eq!(
        parsed(&maps[0]).pointer(address),
        Some(&json!({"address": "aeraki.istio-system", "port_value": 15010}))
    );
}

/// Otherwise the server would ask for TLS and a token, and the bootstrap would have neither.
#[test]
fn fault_o19_aerakis_proxies_need_a_transport_that_they_have() {
    let error = render("trimtab", &["--set", "aeraki.enabled=true"]).unwrap_err();
    assert!(error.contains("tls.secretName"), "{error}");
    assert!(error.contains("config.xds.plaintext"), "{error}");
}

#[test]
fn fault_m19_tls_is_by_a_secret_and_the_proxies_own_certificates() {
    let on = [
        "--set",
        "aeraki.enabled=true,aeraki.namespaces={shop},tls.secretName=trimtab-tls,tls.trustDomains={cluster.local}",
    ];
    let rendered = render("trimtab", &on).unwrap();
    let config: Config = serde_saphyr::from_str(&configuration(&rendered)).unwrap();
    let tls = config.xds.tls.expect("TLS");
    assert_eq!(tls.trust_domains, ["cluster.local"]);
    let pod = &object(&rendered, "Deployment", "trimtab")["spec"]["template"]["spec"];
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    let mount = mounts.iter().find(|m| m["name"] == "tls").expect("a mount");
    for file in [&tls.certificate, &tls.key, &tls.client_ca] {
        assert!(
            file.starts_with(mount["mountPath"].as_str().unwrap()),
            "{}",
            file.display()
        );
    }
    let volumes = pod["volumes"].as_array().unwrap();
    assert!(
        volumes.contains(&json!({"name": "tls", "secret": {"secretName": "trimtab-tls"}})),
        "{volumes:?}"
    );
    let map = object(&rendered, "ConfigMap", CONFIG_MAP);
    assert_eq!(parsed(&map), parsed(&printed(&["shop", "--tls"])));
    assert!(
        parsed(&map)
            .pointer("/static_resources/clusters/0/transport_socket")
            .is_some()
    );
}

/// A sidecar merges the text into its bootstrap, as Envoy merges `--config-yaml`.
#[test]
fn fault_m19_a_real_envoy_takes_the_bootstrap() {
    let envoy = trimtab_lab::envoy::find().expect("Envoy");
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("aeraki-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let base = json!({
        "node": {"id": "sidecar~10.0.0.1~a.shop~shop.svc.cluster.local", "cluster": "a.shop"},
        "static_resources": {"clusters": [{
            "name": "sds-grpc", "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "sds-grpc", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": "./sock"}}}}]}]},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}}}},
        }]},
    });
    let file = folder.join("bootstrap.json");
    std::fs::write(&file, base.to_string()).unwrap();
    for args in [
        &["shop"][..],
        &["shop", "--tls"],
        &["shop", "--xds", "127.0.0.1:15010"],
    ] {
        let custom = parsed(&printed(args)).to_string();
        let output = Command::new(&envoy)
            .args(["--mode", "validate", "-c"])
            .arg(&file)
            .args(["--config-yaml", &custom])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let _ = std::fs::remove_dir_all(folder);
}
