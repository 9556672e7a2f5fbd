//! What Envoy takes of values that users write, so that none reaches a proxy that refuses it: a refused value is a refused
//! route configuration or listener, and with it what others have there. Judged as Envoy 1.40 does. Pure.

use std::time::Duration;

pub mod header;
pub mod re2;

/// Statuses that Envoy's `HttpStatus` can name, 400 and up (envoy.type.v3.StatusCode).
const ERRORS: [i32; 37] = [
    400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421,
    422, 423, 424, 426, 428, 429, 431, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];

/// Whether Envoy can answer a refused request with `status`.
pub fn is_error_status(status: i32) -> bool {
    ERRORS.contains(&status)
}

/// Whether Envoy can count `duration`: its nanoseconds fit into 63 bits, the last second aside.
pub fn is_duration(duration: Duration) -> bool {
    duration.as_secs() < i64::MAX.unsigned_abs() / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_duration_is_envoys() {
        assert!(is_duration(Duration::from_secs(9_223_372_035)));
        assert!(!is_duration(Duration::from_secs(9_223_372_036)));
    }

    #[test]
    fn statuses_are_errors_that_envoy_names() {
        assert!([400, 429, 503, 511].into_iter().all(is_error_status));
        assert!(
            ![200, 399, 418, 425, 451, 509, 599]
                .into_iter()
                .any(is_error_status)
        );
    }
}
