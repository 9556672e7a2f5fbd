//! Series of the MetaProtocol module, read from the engine at scrape time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use trimtab_kit::apply::ApplyCounts;

use crate::controller::Appliers;
use crate::engine::Engine;
use crate::object::Kind;

/// Collector of the module's series. Series with a router's name are bounded in number.
#[derive(Debug)]
pub struct MetaprotocolCollector {
    engine: Arc<Engine>,
    appliers: Appliers,
    export: usize,
}

impl MetaprotocolCollector {
    /// At most `export` MetaRouters get their own series.
    pub fn new(engine: Arc<Engine>, appliers: Appliers, export: usize) -> Self {
        Self {
            engine,
            appliers,
            export,
        }
    }
}

type Labels = Vec<(&'static str, String)>;

fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: &[(Labels, usize)],
) -> std::fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        let value = i64::try_from(*value).unwrap_or(i64::MAX);
        ConstGauge::<i64>::new(value).encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

fn writes(encoder: &mut DescriptorEncoder<'_>, appliers: &Appliers) -> std::fmt::Result {
    let mut family = encoder.encode_descriptor(
        "trimtab_metaprotocol_apply",
        "Generated objects by kind and result of the write",
        None,
        MetricType::Counter,
    )?;
    let mut add = |kind: &str, counts: &ApplyCounts| {
        let results: [(&str, &AtomicU64); 4] = [
            ("applied", &counts.applied),
            ("unchanged", &counts.unchanged),
            ("deleted", &counts.deleted),
            ("failed", &counts.failed),
        ];
        for (result, count) in results {
            let labels = [("kind", kind), ("result", result)];
            let counter = ConstCounter::<u64>::new(count.load(Ordering::Relaxed));
            counter.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    };
    add("EnvoyFilter", &appliers.filters.counts)?;
    add("VirtualService", &appliers.virtual_services.counts)
}

impl Collector for MetaprotocolCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let encoder = &mut encoder;
        let tally = self.engine.tally();
        let single = |n: usize| [(Labels::new(), n)];
        gauges(
            encoder,
            "trimtab_metaprotocol_hosts",
            "Hosts with a layer-7 port that is managed",
            &single(tally.hosts),
        )?;
        gauges(
            encoder,
            "trimtab_metaprotocol_hosts_frozen",
            "Hosts whose outputs are left as they are because of a mistake",
            &single(tally.frozen),
        )?;
        let ports: Vec<(Labels, usize)> = tally
            .ports
            .iter()
            .map(|((target, delivery), n)| {
                let labels = vec![
                    ("filter", (*target).to_owned()),
                    ("delivery", (*delivery).to_owned()),
                ];
                (labels, *n)
            })
            .collect();
        gauges(
            encoder,
            "trimtab_metaprotocol_ports",
            "Ports by filter and delivery",
            &ports,
        )?;
        let problems = tally.problems.iter();
        let problems: Vec<(Labels, usize)> = problems
            .map(|(reason, n)| (vec![("reason", (*reason).to_owned())], *n))
            .collect();
        gauges(
            encoder,
            "trimtab_metaprotocol_problems",
            "What is wrong with objects, by reason",
            &problems,
        )?;
        self.routers(encoder)?;
        writes(encoder, &self.appliers)?;
        gauges(
            encoder,
            "trimtab_metaprotocol_queue_depth",
            "Owners and statuses that wait for a write",
            &single(self.engine.queue.depth()),
        )
    }
}

impl MetaprotocolCollector {
    fn routers(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let routers = self.engine.index.objects(Kind::MetaRouter);
        gauges(
            encoder,
            "trimtab_metaprotocol_routers",
            "MetaRouters",
            &[(Labels::new(), routers.len())],
        )?;
        let mut rows = Vec::new();
        for router in routers.iter().take(self.export) {
            let Some(counts) = self.engine.proxies_of(router) else {
                continue;
            };
            for (answer, n) in [
                ("subscribed", counts.subscribed),
                ("acknowledged", counts.acknowledged),
                ("refused", counts.refused),
            ] {
                let labels = vec![
                    ("namespace", router.namespace.clone()),
                    ("router", router.name.clone()),
                    ("answer", answer.to_owned()),
                ];
                rows.push((labels, usize::try_from(n).unwrap_or_default()));
            }
        }
        gauges(
            encoder,
            "trimtab_metaprotocol_router_proxies",
            "Proxies by what they said to the present routes of a MetaRouter",
            &rows,
        )
    }
}
