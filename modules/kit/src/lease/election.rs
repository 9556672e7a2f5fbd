//! The state of one candidate: what it knows of the Lease, and until when it leads. Pure: what happens comes in, what to do
//! comes out.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::admission::Leadership;
use super::step::{Observed, Record, Step, step};
use super::timing::Timing;

/// How long a replica that is not ready leaves a free lease to others.
pub(super) const HANDICAP: Duration = Duration::from_secs(5);

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Read the Lease.
    Read,
    /// Write it: create it, or replace the version that `base` names.
    Write(Draft),
    /// Nothing until then, unless something changes.
    Wait(Duration),
}

/// A record to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draft {
    /// Version to replace; `None`: there is none.
    pub(super) base: Option<String>,
    /// What it shall say; its version is not known yet.
    pub(super) record: Record,
}

/// How a write went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is there, with this version.
    Done(String),
    /// The Lease has another version, or is gone.
    Conflict,
    /// Nobody knows.
    Failed,
}

/// Ours, by the last write that was answered.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// When that write was sent.
    sent: Duration,
    epoch: i32,
}

/// One candidate.
#[derive(Clone, Debug)]
pub(super) struct Election {
    me: String,
    timing: Timing,
    /// `None`: it must be read.
    observed: Option<Observed>,
    /// Some version of the Lease was known.
    known: bool,
    held: Option<Held>,
    read_from: Duration,
    write_from: Duration,
}

impl Election {
    pub(super) fn new(me: String, timing: Timing) -> Self {
        Self {
            me,
            timing,
            observed: None,
            known: false,
            held: None,
            read_from: Duration::ZERO,
            write_from: Duration::ZERO,
        }
    }

    /// Who holds the Lease, as far as is known.
    pub(super) fn record(&self) -> Option<&Record> {
        self.observed.as_ref()?.record.as_ref()
    }

    /// Whether, and until when, this candidate leads.
    pub(super) fn leadership(&self, now: Duration) -> Option<Leadership> {
        let held = self.held?;
        let leadership = Leadership {
            epoch: held.epoch,
            begin_until: held.sent + self.timing.renew_deadline,
            valid_until: held.sent + self.timing.lease,
        };
        (now < leadership.begin_until).then_some(leadership)
    }

    /// What to do. `ready`: the process decides; `wall`: for the people who read the Lease.
    pub(super) fn next(&self, now: Duration, wall: Timestamp, ready: bool) -> Action {
        let Some(observed) = &self.observed else {
            return later(now, self.read_from).unwrap_or(Action::Read);
        };
        let from = match step(observed, &self.me, now, self.timing.lease) {
            Step::Wait(until) => return Action::Wait(until),
            // A Lease that nobody has ever held is nobody's to wait for.
            Step::Acquire(free) if !ready && self.known => self.write_from.max(free + HANDICAP),
            Step::Acquire(_) | Step::Renew => self.write_from,
        };
        later(now, from).unwrap_or_else(|| Action::Write(self.draft(observed, wall)))
    }

    fn draft(&self, observed: &Observed, wall: Timestamp) -> Draft {
        let before = observed.record.as_ref();
        let ours = before.filter(|r| r.holder == self.me);
        let epoch = before.map_or(0, |r| r.transitions);
        let record = Record {
            holder: self.me.clone(),
            lasts: self.timing.lease,
            transitions: if ours.is_some() {
                epoch
            } else {
                epoch.saturating_add(1)
            },
            acquired: ours.map_or(Some(wall), |r| r.acquired),
            renewed: Some(after(before, wall)),
            version: String::new(),
        };
        Draft {
            base: before.map(|r| r.version.clone()),
            record,
        }
    }

    /// What gives the Lease back, if it is ours.
    pub(super) fn release(&self, wall: Timestamp) -> Option<Draft> {
        let before = self.record().filter(|r| r.holder == self.me)?;
        Some(Draft {
            base: Some(before.version.clone()),
            record: Record {
                holder: String::new(),
                lasts: Duration::from_secs(1),
                renewed: Some(after(Some(before), wall)),
                ..before.clone()
            },
        })
    }

    /// The Lease was read, or the watch has told of it. `None`: there is none.
    pub(super) fn observe(&mut self, record: Option<Record>, now: Duration) {
        let known = self.record();
        if let (Some(new), Some(known)) = (&record, known)
            && (new.version == known.version || is_older(&new.version, &known.version))
        {
            return;
        }
        if record.is_none() && self.observed.as_ref().is_some_and(|o| o.record.is_none()) {
            return;
        }
        if record.as_ref().is_none_or(|r| r.holder != self.me) {
            self.held = None;
        }
        self.known |= record.is_some();
        self.observed = Some(Observed {
            vanished: record.is_none() && self.known,
            record,
            since: now,
        });
    }

    /// The watch has told that this version was deleted.
    pub(super) fn deleted(&mut self, version: &str, now: Duration) {
        let newer = self
            .record()
            .is_some_and(|known| is_older(version, &known.version));
        if !newer {
            self.observe(None, now);
        }
    }

    /// The Lease could not be read.
    pub(super) fn read_failed(&mut self, now: Duration, jitter: f64) {
        self.read_from = now + self.timing.pause(jitter);
    }

    /// A write that was sent at `sent` was answered.
    pub(super) fn wrote(
        &mut self,
        draft: Draft,
        written: Written,
        sent: Duration,
        now: Duration,
        jitter: f64,
    ) {
        self.write_from =
            sent.max(now.saturating_sub(self.timing.retry)) + self.timing.pause(jitter);
        match written {
            Written::Done(version) => {
                let stale = self
                    .record()
                    .is_some_and(|known| is_older(&version, &known.version));
                if stale {
                    // The watch was faster, and told of a later change.
                    return;
                }
                let epoch = draft.record.transitions;
                let record = Record {
                    version,
                    ..draft.record
                };
                self.held = (record.holder == self.me).then_some(Held { sent, epoch });
                self.known = true;
                self.observed = Some(Observed {
                    record: Some(record),
                    since: now,
                    vanished: false,
                });
            }
            Written::Conflict => {
                self.observed = None;
                self.read_from = now;
            }
            // It may have been written all the same: then its version is a conflict next time.
            Written::Failed => {}
        }
    }
}

fn later(now: Duration, from: Duration) -> Option<Action> {
    (now < from).then_some(Action::Wait(from))
}

/// A time for a renewal that differs from the one before, also on a clock that stands or went back: what does not change the
/// object is no news to others.
fn after(before: Option<&Record>, wall: Timestamp) -> Timestamp {
    let next = |t: Timestamp| t.checked_add(SignedDuration::from_micros(1)).ok();
    let least = before.and_then(|r| r.renewed).and_then(next);
    let micros = |t: Timestamp| Timestamp::from_microsecond(t.as_microsecond()).unwrap_or(t);
    least.map_or(micros(wall), |least| micros(wall.max(least)))
}

/// Whether a version is older than another. They are numbers that grow; what is no number is taken as it comes.
fn is_older(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version < than,
        _ => false,
    }
}
