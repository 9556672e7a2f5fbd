//! Random histories: whatever happened, in the end the client holds what the table holds for it, and it never saw
//! anything else.

mod content;
mod known;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::rpc;
use proptest::prelude::*;

use super::message::{Item, Push};
use super::order::Order;
use super::state::{Action, Mode, NameCount, Session};
use content::{Content, content, mine, scoped};

use crate::rejections::Rejection;
use crate::scope::View;
use crate::table::Table;
use crate::types::CDS;

const NAMES: u8 = 5;
/// The cluster that some contents name.
const CLUSTER: &str = "later";

#[derive(Debug, Clone)]
enum Step {
    Subscribe(u8),
    Unsubscribe(u8),
    Star(bool),
    Update(u8, Content),
    Remove(u8),
    /// The transport takes a message, if there is one.
    Write,
    /// The client answers the oldest message.
    Answer,
    /// The client repeats an old nonce.
    Stale,
    Reconnect,
    /// Time passes: what was refused is tried again, and changes wait no longer for an answer.
    Wait,
    /// What the type depends on is sent.
    Parent(u8),
    /// A cluster that contents name is not taken yet, or is.
    Pending(bool),
}

/// How the client behaves where the protocol leaves it a choice.
#[derive(Debug, Clone, Copy)]
struct Behavior {
    mode: Mode,
    /// Of a refused message it applies what is good, as Envoy does with listeners and clusters.
    partial: bool,
    /// Its refusal names what is bad.
    hints: bool,
    /// Most resources in a message: few, so that first answers have several parts.
    most: usize,
    /// Changes do not wait for an answer for ever.
    patience: bool,
}

fn behavior() -> impl Strategy<Value = Behavior> {
    let modes = prop_oneof![Just(Mode::Sotw), Just(Mode::FullSotw), Just(Mode::Delta)];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (modes, flags, 1..4_usize).prop_map(|(mode, (partial, hints, patience), most)| Behavior {
        mode,
        partial,
        hints,
        most,
        patience,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..NAMES).prop_map(Step::Subscribe),
        2 => (0..NAMES).prop_map(Step::Unsubscribe),
        1 => any::<bool>().prop_map(Step::Star),
        5 => (0..NAMES, content()).prop_map(|(name, content)| Step::Update(name, content)),
        2 => (0..NAMES).prop_map(Step::Remove),
        5 => Just(Step::Write),
        5 => Just(Step::Answer),
        1 => Just(Step::Stale),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Wait),
        1 => (0..NAMES).prop_map(Step::Parent),
        2 => any::<bool>().prop_map(Step::Pending),
    ]
}

fn name(index: u8) -> String {
    format!("r{index}")
}

/// Version 0 of every name is what clients refuse.
fn is_bad(version: &str) -> bool {
    version == "v0"
}

fn session(stream: u64, behavior: Behavior, view: Arc<View>, now: Instant) -> Session {
    let mut session = Session::new("node".into(), stream, behavior.mode, view, now);
    session.max_resources = behavior.most;
    session.patience = behavior.patience.then_some(Duration::from_secs(1));
    session
}

/// A client that follows the protocol and refuses a whole message if any of it is bad.
struct Simulation {
    behavior: Behavior,
    view: Arc<View>,
    version: String,
    table: Table,
    session: Session,
    now: Instant,
    streams: u64,
    wanted: BTreeSet<String>,
    star: bool,
    started: bool,
    held: BTreeMap<String, String>,
    inbox: VecDeque<Arc<Push>>,
    order: Order,
    nonce: String,
    reports: BTreeMap<(String, u64), u32>,
    /// Content of a name by number of changes, to tell a new content from a repetition.
    changes: BTreeMap<String, u64>,
}

impl Simulation {
    fn new(behavior: Behavior) -> Self {
        let now = Instant::now();
        let view = Arc::new(View([mine()].into()));
        Self {
            behavior,
            view: Arc::clone(&view),
            version: String::new(),
            // Tiny, so that compaction happens in most histories.
            table: Table::with_log_capacity(3),
            session: session(0, behavior, view, now),
            now,
            streams: 0,
            wanted: BTreeSet::new(),
            star: false,
            started: false,
            held: BTreeMap::new(),
            inbox: VecDeque::new(),
            order: Order::default(),
            nonce: String::new(),
            reports: BTreeMap::new(),
            changes: BTreeMap::new(),
        }
    }

