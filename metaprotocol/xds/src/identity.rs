//! Who a client is, and which resources it may see.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use envoy_types::pb::google::protobuf::value::Kind;
use prost::Message;
use xxhash_rust::xxh3::xxh3_128;

use crate::scope::{Audience, View};
use crate::types::MAX_TEXT;

/// Key of the node metadata that names a group of proxies.
pub const GROUP_KEY: &str = "TRIMTAB_GROUP";
/// Key of the node metadata in which Istio names the namespace of a proxy.
const NAMESPACE_KEY: &str = "NAMESPACE";

/// Whether the node in a request (`node.id`, `node.cluster`, node metadata) decides what a client may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NodeTrust {
    /// Only where there are no certificates: on a plain listener there is nothing else to go by.
    #[default]
    PlainOnly,
    /// Also beside a certificate, for groups and node ids; the namespace is always that of the certificate.
    Always,
    /// Never: a plain client sees only what is for all.
    Never,
}

/// Why a SPIFFE ID cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The certificate names no SPIFFE ID.
    #[error(
        "the client certificate has no spiffe:// URI in its subject alternative names; issue it from the mesh's certificate authority"
    )]
    Missing,
    /// The certificate names more than one URI, which SPIFFE forbids.
    #[error(
        "the client certificate has {0} URIs in its subject alternative names, but a SPIFFE certificate has exactly one; issue one certificate per identity"
    )]
    Several(usize),
    /// The certificate cannot be read.
    #[error("the client certificate cannot be read ({0}); issue an X.509 version 3 certificate")]
    Certificate(String),
    /// The URI is not a SPIFFE ID.
    #[error(
        "'{uri}' is not a SPIFFE ID: {reason}; use spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT"
    )]
    Malformed {
        /// The URI, cut to a printable length.
        uri: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The trust domain is not one of those that are accepted.
    #[error(
        "the trust domain '{0}' is not accepted; add it to the trust domains of the xDS server, or use a certificate of this mesh"
    )]
    TrustDomain(String),
}

/// A SPIFFE ID, <https://spiffe.io/docs/latest/spiffe-specs/spiffe-id/>.
///
/// ```
/// use trimtab_xds::SpiffeId;
/// let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
/// assert_eq!((id.trust_domain(), id.namespace()), ("cluster.local", Some("shop")));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffeId {
    uri: String,
    trust_domain: String,
    namespace: Option<String>,
    account: Option<String>,
}

/// Longest metadata of a node, in bytes: as much as the annotations of a pod may have.
const MAX_METADATA: usize = 256 << 10;
/// Longest SPIFFE ID, by the specification, in bytes.
const MAX_SPIFFE: usize = 2048;

