//! Where a limit applies.

use serde_json::{Value, json};

/// Side of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Requests to the workload.
    Inbound,
    /// Requests of the workload.
    Outbound,
    /// Requests through a gateway.
    Gateway,
}

/// Where a limit applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// All inbound ports, or one.
    Inbound(Option<u64>),
    /// A virtual host.
    Host(String),
    /// A route of a virtual host, or of any.
    Route(String, String),
}

impl Place {
    /// `target` of a descriptor; `None`: all inbound ports.
    pub fn target(&self) -> Option<Value> {
        match self {
            Self::Inbound(None) => None,
            Self::Inbound(Some(port)) => Some(json!({"port": port})),
            Self::Host(host) => Some(json!({"direction": "outbound", "host": [host]})),
            Self::Route(host, route) => {
                Some(json!({"direction": "outbound", "route": [format!("{host}/{route}")]}))
            }
        }
    }
}
