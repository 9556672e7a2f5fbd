//! What limiters point at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trimtab_crds::limiter::{BASE_SET, LimiterSpec};
use trimtab_kit::sources::PodFacts;
use trimtab_mesh::model::{
    DestinationRule, Labels, LimitPatches, Namespace, Pod, PodGroup, Proxy, Service, ServiceEntry,
    in_order,
};
use trimtab_mesh::names::full_host;
use trimtab_mesh::table::Table;
use trimtab_mesh::{Mesh, Trust};

use super::key::LimiterKey;
use super::object::Resolved;
use super::rows::DefaultLimits;
use crate::decide::bucket::Bucket;
use crate::input::{Gap, Reach, ServicePort, SetFacts, TargetProblem};
use crate::translate::envoy_filter_name;

/// The tables that tell of it.
#[derive(Debug)]
pub(super) struct Targets {
    /// The cluster domain.
    pub(super) domain: Arc<str>,
    pub(super) services: Arc<Table<Service>>,
    pub(super) pods: Arc<Table<Pod>>,
    rules: Arc<Table<DestinationRule>>,
    pub(super) entries: Arc<Table<ServiceEntry>>,
    namespaces: Arc<Table<Namespace>>,
    pub(super) filters: Arc<Table<LimitPatches>>,
    generated: Arc<Table<DefaultLimits>>,
    /// Istio's root namespace: its DestinationRules count for all hosts.
    pub(super) root: Arc<str>,
}

impl Targets {
    pub(super) fn new(root: &str, mesh: &Mesh) -> Self {
        Self {
            domain: mesh.domain().clone(),
            services: mesh.table(),
            pods: mesh.table(),
            rules: mesh.table(),
            entries: mesh.table(),
            namespaces: mesh.table(),
            filters: mesh.table(),
            generated: mesh.table(),
            root: root.into(),
        }
    }

    /// Labels of the pods of a limiter without a selector of its own.
    pub(super) fn selector(
        &self,
        key: &LimiterKey,
        spec: &LimiterSpec,
    ) -> Result<Labels, TargetProblem> {
        if let Some(host) = &spec.host {
            let entry = self.entry(&key.namespace, host);
            let entry = entry.ok_or(TargetProblem::ServiceEntryNotFound)?;
            let selector = selector_of(&entry);
            if selector.is_empty() {
                return Err(TargetProblem::ServiceEntryWithoutSelector);
            }
            return Ok(selector);
        }
        let service = self.services.get(&key.namespace, &key.name);
        let service = service.ok_or(TargetProblem::ServiceNotFound)?;
        if service.selector.is_empty() {
            return Err(TargetProblem::ServiceWithoutSelector);
        }
        Ok(service.selector.clone())
    }

    /// The first ServiceEntry of a namespace with a host.
    fn entry(&self, namespace: &str, host: &str) -> Option<Arc<ServiceEntry>> {
        let rows = self.entries.rows();
        let mut found = rows.of(host).filter(|((ns, _), _)| ns == namespace);
        found.next().map(|(_, entry)| entry.clone())
    }

    /// Ports of the limiter's Service, sorted.
    pub(super) fn ports(&self, key: &LimiterKey) -> Vec<ServicePort> {
        let service = self.services.get(&key.namespace, &key.name);
        service.map(|s| ports(&s)).unwrap_or_default()
    }

    /// Inbound virtual hosts of the limiter's Service that no proxy has, with why: of two Services that lead to one port of
    /// the same pods, istiod takes the older one.
    pub(super) fn overshadowed(&self, key: &LimiterKey) -> BTreeMap<String, String> {
        let rows = self.services.rows();
        let name = (key.namespace.clone(), key.name.clone());
        let Some(own) = rows.get(&name) else {
            return BTreeMap::new();
        };
        let others = rows.in_namespace(&key.namespace).map(|(_, other)| other);
        let others = others.filter(|s| s.selector == own.selector && s.id.age() < own.id.age());
        let mut out = BTreeMap::new();
        for other in others {
            for port in &other.ports {
                let taken = ServicePort::of(port);
                let same = own.ports.iter().map(ServicePort::of);
                let same = same.filter(|p| p.target.is_some() && p.target == taken.target);
                for port in same.filter(|p| p.port != taken.port) {
                    out.insert(format!("inbound|http|{}", port.port), format!(
                        "Service {} is older and leads to the same port of the same pods: proxies know it by its port {}; leave target.port out, or limit that Service",
                        other.id.name, taken.port,
                    ));
                }
            }
        }
        out
    }

