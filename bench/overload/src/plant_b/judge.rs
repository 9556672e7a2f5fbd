//! The judge of Plant B: goodput against the linear programme, and how fairly it is shared.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use trimtab_law::Config;

use super::topology::{APIS, Load, N_APIS, SCENARIOS, Scenario, ideal};
use super::{Factory, Placement, Setup, Telemetry, run};

/// A law in its place.
pub struct Contestant {
    /// Name in the table.
    pub name: String,
    /// Where it acts.
    pub placement: Placement,
    /// What it is told, and when.
    pub telemetry: Telemetry,
    /// Makes it.
    pub factory: Box<Factory>,
}

/// Mean figures of one law in one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the law.
    pub law: String,
    /// `entry` or `services`.
    pub placement: &'static str,
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Whether clients try again.
    pub retries: bool,
    /// Number of seeds.
    pub seeds: usize,
    /// Goodput of all APIs, divided by the optimum of the linear programme.
    pub goodput_of_bound: f64,
    /// The same of the worst seed.
    pub worst: f64,
    /// Jain's index over the APIs of goodput divided by the API's part of the bound.
    pub jain: f64,
    /// Goodput of each API divided by its part of the bound.
    pub apis: Load,
    /// Attempts per second whose client left: what was accepted, worked on and wasted.
    pub left: f64,
    /// Changed limits in a run.
    pub writes: f64,
}

/// Figures of one run.
struct Figures {
    share: f64,
    jain: f64,
    apis: Load,
    left: f64,
    writes: f64,
}

/// Jain's index of fairness: 1 when all are equal, 1/n when one has all.
pub fn jain(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().sum();
    let squares: f64 = values.iter().map(|v| v * v).sum();
    if squares > 0.0 {
        sum * sum / (values.len() as f64 * squares)
    } else {
        0.0
    }
}

fn figures(
    contestant: &Contestant,
    scenario: Scenario,
    retries: bool,
    seed: u64,
    config: &Config,
) -> Figures {
    let setup = Setup {
        scenario,
        retries,
        placement: contestant.placement,
        telemetry: contestant.telemetry,
        seed,
        trace: false,
    };
    let outcome = run(&setup, config, contestant.factory.as_ref());
    let goodput = outcome.goodput(scenario.step_s);
    let bound = ideal(&scenario.during);
    let mut apis = [0.0; N_APIS];
    for (share, (good, best)) in apis.iter_mut().zip(goodput.iter().zip(&bound)) {
        *share = good / best.max(1e-9);
    }
    Figures {
        share: goodput.iter().sum::<f64>() / bound.iter().sum::<f64>(),
        jain: jain(&apis),
        apis,
        left: outcome.left as f64 / scenario.end_s,
        writes: outcome.writes as f64,
    }
}

/// All laws in all scenarios with retries off and on. The result does not depend on the number of threads.
pub fn table(
    contestants: &[Contestant],
    seeds: &[u64],
    config: &Config,
    threads: usize,
) -> Vec<Row> {
    let mut cases = Vec::new();
    for law in 0..contestants.len() {
        for scenario in SCENARIOS {
            for retries in [false, true] {
                cases.push((law, scenario, retries));
            }
        }
    }
    let rows = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some((law, scenario, retries)) =
                    cases.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let row = row(&contestants[*law], *scenario, *retries, seeds, config);
                    if let Ok(mut rows) = rows.lock() {
                        rows.push((*law, row));
                    }
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_default();
    rows.sort_by_key(|(law, row): &(usize, Row)| (*law, row.scenario, row.retries));
    rows.into_iter().map(|(_, row)| row).collect()
}

fn row(
    contestant: &Contestant,
    scenario: Scenario,
    retries: bool,
    seeds: &[u64],
    config: &Config,
) -> Row {
    let runs: Vec<Figures> = seeds
        .iter()
        .map(|seed| figures(contestant, scenario, retries, *seed, config))
        .collect();
    let mean =
        |of: &dyn Fn(&Figures) -> f64| runs.iter().map(of).sum::<f64>() / runs.len().max(1) as f64;
    let mut apis = [0.0; N_APIS];
    for (api, share) in apis.iter_mut().enumerate() {
        *share = mean(&|f| f.apis[api]);
    }
    Row {
        law: contestant.name.clone(),
        placement: match contestant.placement {
            Placement::Services => "services",
            Placement::Entry => "entry",
        },
        scenario: scenario.name,
        retries,
        seeds: runs.len(),
        goodput_of_bound: mean(&|f| f.share),
        worst: runs.iter().map(|f| f.share).fold(f64::INFINITY, f64::min),
        jain: mean(&|f| f.jain),
        apis,
        left: mean(&|f| f.left),
        writes: mean(&|f| f.writes),
    }
}

/// Mean of goodput/bound of a law over scenarios and retries: what peers are tuned for. One seed alone is a first look, without
/// retries.
pub fn score(contestant: &Contestant, seeds: &[u64], config: &Config) -> f64 {
    let retries: &[bool] = if seeds.len() > 1 {
        &[false, true]
    } else {
        &[false]
    };
    let mut sum = 0.0;
    for scenario in SCENARIOS {
        for retries in retries {
            sum += row(contestant, scenario, *retries, seeds, config).goodput_of_bound;
        }
    }
    sum / (SCENARIOS.len() * retries.len()) as f64
}

/// The rows as text, with the means of each law.
pub fn print(rows: &[Row]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let _ = write!(
        text,
        "{:<16}{:<10}{:<7}{:<8}{:>8}{:>7}{:>7}",
        "law", "where", "load", "retries", "good/LP", "worst", "Jain"
    );
    for api in APIS {
        let _ = write!(text, "{:>13}", api.name);
    }
    let _ = writeln!(text, "{:>9}{:>8}", "left/s", "writes");
    for row in rows {
        let retries = if row.retries { "on" } else { "off" };
        let _ = write!(
            text,
            "{:<16}{:<10}{:<7}{:<8}{:>8.3}{:>7.3}{:>7.3}",
            row.law,
            row.placement,
            row.scenario,
            retries,
            row.goodput_of_bound,
            row.worst,
            row.jain
        );
        for share in row.apis {
            let _ = write!(text, "{share:>13.3}");
        }
        let _ = writeln!(text, "{:>9.0}{:>8.0}", row.left, row.writes);
    }
    text + &bounds() + &means(rows)
}

/// The bound of each scenario.
fn bounds() -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for scenario in SCENARIOS {
        let bound = ideal(&scenario.during);
        let total: f64 = bound.iter().sum();
        let _ = write!(
            text,
            "{:<26}{:<15}{total:>8.0}{:>14}",
            "bound (rps)", scenario.name, ""
        );
        for api in bound {
            let _ = write!(text, "{api:>13.0}");
        }
        text.push('\n');
    }
    text
}

/// Means over scenarios and retries.
fn means(rows: &[Row]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\n{:<16}{:>13}{:>11}",
        "law", "mean good/LP", "mean Jain"
    );
    let mut seen: Vec<&str> = Vec::new();
    for row in rows {
        if seen.contains(&row.law.as_str()) {
            continue;
        }
        seen.push(&row.law);
        let own: Vec<&Row> = rows.iter().filter(|r| r.law == row.law).collect();
        let n = own.len() as f64;
        let good = own.iter().map(|r| r.goodput_of_bound).sum::<f64>() / n;
        let fair = own.iter().map(|r| r.jain).sum::<f64>() / n;
        let _ = writeln!(text, "{:<16}{good:>13.3}{fair:>11.3}", row.law);
    }
    text
}
