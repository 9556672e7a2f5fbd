//! Kubernetes' protobuf, as far as `kubectl create` sends it: name, namespace, labels and annotations of an object, and the
//! data of ConfigMaps and Secrets.

use serde_json::{Map, Value, json};

use crate::builtin::base64;

/// The beginning of every body.
const MAGIC: &[u8] = b"k8s\0";

/// The object of a body; `None`: it is no protobuf, or has more than what is read here.
pub(crate) fn object(bytes: &[u8]) -> Option<Value> {
    let envelope = fields(bytes.strip_prefix(MAGIC)?)?;
    let one = |number| envelope.iter().find(|(n, _)| *n == number).map(|(_, b)| *b);
    let types = fields(one(1)?)?;
    let word = |number| {
        let found = types.iter().find(|(n, _)| *n == number)?;
        text(found.1)
    };
    let (api_version, kind) = (word(1)?, word(2)?);
    let mut out = json!({"apiVersion": api_version, "kind": kind, "metadata": {}});
    for (number, bytes) in fields(one(2)?)? {
        match (kind, number) {
            _ if number == 1 => out["metadata"] = metadata(bytes)?,
            // Spec and status, which clients send empty.
            ("Namespace", 2 | 3) => {}
            ("ConfigMap", 2) | ("Secret", 4) => {
                let field = if kind == "Secret" {
                    "stringData"
                } else {
                    "data"
                };
                let (key, value) = entry(bytes)?;
                out[field][key] = json!(text(value)?);
            }
            ("ConfigMap", 3) | ("Secret", 2) => {
                let field = if kind == "Secret" {
                    "data"
                } else {
                    "binaryData"
                };
                let (key, value) = entry(bytes)?;
                out[field][key] = json!(base64(value));
            }
            ("Secret", 3) => out["type"] = json!(text(bytes)?),
            _ => return None,
        }
    }
    let known = ["Namespace", "ServiceAccount", "ConfigMap", "Secret"];
    (api_version == "v1" && known.contains(&kind)).then_some(out)
}

fn metadata(bytes: &[u8]) -> Option<Value> {
    let mut out = Map::new();
    for (number, bytes) in fields(bytes)? {
        let name = match number {
            1 => "name",
            2 => "generateName",
            3 => "namespace",
            11 => "labels",
            12 => "annotations",
            // An empty time of creation, which every client sends, and what only the API server writes.
            _ => continue,
        };
        if number < 10 {
            let value = text(bytes)?;
            if !value.is_empty() {
                out.insert(name.to_owned(), json!(value));
            }
            continue;
        }
        let (key, value) = entry(bytes)?;
        let map = out.entry(name).or_insert_with(|| json!({}));
        map[key] = json!(text(value)?);
    }
    Some(Value::Object(out))
}

/// An entry of a map.
fn entry(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let mut out = ("", &[][..]);
    for (number, bytes) in fields(bytes)? {
        match number {
            1 => out.0 = text(bytes)?,
            2 => out.1 = bytes,
            _ => return None,
        }
    }
    Some(out)
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Numbers and bytes of the fields of a message. Numbers as values are left out: nothing that is read here has them.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        match tag & 7 {
            0 => {
                varint(&mut bytes)?;
            }
            1 => bytes = bytes.get(8..)?,
            5 => bytes = bytes.get(4..)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                out.push((tag >> 3, value));
                bytes = rest;
            }
            _ => return None,
        }
    }
    Some(out)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut out = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        out |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(out);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, bytes) in fields {
            out.extend([number << 3 | 2, u8::try_from(bytes.len()).unwrap()]);
            out.extend(*bytes);
        }
        out
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = message(&[(1, b"v1"), (2, kind.as_bytes())]);
        let envelope = message(&[(1, &types), (2, raw), (3, b""), (4, b"")]);
        [MAGIC, &envelope].concat()
    }

    #[test]
    fn fault_o38_what_kubectl_create_sends_is_read() {
        let label = message(&[(1, b"a"), (2, b"b")]);
        let named = message(&[(1, b"shop"), (2, b""), (3, b"x"), (8, b""), (11, &label)]);
        let raw = message(&[(1, &named), (2, b""), (3, &message(&[(1, b"")]))]);
        assert_eq!(
            object(&body("Namespace", &raw)),
            Some(
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "namespace": "x", "labels": {"a": "b"}}})
            )
        );
        let raw = message(&[(1, &named), (2, &label), (3, b"Opaque")]);
        let secret = object(&body("Secret", &raw)).unwrap();
        assert_eq!(
            (&secret["data"]["a"], &secret["type"]),
            (&json!("Yg=="), &json!("Opaque"))
        );
        let raw = message(&[(1, &named), (2, &label)]);
        assert_eq!(object(&body("ConfigMap", &raw)).unwrap()["data"]["a"], "b");
        assert_eq!(object(&body("Deployment", &raw)), None);
        assert_eq!(object(b"{}"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = object(&[MAGIC, &bytes].concat());
            let _ = object(&body("ConfigMap", &bytes[..bytes.len().min(100)]));
        }
    }
}
