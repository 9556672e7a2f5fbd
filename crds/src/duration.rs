//! The one type for durations that users write: in objects, in the configuration and on the command line.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const UNITS: [(&str, u64); 8] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1000),
    ("ns", 1),
    ("µs", 1000),
    ("μs", 1000),
];
/// Go counts nanoseconds in 63 bits: 292 years.
const MOST_NANOS: u128 = i64::MAX as u128;
/// Digits behind the point that can matter: an hour has 3.6e12 ns.
const MOST_DECIMALS: usize = 15;

/// A duration in the grammar of Go's `time.ParseDuration`, without a sign: numbers with units, e.g. `500ms`, `1.5s`, `1m30s`.
/// The units are `h`, `m`, `s`, `ms`, `us` (or `µs`) and `ns`; only `0` needs none.
///
/// It is written with the fewest units, so that equal durations are equal texts: `90s` and `1m30s` are both `1m30s`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(time::Duration);

/// A text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotADuration(String);

impl Duration {
    /// Of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    /// Of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(time::Duration::from_millis(millis))
    }

    /// As protobuf JSON: seconds with as many decimals as needed, e.g. `0.100s`, `60s`.
    pub fn to_proto_json(self) -> String {
        let (seconds, nanos) = (self.as_secs(), self.subsec_nanos());
        if nanos == 0 {
            return format!("{seconds}s");
        }
        let mut decimals = format!("{nanos:09}");
        while decimals.len() > 3 && decimals.ends_with("000") {
            decimals.truncate(decimals.len() - 3);
        }
        format!("{seconds}.{decimals}s")
    }
}

impl Deref for Duration {
    type Target = time::Duration;

    fn deref(&self) -> &time::Duration {
        &self.0
    }
}

impl From<time::Duration> for Duration {
    fn from(duration: time::Duration) -> Self {
        Self(duration)
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

fn nanos(text: &str) -> Option<u128> {
    let mut rest = text;
    let mut sum = 0;
    while !rest.is_empty() {
        let (number, tail) = split(rest, |c| !(c.is_ascii_digit() || c == '.'));
        let (unit, after) = split(tail, |c| c.is_ascii_digit() || c == '.');
        let size = u128::from(UNITS.iter().find(|(name, _)| *name == unit)?.1);
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && decimals.is_empty() {
            return None;
        }
        let digits = |text: &str| match text {
            "" => Some(0),
            _ => text.parse::<u64>().ok().map(u128::from),
        };
        let decimals = decimals.get(..MOST_DECIMALS).unwrap_or(decimals);
        let scale = 10_u128.pow(u32::try_from(decimals.len()).ok()?);
        sum += digits(whole)? * size + digits(decimals)? * size / scale;
        if sum > MOST_NANOS {
            return None;
        }
        rest = after;
    }
    Some(sum)
}

fn split(text: &str, end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(end).unwrap_or(text.len()))
}

impl FromStr for Duration {
    type Err = NotADuration;

    fn from_str(text: &str) -> Result<Self, NotADuration> {
        let nanos = match text {
            "" => None,
            // The one number that Go takes without a unit.
            "0" => Some(0),
            _ => nanos(text),
        };
        nanos
            .and_then(|nanos| u64::try_from(nanos).ok())
            .map(|nanos| Self(time::Duration::from_nanos(nanos)))
            .ok_or_else(|| NotADuration(text.to_owned()))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.as_secs(), self.subsec_nanos());
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        for (number, unit) in [(hours, "h"), (minutes, "m")] {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        // What is less than a second alone has the largest unit that it fills.
        let (whole, rest, digits, unit) = match (seconds, nanos) {
            (0, 0) if hours + minutes > 0 => return Ok(()),
            (0, 1_000_000..) => (u64::from(nanos / 1_000_000), nanos % 1_000_000, 6, "ms"),
            (0, 1000..) => (u64::from(nanos / 1000), nanos % 1000, 3, "us"),
            (0, 1..) => (u64::from(nanos), 0, 0, "ns"),
            _ => (seconds, nanos, 9, "s"),
        };
        write!(f, "{whole}")?;
        if rest > 0 {
            let decimals = format!("{rest:0digits$}");
            write!(f, ".{}", decimals.trim_end_matches('0'))?;
        }
        f.write_str(unit)
    }
}

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for NotADuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is not a duration: write for example 100ms, 1.5s, 5m or 1h",
            self.0
        )
    }
}

