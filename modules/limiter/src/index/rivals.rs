//! EnvoyFilters of others that are for pods of a limiter.

use std::collections::BTreeMap;

use trimtab_mesh::model::{Labels, LimitPatches, PodGroup, selects};

use super::LimiterKey;
use super::targets::Targets;
use crate::input::{Order, Rival};
use crate::translate::PRIORITY;

impl Targets {
    /// EnvoyFilters of others that limit pods of a limiter, or change how they are limited, by namespace and name.
    pub(super) fn rivals(
        &self,
        key: &LimiterKey,
        scope: &str,
        selector: &Labels,
        sets: &[(String, Labels)],
    ) -> Vec<Rival> {
        let filters = self.filters.rows();
        if filters.is_empty() {
            return Vec::new();
        }
        let pods = self.pods.rows();
        let everywhere = scope == "*";
        let groups: Vec<&PodGroup> = if everywhere {
            let groups = pods.index().select_everywhere(selector);
            groups.map(AsRef::as_ref).collect()
        } else {
            let groups = pods.index().select(scope, selector);
            groups.map(AsRef::as_ref).collect()
        };
        let mut out = Vec::new();
        for (_, filter) in filters.iter() {
            let mut of_sets = BTreeMap::new();
            for (set, labels) in sets {
                let pods = groups.iter().filter(|group| selects(labels, &group.labels));
                let hits: Vec<bool> = pods.map(|group| self.is_for(filter, group)).collect();
                if hits.contains(&true) {
                    of_sets.insert(set.clone(), !hits.contains(&false));
                }
            }
            if of_sets.is_empty() {
                continue;
            }
            out.push(Rival {
                name: format!("{}/{}", filter.id.namespace, filter.id.name),
                priority: filter.priority,
                order: self.order(key, filter),
                sets: of_sets,
                patches: filter.patches.clone(),
            });
        }
        out
    }

    fn is_for(&self, filter: &LimitPatches, group: &PodGroup) -> bool {
        let namespace = &filter.id.namespace;
        let here = *namespace == self.root || *namespace == group.workload.namespace;
        let revision = filter.revision.as_deref();
        let read = revision.is_none_or(|r| group.revision.is_empty() || *r == *group.revision);
        here && read && selects(&filter.selector, &group.labels)
    }

    /// istiod goes by priority, then takes the root namespace first, then the older object; earlier releases take the root
    /// namespace first of all.
    fn order(&self, key: &LimiterKey, filter: &LimitPatches) -> Order {
        let by_priority = match filter.priority.cmp(&PRIORITY) {
            std::cmp::Ordering::Less => Order::Before,
            std::cmp::Ordering::Greater => Order::After,
            std::cmp::Ordering::Equal => Order::Unknown,
        };
        let by_namespace = match (
            *filter.id.namespace == *self.root,
            *key.namespace == *self.root,
        ) {
            (true, false) => Order::Before,
            (false, true) => Order::After,
            _ => return by_priority,
        };
        match by_priority {
            Order::Unknown => by_namespace,
            same if same == by_namespace => same,
            _ => Order::Unknown,
        }
    }
}
