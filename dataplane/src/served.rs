//! What proxies are served, and the changes from one state to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};
use trimtab_kit::problem::Problem;
use trimtab_metaprotocol::input::Router;
use trimtab_metaprotocol::output::{Refusal, XdsResource};
use trimtab_xds::{
    CDS, DRDS, EDS, GENERIC_RDS, LDS, RDS, Resource, Scope, Scoped, TRDS, Update, content_version,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::wire;

/// Types that a proxy without Istio asks for, extension configs aside.
pub const TYPES: [&str; 7] = [CDS, EDS, LDS, RDS, TRDS, DRDS, GENERIC_RDS];

/// Reason of a problem: a resource has no binary form.
pub(super) const NOT_ENCODABLE: &str = "NotEncodable";

/// A port of a service, by host and number.
pub(super) type PortKey = (String, u16);

/// One resource.
#[derive(Clone, Debug)]
pub(super) struct Item {
    content: Value,
    body: Vec<u8>,
    origin: String,
    /// The port that alone it is for.
    port: Option<PortKey>,
    /// Hosts of the services that it is made of.
    pub(super) hosts: BTreeSet<String>,
    version: OnceLock<String>,
}

/// What a resource is for.
pub(super) enum For<'a> {
    /// All that proxies of this kind do.
    Proxy,
    /// One port.
    Port(&'a PortKey),
    /// Services of these hosts.
    Hosts(BTreeSet<String>),
}

/// The binary form says nothing: the order of maps in it is arbitrary.
impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        (&self.content, &self.origin, &self.port) == (&other.content, &other.origin, &other.port)
    }
}

impl Item {
    /// Version of the content.
    pub(super) fn version(&self) -> &str {
        let version = || content_version(self.content.to_string().as_bytes());
        self.version.get_or_init(version)
    }

    /// The resource with this name.
    pub(super) fn resource(&self, name: &str) -> Resource {
        Resource {
            name: name.to_owned(),
            version: self.version().to_owned(),
            body: self.body.clone().into(),
            origin: self.origin.clone(),
        }
    }
}

/// Where callers find a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opened {
    /// Host.
    pub host: String,
    /// Port of the service.
    pub port: u16,
    /// Where proxies listen for it.
    pub addresses: Vec<SocketAddr>,
}

/// Everything that proxies are served.
#[derive(Clone, Debug, Default)]
pub struct Served {
    pub(super) items: BTreeMap<(String, String), Arc<Item>>,
    /// The MetaRouter of each port that was accepted as a whole: what stays in force while a newer one has a mistake.
    pub(super) in_force: BTreeMap<PortKey, Router>,
    /// Where callers find services, sorted by host and port.
    pub opened: Vec<Opened>,
    /// What is wrong between objects.
    pub problems: Vec<Problem>,
    /// What is wrong in MetaRouters, and what the filters cannot do.
    pub refusals: Vec<Refusal>,
}

impl Served {
    /// Names of a type, sorted.
    pub fn names<'a>(&'a self, type_url: &'a str) -> impl Iterator<Item = &'a str> {
        let of_type = move |(key, _): &(&'a (String, String), &'a Arc<Item>)| key.0 == type_url;
        self.items
            .iter()
            .filter(of_type)
            .map(|(key, _)| key.1.as_str())
    }

    /// The content of a resource in its JSON form, with a hash in the place of each password: for people to read.
    pub fn shown(&self, type_url: &str, name: &str) -> Option<Value> {
        let item = self.items.get(&(type_url.to_owned(), name.to_owned()))?;
        Some(veiled(&item.content))
    }

    /// What leads from `before` to this: one update for each type of [`TYPES`], empty ones too, so that the server
    /// knows the types. `None`: nothing was served before.
    pub fn updates(&self, before: Option<&Self>, scope: &Scope) -> Vec<Update> {
        TYPES
            .iter()
            .map(|type_url| Update {
                type_url: (*type_url).to_owned(),
                set: self.changed(before, type_url, scope),
                remove: before
                    .iter()
                    .flat_map(|b| b.names(type_url))
                    .filter(|name| !self.has(type_url, name))
                    .map(str::to_owned)
                    .collect(),
            })
            .collect()
    }

