//! Kubernetes Events on objects of users: what is refused of those whose status is not ours to write, and steps that an
//! object of ours has taken.
//!
//! What is refused is published when it begins to hold, and again twice an hour while it holds, as the API server forgets
//! Events after an hour. A step is published once. What is told of one object has a bound (`allowance`).

mod allowance;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{self, EventType, Recorder, Reporter};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::context::Context;
use crate::lease::WriteAdmission;
use allowance::Allowance;

/// While an Event holds it is published this often.
const REPEAT: Duration = Duration::from_secs(1800);
/// Between two Events: a mistake in many objects is no flood.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest note that the API server takes, in bytes.
const LONGEST: usize = 1024;
/// What Trimtab does with the object.
const ACTION: &str = "Translate";
/// Steps that wait to be published, at most; the oldest goes for a new one.
const MOST_STEPS: usize = 1000;

/// What is told of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// `apiVersion` of the object.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its `metadata.uid`, by which `kubectl describe` finds the Event; empty: not known.
    pub uid: String,
    /// Path of the field.
    pub field: String,
    /// PascalCase, bounded.
    pub reason: &'static str,
    /// What is wrong and what to change.
    pub note: String,
}

/// What is told of objects now, by who tells it.
#[derive(Debug, Default)]
pub struct Events {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    by_owner: BTreeMap<String, BTreeSet<Event>>,
    /// With the number of owners.
    held: BTreeMap<Event, usize>,
    /// To be published.
    due: BTreeSet<Event>,
    /// To be published once.
    steps: VecDeque<Step>,
}

/// Something that an object has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is told.
    pub event: Event,
    /// Whether somebody should look.
    pub warning: bool,
}

impl Events {
    /// Replaces what `owner` tells. What another tells already is not published anew.
    pub fn set(&self, owner: &str, events: BTreeSet<Event>) {
        let mut state = self.state.lock();
        let old = state.by_owner.remove(owner).unwrap_or_default();
        for event in events.difference(&old) {
            let owners = state.held.entry(event.clone()).or_default();
            *owners += 1;
            if *owners == 1 {
                state.due.insert(event.clone());
            }
        }
        for event in old.difference(&events) {
            let owners = state.held.get_mut(event);
            let last = owners.is_none_or(|owners| {
                *owners -= 1;
                *owners == 0
            });
            if last {
                state.held.remove(event);
                state.due.remove(event);
            }
        }
        if !events.is_empty() {
            state.by_owner.insert(owner.to_owned(), events);
        }
        let due = !state.due.is_empty();
        drop(state);
        if due {
            self.wake.notify_one();
        }
    }

    /// Tells a step, once.
    pub fn tell(&self, step: Step) {
        let mut state = self.state.lock();
        if state.steps.len() >= MOST_STEPS {
            state.steps.pop_front();
        }
        state.steps.push_back(step);
        drop(state);
        self.wake.notify_one();
    }

    fn next(&self) -> Option<Step> {
        let mut state = self.state.lock();
        let refused = |event| Step {
            event,
            warning: true,
        };
        let step = state.steps.pop_front();
        step.or_else(|| state.due.pop_first().map(refused))
    }

    fn repeat(&self) {
        let mut state = self.state.lock();
        state.due = state.held.keys().cloned().collect();
    }

    /// Publishes what is due, until shutdown.
    pub(crate) async fn publish(self: Arc<Self>, context: Context, module: &'static str) {
        let (admission, shutdown) = (context.admission, context.shutdown);
        let mut publisher = Publisher::new(context.client, module, context.clock);
        let mut repeat = tokio::time::interval(REPEAT);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.wake.notified() => {}
                _ = repeat.tick() => self.repeat(),
            }
            loop {
                // What is due waits for the leader's turn; of what another replica told meanwhile, the API server keeps one.
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = admission.led() => {}
                }
                let Some(step) = self.next() else { break };
                if !publisher.may_tell(&step) {
                    continue;
                }
                if let Some(step) = publisher.publish(step, &admission).await {
                    self.again(step);
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// It was not published, and is the next.
    fn again(&self, step: Step) {
        self.state.lock().steps.push_front(step);
    }
}

struct Publisher {
    client: Client,
    reporter: Reporter,
    recorder: Recorder,
    /// The last note of each object, field and reason.
    notes: BTreeMap<Event, String>,
    failed: bool,
    clock: Arc<dyn Clock>,
    allowance: Allowance,
}

impl Publisher {
    fn new(client: Client, module: &str, clock: Arc<dyn Clock>) -> Self {
        let reporter = Reporter {
            controller: format!("trimtab/{module}"),
            instance: None,
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter.clone()),
            client,
            reporter,
            notes: BTreeMap::new(),
            failed: false,
            clock,
            allowance: Allowance::default(),
        }
    }

