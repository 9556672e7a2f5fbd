//! How a watch is doing: what a module waits for, and why it may wait in vain.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kube::Resource;
use kube::runtime::watcher;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::readiness::ReadinessGate;

/// State of a watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WatchState {
    /// The first list is under way.
    #[default]
    Listing,
    /// The list is complete and changes are followed.
    Synced,
    /// The cluster does not serve the API, so there are no objects.
    Absent,
    /// The API server refuses to list or watch.
    Forbidden(String),
    /// It fails otherwise; it is tried again.
    Failing(String),
}

/// What the log has said of absent APIs, for all watches: one step brings many kinds, and is asked for once.
#[derive(Debug, Default)]
pub struct AbsencesTold(Mutex<BTreeSet<String>>);

impl AbsencesTold {
    /// Whether nobody has said it before.
    fn first(&self, remedy: &str) -> bool {
        self.0.lock().insert(remedy.to_owned())
    }

    /// It is no longer so: the next time it is said again.
    fn over(&self, remedy: &str) {
        self.0.lock().remove(remedy);
    }
}

/// One watch of the process.
#[derive(Debug)]
pub struct Watch {
    /// Kind.
    pub kind: String,
    /// Plural and group as rights name them, e.g. `endpointslices.discovery.k8s.io`.
    pub resource: String,
    state: watch::Sender<WatchState>,
    /// Whether a list was complete, or known to be empty, once: what is known is then kept through failures.
    listed: watch::Sender<bool>,
    blocker: ReadinessGate,
    failures: Mutex<u64>,
    told: Arc<AbsencesTold>,
    /// Whether a module cannot do its work while the API is absent.
    required: AtomicBool,
    /// Whether modules work as well without what it feeds: what may not be read counts as not there.
    optional: AtomicBool,
}

impl Watch {
    /// A watch that has not begun. `blocker` is released with the first complete list.
    pub fn new(
        kind: &str,
        resource: &str,
        blocker: ReadinessGate,
        told: &Arc<AbsencesTold>,
    ) -> Arc<Self> {
        Arc::new(Self {
            kind: kind.to_owned(),
            resource: resource.to_owned(),
            state: watch::Sender::new(WatchState::Listing),
            listed: watch::Sender::new(false),
            blocker,
            failures: Mutex::new(0),
            told: told.clone(),
            required: AtomicBool::new(false),
            optional: AtomicBool::new(false),
        })
    }

    /// The state now.
    pub fn state(&self) -> WatchState {
        self.state.borrow().clone()
    }

    /// Its absence is a fault and not only an empty list.
    pub fn require(&self) {
        self.required.store(true, Ordering::Relaxed);
    }

    /// Modules work without it.
    pub fn make_optional(&self) {
        self.optional.store(true, Ordering::Relaxed);
    }

    /// Whether what it feeds is complete.
    pub fn is_listed(&self) -> bool {
        *self.listed.borrow()
    }

    /// Waits for the next change of state.
    pub async fn changed(&self) {
        let _ = self.state.subscribe().changed().await;
    }

    /// Why nothing can be known of the kind, with the remedy; `None`: it is or will be known.
    pub fn problem(&self) -> Option<String> {
        let Self { kind, resource, .. } = self;
        match &*self.state.borrow() {
            WatchState::Forbidden(_) if self.optional.load(Ordering::Relaxed) => None,
            WatchState::Forbidden(message) => Some(format!(
                "cannot list and watch {resource}: grant \"list\" and \"watch\" on it to Trimtab's ServiceAccount ({message})"
            )),
            WatchState::Absent if self.required.load(Ordering::Relaxed) => {
                Some(not_installed(kind, resource))
            }
            _ => None,
        }
    }

    /// Takes a new state over.
    pub(super) fn set(&self, state: WatchState) {
        self.log(&state);
        let optional = self.optional.load(Ordering::Relaxed);
        let listed = match state {
            WatchState::Synced | WatchState::Absent => true,
            WatchState::Forbidden(_) => optional,
            WatchState::Listing | WatchState::Failing(_) => false,
        };
        self.state.send_if_modified(|old| {
            let changed = *old != state;
            *old = state;
            changed
        });
        if listed {
            self.listed.send_replace(true);
            self.blocker.release();
        }
        if let Some(problem) = self.problem() {
            self.blocker.fail(&problem);
        }
    }

