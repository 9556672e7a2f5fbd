//! What a law saw and decided at one tick, as a line of text.

use trimtab_law::{Api, Outputs, Tick};

/// Names of the columns.
pub const HEAD: &str = "    t place            offered accepted       ok     late   errors  p95_s   cpu inflight in_force    limit";

/// One line.
pub fn line(place: &str, tick: &Tick, outputs: &Outputs) -> String {
    let sum = |of: fn(&Api) -> Option<f64>| -> f64 { tick.apis.values().filter_map(of).sum() };
    let p95 = tick
        .apis
        .values()
        .filter_map(|a| a.p95_s)
        .fold(0.0, f64::max);
    let pods = tick.pods.len().max(1) as f64;
    let cpu: f64 = tick.pods.values().filter_map(|p| p.cpu).sum::<f64>() / pods;
    let inflight: f64 = tick.pods.values().filter_map(|p| p.inflight).sum();
    format!(
        "{:>5} {:<15} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>6.3} {:>5.2} {:>8.0} {:>8} {:>8}",
        tick.t,
        place,
        sum(|a| a.offered),
        sum(|a| a.accepted),
        sum(|a| a.ok),
        sum(|a| a.late),
        sum(|a| a.errors),
        p95,
        cpu,
        inflight,
        tick.in_force.as_ref().map_or_else(|| "-".to_owned(), total),
        total(outputs),
    )
}

/// The sum of all limits of one kind, or `-` for none.
fn total(outputs: &Outputs) -> String {
    let sum = |map: &std::collections::BTreeMap<String, f64>| {
        (!map.is_empty()).then(|| map.values().sum::<f64>())
    };
    outputs
        .limit
        .or_else(|| sum(&outputs.per_pod))
        .or_else(|| sum(&outputs.per_api))
        .map_or_else(|| "-".to_owned(), |limit| format!("{limit:.0}"))
}
