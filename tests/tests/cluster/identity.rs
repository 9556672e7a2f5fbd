//! Who may see what of the xDS server: tokens reviewed by a real API server, shown by real Envoys.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use trimtab_cluster::{Namespace, service_account_token, wait_for};
use trimtab_kit::clock::{Clock, SystemClock};
use trimtab_kit::identity::{TokenConfig, TokenReviewer, XdsEndpoint};
use trimtab_xds::{AuthenticateError, Authenticator, ECDS};

use crate::fixture::{BOUND, cluster, example, limiter_state, operator, operator_xds};

/// Far longer than an answer takes.
const SILENCE: Duration = Duration::from_secs(5);
const ADS: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// A channel to the server, which must show a certificate of the roots that proxies get.
async fn channel(endpoint: &XdsEndpoint) -> Channel {
    let tls = endpoint.tls.as_ref().unwrap();
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(tls.roots.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let address: std::net::SocketAddr = endpoint.address.parse().unwrap();
    let connect = tower::service_fn(move |_: tonic::transport::Uri| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            let tls = connector
                .connect(ServerName::from(address.ip()), tcp)
                .await?;
            Ok::<_, std::io::Error>(TokioIo::new(tls))
        }
    });
    Channel::from_static("http://xds.test")
        .connect_with_connector(connect)
        .await
        .unwrap()
}

/// Names of all ECDS resources that a client sees, which says in its node that it is of `claimed`.
async fn seen(endpoint: &XdsEndpoint, token: &str, claimed: &str) -> Result<Vec<String>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel(endpoint).await);
    grpc.ready().await.unwrap();
    let ask = DiscoveryRequest {
        node: Some(Node {
            id: format!("sidecar~10.0.0.1~x.{claimed}~{claimed}.svc.cluster.local"),
            ..Node::default()
        }),
        type_url: ECDS.to_owned(),
        resource_names: vec!["*".to_owned()],
        ..DiscoveryRequest::default()
    };
    // The stream stays open: an end of the requests would end the answers.
    let (sender, requests) = futures::channel::mpsc::unbounded();
    sender.unbounded_send(ask).unwrap();
    let mut request = Request::new(requests);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    let codec = tonic_prost::ProstCodec::<DiscoveryRequest, DiscoveryResponse>::default();
    let answers = grpc.streaming(request, PathAndQuery::from_static(ADS), codec);
    let mut answers = answers.await?.into_inner();
    let answer = tokio::time::timeout(SILENCE, answers.message()).await;
    // Who may see nothing gets no answer to a wildcard of this type.
    let answer = answer.map_err(|_| Status::deadline_exceeded("no answer"))??;
    let answer = answer.unwrap();
    drop(sender);
    let named = answer.resources.iter().map(|any| {
        let config: envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig =
            prost::Message::decode(any.value.as_slice()).unwrap();
        config.name
    });
    Ok(named.collect())
}

/// A workload with a limit by ECDS.
async fn limited(namespace: &Namespace<'_>) {
    let limiter = example("limiter/inbound.yaml");
    let limiter = limiter.replacen("spec:\n", "spec:\n  delivery: ECDS\n", 1);
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews, namespace: NAMESPACE}\nspec:\n  selector: {app: reviews}\n  ports: [{name: http, port: 80, targetPort: 9080}]\n";
    namespace.apply(service).await.unwrap();
    let labels = [("app", "reviews")];
    namespace.pod("reviews-0", &labels).await.unwrap();
    namespace.apply(&limiter).await.unwrap();
    // It is served, and no proxy has come yet.
    limiter_state(namespace, "reviews", "NoProxy").await;
}

/// Waits until the token of a namespace sees its limit, and nothing of others.
async fn own_limit(endpoint: &XdsEndpoint, token: &str, namespace: &str) {
    wait_for("the limit of the namespace", BOUND, || async {
        let names = seen(endpoint, token, namespace).await;
        let names = names.map_err(|status| status.to_string())?;
        let all_own = names.iter().all(|n| n.contains(namespace));
        if !names.is_empty() && all_own {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_t8_a_token_opens_its_own_namespace_and_nothing_else() {
    let cluster = cluster().await;
    operator().await;
    let endpoint = operator_xds().await;
    let (victim, evil) = (
        Namespace::create(cluster, "victim").await.unwrap(),
        Namespace::create(cluster, "evil").await.unwrap(),
    );
    limited(&victim).await;
    limited(&evil).await;

    let token = async |namespace: &Namespace<'_>, audiences: &[&str]| {
        service_account_token(cluster, namespace.name(), "default", audiences)
            .await
            .unwrap()
    };
    let (own, foreign) = (
        token(&victim, &["istio-ca"]).await,
        token(&evil, &["istio-ca"]).await,
    );
    own_limit(&endpoint, &own, victim.name()).await;
    own_limit(&endpoint, &foreign, evil.name()).await;
    // Neither a claim in the node, nor a token for somebody else, nor one of an account that is gone.
    let claim = seen(&endpoint, &foreign, victim.name()).await.unwrap_err();
    assert_eq!(claim.code(), Code::PermissionDenied, "{claim}");
    let api_server = token(&victim, &[]).await;
    victim
        .kubectl(&["create", "serviceaccount", "leaver"], "")
        .await
        .unwrap();
    let leaver = service_account_token(cluster, victim.name(), "leaver", &["istio-ca"])
        .await
        .unwrap();
    victim
        .kubectl(&["delete", "serviceaccount", "leaver"], "")
        .await
        .unwrap();
    let forged = format!("{own}x");
    for refused in [api_server, leaver, forged, "x".to_owned()] {
        let status = seen(&endpoint, &refused, victim.name()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    }
}

/// The system's clock, `ahead`.
struct Ahead(SystemClock, Duration);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.0.now() + self.1
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_t8_an_expired_token_is_refused_also_while_its_review_is_remembered() {
    let cluster = cluster().await;
    let namespace = Namespace::create(cluster, "expired").await.unwrap();
    let token = service_account_token(cluster, namespace.name(), "default", &["istio-ca"])
        .await
        .unwrap();
    let judged = async |ahead: Duration| {
        let clock = Arc::new(Ahead(SystemClock::new(), ahead));
        let client = cluster.client().await.unwrap();
        let reviewer = TokenReviewer::new(client, TokenConfig::default(), clock);
        reviewer.authenticate(&token, None).await
    };
    let now = judged(Duration::ZERO).await.unwrap();
    let uri = format!("spiffe://cluster.local/ns/{}/sa/default", namespace.name());
    assert_eq!(now.id.as_str(), uri);
    let left = now
        .expires
        .unwrap()
        .duration_since(SystemTime::now())
        .unwrap();
    assert!((3000..=3600).contains(&left.as_secs()), "{left:?}");
    let later = judged(Duration::from_secs(3601)).await.unwrap_err();
    assert!(
        matches!(&later, AuthenticateError::Refused(why) if why.contains("expired")),
        "{later:?}"
    );
}