    fn changed(&self, before: Option<&Self>, type_url: &str, scope: &Scope) -> Vec<Scoped> {
        self.items
            .iter()
            .filter(|(key, item)| {
                let old = before.and_then(|b| b.items.get(*key));
                key.0 == type_url && old.is_none_or(|o| o.content != item.content)
            })
            .map(|(key, item)| Scoped {
                resource: item.resource(&key.1),
                scope: scope.clone(),
            })
            .collect()
    }

    pub(super) fn has(&self, type_url: &str, name: &str) -> bool {
        let key = (type_url.to_owned(), name.to_owned());
        self.items.contains_key(&key)
    }

    /// Adds a resource. One that cannot be encoded is reported and left out.
    pub(super) fn put(
        &mut self,
        type_url: &str,
        name: &str,
        content: Value,
        origin: &str,
        of: For<'_>,
    ) {
        let (port, hosts) = match of {
            For::Proxy => (None, BTreeSet::new()),
            For::Port(key) => (Some(key.clone()), BTreeSet::from([key.0.clone()])),
            For::Hosts(hosts) => (None, hosts),
        };
        match wire::encode(type_url, &content) {
            Ok(body) => {
                let item = Item {
                    content,
                    body,
                    origin: origin.to_owned(),
                    port,
                    hosts,
                    version: OnceLock::new(),
                };
                self.items
                    .insert((type_url.to_owned(), name.to_owned()), Arc::new(item));
            }
            Err(why) => self.problems.push(Problem::new(
                origin,
                "spec",
                NOT_ENCODABLE,
                format!("{name} cannot be written as {type_url}: {why}; report this"),
            )),
        }
    }

    /// Adds routes of a protocol as they are.
    pub(super) fn put_encoded(&mut self, resource: XdsResource, port: &PortKey) {
        let content = serde_json::from_str(&resource.canonical);
        let item = Item {
            content: content.unwrap_or(Value::String(resource.canonical)),
            body: resource.body,
            origin: resource.origin,
            port: Some(port.clone()),
            hosts: BTreeSet::from([port.0.clone()]),
            version: OnceLock::new(),
        };
        self.items
            .insert((resource.type_url, resource.name), Arc::new(item));
    }

    /// Takes over all that was served for a port, endpoints aside: they are not what is wrong.
    pub(super) fn keep(&mut self, before: &Self, port: &PortKey, listener: &str) {
        let kept = before.items.iter().filter(|((url, name), item)| {
            item.port.as_ref() == Some(port) && url != EDS && (url != LDS || name == listener)
        });
        for (key, item) in kept {
            self.items.insert(key.clone(), item.clone());
        }
    }

    /// Puts all lists in their order.
    pub(super) fn sort(&mut self) {
        self.opened.sort();
        sort(&mut self.problems);
    }
}

/// By object and field, so that the order of what was read does not count.
pub(super) fn sort(problems: &mut [Problem]) {
    problems.sort_by(|a, b| {
        let key = |p: &Problem| (p.object.clone(), p.field.clone(), p.message.clone());
        key(a).cmp(&key(b))
    });
}

/// Keys of what only the proxy and the server may know.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.contains("password") || key.contains("username")
}

fn veiled(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                let value = if is_secret(key) {
                    hashed(value)
                } else {
                    veiled(value)
                };
                (key.clone(), value)
            };
            Value::Object(fields.iter().map(field).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(veiled).collect(),
        other => other.clone(),
    }
}

/// Names of files and variables are no secrets.
fn hashed(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(hashed).collect(),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                let text = value
                    .as_str()
                    .filter(|_| key.to_ascii_lowercase().contains("inline"));
                let value = text.map_or_else(
                    || value.clone(),
                    |t| Value::from(format!("{:016x}", xxh3_64(t.as_bytes()))),
                );
                (key.clone(), value)
            };
            Value::Object(fields.iter().map(field).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn passwords_are_not_shown_and_files_of_them_are() {
        let content = json!({"a": [{"downstreamAuthPasswords": [{"inlineString": "geheim"}]}],
            "b": {"auth_password": {"inline_string": "geheim"}, "authUsername": {"filename": "/a"}}});
        let shown = veiled(&content);
        assert!(!shown.to_string().contains("geheim"));
        assert_eq!(shown["b"]["authUsername"], json!({"filename": "/a"}));
        let other = json!({"auth_password": {"inline_string": "anders"}});
        assert_ne!(
            veiled(&other)["auth_password"],
            shown["b"]["auth_password"],
            "a change is seen"
        );
    }
}
