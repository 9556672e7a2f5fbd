//! Mutual TLS with real certificates.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;
use tonic::{Code, Status};
use trimtab_xds::{
    Audience, ECDS, ResourceCache, Scope, Security, ServeError, ServerOptions, Stats, TlsFiles,
    serve_with,
};

use crate::certs::{Authority, Files, Pair};
use crate::client::{ADS, Sotw, ack, ask, listed, node, resource, scoped};
use crate::common::{Server, wait_until};

const CART: &str = "spiffe://mesh.test/ns/shop/sa/cart";
const TELLER: &str = "spiffe://mesh.test/ns/bank/sa/teller";

async fn start(tls: TlsFiles) -> Server {
    let cache = ResourceCache::new();
    cache.mark_ready();
    let options = ServerOptions {
        security: Security::Certificates(tls),
        ..ServerOptions::default()
    };
    Server::start_as(cache, options).await
}

fn client_config(authority: &str, pair: Option<&Pair>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM");
    roots.add(root).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match pair {
        Some(pair) => {
            let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
            let chain = chain.collect::<Result<_, _>>().expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A stream over TLS. In TLS 1.3 a client hears of its refusal only with the first answer.
async fn stream(server: &Server, authority: &str, pair: Option<&Pair>) -> Result<Sotw, Status> {
    let channel = secure(server, authority, pair).await?;
    Sotw::open(channel, ADS).await
}

pub async fn secure(
    server: &Server,
    authority: &str,
    pair: Option<&Pair>,
) -> Result<Channel, Status> {
    let connector = TlsConnector::from(Arc::new(client_config(authority, pair)));
    let addr = server.addr;
    let connect = tower::service_fn(move |_: tonic::transport::Uri| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(addr).await?;
            let name = ServerName::from(addr.ip());
            let tls = connector.connect(name, tcp).await?;
            Ok::<_, std::io::Error>(TokioIo::new(tls))
        }
    });
    Channel::from_static("http://xds.test")
        .connect_with_connector(connect)
        .await
        .map_err(|error| Status::unavailable(error.to_string()))
}

#[tokio::test]
async fn a_client_sees_what_the_namespace_of_its_certificate_may_see() {
    let authority = Authority::new();
    let files = Files::new();
    files.fill(&authority.server(), &authority.pem);
    let server = start(files.tls()).await;
    let only = |namespace: &str| Scope::only([Audience::Namespace(namespace.into())]);
    let teller = Scope::only([Audience::Spiffe(TELLER.into())]);
    let group = Scope::only([Audience::Group("bank".into())]);
    server.cache.update_scoped(
        ECDS,
        vec![
            scoped("a", "shop", only("shop")),
            scoped("a", "bank", only("bank")),
            scoped("b", "teller", teller),
            scoped("c", "claimed", group),
        ],
        &[],
    );
    for (uri, expected) in [(CART, vec!["a@shop"]), (TELLER, vec!["a@bank", "b@teller"])] {
        let pair = authority.client(&[uri]);
        let mut client = stream(&server, &authority.pem, Some(&pair))
            .await
            .expect("a stream");
        // The cluster of the node is only a claim, and no claim opens a resource beside a certificate.
        client.send(ask(node("n", "bank"), ECDS, &["a", "b", "c"]));
        assert_eq!(listed(&client.next().await), expected, "{uri}");
        let view = server.cache.node("n").expect("a connected node");
        assert_eq!(view.identity.as_deref(), Some(uri));
        drop(client);
        wait_until("it is gone", || server.cache.nodes().is_empty()).await;
    }
    let pair = authority.client(&[CART]);
    let mut liar = stream(&server, &authority.pem, Some(&pair))
        .await
        .expect("a stream");
    liar.send(ask(node("sidecar~10.0.0.1~p-1.bank~x", ""), ECDS, &["a"]));
    let status = liar.fail().await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    server.stop().await;
}

#[tokio::test]
async fn a_client_without_the_right_certificate_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let files = Files::new();
    files.fill(&authority.server(), &authority.pem);
    let server = start(TlsFiles {
        trust_domains: vec!["mesh.test".to_owned()],
        ..files.tls()
    })
    .await;
    let refused = [
        ("none", None),
        ("of another authority", Some(stranger.client(&[CART]))),
        ("without a SPIFFE ID", Some(authority.client(&[]))),
        ("with two", Some(authority.client(&[CART, TELLER]))),
        (
            "with another URI",
            Some(authority.client(&["https://mesh.test/"])),
        ),
        (
            "of another trust domain",
            Some(authority.client(&["spiffe://other.test/ns/shop/sa/cart"])),
        ),
        ("for servers", Some(authority.server())),
    ];
    for (number, (what, pair)) in refused.iter().enumerate() {
        let opened = stream(&server, &authority.pem, pair.as_ref()).await;
        assert!(opened.is_err(), "a client certificate {what}");
        wait_until("the refusal is counted", || {
            Stats::read(&server.cache.stats().connections.tls_refused) == number as u64 + 1
        })
        .await;
    }
    let plain = Channel::from_shared(format!("http://{}", server.addr)).expect("a URI");
    if let Ok(channel) = plain.connect().await {
        assert!(Sotw::open(channel, ADS).await.is_err(), "plain text");
    }
    assert_eq!(Stats::read(&server.cache.stats().streams_opened), 0);
    let pair = authority.client(&[CART]);
    server.cache.update(ECDS, vec![resource("a", "1")], &[]);
    let mut client = stream(&server, &authority.pem, Some(&pair))
        .await
        .expect("a stream");
    client.send(ask(node("n", ""), ECDS, &["a"]));
    assert_eq!(
        listed(&client.next().await),
        ["a@1"],
        "the others did no harm"
    );
    server.stop().await;
}

