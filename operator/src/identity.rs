//! How the xDS server and the proxies know each other, from the configuration.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trimtab_kit::clock::Clock;
use trimtab_kit::identity::{
    Authorities, AuthorityStore, EndpointTls, StoreError, TokenReviewer, XdsEndpoint, keep,
    keep_mesh_certificate,
};
use trimtab_kit::lease::WriteAdmission;
use trimtab_kit::readiness::Readiness;
use trimtab_xds::{Security, Tls, Tokens};

use crate::config::{Config, XdsTokens};

/// Pause between attempts to read the authorities at the start.
const RETRY: Duration = Duration::from_secs(1);

/// What follows from `xds` of the configuration.
pub(crate) struct Identity {
    /// For generated objects.
    pub(crate) endpoint: XdsEndpoint,
    /// For the server.
    pub(crate) security: Security,
}

/// Reads or makes the authorities where there is to be one, and keeps the certificate fresh until `shutdown`.
pub(crate) async fn establish(
    config: &Config,
    listening: SocketAddr,
    (client, admission): (&Client, &WriteAdmission),
    clock: &Arc<dyn Clock>,
    readiness: &Readiness,
    shutdown: &CancellationToken,
) -> anyhow::Result<Identity> {
    let mut endpoint = XdsEndpoint::plain(advertised(config, Some(listening)));
    endpoint.identified = identified(config);
    let Some(tokens) = &config.xds.tokens else {
        let security = config.xds.security();
        return Ok(Identity { endpoint, security });
    };
    let store = AuthorityStore::new(client.clone(), tokens.authority.clone(), clock.clone())
        .admitted_by(admission.clone());
    let authorities = first(&store, readiness, shutdown).await?;
    let hosts = vec![host(&endpoint.address).to_owned()];
    let certificate = store.issue(&authorities, &hosts)?;
    let (sender, certificate) = watch::channel(certificate);
    endpoint.tls = Some(tls(tokens, authorities.roots()));
    tokio::spawn(keep(store, authorities, hosts, sender, shutdown.clone()));
    let reviewer = TokenReviewer::new(client.clone(), tokens.reviews(), clock.clone());
    let security = Security::Tokens(Tokens {
        certificate,
        authenticator: Arc::new(reviewer),
    });
    Ok(Identity { endpoint, security })
}

/// An API server that is not there yet is waited for, and a Secret that cannot be used: proxies cannot be told a root before.
/// `/readyz` says why.
async fn first(
    store: &AuthorityStore,
    readiness: &Readiness,
    shutdown: &CancellationToken,
) -> anyhow::Result<Authorities> {
    let mut told = String::new();
    let mut gate = readiness.block("xds.tokens: the authority of the xDS server");
    loop {
        let error = match store.load().await {
            Ok(authorities) => {
                gate.release();
                return Ok(authorities);
            }
            Err(error) => error,
        };
        let why = chain(&error);
        let is_leaders = matches!(error, StoreError::NotLeading(_));
        if why != told {
            if !is_leaders {
                tracing::warn!(
                    error = why,
                    "the authority of the xDS server cannot be read yet"
                );
            }
            gate.release();
            gate = readiness.block(format!(
                "xds.tokens: the authority of the xDS server: {why}"
            ));
            told = why;
        }
        tokio::select! {
            () = shutdown.cancelled() => return Err(error).context("stopped"),
            () = store.led(), if is_leaders => {}
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let mut text = error.to_string();
    for cause in causes.map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The certificates of the mesh where a port wants them, kept fresh until `shutdown`.
pub(crate) async fn mesh_tls(
    config: &Config,
    clock: &Arc<dyn Clock>,
    readiness: &Readiness,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Arc<Tls>>> {
    const NAME: &str = "mesh.certificate";
    let counts = Arc::default();
    let certificate = config.mesh.certificate.as_ref();
    if let Some(files) = certificate.and_then(|c| c.files.as_ref()) {
        let tls = Tls::of_files(NAME, files.files(), counts, shutdown.clone());
        return Ok(Some(tls.await.context(NAME)?));
    }
    let Some(istiod) = certificate.and_then(|c| c.istiod.as_ref()) else {
        return Ok(None);
    };
    let (sender, receiver) = watch::channel(None);
    let domains = istiod.trust_domains.clone();
    let tls = Tls::of_mesh(NAME, receiver, domains, counts, shutdown.clone());
    let gate = readiness.block("mesh.certificate: the first answer of istiod");
    let (istiod, clock) = (istiod.clone(), clock.clone());
    let keeping = keep_mesh_certificate(istiod, sender, clock, gate, shutdown.clone());
    tokio::spawn(keeping);
    Ok(Some(tls))
}

/// The endpoint where nothing runs: the root of an authority that no Secret among the objects has is a comment.
pub(crate) async fn offline(
    config: &Config,
    client: &Client,
    clock: &Arc<dyn Clock>,
) -> XdsEndpoint {
    let mut endpoint = XdsEndpoint::plain(advertised(config, None));
    endpoint.identified = identified(config);
    if let Some(tokens) = &config.xds.tokens {
        let store = AuthorityStore::new(client.clone(), tokens.authority.clone(), clock.clone());
        let roots = match store.read().await {
            Ok(Some((authorities, _))) => authorities.roots(),
            _ => format!(
                "# the authorities of Secret {}/{}\n",
                tokens.authority.namespace, tokens.authority.name
            ),
        };
        endpoint.tls = Some(tls(tokens, roots));
    }
    endpoint
}

fn identified(config: &Config) -> bool {
    config.xds.tokens.is_some() || config.xds.tls.is_some()
}

fn tls(tokens: &XdsTokens, roots: String) -> EndpointTls {
    EndpointTls {
        roots,
        token_file: tokens.file.clone(),
    }
}

/// `host:port` of the xDS server for generated objects. `listening`: where it does, if it runs.
fn advertised(config: &Config, listening: Option<SocketAddr>) -> String {
    if !config.xds.advertise.is_empty() {
        config.xds.advertise.clone()
    } else if config.in_cluster {
        // Loopback would lead every proxy to itself: without an address ECDS is refused, with a condition that says why.
        String::new()
    } else {
        listening.map_or_else(String::new, |address| address.to_string())
    }
}

/// `host:port` or `[v6]:port` without the port.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_host_of_an_address() {
        for (address, host) in [
            ("trimtab.istio-system.svc:15010", "trimtab.istio-system.svc"),
            ("[::1]:15010", "::1"),
            ("10.0.0.1:1", "10.0.0.1"),
        ] {
            assert_eq!(super::host(address), host);
        }
    }
}
