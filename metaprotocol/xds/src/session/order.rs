//! What waits for what over the types of one stream, so that a proxy has what a resource refers to before the resource.
//!
//! A proxy acknowledges clusters when it can use them; before that, a route to them would lose calls. So what names a
//! cluster of an unanswered response waits, and nothing else does. It waits for a while only: the reason may be a name
//! server that never answers. Once the proxy has accepted the endpoints of a cluster, it has the cluster.

use std::collections::{HashMap, hash_map};

use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::message::{Item, Push};
use crate::entry::Entry;
use crate::references::any_field;
use crate::types::MAX_TEXT;
use crate::types::{CDS, EDS};

/// How long a resource waits for a cluster: as long as Envoy waits for the endpoints of one.
const LONGEST: Duration = Duration::from_secs(15);
/// The same for a cluster that came after an unanswered response: the silence is about that one.
const FOLLOWING: Duration = Duration::from_secs(2);
/// Room for clusters that an idle stream keeps: a first response has hundreds.
const IDLE: usize = 8;

/// A cluster that the client has not taken yet.
#[derive(Debug)]
struct Cluster {
    /// When it was sent, or had to wait for its turn.
    sent: Option<Instant>,
    /// When its endpoints were sent that are not answered yet.
    endpoints: Option<Instant>,
    /// Until when others wait for it.
    until: Instant,
}

/// The clusters that the client has not taken yet, by the hash of their name: a first response has very many, and two
/// names with one hash only wait for each other.
#[derive(Debug, Default)]
pub(crate) struct Order {
    clusters: HashMap<u64, Cluster>,
    /// How many of those that wait to be sent are among them.
    queued: usize,
    /// Changes with `clusters`.
    generation: u64,
}

impl Order {
    /// Whether nothing has to wait.
    pub(crate) fn is_empty(&self) -> bool {
        self.clusters.is_empty()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// When the first of those that wait need not wait any more.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.clusters.values().map(|cluster| cluster.until).min()
    }

    /// Whether the content must wait: O(its bytes).
    pub(super) fn holds(&self, entry: &Entry) -> bool {
        any_field(entry.body(), &mut |value| {
            value.len() <= MAX_TEXT && self.clusters.contains_key(&xxh3_64(value))
        })
    }

    /// Lets go what has waited long enough.
    pub(crate) fn expire(&mut self, now: Instant) {
        let before = self.clusters.len();
        self.clusters.retain(|_, cluster| cluster.until > now);
        self.generation += u64::from(self.clusters.len() != before);
    }

    /// A response was sent.
    pub(crate) fn on_sent(&mut self, type_url: &str, push: &Push, now: Instant) {
        if !matches!(type_url, CDS | EDS) {
            return;
        }
        let of_clusters = type_url == CDS;
        if of_clusters {
            self.queued = 0;
        }
        let until = self.until(of_clusters, now);
        for item in push.items.iter().filter(|item| item.is_change()) {
            let cluster = self.cluster(item, until);
            if of_clusters {
                cluster.sent = Some(now);
            } else {
                cluster.endpoints = Some(now);
            }
        }
        self.generation += 1;
    }

