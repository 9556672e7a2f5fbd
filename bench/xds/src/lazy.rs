//! Streams that ask for few names and add one now and then: X7.

use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use anyhow::Result;

use crate::fleet::{Manners, Order};
use crate::race::Racer;
use crate::report::{Row, Spread, milliseconds, quantile};
use crate::server::Kind;
use crate::wire::Interest;

/// Names that a stream begins with.
const NAMES: usize = 10;

/// A number that looks random and is the same in each run (Knuth's multiplicative hash).
fn scatter(number: usize) -> usize {
    number.wrapping_mul(2_654_435_761) >> 7
}

/// Adds names one after the other, each at another stream.
pub async fn run(
    kinds: &[Kind],
    peer: &Path,
    (streams, adds): (usize, usize),
    (resources, size): (usize, usize),
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kind in kinds {
        let mut racer = Racer::start(*kind, peer, resources, size).await?;
        // The first half of the resources is asked for at the start, the second half is added.
        let half = resources / 2;
        racer
            .fleet
            .add(streams, Manners::default(), |id| {
                let names = (0..NAMES).map(|n| (id * NAMES + n) % half).collect();
                Rc::new(Interest {
                    delta: true,
                    names,
                    versions: Vec::new(),
                })
            })
            .await?;
        let mut expected = (streams * NAMES) as u64;
        racer.fleet.resources(expected).await?;
        let cpu = racer.server.cpu();
        let mut times = Vec::new();
        for number in 0..adds {
            let stream = number % streams;
            let index = half + scatter(number) % (resources - half);
            let begin = Instant::now();
            racer.fleet.order(stream, Order::Subscribe(index));
            expected += 1;
            racer.fleet.resources(expected).await?;
            times.push(begin.elapsed());
        }
        let cpu = racer.server.cpu().saturating_sub(cpu);
        times.sort_unstable();
        let value = |share| Spread::of(&[milliseconds(quantile(&times, share))]);
        rows.push(Row {
            id: "X7",
            what: "one more name",
            streams,
            resources,
            server: kind.label(),
            values: [
                ("p50 ms", value(0.5)),
                ("p99 ms", value(0.99)),
                (
                    "cpu us/added name",
                    Spread::of(&[cpu.as_secs_f64() * 1e6 / adds as f64]),
                ),
            ]
            .into(),
        });
        racer.stop().await?;
    }
    Ok(rows)
}
