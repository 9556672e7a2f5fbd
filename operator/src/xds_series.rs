//! Series of the xDS server, read at scrape time.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use trimtab_kit::series::{counter, counters, gauge, gauges};
use trimtab_xds::{ResourceCache, Stats, TypeStats};

/// Collector of the series.
#[derive(Debug)]
pub struct XdsCollector(pub ResourceCache);

type Row<'a> = (&'a [(&'static str, String)], u64);

impl Collector for XdsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let encoder = &mut encoder;
        let stats = self.0.stats();
        let read = Stats::read;
        gauge(
            encoder,
            "trimtab_xds_streams",
            "Open xDS streams",
            read(&stats.streams_active),
        )?;
        for (name, help, value) in [
            (
                "trimtab_xds_pushes",
                "Responses sent to proxies",
                &stats.pushes,
            ),
            (
                "trimtab_xds_acks",
                "Responses that proxies took",
                &stats.acks,
            ),
            (
                "trimtab_xds_nacks",
                "Responses that proxies refused",
                &stats.nacks,
            ),
            (
                "trimtab_xds_tls_refused",
                "Connections refused because of their certificate",
                &stats.connections.tls_refused,
            ),
            (
                "trimtab_xds_tokens_refused",
                "Streams refused because of their token",
                &stats.tokens_refused,
            ),
            (
                "trimtab_xds_connections_refused",
                "Connections closed because there are too many",
                &stats.connections.limited,
            ),
        ] {
            counter(encoder, name, help, read(value))?;
        }
        let label = |reason: &str| [("reason", reason.to_owned())];
        let rows = [
            (label("not_ready"), read(&stats.streams_refused)),
            (label("streams"), read(&stats.limited_streams)),
            (label("names"), read(&stats.limited_names)),
            (label("bytes"), read(&stats.limited_bytes)),
            (label("malformed"), read(&stats.malformed)),
        ];
        counters(
            encoder,
            "trimtab_xds_streams_ended",
            "Streams that were refused or ended, by reason",
            &rows,
        )?;
        types(encoder, &self.0.type_stats())
    }
}

/// Name and meaning of a series, and how to read it.
type Column = (&'static str, &'static str, fn(&TypeStats) -> u64);

fn types(encoder: &mut DescriptorEncoder<'_>, types: &[TypeStats]) -> std::fmt::Result {
    let labels: Vec<[(&'static str, String); 1]> = types
        .iter()
        .map(|t| [("type", short(&t.type_url))])
        .collect();
    let rows = |of: fn(&TypeStats) -> u64| -> Vec<Row<'_>> {
        let rows = types.iter().zip(&labels);
        rows.map(|(t, l)| (l.as_slice(), of(t))).collect()
    };
    let now: [Column; 2] = [
        ("trimtab_xds_resources", "Resources by type", |t| {
            t.names as u64
        }),
        (
            "trimtab_xds_subscriptions",
            "Streams that ask for a type",
            |t| t.streams_sotw + t.streams_delta,
        ),
    ];
    for (name, help, of) in now {
        gauges(encoder, name, help, &rows(of))?;
    }
    let ever: [Column; 4] = [
        (
            "trimtab_xds_type_bytes",
            "Bytes of resources sent, by type",
            |t| t.bytes,
        ),
        (
            "trimtab_xds_type_nacks",
            "Responses that proxies refused, by type",
            |t| t.nacks,
        ),
        (
            "trimtab_xds_type_denied",
            "Questions for what a proxy must not see, by type",
            |t| t.denied,
        ),
        (
            "trimtab_xds_type_changes",
            "Changes of resources, by type",
            |t| t.changes,
        ),
    ];
    for (name, help, of) in ever {
        counters(encoder, name, help, &rows(of))?;
    }
    convergence(encoder, types, &labels)
}

fn convergence(
    encoder: &mut DescriptorEncoder<'_>,
    types: &[TypeStats],
    labels: &[[(&'static str, String); 1]],
) -> std::fmt::Result {
    let mut family = encoder.encode_descriptor(
        "trimtab_xds_convergence_seconds",
        "From a change of a resource to its acceptance by a proxy",
        None,
        MetricType::Histogram,
    )?;
    for (stats, labels) in types.iter().zip(labels) {
        stats.convergence.encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

/// The message's name without the packages that all have.
fn short(type_url: &str) -> String {
    let message = type_url.rsplit('/').next().unwrap_or(type_url);
    let message = message.strip_prefix("envoy.").unwrap_or(message);
    message
        .strip_prefix("extensions.filters.network.")
        .unwrap_or(message)
        .to_owned()
}
