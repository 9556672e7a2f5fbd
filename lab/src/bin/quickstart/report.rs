//! Rows, verdict and plot of the quickstart. Pure.

use trimtab_limiter::engine::LimiterView;

use crate::scenario::Scenario;
use trimtab_lab::plot::{Axis, Marker, PALETTE, Plot, Series, Style, svg};

/// Requests per second that the example lets through in all.
const TOTAL: f64 = 30.0;
/// How far the mean over a steady stretch may be above the limit: bucket refills and seconds do not align.
const TOLERANCE: f64 = 1.15;

/// Requests of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub offered: u64,
    pub accepted: u64,
    pub limited: u64,
    pub failed: u64,
}

/// One second.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub second: u64,
    pub phase: &'static str,
    pub pods: i64,
    pub traffic: Traffic,
    pub cpu: Option<f64>,
    pub limit: Option<i64>,
    pub state: String,
    pub reason: String,
}

impl Row {
    pub fn new(second: u64, phase: &'static str, traffic: Traffic, view: &LimiterView) -> Self {
        let decision = view.descriptors.first();
        Self {
            second,
            phase,
            pods: view.pods,
            traffic,
            cpu: view.metrics.get("_base.cpu").and_then(|r| r.value),
            limit: decision.and_then(|d| d.quota),
            state: decision
                .map(|d| d.state.as_str().to_owned())
                .unwrap_or_default(),
            reason: decision.map(|d| d.reason.clone()).unwrap_or_default(),
        }
    }

    pub fn line(&self) -> String {
        let number = |v: Option<String>| v.unwrap_or_else(|| "-".to_owned());
        let failed = if self.traffic.failed > 0 {
            format!(" ({} failed)", self.traffic.failed)
        } else {
            String::new()
        };
        format!(
            "{:>4}s  {:<13} {:>4} {:>8} {:>9} {:>6} {:>6} {:>9}  {:<9} {}{failed}",
            self.second + 1,
            self.phase,
            self.pods,
            self.traffic.offered,
            self.traffic.accepted,
            self.traffic.limited,
            number(self.cpu.map(|c| format!("{c:.2}"))),
            number(self.limit.map(|l| format!("{l}/s"))),
            self.state,
            self.reason,
        )
    }
}

pub(super) fn header() -> String {
    format!(
        "{:>5}  {:<13} {:>4} {:>8} {:>9} {:>6} {:>6} {:>9}  {:<9} reason",
        "time", "phase", "pods", "offered", "accepted", "429s", "cpu", "per pod", "state"
    )
}

/// What was seen.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    pub came_on: Option<u64>,
    pub on_two: bool,
    pub on_three: bool,
    pub steady_mean: Option<f64>,
    pub refused: u64,
    pub failed: u64,
    pub went_off: bool,
}

impl Verdict {
    pub fn of(rows: &[Row]) -> Self {
        let steady: Vec<f64> = rows
            .windows(3)
            .filter(|w| {
                w.iter()
                    .all(|r| r.limit.is_some() && r.limit == w[0].limit && r.pods == w[0].pods)
            })
            .map(|w| w[2].traffic.accepted as f64)
            .collect();
        let tail: Vec<&Row> = rows.iter().rev().take(3).collect();
        Self {
            came_on: rows
                .iter()
                .find(|r| r.limit.is_some())
                .map(|r| r.second + 1),
            on_two: rows.iter().any(|r| r.pods == 2 && r.limit == Some(15)),
            on_three: rows.iter().any(|r| r.pods == 3 && r.limit == Some(10)),
            steady_mean: (steady.len() >= 4)
                .then(|| steady.iter().sum::<f64>() / steady.len() as f64),
            refused: rows.iter().map(|r| r.traffic.limited).sum(),
            failed: rows.iter().map(|r| r.traffic.failed).sum(),
            went_off: !tail.is_empty()
                && tail
                    .iter()
                    .all(|r| r.limit.is_none() && r.traffic.limited == 0),
        }
    }

    fn obeyed(&self) -> bool {
        self.refused > 0
            && self
                .steady_mean
                .is_some_and(|m| (TOTAL * 0.7..=TOTAL * TOLERANCE).contains(&m))
    }

    pub fn good(&self) -> bool {
        self.came_on.is_some()
            && self.on_two
            && self.on_three
            && self.obeyed()
            && self.went_off
            && self.failed == 0
    }

