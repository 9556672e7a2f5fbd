//! What can go wrong outside of a stream.

use std::net::SocketAddr;

/// Why the server stopped or could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener given by the host has no local address.
    #[error(
        "the xDS listener has no local address ({0}); bind it before it is given to the xDS server"
    )]
    Listener(#[source] std::io::Error),
    /// The transport failed.
    #[error(
        "the xDS server on {addr} failed ({source}); check that the address stays usable, then restart the server"
    )]
    Transport {
        /// Where it was listening.
        addr: SocketAddr,
        /// What tonic said.
        #[source]
        source: tonic::transport::Error,
    },
}
