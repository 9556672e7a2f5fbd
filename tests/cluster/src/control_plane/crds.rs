//! CRDs of Istio and Trimtab in a control plane.

use std::path::PathBuf;
use std::time::Duration;

use super::Cluster;
use crate::{ClusterError, Result};

const NODE: &str =
    r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "trimtab-test-node"}}"#;
/// Attempts to wait for CRDs, and the pause between them.
const WAIT_ATTEMPTS: u32 = 40;
const WAIT_PAUSE: Duration = Duration::from_millis(250);

impl Cluster {
    pub(super) async fn install_crds(&self, files: &[PathBuf]) -> Result<()> {
        let files: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
        let mut apply = vec!["apply", "--server-side", "--force-conflicts"];
        apply.extend(files.iter().flat_map(|file| ["-f", file]));
        self.kubectl(&apply, "").await?;
        let wait = [
            "wait",
            "--for=condition=established",
            "--timeout=60s",
            "crd",
            "--all",
        ];
        // A CRD that was just made has no conditions, which `kubectl wait` takes for an error.
        let mut attempts = 1;
        while let Err(error) = self.kubectl(&wait, "").await {
            if attempts == WAIT_ATTEMPTS || !error.to_string().contains("accessor error") {
                return Err(error);
            }
            attempts += 1;
            tokio::time::sleep(WAIT_PAUSE).await;
        }
        // Pods whose node is not known are left out of EndpointSlices.
        self.kubectl(&["apply", "-f", "-"], NODE).await?;
        Ok(())
    }
}

/// Our CRDs.
pub(super) fn own_crds() -> Result<PathBuf> {
    std::path::absolute(concat!(env!("CARGO_MANIFEST_DIR"), "/../../crds/manifests"))
        .map_err(ClusterError::file("crds/manifests"))
}