    fn delta(&self) -> bool {
        self.behavior.mode == Mode::Delta
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Rejected {
                    name, rejection, ..
                } => self.reject(&name, rejection),
                Action::ClearRejection(name) => self.table.clear_rejection(&name, "node"),
                _ => {}
            }
        }
    }

    fn reject(&mut self, name: &Arc<str>, rejection: Rejection) {
        if self.table.reject(name, "node", rejection) {
            let change = self.changes.get(&**name).copied().unwrap_or_default();
            *self.reports.entry((name.to_string(), change)).or_default() += 1;
        }
    }

    fn names(&self) -> Vec<String> {
        let star = self.star.then(|| "*".to_owned());
        self.wanted.iter().cloned().chain(star).collect()
    }

    fn send(
        &mut self,
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
        nonce: &str,
        refusal: Option<String>,
    ) {
        let error_detail = refusal.map(|message| rpc::Status {
            message,
            ..rpc::Status::default()
        });
        let first = !std::mem::replace(&mut self.started, true);
        let actions = if self.delta() {
            let initial = if first {
                self.held.clone().into_iter().collect()
            } else {
                HashMap::new()
            };
            let request = DeltaDiscoveryRequest {
                resource_names_subscribe: if first { self.names() } else { subscribe },
                resource_names_unsubscribe: if first { vec![] } else { unsubscribe },
                initial_resource_versions: initial,
                response_nonce: nonce.into(),
                error_detail,
                ..DeltaDiscoveryRequest::default()
            };
            self.session.on_delta(request, self.now)
        } else {
            let request = DiscoveryRequest {
                resource_names: self.names(),
                response_nonce: nonce.into(),
                version_info: self.version.clone(),
                error_detail,
                ..DiscoveryRequest::default()
            };
            self.session.on_sotw(request, self.now)
        };
        self.perform(actions);
    }

    fn covers(&self, name: &str) -> bool {
        self.star || self.wanted.contains(name)
    }

    /// Says what changed in the interest, if the stream has begun.
    fn say(&mut self, subscribe: Vec<String>, unsubscribe: Vec<String>) {
        // A first request without names would mean everything.
        if !self.started && self.names().is_empty() {
            return;
        }
        let nonce = if self.delta() {
            String::new()
        } else {
            self.nonce.clone()
        };
        self.send(subscribe, unsubscribe, &nonce, None);
    }

    fn answer(&mut self) {
        let Some(push) = self.inbox.pop_front() else {
            return;
        };
        let bad: Vec<&str> = push
            .items
            .iter()
            .filter(|item| is_bad(item.entry.version()))
            .map(Item::name)
            .collect();
        self.nonce.clone_from(&push.nonce);
        let full = self.behavior.mode == Mode::FullSotw;
        if bad.is_empty() || self.behavior.partial {
            for item in &push.items {
                if self.covers(item.name()) && !is_bad(item.entry.version()) {
                    self.held
                        .insert(item.name().to_owned(), item.entry.version().to_owned());
                }
            }
            for name in &push.removed {
                self.held.remove(&**name);
            }
            if full {
                let listed: BTreeSet<&str> = push.items.iter().map(Item::name).collect();
                self.held.retain(|name, _| listed.contains(name.as_str()));
            }
        }
        if bad.is_empty() {
            self.version.clone_from(&push.version);
        }
        let hint = if self.behavior.hints {
            bad.join(": no, ")
        } else {
            "bad".to_owned()
        };
        let refusal = (!bad.is_empty()).then_some(hint);
        self.send(vec![], vec![], &push.nonce, refusal);
    }

    fn write(&mut self) -> bool {
        self.order.expire(self.now);
        let order = Some(&self.order).filter(|order| !order.is_empty());
        let Some(push) = self.session.next_push(&self.table, self.now, order) else {
            return false;
        };
        assert!(
            self.inbox.is_empty() || self.behavior.patience,
            "a second message before the answer to the first"
        );
        for item in push.items.iter().filter(|item| item.is_change()) {
            assert!(
                self.order.is_empty() || item.entry.body().is_empty(),
                "{} refers to a cluster that is not there",
                item.name()
            );
        }
        for item in &push.items {
            assert!(
                self.view.admits(&item.entry.scope),
                "{} is not for this client",
                item.name()
            );
        }
        let names: BTreeSet<_> = push.items.iter().map(Item::name).collect();
        assert_eq!(names.len(), push.items.len(), "a name twice in one message");
        self.inbox.push_back(push);
        true
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Subscribe(index) => {
                if self.wanted.insert(name(*index)) {
                    self.say(vec![name(*index)], vec![]);
                }
            }
            Step::Unsubscribe(index) => {
                if self.wanted.remove(&name(*index)) {
                    // A request does not show that a name which the wildcard covers was unsubscribed, so such a client keeps it.
                    if self.delta() || !self.star {
                        self.held.remove(&name(*index));
                    }
                    self.say(vec![], vec![name(*index)]);
                }
            }
            Step::Star(on) => {
                if self.star != *on {
                    self.star = *on;
                    let wanted = &self.wanted;
                    self.held.retain(|name, _| *on || wanted.contains(name));
                    let star = vec!["*".to_owned()];
                    let (more, less) = if *on { (star, vec![]) } else { (vec![], star) };
                    self.say(more, less);
                }
            }
            Step::Update(index, content) => {
                let set = scoped(&name(*index), content);
                if !self.table.apply(set, &[], self.now).is_empty() {
                    *self.changes.entry(name(*index)).or_default() += 1;
                }
            }
            Step::Remove(index) => {
                if !self
                    .table
                    .apply(vec![], &[name(*index)], self.now)
                    .is_empty()
                {
                    *self.changes.entry(name(*index)).or_default() += 1;
                }
            }
            Step::Write => {
                self.write();
            }
            Step::Answer => self.answer(),
            Step::Stale => {
                if self.started {
                    self.send(vec![], vec![], "stale", Some("bad".to_owned()));
                }
            }
            Step::Reconnect => self.reconnect(),
            Step::Wait => self.now += Duration::from_secs(40),
            Step::Parent(index) => {
                let name = name(*index);
                self.session.send_again(&name, &self.table, self.now);
            }
            Step::Pending(false) => self.order.on_answered(CDS, true),
            Step::Pending(true) => self.order.on_queued([CLUSTER].into_iter(), self.now),
        }
    }

    fn reconnect(&mut self) {
        self.streams += 1;
        self.session = session(
            self.streams,
            self.behavior,
            Arc::clone(&self.view),
            self.now,
        );
        self.inbox.clear();
        self.started = false;
        self.nonce.clear();
        if !self.names().is_empty() {
            self.send(vec![], vec![], "from-before", None);
        }
    }

    /// Exchanges messages until there is nothing to send; more rounds than this would be a loop.
    fn run_until_idle(&mut self) {
        self.order.on_answered(CDS, true);
        // A state-of-the-world request that crossed a response was stale; the client repeats its names with each ACK.
        for _ in 0..200 {
            self.answer();
            if !self.write() && self.inbox.is_empty() {
                return;
            }
        }
        panic!("the server never becomes idle");
    }

    fn check(&self) {
        for name in self.table.names() {
            let Some(entry) = self.table.get(name, &self.view) else {
                continue;
            };
            let held = self.held.get(name).map(String::as_str);
            if !self.covers(name) {
                continue;
            }
            if is_bad(entry.version()) {
                assert_ne!(held, Some("v0"), "{name}: a refused content is held");
            } else {
                assert_eq!(held, Some(entry.version()), "{name}");
            }
        }
        // That mode has no removals.
        if self.behavior.mode != Mode::Sotw {
            for name in self.held.keys() {
                assert!(
                    self.table.get(name, &self.view).is_some(),
                    "{name} is gone for the client, but it still holds it"
                );
            }
        }
        if self.delta() && self.star {
            for (name, state) in &self.session.resources {
                assert!(!state.is_plain(), "{name} takes memory for nothing");
            }
        }
        let mut names = NameCount::default();
        self.session.subscribed().for_each(|name| names.add(name));
        assert_eq!(self.session.names(), names);
        for (what, times) in &self.reports {
            assert_eq!(*times, 1, "{what:?} was reported {times} times");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_with_the_client_in_step(behavior in behavior(), steps in prop::collection::vec(step(), 1..80)) {
        let mut simulation = Simulation::new(behavior);
        for step in &steps {
            simulation.step(step);
        }
        simulation.run_until_idle();
        simulation.check();
    }
}
