//! `mesh:` of the configuration.

use serde::{Deserialize, Serialize};
use trimtab_kit::identity::MeshCaConfig;

use super::Tls;

/// What all modules know of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Mesh {
    /// The cluster domain: Services are `NAME.NAMESPACE.svc.DOMAIN`.
    pub domain: String,
    /// `NAMESPACE/NAME` of the ConfigMap with Istio's MeshConfig; empty: it is not read.
    pub config_map: String,
    /// Trimtab's own certificate of the mesh, for ports with `security: Mesh`; absent: it has none.
    pub certificate: Option<MeshCertificate>,
}

/// Where Trimtab's certificate of the mesh comes from: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MeshCertificate {
    /// From istiod.
    pub istiod: Option<MeshCaConfig>,
    /// From files.
    pub files: Option<Tls>,
}

impl MeshCertificate {
    fn check(&self) -> Result<(), String> {
        match (&self.istiod, &self.files) {
            (Some(istiod), None) => istiod
                .check()
                .map_err(|error| format!("mesh.certificate.istiod.{error}")),
            (None, Some(files)) => files.check("mesh.certificate.files"),
            _ => Err(
                "mesh.certificate: write either istiod: {} or files with certificate, key and clientCa"
                    .to_owned(),
            ),
        }
    }
}

impl Mesh {
    /// Namespace and name of the ConfigMap. The error names the key and the fix.
    pub fn config_map(&self) -> Result<Option<(String, String)>, String> {
        if self.config_map.is_empty() {
            return Ok(None);
        }
        match self.config_map.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Some((namespace.to_owned(), name.to_owned())))
            }
            _ => Err(format!(
                "mesh.configMap: \"{}\" is not NAMESPACE/NAME: write for example istio-system/istio, or leave it empty",
                self.config_map
            )),
        }
    }

    /// Checks what types cannot say. `wanted`: keys of the ports with mTLS of the mesh.
    pub(super) fn check(&self, wanted: &[&str]) -> Result<(), String> {
        if self.domain.is_empty() {
            return Err(
                "mesh.domain is empty: leave it out, or write the cluster domain".to_owned(),
            );
        }
        self.config_map()?;
        match (&self.certificate, wanted.first()) {
            (None, Some(key)) => Err(format!(
                "{key} is Mesh, and Trimtab has no certificate of the mesh: write mesh: {{certificate: {{istiod: {{}}}}}}"
            )),
            (Some(_), None) => Err(
                "mesh.certificate is set, and no port uses it: set lazyload.learn.accessLog.security or metrics.mds.security to Mesh"
                    .to_owned(),
            ),
            (Some(certificate), Some(_)) => certificate.check(),
            (None, None) => Ok(()),
        }
    }
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            domain: trimtab_mesh::DEFAULT_DOMAIN.to_owned(),
            config_map: "istio-system/istio".to_owned(),
            certificate: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn fault_t7_a_port_with_mtls_has_a_certificate_and_a_certificate_a_port() {
        const LOGS: &str = "lazyload: {learn: {accessLog: {security: Mesh}}}";
        const MDS: &str = "metrics: {mds: {security: Mesh}}";
        for (text, words) in [
            (LOGS.to_owned(), "lazyload.learn.accessLog.security is Mesh"),
            (MDS.to_owned(), "metrics.mds.security is Mesh"),
            (
                "mesh: {certificate: {istiod: {}}}".to_owned(),
                "no port uses it",
            ),
            (
                format!("{MDS}\nmesh: {{certificate: {{}}}}"),
                "either istiod",
            ),
            (
                format!("{MDS}\nmesh: {{certificate: {{istiod: {{}}, files: {{}}}}}}"),
                "either istiod",
            ),
            (
                format!("{MDS}\nmesh: {{certificate: {{istiod: {{address: here}}}}}}"),
                "mesh.certificate.istiod.address",
            ),
            (
                format!("{MDS}\nmesh: {{certificate: {{files: {{certificate: a, key: b}}}}}}"),
                "mesh.certificate.files.clientCa",
            ),
        ] {
            let error = Config::parse(&text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let good = format!("{LOGS}\n{MDS}\nmesh: {{certificate: {{istiod: {{}}}}}}");
        Config::parse(&good).unwrap();
    }
}
