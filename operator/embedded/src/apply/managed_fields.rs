//! `metadata.managedFields`: who owns which field, and server-side apply on top of it.

use serde_json::{Value, json};

use super::fields::{FieldSet, compare};
use super::merge::{overlay, take_away};
use super::shape::Shape;
use crate::error::Cause;
use crate::meta;

/// Who writes, and through which door.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Manager {
    pub(crate) operation: String,
    pub(crate) name: String,
    pub(crate) api_version: String,
    pub(crate) subresource: String,
}

impl Manager {
    fn is_same(&self, other: &Self) -> bool {
        self.operation == other.operation
            && self.name == other.name
            && self.subresource == other.subresource
    }
}

/// Which part of the object a request may own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything but the status.
    WithoutStatus,
    /// Everything.
    Whole,
    /// The status only.
    Status,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    manager: Manager,
    time: String,
    fields: FieldSet,
}

/// Fields that the API server manages and nobody owns.
const UNOWNED: [&str; 11] = [
    "f:name",
    "f:namespace",
    "f:generateName",
    "f:uid",
    "f:resourceVersion",
    "f:generation",
    "f:creationTimestamp",
    "f:deletionTimestamp",
    "f:deletionGracePeriodSeconds",
    "f:selfLink",
    "f:managedFields",
];

fn owned_part(mut set: FieldSet, scope: Scope) -> FieldSet {
    set.member = false;
    set.children.remove("f:apiVersion");
    set.children.remove("f:kind");
    if let Some(metadata) = set.children.get_mut("f:metadata") {
        metadata.member = false;
        metadata
            .children
            .retain(|e, _| !UNOWNED.contains(&e.as_str()));
    }
    match scope {
        Scope::Whole => {}
        Scope::WithoutStatus => {
            set.children.remove("f:status");
        }
        Scope::Status => set.children.retain(|e, _| e == "f:status"),
    }
    set.children.retain(|_, child| !child.is_empty());
    set
}

fn read(object: &Value) -> Vec<Entry> {
    let text = |e: &Value, f: &str| e[f].as_str().unwrap_or_default().to_owned();
    object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|e| Entry {
            manager: Manager {
                operation: text(e, "operation"),
                name: text(e, "manager"),
                api_version: text(e, "apiVersion"),
                subresource: text(e, "subresource"),
            },
            time: text(e, "time"),
            fields: FieldSet::from_json(&e["fieldsV1"]),
        })
        .collect()
}

fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|e| !e.fields.is_empty());
    entries.sort_by(|a, b| (&a.manager, &a.time).cmp(&(&b.manager, &b.time)));
    if entries.is_empty() {
        meta::of(object).remove("managedFields");
        return;
    }
    let list: Vec<Value> = entries
        .iter()
        .map(|e| {
            let mut entry = json!({
                "manager": e.manager.name, "operation": e.manager.operation, "apiVersion": e.manager.api_version,
                "time": e.time, "fieldsType": "FieldsV1", "fieldsV1": e.fields.to_json(),
            });
            if !e.manager.subresource.is_empty() {
                entry["subresource"] = json!(e.manager.subresource);
            }
            entry
        })
        .collect();
    meta::set(object, "managedFields", Value::Array(list));
}

/// Records a create, update or patch: what changed now belongs to `manager`.
pub(crate) fn track(
    old: Option<&Value>,
    new: &mut Value,
    shape: Shape<'_>,
    scope: Scope,
    manager: &Manager,
    now: &str,
) {
    let diff = compare(old, Some(new), shape);
    let (changed, removed) = (
        owned_part(diff.changed, scope),
        owned_part(diff.removed, scope),
    );
    let mut entries = old.map(read).unwrap_or_default();
    for entry in &mut entries {
        entry.fields.subtract(&removed);
        if !entry.manager.is_same(manager) {
            entry.fields.subtract(&changed);
        }
    }
    if !changed.is_empty() {
        match entries.iter_mut().find(|e| e.manager.is_same(manager)) {
            Some(entry) => {
                entry.fields.union(&changed);
                now.clone_into(&mut entry.time);
                entry.manager.api_version.clone_from(&manager.api_version);
            }
            None => entries.push(Entry {
                manager: manager.clone(),
                time: now.to_owned(),
                fields: changed,
            }),
        }
    }
    write(new, entries);
}

