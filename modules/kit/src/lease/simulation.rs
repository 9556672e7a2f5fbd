//! Histories of candidates against one API server, on a clock of their own: requests and answers late or lost, watches late,
//! processes that pause, crash, stop and start, wall clocks that are years apart. Never two may write.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::election::{Action, Draft, Election, Written};
use super::step::Record;
use super::timing::Timing;

const TIMING: Timing = Timing {
    lease: Duration::from_secs(6),
    renew_deadline: Duration::from_secs(4),
    retry: Duration::from_secs(1),
    write_limit: Duration::from_millis(1500),
};
const CANDIDATES: usize = 3;
const STEPS: usize = 80;

/// Splitmix: the same history for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn millis(&mut self, bound: u64) -> Duration {
        Duration::from_millis(self.below(bound))
    }
}

enum Request {
    Read,
    Write(Draft),
}

enum Event {
    /// At the server.
    Arrives(usize, u64, Request),
    ReadAnswer(usize, u64, Option<Record>),
    WriteAnswer(usize, u64, Draft, Written),
    Watch(usize, u64, Option<Record>),
    /// A write of this epoch changes something.
    Effect(usize, u64, i32),
}

/// A process: `born` tells it from the one that had its place before.
struct Candidate {
    election: Election,
    born: u64,
    /// Its monotonic clock is so far ahead.
    ahead: Duration,
    /// Its wall clock is so far away, in seconds.
    skew: i64,
    paused_until: Duration,
    cut_off_until: Duration,
    /// Number and sending time of the request under way, and what it is.
    call: Option<(u64, Duration, Option<Draft>)>,
    effects: usize,
    closing: bool,
    released: bool,
}

struct World {
    random: Random,
    now: Duration,
    server: Option<Record>,
    version: u64,
    events: BTreeMap<(Duration, u64), Event>,
    number: u64,
    candidates: Vec<Candidate>,
    /// Epoch of the last write that changed something.
    epoch: i32,
    led: usize,
    /// What the others think of a record's length: 1, or the defect that the test of the test plants.
    shortened: u32,
}

impl World {
    fn new(seed: u64, shortened: u32) -> Self {
        let mut world = Self {
            random: Random(seed),
            now: Duration::ZERO,
            server: None,
            version: 0,
            events: BTreeMap::new(),
            number: 0,
            candidates: Vec::new(),
            epoch: 0,
            led: 0,
            shortened,
        };
        for _ in 0..CANDIDATES {
            let candidate = world.candidate();
            world.candidates.push(candidate);
        }
        world
    }

    fn candidate(&mut self) -> Candidate {
        self.number += 1;
        Candidate {
            election: Election::new(format!("replica-{}", self.number), TIMING),
            born: self.number,
            ahead: self.random.millis(1_000_000_000),
            skew: i64::try_from(self.random.below(200_000_000)).unwrap_or_default() - 100_000_000,
            paused_until: Duration::ZERO,
            cut_off_until: Duration::ZERO,
            call: None,
            effects: 0,
            closing: false,
            released: false,
        }
    }

    fn after(&mut self, pause: Duration, event: Event) {
        self.number += 1;
        self.events.insert((self.now + pause, self.number), event);
    }

    /// Mostly fast, at times slow.
    fn delay(&mut self) -> Duration {
        if self.random.one_in(8) {
            self.random.millis(7000)
        } else {
            self.random.millis(60)
        }
    }

    fn lost(&mut self, candidate: usize) -> bool {
        self.candidates[candidate].cut_off_until > self.now || self.random.one_in(25)
    }

    fn send(&mut self, candidate: usize, request: Request) {
        self.number += 1;
        let number = self.number;
        let draft = match &request {
            Request::Read => None,
            Request::Write(draft) => Some(draft.clone()),
        };
        self.candidates[candidate].call = Some((number, self.now, draft));
        if !self.lost(candidate) {
            let pause = self.delay();
            self.after(pause, Event::Arrives(candidate, number, request));
        }
    }

    fn arrives(&mut self, candidate: usize, number: u64, request: Request) {
        let answer = match request {
            Request::Read => Event::ReadAnswer(candidate, number, self.seen()),
            Request::Write(draft) => {
                let written = if self.random.one_in(30) {
                    Written::Failed
                } else if self.server.as_ref().map(|r| &r.version) == draft.base.as_ref() {
                    self.store(draft.record.clone())
                } else {
                    Written::Conflict
                };
                Event::WriteAnswer(candidate, number, draft, written)
            }
        };
        if !self.lost(candidate) {
            let pause = self.delay();
            self.after(pause, answer);
        }
    }

    fn store(&mut self, record: Record) -> Written {
        self.version += 1;
        let version = self.version.to_string();
        self.server = Some(Record {
            version: version.clone(),
            ..record
        });
        for candidate in 0..CANDIDATES {
            if !self.lost(candidate) {
                let (pause, born) = (self.delay(), self.candidates[candidate].born);
                let seen = self.seen();
                self.after(pause, Event::Watch(candidate, born, seen));
            }
        }
        Written::Done(version)
    }

    fn seen(&self) -> Option<Record> {
        let mut record = self.server.clone()?;
        record.lasts /= self.shortened;
        Some(record)
    }

