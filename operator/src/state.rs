//! Statuses over a restart in standalone mode. In a cluster the API server keeps them; the embedded API keeps nothing, and
//! without them a restart would lift limits while a metric is missing, and forget what fences have learned.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trimtab_embedded::Embedded;

use crate::blocking::Worker;
use crate::outputs;

/// How often it is looked at whether a status has changed.
const POLL: Duration = Duration::from_millis(500);
/// How long a write may take.
const WRITE: Duration = Duration::from_secs(10);

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Content {
    statuses: Vec<Kept>,
}

/// The status of one object.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    api_version: String,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    name: String,
    status: Value,
}

/// Keeps the statuses of Trimtab's objects in a file.
#[derive(Debug)]
pub struct Statuses {
    file: PathBuf,
    embedded: Embedded,
    worker: Worker<std::io::Result<()>>,
    revision: u64,
    written: String,
    complaint: String,
}

impl Statuses {
    /// In `file`.
    pub fn new(file: PathBuf, embedded: Embedded) -> Self {
        Self {
            file,
            embedded,
            worker: Worker::new(),
            revision: 0,
            written: String::new(),
            complaint: String::new(),
        }
    }

    /// Gives the objects that are in the API the statuses that they had when the file was written. Call it before modules
    /// run: they take their last decisions from there.
    pub async fn restore(&mut self) -> anyhow::Result<()> {
        let text = match std::fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| self.says("cannot be read")),
        };
        let content: Content = serde_json::from_str(&text).with_context(|| {
            self.says("is no state of this program: remove it, or choose another with --state")
        })?;
        for status in content.statuses {
            let name = status.name.clone();
            if let Err(error) = self.give(status).await {
                tracing::warn!(file = %self.file.display(), name, %error, "a status is not taken over");
            }
        }
        Ok(())
    }

    async fn give(&self, kept: Kept) -> anyhow::Result<()> {
        let Some(kind) = self.embedded.kind(&kept.api_version, &kept.kind) else {
            return Ok(());
        };
        let client = self.embedded.client();
        let api: Api<DynamicObject> = match &kept.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &kind.resource),
            None => Api::all_with(client, &kind.resource),
        };
        let Some(object) = api.get_opt(&kept.name).await? else {
            return Ok(());
        };
        let mut object = serde_json::to_value(object)?;
        if object["status"].is_null() {
            object["apiVersion"] = json!(kept.api_version);
            object["kind"] = json!(kept.kind);
            object["status"] = kept.status;
            self.embedded.load(object)?;
        }
        Ok(())
    }

    /// Writes the file when a status changes, until shutdown, and once more then. A complaint is logged once.
    pub async fn follow(mut self, shutdown: CancellationToken) {
        loop {
            let complaint = match self.save().await {
                Ok(()) => String::new(),
                Err(error) => format!("{error:#}"),
            };
            if complaint != self.complaint && !complaint.is_empty() {
                tracing::warn!("{complaint}; a restart would not know the last decisions");
            }
            self.complaint = complaint;
            if shutdown.is_cancelled() {
                return;
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Writes the file unless it holds the statuses already.
    pub async fn save(&mut self) -> anyhow::Result<()> {
        let revision = self.embedded.revision();
        if revision == self.revision && self.file.exists() {
            return Ok(());
        }
        let content = Content {
            statuses: self.statuses().await?,
        };
        let text = format!("{}\n", serde_json::to_string_pretty(&content)?);
        if text != self.written || !self.file.exists() {
            let (file, wanted) = (self.file.clone(), text.clone());
            let write = move || write(&file, &wanted);
            let written = self.worker.run(WRITE, write).await;
            let failed = || self.says("the statuses cannot be kept");
            written.with_context(failed)?.with_context(failed)?;
            self.written = text;
        }
        self.revision = revision;
        Ok(())
    }

    /// The statuses of all objects of our kinds, sorted by kind, namespace and name.
    async fn statuses(&self) -> anyhow::Result<Vec<Kept>> {
        let mut out = Vec::new();
        for (_, crd) in trimtab_crds::manifests::trimtab_crds() {
            let stored = crd.spec.versions.iter().find(|v| v.storage);
            let Some(version) = stored.filter(|v| v.subresources.is_some()) else {
                continue;
            };
            let api_version = format!("{}/{}", crd.spec.group, version.name);
            let Some(kind) = self.embedded.kind(&api_version, &crd.spec.names.kind) else {
                continue;
            };
            let api: Api<DynamicObject> = Api::all_with(self.embedded.client(), &kind.resource);
            for mut object in api.list(&ListParams::default()).await?.items {
                let status = object.data["status"].take();
                if status.is_null() {
                    continue;
                }
                out.push(Kept {
                    api_version: api_version.clone(),
                    kind: crd.spec.names.kind.clone(),
                    namespace: object.metadata.namespace,
                    name: object.metadata.name.unwrap_or_default(),
                    status,
                });
            }
        }
        Ok(out)
    }

    fn says(&self, what: &str) -> String {
        format!("state file {}: {what}", self.file.display())
    }
}

fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let temporary = file.with_file_name(outputs::temporary(&name));
    outputs::replace(file, &temporary, text).inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}
