//! HTTPRoute and GRPCRoute of `gateway.networking.k8s.io/v1`, as far as sidecars obey them: those with a Service as parent.
//!
//! The schemas are open, as those of the Istio kinds: a cluster has the Gateway API's own.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

fn open(schema: &mut schemars::Schema) {
    schema.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
}

/// HTTPRoute.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "HTTPRoute",
    plural = "httproutes",
    root = "HttpRoute",
    namespaced,
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = open)]
pub struct HttpRouteSpec {
    /// What the rules are for.
    pub parent_refs: Vec<ParentReference>,
    /// Rules; the best match counts, of all routes of a parent.
    pub rules: Vec<RouteRule<HttpRouteMatch>>,
    /// Fields that we do not read.
    #[serde(flatten)]
    #[schemars(skip)]
    pub others: BTreeMap<String, Value>,
}

/// GRPCRoute.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "GRPCRoute",
    plural = "grpcroutes",
    root = "GrpcRoute",
    namespaced,
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = open)]
pub struct GrpcRouteSpec {
    /// What the rules are for.
    pub parent_refs: Vec<ParentReference>,
    /// Rules; the best match counts, of all routes of a parent.
    pub rules: Vec<RouteRule<GrpcRouteMatch>>,
    /// Fields that we do not read.
    #[serde(flatten)]
    #[schemars(skip)]
    pub others: BTreeMap<String, Value>,
}

/// What a route is for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = open)]
pub struct ParentReference {
    /// API group; absent: the Gateway API's.
    pub group: Option<String>,
    /// Kind; absent: Gateway.
    pub kind: Option<String>,
    /// Namespace; absent: the route's.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Port; absent: all.
    pub port: Option<i32>,
}

/// A rule; `M` is what a request must be like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = open)]
pub struct RouteRule<M: Default> {
    /// Requests that it is for: those that meet any of these; empty: all.
    pub matches: Vec<M>,
    /// What is done to requests.
    pub filters: Vec<RouteFilter>,
    /// Where they go.
    pub backend_refs: Vec<BackendReference>,
    /// Fields that we do not read.
    #[serde(flatten)]
    #[schemars(skip)]
    pub others: BTreeMap<String, Value>,
}

/// What a request must be like: all that is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = open)]
pub struct HttpRouteMatch {
    /// Path; absent: any.
    pub path: Option<ValueMatch>,
    /// Headers.
    pub headers: Vec<ValueMatch>,
    /// Parameters of the query.
    pub query_params: Vec<ValueMatch>,
    /// Method.
    pub method: Option<String>,
}

/// What a gRPC call must be like: all that is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = open)]
pub struct GrpcRouteMatch {
    /// Service and method; absent: any.
    pub method: Option<GrpcMethodMatch>,
    /// Headers.
    pub headers: Vec<ValueMatch>,
}

/// A gRPC service, a method, or both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = open)]
pub struct GrpcMethodMatch {
    /// `Exact` unless set; `RegularExpression`.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// Service; absent: any.
    pub service: Option<String>,
    /// Method; absent: any.
    pub method: Option<String>,
}

/// A test of a text; of a header or a parameter with its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = open)]
pub struct ValueMatch {
    /// `PathPrefix` (of a path unless set), `Exact` (else unless set), `RegularExpression`.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// Name of the header or parameter.
    pub name: String,
    /// The text.
    pub value: Option<String>,
}

/// What is done to requests; the field of its type is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = open)]
pub struct RouteFilter {
    /// Which filter.
    #[serde(rename = "type")]
    pub type_: String,
    /// Where copies go.
    pub request_mirror: Option<RequestMirror>,
    /// Where clients are sent.
    pub request_redirect: Option<HostFilter>,
    /// What requests get on the way.
    pub url_rewrite: Option<HostFilter>,
    /// Fields that we do not read.
    #[serde(flatten)]
    #[schemars(skip)]
    pub others: BTreeMap<String, Value>,
}

/// Where copies go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = open)]
pub struct RequestMirror {
    /// The service.
    pub backend_ref: BackendReference,
    /// Percent of the requests; absent: all.
    pub percent: Option<i32>,
    /// Share of the requests; absent: all.
    pub fraction: Option<Fraction>,
}

/// A share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(transform = open)]
pub struct Fraction {
    /// Of so many ...
    pub numerator: i32,
    /// ... of so many; absent: 100.
    pub denominator: Option<i32>,
}

/// A filter that names a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(transform = open)]
pub struct HostFilter {
    /// The host; absent: as it is.
    pub hostname: Option<String>,
}

/// Where requests go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = open)]
pub struct BackendReference {
    /// API group; absent: that of Services.
    pub group: Option<String>,
    /// Kind; absent: Service.
    pub kind: Option<String>,
    /// Namespace; absent: the route's.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Port.
    pub port: Option<i32>,
    /// Share; absent: 1.
    pub weight: Option<i32>,
    /// What is done to requests on the way there.
    pub filters: Vec<BackendFilter>,
}

/// What is done to requests of one backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(transform = open)]
pub struct BackendFilter {
    /// Which filter.
    #[serde(rename = "type")]
    pub type_: String,
    /// Fields that we do not read.
    #[serde(flatten)]
    #[schemars(skip)]
    pub others: BTreeMap<String, Value>,
}

impl BackendReference {
    /// The port's number.
    pub fn port(&self) -> Option<u16> {
        self.port
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n > 0)
    }
}

/// The CRD of a type as the Gateway API has it: an HTTPRoute of `v1beta1` means the same.
pub(crate) fn as_served(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let older = if crd.spec.names.kind == "HTTPRoute" {
        "v1beta1"
    } else {
        "v1alpha2"
    };
    if let Some(typed) = crd.spec.versions.first().cloned() {
        crd.spec.versions.push(CustomResourceDefinitionVersion {
            name: older.to_owned(),
            storage: false,
            ..typed
        });
    }
    crd
}
