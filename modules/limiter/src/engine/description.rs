//! Gathers what `trimtab describe smartlimiter` tells.

use std::collections::{BTreeMap, BTreeSet};

use trimtab_crds::limiter::{BASE_SET, Delivery, Descriptor, DescriptorStatus, Mode};
use trimtab_kit::answers::Part;
use trimtab_kit::condition::listed;
use trimtab_kit::describe::{ConditionView, Holder, Holding, holder, pod_of};
use trimtab_kit::envoyfilter::RoutePlace;
use trimtab_kit::sources::Sampler;
use trimtab_mesh::model::LimitChange;
use trimtab_xds::NodeInfo;

use super::entry::Entry;
use super::{Engine, sample_key};
use crate::decide::metric_key;
use crate::describe::{
    Description, Facts, OtherLimit, PortDescription, RuleDescription, SetDescription,
    TargetDescription, ValueDescription, verdict,
};
use crate::index::{Form, LimiterKey, PodProxy, nearest};
use crate::input::{LimiterInput, Proxies, TargetProblem};

impl Engine {
    /// Why there is nothing to describe.
    pub fn missing(&self, namespace: &str, name: &str) -> String {
        let near = self.index.limiters_like(namespace, name);
        let hint = if near.is_empty() {
            String::new()
        } else {
            format!("; there are {}", near.join(", "))
        };
        format!("there is no SmartLimiter {namespace}/{name}{hint}")
    }

