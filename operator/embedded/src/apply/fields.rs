//! Sets of fields, in the `FieldsV1` form.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::shape::Shape;
use crate::schema::ListType;

/// A trie of path elements (`f:name`, `k:{"key":"v"}`, `v:"item"`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    pub(crate) member: bool,
    pub(crate) children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    fn leaf() -> Self {
        Self {
            member: true,
            children: BTreeMap::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    fn add(&mut self, element: String, child: Self) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    /// All fields of a value.
    pub(crate) fn of(value: &Value, shape: Shape<'_>) -> Self {
        let mut set = Self::default();
        match value {
            Value::Object(map) if !map.is_empty() && !shape.is_atomic_map() => {
                for (name, child) in map {
                    set.add(format!("f:{name}"), Self::of(child, shape.field(name)));
                }
            }
            Value::Array(items) if !items.is_empty() && shape.list_type() != ListType::Atomic => {
                for item in items {
                    let mut child = match shape.list_type() {
                        ListType::Map(_) => Self::of(item, shape.item()),
                        _ => Self::default(),
                    };
                    child.member = true;
                    set.add(element_of(item, shape), child);
                }
            }
            _ => set.member = true,
        }
        set
    }

    pub(crate) fn union(&mut self, other: &Self) {
        self.member |= other.member;
        for (element, child) in &other.children {
            self.children
                .entry(element.clone())
                .or_default()
                .union(child);
        }
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        if other.member {
            self.member = false;
        }
        for (element, child) in &other.children {
            if let Some(mine) = self.children.get_mut(element) {
                mine.subtract(child);
                if mine.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut set = Self {
            member: self.member && other.member,
            children: BTreeMap::new(),
        };
        for (element, child) in &self.children {
            if let Some(theirs) = other.children.get(element) {
                set.add(element.clone(), child.intersection(theirs));
            }
        }
        set
    }

    /// The members as paths that people can read (`.spec.ports[port=80].name`).
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect(&self, prefix: &str, found: &mut Vec<String>) {
        if self.member {
            found.push(prefix.to_owned());
        }
        for (element, child) in &self.children {
            child.collect(&format!("{prefix}{}", readable(element)), found);
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            map.insert(element.clone(), child.to_json());
        }
        Value::Object(map)
    }

    pub(crate) fn from_json(value: &Value) -> Self {
        let Some(map) = value.as_object() else {
            return Self::default();
        };
        let mut set = Self {
            member: map.is_empty() || map.contains_key("."),
            children: BTreeMap::new(),
        };
        for (element, child) in map.iter().filter(|(e, _)| *e != ".") {
            set.children.insert(element.clone(), Self::from_json(child));
        }
        set
    }
}

fn readable(element: &str) -> String {
    match element.split_once(':') {
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let pairs: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", pairs.join(","))
        }
        Some(("v", value)) => format!("[={value}]"),
        Some((_, name)) => format!(".{name}"),
        None => format!(".{element}"),
    }
}

/// The path element of a list item.
pub(crate) fn element_of(item: &Value, list: Shape<'_>) -> String {
    match list.list_type() {
        ListType::Map(keys) => {
            let map: Map<String, Value> = keys
                .into_iter()
                .map(|k| {
                    let value = list.key_value(item, &k);
                    (k, value)
                })
                .collect();
            format!("k:{}", Value::Object(map))
        }
        _ => format!("v:{item}"),
    }
}

/// Which fields differ between two values.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// Added or modified.
    pub(crate) changed: FieldSet,
    pub(crate) removed: FieldSet,
}

pub(crate) fn compare(old: Option<&Value>, new: Option<&Value>, shape: Shape<'_>) -> Difference {
    let mut diff = Difference::default();
    match (old, new) {
        (None, None) => {}
        (Some(a), Some(b)) if a == b => {}
        (None, Some(new)) => diff.changed = FieldSet::of(new, shape),
        (Some(old), None) => diff.removed = FieldSet::of(old, shape),
        (Some(Value::Object(a)), Some(Value::Object(b))) if !shape.is_atomic_map() => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let inner = compare(a.get(name), b.get(name), shape.field(name));
                diff.changed.add(format!("f:{name}"), inner.changed);
                diff.removed.add(format!("f:{name}"), inner.removed);
            }
            diff.removed.member = a.is_empty();
            diff.changed.member = b.is_empty();
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) if shape.list_type() != ListType::Atomic => {
            compare_items(a, b, shape, &mut diff);
        }
        (Some(old), Some(new)) => {
            diff.changed = FieldSet::of(new, shape);
            diff.removed = FieldSet::of(old, shape);
            diff.removed.subtract(&diff.changed);
            if diff.changed.is_empty() {
                diff.changed = FieldSet::leaf();
            }
        }
    }
    diff
}

fn compare_items(a: &[Value], b: &[Value], shape: Shape<'_>, diff: &mut Difference) {
    let index = |items: &'_ [Value]| -> BTreeMap<String, Value> {
        items
            .iter()
            .map(|i| (element_of(i, shape), i.clone()))
            .collect()
    };
    let (a_items, b_items) = (index(a), index(b));
    let keys: BTreeSet<&String> = a_items.keys().chain(b_items.keys()).collect();
    for key in keys {
        let (old, new) = (a_items.get(key), b_items.get(key));
        let mut inner = match shape.list_type() {
            ListType::Map(_) => compare(old, new, shape.item()),
            _ => Difference::default(),
        };
        inner.changed.member |= old.is_none();
        inner.removed.member |= new.is_none();
        diff.changed.add(key.clone(), inner.changed);
        diff.removed.add(key.clone(), inner.removed);
    }
    diff.removed.member = a.is_empty();
    diff.changed.member = b.is_empty();
}
