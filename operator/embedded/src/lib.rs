//! An in-memory Kubernetes API.
//!
//! [`Embedded`] is a tower service over the requests of `kube::Client`, so that an operator runs unchanged
//! without a cluster: in tests, and in the standalone mode. [`Embedded::serve`] puts the same API behind HTTP on
//! loopback, where the real `kubectl` works with it.
//!
//! It is a means, not a second Kubernetes. What differs from a real API server:
//!
//! - no authentication, no admission webhooks, no conversion webhooks (conversion is `None`), no controllers;
//! - lists are always of the current state; a page of a list is not taken from a snapshot;
//! - garbage collection is complete when the delete is answered, and `Foreground` deletes like `Background`;
//! - built-in kinds are stored as sent: their fields are not validated, and only the defaults that clients rely on
//!   are filled in;
//! - bodies are JSON or YAML. Of protobuf it reads what `kubectl create namespace`, `configmap`, `secret` and
//!   `serviceaccount` send;
//! - everybody may do everything, and `kubectl auth can-i` says so;
//! - an update without a `resourceVersion` is unconditional for all kinds;
//! - a refusal for a missing required field does not add that CEL rules were not checked;
//! - the cost of CEL rules is not counted: a real API server refuses a CRD whose rules may cost too much;
//! - `managedFields` are ordered by name of the manager.
//!
//! The conformance cases run against this API and, in `tests/tests/cluster/against_real.rs`, against a real kube-apiserver.

mod access;
mod apply;
mod builtin;
mod builtin_kinds;
mod clock;
mod crd;
mod discovery;
mod embedded;
mod error;
mod events;
mod faults;
mod gc;
mod handlers;
mod jsonpath;
mod kinds;
mod meta;
mod openapi;
mod protobuf;
mod reply;
mod request;
mod schema;
mod selectors;
mod serve;
mod server;
mod spelling;
mod store;
mod table;

pub use clock::{Clock, StoppedClock, WallClock};
pub use embedded::{Embedded, Kind, Nearest};
pub use error::{ApiError, Cause, Subject};
pub use faults::{Faults, Filter};
pub use spelling::nearest;
