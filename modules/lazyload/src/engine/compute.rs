//! From a fence to its Sidecar: scope, other fences of the same pods, users' Sidecars, the fallback.

use std::collections::BTreeSet;

use trimtab_crds::fence::{DependencyState, FenceStatus, Mode};
use trimtab_crds::istio::Sidecar;

use super::istiod::Istiod;
use super::needs::remarks;
use super::orphans::widen;
use super::standing::{none_obeys, outside};
use super::{Desired, Engine, Entry, Inner, WorkItem};
use crate::config::LazyloadConfig;
use crate::edges::{Edge, EdgeState};
use crate::mesh::{ResolvedFence, hosts_of};
use crate::object::{Caller, Directory, FenceKey};
use crate::scope::{self, Claim, Learned, Required, Role, ScopeInput};
use crate::status::{FallbackState, ProgrammedState};
use crate::translate::{self, Hosts};

fn learned(edge: Edge) -> Learned {
    Learned {
        host: edge.host,
        state: match edge.state {
            EdgeState::Active if !edge.known => DependencyState::Unresolved,
            EdgeState::Active => DependencyState::Active,
            EdgeState::Expiring => DependencyState::Expiring,
            EdgeState::Expired => DependencyState::Expired,
        },
        evidence: edge.evidence.into_iter().collect(),
        last_seen: Some(edge.last_seen),
    }
}

/// An API server that merges lists by key keeps its own order.
fn sorted(stored: &FenceStatus) -> FenceStatus {
    let mut status = stored.clone();
    let dependencies = &mut status.dependencies;
    dependencies.sort_by(|a, b| (&a.host, &a.caller).cmp(&(&b.host, &b.caller)));
    status
}

impl Engine {
    /// Reads back what a fence's status says was learned: by an earlier run, by another replica, or by Slime.
    ///
    /// Gives the callers that it speaks of.
    pub(super) fn restore(&self, key: &FenceKey) -> Vec<Caller> {
        let Some(resolved) = self.index.resolve(key) else {
            return Vec::new();
        };
        let now = self.clock.now();
        let known = {
            let inner = self.inner.lock();
            let entry = inner.fences.get(key);
            entry.is_some_and(|e| {
                e.generation > 0 && e.stored.dependencies == sorted(&resolved.status).dependencies
            })
        };
        if known {
            return Vec::new();
        }
        let status = &resolved.status;
        let names: BTreeSet<&String> = status.dependencies.iter().map(|d| &d.caller).collect();
        for name in &names {
            let own: Vec<_> = status
                .dependencies
                .iter()
                .filter(|d| d.caller == **name)
                .cloned()
                .collect();
            self.edges
                .restore(&Caller::new(&key.namespace, name), &own, now);
        }
        if status.dependencies.is_empty() && !status.metric_status.is_empty() {
            let stand_in = Caller::new(&key.namespace, &key.name);
            let mut callers: Vec<&Caller> = resolved.callers.iter().collect();
            if callers.is_empty() {
                callers.push(&stand_in);
            }
            for caller in callers {
                let known = |host: &str| self.index.host_of_name(host, &key.namespace).is_some();
                self.edges
                    .restore_metric_status(caller, &status.metric_status, known, now);
            }
        }
        let callers = names.iter().map(|name| Caller::new(&key.namespace, name));
        callers.collect()
    }

    /// The stored status is another one and nothing else has changed: what it lacks is written again.
    pub(super) fn reread(&self, key: &FenceKey) {
        let Some(resolved) = self.index.resolve(key) else {
            return;
        };
        let mut inner = self.inner.lock();
        let Some(entry) = inner.fences.get_mut(key) else {
            return;
        };
        let stored = sorted(&resolved.status);
        if entry.stored != stored {
            entry.stored = stored;
            drop(inner);
            self.queue.push(WorkItem::Fence(key.clone()));
        }
    }

    /// Works out the fences of `dirty`, and what that means for others of the same pods.
    pub(super) fn compute(&self, dirty: &BTreeSet<FenceKey>) {
        let mut decide = BTreeSet::new();
        for key in dirty {
            decide.insert(key.clone());
            match self.index.resolve(key) {
                Some(resolved) => {
                    decide.extend(resolved.overlaps.iter().map(|o| o.key.clone()));
                    self.scope(key, &resolved);
                }
                None => self.gone(key),
            }
        }
        for key in decide {
            if let Some(resolved) = self.index.resolve(&key) {
                self.decide(&key, &resolved);
                self.queue.push(WorkItem::Fence(key));
            }
        }
    }

