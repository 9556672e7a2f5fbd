//! Which series may be stored. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::super::proto::Series;
use super::super::proto::series::Target;
use super::super::well_known;
use super::{Entry, Now};

const DEFAULT_TTL: Duration = Duration::from_secs(30);
const SHORTEST_TTL: Duration = Duration::from_secs(1);
const LONGEST_TTL: Duration = Duration::from_secs(3600);
/// How far a pusher's clock may run ahead.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);
/// Kubernetes names end at 253 characters; nobody needs longer metric names either.
const LONGEST_NAME: usize = 253;

/// The entry and the target of a series that may be stored.
pub(super) fn checked(series: &Series, now: Now) -> Result<(Entry, &Target), String> {
    if !valid_name(&series.name) {
        return Err(format!(
            "name {:?} is not a metric name; use letters, digits, '_' and '.', and do not begin with a digit or '.'",
            clip(&series.name)
        ));
    }
    let Some(target) = &series.target else {
        return Err("target is missing; set service or pod".to_owned());
    };
    let (Target::Service(name) | Target::Pod(name)) = target;
    for (field, text) in [("namespace", &series.namespace), ("target", name)] {
        if text.is_empty() || text.len() > LONGEST_NAME {
            return Err(format!(
                "{field} {:?} is not a Kubernetes name; write 1 to {LONGEST_NAME} characters",
                clip(text)
            ));
        }
    }
    if !series.value.is_finite() {
        return Err("value is NaN or infinite; push a finite number, or nothing".to_owned());
    }
    let ttl = ttl(series.ttl.as_ref())?;
    let at = measured_at(series.at.as_ref(), now.wall)?;
    // A value from a clock that runs ahead must not outlive its ttl, so its age is at least zero.
    let age = at.map_or(Duration::ZERO, |at| {
        Duration::try_from(now.wall.duration_since(at)).unwrap_or_default()
    });
    let left = ttl.saturating_sub(age);
    if left.is_zero() {
        return Err(
            "the value has expired on arrival; push it sooner, raise ttl, or check the clocks"
                .to_owned(),
        );
    }
    Ok((
        Entry {
            value: series.value,
            at,
            expires: now.monotonic + left,
        },
        target,
    ))
}

fn ttl(given: Option<&well_known::Duration>) -> Result<Duration, String> {
    let Some(given) = given else {
        return Ok(DEFAULT_TTL);
    };
    to_duration(given.seconds, given.nanos)
        .filter(|ttl| (SHORTEST_TTL..=LONGEST_TTL).contains(ttl))
        .ok_or_else(|| format!("ttl {}s is out of range; write 1s to 1h", given.seconds))
}

fn measured_at(
    given: Option<&well_known::Timestamp>,
    now: Timestamp,
) -> Result<Option<Timestamp>, String> {
    let Some(given) = given else { return Ok(None) };
    Timestamp::new(given.seconds, given.nanos)
        .ok()
        .filter(|at| at.duration_since(now) <= CLOCK_SKEW && given.nanos >= 0)
        .map(Some)
        .ok_or_else(|| {
            format!(
                "at {}s is not a past time; check the pusher's clock",
                given.seconds
            )
        })
}

fn to_duration(seconds: i64, nanos: i32) -> Option<Duration> {
    let (seconds, nanos) = (u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

fn valid_name(name: &str) -> bool {
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first
        && name.len() <= LONGEST_NAME
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}