    /// All that is known of a limiter; `None`: there is none.
    pub fn description(&self, namespace: &str, name: &str) -> Option<Description> {
        let nodes = self.xds.nodes();
        let keys = [Form::V1alpha2, Form::First].map(|form| LimiterKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            form,
        });
        let mut entries = self.entries.lock();
        let key = keys.iter().find(|key| entries.contains_key(key))?;
        let entry = entries.get_mut(key)?;
        entry.refresh_status(&self.answers, self.clock.now());
        let mut parts = entry.parts();
        if entry.input.settings.proxies == Proxies::Plain {
            parts.extend(self.answers.parts_of(&key.title()));
        }
        let entry = entries.get(key)?;
        let mut out = entry.describe();
        out.follows = !self.leads.load(std::sync::atomic::Ordering::Relaxed);
        out.rules = self.rules(key, entry);
        out.others = others(entry, |name| {
            let (namespace, name) = name.split_once('/')?;
            let forms = [Form::V1alpha2, Form::First].into_iter();
            let mut keys = forms.map(|form| LimiterKey {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                form,
            });
            keys.find_map(|key| entries.get(&key))
        });
        let other_form = key.form == Form::V1alpha2 && entries.contains_key(&keys[1]);
        let input = entry.input.clone();
        let outputs = out.outputs.clone();
        drop(entries);
        let pods = self.pods(key, &input);
        out.proxies = holders(&input, &pods, &nodes, &parts, &outputs);
        let mut facts = self.facts(key, &input);
        facts.other_form = other_form;
        out.verdict = verdict(&out, &facts);
        Some(out)
    }

    fn pods(&self, key: &LimiterKey, input: &LimiterInput) -> Vec<PodProxy> {
        let everywhere = !input.spec.workload_selector.is_empty();
        let revision = input.owner.revision.as_deref();
        let selector = &input.target.selector;
        self.index
            .proxies(key, everywhere, selector, input.spec.gateway, revision)
    }

    fn facts(&self, key: &LimiterKey, input: &LimiterInput) -> Facts {
        let reaches = input.target.sets.values().filter_map(|s| s.reach.as_ref());
        let around = reaches.clone().any(|reach| !reach.around.is_empty());
        let gaps = reaches.flat_map(|reach| reach.without.keys().copied());
        let mut near: BTreeMap<&'static str, String> = BTreeMap::new();
        if input.target.problem == Some(TargetProblem::ServiceNotFound) {
            let names = self.index.services_like(&key.namespace, &key.name);
            if !names.is_empty() {
                let text = format!("did you mean Service {}?", names.join(" or "));
                near.insert("ServiceNotFound", text);
            }
        }
        let base = input.target.sets.get(BASE_SET);
        if base.is_some_and(|set| set.pods == 0) {
            let selector = &input.target.selector;
            let labels = self.index.other_labels(&key.namespace, selector);
            if !labels.is_empty() {
                let text = format!("pods of the namespace have {}", labels.join(", "));
                near.insert("NoPods", text);
            }
        }
        Facts {
            gaps: gaps.collect(),
            around,
            gateway: input.spec.gateway,
            near,
            other_form: false,
        }
    }

    fn rules(&self, key: &LimiterKey, entry: &Entry) -> Vec<RuleDescription> {
        let sampler = self.sampler.lock();
        let rules = entry.validated.rules.iter();
        rules
            .map(|checked| {
                let decision = entry.shown().iter().find(|d| {
                    d.set == checked.set && usize::try_from(d.index) == Ok(checked.index)
                });
                let mut out = entry.rule(checked, decision);
                if let Some(rule) = checked.in_force() {
                    let names: BTreeSet<&String> = rule
                        .condition
                        .names()
                        .iter()
                        .chain(rule.quota.names())
                        .collect();
                    out.values = names
                        .into_iter()
                        .map(|name| self.value(key, entry, &rule.set, name, &sampler))
                        .collect();
                }
                out
            })
            .collect()
    }

    fn value(
        &self,
        key: &LimiterKey,
        entry: &Entry,
        set: &str,
        name: &str,
        sampler: &Sampler,
    ) -> ValueDescription {
        let full = metric_key(&entry.input, set, name);
        let (of_set, bare) = full.split_once('.').unwrap_or((set, name));
        let reading = entry.input.metrics.get(&full);
        let age = sampler.age(&sample_key(key, of_set), bare, self.clock.monotonic());
        ValueDescription {
            name: name.to_owned(),
            value: reading.and_then(|r| r.value),
            state: reading.map(|r| r.state),
            age_seconds: age.map(|age| age.as_secs_f64()),
            source: self.source(&entry.input, bare),
            failure: reading.and_then(|r| r.failure.clone()),
            near: near(&entry.input, bare).filter(|_| reading.is_none()),
        }
    }

    /// Where a metric comes from, in words.
    fn source(&self, input: &LimiterInput, bare: &str) -> String {
        let own = input.spec.metrics.iter().find(|(name, _)| {
            let rest = bare.strip_prefix(name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        if let Some((name, query)) = own {
            let words: Vec<&str> = query.query.split_whitespace().collect();
            return format!("spec.metrics.{name}, query {}", words.join(" "));
        }
        let source = self
            .sources
            .iter()
            .find(|s| s.provides().iter().any(|n| n == bare));
        match source {
            Some(source) => source.origin(bare),
            None if bare == "pod" => "the Ready pods of the set".to_owned(),
            None if bare.starts_with('{') && input.settings.prometheus => "prometheus".to_owned(),
            None => "nowhere: no source has it".to_owned(),
        }
    }
}

/// The known name that is nearest to one that is not known.
fn near(input: &LimiterInput, bare: &str) -> Option<String> {
    let known = input.settings.known_metrics.iter();
    let known = known.chain(input.spec.metrics.keys()).cloned();
    let known: BTreeSet<String> = known.chain(["pod".to_owned()]).collect();
    let unknown = !known.contains(bare);
    nearest(bare, known).into_iter().next().filter(|_| unknown)
}

impl Entry {
    /// What it says of itself alone.
    fn describe(&self) -> Description {
        let input = &self.input;
        let owner = &input.owner;
        let filters = self.desired().unwrap_or_default();
        let filters = filters.iter().map(|filter| {
            let name = filter.metadata.name.as_deref().unwrap_or_default();
            format!("EnvoyFilter {}/{name}", owner.namespace)
        });
        let resources = self.parts().into_iter().map(|part| {
            let versions: Vec<&str> = part.versions.iter().map(String::as_str).collect();
            format!("ECDS {} version {}", part.name, versions.join(" and "))
        });
        let conditions = self.latest_conditions();
        Description {
            api_version: owner.api_version.clone(),
            namespace: owner.namespace.clone(),
            name: owner.name.clone(),
            mode: match input.spec.mode {
                Mode::Enforce => "Enforce",
                Mode::Shadow => "Shadow",
            }
            .to_owned(),
            delivery: match input.delivery() {
                Delivery::EnvoyFilter => "EnvoyFilter",
                Delivery::Ecds => "ECDS",
            }
            .to_owned(),
            target: target(input),
            outputs: filters.chain(resources).collect(),
            conditions: conditions.iter().map(ConditionView::from).collect(),
            ..Description::default()
        }
    }

    fn rule(
        &self,
        checked: &crate::validate::Checked,
        decision: Option<&DescriptorStatus>,
    ) -> RuleDescription {
        let descriptors = self.input.spec.sets.get(&checked.set);
        let descriptor = descriptors.and_then(|set| set.get(checked.index));
        let descriptor = descriptor.cloned().unwrap_or_default();
        let limits = self.limits();
        let limit = limits
            .iter()
            .find(|l| l.set == checked.set && usize::try_from(l.index) == Ok(checked.index));
        let undecided = || DescriptorStatus {
            reason: "not decided yet: its metrics are sampled for the first time".to_owned(),
            ..DescriptorStatus::default()
        };
        let decision = decision.cloned().unwrap_or_else(undecided);
        let places = checked.in_force().map(|rule| rule.places.as_slice());
        let interval = limit.map(|l| l.interval.clone()).unwrap_or_default();
        RuleDescription {
            path: self
                .input
                .owner
                .descriptor_path(&checked.set, checked.index),
            set: checked.set.clone(),
            state: decision.state,
            condition: if descriptor.condition.is_empty() {
                "true".to_owned()
            } else {
                descriptor.condition.clone()
            },
            quota: quota(&descriptor),
            strategy: descriptor
                .action
                .strategy
                .clone()
                .unwrap_or_else(|| "single".to_owned()),
            each_proxy: limit.map(|l| format!("{}/{}", l.requests, l.interval)),
            per_second: limit.map(|l| l.per_second),
            all_proxies: decision.total.map(|total| format!("{total}/{interval}")),
            reason: decision.reason,
            adaptive: decision.adaptive,
            refusal: decision.refusal,
            values: Vec::new(),
            matches: descriptor
                .matches
                .iter()
                .filter_map(|m| serde_json::to_string(m).ok())
                .collect(),
            places: places.into_iter().flatten().map(place).collect(),
        }
    }
}

fn quota(descriptor: &Descriptor) -> String {
    let action = &descriptor.action;
    if action.strategy.as_deref() == Some("adaptive") {
        return "found by Trimtab".to_owned();
    }
    let interval = action.fill_interval.unwrap_or_default().to_proto_json();
    format!("{} in {interval}", action.quota)
}

fn place(place: &RoutePlace) -> String {
    let side = match place.context {
        trimtab_kit::envoyfilter::PatchContext::Gateway => "gateway",
        trimtab_kit::envoyfilter::PatchContext::SidecarInbound => "inbound",
        trimtab_kit::envoyfilter::PatchContext::SidecarOutbound => "outbound",
    };
    let vhost = place.vhost.as_deref().unwrap_or("each virtual host");
    let route = place.route.as_ref();
    let route = route.map_or_else(String::new, |route| format!(", route {route}"));
    format!("{side}: {vhost}{route}")
}

fn target(input: &LimiterInput) -> TargetDescription {
    let spec = &input.spec;
    let owner = &input.owner;
    let what = if spec.gateway {
        "gateways of spec.workloadSelector".to_owned()
    } else if !spec.workload_selector.is_empty() {
        "pods of spec.workloadSelector".to_owned()
    } else if let Some(host) = &spec.host {
        format!("ServiceEntry with host {host} (spec.host)")
    } else {
        format!("Service {}/{} (metadata.name)", owner.namespace, owner.name)
    };
    let selector = &input.target.selector;
    let labels: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let sets = input.target.sets.iter().map(|(name, set)| SetDescription {
        name: name.clone(),
        pods: set.pods,
        proxies: set.reach.as_ref().map(|reach| reach.proxies),
    });
    let ports = input.target.ports.iter().copied();
    let ports = ports.map(PortDescription::of);
    TargetDescription {
        what,
        selector: labels.join(","),
        ports: ports.collect(),
        sets: sets.collect(),
    }
}

/// Other limiters of the same pods and ports, and EnvoyFilters of others.
fn others<'a>(entry: &'a Entry, find: impl Fn(&str) -> Option<&'a Entry>) -> Vec<OtherLimit> {
    let neighbours = entry.input.target.neighbours.keys().map(|name| {
        let other = find(name);
        let least = other.and_then(|other| {
            let limits = other.limits().into_iter();
            let least = limits.min_by(|a, b| a.per_second.total_cmp(&b.per_second))?;
            let enforces = other.input.spec.mode == Mode::Enforce;
            enforces.then_some(least)
        });
        OtherLimit {
            object: format!("SmartLimiter {name}"),
            does: least.as_ref().map_or_else(
                || "no limit in force".to_owned(),
                |least| format!("{}/{} for each proxy", least.requests, least.interval),
            ),
            per_second: least.map(|least| least.per_second),
        }
    });
    let rivals = entry.input.target.rivals.iter().map(|rival| {
        let mut texts: Vec<String> = rival.patches.iter().map(|p| does(&p.does)).collect();
        texts.dedup();
        let all = rival.sets.get(BASE_SET).copied().unwrap_or_default();
        let some = if all { "" } else { " (some of the pods)" };
        OtherLimit {
            object: format!("EnvoyFilter {}", rival.name),
            does: format!("{}, priority {}{some}", listed(&texts), rival.priority),
            per_second: None,
        }
    });
    neighbours.chain(rivals).collect()
}

fn does(change: &LimitChange) -> String {
    let names = |names: &BTreeSet<String>| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        names.join(" and ")
    };
    match change {
        LimitChange::Inserts(name) => format!("inserts the filter {name}"),
        LimitChange::Removes(name) => format!("removes or replaces the filter {name}"),
        LimitChange::RemovesAll => "removes or replaces all HTTP filters".to_owned(),
        LimitChange::Routes(all) => format!("configures {} on routes", names(all)),
        LimitChange::VirtualHosts(all) => format!("configures {} on virtual hosts", names(all)),
        LimitChange::RouteActions => "gives routes rate_limits of their own".to_owned(),
    }
}

