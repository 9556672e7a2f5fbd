//! Structural schemas of CRDs: parsing, validation, pruning, defaulting and CEL rules.

mod cel;
mod prune_default;
mod validate;

use std::collections::BTreeMap;

use serde_json::Value;

pub(crate) use cel::Rules;
pub(crate) use prune_default::{Unknown, default, prune};
pub(crate) use validate::validate;

/// How a list is merged and who owns its items.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ListType {
    /// The list is one value.
    #[default]
    Atomic,
    /// Items are values without duplicates.
    Set,
    /// Items are maps, identified by these fields.
    Map(Vec<String>),
}

/// One node of a schema.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a keyword of the schema language"
)]
pub(crate) struct Schema {
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded: bool,
    pub(crate) atomic_map: bool,
    pub(crate) list_type: ListType,
    pub(crate) default: Option<Value>,
    pub(crate) properties: BTreeMap<String, Schema>,
    pub(crate) required: Vec<String>,
    pub(crate) additional: Option<Box<Schema>>,
    /// `additionalProperties: true`.
    pub(crate) additional_any: bool,
    pub(crate) items: Option<Box<Schema>>,
    pub(crate) enumeration: Vec<Value>,
    pub(crate) minimum: Option<f64>,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) pattern: Option<regex::Regex>,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Box<Schema>>,
}

impl Schema {
    /// Parses an `openAPIV3Schema` node.
    pub(crate) fn parse(raw: &Value) -> Result<Self, String> {
        let text = |f: &str| raw[f].as_str().unwrap_or_default().to_owned();
        let flag = |f: &str| raw[f].as_bool().unwrap_or(false);
        let mut schema = Self {
            kind: text("type"),
            format: text("format"),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            atomic_map: raw["x-kubernetes-map-type"].as_str() == Some("atomic"),
            list_type: list_type(raw),
            default: raw.get("default").cloned(),
            required: strings(&raw["required"]),
            additional_any: flag("additionalProperties"),
            enumeration: raw["enum"].as_array().cloned().unwrap_or_default(),
            exclusive_minimum: flag("exclusiveMinimum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            unique_items: flag("uniqueItems"),
            ..Self::default()
        };
        schema.parse_bounds(raw)?;
        schema.parse_children(raw)?;
        schema.check_default()?;
        Ok(schema)
    }

    /// A default must be a value that the schema takes, as the API server itself would fill it in.
    fn check_default(&self) -> Result<(), String> {
        let Some(value) = &self.default else {
            return Ok(());
        };
        let mut filled = value.clone();
        default(self, &mut filled);
        let problems = validate(self, &filled);
        problems.first().map_or(Ok(()), |problem| {
            Err(format!("default {value}: {}", problem.message))
        })
    }

    fn parse_bounds(&mut self, raw: &Value) -> Result<(), String> {
        let count = |f: &str| raw[f].as_u64();
        self.minimum = raw["minimum"].as_f64();
        self.maximum = raw["maximum"].as_f64();
        self.multiple_of = raw["multipleOf"].as_f64();
        self.min_length = count("minLength");
        self.max_length = count("maxLength");
        self.min_items = count("minItems");
        self.max_items = count("maxItems");
        self.min_properties = count("minProperties");
        self.max_properties = count("maxProperties");
        if let Some(pattern) = raw["pattern"].as_str() {
            let compiled = regex::Regex::new(pattern)
                .map_err(|e| format!("pattern {pattern:?} is not a regular expression: {e}"))?;
            self.pattern = Some(compiled);
        }
        Ok(())
    }

    fn parse_children(&mut self, raw: &Value) -> Result<(), String> {
        if let Some(properties) = raw["properties"].as_object() {
            for (name, child) in properties {
                self.properties.insert(name.clone(), Self::parse(child)?);
            }
        }
        if raw["additionalProperties"].is_object() {
            self.additional = Some(Box::new(Self::parse(&raw["additionalProperties"])?));
        }
        if raw["items"].is_object() {
            self.items = Some(Box::new(Self::parse(&raw["items"])?));
        }
        if raw["not"].is_object() {
            self.not = Some(Box::new(Self::parse(&raw["not"])?));
        }
        for (field, into) in [
            ("allOf", &mut self.all_of),
            ("anyOf", &mut self.any_of),
            ("oneOf", &mut self.one_of),
        ] {
            for branch in raw[field].as_array().into_iter().flatten() {
                into.push(Self::parse(branch)?);
            }
        }
        Ok(())
    }

    /// The schema of a field, declared or additional.
    pub(crate) fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or(self.additional.as_deref())
    }
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .map(|a| {
            a.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default()
}

fn list_type(raw: &Value) -> ListType {
    match raw["x-kubernetes-list-type"].as_str() {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(strings(&raw["x-kubernetes-list-map-keys"])),
        _ => ListType::Atomic,
    }
}

/// Joins a path and a field name.
pub(crate) fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}
