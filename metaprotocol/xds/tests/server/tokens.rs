//! Bearer tokens in place of client certificates.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tonic::{Code, Status};
use trimtab_xds::{
    Audience, AuthenticateError, Authenticated, Authenticator, ECDS, ResourceCache, Scope,
    Security, ServerCertificate, ServerOptions, SpiffeId, Stats, Tokens,
};

use crate::certs::{Authority, Pair};
use crate::client::{ADS, Sotw, ack, ask, listed, node, scoped};
use crate::common::{Server, wait_until};
use crate::tls::secure;

/// Takes `NAMESPACE/ACCOUNT` for a token. `old/...` ends at once, `later/...` cannot be judged now.
#[derive(Debug)]
struct Names;

#[tonic::async_trait]
impl Authenticator for Names {
    async fn authenticate(
        &self,
        token: &str,
        peer: Option<IpAddr>,
    ) -> Result<Authenticated, AuthenticateError> {
        assert!(peer.is_some_and(|peer| peer.is_loopback()), "{peer:?}");
        let refused = || AuthenticateError::Refused(format!("'{token}' is no token"));
        let (namespace, account) = token.split_once('/').ok_or_else(refused)?;
        if namespace == "later" {
            return Err(AuthenticateError::Unavailable("nobody is there".into()));
        }
        let uri = format!("spiffe://mesh.test/ns/{namespace}/sa/{account}");
        Ok(Authenticated {
            id: SpiffeId::parse(&uri).map_err(|_| refused())?,
            expires: (namespace == "old").then(SystemTime::now),
        })
    }
}

fn certificate(pair: &Pair) -> ServerCertificate {
    ServerCertificate {
        chain: pair.certificate.clone(),
        key: pair.key.clone(),
    }
}

async fn start(authority: &Authority) -> (Server, watch::Sender<ServerCertificate>) {
    let (sender, receiver) = watch::channel(certificate(&authority.server()));
    let cache = ResourceCache::new();
    cache.mark_ready();
    let only = |namespace: &str| Scope::only([Audience::Namespace(namespace.into())]);
    let resources = vec![
        scoped("a", "shop", only("shop")),
        scoped("a", "bank", only("bank")),
        scoped("b", "all", Scope::All),
    ];
    cache.update_scoped(ECDS, resources, &[]);
    let options = ServerOptions {
        security: Security::Tokens(Tokens {
            certificate: receiver,
            authenticator: Arc::new(Names),
        }),
        ..ServerOptions::default()
    };
    (Server::start_as(cache, options).await, sender)
}

async fn stream(server: &Server, root: &str, header: Option<&str>) -> Result<Sotw, Status> {
    let channel = secure(server, root, None).await?;
    Sotw::open_as(channel, ADS, header).await
}

#[tokio::test]
async fn a_client_sees_what_the_namespace_of_its_token_may_see() {
    let authority = Authority::new();
    let (server, _certificate) = start(&authority).await;
    for (header, expected) in [
        ("Bearer shop/cart", vec!["a@shop", "b@all"]),
        ("bearer bank/teller", vec!["a@bank", "b@all"]),
        ("Bearer other/one", vec!["b@all"]),
    ] {
        let mut client = stream(&server, &authority.pem, Some(header)).await.unwrap();
        // The cluster of the node is only a claim.
        client.send(ask(node("n", "bank"), ECDS, &["a", "b"]));
        assert_eq!(listed(&client.next().await), expected, "{header}");
        drop(client);
        wait_until("it is gone", || server.cache.nodes().is_empty()).await;
    }
    let mut liar = stream(&server, &authority.pem, Some("Bearer shop/cart"))
        .await
        .unwrap();
    liar.send(ask(node("sidecar~10.0.0.1~p-1.bank~x", ""), ECDS, &["a"]));
    assert_eq!(liar.fail().await.code(), Code::PermissionDenied);
    server.stop().await;
}

#[tokio::test]
async fn fault_t8_without_a_good_token_there_is_no_answer() {
    let authority = Authority::new();
    let (server, _certificate) = start(&authority).await;
    let refused = async |header: Option<&str>| match stream(&server, &authority.pem, header).await {
        Ok(_) => panic!("{header:?} is accepted"),
        Err(status) => status,
    };
    for header in [
        None,
        Some("Bearer "),
        Some("Bearer nonsense"),
        Some("Basic shop/cart"),
    ] {
        assert_eq!(
            refused(header).await.code(),
            Code::Unauthenticated,
            "{header:?}"
        );
    }
    // The client tries again.
    assert_eq!(
        refused(Some("Bearer later/x")).await.code(),
        Code::Unavailable
    );
    assert_eq!(Stats::read(&server.cache.stats().tokens_refused), 5);
    server.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let authority = Authority::new();
    let (server, _certificate) = start(&authority).await;
    let mut client = stream(&server, &authority.pem, Some("Bearer old/one"))
        .await
        .unwrap();
    client.end().await;
    server.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_open_streams_stay() {
    let (before, after) = (Authority::new(), Authority::new());
    let (server, sender) = start(&before).await;
    let token = Some("Bearer shop/cart");
    let mut open = stream(&server, &before.pem, token).await.unwrap();
    open.send(ask(node("n", ""), ECDS, &["a"]));
    let first = open.next().await;
    open.send(ack(&first, &["a"]));
    sender.send_replace(certificate(&after.server()));
    let stats = server.cache.stats();
    wait_until("it is in use", || {
        Stats::read(&stats.connections.tls_reloads) == 1
    })
    .await;
    assert!(stream(&server, &before.pem, token).await.is_err());
    assert!(stream(&server, &after.pem, token).await.is_ok());
    let shop = Scope::only([Audience::Namespace("shop".into())]);
    let changed = scoped("a", "new", shop);
    server.cache.update_scoped(ECDS, vec![changed], &[]);
    assert_eq!(listed(&open.next().await), ["a@new"]);
    // What cannot be used leaves in force what was.
    sender.send_replace(ServerCertificate {
        chain: "none".into(),
        key: "none".into(),
    });
    wait_until("it is refused", || {
        Stats::read(&stats.connections.tls_reload_failures) == 1
    })
    .await;
    assert!(stream(&server, &after.pem, token).await.is_ok());
    tokio::time::timeout(Duration::from_secs(10), server.stop())
        .await
        .expect("the server stops");
}
