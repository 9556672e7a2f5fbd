//! A real control plane on this machine for tests.
//!
//! [`Cluster`] is etcd, kube-apiserver (RBAC on) and kube-controller-manager; [`Istiod`] is `pilot-discovery` against it;
//! [`Proxy`] is a stock Envoy that istiod configures as the sidecar or gateway of a pod. All of them listen on the
//! loopback interface, end with the process that started them, however it ends, and write logs into a folder that errors
//! name.
//!
//! What is not real: there is no kubelet, so that [`Namespace::pod`] writes pods with their status itself, and there is
//! no pod network. Pods have addresses of 198.18.0.0/15 ([`net`]), because an API server refuses loopback addresses in
//! EndpointSlices; the [`relay`] between istiod and Envoy maps them to addresses of 127.44.0.0/16 and puts a PROXY
//! protocol listener filter where a pod has `iptables` and `SO_ORIGINAL_DST`.

mod child;
mod control_plane;
mod error;
mod istiod;
mod namespace;
pub mod net;
mod proxy;
pub mod relay;
pub mod tools;
mod traffic;

pub use child::wait_for;
pub use control_plane::{Cluster, Part};
pub use error::{ClusterError, Result};
pub use istiod::{Istiod, Minor};
pub use namespace::{Namespace, Pod};
pub use proxy::{Kind, Proxy, ProxyOptions, TOKEN_FILE, service_account_token};
pub use traffic::{Connection, Forwarder, original_destination};
