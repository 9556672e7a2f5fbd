//! Where proxies take credentials from.
//!
//! Envoy reads a password of Redis from its configuration, from a file or from its environment, and not over SDS. A
//! Secret is therefore read
//!
//! 1. by the proxy itself, from the file where the Secret is mounted (`secretPath` of the settings);
//! 2. else by Trimtab, where the operator allows passwords in EnvoyFilters (`secretsInline`);
//! 3. else not at all: the user is told what to mount.
//!
//! A password that is written in the user's object is there for everybody to read already and is passed on.

use serde_json::{Map, Value, json};
use trimtab_kit::problem::Problem;

use crate::input::{Credentials, RedisAuth, ServicePortInput};
use crate::owner::Owner;

const PROTOCOL_OPTIONS: &str =
    "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProtocolOptions";
/// Field of a Secret, when the user names none.
const PASSWORD_FIELD: &str = "password";
const USERNAME_FIELD: &str = "username";

/// A pair of data sources.
pub(super) struct Sources {
    password: Value,
    username: Option<Value>,
}

/// The sources of `auth`.
pub(super) fn sources(
    input: &ServicePortInput,
    auth: &RedisAuth,
    owner: &Owner,
    field: &str,
) -> Result<Sources, Box<Problem>> {
    let problem = |field: String, reason, text: String| {
        Err(Box::new(Problem::new(owner, field, reason, text)))
    };
    match auth {
        RedisAuth::Plain { credentials } if credentials.password.is_empty() => problem(
            format!("{field}.plain.password"),
            "PasswordMissing",
            "there is no password: write one, or name a Secret in auth.secret".to_owned(),
        ),
        RedisAuth::Plain { credentials } => Ok(of(credentials)),
        RedisAuth::Secret {
            namespace,
            name,
            password_field,
            username_field,
            resolved,
        } => {
            let settings = &input.settings;
            let wanted = Wanted {
                namespace,
                name,
                password: password_field.as_deref(),
                username: username_field.as_deref(),
            };
            if !settings.secret_path.is_empty() {
                return Ok(wanted.files(&settings.secret_path, resolved.as_ref()));
            }
            if !settings.secrets_inline {
                return problem(
                    format!("{field}.secret"),
                    "SecretNotMounted",
                    format!(
                        "proxies have no file of Secret {namespace}/{name}, and its password is not written into an object of the cluster: mount it into callers' proxies and set secretPath in the configuration of Trimtab, or allow it with secretsInline"
                    ),
                );
            }
            match resolved {
                Some(found) if !found.password.is_empty() => Ok(of(found)),
                _ => problem(
                    format!("{field}.secret"),
                    "SecretNotFound",
                    format!(
                        "Secret {namespace}/{name} is not there, may not be read, or has no field {}: create it, or correct the name",
                        wanted.password.unwrap_or("password and no token")
                    ),
                ),
            }
        }
    }
}

fn of(credentials: &Credentials) -> Sources {
    let text = |t: &str| json!({"inlineString": t});
    Sources {
        password: text(credentials.password.trim()),
        username: (!credentials.username.is_empty()).then(|| text(credentials.username.trim())),
    }
}

struct Wanted<'a> {
    namespace: &'a str,
    name: &'a str,
    password: Option<&'a str>,
    username: Option<&'a str>,
}

impl Wanted<'_> {
    /// Files of the Secret. Whether it has a user name is known only where it was read.
    fn files(&self, pattern: &str, resolved: Option<&Credentials>) -> Sources {
        let file = |field: &str| {
            let path = pattern
                .replace("{namespace}", self.namespace)
                .replace("{name}", self.name)
                .replace("{field}", field);
            json!({"filename": path})
        };
        let has_name = resolved.is_some_and(|r| !r.username.is_empty());
        let username = self.username.or(has_name.then_some(USERNAME_FIELD));
        Sources {
            password: file(self.password.unwrap_or(PASSWORD_FIELD)),
            username: username.map(file),
        }
    }
}

impl Sources {
    /// Into the filter: what callers must send.
    pub(super) fn insert_downstream(&self, config: &mut Map<String, Value>) {
        config.insert("downstreamAuthPasswords".into(), json!([self.password]));
        if let Some(username) = &self.username {
            config.insert("downstreamAuthUsername".into(), username.clone());
        }
    }

    /// For the cluster: what proxies send to servers.
    pub(super) fn upstream(&self) -> Value {
        let mut options = json!({"@type": PROTOCOL_OPTIONS, "authPassword": self.password});
        if let Some(username) = &self.username {
            options["authUsername"] = username.clone();
        }
        json!({"envoy.filters.network.redis_proxy": options})
    }
}