    fn gone(&self, key: &FenceKey) {
        let mut inner = self.inner.lock();
        if inner.fences.remove(key).is_some() {
            inner.timers.retain(|(_, k)| k != key);
            drop(inner);
            self.queue.push(WorkItem::Fence(key.clone()));
        }
    }

    /// Step one: what the fence alone asks for.
    fn scope(&self, key: &FenceKey, resolved: &ResolvedFence) {
        let settings = self.settings.read().clone();
        let mut callers = resolved.callers.clone();
        // What Slime had learned of a workload without pods hangs on the fence's name.
        callers.insert(Caller::new(&key.namespace, &key.name));
        let learned: Vec<Learned> = callers
            .iter()
            .flat_map(|caller| self.edges.of(caller))
            .map(learned)
            .collect();
        let (before, fading) = {
            let inner = self.inner.lock();
            inner.fences.get(key).map_or_else(
                || (resolved.status.domains.clone(), <_>::default()),
                |e| (e.scope.domains.clone(), e.scope.fading.clone()),
            )
        };
        let needs = self.needs(key, resolved);
        let required: Vec<Required> = needs.hosts.iter().cloned().collect();
        let scope = self.index.scope(&ScopeInput {
            fence: key,
            spec: &resolved.spec,
            created: resolved.created,
            learned: &learned,
            before: &before,
            fading: &fading,
            now: self.clock.now(),
            settings: &settings,
            required: &required,
        });
        for caller in &callers {
            self.edges.count_under(caller, &scope.counted);
        }
        let first_calls = self.refused_first_calls(key, &resolved.accounts, &scope.imports);
        let mut inner = self.inner.lock();
        inner.timers.retain(|(_, k)| k != key);
        if let Some(next) = scope.next {
            inner.timers.insert((next, key.clone()));
        }
        let entry = inner.fences.entry(key.clone()).or_default();
        entry.mode = entry.modes.mode(resolved, self.clock.now());
        entry.modes.watch(key, &resolved.callers);
        let before = (entry.generation > 0).then_some(&entry.scope);
        entry.modes.learned(before, &learned);
        entry.generation = resolved.generation;
        entry.room.rest = resolved.rest;
        entry.callers = callers;
        entry.accounts.clone_from(&resolved.accounts);
        entry.first_calls = first_calls;
        entry.claim = resolved.claim();
        entry.refusals.clone_from(&resolved.problems);
        entry.remarks = remarks(&needs, &scope);
        entry.remarks.extend(outside(resolved));
        entry.inherits.clone_from(&resolved.inherits);
        entry.scope = scope;
        entry.stored = sorted(&resolved.status);
    }

    /// Step two: what is written.
    fn decide(&self, key: &FenceKey, resolved: &ResolvedFence) {
        let config = self.config();
        let fallback = self.fallback_state(&key.namespace);
        let mut inner = self.inner.lock();
        let Some(mine) = inner.fences.get(key).and_then(|e| e.claim.clone()) else {
            if let Some(entry) = inner.fences.get_mut(key) {
                entry.programmed_state = Some(ProgrammedState::Refused);
                entry.desired = Desired::Keep;
            }
            return;
        };
        let others: Vec<Claim> = resolved
            .overlaps
            .iter()
            .filter_map(|o| inner.fences.get(&o.key)?.claim.clone())
            .collect();
        let role = scope::role(&mine, &others);
        let union = match &role {
            Role::Writes { with, .. } => union(&inner, key, with),
            Role::MergedInto(_) => union(&inner, key, &[]),
        };
        let live = inner.live.get(key).map(|live| live.hosts.clone());
        let foreign = inner.foreign.contains(key);
        let Some(entry) = inner.fences.get_mut(key) else {
            return;
        };
        entry.union = union;
        entry.warnings = warnings(entry, &role);
        entry.warnings.extend(super::remarks::of_pods(resolved));
        let (now, grace) = (self.clock.now(), self.settings.read().grace);
        let next = if matches!(role, Role::Writes { .. }) {
            let wanted = entry.union.entries.keys().map(String::as_str).collect();
            entry.orphans.look(live.as_ref(), &wanted, now, grace)
        } else {
            None
        };
        let users = resolved.user_sidecars.first().cloned();
        let users = users.or_else(|| foreign.then(|| key.name.clone()));
        entry.decided_on.clone_from(&live);
        drop(inner);
        self.leave_out(key, &role, &others);
        let around = Around {
            fallback,
            live,
            users,
            istiod: self.istiod.lock().clone(),
        };
        let mut inner = self.inner.lock();
        let Some(entry) = inner.fences.get_mut(key) else {
            return;
        };
        let (programmed_state, desired) = outcome(resolved, entry, &role, &config, around);
        if let Desired::Write(sidecar) = &desired {
            entry.orphans.note_wanted(hosts_of(sidecar));
        }
        entry.programmed_state = Some(programmed_state);
        entry.desired = desired;
        inner.timers.extend(next.map(|at| (at, key.clone())));
    }
}

