//! Who proxies are and who Trimtab is, where proxies have no certificate of the mesh at hand.
//!
//! Envoy reaches the xDS server of a sidecar's ECDS filter only by `google_grpc`, which takes no certificate from SDS and checks DNS
//! names that istiod does not issue. So Trimtab has an authority of its own, whose root is inline in the generated
//! config source, and the proxy shows the ServiceAccount token that Istio mounts into every sidecar.

mod authority;
mod endpoint;
mod secret;
mod tokens;

pub use authority::{Authorities, AuthorityError};
pub use endpoint::{EndpointTls, XdsEndpoint};
pub use secret::{AuthorityConfig, AuthorityStore, keep};
pub use tokens::{TokenConfig, TokenReviewer};