    fn take(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Arrives(candidate, number, request) => self.arrives(candidate, number, request),
            Event::Effect(candidate, born, epoch) => {
                assert!(
                    epoch >= self.epoch,
                    "a write of epoch {epoch} after one of {}",
                    self.epoch
                );
                self.epoch = epoch;
                for other in self.candidates.iter().filter(|c| c.born != born) {
                    assert!(!other.admits(now), "a write while another replica leads");
                }
                let writer = &mut self.candidates[candidate];
                writer.effects -= usize::from(writer.born == born);
            }
            Event::ReadAnswer(candidate, number, record) => {
                let c = &mut self.candidates[candidate];
                if c.call.take_if(|(n, ..)| *n == number).is_some() {
                    c.election.observe(record, now + c.ahead);
                }
            }
            Event::WriteAnswer(candidate, number, draft, written) => {
                let c = &mut self.candidates[candidate];
                if let Some((_, sent, _)) = c.call.take_if(|(n, ..)| *n == number) {
                    let (sent, now) = (sent + c.ahead, now + c.ahead);
                    c.election.wrote(draft, written, sent, now, 0.5);
                }
            }
            Event::Watch(candidate, born, record) => {
                let c = &mut self.candidates[candidate];
                if c.born == born {
                    c.election.observe(record, now + c.ahead);
                }
            }
        }
    }

    /// Events of a process that is stopped wait for it; the others happen.
    fn happen(&mut self) {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= self.now
        {
            let event = entry.remove();
            let of = match &event {
                Event::ReadAnswer(c, ..) | Event::WriteAnswer(c, ..) | Event::Watch(c, ..) => {
                    Some(*c)
                }
                Event::Arrives(..) | Event::Effect(..) => None,
            };
            let paused = of.map(|c| self.candidates[c].paused_until);
            match paused.filter(|until| *until > self.now) {
                Some(until) => self.after(until.saturating_sub(self.now), event),
                None => self.take(event),
            }
        }
    }

    fn act(&mut self, candidate: usize) {
        let limit = TIMING.request_limit();
        let now = self.now;
        let c = &mut self.candidates[candidate];
        let at = now + c.ahead;
        if let Some((_, sent, draft)) = c.call.take_if(|(_, sent, _)| now > *sent + limit) {
            match draft {
                Some(draft) => c
                    .election
                    .wrote(draft, Written::Failed, sent + c.ahead, at, 0.5),
                None => c.election.read_failed(at, 0.5),
            }
        }
        if c.admits(now) {
            self.led += 1;
            let epoch = c.election.leadership(at).unwrap().epoch;
            c.effects += 1;
            let born = c.born;
            // It takes as long as it may.
            let pause = self.random.millis(1500);
            self.after(pause, Event::Effect(candidate, born, epoch));
        }
        let c = &mut self.candidates[candidate];
        if c.call.is_some() {
            return;
        }
        let wall = Timestamp::from_second(1_700_000_000 + c.skew).unwrap();
        if c.closing {
            let release = c
                .election
                .release(wall)
                .filter(|_| !c.released && c.effects == 0);
            if let Some(draft) = release {
                c.released = true;
                self.send(candidate, Request::Write(draft));
            } else if c.effects == 0 {
                self.candidates[candidate] = self.candidate();
            }
            return;
        }
        match c.election.next(at, wall, !c.born.is_multiple_of(4)) {
            Action::Read => self.send(candidate, Request::Read),
            Action::Write(draft) => self.send(candidate, Request::Write(draft)),
            Action::Wait(_) => {}
        }
    }

    fn trouble(&mut self) {
        let candidate = usize::try_from(self.random.below(CANDIDATES as u64)).unwrap();
        let until = self.now + self.random.millis(12_000);
        match self.random.below(60) {
            0 | 1 => self.candidates[candidate].paused_until = until,
            2 | 3 => self.candidates[candidate].cut_off_until = until,
            4 => self.candidates[candidate] = self.candidate(),
            5 => self.candidates[candidate].closing = true,
            _ => {}
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            self.now += self.random.millis(500);
            self.happen();
            for candidate in 0..CANDIDATES {
                if self.candidates[candidate].paused_until <= self.now {
                    self.act(candidate);
                }
            }
            let leaders = self
                .candidates
                .iter()
                .filter(|c| c.admits(self.now))
                .count();
            assert!(leaders <= 1, "{leaders} replicas lead");
            self.trouble();
        }
    }
}

impl Candidate {
    fn admits(&self, now: Duration) -> bool {
        let at = now + self.ahead;
        let leadership = self.election.leadership(at);
        !self.closing && leadership.is_some_and(|l| l.admits(at, TIMING.write_limit))
    }
}

/// How often a candidate led at a step, in all.
fn histories(seeds: std::ops::Range<u64>, shortened: u32) -> usize {
    let run = |seed: u64| {
        let mut world = World::new(seed.wrapping_mul(0x5851_f42d_4c95_7f2d), shortened);
        world.run();
        world.led
    };
    seeds.map(run).sum()
}

#[test]
fn never_two_replicas_write() {
    let led = histories(0..20_000, 1);
    assert!(
        led > 20_000 * STEPS / 4,
        "{led}: the histories have hardly a leader"
    );
}

#[test]
#[ignore = "minutes; part of make fuzz"]
fn never_two_replicas_write_in_many_histories() {
    histories(20_000..120_000, 1);
}

#[test]
#[should_panic(expected = "while another replica leads")]
fn replicas_that_wait_too_short_are_found() {
    histories(0..20_000, 3);
}
