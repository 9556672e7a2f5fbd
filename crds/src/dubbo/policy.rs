//! DubboAuthorizationPolicy: who may call what.

// printcolumn and category are repeated on purpose.
#![allow(clippy::duplicated_attributes)]

use kube::CustomResource;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::schema::{add_rules, no_nulls, rule};
use crate::status::ObjectStatus;

/// Who may call what of the Dubbo services of the namespace; in the root namespace: of all. DENY is decided before ALLOW.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "dubbo.aeraki.io",
    version = "v1alpha1",
    kind = "DubboAuthorizationPolicy",
    plural = "dubboauthorizationpolicies",
    shortname = "dap",
    category = "aeraki-io",
    category = "dubbo-aeraki-io",
    category = "trimtab",
    namespaced,
    status = "ObjectStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Who may call what of the Dubbo services of a namespace.",
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].status"#
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[schemars(transform = no_nulls)]
pub struct DubboAuthorizationPolicySpec {
    /// One must match. Empty: nothing matches, so that ALLOW lets nothing pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub rules: Vec<Rule>,
    /// What a match means.
    #[serde(default)]
    pub action: Action,
}

/// What a match means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    /// Calls that match pass; those that match no ALLOW policy do not.
    #[default]
    Allow,
    /// Calls that match do not pass.
    Deny,
}

/// One source and one operation must match; an empty rule matches every call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rule {
    /// Callers that the rule is for; empty: every caller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub from: Vec<From>,
    /// Operations that the rule is for; empty: every operation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub to: Vec<To>,
}

/// An entry of `from`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct From {
    /// Identity and namespace of the caller.
    pub source: Source,
}

/// An entry of `to`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct To {
    /// Interface and method that are called.
    pub operation: Operation,
}

/// Who calls; all fields that are set must match. Needs mTLS. A value is exact, `abc*`, `*abc`, or `*` = not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = source)]
pub struct Source {
    /// Identities of the callers, e.g. `cluster.local/ns/dubbo/sa/consumer`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = values)]
    pub principals: Vec<String>,
    /// None of these identities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = values)]
    pub not_principals: Vec<String>,
    /// Namespaces of the callers, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = values)]
    pub namespaces: Vec<String>,
    /// None of these namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = values)]
    pub not_namespaces: Vec<String>,
}

/// What is called; all fields that are set must match. A value is exact, `abc*`, `*abc`, or `*` = not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = operation)]
pub struct Operation {
    /// Dubbo interfaces that may be called or not, by full name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = values)]
    pub interfaces: Vec<String>,
    /// None of these interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = values)]
    pub not_interfaces: Vec<String>,
    /// Methods that may be called or not, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = values)]
    pub methods: Vec<String>,
    /// None of these methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = values)]
    pub not_methods: Vec<String>,
}

/// Bounds and form of a list of values. A pattern, because a CEL rule four lists deep would go over an API server's cost limit.
fn values(schema: &mut Schema) {
    schema.insert("maxItems".into(), json!(64));
    schema.insert(
        "items".into(),
        json!({"type": "string", "minLength": 1, "maxLength": 512, "pattern": "^([^*]+[*]?|[*][^*]*)$"}),
    );
}

fn some_of(schema: &mut Schema, what: &str, fields: &[&str]) {
    let any: Vec<String> = fields
        .iter()
        .map(|f| format!("(has(self.{f}) && size(self.{f}) > 0)"))
        .collect();
    let message = format!(
        "{what} needs one of {}: an empty one would match every call",
        fields.join(", ")
    );
    add_rules(schema, vec![rule(&any.join(" || "), &message)]);
}

fn source(schema: &mut Schema) {
    some_of(
        schema,
        "source",
        &["principals", "notPrincipals", "namespaces", "notNamespaces"],
    );
}

fn operation(schema: &mut Schema) {
    some_of(
        schema,
        "operation",
        &["interfaces", "notInterfaces", "methods", "notMethods"],
    );
}