    /// How many names of [`Self::on_queued`] are known.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// More clusters wait to be sent after an unanswered response.
    pub(crate) fn on_queued<'a>(&mut self, names: impl Iterator<Item = &'a str>, now: Instant) {
        for name in names {
            self.queued += 1;
            if let hash_map::Entry::Vacant(place) = self.clusters.entry(xxh3_64(name.as_bytes())) {
                place.insert(Cluster {
                    sent: Some(now),
                    endpoints: None,
                    until: now + FOLLOWING,
                });
                self.generation += 1;
            }
        }
    }

    fn until(&self, of_clusters: bool, now: Instant) -> Instant {
        let follows = of_clusters && self.clusters.values().any(|c| c.sent.is_some());
        now + if follows { FOLLOWING } else { LONGEST }
    }

    fn cluster(&mut self, item: &Item, until: Instant) -> &mut Cluster {
        let new = || Cluster {
            sent: None,
            endpoints: None,
            until,
        };
        let key = xxh3_64(item.entry.key());
        self.clusters.entry(key).or_insert_with(new)
    }

    /// The response of a type was answered.
    pub(crate) fn on_answered(&mut self, type_url: &str, acked: bool) {
        if self.clusters.is_empty() {
            return;
        }
        match type_url {
            CDS => {
                self.queued = 0;
                self.clusters.values_mut().for_each(|c| c.sent = None);
            }
            EDS => {
                for cluster in self.clusters.values_mut() {
                    if let Some(at) = cluster.endpoints.take() {
                        // Endpoints from before the cluster say nothing of it.
                        cluster.sent.take_if(|sent| acked && *sent <= at);
                    }
                }
            }
            _ => return,
        }
        self.clusters
            .retain(|_, cluster| cluster.sent.is_some() || cluster.endpoints.is_some());
        if self.clusters.is_empty() {
            self.clusters.shrink_to(IDLE);
        }
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::resource::Resource;
    use crate::scope::Scope;

    fn entry(name: &str, body: Vec<u8>) -> Arc<Entry> {
        let resource = Resource {
            name: name.into(),
            version: "1".into(),
            body: body.into(),
            origin: String::new(),
        };
        Arc::new(Entry::new(&resource, Scope::All, Instant::now()))
    }

    fn push(names: &[&str]) -> Push {
        let item = |name: &&str| Item::initial(&entry(name, Vec::new()));
        Push {
            items: names.iter().map(item).collect(),
            removed: Vec::new(),
            version: String::new(),
            nonce: String::new(),
        }
    }

    /// A route to a cluster: field 1 is its name.
    fn route(cluster: &str) -> Arc<Entry> {
        let length = u8::try_from(cluster.len()).unwrap();
        let head = [10, length];
        entry("route", head.into_iter().chain(cluster.bytes()).collect())
    }

    #[test]
    fn only_what_names_a_cluster_of_an_unanswered_response_waits_and_not_for_ever() {
        let (mut order, now) = (Order::default(), Instant::now());
        order.on_sent(CDS, &push(&["slow"]), now);
        assert!(order.holds(&route("slow")) && !order.holds(&route("other")));
        order.expire(now + LONGEST / 2);
        assert!(order.holds(&route("slow")));
        let generation = order.generation();
        order.expire(order.expires().expect("a time"));
        assert!(order.is_empty() && order.generation() != generation);
        order.on_sent(CDS, &push(&["slow"]), now);
        order.on_answered(CDS, false);
        assert!(order.is_empty(), "answered is answered");
    }

    #[test]
    fn accepted_endpoints_show_that_the_client_has_the_cluster_unless_they_are_older() {
        let (mut order, now) = (Order::default(), Instant::now());
        let later = |ms| now + Duration::from_millis(ms);
        order.on_sent(EDS, &push(&["a"]), now);
        order.on_sent(CDS, &push(&["a", "slow"]), later(1));
        order.on_answered(EDS, true);
        assert!(
            order.holds(&route("a")),
            "these are the endpoints of the old one"
        );
        order.on_sent(EDS, &push(&["a"]), later(2));
        order.on_answered(EDS, true);
        assert!(!order.holds(&route("a")) && order.holds(&route("slow")));
    }

    #[test]
    fn a_cluster_that_follows_an_unanswered_one_holds_others_for_a_moment_only() {
        let (mut order, now) = (Order::default(), Instant::now());
        order.on_sent(CDS, &push(&["slow"]), now);
        order.on_queued(["new"].into_iter(), now);
        assert!(order.holds(&route("new")));
        order.on_sent(CDS, &push(&["slow", "new"]), now + Duration::from_secs(1));
        order.expire(now + Duration::from_secs(4));
        assert!(!order.holds(&route("new")) && order.holds(&route("slow")));
    }
}