    /// One line for the first failure, then at growing intervals.
    fn log(&self, state: &WatchState) {
        let resource = &self.resource;
        let mut failures = self.failures.lock();
        match state {
            WatchState::Listing => {}
            WatchState::Synced => {
                if std::mem::take(&mut *failures) > 0 {
                    self.told.over(&remedy(resource));
                    tracing::info!(%resource, "watch works again");
                }
            }
            WatchState::Absent => {
                *failures += 1;
                // The state is still the one before.
                if *self.state.borrow() != WatchState::Absent {
                    self.log_absence();
                }
            }
            WatchState::Forbidden(error) | WatchState::Failing(error) => {
                *failures += 1;
                if failures.is_power_of_two() {
                    let forbidden = matches!(state, WatchState::Forbidden(_));
                    tracing::warn!(%resource, %error, forbidden, failures = *failures, "watch failed; retrying, known objects are kept");
                }
            }
        }
    }

    /// One line for all kinds that one step brings: whoever lacks Istio's CRDs lacks a dozen kinds.
    fn log_absence(&self) {
        let Self { kind, resource, .. } = self;
        if self.required.load(Ordering::Relaxed) {
            if self.told.first(&remedy(resource)) {
                let problem = not_installed(kind, resource);
                tracing::warn!("{problem}; what needs it waits until then, see /readyz");
            }
        } else if is_of_istio(resource) {
            tracing::debug!(%resource, %kind, "this API is not installed: there are no objects of the kind");
        } else {
            tracing::info!(%resource, %kind, "this API is not installed: there are no objects of the kind");
        }
    }
}

/// Whether Istio's CRDs bring the kind.
fn is_of_istio(resource: &str) -> bool {
    resource.ends_with(".istio.io")
}

/// What to do about a CRD that is not there, e.g. `envoyfilters.networking.istio.io`.
pub(crate) fn not_installed(kind: &str, resource: &str) -> String {
    format!("{kind} is not installed: {}", remedy(resource))
}

/// Whether what degrades is an absent API, which the log has told when it was found.
pub fn is_absence(reason: &str) -> bool {
    reason.contains(" is not installed: ")
}

fn remedy(resource: &str) -> String {
    if is_of_istio(resource) {
        "install Istio's CRDs".to_owned()
    } else {
        format!("install the CRD {resource}")
    }
}

/// What an error of the watcher says of the API.
pub(super) fn classify<K: Resource<DynamicType = ()>>(error: &watcher::Error) -> WatchState {
    let (watcher::Error::InitialListFailed(source) | watcher::Error::WatchStartFailed(source)) =
        error
    else {
        return WatchState::Failing(error.to_string());
    };
    match source {
        kube::Error::Api(status) if status.code == 403 => {
            WatchState::Forbidden(status.message.clone())
        }
        kube::Error::Api(status) if status.code == 404 && is_custom(&K::group(&())) => {
            WatchState::Absent
        }
        kube::Error::Api(status) => WatchState::Failing(status.message.clone()),
        _ => WatchState::Failing(source.to_string()),
    }
}

/// The Gateway API comes as CRDs, though its group is one of Kubernetes' own.
const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Whether a CRD brings the group: built-in APIs are never absent, a 404 there passes.
fn is_custom(group: &str) -> bool {
    group == GATEWAY_API || (group.contains('.') && !group.ends_with(".k8s.io"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::Readiness;

    #[test]
    fn only_apis_of_crds_can_be_absent() {
        for (group, custom) in [
            ("", false),
            ("apps", false),
            ("discovery.k8s.io", false),
            ("networking.istio.io", true),
            ("gateway.networking.k8s.io", true),
        ] {
            assert_eq!(is_custom(group), custom, "{group}");
        }
    }

    #[test]
    fn a_forbidden_list_degrades_and_a_complete_one_ends_it() {
        let readiness = Readiness::new();
        let watch = Watch::new(
            "Namespace",
            "namespaces",
            readiness.block("watch of namespaces"),
            &Arc::default(),
        );
        assert_eq!(readiness.missing(), ["watch of namespaces"]);
        watch.set(WatchState::Forbidden("no".to_owned()));
        assert!(readiness.missing().is_empty() && !watch.is_listed());
        let degraded = readiness.degraded();
        assert!(degraded[0].1.contains("\"list\""), "{degraded:?}");
        watch.set(WatchState::Synced);
        assert!(readiness.degraded().is_empty() && watch.is_listed());
    }

    #[test]
    fn nobody_waits_for_what_is_optional_and_forbidden() {
        let readiness = Readiness::new();
        let watch = Watch::new(
            "ConfigMap",
            "configmaps",
            readiness.block("configmaps"),
            &Arc::default(),
        );
        watch.make_optional();
        watch.set(WatchState::Forbidden("no".to_owned()));
        assert!(readiness.missing().is_empty() && readiness.degraded().is_empty());
        assert!(watch.is_listed());
    }
}
