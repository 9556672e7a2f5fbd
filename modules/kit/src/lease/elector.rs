//! The shell of the election: reads, writes and watches the Lease.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::admission::{Leadership, WriteAdmission};
use super::election::{Action, Draft, Election, Written};
use super::object;
use super::pods::Pods;
use super::standing::{Standing, StandingView};
use super::step::Record;
use super::timing::Timing;
use crate::clock::Clock;
use crate::readiness::Readiness;

/// Who this process is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// In the Lease: no other process has it, not even the one before in the same pod.
    name: String,
    /// Namespace and name of the pod, if it runs in one.
    pod: Option<(String, String)>,
}

impl Identity {
    /// An identity of its own for this process.
    pub fn new(pod: Option<(String, String)>) -> Self {
        let host = pod.as_ref().map_or("trimtab", |(_, name)| name);
        let mut bytes = [0; 4];
        // Without randomness the number of the process tells it from others.
        if SystemRandom::new().fill(&mut bytes).is_err() {
            bytes = std::process::id().to_be_bytes();
        }
        Self {
            name: format!("{host}_{:08x}", u32::from_be_bytes(bytes)),
            pod,
        }
    }
}

/// What is asked for the Lease, and how it went.
enum Answer {
    Read(Result<Option<Record>, String>),
    Wrote {
        draft: Draft,
        sent: Duration,
        written: Written,
        error: Option<String>,
    },
}

type Call = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Takes part in the election until shutdown.
pub struct Elector {
    api: Api<Lease>,
    watched: Api<Lease>,
    client: Client,
    name: String,
    identity: Identity,
    timing: Timing,
    clock: Arc<dyn Clock>,
    readiness: Readiness,
    election: Election,
    leadership: watch::Sender<Option<Leadership>>,
    admission: WriteAdmission,
    standing: Standing,
    random: SystemRandom,
}

impl std::fmt::Debug for Elector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Elector").field(&self.identity).finish()
    }
}

impl Elector {
    /// A client for [`Self::new`]: it does not retry, and gives up on an API server that is silent, since a request that hangs
    /// would use up the lease.
    pub fn client(mut config: kube::Config, timing: &Timing) -> kube::Result<Client> {
        let limit = Some(timing.request_limit());
        config.default_retry = false;
        (
            config.connect_timeout,
            config.read_timeout,
            config.write_timeout,
        ) = (limit, limit, limit);
        Client::try_from(config)
    }

    /// A candidate for the Lease `place`, namespace and name. `client` is for the Lease alone, `shared` for its watch and for
    /// pods.
    pub fn new(
        place: (&str, &str),
        timing: Timing,
        identity: Identity,
        (client, shared): (Client, Client),
        clock: Arc<dyn Clock>,
        readiness: Readiness,
    ) -> Self {
        let (leadership, receiver) = watch::channel(None);
        let view = StandingView {
            elected: true,
            identity: identity.name.clone(),
            lease: format!("{}/{}", place.0, place.1),
            ..StandingView::default()
        };
        Self {
            api: Api::namespaced(client, place.0),
            watched: Api::namespaced(shared.clone(), place.0),
            client: shared,
            name: place.1.to_owned(),
            election: Election::new(identity.name.clone(), timing),
            identity,
            timing,
            admission: WriteAdmission::elected(receiver, &timing, clock.clone()),
            clock,
            readiness,
            leadership,
            standing: Standing::of(view),
            random: SystemRandom::new(),
        }
    }

    /// What writes must pass.
    pub fn admission(&self) -> WriteAdmission {
        self.admission.clone()
    }

    /// Who leads.
    pub fn standing(&self) -> Standing {
        self.standing.clone()
    }

