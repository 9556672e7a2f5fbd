//! What is offered, and what the pods can do.

/// A part of a run in which load and speed stay as they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phase {
    /// Name in tables.
    pub name: &'static str,
    /// Its end, in seconds since the begin of the run.
    pub until: f64,
    /// Offered requests, as a share of what the pods can do at speed 1.
    pub load: f64,
    /// How fast workers are.
    pub speed: f64,
}

const fn phase(name: &'static str, until: f64, load: f64, speed: f64) -> Phase {
    Phase {
        name,
        until,
        load,
        speed,
    }
}

/// The phases of a run, in order.
pub type Schedule = &'static [Phase];

/// The whole run.
pub const FULL: Schedule = &[
    phase("calm", 50.0, 0.7, 1.0),
    phase("2x", 90.0, 2.0, 1.0),
    phase("capacity halves", 125.0, 1.0, 0.5),
    phase("recovered", 145.0, 0.7, 1.0),
    phase("flash crowd 4x", 165.0, 4.0, 1.0),
    phase("calm again", 205.0, 0.7, 1.0),
];

/// A slice of it for tests.
pub const SHORT: Schedule = &[phase("calm", 22.0, 0.7, 1.0), phase("2x", 36.0, 2.0, 1.0)];

/// The phase at a time.
pub fn at(schedule: Schedule, t: f64) -> &'static Phase {
    schedule
        .iter()
        .find(|phase| t < phase.until)
        .unwrap_or(&schedule[schedule.len() - 1])
}

/// The end of the run, in seconds.
pub fn end(schedule: Schedule) -> f64 {
    schedule.last().map_or(0.0, |phase| phase.until)
}

/// Begin and end of each phase.
pub fn spans(schedule: Schedule) -> impl Iterator<Item = (&'static Phase, f64, f64)> {
    let begins = std::iter::once(0.0).chain(schedule.iter().map(|phase| phase.until));
    schedule
        .iter()
        .zip(begins)
        .map(|(phase, begin)| (phase, begin, phase.until))
}

/// When the first overload begins and when the last one ends.
pub fn overload(schedule: Schedule) -> (f64, f64) {
    let over = || spans(schedule).filter(|(phase, ..)| phase.load > 0.95 * phase.speed);
    (
        over()
            .map(|(_, begin, _)| begin)
            .fold(f64::INFINITY, f64::min),
        over().map(|(.., end)| end).fold(0.0, f64::max),
    )
}