    pub(super) fn fill_sets(
        &self,
        key: &LimiterKey,
        scope: &str,
        selector: Labels,
        out: &mut Resolved,
    ) {
        let mut sets = vec![(BASE_SET.to_owned(), Labels::new())];
        let spec = &out.object.spec;
        if !spec.gateway && spec.workload_selector.is_empty() {
            let host = spec.host.as_ref().unwrap_or(&key.name);
            let host = full_host(host, &key.namespace, &self.domain);
            out.target.misread = self.misread(&host);
            sets.extend(self.subsets(&host, &key.namespace));
        }
        out.target.rivals = self.rivals(key, scope, &selector, &sets);
        let role = Role {
            gateway: spec.gateway,
            revision: out.object.owner.revision.clone(),
        };
        let service = out.object.of_service();
        let service = service.then(|| self.services.get(&key.namespace, &key.name));
        let service = service.flatten();
        for (set, labels) in sets {
            let mut of_set = selector.clone();
            of_set.extend(labels.clone());
            let pods = self.pods(scope, &of_set);
            let mut ready =
                i64::try_from(pods.iter().filter(|p| p.ready).count()).unwrap_or(i64::MAX);
            if pods.is_empty()
                && set == BASE_SET
                && let Some(host) = &spec.host
            {
                let entry = self.entry(&key.namespace, host);
                ready = entry.map_or(0, |e| static_endpoints(&e));
            }
            let facts = SetFacts {
                labels,
                pods: ready,
                reach: (!pods.is_empty()).then(|| self.reach(&pods, &role, service.as_deref())),
            };
            out.target.sets.insert(set.clone(), facts);
            let pods: Vec<PodFacts> = pods.iter().map(|pod| PodFacts::of(pod)).collect();
            out.pods.insert(set, pods.into());
        }
        out.target.selector = selector;
    }

    /// Limits in the default configurations of a limiter's objects; none: it has no such objects.
    pub(super) fn defaults<'a>(
        &self,
        key: &LimiterKey,
        sets: impl Iterator<Item = &'a String>,
    ) -> Option<BTreeMap<String, Bucket>> {
        let names = sets.map(|set| envoy_filter_name(&key.name, &key.namespace, set));
        let rows = names.filter_map(|name| self.generated.get(&key.namespace, &name));
        let limits = rows.map(|row| row.0.clone());
        limits.reduce(|mut all, more| {
            all.extend(more);
            all
        })
    }

    /// Which Ready pods have a proxy that can hold a limit.
    fn reach(&self, pods: &[Arc<Pod>], role: &Role, service: Option<&Service>) -> Reach {
        let mut out = Reach::default();
        for pod in pods.iter().filter(|p| p.ready) {
            if let Some(gap) = self.gap(pod, role) {
                *out.without.entry(gap).or_default() += 1;
                if gap == Gap::OtherRevision {
                    out.revisions.insert(pod.group.revision.to_string());
                }
                continue;
            }
            out.proxies += 1;
            for port in service.iter().flat_map(|s| &s.ports) {
                if pod.capture.bypasses(port.number, port.target.as_ref()) {
                    *out.around.entry(port.number).or_default() += 1;
                }
            }
        }
        out
    }

    /// Why a pod cannot hold a limit.
    pub(super) fn gap(&self, pod: &Pod, role: &Role) -> Option<Gap> {
        let namespace = self.namespaces.get("", &pod.group.workload.namespace);
        let ambient = pod.is_ambient(namespace.as_deref());
        gap(pod, ambient, role)
    }

    /// Labels of groups of pods that a selector selects, with their namespaces.
    pub(super) fn groups(&self, scope: &str, selector: &Labels) -> Vec<(Arc<str>, Labels)> {
        let rows = self.pods.rows();
        let groups = rows.index();
        let told = |group: &Arc<PodGroup>| (group.workload.namespace.clone(), group.labels.clone());
        let mut out: Vec<(Arc<str>, Labels)> = if scope == "*" {
            groups.select_everywhere(selector).map(told).collect()
        } else {
            groups.select(scope, selector).map(told).collect()
        };
        out.sort();
        out.dedup();
        out
    }

    /// Pods with all of `labels`, by namespace and name. `*`: of all namespaces.
    pub(super) fn pods(&self, scope: &str, labels: &Labels) -> Vec<Arc<Pod>> {
        let rows = self.pods.rows();
        let groups = rows.index();
        if scope == "*" {
            rows.of_groups(groups.select_everywhere(labels))
        } else {
            rows.of_groups(groups.select(scope, labels))
        }
    }

    /// Hosts of DestinationRules, as Istio reads them, that were probably meant for `host`, each with it: Istio takes a
    /// name with a dot as it is.
    fn misread(&self, host: &str) -> BTreeMap<String, String> {
        let rows = self.rules.rows();
        let others = rows.of(host).filter(|(_, rule)| *rule.host != *host);
        others
            .map(|(_, rule)| (rule.host.to_string(), host.to_owned()))
            .collect()
    }

    /// Subsets of the host.
    fn subsets(&self, host: &str, namespace: &str) -> Vec<(String, Labels)> {
        let rows = self.rules.rows();
        let rules = rows.of(host).map(|(_, rule)| rule);
        let trust = Trust::root(&self.root);
        let rules = in_order(rules.filter(|r| *r.host == *host), trust, namespace);
        let mut out: Vec<(String, Labels)> = Vec::new();
        for subset in rules.iter().flat_map(|rule| &rule.spec.subsets) {
            if !out.iter().any(|(name, _)| *name == subset.name) {
                out.push((subset.name.clone(), subset.labels.clone()));
            }
        }
        out
    }
}

