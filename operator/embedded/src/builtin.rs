//! What the API server fills in for built-in kinds, as far as clients rely on it.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use crate::crd;
use crate::kinds::{CRD_GROUP, Resource};
use crate::meta;

/// Fills in defaults of a built-in object.
pub(crate) fn complete(resource: &Resource, new: &mut Value, old: Option<&Value>) {
    match (resource.group(), resource.kind.as_str()) {
        ("", "Service") => service(new, old),
        ("", "Pod") => phase(new, "Pending"),
        ("", "Namespace") => phase(new, "Active"),
        ("", "Secret") => {
            encode_string_data(new);
            meta::as_map(new)
                .entry("type")
                .or_insert_with(|| json!("Opaque"));
        }
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet") => {
            meta::child(new, "spec")
                .entry("replicas")
                .or_insert_with(|| json!(1));
        }
        (CRD_GROUP, _) => {
            let names = crd::accepted_names(new);
            let spec = meta::child(new, "spec");
            spec.insert("names".to_owned(), names);
            spec.entry("conversion")
                .or_insert_with(|| json!({ "strategy": "None" }));
        }
        _ => {}
    }
}

fn phase(new: &mut Value, phase: &str) {
    meta::child(new, "status")
        .entry("phase")
        .or_insert_with(|| json!(phase));
}

fn service(new: &mut Value, old: Option<&Value>) {
    let key = format!("{}/{}", meta::namespace(new), meta::name(new));
    let spec = meta::child(new, "spec");
    spec.entry("type").or_insert_with(|| json!("ClusterIP"));
    spec.entry("sessionAffinity")
        .or_insert_with(|| json!("None"));
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let number = port["port"].clone();
        let port = meta::as_map(port);
        port.entry("protocol").or_insert_with(|| json!("TCP"));
        port.entry("targetPort").or_insert(number);
    }
    if spec["type"] == "ExternalName" || spec.contains_key("clusterIP") {
        return;
    }
    let address = old
        .and_then(|o| o.pointer("/spec/clusterIP"))
        .cloned()
        .unwrap_or_else(|| json!(cluster_ip(&key)));
    spec.insert("clusterIPs".to_owned(), json!([address]));
    spec.insert("clusterIP".to_owned(), address);
}

/// An address of 10.96.0.0/12 that depends only on the name: nothing routes to it, so a collision does no harm.
fn cluster_ip(key: &str) -> String {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let [_, _, _, _, _, a, b, c] = hasher.finish().to_be_bytes();
    format!("10.{}.{b}.{}", 96 + a % 16, c.max(1))
}

/// `stringData` becomes `data` in base64.
fn encode_string_data(new: &mut Value) {
    let Some(Value::Object(plain)) = meta::as_map(new).remove("stringData") else {
        return;
    };
    let data = meta::child(new, "data");
    for (name, value) in plain {
        data.insert(
            name,
            json!(base64(value.as_str().unwrap_or_default().as_bytes())),
        );
    }
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            if i <= chunk.len() {
                let index = (bits >> (18 - 6 * i)) & 63;
                out.push(char::from(ALPHABET[index as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads() {
        for (plain, want) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), want);
        }
    }
}
