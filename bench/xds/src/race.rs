//! One change to many streams, one server after the other in turn: X1, X2 and the share of X8 that is xDS.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::fleet::{Fleet, Manners};
use crate::report::{Row, Spread, milliseconds, quantile};
use crate::server::{Kind, Server};
use crate::wire::{self, Interest};

/// Bytes around a resource on the wire: names, version, type URL, nonce and frames.
const AROUND: usize = 170;
/// Fewest rounds, whatever they cost.
const LEAST: usize = 3;

/// What the streams ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Delta, everything.
    All,
    /// Delta, the first so many names.
    Named(usize),
    /// State of the world, the first so many names.
    FullNamed(usize),
}

impl Watch {
    /// What a stream asks for when it holds nothing.
    pub fn interest(self) -> Rc<Interest> {
        let (delta, names) = match self {
            Self::All => (true, 0),
            Self::Named(names) => (true, names),
            Self::FullNamed(names) => (false, names),
        };
        Rc::new(Interest {
            delta,
            names: (0..names).collect(),
            versions: Vec::new(),
        })
    }

    /// How many resources a stream watches.
    pub fn width(self, resources: usize) -> usize {
        match self {
            Self::All => resources,
            Self::Named(names) | Self::FullNamed(names) => names,
        }
    }
}

/// A server with resources, and streams to it.
pub struct Racer {
    pub server: Server,
    pub fleet: Fleet,
    pub size: usize,
    pub resources: usize,
    serial: u64,
}

impl Racer {
    /// A server with resources and no streams.
    pub async fn start(kind: Kind, peer: &Path, resources: usize, size: usize) -> Result<Self> {
        let mut server = Server::start(kind, peer).await?;
        server.order(&format!("fill {resources} {size}")).await?;
        let fleet = Fleet::new(server.port, kind == Kind::Floor);
        Ok(Self {
            server,
            fleet,
            size,
            resources,
            serial: 0,
        })
    }

    /// Opens streams that hold everything they ask for when this returns.
    ///
    /// One stream gets all of it from the server; the others then say that they hold it, which is what proxies do when
    /// they come back, and far cheaper than to send everything to everyone.
    pub async fn join(&mut self, streams: usize, watch: Watch) -> Result<()> {
        let before = self.fleet.notes.resources.get();
        let width = watch.width(self.resources) as u64;
        let floor = self.server.kind == Kind::Floor;
        if floor || watch != Watch::All {
            let interest = watch.interest();
            self.fleet
                .add(streams, Manners::default(), |_| Rc::clone(&interest))
                .await?;
            if floor {
                let all = self.fleet.len();
                self.server.order(&format!("accepted {all}")).await?;
            } else {
                self.fleet
                    .resources(before + width * streams as u64)
                    .await?;
            }
        } else {
            let manners = Manners {
                learns: true,
                ..Manners::default()
            };
            self.fleet.add(1, manners, |_| watch.interest()).await?;
            self.fleet.resources(before + width).await?;
            let interest = self.returning();
            self.fleet
                .add(streams - 1, Manners::default(), |_| Rc::clone(&interest))
                .await?;
        }
        // A change that all have seen proves that all are subscribed.
        self.change("set", 0).await?;
        Ok(())
    }

    /// Opens streams that get everything they ask for from the server.
    pub async fn join_cold(&mut self, streams: usize, watch: Watch) -> Result<()> {
        let interest = watch.interest();
        let before = self.fleet.notes.resources.get();
        self.fleet
            .add(streams, Manners::default(), |_| Rc::clone(&interest))
            .await?;
        let all = watch.width(self.resources) * streams;
        self.fleet.resources(before + all as u64).await?;
        self.change("set", 0).await?;
        Ok(())
    }

    /// What a delta stream asks for that holds everything the learning stream saw.
    pub fn returning(&self) -> Rc<Interest> {
        Rc::new(Interest {
            delta: true,
            names: Vec::new(),
            versions: wire::versions(&self.fleet.notes.versions.borrow()),
        })
    }

