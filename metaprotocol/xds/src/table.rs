//! The resources of one type: plain data, read by sessions, changed by the cache.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::changelog::ChangeLog;
use crate::entry::{Entry, Variants};
use crate::pins::{Pin, Pins};
use crate::roster::Roster;
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

/// A name that changed, and whom that concerns.
#[derive(Debug)]
pub(crate) struct Change {
    /// A variant of the name, to tell its name without another copy.
    entry: Arc<Entry>,
    pub(crate) reach: Reach,
}

impl Change {
    fn new(variants: &Variants, reach: Reach) -> Option<Self> {
        let entry = Arc::clone(variants.all().first()?);
        Some(Self { entry, reach })
    }

    pub(crate) fn name(&self) -> &str {
        self.entry.name()
    }
}

/// What a stream can see at one moment, at no cost: it stays as it is while the table changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Names with a variant for everyone, or for everyone with exceptions.
    pub(crate) public: Roster,
    /// For each audience of the stream the names that only audiences see.
    special: Vec<Roster>,
}

impl Seen {
    pub(crate) fn get(&self, name: &str, view: &View) -> Option<&Arc<Entry>> {
        let mut rosters = std::iter::once(&self.public).chain(&self.special);
        rosters.find_map(|roster| roster.get(name))?.seen_by(view)
    }

    /// The names that only audiences see; a name may come more than once.
    pub(crate) fn special(&self) -> impl Iterator<Item = &str> {
        let variants = self.special.iter().flat_map(Roster::iter);
        variants.map(Variants::name)
    }

    /// Every name; a name may come more than once.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let public = self.public.iter().map(Variants::name);
        public.chain(self.special())
    }

    /// Every name of which the content differs from what was seen at another moment, and perhaps some others.
    pub(crate) fn differing<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let mut names = self.public.differing(&other.public);
        let most = self.special.len().max(other.special.len());
        for place in 0..most {
            let roster = |seen: &'a Self| seen.special.get(place);
            match (roster(self), roster(other)) {
                (Some(mine), Some(theirs)) => names.extend(mine.differing(theirs)),
                (Some(only), None) | (None, Some(only)) => {
                    names.extend(only.iter().map(Variants::name));
                }
                (None, None) => {}
            }
        }
        names
    }
}

/// All resources of one type, the log of their changes and the refusals.
///
/// A lookup is O(log n) in the number of resources, an update is O(changed log n), and to list what a view sees is
/// O(seen).
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Names with a variant for everyone, or for everyone with exceptions.
    public: Roster,
    /// The other names.
    special: Roster,
    /// The other names by audience.
    by_audience: HashMap<Audience, Roster>,
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
        let mut changed = Vec::with_capacity(set.len());
        if !remove.is_empty() {
            let kept: HashSet<&str> = set.iter().map(|s| s.resource.name.as_str()).collect();
            for name in remove.iter().filter(|name| !kept.contains(name.as_str())) {
                if let Some(variants) = self.take(name) {
                    self.pins.forget(name);
                    let reach = reach_of(variants.all());
                    changed.extend(Change::new(&variants, reach));
                }
            }
        }
        for set in grouped(set) {
            changed.extend(self.set(&set, now));
        }
        self.log.extend(changed.iter().map(Change::name));
        changed
    }

    fn set(&mut self, set: &Group, now: Instant) -> Option<Change> {
        let set = set.as_slice();
        let name = set.first()?.resource.name.as_str();
        let old = self.variants(name);
        let same = |entry: &Entry, new: &Scoped| {
            entry.version() == new.resource.version && entry.scope == new.scope
        };
        if old.len() == set.len() && old.iter().zip(set).all(|(entry, new)| same(entry, new)) {
            return None;
        }
        let variant = |new: &Scoped| {
            // What stays keeps its time of publication.
            let kept = old.iter().find(|entry| same(entry, new)).cloned();
            kept.unwrap_or_else(|| Arc::new(Entry::new(&new.resource, new.scope.clone(), now)))
        };
        let variants = Variants::new(set.iter().map(variant).collect())?;
        let reach = reach_of(old);
        let new = reach_of(variants.all());
        if !(reach.all && new.all) {
            self.take(name);
        }
        let mut change = Change::new(&variants, reach)?;
        if new.all {
            self.public.insert(variants);
        } else {
            for audience in &new.audiences {
                let names = self.by_audience.entry(audience.clone()).or_default();
                names.insert(variants.clone());
            }
            self.special.insert(variants);
        }
        change.reach.all |= new.all;
        change.reach.audiences.extend(new.audiences);
        Some(change)
    }

    /// Takes a name out of all lists; returns what it had.
    fn take(&mut self, name: &str) -> Option<Variants> {
        if let Some(variants) = self.public.remove(name) {
            return Some(variants);
        }
        let variants = self.special.remove(name)?;
        for audience in &reach_of(variants.all()).audiences {
            if let Some(names) = self.by_audience.get_mut(audience) {
                names.remove(name);
                if names.len() == 0 {
                    self.by_audience.remove(audience);
                }
            }
        }
        Some(variants)
    }

    fn find(&self, name: &str) -> Option<&Variants> {
        self.public.get(name).or_else(|| self.special.get(name))
    }

    /// What a stream sees of a name.
    pub(crate) fn get(&self, name: &str, view: &View) -> Option<&Arc<Entry>> {
        self.find(name)?.seen_by(view)
    }

    /// Every variant of a name, whoever may see it.
    pub(crate) fn variants(&self, name: &str) -> &[Arc<Entry>] {
        self.find(name).map_or(&[], Variants::all)
    }

    /// Every name, whoever may see it.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let all = self.public.iter().chain(self.special.iter());
        all.map(Variants::name)
    }

    /// Number of names.
    pub(crate) fn len(&self) -> usize {
        self.public.len() + self.special.len()
    }

    /// What a stream sees now; it stays as it is while the table changes.
    pub(crate) fn seen(&self, view: &View) -> Seen {
        let special = |audience| self.by_audience.get(audience).cloned().unwrap_or_default();
        Seen {
            public: self.public.clone(),
            special: view.0.iter().map(special).collect(),
        }
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

    /// What a node refuses: O(names that anyone refuses).
    pub(crate) fn pinned<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a str> {
        self.pins.names_of(node)
    }

    /// Remembers a refusal; false if this node has already refused this very content.
    pub(crate) fn pin(&mut self, name: &Arc<str>, node: &str, pin: Pin) -> bool {
        if node.is_empty() || self.find(name).is_none() {
            return true;
        }
        self.pins.put(name, node, pin)
    }

    pub(crate) fn unpin(&mut self, name: &str, node: &str) {
        self.pins.remove(name, node);
    }
}

