//! The resources of one type: plain data, read by sessions, changed by the cache.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::changelog::ChangeLog;
use crate::pins::{Pin, Pins};
use crate::scope::{Audience, Reach, Scope, View};

/// One resource, encoded once and shared by all streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The name that clients subscribe to.
    pub name: String,
    /// Version of the content, see [`content_version`].
    pub version: String,
    /// The encoded message, that is, the `value` of a `google.protobuf.Any` with the type URL of the table.
    pub body: Bytes,
    /// What the resource was made from, for example `default/a`; used to report a refusal where the user will see it.
    pub origin: String,
}

/// A resource and who may see it.
///
/// A name can have several variants with different scopes; a stream sees the first that admits it. So the listeners of
/// two groups of proxies can share a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scoped {
    /// What is served.
    pub resource: Resource,
    /// Whom it is served to.
    pub scope: Scope,
}

impl From<Resource> for Scoped {
    fn from(resource: Resource) -> Self {
        Self {
            resource,
            scope: Scope::All,
        }
    }
}

/// Version of a content: equal on all replicas and after a restart, so that a client that reconnects gets nothing new.
///
/// Give it a canonical form (sorted keys), not protobuf bytes: protobuf maps are encoded in an order that differs from
/// one process to the next.
///
/// ```
/// use trimtab_xds::content_version;
/// assert_eq!(content_version(b"a"), content_version(b"a"));
/// assert_ne!(content_version(b"a"), content_version(b"b"));
/// ```
pub fn content_version(canonical: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(canonical))
}

/// A resource, who sees it, and when it was published.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) resource: Arc<Resource>,
    pub(crate) scope: Scope,
    pub(crate) published: Instant,
}

impl Entry {
    pub(crate) fn version(&self) -> &str {
        &self.resource.version
    }
}

/// A name that changed, and whom that concerns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) name: Arc<str>,
    pub(crate) reach: Reach,
}

/// The variants of one name, in the order of preference; never empty.
type Variants = Vec<Arc<Entry>>;

/// All resources of one type, the log of their changes and the refusals.
///
/// A lookup is O(1) in the number of resources, an update is O(changed), and to list what a view sees is O(seen).
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: HashMap<Arc<str>, Variants>,
    /// Names with a variant for everyone, or for everyone with exceptions.
    public: HashSet<Arc<str>>,
    by_audience: HashMap<Audience, HashSet<Arc<str>>>,
    log: ChangeLog,
    pins: Pins,
}

impl Table {
    #[cfg(test)]
    pub(crate) fn with_log_capacity(capacity: usize) -> Self {
        Self {
            log: ChangeLog::with_capacity(capacity),
            ..Self::default()
        }
    }

    /// Removes, then sets; returns what really changed. The variants given for a name replace all that it had.
    pub(crate) fn apply(
        &mut self,
        set: Vec<Scoped>,
        remove: &[String],
        now: Instant,
    ) -> Vec<Change> {
        let mut changed = Vec::new();
        let kept: HashSet<&str> = set.iter().map(|s| s.resource.name.as_str()).collect();
        for name in remove.iter().filter(|name| !kept.contains(name.as_str())) {
            if let Some((name, variants)) = self.entries.remove_entry(name.as_str()) {
                self.pins.forget(&name);
                let reach = self.unlist(&name, &variants);
                changed.push(Change { name, reach });
            }
        }
        for (name, variants) in grouped(set) {
            changed.extend(self.set(name, variants, now));
        }
        for change in &changed {
            self.log.push(Arc::clone(&change.name));
        }
        changed
    }

    fn set(&mut self, name: Arc<str>, set: Vec<Scoped>, now: Instant) -> Option<Change> {
        let old = self.entries.get(&name).map_or(&[][..], Vec::as_slice);
        let same = |entry: &Entry, new: &Scoped| {
            entry.version() == new.resource.version && entry.scope == new.scope
        };
        if old.len() == set.len() && old.iter().zip(&set).all(|(entry, new)| same(entry, new)) {
            return None;
        }
        let variant = |new: Scoped| {
            // What stays keeps its time of publication.
            let kept = old.iter().find(|entry| same(entry, &new)).cloned();
            kept.unwrap_or_else(|| {
                Arc::new(Entry {
                    resource: Arc::new(new.resource),
                    scope: new.scope,
                    published: now,
                })
            })
        };
        let variants: Variants = set.into_iter().map(variant).collect();
        let old = self.entries.remove(&name).unwrap_or_default();
        let mut reach = self.unlist(&name, &old);
        for entry in &variants {
            reach.add(&entry.scope);
            match &entry.scope {
                Scope::All | Scope::Except(_) => {
                    self.public.insert(Arc::clone(&name));
                }
                Scope::Only(audiences) => {
                    for audience in audiences.iter() {
                        let names = self.by_audience.entry(audience.clone()).or_default();
                        names.insert(Arc::clone(&name));
                    }
                }
            }
        }
        self.entries.insert(Arc::clone(&name), variants);
        Some(Change { name, reach })
    }

