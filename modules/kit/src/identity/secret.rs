//! The Secret with the authorities, and the server certificate that follows from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL};
use trimtab_xds::ServerCertificate;

use super::authority::{Authorities, AuthorityError, LEAF_LIFE};
use crate::clock::Clock;
use crate::lease::{Permit, WriteAdmission};

/// How often the Secret is read again.
const POLL: Duration = Duration::from_secs(60);
/// Attempts at a Secret that another replica changes at the same time.
const ATTEMPTS: usize = 5;

/// Where the authorities are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuthorityConfig {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Default for AuthorityConfig {
    fn default() -> Self {
        Self {
            namespace: trimtab_crds::NAMESPACE.to_owned(),
            name: "trimtab-xds-authority".to_owned(),
        }
    }
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The API server refused or did not answer.
    #[error("Secret {0}: {1}: Trimtab needs get, create and update on it")]
    Api(String, #[source] Box<kube::Error>),
    /// The Secret cannot be used.
    #[error("Secret {0}: {1}")]
    Content(String, #[source] AuthorityError),
    /// It has other authorities than those that proxies were told of.
    #[error(
        "Secret {0}: deleted or replaced, and no proxy trusts its new authorities yet: restart the operator to tell them"
    )]
    Replaced(String),
    /// It is another replica's to make it.
    #[error("Secret {0}: the replica that leads makes it; this one does not lead")]
    NotLeading(String),
    /// It was not written in time.
    #[error("Secret {0}: no answer from the API server within {1:?}")]
    Timeout(String, Duration),
    /// Others changed it all the time.
    #[error("Secret {0}: changed by others {ATTEMPTS} times in a row")]
    Contended(String),
}

/// Reads and writes the Secret. All replicas use one.
#[derive(Clone)]
pub struct AuthorityStore {
    api: Api<Secret>,
    admission: WriteAdmission,
    config: AuthorityConfig,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for AuthorityStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AuthorityStore").field(&self.config).finish()
    }
}

impl AuthorityStore {
    /// A store of the Secret that the configuration names.
    pub fn new(client: Client, config: AuthorityConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            api: Api::namespaced(client, &config.namespace),
            admission: WriteAdmission::always(),
            config,
            clock,
        }
    }

    /// The same, whose writes pass `admission`.
    #[must_use]
    pub fn admitted_by(mut self, admission: WriteAdmission) -> Self {
        self.admission = admission;
        self
    }

    /// Waits until this replica may write.
    pub async fn led(&self) {
        self.admission.led().await;
    }

    /// The authorities; made when there are none, and advanced when the first comes near its end.
    pub async fn load(&self) -> Result<Authorities, StoreError> {
        for _ in 0..ATTEMPTS {
            let written = match self.read().await? {
                None => {
                    let made = Authorities::new(self.clock.now()).map_err(|e| self.unusable(e))?;
                    let secret = self.secret(&made, ObjectMeta::default());
                    let Ok(permit) = self.admission.admit() else {
                        return Err(StoreError::NotLeading(self.name()));
                    };
                    let params = PostParams::default();
                    let creating = self.api.create(&params, &secret);
                    self.within(&permit, creating).await?.map(|_| made)
                }
                Some((known, metadata)) => {
                    let now = self.clock.now();
                    let Some(advanced) = known.advanced(now).map_err(|e| self.unusable(e))? else {
                        return Ok(known);
                    };
                    // There is time: they are advanced long before the first ends.
                    let Ok(permit) = self.admission.admit() else {
                        return Ok(known);
                    };
                    // With its resourceVersion: others may advance it at the same time.
                    let changed = self.secret(&advanced, metadata);
                    let params = PostParams::default();
                    let replacing = self.api.replace(&self.config.name, &params, &changed);
                    self.within(&permit, replacing).await?.map(|_| advanced)
                }
            };
            match written {
                Ok(authorities) => return Ok(authorities),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Err(StoreError::Contended(self.name()))
    }

    /// The authorities as they are stored, with the metadata of their Secret; `None`: there is none.
    pub async fn read(&self) -> Result<Option<(Authorities, ObjectMeta)>, StoreError> {
        let found = self.api.get_opt(&self.config.name).await;
        let Some(secret) = found.map_err(|error| self.failed(error))? else {
            return Ok(None);
        };
        let data = secret.data.into_iter().flatten();
        let fields: BTreeMap<String, Vec<u8>> = data.map(|(name, value)| (name, value.0)).collect();
        let known = Authorities::read(&fields).map_err(|e| self.unusable(e))?;
        Ok(Some((known, secret.metadata)))
    }

    fn secret(&self, authorities: &Authorities, metadata: ObjectMeta) -> Secret {
        let mut labels = metadata.labels.unwrap_or_default();
        labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
        let fields = authorities.fields().into_iter();
        Secret {
            metadata: ObjectMeta {
                name: Some(self.config.name.clone()),
                labels: Some(labels),
                ..metadata
            },
            data: Some(
                fields
                    .map(|(name, value)| (name, ByteString(value)))
                    .collect(),
            ),
            ..Secret::default()
        }
    }

    async fn within<T>(
        &self,
        permit: &Permit,
        write: impl Future<Output = kube::Result<T>>,
    ) -> Result<kube::Result<T>, StoreError> {
        let written = tokio::time::timeout(permit.limit(), write).await;
        written.map_err(|_| StoreError::Timeout(self.name(), permit.limit()))
    }

    fn name(&self) -> String {
        format!("{}/{}", self.config.namespace, self.config.name)
    }

    fn failed(&self, error: kube::Error) -> StoreError {
        StoreError::Api(self.name(), Box::new(error))
    }

    fn unusable(&self, error: AuthorityError) -> StoreError {
        StoreError::Content(self.name(), error)
    }

    /// A server certificate for `hosts`.
    pub fn issue(
        &self,
        authorities: &Authorities,
        hosts: &[String],
    ) -> Result<ServerCertificate, StoreError> {
        let issued = authorities.issue(hosts, self.clock.now());
        let (chain, key) = issued.map_err(|error| self.unusable(error))?;
        Ok(ServerCertificate { chain, key })
    }
}

/// Keeps the server certificate fresh until `shutdown`: a new one at half of its life, and when the signer changes. While the
/// Secret cannot be read, or has authorities that proxies were not told of, the last authorities stay in use.
pub async fn keep(
    store: AuthorityStore,
    mut authorities: Authorities,
    hosts: Vec<String>,
    certificate: watch::Sender<ServerCertificate>,
    shutdown: CancellationToken,
) {
    // What the generated objects of this process tell proxies.
    let roots = authorities.roots();
    let mut issued = store.clock.monotonic();
    let mut failing = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
        }
        let read = match store.load().await {
            Ok(read) if !read.is_trusted_by(&roots) => Err(StoreError::Replaced(store.name())),
            read => read,
        };
        let was_failing = std::mem::replace(&mut failing, read.is_err());
        let changed = match read {
            Ok(read) if read == authorities => false,
            Ok(read) => {
                authorities = read;
                true
            }
            Err(error) => {
                if !was_failing {
                    tracing::warn!(%error, "the authority of the xDS server is not taken; the last one stays in use");
                }
                false
            }
        };
        if !changed && store.clock.monotonic() < issued + LEAF_LIFE / 2 {
            continue;
        }
        match store.issue(&authorities, &hosts) {
            Ok(new) => {
                issued = store.clock.monotonic();
                certificate.send_replace(new);
            }
            Err(error) => {
                tracing::warn!(%error, "no new server certificate; the last one stays in use");
            }
        }
    }
}