fn reach_of(variants: &[Arc<Entry>]) -> Reach {
    let mut reach = Reach::default();
    for entry in variants {
        reach.add(&entry.scope);
    }
    reach
}

/// What is given for one name; nearly always one variant.
#[derive(Debug)]
enum Group {
    One(Scoped),
    Several(Vec<Scoped>),
}

impl Group {
    fn as_slice(&self) -> &[Scoped] {
        match self {
            Self::One(scoped) => std::slice::from_ref(scoped),
            Self::Several(scoped) => scoped,
        }
    }

    fn add(self, new: Scoped) -> Self {
        let mut all = match self {
            Self::One(first) => vec![first],
            Self::Several(all) => all,
        };
        match all.iter_mut().find(|other| other.scope == new.scope) {
            Some(other) => *other = new,
            None => all.push(new),
        }
        Self::Several(all)
    }
}

/// Variants by name, names in the order of their first appearance; of two variants with the same scope the last counts.
fn grouped(set: Vec<Scoped>) -> impl Iterator<Item = Group> {
    // By name, and within a name as they came.
    let mut order: Vec<usize> = (0..set.len()).collect();
    let name = |place: &usize| set.get(*place).map(|scoped| scoped.resource.name.as_str());
    order.sort_by(|a, b| name(a).cmp(&name(b)));
    // Each place with the place of the first of its name.
    let mut firsts = vec![0; set.len()];
    let mut first = None;
    for place in order {
        if first.is_none_or(|first| name(&first) != name(&place)) {
            first = Some(place);
        }
        firsts[place] = first.unwrap_or(place);
    }
    let mut groups: Vec<Option<Group>> = Vec::with_capacity(set.len());
    for (scoped, first) in set.into_iter().zip(firsts) {
        match groups.get_mut(first) {
            Some(group) => {
                *group = group.take().map(|group| group.add(scoped));
                groups.push(None);
            }
            None => groups.push(Some(Group::One(scoped))),
        }
    }
    groups.into_iter().flatten()
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
        changes.iter().map(Change::name).collect()
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
        let listed = |view: &View| -> BTreeSet<String> {
            table.seen(view).names().map(ToString::to_string).collect()
        };
        assert_eq!(listed(&x), ["a".to_owned(), "b".to_owned()].into());
        assert_eq!(listed(&View::default()), ["a".to_owned()].into());
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
        assert_eq!(names(&moved), ["a"]);
        assert_eq!(moved[0].reach, reach);
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
            let at_once = table
                .seen(view)
                .get(name, view)
                .map(|e| e.version().to_owned());
            let entry = table.get(name, view).map(|e| e.version().to_owned());
            assert_eq!(at_once, entry);
            entry
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
        assert_eq!(table.len(), 0);
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
