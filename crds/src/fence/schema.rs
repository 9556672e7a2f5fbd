//! Schema rules of ServiceFence.

use schemars::Schema;
use serde_json::json;

use crate::schema::{add_rules, no_nulls, rule};

/// Rules over the whole spec.
pub(super) fn spec(schema: &mut Schema) {
    no_nulls(schema);
    add_rules(
        schema,
        vec![rule(
            "!has(self.workloadSelector) || !has(self.workloadSelector.fromService) || !self.workloadSelector.fromService \
             || !has(self.workloadSelector.labels) || size(self.workloadSelector.labels) == 0",
            "workloadSelector.labels and workloadSelector.fromService exclude each other: remove one of them",
        )],
    );
}

/// A strategy is one of stable, deadline and auto, or nothing.
pub(super) fn strategy(schema: &mut Schema) {
    no_nulls(schema);
    schema.insert("maxProperties".into(), json!(2));
}

/// An enum value that Go programs write by name or by number.
pub(super) fn name_or_number(schema: &mut Schema) {
    let object = schema.ensure_object();
    object.remove("type");
    object.remove("enum");
    object.remove("oneOf");
    object.remove("anyOf");
    object.insert("x-kubernetes-int-or-string".into(), json!(true));
}