/// What each proxy has.
fn holders(
    input: &LimiterInput,
    pods: &[PodProxy],
    nodes: &[NodeInfo],
    parts: &[Part],
    outputs: &[String],
) -> Vec<Holder> {
    if input.settings.proxies == Proxies::Plain {
        return nodes
            .iter()
            .filter_map(|node| holder(node, parts))
            .collect();
    }
    let mut by_pod: BTreeMap<String, Vec<&NodeInfo>> = BTreeMap::new();
    for node in nodes {
        if let Some(pod) = pod_of(&node.id) {
            by_pod.entry(pod).or_default().push(node);
        }
    }
    let of_pod = |pod: &PodProxy| {
        let (holding, detail) = if let Some(gap) = pod.gap {
            (Holding::NoProxy, gap.title(input.spec.gateway).to_owned())
        } else if outputs.is_empty() {
            (
                Holding::NotTold,
                "there is nothing for it to have".to_owned(),
            )
        } else if input.settings.proxies == Proxies::Offline {
            (Holding::NotTold, "files do not tell what it has".to_owned())
        } else if input.delivery() == Delivery::EnvoyFilter {
            let detail = "the EnvoyFilter selects it; istiod does not tell whether it was accepted: istioctl proxy-status";
            (Holding::NotTold, detail.to_owned())
        } else {
            let nodes = by_pod.get(&pod.name).into_iter().flatten();
            let all = nodes.filter_map(|node| holder(node, parts));
            let newest = all.max_by_key(|h| h.holding);
            newest.map_or_else(
                || {
                    let detail = "it does not ask Trimtab's xDS server for the limit: look for its connection in trimtab xds nodes, and in its log";
                    (Holding::NotConnected, detail.to_owned())
                },
                |h| (h.holding, h.detail),
            )
        };
        let ready = if pod.ready { "" } else { " (not Ready)" };
        let revision = if pod.revision.is_empty() {
            String::new()
        } else {
            format!(", revision {}", pod.revision)
        };
        Holder {
            proxy: pod.name.clone(),
            holding,
            detail: format!("{detail}{revision}{ready}"),
        }
    };
    pods.iter().map(of_pod).collect()
}
