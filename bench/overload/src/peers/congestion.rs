//! AIMD and Vegas of the crate `congestion-limiter`: a limit of the requests in each pod.
//!
//! The crate times requests itself with tokio's clock, and takes a sample only from a token of its own. So each law has a
//! tokio runtime whose clock is paused, and its gates move that clock to the time of the plant before each call: the crate runs
//! as it is, in virtual time.
//!
//! Its Gradient is left out: version 0.1.0 subtracts an average from a sample as durations, and panics when a request is faster
//! than the average.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use congestion_limiter::aggregation::Percentile;
use congestion_limiter::limiter::{self, DefaultLimiter, Limiter, Token};
use congestion_limiter::limits::{Aimd, LimitAlgorithm, Vegas, Windowed};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use trimtab_law::{Outputs, Tick};

use super::number;
use crate::law::{Gate, Law, Outcome};

/// Which algorithm.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    /// Loss-based.
    Aimd,
    /// Queue estimated from the lowest response time.
    Vegas,
}

/// A law whose gates have a limiter each.
pub struct Congestion {
    name: Name,
    params: Value,
    clock: Rc<Clock>,
}

/// A tokio runtime at a time that the plant says.
struct Clock {
    runtime: Runtime,
    now: Cell<Duration>,
}

impl Clock {
    fn move_to(&self, now: f64) {
        let to = Duration::from_secs_f64(now);
        if let Some(step) = to.checked_sub(self.now.get())
            && !step.is_zero()
        {
            // It moves the clock when it is first polled; then it would only let other tasks run.
            let _ = self.poll(tokio::time::advance(step));
            self.now.set(to);
        }
    }

    /// Polls a future once, which is all that it takes where nothing waits, in less time than `block_on`.
    fn poll<F: Future>(&self, future: F) -> Option<F::Output> {
        let _guard = self.runtime.enter();
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }
}

impl Congestion {
    /// With parameters of the grid; `None` if there is no runtime.
    pub fn new(name: Name, params: &Value) -> Option<Self> {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .ok()?;
        Some(Self {
            name,
            params: params.clone(),
            clock: Rc::new(Clock {
                runtime,
                now: Cell::new(Duration::ZERO),
            }),
        })
    }

    fn limited<A>(&self, algorithm: A) -> Box<dyn Gate>
    where
        A: LimitAlgorithm + Send + Sync + std::fmt::Debug + 'static,
    {
        let percentile = number(&self.params, "percentile", 0.0);
        if percentile > 0.0 {
            let _guard = self.clock.runtime.enter();
            return self.gated(Windowed::new(algorithm, Percentile::new(percentile)));
        }
        self.gated(algorithm)
    }

    fn gated<A>(&self, algorithm: A) -> Box<dyn Gate>
    where
        A: LimitAlgorithm + Sync + std::fmt::Debug + 'static,
    {
        Box::new(Limited {
            limiter: DefaultLimiter::new(algorithm),
            clock: Rc::clone(&self.clock),
            tokens: BTreeMap::new(),
            slow_s: number(&self.params, "timeout_s", 1.0),
        })
    }
}

impl Law for Congestion {
    fn tick(&mut self, _: &Tick) -> Outputs {
        Outputs::default()
    }

    fn gate(&self, _: &str) -> Option<Box<dyn Gate>> {
        Some(match self.name {
            Name::Aimd => {
                let by = number(&self.params, "backoff", 0.9);
                self.limited(Aimd::new_with_initial_limit(20).decrease_factor(by))
            }
            Name::Vegas => self.limited(Vegas::new_with_initial_limit(20)),
        })
    }
}

struct Limited<L> {
    limiter: L,
    clock: Rc<Clock>,
    /// Tokens by the time they were given at, in microseconds.
    tokens: BTreeMap<u64, Vec<Token>>,
    /// Slower answers are overload, as the crate asks its user to say.
    slow_s: f64,
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time of a simulation"
)]
fn micros(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e6).round() as u64
}

impl<L: Limiter> Gate for Limited<L> {
    fn admit(&mut self, now: f64, _: usize, _: usize) -> bool {
        self.clock.move_to(now);
        let token = self.clock.poll(self.limiter.try_acquire()).flatten();
        let some = token.is_some();
        if let Some(token) = token {
            self.tokens.entry(micros(now)).or_default().push(token);
        }
        some
    }

    fn done(&mut self, now: f64, time_s: f64, _: f64, outcome: Outcome) {
        self.clock.move_to(now);
        // Rounding may move the start by a microsecond.
        let start = micros(now - time_s).saturating_sub(1);
        let Some(mut entry) = self
            .tokens
            .range(start..)
            .next()
            .map(|(at, _)| *at)
            .and_then(|at| match self.tokens.entry(at) {
                std::collections::btree_map::Entry::Occupied(entry) => Some(entry),
                std::collections::btree_map::Entry::Vacant(_) => None,
            })
        else {
            return;
        };
        let token = entry.get_mut().pop();
        if entry.get().is_empty() {
            entry.remove();
        }
        let result = if outcome == Outcome::Answered && time_s <= self.slow_s {
            limiter::Outcome::Success
        } else {
            limiter::Outcome::Overload
        };
        if let Some(token) = token {
            self.clock.runtime.block_on(async {
                self.limiter.release(token, Some(result)).await;
                // A lower limit is taken from the free permits by a task of the crate.
                tokio::task::yield_now().await;
            });
        }
    }
}
