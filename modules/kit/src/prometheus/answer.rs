//! What Prometheus answers to an instant query. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// How much of a server's text is shown.
const SHOWN: usize = 300;

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its labels; the name of the metric is `__name__`.
    pub labels: BTreeMap<String, String>,
    /// Its value; may be NaN or infinite.
    pub value: f64,
    /// When it was evaluated, in seconds since the Unix epoch.
    pub at: f64,
}

/// An instant vector, or a scalar as one series without labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Its series.
    pub rows: Vec<Row>,
    /// What Prometheus says of it; with a warning, series may be missing.
    pub warnings: Vec<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// Prometheus has given up.
    Late,
    /// The query is refused, or gives something else than numbers: the text says what to change.
    Query(String),
    /// This is no text of Prometheus.
    Foreign(serde_json::Error),
}

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Body {
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
enum Data {
    Vector(Vec<Item>),
    Scalar((f64, String)),
    Matrix(IgnoredAny),
    String(IgnoredAny),
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    /// Missing for a native histogram.
    value: Option<(f64, String)>,
}

/// Reads the body of an answer.
pub(super) fn parse(body: &[u8]) -> Result<Answer, NoAnswer> {
    let (data, warnings) = match serde_json::from_slice(body).map_err(NoAnswer::Foreign)? {
        Body::Success { data, warnings } => (data, warnings),
        Body::Error { kind, .. } if kind == "timeout" || kind == "canceled" => {
            return Err(NoAnswer::Late);
        }
        Body::Error { kind, error } => {
            return Err(NoAnswer::Query(format!(
                "Prometheus refused the query ({kind}): {}; correct the query",
                shorten(&error)
            )));
        }
    };
    let items = match data {
        Data::Vector(items) => items,
        Data::Scalar(value) => vec![Item {
            metric: BTreeMap::new(),
            value: Some(value),
        }],
        Data::Matrix(_) | Data::String(_) => {
            return Err(NoAnswer::Query(
                "the query gives a range or a string where numbers are needed; wrap a range, for example in `rate(...)`".to_owned(),
            ));
        }
    };
    let rows = items.into_iter().map(row).collect::<Result<_, _>>()?;
    Ok(Answer { rows, warnings })
}

fn row(item: Item) -> Result<Row, NoAnswer> {
    let Some((at, text)) = item.value else {
        return Err(NoAnswer::Query(
            "the query gives histograms where numbers are needed; use `histogram_quantile(...)`"
                .to_owned(),
        ));
    };
    let value = text.parse().map_err(|_| {
        NoAnswer::Query(format!(
            "Prometheus wrote {text:?} where a number is needed; check what serves the address"
        ))
    })?;
    Ok(Row {
        labels: item.metric,
        value,
        at,
    })
}

/// The beginning of a text of a server.
pub(super) fn shorten(text: &str) -> String {
    let text = text.trim();
    if text.chars().count() <= SHOWN {
        text.to_owned()
    } else {
        text.chars().take(SHOWN).chain("...".chars()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of Prometheus 2.42, as it came.
    const RECORDED: &str = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"destination_service":"a.shop.svc.cluster.local","reporter":"source"},"value":[1763725432.108,"1"]}]}}"#;

    fn read(text: &str) -> Answer {
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn series_have_labels_value_and_time() {
        let answer = read(RECORDED);
        assert_eq!(answer.warnings, [""; 0]);
        let [row] = &answer.rows[..] else {
            panic!("{answer:?}")
        };
        assert_eq!(row.labels["reporter"], "source");
        assert_eq!(
            (row.value.to_string(), row.at.to_string()),
            ("1".into(), "1763725432.108".into())
        );
    }

    #[test]
    fn warnings_are_no_errors_and_infinity_is_a_number() {
        let answer = read(
            r#"{"status":"success","warnings":["w1","w2"],"data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[9.5,"+Inf"]}]}}"#,
        );
        assert_eq!(answer.warnings, ["w1", "w2"]);
        assert!(answer.rows[0].value.is_infinite());
    }

    #[test]
    fn a_scalar_is_one_series_without_labels() {
        let scalar =
            read(r#"{"status":"success","data":{"resultType":"scalar","result":[1,"4"]}}"#);
        assert_eq!(scalar.rows[0].value.to_string(), "4");
        assert!(scalar.rows[0].labels.is_empty());
    }

    #[test]
    fn what_gives_no_numbers_is_refused_with_the_fix() {
        for (data, fix) in [
            (
                r#""data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"2"]]}]}"#,
                "rate",
            ),
            (
                r#""data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{"count":"3"}]}]}"#,
                "histogram_quantile",
            ),
            (
                r#""data":{"resultType":"scalar","result":[1,"four"]}"#,
                "check what serves",
            ),
        ] {
            let text = format!(r#"{{"status":"success",{data}}}"#);
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(
                matches!(&error, NoAnswer::Query(text) if text.contains(fix)),
                "{error:?}"
            );
        }
    }

    #[test]
    fn refused_late_and_foreign_are_told_apart() {
        let error = |kind: &str| {
            let text =
                format!(r#"{{"status":"error","errorType":"{kind}","error":"parse error"}}"#);
            parse(text.as_bytes()).unwrap_err()
        };
        assert!(matches!(error("timeout"), NoAnswer::Late));
        assert!(matches!(error("canceled"), NoAnswer::Late));
        assert!(
            matches!(error("bad_data"), NoAnswer::Query(text) if text.contains("(bad_data): parse error; correct the query"))
        );
        assert!(matches!(
            parse(b"<html>").unwrap_err(),
            NoAnswer::Foreign(_)
        ));
    }
}
