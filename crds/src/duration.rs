//! Durations as Go writes them, the spelling of Aeraki's API.

use std::time::Duration;

const NANOS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// Parses a duration such as `100ms`, `60s`, `1m`, `1m30s`, `1.5h` or `0`.
///
/// Returns `None` for text of another form, without a unit, negative, or longer than 290 years.
pub fn parse(text: &str) -> Option<Duration> {
    if text.is_empty() {
        return None;
    }
    // The one number that Go takes without a unit.
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_end);
        let factor = NANOS.iter().find(|(name, _)| *name == unit)?.1;
        nanos += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    // Go counts nanoseconds in 63 bits.
    if nanos > 9.2e18 {
        return None;
    }
    Duration::try_from_secs_f64(nanos / 1e9).ok()
}

/// A duration as protobuf JSON: seconds with as many decimals as needed, e.g. `0.100s`, `60s`.
pub fn to_proto_json(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if nanos == 0 {
        return format!("{seconds}s");
    }
    let mut decimals = format!("{nanos:09}");
    while decimals.len() > 3 && decimals.ends_with("000") {
        decimals.truncate(decimals.len() - 3);
    }
    format!("{seconds}.{decimals}s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_parse_and_print() {
        for (text, millis, json) in [
            ("100ms", 100, "0.100s"),
            ("0", 0, "0s"),
            ("60s", 60_000, "60s"),
            ("1m", 60_000, "60s"),
            ("1m30s", 90_000, "90s"),
            ("1.5h", 5_400_000, "5400s"),
            ("2000us", 2, "0.002s"),
            (".5s", 500, "0.500s"),
        ] {
            let got = parse(text).unwrap();
            assert_eq!(got, Duration::from_millis(millis), "{text}");
            assert_eq!(to_proto_json(got), json);
        }
        for bad in [
            "", "1", "s", "-1s", ".s", "1d", "1 s", "1.2.3s", "9999999h", "é",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
