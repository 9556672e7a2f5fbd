//! Series that the kit keeps for every module, and helpers to encode series at scrape time.

use std::fmt::{Debug, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::driver::AnyDriver;
use crate::lease::WriteAdmission;
use crate::watch::{Watch, WatchState};

/// Labels of one series.
pub type Labels = Vec<(&'static str, String)>;

/// Encodes a family of gauges.
pub fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue + Copy>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: &[(L, V)],
) -> Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        ConstGauge::new(*value).encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

/// Encodes a gauge without labels.
pub fn gauge<V: EncodeGaugeValue + Copy>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: V,
) -> Result {
    gauges(encoder, name, help, &[(Labels::new(), value)])
}

/// Encodes a family of counters.
pub fn counters<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: &[(L, u64)],
) -> Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in rows {
        ConstCounter::<u64>::new(*value).encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

/// Encodes a counter without labels.
pub fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result {
    counters(encoder, name, help, &[(Labels::new(), value)])
}

/// Series of a module. They tell of what is decided, and the leader alone has them: nothing is counted twice.
pub(crate) struct OfLeader(pub(crate) Box<dyn Collector>, pub(crate) WriteAdmission);

impl Debug for OfLeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> Result {
        f.debug_tuple("OfLeader").field(&self.0).finish()
    }
}

impl Collector for OfLeader {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result {
        if self.1.leads() {
            self.0.encode(encoder)
        } else {
            Ok(())
        }
    }
}

/// Watches of the process; queue and writes of each module.
pub(crate) struct HostCollector {
    pub(crate) watches: Vec<Arc<Watch>>,
    pub(crate) drivers: Vec<(&'static str, Arc<dyn AnyDriver>)>,
}

impl Debug for HostCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> Result {
        f.debug_struct("HostCollector").finish_non_exhaustive()
    }
}

impl Collector for HostCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result {
        let mut rows: Vec<(Labels, f64)> = Vec::new();
        for watch in &self.watches {
            let up = matches!(watch.state(), WatchState::Synced | WatchState::Absent);
            let labels = vec![("resource", watch.resource.clone())];
            let value = f64::from(u8::from(up));
            match rows.iter_mut().find(|(l, _)| *l == labels) {
                Some((_, all)) => *all = all.min(value),
                None => rows.push((labels, value)),
            }
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        gauges(
            &mut encoder,
            "trimtab_watch_up",
            "1 while a watch is complete and follows changes, or its API is not installed",
            &rows,
        )?;
        for (module, driver) in &self.drivers {
            if driver.writers().counts().is_empty() {
                continue;
            }
            let mut rows = Vec::new();
            for (kind, counts) in driver.writers().counts() {
                for (result, count) in [
                    ("applied", &counts.applied),
                    ("unchanged", &counts.unchanged),
                    ("deleted", &counts.deleted),
                    ("failed", &counts.failed),
                ] {
                    let labels = vec![("kind", kind.to_owned()), ("result", result.to_owned())];
                    rows.push((labels, count.load(Ordering::Relaxed)));
                }
            }
            counters(
                &mut encoder,
                &format!("trimtab_{module}_apply"),
                "Generated objects by kind and result of the write",
                &rows,
            )?;
            gauge(
                &mut encoder,
                &format!("trimtab_{module}_queue_depth"),
                "Keys that wait for a write or are being written",
                driver.depth() as f64,
            )?;
        }
        Ok(())
    }
}
