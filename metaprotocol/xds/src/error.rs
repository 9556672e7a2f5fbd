//! What can go wrong outside of a stream.

use std::net::SocketAddr;
use std::path::PathBuf;

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
        /// The error of tonic.
        #[source]
        source: tonic::transport::Error,
    },
    /// The certificates cannot be used at the start.
    #[error("the xDS server has no certificates: {0}")]
    Tls(#[from] TlsError),
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read ({source}); check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: std::io::Error,
    },
    /// A file has the wrong content.
    #[error("{} cannot be used ({reason}); put a PEM file with matching certificate and key there", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}
