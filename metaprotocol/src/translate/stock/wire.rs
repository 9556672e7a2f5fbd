//! Messages of Envoy from their JSON form to the binary one.
//!
//! One JSON is the source of all deliveries: it stands in EnvoyFilters as it is and goes over xDS encoded. The encoder
//! follows <https://protobuf.dev/programming-guides/json/> as far as the messages of `proto/stock` need it, refuses
//! fields that it does not know, and writes maps in the order of their keys, so that replicas give equal bytes.

use std::sync::LazyLock;

use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};
use trimtab_crds::Duration;
use trimtab_crds::duration::NotADuration;

static POOL: LazyLock<Result<DescriptorPool, String>> = LazyLock::new(|| {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stock.bin"));
    DescriptorPool::decode(bytes).map_err(|e| e.to_string())
});

/// The message of `type_url` in its binary form. The error names the field.
pub(crate) fn encode(type_url: &str, value: &Value) -> Result<Vec<u8>, String> {
    let pool = POOL.as_ref().map_err(Clone::clone)?;
    let name = type_url.rsplit('/').next().unwrap_or_default();
    let message = pool
        .get_message_by_name(name)
        .ok_or_else(|| format!("{name} is not known"))?;
    of_message(&message, value)
}

fn of_message(message: &MessageDescriptor, value: &Value) -> Result<Vec<u8>, String> {
    match message.full_name() {
        "google.protobuf.Any" => return any(value),
        "google.protobuf.Struct" => return structure(value),
        "google.protobuf.Duration" => return duration(value),
        "google.protobuf.UInt32Value" => {
            let mut out = Vec::new();
            varint(&mut out, 1, number(value)?, false);
            return Ok(out);
        }
        "google.protobuf.BoolValue" => {
            let mut out = Vec::new();
            let on = value.as_bool().ok_or("not true or false")?;
            varint(&mut out, 1, u32::from(on), false);
            return Ok(out);
        }
        _ => {}
    }
    let name = message.full_name();
    let object = value
        .as_object()
        .ok_or_else(|| format!("{name} is not an object"))?;
    for key in object.keys() {
        if !message
            .fields()
            .any(|f| f.json_name() == key || f.name() == key)
        {
            return Err(format!("{name} has no field {key}"));
        }
    }
    let mut out = Vec::new();
    // In the order of their numbers.
    for field in message.fields() {
        if let Some(value) = object
            .get(field.json_name())
            .or_else(|| object.get(field.name()))
        {
            of_field(&mut out, &field, value).map_err(|e| format!("{}: {e}", field.json_name()))?;
        }
    }
    Ok(out)
}

fn of_field(out: &mut Vec<u8>, field: &FieldDescriptor, value: &Value) -> Result<(), String> {
    if field.is_map() {
        let entries = value.as_object().ok_or("not an object")?;
        return of_map(out, field, entries);
    }
    if field.is_list() {
        for item in value.as_array().ok_or("not a list")? {
            single(out, field.number(), &field.kind(), item, true)?;
        }
        return Ok(());
    }
    single(
        out,
        field.number(),
        &field.kind(),
        value,
        field.supports_presence(),
    )
}

fn of_map(
    out: &mut Vec<u8>,
    field: &FieldDescriptor,
    entries: &Map<String, Value>,
) -> Result<(), String> {
    let Kind::Message(entry) = field.kind() else {
        return Err("not a map".to_owned());
    };
    let mut sorted: Vec<(&String, &Value)> = entries.iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    let (key_kind, value_kind) = (
        entry.map_entry_key_field().kind(),
        entry.map_entry_value_field().kind(),
    );
    for (key, value) in sorted {
        let mut body = Vec::new();
        // Keys are texts in JSON, whatever their type.
        let key = match key_kind {
            Kind::String => Value::from(key.as_str()),
            _ => Value::from(
                key.parse::<u32>()
                    .map_err(|_| format!("{key} is not a number"))?,
            ),
        };
        single(&mut body, 1, &key_kind, &key, true)?;
        single(&mut body, 2, &value_kind, value, true)?;
        bytes(out, field.number(), &body);
    }
    Ok(())
}

/// One value. Without `presence` a default is left out, as proto3 does.
fn single(
    out: &mut Vec<u8>,
    tag: u32,
    kind: &Kind,
    value: &Value,
    presence: bool,
) -> Result<(), String> {
    match kind {
        Kind::Message(message) => bytes(out, tag, &of_message(message, value)?),
        Kind::String => {
            let text = value.as_str().ok_or("not a text")?;
            if presence || !text.is_empty() {
                bytes(out, tag, text.as_bytes());
            }
        }
        Kind::Bool => {
            let on = value.as_bool().ok_or("not true or false")?;
            varint(out, tag, u32::from(on), presence);
        }
        Kind::Uint32 => varint(out, tag, number(value)?, presence),
        Kind::Enum(kind) => varint(out, tag, enumerated(kind, value)?, presence),
        _ => return Err("is of a type that is not supported".to_owned()),
    }
    Ok(())
}

fn enumerated(kind: &EnumDescriptor, value: &Value) -> Result<u32, String> {
    let name = value.as_str().ok_or("not a name")?;
    let found = kind
        .get_value_by_name(name)
        .ok_or_else(|| format!("{} has no value {name}", kind.full_name()))?;
    u32::try_from(found.number()).map_err(|e| e.to_string())
}

fn number(value: &Value) -> Result<u32, String> {
    value
        .as_u64()
        .and_then(|n| u32::try_from(n).ok())
        .ok_or_else(|| format!("{value} is not a number of 32 bits"))
}

