//! Secrets that Redis objects name: read one by one, so that the right to list Secrets is not needed.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use trimtab_kit::apply::call;

use super::Runtime;
use crate::config::Secrets;

/// How often they are read again.
const PERIOD: Duration = Duration::from_secs(10);

impl Runtime {
    /// Reads them now and then.
    pub(super) async fn secrets(self) {
        if !self.start().await {
            return;
        }
        let mut known = Secrets::new();
        let mut ticker = tokio::time::interval(PERIOD);
        let mut names = self.engine.index.wanted_secrets();
        let mut look = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                _ = ticker.tick() => {}
                _ = look.tick() => {
                    // One that is named anew need not wait.
                    let now = self.engine.index.wanted_secrets();
                    if now == names {
                        continue;
                    }
                    names = now;
                }
            }
            known = self.fetch(known).await;
            self.engine.index.set_secrets(known.clone());
        }
    }

    /// Reads them once.
    pub(super) async fn read_secrets(&self) {
        let secrets = self.fetch(Secrets::new()).await;
        self.engine.index.set_secrets(secrets);
    }

    /// What cannot be read now stays as it was `before`; what is gone is gone.
    async fn fetch(&self, before: Secrets) -> Secrets {
        let mut out = Secrets::new();
        for name in self.engine.index.wanted_secrets() {
            let api: Api<Secret> = Api::namespaced(self.client.clone(), &name.0);
            let what = || format!("get Secret {}/{}", name.0, name.1);
            match call(what, api.get_opt(&name.1)).await {
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
        out
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
