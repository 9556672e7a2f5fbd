//! Many changes a second, some proxies that do not read: X5.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::fleet::{Manners, Order};
use crate::race::{Racer, Watch};
use crate::report::{Row, Spread, milliseconds, quantile};
use crate::server::Kind;

/// Resources that change, one after the other.
const NAMES: usize = 100;
/// Share of streams that note how old each change is when it arrives: one in so many.
const TIMED: usize = 10;
/// Between two readings of the memory.
const WATCHING: u64 = 200;

/// What is wanted of a run.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub streams: usize,
    pub size: usize,
    /// Changes a second.
    pub rate: u32,
    pub lasting: Duration,
    /// One stream in so many reads nothing while it lasts; 0 for none.
    pub slow_each: usize,
}

fn manners(id: usize, slow_each: usize) -> Manners {
    let slow = slow_each > 0 && id.is_multiple_of(slow_each);
    Manners {
        slow,
        timed: !slow && id % TIMED == 1,
        ..Manners::default()
    }
}

async fn set(racer: &mut Racer) -> Result<()> {
    let serial = racer.next_serial();
    let notes = Rc::clone(&racer.fleet.notes);
    notes.published.borrow_mut().push(Instant::now());
    let index = usize::try_from(serial).unwrap_or(0) % NAMES;
    let size = racer.size;
    racer
        .server
        .order(&format!("set {index} {serial} {size}"))
        .await?;
    Ok(())
}

/// Publishes at the wanted rate, or as fast as the server takes changes; returns the rate and the most memory.
async fn publish(racer: &mut Racer, wanted: &Wanted) -> Result<(f64, f64)> {
    let begin = Instant::now();
    let mut most = racer.server.resident();
    let mut count: u64 = 0;
    while begin.elapsed() < wanted.lasting {
        let due = begin.elapsed().as_secs_f64() * f64::from(wanted.rate);
        if count as f64 > due {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        set(racer).await?;
        count += 1;
        if count.is_multiple_of(WATCHING) {
            most = most.max(racer.server.resident());
        }
    }
    Ok((count as f64 / begin.elapsed().as_secs_f64(), most))
}

/// From now on the ages of changes are noted.
fn begin_times(racer: &mut Racer) {
    // Serial numbers are places in this list; those before do not matter.
    let place = usize::try_from(racer.next_serial()).unwrap_or(0) + 1;
    let notes = &racer.fleet.notes;
    *notes.published.borrow_mut() = vec![Instant::now(); place];
    notes.latencies.borrow_mut().clear();
}

async fn one(kind: Kind, peer: &Path, what: &'static str, wanted: &Wanted) -> Result<Row> {
    let mut racer = Racer::start(kind, peer, NAMES, wanted.size).await?;
    let interest = Watch::All.interest();
    let each = wanted.slow_each;
    racer
        .fleet
        .add_each(
            wanted.streams,
            |id| manners(id, each),
            |_| Rc::clone(&interest),
        )
        .await?;
    let all = wanted.streams * NAMES;
    racer.fleet.resources(all as u64).await?;
    racer.change("set", 0).await?;
    let notes = Rc::clone(&racer.fleet.notes);
    begin_times(&mut racer);
    let slow: Vec<usize> = (0..wanted.streams)
        .filter(|id| manners(*id, wanted.slow_each).slow)
        .collect();
    for id in &slow {
        racer.fleet.order(*id, Order::Pause);
    }
    let (before, cpu) = (racer.server.resident(), racer.server.cpu());
    let (rate, most) = publish(&mut racer, wanted).await?;
    let cpu = racer.server.cpu().saturating_sub(cpu).as_secs_f64() / wanted.lasting.as_secs_f64();
    for id in &slow {
        racer.fleet.order(*id, Order::Resume);
    }
    // One more round over all names: what a stream must have in the end.
    let last = racer.next_serial() + 1;
    notes.published.borrow_mut().push(Instant::now());
    notes.last_from.set(last);
    for _ in 0..NAMES {
        set(&mut racer).await?;
    }
    let end = Instant::now();
    racer.fleet.last_resources(all as u64).await?;
    let converged = end.elapsed();
    let mut latencies = std::mem::take(&mut *notes.latencies.borrow_mut());
    latencies.sort_unstable();
    let times = |share| Spread::of(&[milliseconds(quantile(&latencies, share))]);
    racer.stop().await?;
    Ok(Row {
        id: "X5",
        what,
        streams: wanted.streams,
        resources: NAMES,
        server: kind.label(),
        values: [
            ("changes/s taken", Spread::of(&[rate])),
            ("age p50 ms", times(0.5)),
            ("age p99 ms", times(0.99)),
            ("converged after ms", Spread::of(&[milliseconds(converged)])),
            ("memory grown MiB", Spread::of(&[(most - before) / 1024.0])),
            ("cpu cores", Spread::of(&[cpu])),
        ]
        .into(),
    })
}

/// Without slow readers and with them.
pub async fn run(kinds: &[Kind], peer: &Path, wanted: Wanted) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (what, slow_each) in [("update storm", 0), ("update storm, 10 % slow readers", 10)] {
        for kind in kinds {
            let wanted = Wanted {
                slow_each,
                ..wanted
            };
            rows.push(one(*kind, peer, what, &wanted).await?);
        }
    }
    Ok(rows)
}
