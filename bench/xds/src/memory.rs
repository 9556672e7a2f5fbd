//! Memory of the server: of an idle stream, and of the resources: X4.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::race::{Racer, Watch};
use crate::report::{Row, Spread};
use crate::server::Kind;
use crate::wire;

/// Memory of a stream, as the difference between few streams and many; `quiet` is the pause until what the connections
/// needed while they opened is given back.
pub async fn streams(
    kinds: &[Kind],
    peer: &Path,
    what: &'static str,
    (few, many): (usize, usize),
    (resources, size): (usize, usize),
    watch: Watch,
    quiet: Duration,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kind in kinds {
        let mut racer = Racer::start(*kind, peer, resources, size).await?;
        racer.join_cold(few, watch).await?;
        tokio::time::sleep(quiet).await;
        let before = racer.server.resident();
        racer.join_cold(many - few, watch).await?;
        tokio::time::sleep(quiet).await;
        let stream = (racer.server.resident() - before) / (many - few) as f64;
        rows.push(Row {
            id: "X4",
            what,
            streams: many,
            resources,
            server: kind.label(),
            values: [("KiB/stream", Spread::of(&[stream]))].into(),
        });
        racer.stop().await?;
    }
    Ok(rows)
}

/// Memory of the resources, as a multiple of their encoded bytes.
pub async fn resources(
    kinds: &[Kind],
    peer: &Path,
    count: usize,
    size: usize,
    quiet: Duration,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kind in kinds {
        let mut racer = Racer::start(*kind, peer, 1, size).await?;
        let before = racer.server.resident();
        racer.server.order(&format!("fill {count} {size}")).await?;
        // The content is encoded, if not before, when the first stream asks.
        racer.resources = count;
        racer.join(1, Watch::All).await?;
        tokio::time::sleep(quiet).await;
        let encoded = wire::body(0, 0, size).len() * count;
        let grown = (racer.server.resident() - before) * 1024.0;
        let each = grown / count as f64;
        rows.push(Row {
            id: "X4",
            what: "stored resources",
            streams: 1,
            resources: count,
            server: kind.label(),
            values: [
                ("x encoded bytes", Spread::of(&[grown / encoded as f64])),
                (
                    "bytes beside the content",
                    Spread::of(&[each - (encoded / count) as f64]),
                ),
            ]
            .into(),
        });
        racer.stop().await?;
    }
    Ok(rows)
}
