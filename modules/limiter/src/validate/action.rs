//! Rules of `action`.

use trimtab_crds::limiter::{Action, HeaderToAdd};
use trimtab_kit::envoy::{header, is_error_status};
use trimtab_kit::problem::Problem;

use super::Strategy;

/// Header that says when to ask again.
pub(crate) const RETRY_AFTER: &str = "retry-after";

pub(super) fn check(action: &Action, path: &str) -> Result<Strategy, Problem> {
    let strategy = strategy(action, path)?;
    if strategy == Strategy::Adaptive {
        headers(action, path)?;
        response(action, path)?;
        return Ok(strategy);
    }
    if action.adaptive.is_some() {
        return Err(Problem::of_field(
            format!("{path}.adaptive"),
            "InvalidAdaptive",
            "adaptive is used only with strategy: adaptive: remove it, or set the strategy",
        ));
    }
    let field = format!("{path}.fill_interval");
    let Some(interval) = action.fill_interval else {
        return Err(Problem::of_field(
            field,
            "FillIntervalMissing",
            "fill_interval is required: add the refill period, for example fill_interval: {seconds: 1}",
        ));
    };
    if interval.seconds < 0
        || interval.seconds > 31_536_000
        || !(0..1_000_000_000).contains(&interval.nanos)
    {
        return Err(Problem::of_field(
            field,
            "InvalidFillInterval",
            "seconds must be 0 to 31536000 and nanos 0 to 999999999",
        ));
    }
    if interval.millis() < 50 {
        return Err(Problem::of_field(
            field,
            "InvalidFillInterval",
            "fill_interval must be 50 ms or longer: Envoy accepts no shorter one",
        ));
    }
    headers(action, path)?;
    response(action, path)?;
    Ok(strategy)
}

fn strategy(action: &Action, path: &str) -> Result<Strategy, Problem> {
    let field = format!("{path}.strategy");
    match action.strategy.as_deref() {
        None | Some("" | "single") => Ok(Strategy::Single),
        Some("average") => Ok(Strategy::Average),
        Some("adaptive") => Ok(Strategy::Adaptive),
        Some("global") => Err(Problem::of_field(
            field,
            "NotSupported",
            "strategy global is not available yet: use single (per pod), average (shared by the pods) or adaptive",
        )),
        Some(other) => Err(Problem::of_field(
            field,
            "InvalidStrategy",
            format!("\"{other}\" is no strategy: use single, average or adaptive"),
        )),
    }
}

fn headers(action: &Action, path: &str) -> Result<(), Problem> {
    let own = action.response.as_ref().and_then(|r| r.retry_after) == Some(true);
    let is_retry_after = |h: &HeaderToAdd| h.key.eq_ignore_ascii_case(RETRY_AFTER);
    if own && action.headers_to_add.iter().any(is_retry_after) {
        return Err(Problem::of_field(
            format!("{path}.response.retryAfter"),
            "InvalidHeader",
            "headers_to_add has a retry-after too: keep one of the two",
        ));
    }
    if action.headers_to_add.len() + usize::from(own) > 10 {
        return Err(Problem::of_field(
            format!("{path}.headers_to_add"),
            "TooManyHeaders",
            "Envoy adds 10 headers at most: remove some",
        ));
    }
    for (i, added) in action.headers_to_add.iter().enumerate() {
        let wrong = |part: &str, why: header::HeaderError| {
            Problem::of_field(
                format!("{path}.headers_to_add[{i}].{part}"),
                "InvalidHeader",
                why.to_string(),
            )
        };
        header::added(&added.key).map_err(|why| wrong("key", why))?;
        header::value(&added.value).map_err(|why| wrong("value", why))?;
    }
    Ok(())
}

fn response(action: &Action, path: &str) -> Result<(), Problem> {
    match action.response.as_ref().and_then(|r| r.status) {
        Some(status) if !is_error_status(status) => Err(Problem::of_field(
            format!("{path}.response.status"),
            "InvalidStatus",
            format!("{status} is not a status that Envoy answers with: use for example 429 or 503"),
        )),
        _ => Ok(()),
    }
}