fn union(inner: &Inner, key: &FenceKey, with: &[FenceKey]) -> scope::Union {
    let scopes = std::iter::once(key)
        .chain(with)
        .filter_map(|k| inner.fences.get(k))
        .map(|e| &e.scope);
    scope::merge(scopes)
}

fn warnings(entry: &Entry, role: &Role) -> Vec<String> {
    let mut out: Vec<String> = entry
        .scope
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect();
    out.extend(entry.remarks.iter().cloned());
    if let Role::Writes { partly, .. } = role {
        out.extend(partly.iter().map(|other| {
            format!("ServiceFence {other} selects some of the same pods: both Sidecars have the hosts of both; let one selector be part of the other")
        }));
    }
    out
}

/// What a Sidecar depends on besides the fences.
struct Around {
    fallback: FallbackState,
    /// Hosts of the live one.
    live: Option<BTreeSet<String>>,
    /// A user's that is in the way.
    users: Option<String>,
    istiod: Istiod,
}

/// Where the fence stands and what is written.
fn outcome(
    resolved: &ResolvedFence,
    entry: &Entry,
    role: &Role,
    config: &LazyloadConfig,
    around: Around,
) -> (ProgrammedState, Desired) {
    if let Some(name) = around.users {
        return (ProgrammedState::UserSidecar(name), Desired::None);
    }
    if entry.mode == Mode::Observe {
        return (ProgrammedState::Observing, Desired::None);
    }
    if !resolved.standing.any_obeys() {
        return (none_obeys(resolved), Desired::None);
    }
    if let Role::MergedInto(other) = role {
        return (ProgrammedState::MergedInto(other.clone()), Desired::None);
    }
    if let Some(excluded) = &entry.modes.excluded {
        let alone = matches!(role, Role::Writes { with, .. } if with.is_empty());
        let auto = entry.modes.tighten.is_some();
        match around.istiod.without_exclusions(auto).filter(|_| alone) {
            // Nobody asked for a Sidecar, and without one there is everything.
            Some(ProgrammedState::Open) => return (ProgrammedState::Open, Desired::None),
            Some(state) => return (state, Desired::Keep),
            None => {}
        }
        let sidecar = sidecar(resolved, entry, Hosts::AllBut(excluded), config);
        let state = ProgrammedState::Excluding(excluded.len());
        return (state, Desired::Write(Box::new(sidecar)));
    }
    let mut hosts: BTreeSet<String> = entry.union.entries.keys().cloned().collect();
    if let FallbackState::NotReady(_) = around.fallback {
        let Some(live) = around.live else {
            return (ProgrammedState::WaitsForFallback, Desired::None);
        };
        // Wider is safe at any time, narrower only while unknown calls are carried.
        widen(&mut hosts, &live);
    }
    widen(&mut hosts, entry.orphans.kept());
    let sidecar = sidecar(resolved, entry, Hosts::Only(&hosts), config);
    (ProgrammedState::Written, Desired::Write(Box::new(sidecar)))
}

fn sidecar(
    resolved: &ResolvedFence,
    entry: &Entry,
    hosts: Hosts<'_>,
    config: &LazyloadConfig,
) -> Sidecar {
    let selector = entry
        .claim
        .as_ref()
        .map(|c| c.selector.clone())
        .unwrap_or_default();
    let sidecar = translate::sidecar(
        &translate::Owner::of(resolved),
        &selector,
        hosts,
        &config.revision,
    );
    translate::inherit(sidecar, resolved.inherits.as_deref())
}
