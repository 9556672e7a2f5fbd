//! What Prometheus answers to an instant query. Pure.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::budget::Held;

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
#[derive(Debug, Default)]
pub struct Answer {
    /// Its series.
    pub rows: Vec<Row>,
    /// What Prometheus says of it; with a warning, series may be missing.
    pub warnings: Vec<String>,
    /// Its part of the budget of all answers: keep it for as long as the series.
    pub held: Option<Held>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// Prometheus has given up.
    Late,
    /// The query is refused, or gives something else than numbers: the text says what to change.
    Query(String),
    /// It has too many series.
    Series,
    /// This is no text of Prometheus.
    Foreign(serde_json::Error),
}

/// Read as it comes: a tagged enum of serde's would keep a copy of the whole answer, several times its size, until it
/// knows the tag.
#[derive(Default)]
struct Body {
    status: String,
    data: Data,
    warnings: Vec<String>,
    kind: String,
    error: String,
}

#[derive(Default)]
struct Data {
    kind: String,
    items: Vec<Item>,
    scalar: Vec<Plain>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    /// Missing for a native histogram.
    value: Option<(f64, String)>,
}

/// One of the two parts of a scalar.
#[derive(Deserialize)]
#[serde(untagged)]
enum Plain {
    Number(f64),
    Text(String),
}

/// Reads the body of an answer with no more series than `most`.
pub(super) fn parse(body: &[u8], most: usize) -> Result<Answer, NoAnswer> {
    let limit = Limit {
        most,
        passed: Cell::new(false),
    };
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = BodySeed(&limit).deserialize(&mut json);
    let body = read.and_then(|body| json.end().map(|()| body));
    let body = body.map_err(|error| {
        if limit.passed.get() {
            NoAnswer::Series
        } else {
            NoAnswer::Foreign(error)
        }
    })?;
    match body.status.as_str() {
        "success" => {}
        "error" if body.kind == "timeout" || body.kind == "canceled" => return Err(NoAnswer::Late),
        "error" => {
            return Err(NoAnswer::Query(format!(
                "Prometheus refused the query ({}): {}; correct the query",
                body.kind,
                shorten(&body.error)
            )));
        }
        _ => return Err(NoAnswer::Foreign(de::Error::missing_field("status"))),
    }
    let items = match body.data.kind.as_str() {
        "vector" => body.data.items,
        "scalar" => vec![Item {
            metric: BTreeMap::new(),
            value: scalar(body.data.scalar),
        }],
        "matrix" | "string" => {
            return Err(NoAnswer::Query(
                "the query gives a range or a string where numbers are needed; wrap a range, for example in `rate(...)`".to_owned(),
            ));
        }
        _ => return Err(NoAnswer::Foreign(de::Error::missing_field("resultType"))),
    };
    let rows = items.into_iter().map(row).collect::<Result<_, _>>()?;
    Ok(Answer {
        rows,
        warnings: body.warnings,
        held: None,
    })
}

fn scalar(parts: Vec<Plain>) -> Option<(f64, String)> {
    let mut parts = parts.into_iter();
    match (parts.next()?, parts.next()?) {
        (Plain::Number(at), Plain::Text(value)) => Some((at, value)),
        _ => None,
    }
}

/// How many bytes the series take in memory, about.
pub(super) fn size(rows: &[Row]) -> usize {
    // A row, and two texts of a label with what the allocator and the map add.
    const ROW: usize = 96;
    const LABEL: usize = 112;
    let labels = rows.iter().flat_map(|row| &row.labels);
    let labels = labels.map(|(name, value)| LABEL + name.len() + value.len());
    rows.len() * ROW + labels.sum::<usize>()
}

struct Limit {
    most: usize,
    passed: Cell<bool>,
}

struct BodySeed<'l>(&'l Limit);
struct DataSeed<'l>(&'l Limit);
struct ResultSeed<'l>(&'l Limit, &'l mut Data);

