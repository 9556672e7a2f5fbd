//! Secrets that Redis objects name: read one by one, so that the right to list Secrets is not needed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use trimtab_kit::apply;

use crate::config::Secrets;
use crate::index::Index;

/// How often they are read again.
const PERIOD: Duration = Duration::from_secs(10);
/// How often it is looked at whether others are named.
const LOOK: Duration = Duration::from_millis(500);

/// Reads Secrets into the index.
#[derive(Clone)]
pub struct SecretReader {
    client: Client,
    known: Arc<Mutex<Secrets>>,
}

impl SecretReader {
    /// A reader that has read nothing yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            known: Arc::default(),
        }
    }

    /// Reads what is named now. What cannot be read stays as it was; what is gone is gone.
    pub async fn read(&self, index: &Index) {
        let before = self.known.lock().clone();
        let mut out = Secrets::new();
        for name in index.wanted_secrets() {
            let api: Api<Secret> = Api::namespaced(self.client.clone(), &name.0);
            let what = || format!("get Secret {}/{}", name.0, name.1);
            match apply::read(what, api.get_opt(&name.1)).await {
                Ok(Some(secret)) => {
                    out.extend([self::secret(secret)]);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "a Secret cannot be read; what was known of it stays");
                    if let Some(old) = before.get(&name) {
                        out.insert(name, old.clone());
                    }
                }
            }
        }
        self.known.lock().clone_from(&out);
        index.set_secrets(out);
    }

    /// Reads now and then until shutdown.
    pub async fn follow(self, index: Arc<Index>, shutdown: CancellationToken) {
        let mut ticker = tokio::time::interval(PERIOD);
        let mut look = tokio::time::interval(LOOK);
        let mut names = index.wanted_secrets();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticker.tick() => {}
                _ = look.tick() => {
                    // One that is named anew need not wait.
                    let now = index.wanted_secrets();
                    if now == names {
                        continue;
                    }
                    names = now;
                }
            }
            self.read(&index).await;
        }
    }
}

/// A Secret's name, and its fields that are text.
pub fn secret(secret: Secret) -> ((String, String), BTreeMap<String, String>) {
    let name = (
        secret.metadata.namespace.unwrap_or_default(),
        secret.metadata.name.unwrap_or_default(),
    );
    let data = secret.data.unwrap_or_default().into_iter();
    let fields = data.filter_map(|(name, value)| Some((name, String::from_utf8(value.0).ok()?)));
    (name, fields.collect())
}
