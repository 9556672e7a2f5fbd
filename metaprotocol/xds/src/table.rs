//! The resources of one type: plain data, read by sessions, written by the host.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crate::changelog::ChangeLog;
use crate::cow_map::CowMap;
use crate::entry::{Entry, Variants};
use crate::rejections::{Rejection, Rejections};
use crate::resource::Scoped;
use crate::scope::{Audience, Reach, View};
use crate::unresolved::Holds;

/// A name that changed, and which streams that affects.
#[derive(Debug)]
pub(crate) struct Change {
    /// A variant of the name; it has the name, which saves a copy.
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

/// What a stream can see at one moment; it shares its memory with the table and does not change with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    /// Names with a variant for everyone, or for everyone with exceptions.
    pub(crate) public: CowMap,
    /// For each audience of the stream the names that only audiences see.
    scoped: Vec<CowMap>,
}

impl Snapshot {
    pub(crate) fn get(&self, name: &str, view: &View) -> Option<&Arc<Entry>> {
        let mut maps = std::iter::once(&self.public).chain(&self.scoped);
        maps.find_map(|map| map.get(name))?.seen_by(view)
    }

    /// The names that only audiences see; a name may come more than once.
    pub(crate) fn scoped_names(&self) -> impl Iterator<Item = &str> {
        let variants = self.scoped.iter().flat_map(CowMap::iter);
        variants.map(Variants::name)
    }

    /// Every name; a name may come more than once.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let public = self.public.iter().map(Variants::name);
        public.chain(self.scoped_names())
    }

    /// Every name of which the content differs between two snapshots, and perhaps some others.
    pub(crate) fn differing<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let mut names = self.public.differing(&other.public);
        for place in 0..self.scoped.len().max(other.scoped.len()) {
            match (self.scoped.get(place), other.scoped.get(place)) {
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

/// All resources of one type, the log of their changes and the stored NACKs.
///
/// A lookup is O(log n) in the number of resources, an update is O(changed log n), and a list of what a view sees is
/// O(what it sees).
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Names with a variant for everyone, or for everyone with exceptions.
    public: CowMap,
    /// The other names.
    scoped: CowMap,
    /// The other names by audience.
    by_audience: HashMap<Audience, CowMap>,
    log: ChangeLog,
    rejections: Rejections,
    pub(crate) holds: Holds,
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
                    self.rejections.remove_name(name);
                    self.holds.remove(name);
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
            self.scoped.insert(variants);
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
        let variants = self.scoped.remove(name)?;
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
        self.public.get(name).or_else(|| self.scoped.get(name))
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
        let all = self.public.iter().chain(self.scoped.iter());
        all.map(Variants::name)
    }

    /// Number of names.
    pub(crate) fn len(&self) -> usize {
        self.public.len() + self.scoped.len()
    }

    /// What a stream sees now.
    pub(crate) fn snapshot(&self, view: &View) -> Snapshot {
        let scoped = |audience| self.by_audience.get(audience).cloned().unwrap_or_default();
        Snapshot {
            public: self.public.clone(),
            scoped: view.0.iter().map(scoped).collect(),
        }
    }

    pub(crate) fn head(&self) -> u64 {
        self.log.head()
    }

    pub(crate) fn since(&self, cursor: u64) -> Option<impl Iterator<Item = &Arc<str>>> {
        self.log.since(cursor)
    }

    pub(crate) fn rejection_of(&self, name: &str, node: &str) -> Option<&Rejection> {
        self.rejections.of(name, node)
    }

    /// What a node refuses: O(names that anyone refuses).
    pub(crate) fn rejected_by<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a str> {
        self.rejections.names_of(node)
    }

    /// Stores a NACK; false if this node has already refused this version.
    pub(crate) fn reject(&mut self, name: &Arc<str>, node: &str, rejection: Rejection) -> bool {
        if node.is_empty() || self.find(name).is_none() {
            return true;
        }
        self.rejections.put(name, node, rejection)
    }

    pub(crate) fn clear_rejection(&mut self, name: &str, node: &str) {
        self.rejections.remove(name, node);
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

    use bytes::Bytes;

    use crate::rejections::MAX_REJECTIONS_PER_NAME;
    use crate::resource::Resource;
    use crate::scope::Scope;

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
            table
                .snapshot(view)
                .names()
                .map(ToString::to_string)
                .collect()
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
                .snapshot(view)
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
    fn a_rejection_is_reported_once_keeps_the_last_good_content_and_their_number_is_bounded() {
        let mut table = Table::default();
        let now = Instant::now();
        table.apply(vec![resource("a", "1")], &[], now);
        let name: Arc<str> = "a".into();
        let good = table.get("a", &View::default()).cloned();
        let rejection = |version: &str, last_good| Rejection {
            version: version.into(),
            last_good,
        };
        assert!(table.reject(&name, "n", rejection("2", good)));
        assert!(
            !table.reject(&name, "n", rejection("2", None)),
            "same content, same node"
        );
        assert!(table.reject(&name, "n", rejection("3", None)));
        let stored = table.rejection_of("a", "n");
        assert!(stored.is_some_and(|rejection| rejection.last_good.is_some()));
        for node in 0..2 * MAX_REJECTIONS_PER_NAME {
            table.reject(&name, &format!("node-{node}"), rejection("3", None));
        }
        assert_eq!(table.rejections.nodes_of("a"), MAX_REJECTIONS_PER_NAME);
        table.apply(vec![], &["a".to_owned()], now);
        assert_eq!(
            table.rejections.nodes_of("a"),
            0,
            "a removed resource takes its rejections with it"
        );
    }
}
