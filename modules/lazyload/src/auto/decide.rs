//! Whether a fence is wanted. Pure.

use std::collections::BTreeMap;

use kube::ResourceExt;
use trimtab_crds::fence::{
    CREATED_BY, CREATED_BY_LABEL, FENCED_LABEL, LAZY_XDS_ANNOTATION, ServiceFence,
    ServiceFenceSpec, WorkloadSelector,
};
use trimtab_kit::generated::REVISION_LABEL;
use trimtab_mesh::model::{Labels, Pod};

use super::{Action, State};
use crate::config::LazyloadConfig;
use crate::mesh::Fence;
use crate::object::FenceKey;

/// End of the names of fences for a pod label.
pub const WORKLOAD_IDENTITY: &str = ".workload.identity";

pub(super) fn decide(config: &LazyloadConfig, state: &State, key: &FenceKey) -> Option<Action> {
    let wanted = wanted(config, state, key);
    let live = state.fences.get(&key.namespace, &key.name);
    match (wanted, live) {
        (Some(selector), None) => Some(Action::Apply(Box::new(fence(config, key, selector)))),
        (Some(selector), Some(live)) if is_ours(&live) => {
            let revision = (!config.revision.is_empty()).then_some(&config.revision);
            (live.labels.get(REVISION_LABEL) != revision)
                .then(|| Action::Apply(Box::new(fence(config, key, selector))))
        }
        (None, Some(live)) if is_ours(&live) => Some(Action::Delete {
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
    let (label, _) = label_key(config)?;
    let (value, _) = state.pods.get(key)?;
    managed(config, state, &key.namespace).then(|| WorkloadSelector {
        from_service: false,
        labels: BTreeMap::from([(label.to_owned(), value.clone())]),
    })
}

/// What labels say, with `autoFence` only.
fn fenced(labels: &Labels, config: &LazyloadConfig) -> Option<bool> {
    match labels.get(FENCED_LABEL).map(String::as_str) {
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => None,
    }
    .filter(|_| config.fences.auto_fence)
}

fn lazy(annotations: &Labels) -> Option<bool> {
    let value = annotations.get(LAZY_XDS_ANNOTATION)?;
    value.eq_ignore_ascii_case("true").then_some(true)
}

fn service_wanted(config: &LazyloadConfig, state: &State, key: &FenceKey) -> bool {
    let Some(service) = state.services.get(&key.namespace, &key.name) else {
        return false;
    };
    // An alias selects nothing, whatever is written.
    if service.selector.is_empty() || service.external_name.is_some() {
        return false;
    }
    let of_service = fenced(&service.labels, config).or(lazy(&service.annotations));
    let namespace = state.namespaces.get("", &key.namespace);
    let of_namespace = namespace.and_then(|n| fenced(&n.labels, config).or(lazy(&n.annotations)));
    let of_default = config.fences.auto_fence && config.fences.default_fence;
    of_service.or(of_namespace).unwrap_or(of_default)
        && managed(config, state, &key.namespace)
        && any_obeys(state, &key.namespace, &service.selector)
}

/// Whether a Sidecar has an effect on the pods of a selector, or will have when there are any: gateways obey none.
fn any_obeys(state: &State, namespace: &str, selector: &Labels) -> bool {
    let row = state.namespaces.get("", namespace);
    let rows = state.rows.rows();
    let pods = rows.of_groups(rows.index().select(namespace, selector));
    let outside = |pod: &Pod| pod.capture.outside(pod.is_ambient(row.as_deref()));
    pods.is_empty() || pods.iter().any(|pod| outside(pod).is_none())
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
    let row = state.namespaces.get("", namespace);
    let labels = row.map(|n| n.labels.clone()).unwrap_or_default();
    let mut selectors = fences.management_selectors.iter();
    selectors.any(|selector| selector.selects(&labels))
}

/// Whether Trimtab made a fence.
fn is_ours(fence: &Fence) -> bool {
    fence
        .labels
        .get(CREATED_BY_LABEL)
        .is_some_and(|by| by == CREATED_BY)
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
        labels.insert(REVISION_LABEL.to_owned(), config.revision.clone());
    }
    fence
}
