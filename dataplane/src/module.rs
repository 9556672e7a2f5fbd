//! Follows all that plain Envoys are configured by, and serves them.
//!
//! There is no cluster here, so that objects are few: everything is read anew after each change. What proxies refuse is
//! searched for, see `isolate.rs`.

mod statuses;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use parking_lot::Mutex;
use trimtab_crds::istio::{DestinationRule, ServiceEntry, VirtualService};
use trimtab_kit::answers::{Answers, Changed, Programmed, Seen, Words};
use trimtab_kit::clock::Clock;
use trimtab_kit::engine::{Engine, WriteError};
use trimtab_kit::module::{Finding, Setup};
use trimtab_kit::problem::Problem;
use trimtab_kit::queue::WorkQueue;
use trimtab_kit::write::{StatusPatch, Writes};
use trimtab_mesh::Name;
use trimtab_metaprotocol::config::MetaprotocolConfig;
use trimtab_metaprotocol::input::Settings;
use trimtab_xds::{ResourceCache, Unresolved};

use crate::discover::LastGood;
use crate::isolate::{Contributors, Isolation};
use crate::objects::{Chosen, Objects, Wake};
use crate::sidecar::NOT_FOLLOWED;
use crate::{
    FallbackInput, Listen, Opened, PodInput, Snapshot, StandaloneInput, StandaloneObjects,
    discover, listeners, snapshot,
};
use statuses::Subject;
use verdicts::Verdicts;

/// Events of one edit are gathered for this long.
const GATHERING: Duration = Duration::from_millis(50);
/// Attempts of a search that are answered by what proxies have said already: a bound for bugs.
const MOST_STEPS: usize = 512;

/// What proxies are told of themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Where plain Envoys listen.
    pub listen: Listen,
    /// The fallback proxies; absent: there are none, and nobody's view is limited.
    pub fallback: Option<FallbackInput>,
}

/// The data plane of plain Envoys.
struct DataPlane {
    proxies: Proxies,
    domain: String,
    settings: Arc<Settings>,
    xds: ResourceCache,
    answers: Arc<Answers>,
    clock: Arc<dyn Clock>,
    wake: Arc<Wake>,
    state: Mutex<State>,
    queue: WorkQueue<Subject>,
}

struct State {
    objects: Objects,
    /// All objects with the numbers of their last changes.
    revisions: Contributors,
    /// What is served of them.
    chosen: Option<Chosen>,
    served: Served,
    last_good: LastGood,
    /// Objects with a mistake of which no good version is known, since the first pass: what an earlier process made of
    /// them is not known. Absent before that pass.
    unresolved: Option<BTreeSet<String>>,
    /// The same of objects that cannot be decoded.
    undecodable: Option<BTreeSet<Name>>,
    isolation: Isolation,
    /// Answers of proxies that were looked at.
    seen: Seen,
    /// Conditions that were written, by object.
    conditions: BTreeMap<Subject, Vec<Condition>>,
}

/// What was served last.
#[derive(Default)]
struct Served {
    snapshot: Option<Snapshot>,
    /// Pods whose proxies see a part.
    pods: Vec<PodInput>,
    /// Warnings that were logged.
    notes: BTreeSet<String>,
}

/// Declares the data plane: nothing is served before its first configuration is in the xDS cache.
///
/// `withhold_secrets`: whoever reaches the xDS server may ask it, so that nothing with a password is served.
pub fn setup(
    config: &MetaprotocolConfig,
    proxies: Proxies,
    withhold_secrets: bool,
    setup: &mut Setup<'_>,
) {
    let wake = Arc::new(Wake::default());
    let context = setup.context().clone();
    let objects = Objects::declare(setup, config.read_secrets, &wake);
    let plane = Arc::new(DataPlane {
        proxies,
        domain: context.mesh.domain().to_string(),
        settings: Arc::new(Settings {
            withhold_secrets,
            ..config.settings(&context.xds_endpoint)
        }),
        xds: context.xds,
        answers: context.answers,
        clock: context.clock,
        wake,
        state: Mutex::new(State {
            objects,
            revisions: Contributors::new(),
            chosen: None,
            served: Served::default(),
            last_good: LastGood::new(),
            unresolved: None,
            undecodable: None,
            isolation: Isolation::default(),
            seen: Seen::default(),
            conditions: BTreeMap::new(),
        }),
        queue: WorkQueue::default(),
    });
    setup.writes_status::<k8s_openapi::api::core::v1::Service>();
    setup.writes_status::<ServiceEntry>();
    setup.writes_status::<VirtualService>();
    setup.writes_status::<DestinationRule>();
    let noted = plane.clone();
    setup.findings(move || noted.findings());
    setup.engine(&plane);
}

