//! Objects of one kind, pruned to what modules read, with change notices.
//!
//! A table is filled by one watch and shared by all modules. An event costs its object: a relist changes what differs and
//! drops what is gone, and tells each follower no more than that.

mod mesh;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Weak};

use kube::Resource;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::{ExportDefaults, Name};
pub use mesh::Mesh;

/// What is kept of an object.
pub trait Row: Debug + PartialEq + Send + Sync + Sized + 'static {
    /// The object that it is read from.
    type Object: Resource;
    /// How rows are found besides by name.
    type Index: Index<Self>;

    /// Reads an object. `None`: nobody needs to know of it.
    fn read(object: &Arc<Self::Object>, known: &Known<'_, Self>) -> Option<Self>;

    /// The row under these defaults of the mesh; `None`: it is as it is.
    fn under(&self, _defaults: &ExportDefaults) -> Option<Self> {
        None
    }
}

/// What is known when an object is read.
#[derive(Debug)]
pub struct Known<'a, R: Row> {
    /// The cluster domain, for short hosts.
    pub domain: &'a str,
    /// The rows, for what they share.
    pub index: &'a R::Index,
    /// The row of the object as it was.
    pub old: Option<&'a Arc<R>>,
}

/// How rows are found besides by name.
pub trait Index<R>: Debug + Default + Send + Sync {
    /// A row is new, changed or gone.
    fn change(&mut self, change: &Change<'_, R>);
}

impl<R> Index<R> for () {
    fn change(&mut self, _: &Change<'_, R>) {}
}

/// A row that is new, changed or gone.
#[derive(Debug)]
pub struct Change<'a, R> {
    /// Namespace and name of the object.
    pub name: &'a Name,
    /// The row before.
    pub old: Option<&'a Arc<R>>,
    /// The row now.
    pub new: Option<&'a Arc<R>>,
}

impl<R> Change<'_, R> {
    /// The rows before and now.
    pub fn rows(&self) -> impl Iterator<Item = &Arc<R>> {
        [self.old, self.new].into_iter().flatten()
    }
}

/// What is told of changes. Calls are synchronous and must be fast; the table has the change already.
pub trait Follower<R>: Send + Sync {
    /// A row is new, changed or gone.
    fn changed(&self, change: Change<'_, R>);

    /// An object cannot be decoded; its row stays.
    fn undecodable(&self, _name: &Name, _error: &str) {}
}

/// Rows by name, with what else they are found by.
#[derive(Debug)]
pub struct Rows<R: Row> {
    /// Each with the list that had it last.
    by_name: BTreeMap<Name, (u32, Arc<R>)>,
    index: R::Index,
    /// Of the mesh, for objects that do not say who sees them.
    defaults: ExportDefaults,
    /// Exist, but cannot be decoded.
    unreadable: BTreeSet<Name>,
    /// Number of lists that have begun: rows that the newest does not have are gone at its end.
    lists: u32,
    listed: bool,
}

impl<R: Row> Rows<R> {
    /// A row.
    pub fn get(&self, name: &Name) -> Option<&Arc<R>> {
        self.by_name.get(name).map(|(_, row)| row)
    }

    /// Rows by name, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Arc<R>)> {
        self.by_name.iter().map(|(name, (_, row))| (name, row))
    }

    /// Rows of a namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = (&Name, &Arc<R>)> {
        let from = (namespace.to_owned(), String::new());
        let rows = self.by_name.range(from..);
        let here = rows.take_while(move |((owner, _), _)| owner == namespace);
        here.map(|(name, (_, row))| (name, row))
    }

    /// How rows are found besides by name.
    pub fn index(&self) -> &R::Index {
        &self.index
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether there was a complete list.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// Objects that exist, but cannot be decoded.
    pub fn unreadable(&self) -> impl Iterator<Item = &Name> {
        self.unreadable.iter()
    }
}

/// The objects of one kind.
pub struct Table<R: Row> {
    domain: Arc<str>,
    rows: RwLock<Rows<R>>,
    followers: RwLock<Vec<Weak<dyn Follower<R>>>>,
    /// Held from a change until all have heard of it: objects and defaults come by different watches, and followers are
    /// told in the order of the changes.
    turn: Mutex<()>,
}

impl<R: Row> Debug for Table<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.rows.read().fmt(f)
    }
}