    /// Takes part until shutdown; then writes under way end and the Lease is given back.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let labelling = self.identity.pod.clone().map(|(namespace, pod)| {
            let place = (namespace.as_str(), pod);
            let (client, admission) = (self.client.clone(), self.admission());
            Pods::new(client, place, self.name.clone(), admission, self.timing)
                .follow(shutdown.clone())
        });
        let labelling = async {
            if let Some(labelling) = labelling {
                labelling.await;
            }
        };
        let leading = async {
            let call = self.follow(&shutdown).await;
            self.leave(call).await;
        };
        futures::join!(leading, labelling);
    }

    /// Returns with the request under way.
    async fn follow(&mut self, shutdown: &CancellationToken) -> Option<Call> {
        let fields = format!("metadata.name={}", self.name);
        let selection = watcher::Config::default().fields(&fields);
        let events = watcher(self.watched.clone(), selection).default_backoff();
        let mut events = std::pin::pin!(events.fuse());
        let mut call: Option<Call> = None;
        loop {
            let now = self.clock.monotonic();
            self.publish(now);
            let mut pause = self.timing.retry;
            if call.is_none() {
                let ready = self.readiness.missing().is_empty();
                match self.election.next(now, self.clock.now(), ready) {
                    Action::Read => call = Some(self.read()),
                    Action::Write(draft) => call = Some(self.write(draft)),
                    Action::Wait(until) => pause = pause.min(until.saturating_sub(now)),
                }
            }
            // The lease ends by this timer, whatever the API server does.
            if let Some(leadership) = *self.leadership.borrow() {
                pause = pause.min(leadership.begin_until.saturating_sub(now));
            }
            tokio::select! {
                () = shutdown.cancelled() => return call,
                answer = answered(&mut call) => {
                    call = None;
                    self.take(answer);
                }
                Some(event) = events.next() => self.saw(event),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn read(&self) -> Call {
        let (api, name, limit) = (
            self.api.clone(),
            self.name.clone(),
            self.timing.request_limit(),
        );
        Box::pin(async move {
            let read = tokio::time::timeout(limit, api.get_opt(&name)).await;
            Answer::Read(match read {
                Ok(Ok(lease)) => Ok(lease.map(object::read)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(no_answer(limit)),
            })
        })
    }

    fn write(&self, draft: Draft) -> Call {
        let (api, name, limit) = (
            self.api.clone(),
            self.name.clone(),
            self.timing.request_limit(),
        );
        let sent = self.clock.monotonic();
        Box::pin(async move {
            let lease = object::written(&name, &draft);
            let params = PostParams::default();
            let writing = async {
                match draft.base {
                    None => api.create(&params, &lease).await,
                    Some(_) => api.replace(&name, &params, &lease).await,
                }
            };
            let (written, error) = match tokio::time::timeout(limit, writing).await {
                Ok(Ok(lease)) => (
                    Written::Done(lease.resource_version().unwrap_or_default()),
                    None,
                ),
                Ok(Err(kube::Error::Api(status)))
                    if [404, 409].contains(&status.code)
                        && !is_about_namespace(&status.message) =>
                {
                    (Written::Conflict, None)
                }
                Ok(Err(error)) => (Written::Failed, Some(error.to_string())),
                Err(_) => (Written::Failed, Some(no_answer(limit))),
            };
            Answer::Wrote {
                draft,
                sent,
                written,
                error,
            }
        })
    }

    fn take(&mut self, answer: Answer) {
        let (now, jitter) = (self.clock.monotonic(), self.jitter());
        let error = match answer {
            Answer::Read(Ok(record)) => {
                self.election.observe(record, now);
                None
            }
            Answer::Read(Err(error)) => {
                self.election.read_failed(now, jitter);
                Some(error)
            }
            Answer::Wrote {
                draft,
                sent,
                written,
                error,
            } => {
                self.election.wrote(draft, written, sent, now, jitter);
                error
            }
        };
        let lease = self.standing.view().lease;
        let problem = error.map_or_else(String::new, |error| format!("Lease {lease}: {error}"));
        let mut told = true;
        self.standing.change(|view| {
            told = problem.is_empty() || !view.problem.is_empty();
            view.problem.clone_from(&problem);
        });
        if !told {
            tracing::warn!(%problem, "the Lease cannot be read or written: the operator needs get, list, watch, create and update on it");
        }
    }

    fn saw(&mut self, event: Result<watcher::Event<Lease>, watcher::Error>) {
        let now = self.clock.monotonic();
        match event {
            Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease)) => {
                self.election.observe(Some(object::read(lease)), now);
            }
            Ok(watcher::Event::Delete(lease)) => {
                self.election
                    .deleted(&lease.resource_version().unwrap_or_default(), now);
            }
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            // What the watch would have told is read when a write finds another version.
            Err(error) => tracing::debug!(%error, "the watch of the Lease broke off"),
        }
    }

    /// From 0 to 1.
    fn jitter(&self) -> f64 {
        let mut byte = [0];
        let random = self.random.fill(&mut byte).map(|()| byte[0]);
        f64::from(random.unwrap_or_default()) / 255.0
    }

    fn publish(&self, now: Duration) {
        let leadership = self.election.leadership(now);
        let was = *self.leadership.borrow();
        self.leadership.send_if_modified(|known| {
            let changed = *known != leadership;
            *known = leadership;
            changed
        });
        let holder = self
            .election
            .record()
            .map_or_else(String::new, |r| r.holder.clone());
        let turned = was.map(|l| l.epoch) != leadership.map(|l| l.epoch);
        self.standing.change(|view| {
            view.leads = leadership.is_some();
            view.transitions += u64::from(turned);
            view.holder.clone_from(&holder);
        });
        match (was, leadership) {
            _ if !turned => {}
            (_, Some(Leadership { epoch, .. })) => {
                tracing::info!(epoch, identity = self.identity.name, "this replica leads");
            }
            (_, None) if holder == self.identity.name || holder.is_empty() => {
                let problem = self.standing.view().problem;
                tracing::warn!(
                    problem,
                    "this replica leads no more: its Lease was not renewed in time; it writes nothing until it is"
                );
            }
            (_, None) => tracing::warn!(holder, "another replica leads now"),
        }
    }

    /// Ends: no write begins any more, those under way end, then the Lease is given back.
    async fn leave(&mut self, call: Option<Call>) {
        let limit = self.timing.write_limit;
        if tokio::time::timeout(limit, self.admission.close())
            .await
            .is_err()
        {
            tracing::warn!("a write does not end: the Lease is not given back, and ends by itself");
            return;
        }
        if let Some(call) = call {
            let answer = call.await;
            self.take(answer);
        }
        let release = self.election.release(self.clock.now());
        self.leadership.send_replace(None);
        self.standing.change(|view| view.leads = false);
        let Some(draft) = release else { return };
        let Answer::Wrote { written, .. } = self.write(draft).await else {
            return;
        };
        if let Written::Done(_) = written {
            tracing::info!("the Lease is given back");
        }
    }
}

async fn answered(call: &mut Option<Call>) -> Answer {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

fn no_answer(limit: Duration) -> String {
    format!(
        "no answer from the API server within {}s",
        limit.as_secs_f64()
    )
}

/// A 404 for a Lease that is created is about its namespace.
fn is_about_namespace(message: &str) -> bool {
    message.starts_with("namespaces ")
}
