//! The gRPC service of generated config sources.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How proxies reach the xDS server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct XdsEndpoint {
    /// `host:port`; empty: proxies cannot be told one.
    pub address: String,
    /// TLS with the proxy's ServiceAccount token; absent: plain text, or the client certificates of files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<EndpointTls>,
    /// The server knows which namespace a proxy is of, and serves it what is for this namespace only. Otherwise proxies, also those
    /// that say no namespace, see the resources of all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub identified: bool,
}

/// What a proxy needs to trust the xDS server and to show who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EndpointTls {
    /// PEM certificates of the authorities whose certificates the server shows.
    pub roots: String,
    /// The file, in the proxy, with its ServiceAccount token.
    pub token_file: String,
}

impl XdsEndpoint {
    /// Plain text, for proxies on this machine.
    pub fn plain(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            tls: None,
            identified: false,
        }
    }

    /// The `GrpcService` of an `ApiConfigSource`, as JSON. `google_grpc` needs no cluster; Envoy refuses `envoy_grpc` with a
    /// cluster from CDS here. The token is read from its file again for each stream.
    pub fn grpc_service(&self) -> Value {
        let mut service = json!({"target_uri": self.address, "stat_prefix": "trimtab"});
        if let Some(tls) = &self.tls {
            service["channel_credentials"] =
                json!({"ssl_credentials": {"root_certs": {"inline_string": tls.roots}}});
            service["credentials_factory_name"] = json!(FILE_CREDENTIALS);
            service["call_credentials"] = json!([{"from_plugin": {
                "name": FILE_CREDENTIALS,
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.config.grpc_credential.v3.FileBasedMetadataConfig",
                    "secret_data": {"filename": tls.token_file},
                    "header_key": "authorization",
                    "header_prefix": "Bearer ",
                },
            }}]);
        }
        json!({ "google_grpc": service })
    }
}

const FILE_CREDENTIALS: &str = "envoy.grpc_credentials.file_based_metadata";