/// Namespace and name of an object.
pub fn name_of<K: Resource>(object: &K) -> Name {
    let meta = object.meta();
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

impl<R: Row> Table<R> {
    /// An empty table.
    pub fn new(domain: &str) -> Arc<Self> {
        let rows = Rows {
            by_name: BTreeMap::new(),
            index: R::Index::default(),
            defaults: ExportDefaults::default(),
            unreadable: BTreeSet::new(),
            lists: 0,
            listed: false,
        };
        Arc::new(Self {
            domain: domain.into(),
            rows: RwLock::new(rows),
            followers: RwLock::default(),
            turn: Mutex::default(),
        })
    }

    /// Tells `follower` of changes from now on, for as long as somebody else holds it. Followers are told in the order in
    /// which they came.
    pub fn follow(&self, follower: &Arc<impl Follower<R> + 'static>) {
        let follower: Arc<dyn Follower<R>> = follower.clone();
        self.followers.write().push(Arc::downgrade(&follower));
    }

    /// The rows. Changes wait while the guard lives.
    pub fn rows(&self) -> RwLockReadGuard<'_, Rows<R>> {
        self.rows.read()
    }

    /// A row.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<R>> {
        let name = (namespace.to_owned(), name.to_owned());
        self.rows.read().get(&name).cloned()
    }

    fn read(&self, object: &Arc<R::Object>, name: &Name) -> Option<R> {
        let rows = self.rows.read();
        let known = Known {
            domain: &self.domain,
            index: &rows.index,
            old: rows.get(name),
        };
        R::read(object, &known)
    }

    /// An object is new or changed, or one of a list.
    pub fn put(&self, object: &Arc<R::Object>) {
        let name = name_of(object.as_ref());
        let Some(row) = self.read(object, &name) else {
            return self.remove(&name);
        };
        let _turn = self.turn.lock();
        let mut rows = self.rows.write();
        let row = row.under(&rows.defaults).unwrap_or(row);
        let lists = rows.lists;
        // Followers are told that it is readable again.
        let readable = !rows.unreadable.remove(&name);
        if let Some((list, old)) = rows.by_name.get_mut(&name)
            && **old == row
            && readable
        {
            *list = lists;
            return;
        }
        let row = Arc::new(row);
        let old = rows.by_name.insert(name.clone(), (lists, row.clone()));
        let old = old.map(|(_, old)| old);
        let change = Change {
            name: &name,
            old: old.as_ref(),
            new: Some(&row),
        };
        rows.index.change(&change);
        drop(rows);
        self.tell(&change);
    }

    /// An object is gone. Of one that never could be decoded followers are told without a row.
    pub fn remove(&self, name: &Name) {
        let _turn = self.turn.lock();
        let mut rows = self.rows.write();
        let unreadable = rows.unreadable.remove(name);
        let old = rows.by_name.remove(name).map(|(_, old)| old);
        if old.is_none() && !unreadable {
            return;
        }
        let change = Change {
            name,
            old: old.as_ref(),
            new: None,
        };
        rows.index.change(&change);
        drop(rows);
        self.tell(&change);
    }

    /// The mesh has these defaults now. Followers are told of the rows that this changes.
    fn export_by(&self, defaults: &ExportDefaults) {
        let _turn = self.turn.lock();
        let mut rows = self.rows.write();
        if rows.defaults == *defaults {
            return;
        }
        rows.defaults.clone_from(defaults);
        let mut changed = Vec::new();
        for (name, (_, row)) in &mut rows.by_name {
            if let Some(new) = row.under(defaults) {
                let new = Arc::new(new);
                let old = std::mem::replace(row, new.clone());
                changed.push((name.clone(), old, new));
            }
        }
        let change = |(name, old, new)| Change {
            name,
            old: Some(old),
            new: Some(new),
        };
        for (name, old, new) in &changed {
            rows.index.change(&change((name, old, new)));
        }
        drop(rows);
        for (name, old, new) in &changed {
            self.tell(&change((name, old, new)));
        }
    }

    /// A list begins; each of its objects is [`put`](Self::put).
    pub fn begin(&self) {
        self.rows.write().lists += 1;
    }

    /// The list is complete: what was not in it is gone, but for what is `unreadable`.
    pub fn end(&self, unreadable: &[Name]) {
        let mut rows = self.rows.write();
        rows.listed = true;
        let there: BTreeSet<Name> = unreadable.iter().cloned().collect();
        let lists = rows.lists;
        let old = rows.by_name.iter().filter(|(_, (list, _))| *list != lists);
        let old = old.map(|(name, _)| name).chain(&rows.unreadable);
        let gone: BTreeSet<Name> = old.filter(|name| !there.contains(*name)).cloned().collect();
        rows.unreadable.extend(there);
        drop(rows);
        for name in &gone {
            self.remove(name);
        }
    }

    /// A complete list.
    pub fn replace(&self, objects: &[Arc<R::Object>]) {
        self.begin();
        for object in objects {
            self.put(object);
        }
        self.end(&[]);
    }

    /// An object exists, but cannot be decoded; its row stays.
    pub fn undecodable(&self, name: &Name, error: &str) {
        self.rows.write().unreadable.insert(name.clone());
        let followers = self.followers.read();
        for follower in followers.iter().filter_map(Weak::upgrade) {
            follower.undecodable(name, error);
        }
    }

    fn tell(&self, change: &Change<'_, R>) {
        let followers = self.followers.read();
        for follower in followers.iter().filter_map(Weak::upgrade) {
            let Change { name, old, new } = *change;
            follower.changed(Change { name, old, new });
        }
    }
}

