//! Whether a fence is wanted. Pure.

use std::collections::BTreeMap;

use kube::ResourceExt;
use trimtab_crds::fence::{
    CREATED_BY, CREATED_BY_LABEL, ServiceFence, ServiceFenceSpec, WorkloadSelector,
};

use super::{Action, State};
use crate::config::LazyloadConfig;
use crate::object::FenceKey;

/// End of the names of fences for a pod label.
pub const WORKLOAD_IDENTITY: &str = ".workload.identity";

pub(super) fn decide(config: &LazyloadConfig, state: &State, key: &FenceKey) -> Option<Action> {
    let wanted = wanted(config, state, key);
    match (wanted, state.fences.get(key)) {
        (Some(selector), None) => Some(Action::Apply(Box::new(fence(config, key, selector)))),
        (Some(selector), Some(live)) if live.ours => {
            let revision = (!config.revision.is_empty()).then(|| config.revision.clone());
            (live.revision != revision)
                .then(|| Action::Apply(Box::new(fence(config, key, selector))))
        }
        (None, Some(live)) if live.ours => Some(Action::Delete {
            uid: live.uid.clone(),
        }),
        _ => None,
    }
}

/// The selector of a fence that is wanted.
fn wanted(config: &LazyloadConfig, state: &State, key: &FenceKey) -> Option<WorkloadSelector> {
    let from_service = || WorkloadSelector {
        from_service: true,
        ..WorkloadSelector::default()
    };
    if service_wanted(config, state, key) {
        return Some(from_service());
    }
    let pods = state.pods.get(key).is_some_and(|pods| !pods.is_empty());
    let (label, _) = label_key(config)?;
    let value = state.values.get(key)?;
    (pods && managed(config, state, &key.namespace)).then(|| WorkloadSelector {
        from_service: false,
        labels: BTreeMap::from([(label.to_owned(), value.clone())]),
    })
}

fn service_wanted(config: &LazyloadConfig, state: &State, key: &FenceKey) -> bool {
    let Some(service) = state.services.get(key).filter(|s| s.selects) else {
        return false;
    };
    let namespace = state.namespaces.get(&key.namespace);
    let labelled = |fenced: Option<bool>| fenced.filter(|_| config.fences.auto_fence);
    let lazy = |lazy: bool| lazy.then_some(true);
    let of_service = labelled(service.fenced).or(lazy(service.lazy));
    let of_namespace = namespace.and_then(|n| labelled(n.fenced).or(lazy(n.lazy)));
    let of_default = config.fences.auto_fence && config.fences.default_fence;
    of_service.or(of_namespace).unwrap_or(of_default) && managed(config, state, &key.namespace)
}

/// Whether the configuration lets the namespace have automatic fences.
fn managed(config: &LazyloadConfig, state: &State, namespace: &str) -> bool {
    let fences = &config.fences;
    let listed = |list: &str| list.split(',').any(|n| n.trim() == namespace);
    if listed(&fences.black_namespace_list) {
        return false;
    }
    if !fences.white_namespace_list.is_empty() && !listed(&fences.white_namespace_list) {
        return false;
    }
    if fences.management_selectors.is_empty() {
        return true;
    }
    let labels = state.namespaces.get(namespace).map(|n| &n.labels);
    fences.management_selectors.iter().any(|selector| {
        let has =
            |(key, value): (&String, &String)| labels.is_some_and(|l| l.get(key) == Some(value));
        selector.iter().all(has)
    })
}

/// Label key and alias of `fenceLabelKeyAlias`.
pub(super) fn label_key(config: &LazyloadConfig) -> Option<(&str, &str)> {
    let text = config.fences.fence_label_key_alias.as_str();
    if text.is_empty() {
        return None;
    }
    let (label, alias) = text.split_once(':').unwrap_or((text, ""));
    Some((label, if alias.is_empty() { "app" } else { alias }))
}

fn fence(config: &LazyloadConfig, key: &FenceKey, selector: WorkloadSelector) -> ServiceFence {
    let spec = ServiceFenceSpec {
        enable: true,
        workload_selector: Some(selector),
        ..ServiceFenceSpec::default()
    };
    let mut fence = ServiceFence::new(&key.name, spec);
    fence.metadata.namespace = Some(key.namespace.clone());
    let labels = fence.labels_mut();
    labels.insert(CREATED_BY_LABEL.to_owned(), CREATED_BY.to_owned());
    if !config.revision.is_empty() {
        labels.insert("istio.io/rev".to_owned(), config.revision.clone());
    }
    fence
}
