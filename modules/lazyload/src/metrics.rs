//! Series of the lazyload module, read from the engine at scrape time.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use trimtab_kit::series::{Labels, counter, counters, gauge, gauges};

use crate::engine::{Engine, MeshView};
use crate::learn::{Learned, Skip, Skipped};

/// Collector of the module's series. Series with a fence's name are bounded in number.
#[derive(Debug)]
pub struct LazyloadCollector {
    engine: Arc<Engine>,
    learned: Arc<Learned>,
    export: usize,
}

impl LazyloadCollector {
    /// At most `export` fences get their own series.
    pub fn new(engine: Arc<Engine>, learned: Arc<Learned>, export: usize) -> Self {
        Self {
            engine,
            learned,
            export,
        }
    }
}

impl LazyloadCollector {
    fn fences(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let mesh = self.engine.mesh_view();
        let by_reason: Vec<(Labels, f64)> = mesh
            .by_reason
            .iter()
            .map(|(reason, n)| (vec![("reason", reason.clone())], *n as f64))
            .collect();
        gauges(
            encoder,
            "trimtab_lazyload_fences",
            "ServiceFences by the reason of their condition Programmed",
            &by_reason,
        )?;
        self.modes(encoder, &mesh)?;
        let fallbacks = self.engine.fallback_endpoints().into_iter();
        let fallbacks = fallbacks.map(|(namespace, n)| (vec![("namespace", namespace)], n as f64));
        gauges(
            encoder,
            "trimtab_lazyload_fallback_endpoints",
            "Ready pods of the fallback in a namespace",
            &fallbacks.collect::<Vec<_>>(),
        )?;
        let scope = |own: i64, mesh: i64| {
            [
                (vec![("of", "scope".to_owned())], own as f64),
                (vec![("of", "mesh".to_owned())], mesh as f64),
            ]
        };
        gauges(
            encoder,
            "trimtab_lazyload_services",
            "Services that the proxies of scoped fences get, summed over fences, and what they would get without",
            &scope(mesh.services_in_scope, mesh.services_in_mesh),
        )?;
        gauges(
            encoder,
            "trimtab_lazyload_config_bytes",
            "Estimated configuration of a proxy of each scoped fence, summed over fences, and without scope",
            &scope(mesh.bytes_in_scope, mesh.bytes_in_mesh),
        )?;
        gauge(
            encoder,
            "trimtab_lazyload_callers",
            "Workloads with learned dependencies",
            mesh.callers as f64,
        )?;
        gauge(
            encoder,
            "trimtab_lazyload_edges",
            "Learned dependencies, remembered ones included",
            mesh.edges as f64,
        )?;
        self.each_fence(encoder)
    }

    fn modes(&self, encoder: &mut DescriptorEncoder<'_>, mesh: &MeshView) -> std::fmt::Result {
        let by_mode = mesh.by_mode.iter();
        let by_mode = by_mode.map(|(mode, n)| (vec![("mode", mode.clone())], *n as f64));
        let by_mode: Vec<(Labels, f64)> = by_mode.collect();
        gauges(
            encoder,
            "trimtab_lazyload_modes",
            "ServiceFences by the mode in force; of mode Auto the one that it has come to",
            &by_mode,
        )?;
        gauge(
            encoder,
            "trimtab_lazyload_excluded_services",
            "Services that fences of mode Exclude leave out, summed over fences",
            mesh.excluded as f64,
        )?;
        let turns = &self.engine.turns;
        let to = |mode: &str| vec![("to", mode.to_owned())];
        counters(
            encoder,
            "trimtab_lazyload_auto_steps",
            "Steps of fences of mode Auto, by the mode that they went to",
            &[
                (to("Enforce"), turns.tightened()),
                (to("Exclude"), turns.went_back()),
            ],
        )
    }

    fn each_fence(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut rows = Vec::new();
        for key in self.engine.fences().into_iter().take(self.export) {
            if let Some(size) = self.engine.scope_size(&key) {
                let labels = vec![
                    ("namespace", key.namespace.clone()),
                    ("name", key.name.clone()),
                ];
                rows.push((labels, size.services as f64));
            }
        }
        gauges(
            encoder,
            "trimtab_lazyload_scope_services",
            "Services in the scope of a fence",
            &rows,
        )
    }

    fn learning(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let (logs, metrics) = (&self.learned.access_logs, &self.learned.prometheus);
        let source = |name: &str| vec![("source", name.to_owned())];
        let both = |a: u64, b: u64| [(source("AccessLog"), a), (source("Prometheus"), b)];
        counters(
            encoder,
            "trimtab_lazyload_observed_calls",
            "Calls that were learned from, by source",
            &both(logs.observed_calls(), metrics.observed_calls()),
        )?;
        counters(
            encoder,
            "trimtab_lazyload_new_edges",
            "Dependencies that were new, by source",
            &both(logs.new_edges(), metrics.new_edges()),
        )?;
        let skipped = |name: &'static str, skipped: Skipped| {
            Skip::ALL.map(|skip| {
                let mut labels = source(name);
                labels.push(("reason", skip.as_str().to_owned()));
                (labels, skipped.get(skip))
            })
        };
        let mut rows = skipped("AccessLog", logs.skipped()).to_vec();
        rows.extend(skipped("Prometheus", metrics.skipped()));
        counters(
            encoder,
            "trimtab_lazyload_skipped",
            "Entries and series that taught nothing, by source and reason",
            &rows,
        )?;
        counter(
            encoder,
            "trimtab_lazyload_access_log_entries",
            "Access log entries received",
            logs.entries(),
        )?;
        gauge(
            encoder,
            "trimtab_lazyload_access_log_streams",
            "Open streams of access logs",
            logs.streams() as f64,
        )?;
        counter(
            encoder,
            "trimtab_lazyload_prometheus_queries",
            "Queries to Prometheus",
            metrics.queries(),
        )?;
        counter(
            encoder,
            "trimtab_lazyload_prometheus_failures",
            "Queries to Prometheus without a complete answer",
            metrics.failures(),
        )
    }
}

impl Collector for LazyloadCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        self.fences(&mut encoder)?;
        self.learning(&mut encoder)
    }
}
