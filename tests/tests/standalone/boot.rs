//! Bootstraps: a real Envoy takes them, and reaches the server by them.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use trimtab_dataplane::{BootstrapOptions, XdsTls, bootstrap};
use trimtab_lab::envoy::{self, Envoy};
use trimtab_xds::{Audience, CDS, ResourceCache, Scope, Security, ServerOptions, TlsFiles};

use crate::http::case;
use crate::lab::{NODE, folder, options, server, until};

#[test]
fn a_real_envoy_takes_every_kind_of_bootstrap() {
    for (xds, group) in [
        ("127.0.0.1:15010", None),
        ("[::1]:15010", Some("edge")),
        ("trimtab.example.com:15010", None),
    ] {
        let mut options = BootstrapOptions::new(NODE, xds.parse().expect("an address"));
        options.group = group.map(str::to_owned);
        let config = bootstrap(&options);
        if let Err(reason) = envoy::validate(&config) {
            panic!("{xds}: {reason}");
        }
        let address = &config["admin"]["address"]["socket_address"]["address"];
        assert_eq!(
            address, "127.0.0.1",
            "the admin interface is not for others"
        );
    }
}

fn objects() -> crate::cases::Case {
    case(vec![
        serde_json::json!({"kind": "Service", "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"ports": [{"name": "tcp", "port": 17999}]}}),
    ])
}

fn holds(cache: &ResourceCache, name: &str) -> bool {
    let node = cache.node(NODE);
    let subscriptions = node.into_iter().flat_map(|n| n.subscriptions);
    let mut clusters = subscriptions
        .filter(|s| s.type_url == CDS)
        .flat_map(|s| s.resources);
    clusters.any(|r| r.name == name && r.current.is_some() && r.is_synced())
}

#[tokio::test]
async fn a_proxy_gets_what_is_for_its_group() {
    let cache = ResourceCache::new();
    let case = objects();
    let served = case.served(None);
    cache.update_all(served.updates(None, &Scope::only([Audience::Group("edge".into())])));
    cache.mark_ready();
    let (address, _stop) = server(&cache, ServerOptions::default()).await;
    let cluster = "outbound|17999||a.shop.svc.cluster.local";
    for (group, expected) in [("other", false), ("edge", true)] {
        let mut options = options(address);
        options.group = Some(group.to_owned());
        let mut config = bootstrap(&options);
        // Nothing is called here.
        config["dynamic_resources"]["lds_config"] = serde_json::Value::Null;
        let envoy = Envoy::start(&config, &folder(&format!("group-{group}")))
            .await
            .expect("a proxy");
        until("it is connected", || cache.node(NODE).is_some()).await;
        if expected {
            until("it has the cluster", || holds(&cache, cluster)).await;
        }
        // A proxy is ready when it has been told of all clusters.
        assert_eq!(holds(&cache, cluster), expected, "{group}");
        drop(envoy);
        until("it is gone", || cache.node(NODE).is_none()).await;
    }
}

/// The identity of the proxy.
const IDENTITY: &str = "spiffe://mesh.test/ns/shop/sa/edge";

/// Files of one authority: its certificate, and those of a server on 127.0.0.1 and of the proxy with their keys.
fn certificates(folder: &Path) -> (PathBuf, [PathBuf; 2], [PathBuf; 2]) {
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(vec![]).expect("parameters");
    // A name of its own: Envoy takes a certificate with the issuer's name for one that signed itself.
    ca.distinguished_name.push(DnType::CommonName, "root");
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = write("ca.pem", ca.self_signed(&key).expect("a certificate").pem());
    let issuer = Issuer::new(ca, key);
    let issue = |name: &str, alternative: SanType, usage| {
        let mut params = CertificateParams::new(vec![]).expect("parameters");
        params.extended_key_usages = vec![usage];
        params.subject_alt_names.push(alternative);
        let key = KeyPair::generate().expect("a key");
        let made = params.signed_by(&key, &issuer).expect("a certificate");
        [
            write(&format!("{name}.pem"), made.pem()),
            write(&format!("{name}.key"), key.serialize_pem()),
        ]
    };
    let address = SanType::IpAddress([127, 0, 0, 1].into());
    let identity = SanType::URI(IDENTITY.try_into().expect("a URI"));
    let server = issue("server", address, ExtendedKeyUsagePurpose::ServerAuth);
    let proxy = issue("proxy", identity, ExtendedKeyUsagePurpose::ClientAuth);
    (root, server, proxy)
}

#[tokio::test]
async fn a_proxy_with_a_certificate_reaches_a_server_with_one() {
    let folder = folder("tls");
    let (root, [certificate, key], [own, own_key]) = certificates(&folder);
    let cache = ResourceCache::new();
    let case = objects();
    cache.update_all(case.served(None).updates(None, &Scope::All));
    cache.mark_ready();
    let secured = ServerOptions {
        security: Security::Certificates(TlsFiles::new(certificate, key, root.clone())),
        ..ServerOptions::default()
    };
    let (address, _stop) = server(&cache, secured).await;
    let mut options = options(address);
    options.tls = Some(XdsTls {
        ca: root,
        certificate: own,
        key: own_key,
        server_name: None,
    });
    let mut config = bootstrap(&options);
    config["dynamic_resources"]["lds_config"] = serde_json::Value::Null;
    let _envoy = Envoy::start(&config, &folder).await.expect("a proxy");
    let cluster = "outbound|17999||a.shop.svc.cluster.local";
    until("it has the cluster", || holds(&cache, cluster)).await;
    let identity = cache.node(NODE).and_then(|n| n.identity);
    assert_eq!(identity.as_deref(), Some(IDENTITY));
}
