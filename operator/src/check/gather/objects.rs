//! Objects of our kinds: those in trouble, the namespaces that have some, and what they need.

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use trimtab_kit::needs::{Needs, Party};

use super::super::facts::{Asked, Need, Objects, Troubled};
use super::api::each;

/// The condition that sums up the others, where a kind has it.
const SUM: &str = "Ready";
/// Those that must be True where it has not.
const PARTS: [&str; 3] = ["Accepted", "ResolvedRefs", "Programmed"];
/// Nothing works; not known; nobody has looked.
const RANKS: [u8; 3] = [0, 1, 2];

/// What was read of objects.
#[derive(Default)]
pub(super) struct Read {
    /// By `plural.group`; kinds whose CRD is missing are not there.
    pub(super) by_kind: BTreeMap<String, Asked<Objects>>,
    /// How many are in each namespace.
    pub(super) namespaces: BTreeMap<String, usize>,
    /// What they need, sorted.
    pub(super) needs: Vec<Need>,
}

/// Reads all objects of our kinds.
pub(super) async fn objects(client: &Client, needs: &[&Needs]) -> Read {
    let mut out = Read::default();
    for (_, crd) in trimtab_crds::manifests::trimtab_crds() {
        let Some(version) = crd.spec.versions.iter().find(|version| version.storage) else {
            continue;
        };
        let names = &crd.spec.names;
        let kind = GroupVersionKind::gvk(&crd.spec.group, &version.name, &names.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, &names.plural);
        let of_kind: Vec<&&Needs> = needs
            .iter()
            .filter(|n| n.resource.kind == kind.kind && n.resource.group == kind.group)
            .collect();
        let mut objects = Objects {
            kind: names.kind.clone(),
            ..Objects::default()
        };
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let listed = each(&api, "", |object| {
            objects.total += 1;
            objects.troubled.extend(trouble(&object));
            if let Some(namespace) = object.namespace() {
                *out.namespaces.entry(namespace).or_default() += 1;
            }
            out.needs.extend(
                of_kind
                    .iter()
                    .flat_map(|needs| needed(needs, &resource, &object)),
            );
        });
        let listed = listed.await;
        objects.troubled.sort();
        match listed {
            Ok(true) => out.by_kind.insert(crd.name_any(), Ok(objects)),
            Ok(false) => None,
            Err(why) => out.by_kind.insert(crd.name_any(), Err(why)),
        };
    }
    out.needs
        .sort_by(|a, b| (&a.object, &a.field).cmp(&(&b.object, &b.field)));
    out
}

fn name(object: &DynamicObject) -> String {
    let namespace = object.namespace().map(|namespace| format!("{namespace}/"));
    format!("{}{}", namespace.unwrap_or_default(), object.name_any())
}

/// What is wrong with an object by its status.
fn trouble(object: &DynamicObject) -> Option<Troubled> {
    let conditions = object.data["status"]["conditions"].as_array();
    let conditions = conditions.map(Vec::as_slice).unwrap_or_default();
    let of = |kind: &str| conditions.iter().find(|c| c["type"] == kind);
    let [no, unknown, unseen] = RANKS;
    let name = name(object);
    let relevant: Vec<&Value> = match of(SUM) {
        Some(sum) => vec![sum],
        None => PARTS.iter().filter_map(|kind| of(kind)).collect(),
    };
    if relevant.is_empty() {
        return Some(Troubled {
            rank: unseen,
            name,
            ..Troubled::default()
        });
    }
    let troubles = relevant.into_iter().filter_map(|condition| {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        let rank = match text("status").as_str() {
            "True" => return None,
            "False" => no,
            _ => unknown,
        };
        Some(Troubled {
            rank,
            name: name.clone(),
            condition: text("type"),
            reason: text("reason"),
            message: text("message"),
        })
    });
    troubles.min()
}

fn needed(needs: &Needs, resource: &ApiResource, object: &DynamicObject) -> Vec<Need> {
    let value = json!({
        "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": object.metadata, "spec": object.data["spec"],
    });
    let namespace = object.namespace().unwrap_or_default();
    let found = needs.of(&value).into_iter().map(|need| Need {
        object: format!("{} {}", resource.kind, name(object)),
        namespace: namespace.clone(),
        field: need.field,
        of_proxies: need.party == Party::Proxies,
        since: need.since.to_string(),
        what: need.what,
        instead: need.instead,
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(conditions: &Value) -> Option<(u8, String)> {
        let object = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a", "namespace": "shop"},
            "status": {"conditions": conditions}});
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let trouble = trouble(&object)?;
        assert_eq!(trouble.name, "shop/a");
        Some((trouble.rank, trouble.condition))
    }

    #[test]
    fn the_sum_counts_and_else_the_worst_part() {
        let is = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "R", "message": "m"});
        let some = |rank: u8, kind: &str| Some((rank, kind.to_owned()));
        assert_eq!(told(&json!([])), some(2, ""));
        assert_eq!(told(&json!([is("Fresh", "False")])), some(2, ""));
        assert_eq!(
            told(&json!([is("Ready", "True"), is("Programmed", "False")])),
            None
        );
        assert_eq!(told(&json!([is("Ready", "Unknown")])), some(1, "Ready"));
        let parts = json!([
            is("Accepted", "True"),
            is("ResolvedRefs", "Unknown"),
            is("Programmed", "False")
        ]);
        assert_eq!(told(&parts), some(0, "Programmed"));
        assert_eq!(told(&json!([is("Accepted", "True")])), None);
    }
}
