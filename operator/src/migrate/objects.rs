//! The objects of an installation, and how they are read.

use serde_json::Value;

/// All of them, in any order.
#[derive(Clone, Debug, Default)]
pub struct Objects(pub Vec<Value>);

impl Objects {
    /// Those of a kind, sorted by namespace and name.
    pub fn kind(&self, kind: &str) -> Vec<&Value> {
        let mut found: Vec<&Value> = self.0.iter().filter(|o| o["kind"] == kind).collect();
        let key = |o: &Value| (place(o), text(o, "/apiVersion").to_owned());
        found.sort_by_cached_key(|o| key(o));
        found
    }

    /// Those of a kind that hold.
    pub fn which(&self, kind: &str, holds: impl Fn(&Value) -> bool) -> Vec<&Value> {
        let mut found = self.kind(kind);
        found.retain(|o| holds(o));
        found
    }
}

/// A text in an object; empty when it is not there.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    let found = object.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default()
}

/// The name.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// The namespace; empty for objects of the whole cluster.
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// `namespace/name`, or the name alone.
pub fn place(object: &Value) -> String {
    match namespace(object) {
        "" => name(object).to_owned(),
        namespace => format!("{namespace}/{}", name(object)),
    }
}

/// `namespace/name` of each.
pub fn places(objects: &[&Value]) -> Vec<String> {
    objects.iter().map(|o| place(o)).collect()
}

/// The value of a label; empty when it is not there.
pub fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"]["labels"][key]
        .as_str()
        .unwrap_or_default()
}

/// The value of an annotation; empty when it is not there.
pub fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    let annotations = &object["metadata"]["annotations"];
    annotations[key].as_str().unwrap_or_default()
}

/// Kind of the object's controller, or of its only owner.
pub fn owner_kind(object: &Value) -> &str {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let owners = owners.map(Vec::as_slice).unwrap_or_default();
    let controller = owners.iter().find(|o| o["controller"] == true);
    controller
        .or(owners.first())
        .map_or("", |owner| text(owner, "/kind"))
}

/// Items of a list; empty when it is not there.
pub fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    let found = object.pointer(pointer).and_then(Value::as_array);
    found.map(Vec::as_slice).unwrap_or_default()
}

/// Namespaces of objects, once each.
pub fn namespaces(objects: &[&Value]) -> Vec<String> {
    let mut found: Vec<String> = objects.iter().map(|o| namespace(o).to_owned()).collect();
    found.sort();
    found.dedup();
    found
}