/// Applies `config` as `manager`. The result carries the new managed fields.
///
/// Fields that the manager applied before and does not send any more are removed, unless somebody else owns
/// them too. Without `force`, a field that another manager owns with another value is a conflict.
pub(crate) fn server_side(
    live: Option<&Value>,
    config: &Value,
    shape: Shape<'_>,
    scope: Scope,
    manager: &Manager,
    force: bool,
    now: &str,
) -> Result<Value, Vec<Cause>> {
    let applied = owned_part(FieldSet::of(config, shape), scope);
    let mut entries = live
        .map(|o| entries_of(o, shape, scope, now))
        .unwrap_or_default();
    let mut merged = live.cloned().unwrap_or_else(|| json!({}));
    overlay(&mut merged, &only(config, scope), shape);
    let changed = owned_part(compare(live, Some(&merged), shape).changed, scope);

    let mut causes = Vec::new();
    for entry in entries.iter_mut().filter(|e| !e.manager.is_same(manager)) {
        let contested = changed.intersection(&entry.fields);
        if contested.is_empty() {
            continue;
        }
        if force {
            entry.fields.subtract(&contested);
        } else {
            causes.extend(conflicts(&contested, &entry.manager));
        }
    }
    if !causes.is_empty() {
        return Err(causes);
    }

    let mut keep = applied.clone();
    let mut gone = FieldSet::default();
    let mut previous_time = None;
    for entry in &entries {
        if entry.manager.is_same(manager) {
            gone = entry.fields.clone();
            previous_time = (entry.fields == applied).then(|| entry.time.clone());
        } else {
            keep.union(&entry.fields);
        }
    }
    gone.subtract(&applied);
    take_away(&mut merged, &gone, Some(&keep), shape);
    entries.retain(|e| !e.manager.is_same(manager));
    let unchanged = previous_time.filter(|_| changed.is_empty());
    entries.push(Entry {
        manager: manager.clone(),
        time: unchanged.unwrap_or_else(|| now.to_owned()),
        fields: applied,
    });
    write(&mut merged, entries);
    Ok(merged)
}

/// The managers of an object; an object that nobody is recorded for belongs to `before-first-apply`.
fn entries_of(object: &Value, shape: Shape<'_>, scope: Scope, now: &str) -> Vec<Entry> {
    let entries = read(object);
    if !entries.is_empty() {
        return entries;
    }
    vec![Entry {
        manager: Manager {
            operation: "Update".to_owned(),
            name: "before-first-apply".to_owned(),
            api_version: object["apiVersion"].as_str().unwrap_or_default().to_owned(),
            subresource: String::new(),
        },
        time: now.to_owned(),
        fields: owned_part(FieldSet::of(object, shape), scope),
    }]
}

/// The part of an applied configuration that the door lets through.
fn only(config: &Value, scope: Scope) -> Value {
    let mut config = config.clone();
    if let Some(map) = config.as_object_mut() {
        match scope {
            Scope::Whole => {}
            Scope::WithoutStatus => {
                map.remove("status");
            }
            Scope::Status => map.retain(|name, _| name == "status"),
        }
    }
    config
}

fn conflicts(contested: &FieldSet, owner: &Manager) -> Vec<Cause> {
    let via = if owner.subresource.is_empty() {
        String::new()
    } else {
        format!(" with subresource \"{}\"", owner.subresource)
    };
    let using = if owner.operation == "Apply" {
        String::new()
    } else {
        format!(" using {}", owner.api_version)
    };
    contested
        .paths()
        .into_iter()
        .map(|path| {
            Cause::new(
                "FieldManagerConflict",
                path,
                format!("conflict with \"{}\"{via}{using}", owner.name),
            )
        })
        .collect()
}
