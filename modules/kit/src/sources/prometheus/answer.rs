//! What Prometheus answers, and how old it is. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::series::{Answer, Series};
use crate::sources::Failure;

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub(super) enum Body {
    Success {
        data: Data,
        #[serde(default)]
        warnings: Vec<String>,
    },
    Error {
        #[serde(default, rename = "errorType")]
        kind: String,
        #[serde(default)]
        error: String,
    },
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
pub(super) enum Data {
    Vector(Vec<Item>),
    Scalar((f64, String)),
    Matrix(IgnoredAny),
    String(IgnoredAny),
}

#[derive(Deserialize)]
pub(super) struct Item {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    /// Missing for a native histogram.
    value: Option<(f64, String)>,
}

/// One instant vector.
#[derive(Debug)]
pub(super) struct Vector {
    /// Labels and value, and when it was evaluated, in seconds since the Unix epoch.
    rows: Vec<(BTreeMap<String, String>, f64, f64)>,
    /// How many warnings came with it.
    pub(super) warnings: u64,
}

impl Vector {
    pub(super) fn parse(data: Data, warnings: u64) -> Result<Self, Failure> {
        let items = match data {
            Data::Vector(items) => items,
            Data::Scalar(value) => vec![Item {
                metric: BTreeMap::new(),
                value: Some(value),
            }],
            Data::Matrix(_) | Data::String(_) => {
                return Err(Failure::Error(
                    "the query gives a range or a string where numbers are needed; wrap a range, for example in `rate(...)`".to_owned(),
                ));
            }
        };
        let rows = items
            .into_iter()
            .map(Item::row)
            .collect::<Result<_, Failure>>()?;
        Ok(Self { rows, warnings })
    }

    /// The series, whatever their age.
    pub(super) fn series(self) -> Vec<Series> {
        let young = |(labels, value, _)| Series {
            labels,
            value,
            stale: false,
        };
        self.rows.into_iter().map(young).collect()
    }

    /// The series with the old ones marked. `ages` is the answer to `timestamp(query)` without a limit of age: a series
    /// that is only there was left out for its age.
    pub(super) fn with_ages(self, ages: &Self, max_age: Duration) -> Answer {
        let limit = max_age.as_secs_f64();
        // A cache between us and Prometheus may hand out old answers as they are.
        let now = unix_now();
        if self.rows.iter().any(|(_, _, at)| now - at > limit) {
            return Err(Failure::Stale);
        }
        // `timestamp` drops the name of the metric. Both times are of Prometheus' clock.
        let mut old: HashMap<Vec<(&str, &str)>, bool> = ages
            .rows
            .iter()
            .map(|(labels, sampled, at)| (key(labels), at - sampled > limit))
            .collect();
        let stale: Vec<bool> = self
            .rows
            .iter()
            .map(|(labels, ..)| old.remove(&key(labels)).unwrap_or(false))
            .collect();
        let gone: Vec<Series> = old.into_keys().map(Series::gone).collect();
        let mut series = self.series();
        for (one, stale) in series.iter_mut().zip(stale) {
            one.stale = stale;
        }
        series.extend(gone);
        Ok(series)
    }
}

impl Item {
    fn row(self) -> Result<(BTreeMap<String, String>, f64, f64), Failure> {
        let Some((at, text)) = self.value else {
            return Err(Failure::Error(
                "the query gives histograms where numbers are needed; use `histogram_quantile(...)`".to_owned(),
            ));
        };
        let value = text.parse().map_err(|_| {
            Failure::Error(format!(
                "Prometheus wrote {text:?} where a number is needed; check what serves `address`"
            ))
        })?;
        Ok((self.metric, value, at))
    }
}

/// The labels without the name of the metric.
fn key(labels: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    labels
        .iter()
        .filter(|(k, _)| *k != "__name__")
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect()
}

fn unix_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn parse(text: &str) -> Result<Vector, Failure> {
        match serde_json::from_str(text).unwrap() {
            Body::Success { data, warnings } => Vector::parse(data, warnings.len() as u64),
            Body::Error { error, .. } => Err(Failure::Error(error)),
        }
    }

    fn vector(rows: &[(&str, f64)], at: f64) -> Vector {
        let rows = rows
            .iter()
            .map(|(pod, value)| {
                let labels = [("__name__", *pod), ("pod", *pod)];
                let labels = labels
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect();
                (labels, *value, at)
            })
            .collect();
        Vector { rows, warnings: 0 }
    }

    #[test]
    fn warnings_are_counted_not_errors() {
        let vector = parse(
            r#"{"status":"success","warnings":["w1","w2"],"data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[9.5,"+Inf"]}]}}"#,
        )
        .unwrap();
        assert_eq!(vector.warnings, 2);
        assert!(vector.series()[0].value.is_infinite());
    }

    #[test]
    fn a_scalar_is_one_series_and_a_range_is_refused() {
        let scalar =
            parse(r#"{"status":"success","data":{"resultType":"scalar","result":[1,"4"]}}"#);
        assert_eq!(scalar.unwrap().series()[0].value.to_string(), "4");
        let range = parse(
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"2"]]}]}}"#,
        );
        assert!(matches!(range, Err(Failure::Error(text)) if text.contains("rate")));
    }

    #[test]
    fn a_histogram_is_refused_with_the_fix() {
        let histogram = parse(
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{"count":"3"}]}]}}"#,
        );
        assert!(matches!(histogram, Err(Failure::Error(t)) if t.contains("histogram_quantile")));
    }

    #[test]
    fn old_and_left_out_series_are_marked() {
        let at = unix_now();
        let values = vector(&[("young", 1.0), ("old", 2.0), ("ageless", 3.0)], at);
        let ages = vector(
            &[
                ("young", at - 59.0),
                ("old", at - 61.0),
                ("gone", at - 90.0),
            ],
            at,
        );
        let series = values.with_ages(&ages, LIMIT).unwrap();
        let marks: Vec<_> = series.iter().map(|s| (s.label("pod"), s.stale)).collect();
        let expected = [
            ("young", false),
            ("old", true),
            ("ageless", false),
            ("gone", true),
        ];
        assert_eq!(marks, expected);
    }

    #[test]
    fn an_old_evaluation_is_stale() {
        let at = unix_now() - 61.0;
        let answer = vector(&[("a", 1.0)], at).with_ages(&vector(&[("a", at)], at), LIMIT);
        assert_eq!(answer, Err(Failure::Stale));
    }
}
