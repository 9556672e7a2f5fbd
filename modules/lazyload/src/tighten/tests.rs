use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn config() -> AutoMode {
    AutoMode {
        learn: (10 * HOUR).into(),
        quiet: (5 * HOUR).into(),
        hold: (2 * HOUR).into(),
        window: HOUR.into(),
        calls: 10,
    }
}

/// A fence and its clocks.
struct Play {
    it: Tighten,
    config: AutoMode,
    at: Duration,
    /// Watched time since the last return and since the last call outside, as a reader of the definition counts them.
    watched: Duration,
    quiet: Duration,
}

fn wall(at: Duration) -> Timestamp {
    let seconds = i64::try_from(at.as_secs()).unwrap();
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

impl Play {
    fn new() -> Self {
        Self {
            it: Tighten::new(wall(Duration::ZERO)),
            config: config(),
            at: Duration::ZERO,
            watched: Duration::ZERO,
            quiet: Duration::ZERO,
        }
    }

    fn step(&mut self, by: Duration, seen: Seen) -> Option<Turn> {
        self.at += by;
        let now = Now {
            wall: wall(self.at),
            monotonic: self.at,
        };
        if let Some(by) = seen.watched {
            self.watched += by;
            self.quiet += by;
        }
        if seen.new_hosts > 0 {
            self.quiet = Duration::ZERO;
        }
        self.it.step(&seen, &self.config, now)
    }

    fn hours(&mut self, hours: u32) -> Option<Turn> {
        let seen = Seen {
            watched: Some(HOUR),
            carried: true,
            ..Seen::default()
        };
        (0..hours).find_map(|_| self.step(HOUR, seen))
    }
}

#[test]
fn it_tightens_by_evidence_and_goes_back_when_calls_miss() {
    let mut play = Play::new();
    assert_eq!((play.hours(9), play.it.mode()), (None, Mode::Exclude));
    assert_eq!(play.hours(1), Some(Turn::Tightened));
    assert_eq!(play.it.mode(), Mode::Enforce);
    let missed = |strays| Seen {
        strays,
        watched: Some(HOUR),
        carried: true,
        ..Seen::default()
    };
    let minute = Duration::from_secs(60);
    assert_eq!(play.step(minute, missed(6)), None, "first calls are usual");
    assert_eq!(play.step(minute, missed(6)), Some(Turn::WentBack(12)));
    assert_eq!((play.it.returns, play.it.mode()), (1, Mode::Exclude));
    assert_eq!(play.hours(9), None, "it learns anew");
    assert_eq!(play.hours(1), Some(Turn::Tightened));
}

#[test]
fn what_is_usual_is_no_rise() {
    let mut play = Play::new();
    let usual = Seen {
        strays: 100,
        watched: Some(HOUR),
        carried: true,
        ..Seen::default()
    };
    let turn = (0..20).find_map(|_| play.step(2 * HOUR, usual));
    assert_eq!(turn, Some(Turn::Tightened));
    assert_eq!(play.it.bound(&play.config), 210);
    assert_eq!(play.step(2 * HOUR, usual), None);
    let more = Seen {
        strays: 211,
        ..usual
    };
    assert_eq!(play.step(2 * HOUR, more), Some(Turn::WentBack(211)));
}

#[test]
fn calls_outside_and_missing_telemetry_prove_nothing() {
    let mut play = Play::new();
    play.hours(8);
    let outside = Seen {
        watched: Some(HOUR),
        new_hosts: 1,
        carried: true,
        ..Seen::default()
    };
    assert_eq!(play.step(HOUR, outside), None);
    assert_eq!(play.hours(4), None, "quiet begins anew");
    let blind = Seen {
        carried: true,
        ..Seen::default()
    };
    assert_eq!(play.step(100 * HOUR, blind), None);
    let no_fallback = Seen {
        watched: Some(HOUR),
        ..Seen::default()
    };
    assert_eq!(play.step(HOUR, no_fallback), None);
    assert_eq!(
        play.it.waits_for(false, &play.config, wall(play.at)),
        Wait::Fallback
    );
    assert_eq!(play.hours(1), Some(Turn::Tightened));
}

#[test]
fn a_restart_goes_on_and_adds_nothing() {
    let mut play = Play::new();
    play.hours(10);
    play.step(
        HOUR,
        Seen {
            strays: 50,
            ..Seen::default()
        },
    );
    play.hours(3);
    let stored = play.it.to_status(&play.config);
    assert_eq!(
        (stored.step, stored.returns),
        (Some(Mode::Exclude), Some(1))
    );
    let now = wall(play.at);
    let again = Tighten::from_status(&stored, now);
    assert!(again.watched <= play.it.watched && again.quiet <= play.it.quiet);
    assert_eq!((again.since, again.returns), (play.it.since, 1));
    assert_eq!(again.to_status(&play.config), stored, "nothing to write");
    // A clock that was wrong, or a text that is none: the hold begins anew.
    for since in ["2999-01-01T00:00:00Z", "x"] {
        let mut odd = stored.clone();
        since.clone_into(&mut odd.since);
        assert_eq!(Tighten::from_status(&odd, now).since, now);
    }
}

proptest! {
    #[test]
    fn never_without_evidence_back_within_a_window_and_no_faster_than_the_hold(
        seen in prop::collection::vec(
            (0_u64..7200, any::<bool>(), 0_u64..30, 0_u64..40, any::<bool>(), 0_u64..60), 0..400,
        ),
    ) {
        let mut play = Play::new();
        let mut last: Option<(Duration, Turn)> = None;
        let mut missed: Vec<(Duration, u64)> = Vec::new();
        for (seconds, watched, strays, rare, carried, restart) in seen {
            let by = Duration::from_secs(seconds);
            let new_hosts = u64::from(rare == 0);
            let seen = Seen { watched: watched.then_some(by), strays: strays / 6, new_hosts, carried };
            let before = play.it.clone();
            let turn = play.step(by, seen);
            match turn {
                Some(Turn::Tightened) => {
                    prop_assert!(watched && carried && !before.enforced);
                    prop_assert!(play.watched >= *play.config.learn, "watched {:?}", play.watched);
                    prop_assert!(play.quiet >= *play.config.quiet, "quiet {:?}", play.quiet);
                    if let Some((at, _)) = last {
                        prop_assert!(play.at >= at + *play.config.hold, "hold");
                    }
                    missed.clear();
                }
                Some(Turn::WentBack(_)) => {
                    prop_assert!(before.enforced);
                    play.watched = Duration::ZERO;
                    play.quiet = Duration::ZERO;
                    missed.clear();
                }
                None if play.it.enforced => {
                    missed.push((play.at, seen.strays + new_hosts));
                    let from = play.at.saturating_sub(*play.config.window);
                    let count: u64 = missed.iter().filter(|(at, _)| *at >= from).map(|(_, n)| n).sum();
                    prop_assert!(count <= play.it.bound(&play.config), "it must have gone back: {count}");
                }
                None => {}
            }
            last = turn.map(|turn| (play.at, turn)).or(last);
            if restart == 0 {
                let stored = play.it.to_status(&play.config);
                play.it = Tighten::from_status(&stored, wall(play.at));
                // What was counted in the window is lost, and nothing else that would keep it from going back.
                missed.clear();
            }
        }
    }
}
