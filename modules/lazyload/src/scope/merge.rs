//! Several fences on one workload: istiod obeys one Sidecar of a pod, so that each must hold what all of them need.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use trimtab_crds::fence::ScopeSize;
use trimtab_mesh::names::covers;

use super::{EVERYTHING, Imports, Labels, NOTHING, Reason, Scope, size};
use crate::object::FenceKey;

/// What is written for several fences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Union {
    /// Entries of the Sidecar.
    pub entries: BTreeMap<String, BTreeSet<Reason>>,
    /// What istiod will import.
    pub imports: Imports,
    /// Size of the imports.
    pub size: ScopeSize,
}

impl Union {
    /// How many entries name something.
    pub fn named(&self) -> usize {
        self.entries.keys().filter(|e| *e != NOTHING).count()
    }
}

/// Unites scopes of one namespace: never narrower than any of them. Of no scope: nothing is imported.
pub fn merge<'a>(scopes: impl IntoIterator<Item = &'a Scope>) -> Union {
    let mut out = Union::default();
    for scope in scopes {
        for (entry, reasons) in &scope.entries {
            let all = out.entries.entry(entry.clone()).or_default();
            all.extend(reasons.iter().cloned());
        }
        let imports = &scope.imports;
        out.imports.services.extend(imports.services.clone());
        out.imports.routes.extend(imports.routes.clone());
        out.size.mesh_services = out.size.mesh_services.max(scope.size.mesh_services);
        out.size.mesh_bytes = out.size.mesh_bytes.max(scope.size.mesh_bytes);
    }
    settle(&mut out.entries);
    out.size = out.imports.size(&out.entries, &out.size);
    out
}

/// An entry for everything stands alone: istiod does not ask it for namespaces that have entries of their own.
/// One for nothing goes as soon as there is another.
pub(super) fn settle(entries: &mut BTreeMap<String, BTreeSet<Reason>>) {
    if entries.contains_key(EVERYTHING) {
        entries.retain(|entry, _| entry == EVERYTHING);
    } else if entries.is_empty() {
        entries.insert(NOTHING.to_owned(), BTreeSet::new());
    } else if entries.len() > 1 {
        entries.remove(NOTHING);
        fold(entries);
    }
}

/// What a wildcard of the same namespace imports needs no entry of its own: its reasons are those of the wildcard.
fn fold(entries: &mut BTreeMap<String, BTreeSet<Reason>>) {
    let wild = entries.keys().filter_map(|entry| entry.split_once('/'));
    let wild: Vec<(String, String)> = wild
        .filter(|(_, host)| host.starts_with('*'))
        .map(|(namespace, host)| (namespace.to_owned(), host.to_owned()))
        .collect();
    for (namespace, pattern) in wild {
        let within = |entry: &String| {
            let (owner, host) = entry.split_once('/')?;
            (owner == namespace && host != pattern && covers(&pattern, host)).then(|| entry.clone())
        };
        let within: Vec<String> = entries.keys().filter_map(within).collect();
        let folded: Vec<Reason> = within
            .iter()
            .filter_map(|entry| entries.remove(entry))
            .flatten()
            .collect();
        if let Some(reasons) = entries.get_mut(&format!("{namespace}/{pattern}")) {
            reasons.extend(folded);
        }
    }
}

impl Imports {
    /// Size of the imports of these entries; `mesh` gives the size of the mesh.
    pub(super) fn size(
        &self,
        entries: &BTreeMap<String, BTreeSet<Reason>>,
        mesh: &ScopeSize,
    ) -> ScopeSize {
        if entries.contains_key(EVERYTHING) {
            return ScopeSize {
                services: mesh.mesh_services,
                bytes: mesh.mesh_bytes,
                ..mesh.clone()
            };
        }
        let imported = self.services.values().chain(self.routes.values());
        let bytes = size::PROXY + imported.sum::<u64>();
        ScopeSize {
            services: i64::try_from(self.services.len()).unwrap_or(i64::MAX),
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            ..mesh.clone()
        }
    }
}

/// A fence that may select pods of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The fence.
    pub key: FenceKey,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Its pods.
    pub selector: Labels,
    /// Whether it wants a Sidecar and may have one.
    pub writes: bool,
}

impl Claim {
    fn age(&self) -> (Timestamp, &FenceKey) {
        (self.created.unwrap_or(Timestamp::MAX), &self.key)
    }
}

/// Whether all pods that `narrow` selects are selected by `wide`, by the labels alone.
pub(crate) fn contains(wide: &Labels, narrow: &Labels) -> bool {
    wide.iter().all(|(k, v)| narrow.get(k) == Some(v))
}

/// What becomes of a fence's Sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is written.
    Writes {
        /// Fences whose scopes must be united into it, sorted.
        with: Vec<FenceKey>,
        /// Those of them that select only some of the same pods: each Sidecar is written with the union, which istiod's
        /// documentation leaves undefined but which works, for the pods that both select get the same from each. A warning.
        partly: Vec<FenceKey>,
    },
    /// It is not written: this fence's Sidecar selects all of its pods and holds its scope.
    MergedInto(FenceKey),
}

/// Decides between a fence and the `others` that overlap with it. Only those that want a Sidecar count.
///
/// With equal selectors the oldest writes (creation, then name); with one inside the other, the wider one. A fence that
/// writes unites all that overlap with it, so that whichever Sidecar istiod takes for a pod has what each of its fences needs.
pub fn role(mine: &Claim, others: &[Claim]) -> Role {
    let others = || others.iter().filter(|o| o.writes && o.key != mine.key);
    let wider = others().filter(|o| {
        contains(&o.selector, &mine.selector)
            && (o.selector.len() < mine.selector.len() || o.age() < mine.age())
    });
    if let Some(writer) = wider.min_by_key(|o| (o.selector.len(), o.age())) {
        return Role::MergedInto(writer.key.clone());
    }
    let with: BTreeSet<FenceKey> = others().map(|o| o.key.clone()).collect();
    let partly: BTreeSet<FenceKey> = others()
        .filter(|o| !contains(&mine.selector, &o.selector))
        .map(|o| o.key.clone())
        .collect();
    Role::Writes {
        with: with.into_iter().collect(),
        partly: partly.into_iter().collect(),
    }
}