#[tokio::test]
async fn changed_files_are_used_without_a_restart_and_bad_ones_are_not() {
    let (old, new) = (Authority::new(), Authority::new());
    let files = Files::new();
    files.fill(&old.server(), &old.pem);
    let server = start(files.tls()).await;
    let stats = server.cache.stats();
    server.cache.update(ECDS, vec![resource("a", "1")], &[]);
    let old_pair = old.client(&[CART]);
    let mut before = stream(&server, &old.pem, Some(&old_pair))
        .await
        .expect("a stream");
    before.send(ask(node("before", ""), ECDS, &["a"]));
    let first = before.next().await;
    before.send(ack(&first, &["a"]));

    // A certificate without its key: what works stays.
    let next = new.server();
    files.write("cert", &next.certificate);
    wait_until("the mismatch is seen", || {
        Stats::read(&stats.connections.tls_reload_failures) > 0
    })
    .await;
    let still = stream(&server, &old.pem, Some(&old_pair)).await;
    assert!(still.is_ok(), "the certificates from before stay in force");

    files.write("key", &next.key);
    files.write("ca", &new.pem);
    let new_pair = new.client(&[TELLER]);
    let deadline = std::time::Instant::now() + crate::common::BOUND;
    // Both files may be seen at one look or at two.
    let mut after = loop {
        match stream(&server, &new.pem, Some(&new_pair)).await {
            Ok(client) => break client,
            Err(refused) => assert!(std::time::Instant::now() < deadline, "{refused}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(Stats::read(&stats.connections.tls_reloads) > 0);
    after.send(ask(node("after", ""), ECDS, &["a"]));
    assert_eq!(listed(&after.next().await), ["a@1"]);
    let outdated = stream(&server, &new.pem, Some(&old_pair)).await;
    assert!(outdated.is_err(), "the old authority is gone");
    server.cache.update(ECDS, vec![resource("a", "2")], &[]);
    assert_eq!(listed(&before.next().await), ["a@2"], "open streams go on");
    server.stop().await;
}

#[tokio::test]
async fn a_server_does_not_start_with_files_that_it_cannot_use() {
    let authority = Authority::new();
    let files = Files::new();
    files.fill(&authority.server(), &authority.pem);
    for (name, content) in [
        ("cert", "nonsense"),
        ("key", ""),
        (
            "ca",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ),
    ] {
        files.fill(&authority.server(), &authority.pem);
        files.write(name, content);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let options = ServerOptions {
            security: Security::Certificates(files.tls()),
            ..ServerOptions::default()
        };
        let ended = serve_with(
            ResourceCache::new(),
            listener,
            options,
            tokio_util::sync::CancellationToken::new(),
        );
        let error = ended.await.expect_err("a failure");
        let ServeError::Tls(reason) = &error else {
            panic!("{error}");
        };
        let path = files.directory.join(name);
        assert!(
            reason.to_string().contains(&*path.to_string_lossy()),
            "{reason}"
        );
    }
}
