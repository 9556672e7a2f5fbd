//! Which calls are refused first: those of the lowest tier.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::signal::valid;
use crate::{Config, Tick};

/// Limits of APIs so that higher tiers are served first within `limit`; empty where tiers make no difference.
/// The highest tier that is present has no limit of its own but the total.
pub(crate) fn shares(config: &Config, tick: &Tick, limit: f64) -> BTreeMap<String, f64> {
    let mut tiers: BTreeMap<usize, Vec<(&String, f64)>> = BTreeMap::new();
    for (name, api) in &tick.apis {
        let Some(offered) = valid(api.offered) else {
            return BTreeMap::new();
        };
        tiers
            .entry(rank(config, api.tier.as_ref()))
            .or_default()
            .push((name, offered));
    }
    let mut shares = BTreeMap::new();
    if tiers.len() < 2 {
        return shares;
    }
    let mut left = limit;
    for (n, (_, apis)) in tiers.iter().rev().enumerate() {
        let offered: f64 = apis.iter().map(|(_, offered)| offered).sum();
        if n > 0 && offered > left {
            for (name, own) in apis {
                let share = if offered > 0.0 {
                    left * own / offered
                } else {
                    0.0
                };
                shares.insert((*name).clone(), share.max(limit * 0.001));
            }
        }
        left = (left - offered * 1.02).max(0.0);
    }
    shares
}

/// Position of a tier, 0 is shed first. Numbers count as they are, the lowest first; names by their place in the configuration,
/// from the lowest. A call without a tier is in the lowest.
pub(crate) fn rank(config: &Config, tier: Option<&Value>) -> usize {
    let Some(tier) = tier else { return 0 };
    let mut known: Vec<&Value> = config.tiers.iter().collect();
    if known.iter().all(|value| value.is_number()) {
        known.sort_by(|a, b| {
            a.as_f64()
                .unwrap_or(0.0)
                .total_cmp(&b.as_f64().unwrap_or(0.0))
        });
    }
    match known.iter().position(|value| *value == tier) {
        Some(position) => position + 1,
        None => tier.as_u64().map_or(0, |n| {
            usize::try_from(n).unwrap_or(usize::MAX).saturating_add(1)
        }),
    }
}