fn bytes(out: &mut Vec<u8>, tag: u32, body: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(body.len() as u64, out);
    out.extend_from_slice(body);
}

fn varint(out: &mut Vec<u8>, tag: u32, value: u32, presence: bool) {
    if presence || value != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(u64::from(value), out);
    }
}

/// `{"@type": ..., fields}`.
fn any(value: &Value) -> Result<Vec<u8>, String> {
    let mut fields = value.as_object().ok_or("not an object")?.clone();
    let kind = fields.remove("@type").ok_or("no @type")?;
    let kind = kind.as_str().ok_or("@type is not a text")?;
    let body = encode(kind, &Value::Object(fields))?;
    let mut out = Vec::new();
    bytes(&mut out, 1, kind.as_bytes());
    bytes(&mut out, 2, &body);
    Ok(out)
}

/// `1.5s`.
fn duration(value: &Value) -> Result<Vec<u8>, String> {
    let text = value.as_str().ok_or("not a text")?;
    let span: Duration = text.parse().map_err(|e: NotADuration| e.to_string())?;
    let mut out = Vec::new();
    if span.as_secs() != 0 {
        encode_key(1, WireType::Varint, &mut out);
        encode_varint(span.as_secs(), &mut out);
    }
    varint(&mut out, 2, span.subsec_nanos(), false);
    Ok(out)
}

fn structure(value: &Value) -> Result<Vec<u8>, String> {
    let object = value.as_object().ok_or("not an object")?;
    let mut sorted: Vec<(&String, &Value)> = object.iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    let mut out = Vec::new();
    for (key, value) in sorted {
        let mut entry = Vec::new();
        bytes(&mut entry, 1, key.as_bytes());
        bytes(&mut entry, 2, &dynamic(value)?);
        bytes(&mut out, 1, &entry);
    }
    Ok(out)
}

/// `google.protobuf.Value`.
fn dynamic(value: &Value) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    match value {
        Value::Null => varint(&mut out, 1, 0, true),
        Value::Number(n) => {
            let n = n.as_f64().ok_or("a number that has no double")?;
            encode_key(2, WireType::SixtyFourBit, &mut out);
            out.extend_from_slice(&n.to_le_bytes());
        }
        Value::String(text) => bytes(&mut out, 3, text.as_bytes()),
        Value::Bool(on) => varint(&mut out, 4, u32::from(*on), true),
        Value::Object(_) => bytes(&mut out, 5, &structure(value)?),
        Value::Array(items) => {
            let mut list = Vec::new();
            for item in items {
                bytes(&mut list, 1, &dynamic(item)?);
            }
            bytes(&mut out, 6, &list);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::*;
    use prost::Message as _;
    use prost_reflect::DynamicMessage;
    use serde_json::json;

    /// What another reader of the JSON form makes of it.
    fn agrees(type_url: &str, value: &Value) {
        let pool = POOL.as_ref().expect("descriptors");
        let name = type_url.rsplit('/').next().expect("a name");
        let kind = pool.get_message_by_name(name).expect("a message");
        let expected = DynamicMessage::deserialize(kind.clone(), value).expect("its JSON form");
        let bytes = encode(type_url, value).expect("an encoding");
        let found = DynamicMessage::decode(kind, bytes.as_slice()).expect("a message");
        let json = |m: &DynamicMessage| serde_json::to_value(m).expect("JSON");
        assert_eq!(json(&found), json(&expected));
        assert_eq!(encode(type_url, value), Ok(bytes), "equal bytes");
        assert_eq!(expected.encoded_len(), found.encoded_len());
    }

    #[test]
    fn it_agrees_with_another_encoder() {
        agrees(
            names::TRDS,
            &json!({"name": "n", "validateClusters": false, "routes": [
                {"match": {"methodName": ""}, "route": {"cluster": "c"}},
                {"match": {"serviceName": "s", "headers": [{"name": "x", "presentMatch": true}]},
                 "route": {
                    "weightedClusters": {"clusters": [{"name": "a", "weight": 1}, {"name": "b", "weight": 300}]},
                    "requestMirrorPolicies": [{"cluster": "m", "runtimeFraction": {
                        "defaultValue": {"numerator": 5, "denominator": "MILLION"}}}],
                }},
            ]}),
        );
        agrees(
            names::DRDS,
            &json!({"name": "n", "routeConfig": [{"interface": "i", "routes": [{
                "match": {"method": {"name": {"safeRegex": {"regex": ".*"}},
                    "paramsMatch": {"1": {"exactMatch": "a"}, "0": {"exactMatch": ""}}}},
                "route": {"cluster": "c"}}]}]}),
        );
        agrees(
            names::ECDS,
            &json!({"name": "n", "typedConfig": {
                "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                "typeUrl": "type.googleapis.com/x.Y",
                "value": {"a": 1.5, "b": [null, true, "t", {"c": {}}], "d": -3},
            }}),
        );
        agrees(
            "x/envoy.extensions.filters.network.generic_proxy.action.v3.RouteAction",
            &json!({"cluster": "c", "timeout": "1.500s", "retryPolicy": {"numRetries": 0}}),
        );
    }

    #[test]
    fn unknown_fields_and_wrong_types_are_errors() {
        for (value, word) in [
            (json!({"nope": 1}), "nope"),
            (json!({"routes": {}}), "list"),
            (json!({"routes": [{"match": 1}]}), "match"),
            (json!({"name": 1}), "text"),
            (json!([]), "object"),
        ] {
            let error = encode(names::TRDS, &value).expect_err("an error");
            assert!(error.contains(word), "{value}: {error}");
        }
        assert!(encode("x/unknown", &json!({})).is_err());
    }
}
