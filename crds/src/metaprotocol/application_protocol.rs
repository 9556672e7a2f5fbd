//! ApplicationProtocol: which codec speaks a protocol.

// printcolumn and category are repeated on purpose.
#![allow(clippy::duplicated_attributes)]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;
use crate::status::ObjectStatus;

/// Names a protocol and the codec that the MetaProtocol proxy speaks it with. `dubbo` and `thrift` are known without one.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "metaprotocol.aeraki.io",
    version = "v1alpha1",
    kind = "ApplicationProtocol",
    plural = "applicationprotocols",
    category = "aeraki-io",
    category = "metaprotocol-aeraki-io",
    category = "trimtab",
    status = "ObjectStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A protocol and its codec.",
    printcolumn(name = "Protocol", type_ = "string", json_path = ".spec.protocol"),
    printcolumn(name = "Codec", type_ = "string", json_path = ".spec.codec"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::application_protocol)]
pub struct ApplicationProtocolSpec {
    /// Third part of the port names of its services: `tcp-metaprotocol-PROTOCOL`.
    #[schemars(length(min = 1, max = 63))]
    pub protocol: String,
    /// Name of the codec in the proxy, e.g. `aeraki.meta_protocol.codec.dubbo`.
    #[schemars(length(min = 1, max = 253))]
    pub codec: String,
}