impl Engine for DataPlane {
    type Key = Subject;

    fn queue(&self) -> &WorkQueue<Subject> {
        &self.queue
    }

    async fn changed(&self) {
        let (due, seen, any) = {
            let state = self.state.lock();
            let lingering = state.served.snapshot.as_ref().and_then(Snapshot::due);
            let pause = state.isolation.due();
            let due = lingering.into_iter().chain(pause).min();
            (due, state.seen, state.isolation.is_waiting())
        };
        tokio::select! {
            () = self.wake.woken() => {}
            () = self.answers.newer(seen, any) => {}
            () = until(due) => {}
        }
    }

    fn gather(&self) -> Duration {
        GATHERING
    }

    fn absorb(&self) {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.seen = self.answers.seen();
        let lingering = state.served.snapshot.as_ref().and_then(Snapshot::due);
        let due = lingering.is_some_and(|at| at <= now);
        let mut changed = self.wake.take() || due || state.served.snapshot.is_none();
        if changed {
            state.refresh(&self.answers);
        }
        for _ in 0..MOST_STEPS {
            if changed {
                self.serve(&mut state, now);
            }
            changed = state.step(&self.answers, now);
            if !changed {
                break;
            }
        }
        self.answers.program(state.programmed());
    }

    fn writes(self: &Arc<Self>, _: &Subject) -> Writes {
        Writes::none()
    }

    fn written(&self, _: &Subject, _: Option<WriteError>) {}

    fn status(&self, key: &Subject) -> Option<StatusPatch> {
        let blame = self.answers.blame(&key.to_string());
        let mut state = self.state.lock();
        let before = state.conditions.get(key).map(Vec::as_slice);
        let conditions = statuses::conditions(blame.as_ref(), before, self.clock.now())?;
        let patch = key.status(&conditions);
        state.conditions.insert(key.clone(), conditions);
        Some(patch)
    }

    fn answers_changed(&self, changed: &Changed) {
        let subjects = changed.objects.iter().filter_map(|o| Subject::of(o));
        for subject in subjects {
            self.queue.push(subject);
        }
    }
}

impl DataPlane {
    /// Serves all objects but those that are held back.
    fn serve(&self, state: &mut State, now: Instant) {
        let isolation = &state.isolation;
        let revisions = &state.revisions;
        let is_held = |title: &str| {
            revisions
                .get(title)
                .is_some_and(|r| isolation.holds(title, *r))
        };
        let mut chosen = state.objects.choose(&self.settings, &self.domain, &is_held);
        let around = StandaloneObjects {
            domain: self.domain.clone(),
            listen: self.proxies.listen.clone(),
            fallback: self.proxies.fallback.clone(),
            pod_labels: state.objects.pod_labels(),
            pod_addresses: state.objects.pod_addresses(),
            sidecars: state.objects.sidecars(),
            virtual_services: chosen.virtual_services.clone(),
            last_good: std::mem::take(&mut state.last_good),
            limits: chosen.limits.clone(),
        };
        let found = discover(&chosen.mesh, &around);
        let mut notes = std::mem::take(&mut chosen.notes);
        let before = state.served.snapshot.take();
        let snapshot = snapshot(&found.input, before.as_ref(), now);
        self.xds.update_all(snapshot.updates(before.as_ref()));
        let problems: Vec<Problem> = found
            .problems
            .into_iter()
            .chain(snapshot.problems())
            .collect();
        // Without a fallback proxy nobody expects that Sidecars narrow anything.
        let expected = problems.iter().filter(|p| p.reason == NOT_FOLLOWED);
        let expected: BTreeSet<String> = expected.map(ToString::to_string).collect();
        notes.extend(problems.iter().map(ToString::to_string));
        let refusals = snapshot.everyone().refusals.iter();
        notes.extend(refusals.map(|r| r.problem.to_string()));
        state
            .served
            .log(before.as_ref(), &snapshot, &found.input, &notes, &expected);
        chosen.index_input(&found.input);
        let blocked = snapshot.everyone().refusals.iter();
        let blocked = blocked
            .filter(|r| r.blocks_routes)
            .map(|r| r.problem.object.clone());
        let names = state.unresolved(
            found.unresolved.into_iter().chain(blocked),
            &chosen,
            &snapshot,
        );
        self.xds.set_unresolved("dataplane", &names);
        state.chosen = Some(chosen);
        state.last_good = found.last_good;
        state.served = Served {
            snapshot: Some(snapshot),
            pods: found.input.pods,
            notes,
        };
    }