impl std::error::Error for NotADuration {}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct Text;

impl de::Visitor<'_> for Text {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration, for example 100ms, 1.5s, 5m or 1h")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

/// For `deserialize_with`: an empty text is none.
pub fn or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(text) if !text.is_empty() => text.parse().map(Some).map_err(de::Error::custom),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fault_o26_go_durations_parse_and_print() {
        for (text, nanos, written, json) in [
            ("100ms", 100_000_000, "100ms", "0.100s"),
            ("500ms", 500_000_000, "500ms", "0.500s"),
            ("0", 0, "0s", "0s"),
            ("60s", 60_000_000_000, "1m", "60s"),
            ("1m30s", 90_000_000_000, "1m30s", "90s"),
            ("1h30m", 5_400_000_000_000, "1h30m", "5400s"),
            ("1.5h", 5_400_000_000_000, "1h30m", "5400s"),
            ("72h", 259_200_000_000_000, "72h", "259200s"),
            ("1.5s", 1_500_000_000, "1.5s", "1.500s"),
            (".5s", 500_000_000, "500ms", "0.500s"),
            ("1h0.25s", 3_600_250_000_000, "1h250ms", "3600.250s"),
            ("2000us", 2_000_000, "2ms", "0.002s"),
            ("1.0625ms", 1_062_500, "1.0625ms", "0.001062500s"),
            ("7µs", 7000, "7us", "0.000007s"),
            ("1ns", 1, "1ns", "0.000000001s"),
        ] {
            let got: Duration = text.parse().unwrap();
            assert_eq!(got.as_nanos(), nanos, "{text}");
            assert_eq!(got.to_string(), written);
            assert_eq!(got.to_proto_json(), json);
        }
        for bad in [
            "",
            "1",
            "s",
            "-1s",
            "+1s",
            ".s",
            "1d",
            "1 s",
            "1.2.3s",
            "9999999h",
            "é",
            "1m-3s",
            "99999999999999999999h",
        ] {
            assert_eq!(bad.parse::<Duration>(), Err(NotADuration(bad.to_owned())));
        }
    }

    #[test]
    fn fault_o26_a_mistake_says_what_to_write() {
        let error = serde_json::from_str::<Duration>("\"soon\"").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("\"soon\" is not a duration: write for example 100ms, 1.5s, 5m or 1h"),
            "{error}"
        );
        let error = serde_json::from_str::<Duration>("5").unwrap_err();
        assert!(error.to_string().contains("expected a duration"), "{error}");
    }

    proptest! {
        #[test]
        fn fault_o26_what_is_written_is_read_back(nanos in 0..=i64::MAX as u64, unit in 0..6_usize) {
            let duration = Duration(time::Duration::from_nanos(nanos / UNITS[unit].1 * UNITS[unit].1));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
            prop_assert_eq!(duration.to_proto_json().parse(), Ok(duration));
            let json = serde_json::to_string(&duration).unwrap();
            prop_assert_eq!(serde_json::from_str::<Duration>(&json).unwrap(), duration);
        }

        #[test]
        fn fault_o26_any_text_is_read_or_refused(text in "[0-9.hmsnuµ]{0,24}") {
            if let Ok(duration) = text.parse::<Duration>() {
                prop_assert_eq!(duration.to_string().parse(), Ok(duration));
            }
        }
    }
}
