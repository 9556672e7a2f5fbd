//! Plant B and Plant C, and the tuning of the peers in them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::Value;
use trimtab_law::Config;
use trimtab_overload::peers::{self, grid};
use trimtab_overload::plant_b::topology::SCENARIOS;
use trimtab_overload::plant_b::{self, Factory, Placement, judge, judge::Contestant};
use trimtab_overload::plant_c;

#[derive(Parser)]
struct Args {
    /// The plant.
    plant: Plant,
    /// Laws; all by default.
    #[arg(long, value_delimiter = ',', global = true)]
    law: Vec<String>,
    /// First seed.
    #[arg(long, default_value_t = 1001, global = true)]
    seed: u64,
    /// Number of seeds.
    #[arg(long, default_value_t = 2, global = true)]
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

#[derive(Clone, Copy, ValueEnum)]
enum Plant {
    /// Several APIs over shared services.
    B,
    /// The closed form of TopFull's training.
    C,
}

#[derive(Subcommand)]
enum Command {
    /// Prints the table.
    Run {
        /// Parameters, in place of the tuned ones.
        #[arg(long)]
        params: Option<Value>,
        /// Writes the rows here too.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Prints each tick of the first law and seed in Plant B.
    Trace {
        /// The scenario.
        #[arg(long, default_value = "over")]
        scenario: String,
        /// Whether clients try failed calls again.
        #[arg(long)]
        retries: bool,
        /// Only the law of this place: a service, or `entry`.
        #[arg(long)]
        at: Option<String>,
    },
    /// Finds the best parameters of the grid and writes them.
    Tune,
}

/// Laws that make sense in Plant B, and in Plant C, which has no requests.
const IN_B: [&str; 17] = [
    "trimtab",
    "trimtab-entry",
    "none",
    "static",
    "bang-bang",
    "aimd",
    "aimd-tick",
    "gradient2",
    "vegas",
    "cl-aimd",
    "cl-vegas",
    "breakwater",
    "dagor",
    "aperture",
    "bbr",
    "mimd",
    "mimd-fast",
];
const IN_C: [&str; 9] = [
    "trimtab",
    "none",
    "static",
    "bang-bang",
    "aimd-tick",
    "gradient2-tick",
    "vegas-tick",
    "aperture",
    "mimd",
];

fn factory(law: &str, params: &Value) -> Box<Factory> {
    let (law, params) = (law.to_owned(), params.clone());
    Box::new(move |place| peers::by_name(&law, &params, place).unwrap_or_else(peers::none))
}

/// TopFull's rule acts at the entry, as published; `mimd-fast` also with its own fast measurements. Others act in each service.
fn contestant(law: &str, params: &Value) -> Contestant {
    Contestant {
        name: law.to_owned(),
        placement: if law.starts_with("mimd") || law == "trimtab-entry" {
            Placement::Entry
        } else {
            Placement::Services
        },
        telemetry: if law == "mimd-fast" {
            plant_b::TOPFULL
        } else {
            plant_b::PROMETHEUS
        },
        factory: factory(law, params),
    }
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.law.is_empty() {
        let all: &[&str] = match args.plant {
            Plant::B => &IN_B,
            Plant::C => &IN_C,
        };
        args.law = all.iter().map(|l| (*l).to_owned()).collect();
    }
    if let Some(law) = args
        .law
        .iter()
        .find(|l| !peers::NAMES.contains(&l.as_str()))
    {
        bail!(
            "law {law} is not known; known are {}",
            peers::NAMES.join(", ")
        );
    }
    let seeds: Vec<u64> = (args.seed..args.seed + args.seeds).collect();
    let path = args.tuned.join(match args.plant {
        Plant::B => "plant-b.json",
        Plant::C => "plant-c.json",
    });
    let tuned: grid::Table = match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .with_context(|| format!("{} is not as written by tune", path.display()))?,
        Err(_) => grid::Table::new(),
    };
    let tuned_of = |law: &str| tuned.get(law).map(|t| t.params.clone());
    match &args.command {
        Command::Trace {
            scenario,
            retries,
            at,
        } => {
            let law = &args.law[0];
            let contestant = contestant(law, &tuned_of(law).unwrap_or_default());
            trace(&contestant, scenario, *retries, args.seed, at.as_deref())
        }
        Command::Run { params, json } => {
            let params_of =
                |law: &str| params.clone().or_else(|| tuned_of(law)).unwrap_or_default();
            let (text, rows) = report(&args, &seeds, &params_of)?;
            print!("{text}");
            if let Some(path) = json {
                fs::write(path, serde_json::to_vec_pretty(&rows)?)?;
            }
            Ok(())
        }
        Command::Tune => tune(&args, &seeds, &path, tuned),
    }
}

fn report(
    args: &Args,
    seeds: &[u64],
    params_of: &dyn Fn(&str) -> Value,
) -> Result<(String, Value)> {
    Ok(match args.plant {
        Plant::B => {
            let all: Vec<Contestant> = args
                .law
                .iter()
                .map(|l| contestant(l, &params_of(l)))
                .collect();
            let rows = judge::table(&all, seeds, &Config::default(), args.threads);
            (judge::print(&rows), serde_json::to_value(rows)?)
        }
        Plant::C => {
            let row = |l: &String| plant_c::row(l, factory(l, &params_of(l)).as_ref(), seeds);
            let rows: Vec<plant_c::Row> = args.law.iter().map(row).collect();
            (plant_c::print(&rows), serde_json::to_value(rows)?)
        }
    })
}

fn trace(
    law: &Contestant,
    scenario: &str,
    retries: bool,
    seed: u64,
    at: Option<&str>,
) -> Result<()> {
    let Some(scenario) = SCENARIOS.into_iter().find(|s| s.name == scenario) else {
        bail!("scenario {scenario} is not known");
    };
    let setup = plant_b::Setup {
        scenario,
        retries,
        placement: law.placement,
        telemetry: law.telemetry,
        seed,
        trace: true,
    };
    println!("{}", plant_b::TRACE);
    for line in plant_b::run(&setup, &Config::default(), law.factory.as_ref()).trace {
        if at.is_none_or(|at| line.split_whitespace().nth(1) == Some(at)) {
            println!("{line}");
        }
    }
    Ok(())
}

/// Tunes law by law, and writes after each.
fn tune(args: &Args, seeds: &[u64], path: &std::path::Path, mut tuned: grid::Table) -> Result<()> {
    fs::create_dir_all(&args.tuned)?;
    for law in args
        .law
        .iter()
        .filter(|l| *l != "none" && !l.starts_with("trimtab"))
    {
        let best = grid::tune(law, seeds, args.threads, |params, seeds| match args.plant {
            Plant::B => judge::score(&contestant(law, params), seeds, &Config::default()),
            Plant::C => plant_c::row(law, factory(law, params).as_ref(), seeds).goodput_of_target,
        });
        grid::keep(&mut tuned, law, best, path)?;
    }
    Ok(())
}
