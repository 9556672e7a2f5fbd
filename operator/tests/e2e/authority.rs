//! The Secret with the authorities of the xDS server: missing at the start, and deleted under a running operator.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DeleteParams;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trimtab::operator::Operator;
use trimtab::standalone;
use trimtab_kit::clock::{Clock as _, ManualClock};
use trimtab_kit::identity::{Authorities, AuthorityConfig, AuthorityStore, keep};
use trimtab_lab::http::{self, Request};
use trimtab_lab::ports::free_address;
use trimtab_lab::process::wait_until;

use crate::support::config;

const BOUND: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test(flavor = "multi_thread")]
async fn fault_t8_a_start_that_waits_for_its_authority_answers_probes() {
    let embedded = standalone::embedded().unwrap();
    embedded.ensure_namespace("istio-system").unwrap();
    let secret = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "trimtab-xds-authority", "namespace": "istio-system"}, "data": {}});
    embedded.load(secret).unwrap();
    let at = free_address().unwrap();
    let mut config = config("xds: {tokens: {}}");
    config.http.address = at;
    let starting = Operator::start(config, embedded.client(), CancellationToken::new());
    let starting = tokio::spawn(starting);
    wait_until("the reason", BOUND, || async {
        let answer = http::send(at, &Request::get("/readyz")).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let words = [
            "Secret istio-system/trimtab-xds-authority",
            "delete the Secret",
        ];
        let told = answer.status == 503 && words.iter().all(|word| answer.body.contains(word));
        told.then_some(()).ok_or(answer.body)
    })
    .await
    .unwrap();
    assert_eq!(http::get(at, "/healthz").await.unwrap(), "ok\n");
    assert!(!starting.is_finished());
    let secrets: Api<Secret> = Api::namespaced(embedded.client(), "istio-system");
    secrets
        .delete("trimtab-xds-authority", &DeleteParams::default())
        .await
        .unwrap();
    let operator = starting.await.unwrap().unwrap();
    assert_eq!(operator.http, at);
    wait_until("ready", BOUND, || async {
        let ready = http::get(at, "/readyz").await;
        ready.map(drop).map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
}

/// Whether proxies with these roots take the certificate.
fn trusted(roots: &Authorities, chain: &str, clock: &ManualClock) -> bool {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.roots().as_bytes()) {
        store.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider);
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    let name = ServerName::try_from("trimtab.test").unwrap();
    let now = u64::try_from(clock.now().as_second()).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let verifier = verifier.build().unwrap();
    verifier
        .verify_server_cert(&leaf, &[], &name, &[], now)
        .is_ok()
}

#[tokio::test(start_paused = true)]
async fn fault_t8_a_deleted_authority_stays_in_use_until_proxies_can_be_told_another() {
    let embedded = standalone::embedded().unwrap();
    embedded.ensure_namespace("istio-system").unwrap();
    let clock = ManualClock::default();
    let store = AuthorityStore::new(
        embedded.client(),
        AuthorityConfig::default(),
        Arc::new(clock.clone()),
    );
    let known = store.load().await.unwrap();
    let hosts = vec!["trimtab.test".to_owned()];
    let (sender, mut certificate) = watch::channel(store.issue(&known, &hosts).unwrap());
    let stop = CancellationToken::new();
    let keeping = keep(store.clone(), known.clone(), hosts, sender, stop.clone());
    let keeping = tokio::spawn(keeping);
    clock.advance(DAY / 4);
    let secrets: Api<Secret> = Api::namespaced(embedded.client(), "istio-system");
    secrets
        .delete("trimtab-xds-authority", &DeleteParams::default())
        .await
        .unwrap();
    wait_until("a new Secret", DAY, || async {
        store
            .read()
            .await
            .map_err(|error| error.to_string())?
            .map(drop)
            .ok_or("none".to_owned())
    })
    .await
    .unwrap();
    let (new, _) = store.read().await.unwrap().unwrap();
    assert!(!new.is_trusted_by(&known.roots()));
    assert!(!certificate.has_changed().unwrap(), "nobody trusts it");
    // The certificate is renewed all the same, by the authority that proxies know.
    clock.advance(DAY / 2);
    certificate.changed().await.unwrap();
    let renewed = certificate.borrow_and_update().clone();
    assert!(trusted(&known, &renewed.chain, &clock));
    assert!(!trusted(&new, &renewed.chain, &clock));
    stop.cancel();
    keeping.await.unwrap();
}
