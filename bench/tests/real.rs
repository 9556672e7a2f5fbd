//! A slice of `make bench-overload`: twice of what the pods can do, with learned bounds and without anything.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::path::Path;

use trimtab_bench::real::client::Record;
use trimtab_bench::real::control::Decision;
use trimtab_bench::real::figures::Second;
use trimtab_bench::real::run_variant;
use trimtab_bench::real::schedule::SHORT;
use trimtab_bench::real::variant::Variant;

async fn run(variant: Variant, name: &str) -> (Record, Vec<Decision>) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("real-{name}"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    run_variant(variant, SHORT, &dir, 1).await.unwrap()
}

fn count(record: &Record, from: usize, of: fn(&Second) -> f64) -> f64 {
    record.seconds.iter().skip(from).map(of).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn learned_bounds_answer_in_an_overload_that_leaves_nothing_without_them() {
    let (none, ours) = tokio::join!(
        run(Variant::Nothing, "none"),
        run(Variant::Bounds, "bounds")
    );
    let (none, _) = none;
    let (ours, decisions) = ours;
    assert!(count(&none, 0, |second| second.refused) == 0.0);
    assert!(
        count(&ours, 22, |second| second.refused) > 100.0,
        "{decisions:#?}"
    );
    // Without a limit the queue is soon longer than clients wait.
    let good = |record: &Record| count(record, 25, |second| second.good);
    assert!(
        good(&ours) > 2.0 * good(&none),
        "{} with bounds, {} without: {decisions:#?}",
        good(&ours),
        good(&none)
    );
}