    /// Takes a name out of the lists by audience; returns whom it was visible to.
    fn unlist(&mut self, name: &Arc<str>, variants: &[Arc<Entry>]) -> Reach {
        let mut reach = Reach::default();
        for entry in variants {
            reach.add(&entry.scope);
        }
        if reach.all {
            self.public.remove(name);
        }
        for audience in &reach.audiences {
            if let Some(names) = self.by_audience.get_mut(audience) {
                names.remove(name);
                if names.is_empty() {
                    self.by_audience.remove(audience);
                }
            }
        }
        reach
    }

    /// What a stream sees of a name.
    pub(crate) fn get(&self, name: &str, view: &View) -> Option<&Arc<Entry>> {
        let variants = self.entries.get(name)?;
        variants.iter().find(|entry| view.admits(&entry.scope))
    }

    /// Every variant of a name, whoever may see it.
    pub(crate) fn variants(&self, name: &str) -> &[Arc<Entry>] {
        self.entries.get(name).map_or(&[], Vec::as_slice)
    }

    /// Every name, whoever may see it.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.keys()
    }

    /// The names that a stream may see: all that it does, and those whose scope excepts it. A name with several variants
    /// may come more than once.
    pub(crate) fn visible<'a>(&'a self, view: &'a View) -> impl Iterator<Item = &'a Arc<str>> {
        let special = view.0.iter().filter_map(|a| self.by_audience.get(a));
        self.public.iter().chain(special.flatten())
    }

    /// Upper bound of the number of names that a stream sees.
    pub(crate) fn count_visible(&self, view: &View) -> usize {
        let special = view.0.iter().filter_map(|a| self.by_audience.get(a));
        self.public.len() + special.map(HashSet::len).sum::<usize>()
    }

    pub(crate) fn head(&self) -> u64 {
        self.log.head()
    }

    pub(crate) fn since(&self, cursor: u64) -> Option<impl Iterator<Item = &Arc<str>>> {
        self.log.since(cursor)
    }

    pub(crate) fn pin_of(&self, name: &str, node: &str) -> Option<&Pin> {
        self.pins.of(name, node)
    }

    /// Remembers a refusal; false if this node has already refused this very content.
    pub(crate) fn pin(&mut self, name: &Arc<str>, node: &str, pin: Pin) -> bool {
        if node.is_empty() || !self.entries.contains_key(name) {
            return true;
        }
        self.pins.put(name, node, pin)
    }

    pub(crate) fn unpin(&mut self, name: &str, node: &str) {
        self.pins.remove(name, node);
    }
}

/// Variants by name, names in the order of their first appearance; of two variants with the same scope the last counts.
fn grouped(set: Vec<Scoped>) -> Vec<(Arc<str>, Vec<Scoped>)> {
    let mut places: HashMap<Arc<str>, usize> = HashMap::with_capacity(set.len());
    let mut groups: Vec<(Arc<str>, Vec<Scoped>)> = Vec::with_capacity(set.len());
    for scoped in set {
        if let Some((_, group)) = places
            .get(scoped.resource.name.as_str())
            .and_then(|place| groups.get_mut(*place))
        {
            match group.iter_mut().find(|other| other.scope == scoped.scope) {
                Some(other) => *other = scoped,
                None => group.push(scoped),
            }
            continue;
        }
        let name: Arc<str> = scoped.resource.name.as_str().into();
        places.insert(Arc::clone(&name), groups.len());
        groups.push((name, vec![scoped]));
    }
    groups
}

