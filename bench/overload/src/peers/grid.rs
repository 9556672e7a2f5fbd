//! Grids of parameters, and the search in them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// All combinations of the values of each parameter.
fn product(axes: &Value) -> Vec<Value> {
    let mut all = vec![Map::new()];
    for (name, values) in axes.as_object().into_iter().flatten() {
        let Some(values) = values.as_array() else {
            continue;
        };
        all = all
            .iter()
            .flat_map(|one| {
                values.iter().map(|value| {
                    let mut one = one.clone();
                    one.insert(name.clone(), value.clone());
                    one
                })
            })
            .collect();
    }
    all.into_iter().map(Value::Object).collect()
}

/// The grid of a law: each parameter with its values. The published ones are among them.
pub fn axes(law: &str) -> Value {
    match law {
        "static" => json!({ "share": [0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1] }),
        "bang-bang" => json!({ "share": [0.0, 0.5, 0.7, 0.8, 0.9, 1.0], "cpu": [0.8, 0.95] }),
        "aimd" => {
            json!({ "timeout_s": [0.05, 0.1, 0.25, 0.5, 1.0, 5.0], "backoff": [0.9, 0.98], "min": [1, 20] })
        }
        "aimd-tick" => {
            json!({ "timeout_s": [0.1, 0.5, 1.01], "backoff": [0.7, 0.8, 0.9, 0.95], "min": [1], "times": [1, 5, 20, 100] })
        }
        "gradient2" => {
            json!({ "smoothing": [0.05, 0.2], "tolerance": [1.0, 1.5, 2.0], "window": [600, 6000], "min": [1, 20] })
        }
        "gradient2-tick" => {
            json!({ "smoothing": [0.1, 0.2, 0.5], "tolerance": [1.0, 1.5, 2.0], "window": [20, 600], "min": [1], "times": [1, 5] })
        }
        "vegas" => json!({ "smoothing": [0.1, 1.0], "queue": [1, 3, 6], "probe": [30, 300] }),
        "vegas-tick" => {
            json!({ "smoothing": [0.2, 1.0], "queue": [1, 3, 6], "probe": [30, 300], "times": [1, 5, 20] })
        }
        "cl-aimd" => json!({ "timeout_s": [0.05, 0.1, 0.25, 1.0], "backoff": [0.9, 0.98] }),
        "cl-vegas" => json!({ "percentile": [0.0, 0.5, 0.9], "timeout_s": [0.25, 1.0] }),
        "breakwater" => {
            json!({ "target": [0.02, 0.1, 0.4], "alpha": [0.001, 0.01], "beta": [0.02, 0.2], "round_s": [0.01, 0.05] })
        }
        "dagor" => {
            json!({ "threshold_s": [0.005, 0.02, 0.05, 0.1], "alpha": [0.05, 0.2], "beta": [0.01, 0.05] })
        }
        "aperture" => {
            json!({ "setpoint": [0.05, 0.1, 0.25, 0.5], "slope": [-0.5, -1.0], "increment": [0.025, 0.1, 0.3] })
        }
        "bbr" => json!({ "cpu": [0.8, 0.95], "window_s": [0.1, 0.5], "back_s": [1.0, 10.0] }),
        "mimd" | "mimd-fast" => {
            json!({ "down": [0.5, 0.7, 0.8, 0.9, 0.95], "up": [1.01, 1.03, 1.05, 1.1], "p95": [0.5, 1.0, 1.25] })
        }
        _ => json!({}),
    }
}

/// All parameters of a law that are tried.
pub fn of(law: &str) -> Vec<Value> {
    product(&axes(law))
}

/// The best parameters of a law in a plant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tuned {
    /// The parameters.
    pub params: Value,
    /// What they reached on the seeds of the tuning.
    pub score: f64,
    /// What the published parameters reached.
    pub published: f64,
    /// Number of parameter sets that were tried.
    pub tried: usize,
    /// First and last seed.
    pub seeds: [u64; 2],
}

/// Best parameters by the name of the law.
pub type Table = BTreeMap<String, Tuned>;

/// Tries all parameters of a law: each on the first seed, then the best quarter and the published ones on all seeds. `score`
/// says how good parameters are on some seeds, higher is better. Of equals the first one wins.
pub fn tune(
    law: &str,
    seeds: &[u64],
    threads: usize,
    score: impl Fn(&Value, &[u64]) -> f64 + Sync,
) -> Tuned {
    let mut sets = vec![json!({})];
    sets.extend(of(law));
    let tried = sets.len();
    let first = scores(&sets, threads, |set| {
        score(set, &seeds[..seeds.len().min(1)])
    });
    let mut order: Vec<usize> = (1..tried).collect();
    order.sort_by(|a, b| first[*b].total_cmp(&first[*a]).then(a.cmp(b)));
    order.truncate((tried / 4).max(3));
    let kept: Vec<Value> = std::iter::once(0)
        .chain(order)
        .map(|i| sets[i].clone())
        .collect();
    let last = scores(&kept, threads, |set| score(set, seeds));
    let mut best = 0;
    for (index, value) in last.iter().enumerate() {
        if *value > last[best] {
            best = index;
        }
    }
    Tuned {
        params: kept[best].clone(),
        score: last[best],
        published: last[0],
        tried,
        seeds: [
            seeds.first().copied().unwrap_or_default(),
            seeds.last().copied().unwrap_or_default(),
        ],
    }
}

/// The scores of some sets, in their order.
fn scores(sets: &[Value], threads: usize, score: impl Fn(&Value) -> f64 + Sync) -> Vec<f64> {
    let scores = Mutex::new(vec![f64::NEG_INFINITY; sets.len()]);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some((index, set)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    sets.get(index).map(|set| (index, set))
                } {
                    let value = score(set);
                    if let Ok(mut scores) = scores.lock() {
                        scores[index] = value;
                    }
                }
            });
        }
    });
    scores.into_inner().unwrap_or_default()
}

/// Prints the best parameters of a law, and writes the table with them to `path`.
///
/// # Errors
/// When the file cannot be written.
pub fn keep(
    tuned: &mut Table,
    law: &str,
    best: Tuned,
    path: &std::path::Path,
) -> anyhow::Result<()> {
    println!(
        "{law}: {:.3} with {} (published {:.3}, {} tried)",
        best.score, best.params, best.published, best.tried
    );
    tuned.insert(law.to_owned(), best);
    let mut text = serde_json::to_string_pretty(tuned)?;
    text.push('\n');
    std::fs::write(path, text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_combination_is_tried_and_the_best_is_kept() {
        assert_eq!(of("dagor").len(), 16);
        assert_eq!(of("none"), [json!({})]);
        let tuned = tune("static", &[1, 2], 2, |p, _| {
            -(p["share"].as_f64().unwrap_or(9.0) - 0.86).abs()
        });
        assert_eq!(tuned.params, json!({ "share": 0.85 }));
    }
}