impl SpiffeId {
    /// Reads a URI.
    pub fn parse(uri: &str) -> Result<Self, IdentityError> {
        let wrong = |reason| IdentityError::Malformed {
            uri: uri.chars().take(128).collect(),
            reason,
        };
        if uri.len() > MAX_SPIFFE {
            return Err(wrong("it is longer than 2048 bytes"));
        }
        let rest = uri
            .strip_prefix("spiffe://")
            .ok_or_else(|| wrong("the scheme is not spiffe"))?;
        let (domain, path) = match rest.split_once('/') {
            Some((domain, path)) => (domain, Some(path)),
            None => (rest, None),
        };
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        if domain.is_empty() || !domain.chars().all(lower) {
            return Err(wrong(
                "the trust domain must be lower-case letters, digits, dots, dashes and underscores",
            ));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let segments: Vec<&str> = path.into_iter().flat_map(|path| path.split('/')).collect();
        let fine = |segment: &&str| {
            !segment.is_empty() && !matches!(*segment, "." | "..") && segment.chars().all(allowed)
        };
        if !segments.iter().all(fine) {
            return Err(wrong(
                "each part of the path must be letters, digits, dots, dashes and underscores",
            ));
        }
        let (namespace, account) = match segments.as_slice() {
            ["ns", namespace, "sa", account] => {
                (Some((*namespace).to_owned()), Some((*account).to_owned()))
            }
            _ => (None, None),
        };
        Ok(Self {
            uri: uri.to_owned(),
            trust_domain: domain.to_owned(),
            namespace,
            account,
        })
    }

    /// The one SPIFFE ID of a certificate in DER form.
    pub(crate) fn of_certificate(
        der: &rustls::pki_types::CertificateDer<'_>,
    ) -> Result<Self, IdentityError> {
        let certificate = webpki::EndEntityCert::try_from(der)
            .map_err(|error| IdentityError::Certificate(error.to_string()))?;
        let uris: Vec<&str> = certificate.valid_uri_names().collect();
        match uris.as_slice() {
            [] => Err(IdentityError::Missing),
            [only] => Self::parse(only),
            several => Err(IdentityError::Several(several.len())),
        }
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The part before the path.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The namespace, if the path is `/ns/NAMESPACE/sa/ACCOUNT`.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The service account, if the path is `/ns/NAMESPACE/sa/ACCOUNT`.
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

/// The remote end of a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerInfo {
    pub(crate) addr: Option<SocketAddr>,
    pub(crate) spiffe: Option<Arc<SpiffeId>>,
}

/// The client of a stream.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) id: String,
    pub(crate) spiffe: Option<Arc<SpiffeId>>,
    pub(crate) view: Arc<View>,
    /// NACKs are stored under this key: another build of the proxy may accept what this one refused. Empty for a
    /// client without an id, whose NACKs are not stored.
    pub(crate) key: Arc<str>,
}

impl Peer {
    /// The error is for a client that claims another namespace than that of its certificate.
    pub(crate) fn new(
        node: &Node,
        spiffe: Option<Arc<SpiffeId>>,
        trust: NodeTrust,
    ) -> Result<Self, String> {
        let view = view_of(node, spiffe.as_deref(), trust)?;
        let key = if node.id.is_empty() {
            "".into()
        } else {
            let who = spiffe.as_ref().map_or("", |id| id.as_str());
            let text = format!(
                "{who}|{}|{}|{}",
                node.id,
                node.user_agent_name,
                build_of(node)
            );
            // It is stored with each refusal, so it is short.
            format!("{:032x}", xxh3_128(text.as_bytes())).into()
        };
        Ok(Self {
            id: node.id.clone(),
            spiffe,
            view: Arc::new(view),
            key,
        })
    }
}

/// Bounds what is kept of a node. Its metadata may be long, as Istio's is, but only two values of it are kept.
pub(crate) fn check_size(node: &Node) -> Result<(), String> {
    let agent = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => version.len(),
        _ => 0,
    };
    let value = |key| metadata(node, key).map_or(0, str::len);
    let texts = [
        ("node.id", node.id.len()),
        ("node.cluster", node.cluster.len()),
        ("node.user_agent_name", node.user_agent_name.len()),
        ("node.user_agent_version", agent),
        ("node.metadata.NAMESPACE", value(NAMESPACE_KEY)),
        ("node.metadata.TRIMTAB_GROUP", value(GROUP_KEY)),
    ];
    for (field, bytes) in texts {
        if bytes > MAX_TEXT {
            return Err(format!(
                "{field} has {bytes} bytes, and {MAX_TEXT} are allowed; start the proxy with a shorter one"
            ));
        }
    }
    let bytes = node.metadata.as_ref().map_or(0, Message::encoded_len);
    if bytes > MAX_METADATA {
        return Err(format!(
            "node.metadata has {bytes} bytes, and {MAX_METADATA} are allowed; start the proxy with less of it"
        ));
    }
    Ok(())
}

fn build_of(node: &Node) -> String {
    match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build
            .version
            .as_ref()
            .map(|v| format!("{}.{}.{}", v.major_number, v.minor_number, v.patch))
            .unwrap_or_default(),
        None => String::new(),
    }
}

fn view_of(node: &Node, spiffe: Option<&SpiffeId>, trust: NodeTrust) -> Result<View, String> {
    let mut view = View::default();
    let claimed = namespace_of(node);
    if let Some(id) = spiffe {
        view.0.insert(Audience::Spiffe(id.as_str().to_owned()));
        if let Some(namespace) = id.namespace() {
            if let Some(claimed) = claimed.filter(|claimed| *claimed != namespace) {
                return Err(format!(
                    "node '{}' claims namespace '{claimed}', but its certificate is {id}; start the proxy with the identity of its own namespace",
                    node.id
                ));
            }
            view.0.insert(Audience::Namespace(namespace.to_owned()));
        }
    }
    let trusted = match trust {
        NodeTrust::PlainOnly => spiffe.is_none(),
        NodeTrust::Always => true,
        NodeTrust::Never => false,
    };
    if trusted {
        let groups = [Some(node.cluster.as_str()), metadata(node, GROUP_KEY)];
        let groups = groups.into_iter().flatten().filter(|name| !name.is_empty());
        view.0
            .extend(groups.map(|name| Audience::Group(name.to_owned())));
        if !node.id.is_empty() {
            view.0.insert(Audience::Node(node.id.clone()));
        }
        if let Some(namespace) = claimed.filter(|_| spiffe.is_none()) {
            view.0.insert(Audience::Namespace(namespace.to_owned()));
        }
    }
    Ok(view)
}

