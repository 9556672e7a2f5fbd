//! How old the series of an answer are.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::series::{self, Series};
use crate::prometheus::{Answer, Row};
use crate::sources::Failure;

/// Oldest evaluation of a query without `maxAge`: Prometheus' own look-back. It dates an answer with the time of evaluation, but
/// a cache in front of it need not have evaluated now.
const OLDEST: f64 = 300.0;
/// How far the clock of Prometheus may be ahead.
const AHEAD: f64 = 60.0;

/// The series of an answer of now, whatever the age of their samples.
pub(super) fn series(answer: Answer) -> series::Answer {
    dated(&answer, OLDEST)?;
    Ok(unaged(answer))
}

fn dated(answer: &Answer, oldest: f64) -> Result<(), Failure> {
    let now = unix_now();
    let age = |row: &Row| now - row.at;
    if answer.rows.iter().any(|row| age(row) > oldest) {
        return Err(Failure::Stale);
    }
    if answer.rows.iter().any(|row| age(row) < -AHEAD) {
        return Err(Failure::Future);
    }
    Ok(())
}

fn unaged(answer: Answer) -> Vec<Series> {
    let young = |row: Row| Series {
        labels: row.labels,
        value: row.value,
        stale: false,
    };
    answer.rows.into_iter().map(young).collect()
}

/// The series with the old ones marked. `ages` is the answer to `timestamp(query)` without a limit of age: a series
/// that is only there was left out for its age.
pub(super) fn with_ages(values: Answer, ages: &Answer, max_age: Duration) -> series::Answer {
    let limit = max_age.as_secs_f64();
    dated(&values, limit)?;
    // `timestamp` drops the name of the metric. Both times are of Prometheus' clock.
    let mut old: HashMap<Vec<(&str, &str)>, bool> = ages
        .rows
        .iter()
        .map(|row| (key(&row.labels), row.at - row.value > limit))
        .collect();
    let stale: Vec<bool> = values
        .rows
        .iter()
        .map(|row| old.remove(&key(&row.labels)).unwrap_or(false))
        .collect();
    let gone: Vec<Series> = old.into_keys().map(Series::gone).collect();
    let mut series = unaged(values);
    for (one, stale) in series.iter_mut().zip(stale) {
        one.stale = stale;
    }
    series.extend(gone);
    Ok(series)
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

    fn vector(rows: &[(&str, f64)], at: f64) -> Answer {
        let rows = rows
            .iter()
            .map(|(pod, value)| {
                let labels = [("__name__", *pod), ("pod", *pod)];
                let labels = labels
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect();
                Row {
                    labels,
                    value: *value,
                    at,
                }
            })
            .collect();
        Answer {
            rows,
            ..Answer::default()
        }
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
        let series = with_ages(values, &ages, LIMIT).unwrap();
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
        let (values, ages) = (vector(&[("a", 1.0)], at), vector(&[("a", at)], at));
        let answer = with_ages(values, &ages, LIMIT);
        assert_eq!(answer, Err(Failure::Stale));
    }

    #[test]
    fn fault_l20_a_sample_of_another_time_is_missing() {
        let now = unix_now();
        let day = 86_400.0;
        for (at, expected) in [
            (now - 290.0, None),
            (now + 50.0, None),
            (now - 310.0, Some(Failure::Stale)),
            (now - day, Some(Failure::Stale)),
            (-5.0, Some(Failure::Stale)),
            (now + 70.0, Some(Failure::Future)),
            (now + day, Some(Failure::Future)),
        ] {
            let answer = vector(&[("a", 1.0)], at);
            assert_eq!(series(answer).err(), expected, "{}", at - now);
        }
        let ahead = now + 70.0;
        let (values, ages) = (vector(&[("a", 1.0)], ahead), vector(&[("a", ahead)], ahead));
        assert_eq!(with_ages(values, &ages, LIMIT), Err(Failure::Future));
    }
}