    /// Whether there is room for one more about the object.
    fn may_tell(&mut self, step: &Step) -> bool {
        let Event {
            kind,
            namespace,
            name,
            ..
        } = &step.event;
        let object = format!("{kind} {namespace}/{name}");
        self.allowance.take(&object, self.clock.monotonic())
    }

    /// Publishes a step. Gives it back when this replica may not.
    async fn publish(&mut self, step: Step, admission: &WriteAdmission) -> Option<Step> {
        let Ok(permit) = admission.admit() else {
            return Some(step);
        };
        let Step { event, warning } = step;
        let reference = reference(&event);
        let published = events::Event {
            type_: if warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: event.reason.to_owned(),
            note: Some(short(&event.note).to_owned()),
            action: ACTION.to_owned(),
            secondary: None,
        };
        let (key, note) = split(event);
        // The recorder counts what it takes for the same Event, which is all but the note: another note is another Event.
        let old = self.notes.insert(key, note.clone());
        if old.is_some_and(|old| old != note) {
            self.recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        }
        let write = self.recorder.publish(&published, &reference);
        let error = match tokio::time::timeout(permit.limit(), write).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the API server does not answer".to_owned()),
        };
        if let Some(error) = &error
            && !self.failed
        {
            let (kind, namespace, name) = (&reference.kind, &reference.namespace, &reference.name);
            tracing::warn!(?kind, ?namespace, ?name, %error, "an Event cannot be written");
        }
        self.failed = error.is_some();
        None
    }
}

fn split(mut event: Event) -> (Event, String) {
    let note = std::mem::take(&mut event.note);
    (event, note)
}

fn reference(event: &Event) -> ObjectReference {
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    ObjectReference {
        api_version: some(&event.api_version),
        kind: some(&event.kind),
        namespace: some(&event.namespace),
        name: some(&event.name),
        uid: some(&event.uid),
        field_path: some(&event.field),
        resource_version: None,
    }
}

fn short(note: &str) -> &str {
    let mut end = note.len().min(LONGEST);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    &note[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(note: &str) -> Event {
        Event {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            namespace: "shop".to_owned(),
            name: "a".to_owned(),
            uid: String::new(),
            field: "spec.ports".to_owned(),
            reason: "Bad",
            note: note.to_owned(),
        }
    }

    #[test]
    fn an_event_is_due_when_it_begins_and_while_it_holds() {
        let events = Events::default();
        let due = || {
            let all = std::iter::from_fn(|| events.next());
            all.map(|step| step.event).collect::<Vec<_>>()
        };
        let set = |owner: &str, notes: &[&str]| {
            events.set(owner, notes.iter().map(|note| event(note)).collect());
        };
        set("a", &["x", "y"]);
        assert_eq!(due(), [event("x"), event("y")]);
        set("a", &["x"]);
        set("b", &["x"]);
        assert_eq!(due(), [], "it is told already");
        set("a", &[]);
        events.repeat();
        assert_eq!(due(), [event("x")], "b still tells it");
        set("b", &["z"]);
        set("b", &[]);
        assert_eq!(due(), [], "it does not hold any more");
        set("b", &["x"]);
        assert_eq!(due(), [event("x")], "it holds again");
    }

    #[test]
    fn a_step_is_told_once_and_there_is_room_for_the_newest() {
        let events = Events::default();
        for n in 0..=MOST_STEPS {
            let event = event(&n.to_string());
            events.tell(Step {
                event,
                warning: false,
            });
        }
        events.repeat();
        let told: Vec<Step> = std::iter::from_fn(|| events.next()).collect();
        assert_eq!(told.len(), MOST_STEPS);
        assert_eq!(told[0].event, event("1"));
        assert!(told.iter().all(|step| !step.warning));
    }

    #[test]
    fn a_note_is_cut_where_a_character_ends() {
        assert_eq!(short("short"), "short");
        let long = format!("{}é", "a".repeat(LONGEST - 1));
        assert_eq!(short(&long), "a".repeat(LONGEST - 1));
    }
}
