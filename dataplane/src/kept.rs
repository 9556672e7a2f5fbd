//! Objects as they are served: in the place of one that proxies refuse, its last version that they took, or none.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::Resource;
use trimtab_mesh::Name;
use trimtab_mesh::table::{Row, Table, Whole};

use crate::isolate::Contributors;

/// One version of an object.
type Version<R> = (Arc<R>, u64);

struct Versions<R> {
    /// As `Kind namespace/name`.
    title: String,
    now: Version<R>,
    /// The last one that proxies had accepted when it was replaced.
    good: Option<Version<R>>,
}

/// What a row is called in messages.
type Title<R> = Box<dyn Fn(&Name, &R) -> String + Send + Sync>;

/// The objects of one kind, with the numbers of their changes.
pub(super) struct Kept<R: Row> {
    table: Arc<Table<R>>,
    title: Title<R>,
    /// Whether two versions say the same to proxies.
    same: fn(&R, &R) -> bool,
    known: BTreeMap<Name, Versions<R>>,
}

impl<R: Row> Kept<R> {
    /// Objects of `kind`.
    pub(super) fn new(kind: &'static str, table: Arc<Table<R>>, same: fn(&R, &R) -> bool) -> Self {
        Self::titled(table, same, move |(namespace, name), _| {
            format!("{kind} {namespace}/{name}")
        })
    }

    /// Objects that belong to others, which are blamed in their place.
    pub(super) fn titled(
        table: Arc<Table<R>>,
        same: fn(&R, &R) -> bool,
        title: impl Fn(&Name, &R) -> String + Send + Sync + 'static,
    ) -> Self {
        Self {
            table,
            title: Box::new(title),
            same,
            known: BTreeMap::new(),
        }
    }

    /// Takes changes over; each gets a number above `count`. `is_good` tells whether proxies have accepted what an object
    /// was until now. Adds the revisions of all objects to `revisions`.
    pub(super) fn refresh(
        &mut self,
        count: &mut u64,
        is_good: &dyn Fn(&str) -> bool,
        revisions: &mut Contributors,
    ) {
        let rows = self.table.rows();
        self.known.retain(|name, _| rows.get(name).is_some());
        for (name, row) in rows.iter() {
            let Some(versions) = self.known.get_mut(name) else {
                *count += 1;
                let versions = Versions {
                    title: (self.title)(name, row.as_ref()),
                    now: (row.clone(), *count),
                    good: None,
                };
                self.known.insert(name.clone(), versions);
                continue;
            };
            if (self.same)(&versions.now.0, row) {
                versions.now.0 = row.clone();
                continue;
            }
            *count += 1;
            let before = std::mem::replace(&mut versions.now, (row.clone(), *count));
            if is_good(&versions.title) {
                versions.good = Some(before);
            }
        }
        drop(rows);
        for versions in self.known.values() {
            let revision = revisions.entry(versions.title.clone()).or_default();
            *revision = versions.now.1.max(*revision);
        }
    }

    /// Objects that exist and cannot be decoded, and of which no older version is known.
    pub(super) fn undecodable(&self) -> impl Iterator<Item = Name> {
        let rows = self.table.rows();
        let names = rows.unreadable().filter(|name| rows.get(name).is_none());
        names.cloned().collect::<Vec<Name>>().into_iter()
    }

    fn versions<'a>(
        &'a self,
        is_held: &'a dyn Fn(&str) -> bool,
    ) -> impl Iterator<Item = (&'a str, &'a Version<R>)> {
        self.known.values().filter_map(|v| {
            let version = if is_held(&v.title) {
                v.good.as_ref()
            } else {
                Some(&v.now)
            };
            Some((v.title.as_str(), version?))
        })
    }

    /// What is served, by title.
    pub(super) fn chosen<'a>(
        &'a self,
        is_held: &'a dyn Fn(&str) -> bool,
    ) -> impl Iterator<Item = (&'a str, &'a Arc<R>)> {
        self.versions(is_held).map(|(title, (row, _))| (title, row))
    }

    /// What is served, with the revisions of it in `served`.
    pub(super) fn rows(
        &self,
        is_held: &dyn Fn(&str) -> bool,
        served: &mut Contributors,
    ) -> Vec<Arc<R>> {
        self.versions(is_held)
            .map(|(title, (row, revision))| {
                let known = served.entry(title.to_owned()).or_default();
                *known = (*revision).max(*known);
                row.clone()
            })
            .collect()
    }
}

impl<K: Resource + Send + Sync + 'static> Kept<Whole<K>> {
    /// As [`Self::rows`].
    pub(super) fn objects(
        &self,
        is_held: &dyn Fn(&str) -> bool,
        served: &mut Contributors,
    ) -> Vec<Arc<K>> {
        let rows = self.rows(is_held, served);
        rows.into_iter().map(|row| row.0.clone()).collect()
    }
}

/// A write of the status alone says nothing new.
pub(super) fn same_generation<K: Resource>(a: &Whole<K>, b: &Whole<K>) -> bool {
    let (a, b) = (a.meta(), b.meta());
    let counted = a.generation.is_some() && a.generation == b.generation && a.uid == b.uid;
    counted || (a.resource_version.is_some() && a.resource_version == b.resource_version)
}
