//! Schema transforms: second spellings and CEL rules that derive macros cannot express.

use schemars::Schema;
use serde_json::{Value, json};

use crate::schema::{add_rules, rule};

/// Pattern of durations in our own fields: `500ms`, `60s`, `5m`, `1h`.
pub(super) const DURATION_PATTERN: &str = "^([0-9]{1,7}([.][0-9]{1,3})?(ms|s|m|h)){1,4}$";

fn camel(name: &str) -> String {
    let mut out = String::new();
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else if upper {
            out.extend(c.to_uppercase());
            upper = false;
        } else {
            out.push(c);
        }
    }
    out
}

/// Declares every snake_case property in lowerCamelCase too and refuses objects that use both.
fn both_spellings(schema: &mut Schema) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else {
        return;
    };
    let twins: Vec<(String, String, Value)> = properties
        .iter()
        .filter(|(name, _)| name.contains('_'))
        .map(|(name, value)| (name.clone(), camel(name), value.clone()))
        .collect();
    let mut rules = Vec::new();
    for (snake, lower_camel, mut value) in twins {
        rules.push(rule(
            &format!("!(has(self.{snake}) && has(self.{lower_camel}))"),
            &format!("{snake} and {lower_camel} are two spellings of one field: keep one"),
        ));
        value["description"] = json!(format!("Other spelling of `{snake}`."));
        properties.insert(lower_camel, value);
    }
    add_rules(schema, rules);
}

pub(super) fn descriptor(schema: &mut Schema) {
    both_spellings(schema);
    add_rules(
        schema,
        vec![
            rule(
                "has(self.condition) || (has(self.action.strategy) && self.action.strategy == 'adaptive')",
                "condition is required: write when the limit is on, for example condition: \"true\"",
            ),
            rule(
                "(has(self.custom_key) || has(self.customKey)) == (has(self.custom_value) || has(self.customValue))",
                "custom_key and custom_value go together: set both or none",
            ),
        ],
    );
}

pub(super) fn action(schema: &mut Schema) {
    both_spellings(schema);
    let adaptive = "has(self.strategy) && self.strategy == 'adaptive'";
    add_rules(
        schema,
        vec![
            rule(
                &format!("({adaptive}) || has(self.fill_interval) || has(self.fillInterval)"),
                "fill_interval is required: add the refill period, for example fill_interval: {seconds: 1}",
            ),
            rule(
                &format!("({adaptive}) || has(self.quota)"),
                "quota is required: add the number of requests per fill_interval, for example quota: '100'",
            ),
            rule(
                &format!(
                    "!({adaptive}) || !(has(self.quota) || has(self.fill_interval) || has(self.fillInterval))"
                ),
                "strategy adaptive finds the limit itself: remove quota and fill_interval",
            ),
            rule(
                &format!("({adaptive}) || !has(self.adaptive)"),
                "adaptive is used only with strategy: adaptive: remove it, or set the strategy",
            ),
        ],
    );
}

pub(super) fn fill_interval(schema: &mut Schema) {
    add_rules(
        schema,
        vec![rule(
            "(has(self.seconds) && int(self.seconds) > 0) || (has(self.nanos) && int(self.nanos) >= 50000000)",
            "fill_interval must be 50 ms or longer: Envoy accepts no shorter one",
        )],
    );
}

pub(super) fn target(schema: &mut Schema) {
    add_rules(
        schema,
        vec![rule(
            "!has(self.direction) || self.direction != 'outbound' || (has(self.route) && size(self.route) > 0) || (has(self.host) && size(self.host) > 0)",
            "an outbound target needs route or host: add route: [\"<virtual host>/<route name>\"] or host: [\"<virtual host>\"]",
        )],
    );
}

pub(super) fn matcher(schema: &mut Schema) {
    both_spellings(schema);
    let spec = [
        "regex_match",
        "exact_match",
        "prefix_match",
        "suffix_match",
        "is_exact_match_empty",
        "present_match",
        "present_match_separate",
    ]
    .iter()
    .map(|f| format!("has(self.{f}) || has(self.{})", camel(f)))
    .collect::<Vec<_>>()
    .join(" || ");
    add_rules(
        schema,
        vec![
            rule(
                &spec,
                "a match needs one of exact_match, regex_match, prefix_match, suffix_match, is_exact_match_empty, present_match",
            ),
            rule(
                "(has(self.matchSource) && self.matchSource == 'SourceIpMatch') || (has(self.name) && size(self.name) > 0)",
                "name is required: the header, pseudo header or query parameter to match",
            ),
        ],
    );
}

/// Objects of any content by name.
pub(super) fn open_values(schema: &mut Schema) {
    schema.insert(
        "additionalProperties".into(),
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
    );
}

/// Removes the rules of everything below: what the operator reports was checked in the spec, and an API server counts the
/// cost of a rule by the largest list that may hold it, which in a status without bounds exceeds its budget.
pub(super) fn without_rules(schema: &mut Schema) {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.remove("x-kubernetes-validations");
                map.values_mut().for_each(strip);
            }
            Value::Array(list) => list.iter_mut().for_each(strip),
            _ => {}
        }
    }
    schema.ensure_object().values_mut().for_each(strip);
}

/// Restricts a string property to durations.
pub(super) fn duration(schema: &mut Schema) {
    schema.insert("pattern".into(), json!(DURATION_PATTERN));
}
