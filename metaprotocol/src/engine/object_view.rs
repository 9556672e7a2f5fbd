//! What `trimtab describe` tells of Redis and Dubbo objects.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trimtab_kit::answers::Part;
use trimtab_kit::describe::{Answer, Cause, ConditionView, Holder, Verdict, holder};

use super::Engine;
use super::facts::has_part;
use super::view::{PortView, port_view};
use crate::object::{Kind, ObjectKey};
use crate::status::{Facts, object_status};

/// An object, what is made of it, and who has it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectView {
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Whether it is in force, and why not.
    pub verdict: Verdict,
    /// What it configures, a line each and without passwords.
    pub configures: Vec<String>,
    /// Ports that it has a part in.
    pub used_by: Vec<UsedPort>,
    /// Proxies that ask Trimtab's xDS server for something that it has a part in; what goes by istiod is not told.
    pub proxies: Vec<Holder>,
    /// Of its status.
    pub conditions: Vec<ConditionView>,
}

/// A port of a host that an object has a part in.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UsedPort {
    /// Host.
    pub host: String,
    /// Its port, and what is made of it.
    pub port: PortView,
}

impl Engine {
    /// A Redis or Dubbo object; `None`: there is none.
    pub fn object_view(&self, kind: Kind, namespace: &str, name: &str) -> Option<ObjectView> {
        let key = ObjectKey {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let seen = self.index.seen(&key)?;
        let facts = self.facts(&key, &seen);
        let told = object_status(&facts, &[], self.clock.now()).conditions;
        let conditions: Vec<ConditionView> = told.iter().map(ConditionView::from).collect();
        let mut parts = self.answers.parts_of(&key.to_string());
        let mut used_by = Vec::new();
        let inner = self.inner.lock();
        for host in inner.users.get(&key).into_iter().flatten() {
            let Some(state) = inner.hosts.get(host) else {
                continue;
            };
            let here = state.ports.values().filter(|p| has_part(&key, &p.input));
            let here: Vec<UsedPort> = here
                .map(|port| UsedPort {
                    host: host.clone(),
                    port: port_view(port),
                })
                .collect();
            if !here.is_empty() {
                parts.extend(state.parts());
            }
            used_by.extend(here);
        }
        drop(inner);
        Some(ObjectView {
            kind: kind.as_str().to_owned(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            verdict: verdict(&facts, &conditions, &used_by, self.offline),
            configures: self.index.configured(&key),
            used_by,
            proxies: self.holders(&parts),
            conditions,
        })
    }

    fn holders(&self, parts: &[Part]) -> Vec<Holder> {
        let nodes = self.xds.nodes();
        nodes
            .iter()
            .filter_map(|node| holder(node, parts))
            .collect()
    }
}

/// `offline`: nobody knows what proxies have.
fn verdict(
    facts: &Facts,
    conditions: &[ConditionView],
    used_by: &[UsedPort],
    offline: bool,
) -> Verdict {
    let wrong = conditions.iter().filter(|c| c.status != "True");
    let mut causes: Vec<Cause> = wrong.map(|c| Cause::new(&c.reason, &c.message)).collect();
    causes.dedup();
    let programmed = conditions.iter().find(|c| c.kind == "Programmed");
    let reason = programmed.map_or("", |c| &c.reason);
    let answer = match programmed.map_or("", |c| &c.status) {
        "True" if reason == "NoProxies" && !offline => {
            let message = programmed.map(|c| c.message.clone()).unwrap_or_default();
            let cause = Cause::new(reason, message);
            causes.insert(0, cause.fix(
                "start the proxies with the address of Trimtab's xDS server; trimtab xds nodes lists those that are connected",
            ));
            Answer::No
        }
        "True" if causes.is_empty() => Answer::Yes,
        "True" => Answer::Partly,
        _ if facts.answers.holding > 0 && facts.in_force => Answer::Partly,
        // What proxies had before is left, if there was anything.
        _ if facts.in_force && (facts.retained || facts.write_error.is_some()) => Answer::Unknown,
        _ => Answer::No,
    };
    let told = matches!(answer, Answer::Yes | Answer::Partly);
    Verdict {
        answer,
        in_force: if told { ports(used_by) } else { String::new() },
        causes,
    }
}

fn ports(used_by: &[UsedPort]) -> String {
    let mut all: Vec<String> = used_by
        .iter()
        .map(|used| format!("{}:{}", used.host, used.port.number))
        .collect();
    all.sort();
    all.dedup();
    format!("at {}", trimtab_kit::condition::listed(&all))
}