/// Ports of a Service, sorted. A number that is there twice, as with UDP beside TCP, carries HTTP if one of the two does.
pub(super) fn ports(service: &Service) -> Vec<ServicePort> {
    let sorted: BTreeSet<ServicePort> = service.ports.iter().map(ServicePort::of).collect();
    let mut out: Vec<ServicePort> = sorted.into_iter().collect();
    // One without `opaque` comes first.
    out.dedup_by_key(|port| (port.port, port.target));
    out
}

/// Which proxies a limiter is for.
#[derive(Clone, Debug)]
pub(super) struct Role {
    /// Those of gateways, else sidecars.
    pub(super) gateway: bool,
    /// Those of this revision of Istio; none: of all.
    pub(super) revision: Option<String>,
}

fn gap(pod: &Pod, ambient: bool, role: &Role) -> Option<Gap> {
    let capture = &pod.capture;
    let gateway = role.gateway;
    let fits = match capture.proxy {
        Proxy::Waypoint => return Some(Gap::Waypoint),
        Proxy::None => false,
        Proxy::Gateway => gateway,
        Proxy::Sidecar => !gateway,
        Proxy::Any => true,
    };
    // No traffic is led to a sidecar there; a gateway listens itself.
    if capture.on_host && !gateway {
        return Some(Gap::HostNetwork);
    }
    let gap = match capture.proxy {
        Proxy::None if ambient => Gap::Ambient,
        Proxy::None => Gap::NoSidecar,
        _ => Gap::OtherRole,
    };
    let own = &*pod.group.revision;
    let wanted = role.revision.as_deref();
    if fits && wanted.is_some_and(|wanted| !own.is_empty() && wanted != own) {
        return Some(Gap::OtherRevision);
    }
    (!fits).then_some(gap)
}

/// Labels of a ServiceEntry's pods; without a selector its own label `app`, as Slime has it (`seLabelSelectorKeys`).
fn selector_of(entry: &ServiceEntry) -> Labels {
    let selector = entry.selector();
    if !selector.is_empty() {
        return selector;
    }
    let app = entry.labels.get("app");
    app.map(|v| ("app".to_owned(), v.clone()))
        .into_iter()
        .collect()
}

/// Endpoints that a ServiceEntry has written, as Slime counts them: each once a port.
fn static_endpoints(entry: &ServiceEntry) -> i64 {
    let spec = &entry.spec;
    let count = spec.endpoints.len() * spec.ports.len().max(1);
    i64::try_from(count).unwrap_or(i64::MAX)
}
