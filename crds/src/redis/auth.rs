//! Passwords, by reference or inline.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Where a password comes from: exactly one of `secret`, `plain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::auth)]
pub struct Auth {
    /// A Secret. Of a RedisService: in its namespace; of a RedisDestination: in the namespace of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretReference>,
    /// In the object itself: everybody who reads the object reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<PlainAuth>,
}

/// Keys of a Secret. White space round the values is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the password; default `password`, then `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub password_field: Option<String>,
    /// Key of the user name; absent or empty: `username` if the Secret has it, else no user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub username_field: Option<String>,
}

/// A password in clear text.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlainAuth {
    /// Password that is given to the server.
    #[schemars(length(min = 1, max = 1024))]
    pub password: String,
    /// User name; absent or empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub username: Option<String>,
}

impl std::fmt::Debug for PlainAuth {
    /// Without the password: objects end up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainAuth")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