/// The audiences that any resource names.
#[cfg(test)]
fn audiences(table: &Table) -> std::collections::BTreeSet<&Audience> {
    table.by_audience.keys().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use crate::pins::MAX_PINS_PER_NAME;

    fn resource(name: &str, version: &str) -> Scoped {
        scoped(name, version, Scope::All)
    }

    fn scoped(name: &str, version: &str, scope: Scope) -> Scoped {
        let resource = Resource {
            name: name.into(),
            version: version.into(),
            body: Bytes::new(),
            origin: String::new(),
        };
        Scoped { resource, scope }
    }

    fn space(name: &str) -> Audience {
        Audience::Namespace(name.into())
    }

    fn names(changes: &[Change]) -> Vec<&str> {
        changes.iter().map(|change| &*change.name).collect()
    }

    #[test]
    fn only_real_changes_count() {
        let mut table = Table::default();
        let now = Instant::now();
        let first = table.apply(vec![resource("a", "1"), resource("b", "1")], &[], now);
        assert_eq!(names(&first), ["a", "b"]);
        let second = table.apply(vec![resource("a", "1"), resource("b", "2")], &[], now);
        assert_eq!(names(&second), ["b"]);
        assert!(table.apply(vec![], &["gone".to_owned()], now).is_empty());
        let third = table.apply(vec![], &["a".to_owned()], now);
        assert_eq!(names(&third), ["a"]);
        assert_eq!(table.head(), 4);
    }

    #[test]
    fn a_name_that_is_removed_and_set_in_one_change_is_set() {
        let mut table = Table::default();
        let now = Instant::now();
        table.apply(vec![resource("a", "1")], &[], now);
        assert!(
            table
                .apply(vec![resource("a", "1")], &["a".to_owned()], now)
                .is_empty()
        );
        assert!(table.get("a", &View::default()).is_some());
    }

    #[test]
    fn the_first_variant_that_admits_a_view_is_what_it_sees() {
        let mut table = Table::default();
        let now = Instant::now();
        let only = Scope::only([space("x")]);
        table.apply(
            vec![
                scoped("a", "x", only.clone()),
                resource("a", "all"),
                scoped("b", "x", only),
            ],
            &[],
            now,
        );
        let x = View([space("x")].into());
        let seen = |name, view: &View| table.get(name, view).map(|e| e.version().to_owned());
        assert_eq!(seen("a", &x).as_deref(), Some("x"));
        assert_eq!(seen("a", &View::default()).as_deref(), Some("all"));
        assert_eq!(seen("b", &View::default()), None);
        let listed: BTreeSet<_> = table.visible(&x).map(|name| &**name).collect();
        assert_eq!(listed, ["a", "b"].into());
        assert_eq!(table.visible(&View::default()).count(), 1);
    }

    #[test]
    fn a_change_of_scope_is_a_change_for_those_before_and_those_after() {
        let mut table = Table::default();
        let now = Instant::now();
        table.apply(vec![scoped("a", "1", Scope::only([space("x")]))], &[], now);
        let moved = table.apply(vec![scoped("a", "1", Scope::only([space("y")]))], &[], now);
        let reach = Reach {
            all: false,
            audiences: [space("x"), space("y")].into(),
        };
        assert_eq!(
            moved,
            vec![Change {
                name: "a".into(),
                reach
            }]
        );
        assert_eq!(
            audiences(&table),
            [&space("y")].into(),
            "empty lists are dropped"
        );
        table.apply(vec![], &["a".to_owned()], now);
        assert!(audiences(&table).is_empty());
    }

    #[test]
    fn an_excepted_view_sees_the_variant_for_it_or_nothing() {
        let mut table = Table::default();
        let now = Instant::now();
        let (only, rest) = (Scope::only([space("x")]), Scope::except([space("x")]));
        let set = vec![
            scoped("a", "x", only),
            scoped("a", "rest", rest.clone()),
            scoped("b", "rest", rest.clone()),
        ];
        table.apply(set, &[], now);
        let x = View([space("x")].into());
        let seen = |table: &Table, name: &str, view: &View| {
            table.get(name, view).map(|e| e.version().to_owned())
        };
        assert_eq!(seen(&table, "a", &x).as_deref(), Some("x"));
        assert_eq!(seen(&table, "b", &x), None);
        for name in ["a", "b"] {
            let other = seen(&table, name, &View::default());
            assert_eq!(other.as_deref(), Some("rest"));
        }
        let again = vec![scoped("b", "rest", rest)];
        assert!(table.apply(again, &[], now).is_empty(), "nothing changed");
        let changed = table.apply(vec![resource("b", "rest")], &[], now);
        assert!(changed[0].reach.all);
        assert_eq!(seen(&table, "b", &x).as_deref(), Some("rest"));
        table.apply(vec![], &["a".to_owned(), "b".to_owned()], now);
        assert_eq!(table.visible(&x).count(), 0);
    }

    #[test]
    fn pins_report_a_content_once_keep_the_last_good_and_stay_bounded() {
        let mut table = Table::default();
        let now = Instant::now();
        table.apply(vec![resource("a", "1")], &[], now);
        let name: Arc<str> = "a".into();
        let good = table.get("a", &View::default()).cloned();
        let pin = |bad: &str, good| Pin {
            bad: bad.into(),
            good,
        };
        assert!(table.pin(&name, "n", pin("2", good)));
        assert!(
            !table.pin(&name, "n", pin("2", None)),
            "same content, same node"
        );
        assert!(table.pin(&name, "n", pin("3", None)));
        assert!(table.pin_of("a", "n").is_some_and(|pin| pin.good.is_some()));
        for node in 0..2 * MAX_PINS_PER_NAME {
            table.pin(&name, &format!("node-{node}"), pin("3", None));
        }
        assert_eq!(table.pins.nodes_of("a"), MAX_PINS_PER_NAME);
        table.apply(vec![], &["a".to_owned()], now);
        assert_eq!(
            table.pins.nodes_of("a"),
            0,
            "a removed resource takes its pins with it"
        );
    }
}
