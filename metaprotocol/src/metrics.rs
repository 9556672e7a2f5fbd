//! Series of the MetaProtocol module, read from the engine at scrape time.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use trimtab_kit::series::{Labels, gauge, gauges};

use crate::engine::Engine;
use crate::object::Kind;

/// Collector of the module's series. Series with a router's name are bounded in number.
#[derive(Debug)]
pub struct MetaprotocolCollector {
    engine: Arc<Engine>,
    export: usize,
}

impl MetaprotocolCollector {
    /// At most `export` MetaRouters get their own series.
    pub fn new(engine: Arc<Engine>, export: usize) -> Self {
        Self { engine, export }
    }
}

impl Collector for MetaprotocolCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let encoder = &mut encoder;
        let tally = self.engine.tally();
        gauge(
            encoder,
            "trimtab_metaprotocol_hosts",
            "Hosts with a layer-7 port that is managed",
            tally.hosts as f64,
        )?;
        gauge(
            encoder,
            "trimtab_metaprotocol_hosts_retained",
            "Hosts whose outputs are left as they are because of a mistake",
            tally.retained as f64,
        )?;
        let ports: Vec<(Labels, f64)> = tally
            .ports
            .iter()
            .map(|((target, delivery), n)| {
                let labels = vec![
                    ("filter", (*target).to_owned()),
                    ("delivery", (*delivery).to_owned()),
                ];
                (labels, *n as f64)
            })
            .collect();
        gauges(
            encoder,
            "trimtab_metaprotocol_ports",
            "Ports by filter and delivery",
            &ports,
        )?;
        let problems = tally.problems.iter();
        let problems: Vec<(Labels, f64)> = problems
            .map(|(reason, n)| (vec![("reason", (*reason).to_owned())], *n as f64))
            .collect();
        gauges(
            encoder,
            "trimtab_metaprotocol_problems",
            "What is wrong with objects, by reason",
            &problems,
        )?;
        self.routers(encoder)
    }
}

impl MetaprotocolCollector {
    fn routers(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let routers = self.engine.index.objects(Kind::MetaRouter);
        gauge(
            encoder,
            "trimtab_metaprotocol_routers",
            "MetaRouters",
            routers.len() as f64,
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
                rows.push((labels, f64::from(n)));
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
