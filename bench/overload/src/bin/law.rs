//! The operator's law on a wire: configuration in the first line, then one line of measurements a tick; one line of limits is
//! answered to each. Anybody can drive it with a plant of their own.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};
use trimtab_law::{Config, Decision, State, Tick};

#[derive(Deserialize)]
struct First {
    #[serde(default)]
    config: serde_json::Value,
    #[serde(default)]
    restore: Option<State>,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    decision: &'a Decision,
    snapshot: &'a State,
}

#[derive(Serialize)]
struct Failure {
    error: String,
}

fn main() -> anyhow::Result<()> {
    let input = std::io::stdin().lock();
    let mut output = std::io::stdout().lock();
    let mut running: Option<(Config, State)> = None;
    for line in input.lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let Some((config, state)) = &mut running else {
            running = Some(begin(&line)?);
            continue;
        };
        // Each line has one answer, so a reader stays in step also when it sent nonsense.
        match trimtab_law::lenient::tick(&line) {
            Ok(tick) => {
                let tick: Tick = tick;
                let decision = state.decide(config, &tick);
                serde_json::to_writer(
                    &mut output,
                    &Answer {
                        decision: &decision,
                        snapshot: state,
                    },
                )?;
            }
            Err(error) => serde_json::to_writer(&mut output, &Failure { error })?,
        }
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

fn begin(line: &str) -> anyhow::Result<(Config, State)> {
    let first: First = serde_json::from_str(line).map_err(|error| {
        anyhow::anyhow!(
            "first line: {error}; it must be {{\"config\": {{..}}, \"restore\": SNAPSHOT}}"
        )
    })?;
    let config = trimtab_law::lenient::config(&first.config)
        .map_err(|error| anyhow::anyhow!("first line: {error}"))?;
    Ok((config, first.restore.unwrap_or_default()))
}
