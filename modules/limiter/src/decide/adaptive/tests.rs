use super::*;

fn of(limit: f64, pods: i64, millis: i64) -> (i64, i64) {
    let status = AdaptiveStatus {
        pods: Some(pods),
        bucket_millis: Some(millis),
        ..AdaptiveStatus::default()
    };
    let (tokens, interval) = bucket(limit, &status);
    (tokens, interval.millis())
}

#[test]
fn buckets_keep_the_rate_and_are_about_as_long_as_asked_for() {
    assert_eq!(of(400.0, 1, 100), (40, 100));
    assert_eq!(of(400.0, 4, 450), (45, 450));
    assert_eq!(of(10.0, 1, 100), (1, 100));
    assert_eq!(of(0.0, 3, 100), (0, 1000));
    assert_eq!(of(0.1, 1, 100), (1, 9_850));
    for tenths in 1..20_000 {
        for millis in [50, 100, 300, 450] {
            let limit = f64::from(tenths) / 10.0;
            let (tokens, every) = of(limit, 1, millis);
            let rate = tokens as f64 * 1000.0 / every as f64;
            assert!(every >= 50 && every % 50 == 0 && tokens >= 1);
            let error = (rate / limit - 1.0).abs();
            assert!(
                error < 0.06,
                "{limit}/s in {millis} ms: {tokens} per {every} ms, {error}"
            );
        }
    }
}
