//! How a server is run.

use std::path::PathBuf;
use std::time::Duration;

use crate::authenticate::Tokens;
use crate::identity::NodeTrust;

/// Options of [`serve_with`](crate::serve_with); the default is a plain listener with limits that a mesh does not reach.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Who clients are and who the server is.
    pub security: Security,
    /// Whether the node in a request decides what a client may see.
    pub trust_nodes: NodeTrust,
    /// Bounds on what one client may use.
    pub limits: Limits,
    /// Interval of HTTP/2 keepalive pings. Default 30 s.
    pub keepalive_interval: Duration,
    /// How long the answer to a ping may take. Default 10 s.
    pub keepalive_timeout: Duration,
    /// Age at which a connection gets a GOAWAY and its streams end with OK, each up to a tenth later than the other, so
    /// that clients spread over replicas again. Default: never.
    pub max_connection_age: Option<Duration>,
    /// How long changes are collected before a stream is woken. Everything on that stream waits with them, no longer
    /// than this. Default 0: changes that come faster than a client acknowledges are collected anyway.
    pub debounce: Duration,
    /// How long a client that does not read may hold up a shutdown. Default 5 s.
    pub shutdown_grace: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            security: Security::Plain,
            trust_nodes: NodeTrust::default(),
            limits: Limits::default(),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_connection_age: None,
            debounce: Duration::ZERO,
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// How connections are secured.
#[derive(Debug, Clone, Default)]
pub enum Security {
    /// Plain text: a client is who it says, see [`NodeTrust`].
    #[default]
    Plain,
    /// Mutual TLS: a client is who its certificate says.
    Certificates(TlsFiles),
    /// TLS, with a bearer token for each stream.
    Tokens(Tokens),
}

/// Bounds on what one client may use; passing one ends the stream and no other.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one request. Default 4 MiB, about 40,000 names with their versions. Passed: `OUT_OF_RANGE`.
    pub message_bytes: usize,
    /// Names that one stream may subscribe to, over all types, with 128 bytes for each. Default 10,000.
    /// Passed: `RESOURCE_EXHAUSTED`.
    pub names_per_stream: usize,
    /// Names that all streams subscribe to. Default 1,000,000, about 150 MB. Beyond it a stream may have 100 names.
    /// Passed: `RESOURCE_EXHAUSTED`.
    pub names: usize,
    /// Open streams of one identity: of one SPIFFE ID on a TLS listener; on a plain one of one `node.id`, and of one
    /// address other than loopback. Default 2,000, as all pods of a workload share a SPIFFE ID.
    /// Passed: `RESOURCE_EXHAUSTED`.
    pub streams_per_identity: usize,
    /// Open connections, of which one address other than loopback may have a quarter. Default 20,000, and never more than
    /// three eighths of the files that the process may have open. Passed: the connection is closed.
    pub connections: usize,
    /// Open streams of all clients. Default 50,000. Passed: `RESOURCE_EXHAUSTED`.
    pub streams: usize,
    /// How long a new stream may stay without a request. Default 30 s. Passed: `DEADLINE_EXCEEDED`.
    pub first_request: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 4 << 20,
            names_per_stream: 10_000,
            names: 1_000_000,
            streams_per_identity: 2_000,
            connections: 20_000,
            streams: 50_000,
            first_request: Duration::from_secs(30),
        }
    }
}

/// The files of mutual TLS, all PEM. They are read again when their content changes; files that cannot be used are
/// reported, and the previous ones stay in use.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate of the server, then the intermediate ones.
    pub certificate: PathBuf,
    /// Private key of that certificate.
    pub key: PathBuf,
    /// The authorities whose client certificates are accepted; a client without one is refused.
    pub client_ca: PathBuf,
    /// Trust domains that are accepted; empty accepts each that the authorities vouch for.
    pub trust_domains: Vec<String>,
    /// How often the files are looked at. [`Self::new`] sets 5 s.
    pub poll: Duration,
}

impl TlsFiles {
    /// Three files, any trust domain, looked at every 5 s.
    pub fn new(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        client_ca: impl Into<PathBuf>,
    ) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
            client_ca: client_ca.into(),
            trust_domains: Vec::new(),
            poll: Duration::from_secs(5),
        }
    }
}
