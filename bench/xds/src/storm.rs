//! All proxies connect at once, with nothing in hand or with everything: X3.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::fleet::{Fleet, Manners};
use crate::race::{Racer, Watch};
use crate::report::{Row, Spread};
use crate::server::Kind;

/// Pause in which a server forgets the streams of the round before.
const FORGET: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Values(BTreeMap<&'static str, Vec<f64>>);

impl Values {
    fn push(&mut self, name: &'static str, value: f64) {
        self.0.entry(name).or_default().push(value);
    }
}

/// Opens all streams; done when each has all resources and a change after them.
async fn storm(racer: &mut Racer, streams: usize, warm: bool) -> Result<(Duration, f64, f64)> {
    let interest = if warm {
        racer.returning()
    } else {
        Watch::All.interest()
    };
    racer.fleet.close().await;
    if racer.server.kind == Kind::Floor {
        racer.server.order("forget").await?;
    }
    tokio::time::sleep(FORGET).await;
    let mut fleet = Fleet::new(racer.server.port, racer.server.kind == Kind::Floor);
    let versions = std::mem::take(&mut *racer.fleet.notes.versions.borrow_mut());
    *fleet.notes.versions.borrow_mut() = versions;
    let cpu = racer.server.cpu();
    let begin = Instant::now();
    fleet
        .add(streams, Manners::default(), |_| Rc::clone(&interest))
        .await?;
    if racer.server.kind == Kind::Floor {
        racer.server.order(&format!("accepted {streams}")).await?;
        // All resources of a stream in one message.
        let bytes = (racer.size + 100) * racer.resources;
        let serial = racer.next_serial();
        fleet.mark(serial);
        racer
            .server
            .order(&format!("set 0 {serial} {bytes}"))
            .await?;
        fleet.arrivals(streams).await?;
        racer.fleet = fleet;
    } else {
        if !warm {
            fleet.resources((streams * racer.resources) as u64).await?;
        }
        racer.fleet = fleet;
        racer.change("set", 0).await?;
    }
    let took = begin.elapsed();
    let cpu = racer.server.cpu().saturating_sub(cpu).as_secs_f64();
    Ok((took, cpu, racer.fleet.notes.bytes_in.get() as f64))
}

/// Cold and warm storms, one server after the other in turn.
pub async fn run(
    kinds: &[Kind],
    peer: &Path,
    (streams, resources, size): (usize, usize, usize),
    rounds: usize,
) -> Result<Vec<Row>> {
    let mut racers = Vec::new();
    for kind in kinds {
        let mut racer = Racer::start(*kind, peer, resources, size).await?;
        if *kind != Kind::Floor {
            let manners = Manners {
                learns: true,
                ..Manners::default()
            };
            racer
                .fleet
                .add(1, manners, |_| Watch::All.interest())
                .await?;
            racer.fleet.resources(resources as u64).await?;
        }
        racers.push((racer, Values::default()));
    }
    for _ in 0..rounds {
        for (racer, values) in &mut racers {
            let (took, cpu, bytes) = storm(racer, streams, false).await?;
            values.push("cold s", took.as_secs_f64());
            values.push("cold cpu s", cpu);
            values.push("cold MB", bytes / 1e6);
            if racer.server.kind != Kind::Floor {
                let (took, cpu, bytes) = storm(racer, streams, true).await?;
                values.push("with versions s", took.as_secs_f64());
                values.push("with versions cpu s", cpu);
                values.push("with versions MB", bytes / 1e6);
            }
        }
    }
    let mut rows = Vec::new();
    for (racer, values) in racers {
        rows.push(Row {
            id: "X3",
            what: "connect storm",
            streams,
            resources,
            server: racer.server.kind.label(),
            values: values
                .0
                .iter()
                .map(|(name, values)| (*name, Spread::of(values)))
                .collect(),
        });
        racer.stop().await?;
    }
    Ok(rows)
}