    /// Number of the next change.
    pub fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Changes one resource and waits until all streams have it; their times, sorted.
    pub async fn change(&mut self, verb: &str, index: usize) -> Result<Vec<Duration>> {
        let serial = self.next_serial();
        let size = match self.server.kind {
            Kind::Floor => self.size + AROUND,
            _ => self.size,
        };
        self.fleet.mark(serial);
        self.server
            .tell(&format!("{verb} {index} {serial} {size}"))
            .await?;
        let times = self.fleet.arrivals(self.fleet.len()).await?;
        self.server.done().await?;
        Ok(times)
    }

    /// Ends the streams and the server.
    pub async fn stop(mut self) -> Result<()> {
        self.fleet.close().await;
        self.server.stop().await
    }
}

/// Values of the rounds so far.
#[derive(Debug, Default)]
struct Lane {
    spent: Duration,
    values: BTreeMap<&'static str, Vec<f64>>,
}

impl Lane {
    fn push(&mut self, name: &'static str, value: f64) {
        self.values.entry(name).or_default().push(value);
    }

    fn rounds(&self) -> usize {
        self.values.values().map(Vec::len).max().unwrap_or(0)
    }
}

/// How long a race is.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// Most rounds of a server.
    pub rounds: usize,
    /// A server that has used up this time runs no further rounds.
    pub budget: Duration,
}

/// Pause after a round, in which the answers of the clients are worked off.
fn settling(streams: usize) -> Duration {
    Duration::from_millis(15) + Duration::from_micros(20) * u32::try_from(streams).unwrap_or(0)
}

/// Lanes of a server: the floor runs without answers and with them.
fn lanes(kind: Kind) -> &'static [(&'static str, &'static str)] {
    match kind {
        Kind::Ours => &[("trimtab", "set")],
        Kind::Linear => &[("linear", "set")],
        Kind::Snapshot => &[("snapshot", "set")],
        Kind::Floor => &[("floor", "set"), ("floor+answers", "say")],
    }
}

async fn round(racer: &mut Racer, verb: &str, index: usize, lane: &mut Lane) -> Result<()> {
    let begin = Instant::now();
    let notes = Rc::clone(&racer.fleet.notes);
    let (cpu, bytes) = (racer.server.cpu(), notes.bytes_in.get());
    let times = racer.change(verb, index).await?;
    let streams = times.len() as f64;
    lane.push("p50 ms", milliseconds(quantile(&times, 0.5)));
    lane.push("p99 ms", milliseconds(quantile(&times, 0.99)));
    lane.push("last ms", milliseconds(quantile(&times, 1.0)));
    tokio::time::sleep(settling(times.len())).await;
    let cpu = racer.server.cpu().saturating_sub(cpu);
    lane.push("cpu us/update", cpu.as_secs_f64() * 1e6 / streams);
    let bytes = notes.bytes_in.get() - bytes;
    lane.push("bytes/update", bytes as f64 / streams);
    lane.spent += begin.elapsed();
    Ok(())
}

/// Runs all servers in turn; one row a lane.
pub async fn race(
    id: &'static str,
    what: &'static str,
    racers: &mut [Racer],
    watch: Watch,
    length: Length,
) -> Result<Vec<Row>> {
    let mut done: Vec<(usize, &'static str, &'static str, Lane)> = Vec::new();
    for (place, racer) in racers.iter().enumerate() {
        for (label, verb) in lanes(racer.server.kind) {
            done.push((place, label, verb, Lane::default()));
        }
    }
    for number in 0..length.rounds {
        for (place, _, verb, lane) in &mut done {
            let Some(racer) = racers.get_mut(*place) else {
                continue;
            };
            if number < LEAST || lane.spent < length.budget {
                // A different resource in each round, spread over all.
                let index = (number * 7919 + 1) % watch.width(racer.resources);
                round(racer, verb, index, lane).await?;
            }
        }
    }
    let size = racers
        .first()
        .map(|racer| (racer.fleet.len(), racer.resources));
    let (streams, resources) = size.unwrap_or_default();
    Ok(done
        .into_iter()
        .filter(|(_, _, _, lane)| lane.rounds() > 0)
        .map(|(_, server, _, lane)| Row {
            id,
            what,
            streams,
            resources,
            server,
            values: lane
                .values
                .iter()
                .map(|(name, values)| (*name, Spread::of(values)))
                .collect(),
        })
        .collect())
}
