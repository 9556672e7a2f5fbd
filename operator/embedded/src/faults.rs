//! Faults on demand: delays, failures, lost answers, dropped watches, expired histories.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Which requests a fault is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    verb: Option<String>,
    plural: Option<String>,
}

impl Filter {
    /// Every request.
    pub fn any() -> Self {
        Self::default()
    }

    /// Only this verb: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    #[must_use]
    pub fn verb(mut self, verb: &str) -> Self {
        self.verb = Some(verb.to_owned());
        self
    }

    /// Only this resource, by plural name.
    #[must_use]
    pub fn resource(mut self, plural: &str) -> Self {
        self.plural = Some(plural.to_owned());
        self
    }

    fn matches(&self, verb: &str, plural: &str) -> bool {
        self.verb.as_deref().is_none_or(|v| v == verb)
            && self.plural.as_deref().is_none_or(|p| p == plural)
    }
}

/// What stops a running watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// The connection ends without a word.
    Drop,
    /// The watch gets an `ERROR` event with code 410.
    Expire,
}

#[derive(Debug, Default)]
struct Plan {
    delays: Vec<(Filter, Duration)>,
    failures: Vec<(Filter, usize, u16)>,
    losses: Vec<(Filter, usize)>,
    denials: Vec<(Filter, String, String)>,
}

/// Faults to inject. All methods act on requests that arrive later, except those on running watches.
#[derive(Debug)]
pub struct Faults {
    plan: Mutex<Plan>,
    interruptions: watch::Sender<Vec<(Filter, Interruption)>>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            plan: Mutex::default(),
            interruptions: watch::Sender::new(Vec::new()),
        }
    }
}

impl Faults {
    /// Delays matching requests until [`Faults::clear`].
    pub fn delay(&self, filter: Filter, by: Duration) {
        self.plan.lock().delays.push((filter, by));
    }

    /// Answers the next `count` matching requests with the HTTP status `code`, without doing them.
    pub fn fail_next(&self, filter: Filter, count: usize, code: u16) {
        self.plan.lock().failures.push((filter, count, code));
    }

    /// Denies matching requests whose body contains `text` until [`Faults::clear`], as a validating webhook does: with 400 and
    /// `message`.
    pub fn deny(&self, filter: Filter, text: &str, message: &str) {
        let denial = (filter, text.to_owned(), message.to_owned());
        self.plan.lock().denials.push(denial);
    }

    /// Does the next `count` matching requests, but answers 504 as if the answer was lost.
    pub fn lose_next(&self, filter: Filter, count: usize) {
        self.plan.lock().losses.push((filter, count));
    }

    /// Ends running watches of matching resources; the verb of the filter is not looked at.
    pub fn drop_watches(&self, filter: Filter) {
        self.interrupt(filter, Interruption::Drop);
    }

    /// Removes all delays, failures, denials and losses that are still planned.
    pub fn clear(&self) {
        *self.plan.lock() = Plan::default();
    }

    pub(crate) fn interrupt(&self, filter: Filter, how: Interruption) {
        self.interruptions.send_modify(|all| {
            all.push((
                Filter {
                    verb: None,
                    ..filter
                },
                how,
            ));
        });
    }

    pub(crate) fn delay_for(&self, verb: &str, plural: &str) -> Option<Duration> {
        let plan = self.plan.lock();
        let total: Duration = plan
            .delays
            .iter()
            .filter(|(f, _)| f.matches(verb, plural))
            .map(|(_, by)| *by)
            .sum();
        (!total.is_zero()).then_some(total)
    }

    pub(crate) fn take_failure(&self, verb: &str, plural: &str) -> Option<u16> {
        let mut plan = self.plan.lock();
        let (_, left, code) = plan
            .failures
            .iter_mut()
            .find(|(f, left, _)| *left > 0 && f.matches(verb, plural))?;
        *left -= 1;
        Some(*code)
    }

    pub(crate) fn denial(&self, verb: &str, plural: &str, body: &[u8]) -> Option<String> {
        let plan = self.plan.lock();
        let has = |text: &str| body.windows(text.len()).any(|part| part == text.as_bytes());
        let mut denials = plan.denials.iter();
        let (_, _, message) = denials.find(|(f, text, _)| f.matches(verb, plural) && has(text))?;
        Some(message.clone())
    }

    pub(crate) fn take_loss(&self, verb: &str, plural: &str) -> bool {
        let mut plan = self.plan.lock();
        match plan
            .losses
            .iter_mut()
            .find(|(f, left)| *left > 0 && f.matches(verb, plural))
        {
            Some((_, left)) => {
                *left -= 1;
                true
            }
            None => false,
        }
    }

    pub(crate) fn watch_interruptions(&self) -> Interruptions {
        let receiver = self.interruptions.subscribe();
        let seen = receiver.borrow().len();
        Interruptions { receiver, seen }
    }
}

/// The interruptions that one watch has not yet looked at.
#[derive(Debug)]
pub(crate) struct Interruptions {
    receiver: watch::Receiver<Vec<(Filter, Interruption)>>,
    seen: usize,
}

impl Interruptions {
    /// Waits for an interruption of watches of `plural`.
    pub(crate) async fn next(&mut self, plural: &str) -> Interruption {
        loop {
            let found = {
                let all = self.receiver.borrow_and_update();
                let found = all
                    .iter()
                    .skip(self.seen)
                    .find(|(f, _)| f.matches("watch", plural))
                    .map(|(_, how)| *how);
                self.seen = all.len();
                found
            };
            if let Some(how) = found {
                return how;
            }
            if self.receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
