//! Who is connected to whom.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::identity::SpiffeId;

/// Both ends of a connection, as a service finds them among the extensions of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The peer.
    pub peer: SocketAddr,
    /// The address of this process that it came to.
    pub local: SocketAddr,
    /// Who the peer is by its certificate, on a port that asks for one.
    pub identity: Option<Arc<SpiffeId>>,
}
