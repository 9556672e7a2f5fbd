//! Which scenarios run, and how large they are.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::churn::{self, Wanted};
use crate::race::{Length, Racer, Watch, race};
use crate::report::Report;
use crate::server::Kind;
use crate::{lazy, memory, nack, storm};

/// Bytes of a resource.
pub const SIZE: usize = 512;
/// Names of a stream that does not ask for everything.
pub const NAMES: usize = 10;

/// What races against what.
const ALL: &[Kind] = &[Kind::Ours, Kind::Linear, Kind::Floor];
const BOTH: &[Kind] = &[Kind::Ours, Kind::Linear];
const WITH_SNAPSHOT: &[Kind] = &[Kind::Ours, Kind::Linear, Kind::Snapshot, Kind::Floor];

/// A run in the making.
struct Plan<'a> {
    report: &'a mut Report,
    peer: &'a Path,
    quick: bool,
    only: &'a [String],
    begin: Instant,
}

/// One row of the grid of X1.
struct Grid {
    id: &'static str,
    what: &'static str,
    kinds: &'static [Kind],
    streams: usize,
    resources: usize,
    watch: Watch,
}

const fn grid(kinds: &'static [Kind], streams: usize, resources: usize) -> Grid {
    Grid {
        id: "X1",
        what: "one change to all",
        kinds,
        streams,
        resources,
        watch: Watch::All,
    }
}

const fn named(id: &'static str, what: &'static str, streams: usize, watch: Watch) -> Grid {
    Grid {
        id,
        what,
        kinds: BOTH,
        streams,
        resources: 10_000,
        watch,
    }
}

const FULL: &[Grid] = &[
    grid(WITH_SNAPSHOT, 100, 1_000),
    grid(WITH_SNAPSHOT, 100, 10_000),
    grid(ALL, 100, 100_000),
    grid(ALL, 1_000, 1_000),
    grid(ALL, 1_000, 10_000),
    grid(ALL, 5_000, 1_000),
    named(
        "X1",
        "one change to all, 10 names",
        1_000,
        Watch::Named(NAMES),
    ),
    named(
        "X1",
        "one change to all, 10 names, state of the world",
        1_000,
        Watch::FullNamed(NAMES),
    ),
    named("X8", "one change to one stream", 1, Watch::Named(NAMES)),
];

const QUICK: &[Grid] = &[
    grid(WITH_SNAPSHOT, 100, 1_000),
    grid(ALL, 100, 10_000),
    grid(ALL, 500, 1_000),
    named(
        "X1",
        "one change to all, 10 names, state of the world",
        100,
        Watch::FullNamed(NAMES),
    ),
    named("X8", "one change to one stream", 1, Watch::Named(NAMES)),
];

impl Plan<'_> {
    fn wants(&self, id: &str, what: &str) -> bool {
        let wanted = self.only.is_empty() || self.only.iter().any(|only| only == id);
        if wanted {
            let at = self.begin.elapsed().as_secs();
            eprintln!("{at:>4} s  {id} {what}");
        }
        wanted
    }

    fn length(&self) -> Length {
        if self.quick {
            Length {
                rounds: 6,
                budget: Duration::from_millis(400),
            }
        } else {
            Length {
                rounds: 40,
                budget: Duration::from_secs(4),
            }
        }
    }

    async fn fan_out(&mut self, grid: &Grid) -> Result<()> {
        let (streams, resources) = (grid.streams, grid.resources);
        let text = format!("{}: {streams} streams, {resources} resources", grid.what);
        if !self.wants(grid.id, &text) {
            return Ok(());
        }
        let mut racers = Vec::new();
        for kind in grid.kinds {
            let mut racer = Racer::start(*kind, self.peer, resources, SIZE).await?;
            racer
                .join(streams, grid.watch)
                .await
                .with_context(|| format!("{text}, {}", kind.label()))?;
            racers.push(racer);
        }
        let rows = race(grid.id, grid.what, &mut racers, grid.watch, self.length()).await?;
        self.report.rows.extend(rows);
        for racer in racers {
            racer.stop().await?;
        }
        Ok(())
    }

    async fn memory(&mut self) -> Result<()> {
        if !self.wants("X4", "memory") {
            return Ok(());
        }
        let quiet = Duration::from_millis(if self.quick { 300 } else { 1_500 });
        let named = if self.quick {
            (200, 800)
        } else {
            (1_000, 5_000)
        };
        let all = if self.quick { (20, 120) } else { (50, 350) };
        for resources in [1_000, 10_000] {
            for (what, numbers, watch) in [
                ("idle stream, 10 names", named, Watch::Named(NAMES)),
                ("idle stream, everything", all, Watch::All),
            ] {
                let size = (resources, SIZE);
                let rows = memory::streams(BOTH, self.peer, what, numbers, size, watch, quiet);
                self.report.rows.extend(rows.await?);
            }
            if self.quick {
                break;
            }
        }
        let count = if self.quick { 10_000 } else { 100_000 };
        let rows = memory::resources(BOTH, self.peer, count, SIZE, quiet).await?;
        self.report.rows.extend(rows);
        Ok(())
    }

    async fn rest(&mut self) -> Result<()> {
        let scale = if self.quick { 10 } else { 1 };
        if self.wants("X3", "connect storm") {
            let (size, rounds) = (
                (5_000 / scale, 1_000, SIZE / 2),
                if self.quick { 1 } else { 3 },
            );
            let rows = storm::run(ALL, self.peer, size, rounds).await?;
            self.report.rows.extend(rows);
        }
        self.memory().await?;
        if self.wants("X5", "update storm") {
            let wanted = Wanted {
                streams: 1_000 / scale,
                size: SIZE,
                rate: 1_000,
                lasting: Duration::from_secs(if self.quick { 1 } else { 10 }),
                slow_each: 0,
            };
            let rows = churn::run(BOTH, self.peer, wanted).await?;
            self.report.rows.extend(rows);
        }
        if self.wants("X6", "refusals") {
            let streams = 1_000 / scale;
            let rows = nack::run(BOTH, self.peer, (streams, streams / 10), (1_000, SIZE)).await?;
            self.report.rows.extend(rows);
        }
        for resources in [1_000, 10_000, 100_000] {
            if (!self.quick || resources == 10_000) && self.wants("X7", "one more name") {
                let many = (5_000 / scale, 1_000 / scale);
                let rows = lazy::run(BOTH, self.peer, many, (resources, SIZE)).await?;
                self.report.rows.extend(rows);
            }
        }
        Ok(())
    }
}

/// Runs everything, or what `only` names.
pub async fn run(report: &mut Report, peer: &Path, quick: bool, only: &[String]) -> Result<()> {
    let begin = Instant::now();
    let mut plan = Plan {
        report,
        peer,
        quick,
        only,
        begin,
    };
    for grid in if quick { QUICK } else { FULL } {
        plan.fan_out(grid).await?;
    }
    plan.rest().await
}
