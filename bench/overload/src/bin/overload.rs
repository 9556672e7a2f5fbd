//! Laws in Plant A: a table of what each is worth in each scenario.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use serde::Serialize;
use serde_json::Value;
use trimtab_law::Config;
use trimtab_overload::peers::{self, Place, grid};
use trimtab_overload::plant_a::{self, Bound, Driver, Scenario, judge::Figures, scenarios};

#[derive(Parser)]
struct Args {
    /// Laws; those of the table by default.
    #[arg(long, num_args = 1.., global = true)]
    law: Vec<String>,
    /// Scenarios whose names contain one of these; all by default.
    #[arg(long, num_args = 1.., global = true)]
    scenario: Vec<String>,
    /// First seed.
    #[arg(long, default_value_t = 1001, global = true)]
    seed: u64,
    /// Number of seeds.
    #[arg(long, default_value_t = 5, global = true)]
    seeds: u64,
    /// Runs at the same time.
    #[arg(long, default_value_t = 2, global = true)]
    threads: usize,
    /// Folder of the tuned parameters.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/tuned"), global = true)]
    tuned: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints the table.
    Run {
        /// Writes the figures here too.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Prints one run, second by second.
    Trace,
    /// Draws the scenarios, a panel for each law, into a folder.
    Plot {
        /// The folder.
        #[arg(long)]
        into: PathBuf,
    },
    /// Finds the best parameters of the grids and writes them.
    Tune,
}

/// The laws of the table: bounds, ours, fixed limits, peers.
const LAWS: [&str; 16] = [
    "oracle",
    "late",
    "trimtab",
    "none",
    "static",
    BEST_STATIC,
    "bang-bang",
    "aimd",
    "gradient2",
    "vegas",
    "cl-aimd",
    "cl-vegas",
    "breakwater",
    "dagor",
    "aperture",
    "mimd",
];
/// Laws that are no peers.
const NO_PEERS: [&str; 6] = ["oracle", "late", "trimtab", "none", "static", BEST_STATIC];
/// The best fixed limit for each scenario by itself, which nobody can know before.
const BEST_STATIC: &str = "static-best";
/// Shares of the capacity at the begin that it is chosen from.
const SHARES: [f64; 8] = [0.3, 0.4, 0.45, 0.5, 0.6, 0.75, 0.9, 0.97];
const KEPT: [&str; 1] = ["bbr"];

#[derive(Serialize)]
struct Row {
    law: String,
    figures: Vec<Figures>,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.law.is_empty() {
        args.law = LAWS
            .iter()
            .chain(&KEPT)
            .map(|law| (*law).to_owned())
            .collect();
    }
    let known = |law: &String| {
        ["oracle", "late", BEST_STATIC].contains(&law.as_str())
            || peers::NAMES.contains(&law.as_str())
    };
    if let Some(law) = args.law.iter().find(|law| !known(law)) {
        bail!(
            "law {law} is not known; known are oracle, late, {BEST_STATIC}, {}",
            peers::NAMES.join(", ")
        );
    }
    let scenarios = chosen(&args.scenario)?;
    let seeds: Vec<u64> = (args.seed..args.seed + args.seeds).collect();
    let path = args.tuned.join("plant-a.json");
    let tuned: grid::Table = fs::read(&path)
        .ok()
        .map(|text| serde_json::from_slice(&text))
        .transpose()?
        .unwrap_or_default();
    match &args.command {
        Command::Run { json } => {
            let row = |law: &String| row(law, &tuned, &scenarios, &seeds, args.threads);
            let rows: Vec<Row> = args.law.iter().map(row).collect();
            print!("{}", print(&rows, &scenarios));
            if let Some(path) = json {
                fs::write(path, serde_json::to_vec_pretty(&rows)?)?;
            }
            Ok(())
        }
        Command::Trace => {
            for scenario in &scenarios {
                trace(&args.law[0], scenario, args.seed);
            }
            Ok(())
        }
        Command::Plot { into } => plot(&args, &scenarios, &tuned, into),
        Command::Tune => tune(&args, &scenarios, &seeds, &path, tuned),
    }
}

fn config(scenario: &Scenario) -> Config {
    let mut config = Config {
        window_s: scenario.telemetry.window_s,
        ..Config::default()
    };
    (scenario.configure)(&mut config);
    config
}

fn driver(law: &str, params: &Value, scenario: &Scenario, config: &Config, seed: u64) -> Driver {
    match law {
        "oracle" => Driver::Bound(Bound::new(0)),
        "late" => Driver::Bound(Bound::new(1)),
        _ => {
            let place = Place {
                service: Some("service"),
                pods: scenario.base_pods,
                capacity: scenario.base_pods as f64 * scenario.service.workers as f64
                    / scenario.service.service_s,
                config,
                seed,
                users: false,
            };
            Driver::Law(peers::by_name(law, params, &place).unwrap_or_else(peers::none))
        }
    }
}

fn figures(
    law: &str,
    params: &Value,
    scenarios: &[Scenario],
    seeds: &[u64],
    threads: usize,
) -> Vec<Figures> {
    let jobs: Vec<(usize, u64)> = (0..scenarios.len())
        .flat_map(|s| seeds.iter().map(move |seed| (s, *seed)))
        .collect();
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Figures)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some((index, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let scenario = &scenarios[*index];
                    let config = config(scenario);
                    let outcome = plant_a::run(
                        scenario,
                        &config,
                        *seed,
                        driver(law, params, scenario, &config, *seed),
                    );
                    let figures = Figures::of(scenario, &outcome, config.interval_s);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((*index, figures));
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    (0..scenarios.len())
        .map(|index| {
            let mut own: Vec<Figures> = done
                .iter()
                .filter(|(of, _)| *of == index)
                .map(|(_, f)| f.clone())
                .collect();
            own.sort_by(|a, b| a.good.total_cmp(&b.good));
            Figures::mean(&own)
        })
        .collect()
}

/// Scenarios whose names contain one of `parts`; all without.
fn chosen(parts: &[String]) -> Result<Vec<Scenario>> {
    let wanted =
        |s: &Scenario| parts.is_empty() || parts.iter().any(|part| s.name.contains(part.as_str()));
    let chosen: Vec<Scenario> = scenarios::all().into_iter().filter(wanted).collect();
    if chosen.is_empty() {
        let names: Vec<_> = scenarios::all().iter().map(|s| s.name).collect();
        bail!(
            "no scenario is called like that; there are: {}",
            names.join("; ")
        );
    }
    Ok(chosen)
}

fn row(
    law: &str,
    tuned: &grid::Table,
    scenarios: &[Scenario],
    seeds: &[u64],
    threads: usize,
) -> Row {
    let figures = if law == BEST_STATIC {
        best_static(scenarios, seeds, threads)
    } else {
        let params = tuned
            .get(law)
            .map(|tuned| tuned.params.clone())
            .unwrap_or_default();
        figures(law, &params, scenarios, seeds, threads)
    };
    Row {
        law: law.to_owned(),
        figures,
    }
}

fn best_static(scenarios: &[Scenario], seeds: &[u64], threads: usize) -> Vec<Figures> {
    let of = |share: f64| {
        figures(
            "static",
            &serde_json::json!({ "share": share }),
            scenarios,
            seeds,
            threads,
        )
    };
    let better = |a: Figures, b: Figures| if b.good > a.good { b } else { a };
    let all = SHARES.into_iter().map(of);
    all.reduce(|a, b| a.into_iter().zip(b).map(|(a, b)| better(a, b)).collect())
        .unwrap_or_default()
}

/// Goodput of each law in each scenario, then the other figures of the bounds and of the operator's law.
fn print(rows: &[Row], scenarios: &[Scenario]) -> String {
    let mut text = format!("{:32}", "goodput/ideal");
    for row in rows {
        let _ = write!(text, "{:>11}", row.law);
    }
    text.push('\n');
    for (index, scenario) in scenarios.iter().enumerate() {
        let _ = write!(text, "{:32}", scenario.name);
        for row in rows {
            let _ = write!(text, "{:11.3}", row.figures[index].good);
        }
        text.push('\n');
    }
    for row in rows.iter().filter(|row| row.law == "trimtab") {
        let _ = writeln!(
            text,
            "\n{:32}{:>8}{:>8}{:>8}{:>8}{:>10}{:>12}{:>8}{:>8}",
            row.law,
            "good",
            "again",
            "late",
            "settle",
            "variation",
            "false shed",
            "writes",
            "steady"
        );
        for f in &row.figures {
            let again = f.again.map_or(String::new(), |again| format!("{again:.3}"));
            let _ = writeln!(
                text,
                "{:32}{:8.3}{again:>8}{:8.3}{:8.1}{:10.3}{:12.1}{:8.1}{:8.1}",
                f.scenario,
                f.good,
                f.late,
                f.settle,
                f.variation,
                f.false_shed,
                f.writes,
                f.writes_steady
            );
        }
    }
    text.push_str(&summary(rows));
    text
}

/// The lines of the acceptance: means and ratios over the scenarios with an overload.
fn summary(rows: &[Row]) -> String {
    let of = |law: &str| rows.iter().find(|row| row.law == law);
    let Some(ours) = of("trimtab") else {
        return String::new();
    };
    let overloads: Vec<usize> = (0..ours.figures.len())
        .filter(|index| !ours.figures[*index].calm)
        .collect();
    if overloads.is_empty() {
        return String::new();
    }
    let mean = |row: &Row| {
        overloads.iter().map(|i| row.figures[*i].good).sum::<f64>() / overloads.len() as f64
    };
    let ratio = |row: &Row| {
        let logs = overloads
            .iter()
            .map(|i| (ours.figures[*i].good / row.figures[*i].good.max(1e-3)).ln());
        (logs.sum::<f64>() / overloads.len() as f64).exp()
    };
    let mut text = format!(
        "\n{:16}{:>12}{:>26}\n",
        "overloads", "mean", "ours/law, geometric mean"
    );
    for row in rows {
        let _ = writeln!(text, "{:16}{:12.3}{:26.3}", row.law, mean(row), ratio(row));
    }
    if let Some(late) = of("late") {
        let _ = writeln!(
            text,
            "mean goodput of ours by that of late: {:.3}",
            mean(ours) / mean(late).max(1e-9)
        );
    }
    let peers: Vec<&Row> = rows
        .iter()
        .filter(|row| !NO_PEERS.contains(&row.law.as_str()))
        .collect();
    if peers.is_empty() {
        return text;
    }
    let best = |i: usize| {
        peers
            .iter()
            .map(|row| row.figures[i].good)
            .fold(0.0, f64::max)
            .max(1e-3)
    };
    let ratios: Vec<f64> = overloads
        .iter()
        .map(|i| ours.figures[*i].good / best(*i))
        .collect();
    let geometric = (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp();
    let worst = ratios.iter().fold(f64::INFINITY, |a, b| a.min(*b));
    let _ = writeln!(
        text,
        "against the best peer of each scenario: geometric mean {geometric:.3}, lowest {worst:.3}"
    );
    text
}

/// One picture for each scenario, of the first seed.
fn plot(args: &Args, scenarios: &[Scenario], tuned: &grid::Table, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    for scenario in scenarios {
        let config = config(scenario);
        let run = |law: &String| {
            let params = tuned.get(law).map(|t| t.params.clone()).unwrap_or_default();
            let driver = driver(law, &params, scenario, &config, args.seed);
            plant_a::run(scenario, &config, args.seed, driver).seconds
        };
        let runs: Vec<_> = args.law.iter().map(run).collect();
        let panels: Vec<(&str, &[plant_a::Second])> = args
            .law
            .iter()
            .zip(&runs)
            .map(|(law, run)| (law.as_str(), run.as_slice()))
            .collect();
        let name: String = scenario
            .name
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join("-");
        let path = into.join(format!("adaptive-{name}.svg"));
        fs::write(path, plant_a::plot::picture(scenario.name, &panels))?;
    }
    Ok(())
}

fn trace(law: &str, scenario: &Scenario, seed: u64) {
    let config = config(scenario);
    println!("{}", scenario.name);
    let driver = driver(
        law,
        &serde_json::json!({"trace": true}),
        scenario,
        &config,
        seed,
    );
    let outcome = plant_a::run(scenario, &config, seed, driver);
    for (index, s) in outcome.seconds.iter().enumerate() {
        println!(
            "{index:5} demand {:5.0} capacity {:5.0} ideal {:5.0} good {:5.0} late {:5.0} refused {:5.0} queue {:5.0} limit {}",
            s.demand,
            s.capacity,
            s.ideal,
            s.good,
            s.late,
            s.refused,
            s.queue,
            s.limit
                .map_or("none".to_owned(), |limit| format!("{limit:.0}"))
        );
    }
    println!("{:?}", Figures::of(scenario, &outcome, config.interval_s));
}

fn tune(
    args: &Args,
    scenarios: &[Scenario],
    seeds: &[u64],
    path: &std::path::Path,
    mut tuned: grid::Table,
) -> Result<()> {
    fs::create_dir_all(&args.tuned)?;
    for law in args
        .law
        .iter()
        .filter(|law| !["oracle", "late", "trimtab", "none", BEST_STATIC].contains(&law.as_str()))
    {
        let best = grid::tune(law, seeds, 1, |params, seeds| {
            let figures = figures(law, params, scenarios, seeds, args.threads);
            figures.iter().map(|f| f.good).sum::<f64>() / figures.len() as f64
        });
        grid::keep(&mut tuned, law, best, path)?;
    }
    Ok(())
}
