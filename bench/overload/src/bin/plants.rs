//! Plant B and Plant C, and the tuning of the peers in them.

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use serde_json::Value;
use trimtab_law::Config;
use trimtab_overload::peers;
use trimtab_overload::plant_b::{self, Placement, judge::Contestant};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Several APIs over shared services.
    B {
        /// Laws to run.
        #[arg(long, num_args = 1.., default_values = ["none", "static"])]
        law: Vec<String>,
        /// Parameters, in place of the tuned ones.
        #[arg(long, default_value = "null")]
        params: Value,
        /// First seed.
        #[arg(long, default_value_t = 1001)]
        seed: u64,
        /// Number of seeds.
        #[arg(long, default_value_t = 2)]
        seeds: u64,
    },
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::B {
            law,
            params,
            seed,
            seeds,
        } => {
            let config = Config::default();
            let mut contestants = Vec::new();
            for name in law {
                let params = params.clone();
                let probe = peers::Place {
                    service: None,
                    pods: 1,
                    capacity: 1.0,
                    config: &config,
                    seed: 0,
                    users: true,
                };
                if peers::by_name(&name, &params, &probe).is_none() {
                    bail!("law {name} is not known");
                }
                let law = name.clone();
                contestants.push(Contestant {
                    name,
                    placement: Placement::Services,
                    telemetry: plant_b::PROMETHEUS,
                    factory: Box::new(move |place| {
                        peers::by_name(&law, &params, place).unwrap_or_else(peers::none)
                    }),
                });
            }
            let seeds: Vec<u64> = (seed..seed + seeds).collect();
            print!("{}", plant_b::judge::print(&plant_b::judge::table(&contestants, &seeds, &config)));
        }
    }
    Ok(())
}
