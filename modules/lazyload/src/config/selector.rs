//! Label selectors, as plain maps of labels or as Kubernetes writes them.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use trimtab_mesh::model::{Labels, selects};

/// A selector of labels. An empty one selects everything.
///
/// Reads `{stage: prod}`, and `matchLabels` with `matchExpressions` as Slime has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must be there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: Labels,
    /// What must hold besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

/// One of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Written")]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What must hold of it.
    pub operator: Operator,
    /// Values to compare with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What a [`Requirement`] asks of its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Option<Vec<String>>,
}

impl TryFrom<Written> for Requirement {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written {
            key,
            operator,
            values,
        } = written;
        let values = values.unwrap_or_default();
        let compares = matches!(operator, Operator::In | Operator::NotIn);
        if compares == values.is_empty() {
            let need = if compares { "needs" } else { "takes no" };
            return Err(format!(
                "the label {key:?} with operator {operator:?} {need} values"
            ));
        }
        Ok(Self {
            key,
            operator,
            values,
        })
    }
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl LabelSelector {
    /// Whether labels are selected.
    pub fn selects(&self, labels: &Labels) -> bool {
        selects(&self.match_labels, labels)
            && self.match_expressions.iter().all(|r| r.holds(labels))
    }
}

impl<'de> Deserialize<'de> for LabelSelector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = LabelSelector;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels, or matchLabels and matchExpressions")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LabelSelector, A::Error> {
        let mut out = LabelSelector::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "matchLabels" | "match_labels" => {
                    let labels: Option<Labels> = map.next_value()?;
                    out.match_labels.extend(labels.unwrap_or_default());
                }
                "matchExpressions" | "match_expressions" => {
                    let all: Option<Vec<Requirement>> = map.next_value()?;
                    out.match_expressions.extend(all.unwrap_or_default());
                }
                _ => {
                    let value = map.next_value()?;
                    out.match_labels.insert(key, value);
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(selector: &str) -> String {
        let selector: LabelSelector = serde_saphyr::from_str(selector).unwrap();
        let spaces = [
            ("prod", vec![("stage", "prod"), ("team", "a")]),
            ("test", vec![("stage", "test")]),
            ("bare", vec![]),
        ];
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            let pairs = pairs.iter();
            pairs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let chosen = spaces.iter().filter(|(_, l)| selector.selects(&labels(l)));
        chosen.map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn fault_s20_selectors_mean_what_they_mean_in_kubernetes() {
        for (selector, expected) in [
            ("{stage: prod}", "prod"),
            ("{}", "prod test bare"),
            ("{matchLabels: {stage: prod}}", "prod"),
            ("{match_labels: {stage: test}}", "test"),
            ("{matchLabels: {stage: prod, team: b}}", ""),
            (
                "{matchLabels: null, matchExpressions: null}",
                "prod test bare",
            ),
            (
                "{matchExpressions: [{key: stage, operator: In, values: [prod, beta]}]}",
                "prod",
            ),
            (
                "{matchExpressions: [{key: stage, operator: NotIn, values: [prod]}]}",
                "test bare",
            ),
            (
                "{matchExpressions: [{key: team, operator: Exists}]}",
                "prod",
            ),
            (
                "{matchExpressions: [{key: team, operator: DoesNotExist, values: []}]}",
                "test bare",
            ),
            (
                "{matchLabels: {stage: prod}, matchExpressions: [{key: team, operator: DoesNotExist}]}",
                "",
            ),
            (
                "{match_expressions: [{key: stage, operator: Exists}, {key: team, operator: DoesNotExist}]}",
                "test",
            ),
        ] {
            assert_eq!(selected(selector), expected, "{selector}");
        }
    }

    #[test]
    fn fault_s20_what_is_no_selector_is_refused() {
        for (selector, part) in [
            (
                "{matchExpressions: [{key: a, operator: Within, values: [b]}]}",
                "Within",
            ),
            (
                "{matchExpressions: [{key: a, operator: in, values: [b]}]}",
                "NotIn",
            ),
            (
                "{matchExpressions: [{key: a, operator: In}]}",
                "needs values",
            ),
            (
                "{matchExpressions: [{key: a, operator: Exists, values: [b]}]}",
                "takes no values",
            ),
            ("{matchExpressions: [{operator: Exists}]}", "key"),
            (
                "{matchExpressions: [{key: a, operator: Exists, extra: b}]}",
                "extra",
            ),
            ("{matchLabel: {a: b}}", "string"),
        ] {
            let read = serde_saphyr::from_str::<LabelSelector>(selector);
            let error = read.unwrap_err().to_string();
            assert!(error.contains(part), "{selector}: {error}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text =
            "{matchLabels: {a: b}, matchExpressions: [{key: c, operator: NotIn, values: [d]}]}";
        let selector: LabelSelector = serde_saphyr::from_str(text).unwrap();
        let again = serde_json::to_value(&selector).unwrap();
        assert_eq!(
            serde_json::from_value::<LabelSelector>(again).unwrap(),
            selector
        );
    }
}
