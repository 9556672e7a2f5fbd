//! Some proxies refuse one resource: X6.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::fleet::Manners;
use crate::race::{Racer, Watch};
use crate::report::{Row, Spread, milliseconds, quantile};
use crate::server::Kind;

/// Good changes after the bad one.
const GOOD: usize = 20;
/// How long a server may go on to send what was refused.
const LOOPS: Duration = Duration::from_secs(1);

/// Waits until the server has reported all refusals; only ours reports any.
async fn reported(racer: &mut Racer, refusing: usize, since: Instant) -> Result<Duration> {
    loop {
        let count: usize = racer.server.order("nacks").await?.parse()?;
        if count >= refusing {
            return Ok(since.elapsed());
        }
        ensure!(
            since.elapsed() < Duration::from_secs(10),
            "{count} of {refusing} refusals were reported"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn changes(racer: &mut Racer) -> Result<Spread> {
    let mut times = Vec::new();
    for index in 1..=GOOD {
        let all = racer.change("set", index).await?;
        times.push(milliseconds(quantile(&all, 0.99)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Spread::of(&times))
}

/// One bad resource for `refusing` of the streams.
pub async fn run(
    kinds: &[Kind],
    peer: &Path,
    (streams, refusing): (usize, usize),
    (resources, size): (usize, usize),
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kind in kinds {
        let mut racer = Racer::start(*kind, peer, resources, size).await?;
        racer.join(streams - refusing, Watch::All).await?;
        let interest = racer.returning();
        let manners = Manners {
            refuses: true,
            ..Manners::default()
        };
        racer
            .fleet
            .add(refusing, manners, |_| Rc::clone(&interest))
            .await?;
        racer.change("set", 0).await?;
        let before = changes(&mut racer).await?;
        let notes = Rc::clone(&racer.fleet.notes);
        notes.refuse.set(racer.next_serial() + 1);
        let responses = notes.refusing_responses.get();
        let begin = Instant::now();
        racer.change("set", 0).await?;
        let mut values = std::collections::BTreeMap::new();
        if *kind == Kind::Ours {
            let event = reported(&mut racer, refusing, begin).await?;
            values.insert("all events ms", Spread::of(&[milliseconds(event)]));
        }
        tokio::time::sleep(LOOPS).await;
        let sent = (notes.refusing_responses.get() - responses) as f64 / refusing as f64;
        let after = changes(&mut racer).await?;
        values.insert("responses to a refusal", Spread::of(&[sent - 1.0]));
        values.insert("p99 ms before", before);
        values.insert("p99 ms after", after);
        rows.push(Row {
            id: "X6",
            what: "one bad resource",
            streams,
            resources,
            server: kind.label(),
            values,
        });
        racer.stop().await?;
    }
    Ok(rows)
}