fn metadata<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    match node.metadata.as_ref()?.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.as_str()),
        _ => None,
    }
}

/// From the metadata, or from an Istio node id, `sidecar~IP~POD.NAMESPACE~DOMAIN`.
fn namespace_of(node: &Node) -> Option<&str> {
    let of_id = || {
        let mut parts = node.id.split('~');
        let pod = parts.nth(2)?;
        parts.next()?;
        pod.rsplit_once('.').map(|(_, namespace)| namespace)
    };
    metadata(node, NAMESPACE_KEY)
        .or_else(of_id)
        .filter(|namespace| !namespace.is_empty())
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::{Struct, Value};

    use super::*;

    fn node(id: &str, cluster: &str, fields: &[(&str, &str)]) -> Node {
        let value = |text: &str| Value {
            kind: Some(Kind::StringValue(text.into())),
        };
        let fields = fields.iter().map(|(k, v)| ((*k).to_owned(), value(v)));
        Node {
            id: id.into(),
            cluster: cluster.into(),
            metadata: Some(Struct {
                fields: fields.collect(),
            }),
            ..Node::default()
        }
    }

    fn seen(node: &Node, spiffe: Option<&str>, trust: NodeTrust) -> Vec<String> {
        let spiffe = spiffe.map(|uri| SpiffeId::parse(uri).unwrap());
        let view = view_of(node, spiffe.as_ref(), trust).unwrap();
        view.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn spiffe_ids_are_read_and_malformed_ones_refused() {
        let id = SpiffeId::parse("spiffe://td.example/ns/a/sa/b").unwrap();
        assert_eq!(id.namespace(), Some("a"));
        let id = SpiffeId::parse("spiffe://td.example").unwrap();
        assert_eq!((id.trust_domain(), id.namespace()), ("td.example", None));
        let id = SpiffeId::parse("spiffe://td/ns/a/sa/b/extra").unwrap();
        assert_eq!(id.namespace(), None, "another form names no namespace");
        for bad in [
            "http://td/ns/a/sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://TD/ns/a/sa/b",
            "spiffe://td/ns//sa/b",
            "spiffe://td/ns/../sa/b",
            "spiffe://td/ns/a/sa/b?x=1",
            "spiffe://td:80/ns/a/sa/b",
            "spiffe://td/",
            &format!("spiffe://td/{}", "a".repeat(3000)),
        ] {
            let parsed = SpiffeId::parse(bad);
            assert!(
                matches!(parsed, Err(IdentityError::Malformed { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_plain_client_is_trusted_by_default() {
        let plain = node(
            "sidecar~1.2.3.4~pod-1.shop~x",
            "cart.shop",
            &[(GROUP_KEY, "edge")],
        );
        let all = [
            "namespace shop",
            "group cart.shop",
            "group edge",
            "node sidecar~1.2.3.4~pod-1.shop~x",
        ];
        assert_eq!(seen(&plain, None, NodeTrust::PlainOnly), all);
        assert!(seen(&plain, None, NodeTrust::Never).is_empty());
        let named = node("n", "", &[("NAMESPACE", "bank")]);
        assert_eq!(
            seen(&named, None, NodeTrust::Always),
            ["namespace bank", "node n"]
        );
    }

    #[test]
    fn a_certificate_decides_the_namespace_and_claims_beside_it_count_only_if_trusted() {
        let claims = node("n", "g", &[]);
        let uri = "spiffe://td/ns/shop/sa/cart";
        assert_eq!(
            seen(&claims, Some(uri), NodeTrust::PlainOnly),
            ["namespace shop", uri]
        );
        assert_eq!(
            seen(&claims, Some(uri), NodeTrust::Always),
            ["namespace shop", uri, "group g", "node n"]
        );
        let liar = node("sidecar~1.2.3.4~pod-1.bank~x", "", &[]);
        let id = SpiffeId::parse(uri).unwrap();
        let refused = view_of(&liar, Some(&id), NodeTrust::PlainOnly).unwrap_err();
        assert!(
            refused.contains("'bank'") && refused.contains(uri),
            "{refused}"
        );
    }
}