    /// What is wrong with the objects.
    fn findings(&self) -> Vec<Finding> {
        let state = self.state.lock();
        let notes = state.served.notes.iter();
        notes
            .map(|message| Finding {
                refused: true,
                message: message.clone(),
            })
            .collect()
    }
}

impl State {
    /// Names of resources that nobody knows what they should be: those of objects with a mistake.
    fn unresolved(
        &mut self,
        objects: impl Iterator<Item = String>,
        chosen: &Chosen,
        snapshot: &Snapshot,
    ) -> Unresolved {
        let undecodable = self.objects.undecodable();
        let undecodable = match self.undecodable.take() {
            Some(before) => before.intersection(&undecodable).cloned().collect(),
            None => undecodable,
        };
        let everything = !undecodable.is_empty();
        self.undecodable = Some(undecodable);
        let objects: BTreeSet<String> = objects.collect();
        // What got its mistake later, or is new, is known.
        let held = match self.unresolved.take() {
            Some(before) => before.intersection(&objects).cloned().collect(),
            None => objects,
        };
        let hosts = chosen.hosts_of(&held);
        self.unresolved = Some(held);
        let mut names: BTreeSet<String> = BTreeSet::new();
        for opened in &snapshot.everyone().opened {
            if hosts.contains(opened.host.as_str()) {
                names.insert(format!("{}_{}", opened.host, opened.port));
                names.extend(opened.addresses.first().map(listeners::name));
            }
        }
        for ((_, name, _), item) in snapshot.aggregates() {
            if item.hosts.iter().any(|host| hosts.contains(host.as_str())) {
                names.insert(name);
            }
        }
        if everything {
            Unresolved::Everything
        } else if names.is_empty() {
            Unresolved::Nothing
        } else {
            Unresolved::Names(names)
        }
    }

    /// Takes changes of objects over, and what of them proxies have accepted so far.
    fn refresh(&mut self, answers: &Answers) {
        let verdicts = Verdicts::new(self.served.snapshot.as_ref(), self.chosen.as_ref(), answers);
        for (key, contributors) in verdicts.accepted() {
            self.isolation.accept(key, contributors);
        }
        let good = verdicts.good();
        self.revisions = self.objects.refresh(&|title: &str| good.contains(title));
    }

    /// Goes on with the search for what proxies refuse. Returns whether something else is to be served.
    fn step(&mut self, answers: &Answers, now: Instant) -> bool {
        let verdicts = Verdicts::new(self.served.snapshot.as_ref(), self.chosen.as_ref(), answers);
        let aggregates = verdicts.interesting(&self.isolation.interest());
        let alive = |stream: u64| answers.is_open(stream);
        let found = self
            .isolation
            .step(&self.revisions, &aggregates, &alive, now);
        for (object, words, attempts, took) in &found.culprits {
            let (node, message) = (&words.node, &words.message);
            let took_ms = took.as_millis();
            tracing::warn!(%object, %node, %message, attempts, took_ms, "proxies refuse what is made of this object and are served without it");
        }
        found.changed
    }

    /// What objects are made into, and who is to blame.
    fn programmed(&self) -> Programmed {
        let blamed = self.isolation.blamed().into_iter();
        let words = |words: crate::isolate::Words| Words {
            node: words.node,
            message: words.message,
        };
        let snapshot = self.served.snapshot.as_ref();
        Programmed {
            parts: verdicts::parts(snapshot, self.chosen.as_ref()),
            blamed: blamed.map(|(object, w)| (object, words(w))).collect(),
        }
    }
}

impl Served {
    /// Logs what is new in `world`.
    fn log(
        &self,
        before: Option<&Snapshot>,
        snapshot: &Snapshot,
        input: &StandaloneInput,
        notes: &BTreeSet<String>,
        expected: &BTreeSet<String>,
    ) {
        for note in notes.difference(&self.notes) {
            if expected.contains(note) {
                tracing::info!("{note}");
            } else {
                tracing::warn!("{note}");
            }
        }
        let before = before.map_or(&[][..], |w| &w.everyone().opened);
        let opened = snapshot.everyone().opened.iter();
        for Opened {
            host,
            port,
            addresses,
        } in opened.filter(|o| !before.contains(o))
        {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let addresses = addresses.join(", ");
            tracing::info!(%host, port, addresses, "an Envoy that asks is told to listen");
        }
        for pod in input.pods.iter().filter(|p| !self.pods.contains(p)) {
            let (visible, total) = (pod.hosts.len(), input.services.len());
            tracing::info!(namespace = pod.namespace, pod = pod.name, address = %pod.address, visible, total, "serving scoped configuration");
        }
    }
}

/// Waits for a time, or for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
