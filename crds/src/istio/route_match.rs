//! What rules of a VirtualService ask of a request or connection, besides what is typed in [`super::HttpMatchRequest`].

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{HttpMatchRequest, HttpRule, StringMatch, TcpRule};

/// What a match says of the caller: istiod decides it when it makes a proxy's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceMatch {
    /// Namespace of the caller; empty: any.
    pub source_namespace: String,
    /// Labels of the caller; all must be on the pod.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways, `mesh` for sidecars; empty: those of the VirtualService.
    pub gateways: Vec<String>,
    /// Port of the listener; 0: any.
    pub port: u16,
}

/// What a rule for TLS or TCP asks of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionMatch {
    /// Names of the TLS handshake.
    pub sni_hosts: Vec<String>,
    /// Networks of the destination.
    pub destination_subnets: Vec<String>,
    /// The caller.
    #[serde(flatten)]
    pub source: SourceMatch,
}

/// What a rule sends back instead of forwarding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Redirect {
    /// Host that the client is sent to; empty: the same.
    pub authority: String,
}

fn field<T: DeserializeOwned + Default>(others: &BTreeMap<String, Value>, name: &str) -> T {
    let found = others
        .get(name)
        .and_then(|value| T::deserialize(value).ok());
    found.unwrap_or_default()
}

impl HttpMatchRequest {
    /// What it says of the caller.
    pub fn source(&self) -> SourceMatch {
        SourceMatch {
            source_namespace: field(&self.others, "sourceNamespace"),
            source_labels: field(&self.others, "sourceLabels"),
            gateways: field(&self.others, "gateways"),
            port: field(&self.others, "port"),
        }
    }

    /// Scheme.
    pub fn scheme(&self) -> Option<StringMatch> {
        field(&self.others, "scheme")
    }

    /// Host of the request.
    pub fn authority(&self) -> Option<StringMatch> {
        field(&self.others, "authority")
    }

    /// Parameters of the query by name.
    pub fn query_params(&self) -> BTreeMap<String, StringMatch> {
        field(&self.others, "queryParams")
    }

    /// Headers that must not match, by name.
    pub fn without_headers(&self) -> BTreeMap<String, StringMatch> {
        field(&self.others, "withoutHeaders")
    }

    /// Whether the case of the path does not matter.
    pub fn ignores_case(&self) -> bool {
        field(&self.others, "ignoreUriCase")
    }
}

impl HttpRule {
    /// `redirect`.
    pub fn redirect(&self) -> Option<Redirect> {
        field(&self.others, "redirect")
    }

    /// Whether the proxy answers by itself.
    pub fn responds(&self) -> bool {
        self.others.contains_key("directResponse")
    }

    /// Host that requests get on the way; `None`: theirs.
    pub fn rewritten_authority(&self) -> Option<String> {
        let authority = self.others.get("rewrite")?.get("authority")?.as_str()?;
        (!authority.is_empty()).then(|| authority.to_owned())
    }
}

impl TcpRule {
    /// Connections that it is for: those that meet any of these; empty: all.
    pub fn matches(&self) -> Vec<ConnectionMatch> {
        field(&self.others, "match")
    }
}
