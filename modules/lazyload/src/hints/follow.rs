//! Whose hints a change may concern.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use trimtab_mesh::model::{Service, ServiceEntry};
use trimtab_mesh::table::{Change, Follower};

use super::Hints;
use super::templates::{PodTemplate, Templates};
use crate::learn::hints::{PolicyHint, Source};
use crate::object::Caller;

fn of_source(templates: &Templates, source: &Source) -> Vec<Caller> {
    match source {
        Source::ServiceAccount { namespace, name } => templates.callers_in(namespace, Some(name)),
        Source::Namespace(namespace) => templates.callers_in(namespace, None),
    }
}

/// Callers that may name a host: its first label that is no wildcard finds them.
fn naming<'a>(templates: &'a Templates, host: &str) -> impl Iterator<Item = &'a Caller> + use<'a> {
    let first = host.split('.').find(|label| !label.contains('*'));
    templates.naming(&first.unwrap_or_default().to_ascii_lowercase())
}

/// Callers that name an address, or one of a network.
fn naming_address(templates: &Templates, address: &str) -> Vec<Caller> {
    let named: Vec<IpAddr> = match (address.parse::<IpNet>(), address.parse::<IpAddr>()) {
        (Ok(range), _) => {
            let all = templates.addresses().copied();
            all.filter(|a| range.contains(a)).collect()
        }
        (_, Ok(address)) => vec![address],
        _ => Vec::new(),
    };
    let callers = named.iter().flat_map(|a| templates.naming(&a.to_string()));
    callers.cloned().collect()
}

impl Follower<PodTemplate> for Hints {
    fn changed(&self, change: Change<'_, PodTemplate>) {
        let pod = |pod: &PodTemplate| (pod.caller.clone(), pod.template.clone());
        if change.old.map(|p| pod(p)) == change.new.map(|p| pod(p)) {
            return;
        }
        let rows = self.templates.rows();
        let templates = rows.index();
        let gone = change.old.filter(|pod| templates.count(pod) == 0);
        let appeared = change.new.filter(|pod| templates.count(pod) == 1);
        let touched = gone.into_iter().chain(appeared);
        self.mark(touched.map(|pod| pod.caller.clone()));
    }
}

impl Follower<PolicyHint> for Hints {
    fn changed(&self, change: Change<'_, PolicyHint>) {
        let rows = self.templates.rows();
        let sources = change.rows().flat_map(|policy| &policy.sources);
        let callers: Vec<Caller> = sources.flat_map(|s| of_source(rows.index(), s)).collect();
        self.mark(callers);
    }
}

impl Follower<Service> for Hints {
    fn changed(&self, change: Change<'_, Service>) {
        let rows = self.templates.rows();
        let templates = rows.index();
        let mut touched: BTreeSet<Caller> = BTreeSet::new();
        touched.extend(naming(templates, &change.name.1).cloned());
        for address in change.rows().flat_map(|s| &s.addresses) {
            touched.extend(naming_address(templates, &address.to_string()));
        }
        // Which Services a policy is for may be another thing now.
        let policies = self.policies.rows();
        let here = policies.in_namespace(&change.name.0);
        let sources = here.flat_map(|(_, policy)| &policy.sources);
        touched.extend(sources.flat_map(|s| of_source(templates, s)));
        self.mark(touched);
    }
}

impl Follower<ServiceEntry> for Hints {
    fn changed(&self, change: Change<'_, ServiceEntry>) {
        let rows = self.templates.rows();
        let templates = rows.index();
        let mut touched: BTreeSet<Caller> = BTreeSet::new();
        for entry in change.rows() {
            for host in &entry.spec.hosts {
                touched.extend(naming(templates, host).cloned());
            }
            for address in &entry.spec.addresses {
                touched.extend(naming_address(templates, address));
            }
        }
        self.mark(touched);
    }
}
