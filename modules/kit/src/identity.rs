//! Who proxies are and who Trimtab is, where proxies have no certificate of the mesh at hand.
//!
//! Envoy reaches the xDS server of a sidecar's ECDS filter only by `google_grpc`, which takes no certificate from SDS and checks DNS
//! names that istiod does not issue. So Trimtab has an authority of its own, whose root is inline in the generated
//! config source, and the proxy shows the ServiceAccount token that Istio mounts into every sidecar.
//!
//! What comes by `envoy_grpc` (access logs, pushed metrics) can have mTLS of the mesh: there Trimtab has a certificate of istiod's.

use serde::{Deserialize, Serialize};

mod authority;
mod endpoint;
mod mesh_ca;
mod secret;
mod tokens;

pub use authority::{Authorities, AuthorityError};
pub use endpoint::{EndpointTls, XdsEndpoint};
pub use mesh_ca::{MeshCaConfig, MeshCaError, keep_mesh_certificate, obtain};
pub use secret::{AuthorityConfig, AuthorityStore, StoreError, keep};
pub use tokens::{TokenConfig, TokenReviewer};

/// Who may come to a port for streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortSecurity {
    /// Plain text: peers are known by their addresses.
    #[default]
    Plain,
    /// Mutual TLS with certificates of the mesh.
    Mesh,
}