/// Rows of some objects, sorted by name.
pub fn read<R: Row>(
    domain: &str,
    objects: impl IntoIterator<Item = Arc<R::Object>>,
) -> Vec<Arc<R>> {
    let table = Table::<R>::new(domain);
    for object in objects {
        table.put(&object);
    }
    let rows = table.rows();
    rows.iter().map(|(_, row)| row.clone()).collect()
}

/// Objects that are kept as they are: for kinds of which there are few.
pub struct Whole<K>(pub Arc<K>);

impl<K> Debug for Whole<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Whole").finish_non_exhaustive()
    }
}

impl<K> std::ops::Deref for Whole<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.0
    }
}

/// Each write gives an object another version.
impl<K: Resource> PartialEq for Whole<K> {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.0.meta(), other.0.meta());
        a.resource_version.is_some() && a.resource_version == b.resource_version && a.uid == b.uid
    }
}

impl<K: Resource + Send + Sync + 'static> Row for Whole<K> {
    type Object = K;
    type Index = ();

    fn read(object: &Arc<K>, _: &Known<'_, Self>) -> Option<Self> {
        Some(Self(object.clone()))
    }
}

/// Keys that other objects name a row by, such as its hosts.
pub trait Keyed {
    /// The keys; one may come twice.
    fn keys(&self) -> impl Iterator<Item = &str>;
}

/// Names of rows by their keys.
#[derive(Debug, Default)]
pub struct ByKey(HashMap<Box<str>, BTreeSet<Name>>);

impl<R: Keyed> Index<R> for ByKey {
    fn change(&mut self, change: &Change<'_, R>) {
        for key in change.old.iter().flat_map(|row| row.keys()) {
            if let Some(names) = self.0.get_mut(key) {
                names.remove(change.name);
                if names.is_empty() {
                    self.0.remove(key);
                }
            }
        }
        for key in change.new.iter().flat_map(|row| row.keys()) {
            let names = self.0.entry(key.into()).or_default();
            names.insert(change.name.clone());
        }
    }
}

impl ByKey {
    /// Whether a row has a key.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Names of the rows with a key, sorted.
    pub fn names(&self, key: &str) -> impl Iterator<Item = &Name> {
        self.0.get(key).into_iter().flatten()
    }
}

/// Indexes that find rows by their keys.
pub trait HasKeys {
    /// Names by keys.
    fn by_key(&self) -> &ByKey;
}

impl HasKeys for ByKey {
    fn by_key(&self) -> &ByKey {
        self
    }
}

impl<R: Row<Index: HasKeys>> Rows<R> {
    /// Rows with a key, by name.
    pub fn of(&self, key: &str) -> impl Iterator<Item = (&Name, &Arc<R>)> {
        let names = self.index.by_key().names(key);
        names.filter_map(|name| Some((name, self.get(name)?)))
    }
}

#[cfg(test)]
mod tests;