    pub fn lines(&self, simulated: bool) -> Vec<String> {
        let mark = |ok: bool| if ok { "yes" } else { "NO " };
        let on = self
            .came_on
            .map_or_else(|| "never".to_owned(), |s| format!("in second {s}"));
        let mean = self.steady_mean.map_or_else(
            || "no steady stretch".to_owned(),
            |m| format!("{m:.1} accepted per second of {TOTAL:.0} allowed"),
        );
        let title = if simulated {
            "summary (SIMULATED metrics and answers)"
        } else {
            "summary"
        };
        vec![
            title.to_owned(),
            format!("  {} the limit came on {on}", mark(self.came_on.is_some())),
            format!(
                "  {} it was split over two pods: 15 each",
                mark(self.on_two)
            ),
            format!(
                "  {} it followed the scale-up to three: 10 each",
                mark(self.on_three)
            ),
            format!(
                "  {} it was obeyed: {mean}, {} refused",
                mark(self.obeyed()),
                self.refused
            ),
            format!("  {} it went off when the load fell", mark(self.went_off)),
            format!(
                "  {} no request failed otherwise: {} failed",
                mark(self.failed == 0),
                self.failed
            ),
        ]
    }
}

/// The plot of the run.
pub(super) fn plot(rows: &[Row], scenario: &Scenario, simulated: bool) -> String {
    let series = |label: &str,
                  color: usize,
                  axis: Axis,
                  style: Style,
                  value: &dyn Fn(&Row) -> Option<f64>| Series {
        label: label.to_owned(),
        color: PALETTE.get(color).copied().unwrap_or("#000000").to_owned(),
        points: rows
            .iter()
            .map(|r| (r.second as f64 + 1.0, value(r).unwrap_or(f64::NAN)))
            .collect(),
        axis,
        style,
    };
    let suffix = if simulated { " (simulated)" } else { "" };
    let marker = |second: u64, label: &str| Marker {
        x: second as f64,
        label: label.to_owned(),
    };
    svg(&Plot {
        title: format!("30/{{pod}} while {{cpu}} > 0.8{suffix}"),
        x_axis: "time, s".to_owned(),
        left_axis: "requests per second".to_owned(),
        right_axis: "CPU, share of capacity".to_owned(),
        series: vec![
            series("offered", 0, Axis::Left, Style::Line, &|r| {
                Some(r.traffic.offered as f64)
            }),
            series("refused (429)", 1, Axis::Left, Style::Line, &|r| {
                Some(r.traffic.limited as f64)
            }),
            series("accepted", 2, Axis::Left, Style::Line, &|r| {
                Some(r.traffic.accepted as f64)
            }),
            series("limit, all pods", 3, Axis::Left, Style::Step, &|r| {
                r.limit.map(|l| (l * r.pods) as f64)
            }),
            series("cpu", 4, Axis::Right, Style::Dashed, &|r| r.cpu),
        ],
        markers: vec![
            marker(scenario.rise_at(), "load rises"),
            marker(scenario.scale_up_at(), "third pod"),
            marker(scenario.fall_at(), "load falls"),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(second: u64, pods: i64, limit: Option<i64>, accepted: u64, limited: u64) -> Row {
        Row {
            second,
            phase: "",
            pods,
            traffic: Traffic {
                offered: accepted + limited,
                accepted,
                limited,
                failed: 0,
            },
            cpu: None,
            limit,
            state: String::new(),
            reason: String::new(),
        }
    }

    fn good_run() -> Vec<Row> {
        let mut rows: Vec<Row> = (0..5).map(|s| row(s, 2, None, 8, 0)).collect();
        rows.extend((5..12).map(|s| row(s, 2, Some(15), 30, 30)));
        rows.extend((12..20).map(|s| row(s, 3, Some(10), 30, 30)));
        rows.extend((20..26).map(|s| row(s, 3, None, 8, 0)));
        rows
    }

    #[test]
    fn a_good_run_is_good_and_each_flaw_is_seen() {
        assert!(Verdict::of(&good_run()).good());
        let mut disobeyed = good_run();
        disobeyed
            .iter_mut()
            .filter(|r| r.limit.is_some())
            .for_each(|r| r.traffic.accepted = 60);
        assert!(!Verdict::of(&disobeyed).good());
        let mut stays_on = good_run();
        for row in &mut stays_on {
            row.limit = Some(10);
        }
        assert!(!Verdict::of(&stays_on).good());
        let never: Vec<Row> = (0..26).map(|s| row(s, 2, None, 60, 0)).collect();
        assert!(!Verdict::of(&never).good());
        let mut failed = good_run();
        failed[3].traffic.failed = 1;
        assert!(!Verdict::of(&failed).good());
        assert!(!Verdict::of(&[]).good());
    }
}