impl<'de> DeserializeSeed<'de> for BodySeed<'_> {
    type Value = Body;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Body, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for BodySeed<'_> {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer of Prometheus")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
        let mut body = Body::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "status" => body.status = map.next_value()?,
                "data" => body.data = map.next_value_seed(DataSeed(self.0))?,
                // Some servers write null for what there is not.
                "warnings" => body.warnings = map.next_value::<Option<_>>()?.unwrap_or_default(),
                "errorType" => body.kind = map.next_value::<Option<_>>()?.unwrap_or_default(),
                "error" => body.error = map.next_value::<Option<_>>()?.unwrap_or_default(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(body)
    }
}

impl<'de> DeserializeSeed<'de> for DataSeed<'_> {
    type Value = Data;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Data, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DataSeed<'_> {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("data with resultType and result")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Data, E> {
        Ok(Data::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data, A::Error> {
        let mut data = Data::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "resultType" => data.kind = map.next_value()?,
                "result" => map.next_value_seed(ResultSeed(self.0, &mut data))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(data)
    }
}

impl<'de> DeserializeSeed<'de> for ResultSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ResultSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("series, or a time and a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self(limit, data) = self;
        while let Some(element) = seq.next_element()? {
            match element {
                Element::Item(item) if data.items.len() < limit.most => data.items.push(item),
                Element::Item(_) => {
                    limit.passed.set(true);
                    return Err(de::Error::custom("too many series"));
                }
                // A scalar has two.
                Element::Plain(plain) if data.scalar.len() < 2 => data.scalar.push(plain),
                Element::Plain(_) => {}
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Element {
    Plain(Plain),
    Item(Item),
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
        parse(text.as_bytes(), 100).unwrap()
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
    fn fault_l11_what_is_null_is_not_there() {
        let answer = read(
            r#"{"status":"success","warnings":null,"infos":null,"error":null,"errorType":null,"data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]}]}}"#,
        );
        assert_eq!((answer.rows.len(), answer.warnings.len()), (1, 0));
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
            let error = parse(text.as_bytes(), 100).unwrap_err();
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
            parse(text.as_bytes(), 100).unwrap_err()
        };
        assert!(matches!(error("timeout"), NoAnswer::Late));
        assert!(matches!(error("canceled"), NoAnswer::Late));
        assert!(
            matches!(error("bad_data"), NoAnswer::Query(text) if text.contains("(bad_data): parse error; correct the query"))
        );
        assert!(matches!(
            parse(b"<html>", 100).unwrap_err(),
            NoAnswer::Foreign(_)
        ));
    }

    #[test]
    fn fault_t5_series_are_counted_while_they_are_read() {
        let text = |series: usize, kind: &str| {
            let series = vec![r#"{"metric":{"a":"b"},"value":[1,"1"]}"#; series].join(",");
            format!(
                r#"{{"status":"success","data":{{"result":[{series}],"resultType":"{kind}"}}}}"#
            )
        };
        assert_eq!(
            parse(text(3, "vector").as_bytes(), 3).unwrap().rows.len(),
            3
        );
        for kind in ["vector", "matrix"] {
            let error = parse(text(4, kind).as_bytes(), 3).unwrap_err();
            assert!(matches!(error, NoAnswer::Series), "{error:?}");
        }
        let cut = text(9, "vector").replace("]}}", "");
        let error = parse(cut.as_bytes(), 3).unwrap_err();
        assert!(
            matches!(error, NoAnswer::Series),
            "before the end is seen: {error:?}"
        );
    }

    #[test]
    fn an_error_may_have_empty_data() {
        let text = r#"{"status":"error","data":null,"errorType":"bad_data","error":"x"}"#;
        assert!(matches!(
            parse(text.as_bytes(), 1).unwrap_err(),
            NoAnswer::Query(_)
        ));
        assert!(matches!(parse(b"{}", 1).unwrap_err(), NoAnswer::Foreign(_)));
    }
}
