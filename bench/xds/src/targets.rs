//! The numbers to reach, judged by the rows of this run.

use crate::report::{Report, Row};

const CHANGE: &str = "one change to all";
const P99: &str = "p99 ms";
const CPU: &str = "cpu us/update";
const STREAM: &str = "KiB/stream";

/// How many times more a peer has than Trimtab in the same rows.
fn ratio(
    report: &Report,
    what: &str,
    size: (usize, usize),
    peer: &str,
    value: &str,
) -> Option<f64> {
    let of = |server| report.row(what, size.0, size.1, server)?.median(value);
    Some(of(peer)? / of("trimtab")?)
}

/// Trimtab's row with the most resources and streams in a scenario.
fn largest<'a>(report: &'a Report, what: &str) -> Option<&'a Row> {
    let ours = |row: &&Row| row.what == what && row.server == "trimtab";
    let size = |row: &&Row| (row.resources, row.streams);
    report.rows.iter().filter(ours).max_by_key(size)
}

fn fan_out(report: &mut Report) {
    // The size of the target, or the nearest of a quick run.
    let size = [(1_000, 10_000), (500, 1_000)]
        .into_iter()
        .find(|size| report.row(CHANGE, size.0, size.1, "trimtab").is_some());
    if let Some(size) = size {
        let linear = ratio(report, CHANGE, size, "linear", P99);
        let floor = ratio(report, CHANGE, size, "floor", P99).map(|ratio| 1.0 / ratio);
        let answered = ratio(report, CHANGE, size, "floor+answers", P99).map(|ratio| 1.0 / ratio);
        report.target("X1", "p99 of LinearCache / ours >= 5", linear, |x| x >= 5.0);
        report.target("X1", "p99 of ours / floor <= 3", floor, |x| x <= 3.0);
        report.target(
            "X1",
            "p99 of ours / floor that is answered <= 3",
            answered,
            |x| x <= 3.0,
        );
        let cpu = ratio(report, CHANGE, size, "linear", CPU);
        report.target(
            "X2",
            "CPU per update of LinearCache / ours >= 5",
            cpu,
            |x| x >= 5.0,
        );
    }
    for streams in [100, 1_000] {
        let ours = report.growth(CHANGE, "trimtab", P99, true, streams);
        report.target(
            "X1",
            "growth of p99 in resources, exponent <= 0.1",
            ours,
            |x| x <= 0.1,
        );
    }
    let ours = report.growth(CHANGE, "trimtab", P99, false, 1_000);
    report.target(
        "X1",
        "growth of p99 in streams, exponent <= 1.1",
        ours,
        |x| x <= 1.1,
    );
}

/// Trimtab's value in the largest row of a scenario.
fn value(report: &Report, what: &str, name: &str) -> Option<f64> {
    largest(report, what)?.median(name)
}

/// Fills in the targets whose rows were measured.
pub fn judge(report: &mut Report) {
    fan_out(report);
    storm_and_memory(report);
    behaviour(report);
}

fn storm_and_memory(report: &mut Report) {
    let cold = value(report, "connect storm", "cold s");
    report.target("X3", "cold storm, seconds <= 5", cold, |x| x <= 5.0);
    let share = largest(report, "connect storm")
        .and_then(|row| Some(row.median("with versions MB")? / row.median("cold MB")?));
    report.target("X3", "bytes with versions / cold <= 0.1", share, |x| {
        x <= 0.1
    });
    let named = value(report, "idle stream, 10 names", STREAM);
    report.target(
        "X4",
        "KiB of an idle stream of 10 names <= 25",
        named,
        |x| x <= 25.0,
    );
    let all = value(report, "idle stream, everything", STREAM);
    report.target(
        "X4",
        "KiB of an idle stream of everything <= 25",
        all,
        |x| x <= 25.0,
    );
    let stored = value(report, "stored resources", "x encoded bytes");
    report.target("X4", "stored / encoded bytes <= 1.3", stored, |x| x <= 1.3);
}

fn behaviour(report: &mut Report) {
    let slow = "update storm, 10 % slow readers";
    let converged = value(report, slow, "converged after ms");
    report.target("X5", "ms until all converged <= 1000", converged, |x| {
        x <= 1000.0
    });
    let without = value(report, "update storm", "age p99 ms");
    let isolation = value(report, slow, "age p99 ms")
        .zip(without)
        .map(|(slow, base)| slow / base);
    report.target(
        "X5",
        "healthy p99 with / without slow readers <= 2",
        isolation,
        |x| x <= 2.0,
    );
    let event = value(report, "one bad resource", "all events ms");
    report.target(
        "X6",
        "ms until all refusals are reported <= 1000",
        event,
        |x| x <= 1000.0,
    );
    let looped = value(report, "one bad resource", "responses to a refusal");
    report.target("X6", "responses to a refusal = 0", looped, |x| x <= 0.0);
    let added = value(report, "one more name", P99);
    report.target(
        "X7",
        "ms until an added name is answered, p99 <= 5",
        added,
        |x| x <= 5.0,
    );
    let one = value(report, "one change to one stream", "last ms");
    report.target(
        "X8",
        "share of xDS in 150 ms: ms from update to one proxy",
        one,
        |x| x <= 150.0,
    );
}
