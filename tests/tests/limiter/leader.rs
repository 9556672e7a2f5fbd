//! Two replicas on one state of the cluster: one decides, the other serves the same.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use trimtab_crds::limiter::{Delivery, LimiterStatus};
use trimtab_kit::engine::Engine as _;
use trimtab_kit::lease::Leadership;
use trimtab_limiter::index::V1alpha2;
use trimtab_xds::ECDS;

use crate::fixture::{Fixture, limiter, one};

struct Replica {
    fixture: Fixture,
    leadership: watch::Sender<Option<Leadership>>,
}

impl Replica {
    fn new() -> Self {
        let (fixture, leadership) = Fixture::elected();
        fixture.service("a", 2);
        fixture.engine.absorb();
        Self {
            fixture,
            leadership,
        }
    }

    fn lead(&self, leads: bool) {
        let far = Duration::from_secs(1_000_000);
        let leadership = Leadership {
            epoch: 1,
            begin_until: far,
            valid_until: far * 2,
        };
        self.leadership.send_replace(leads.then_some(leadership));
        self.fixture.engine.absorb();
    }

    /// Versions of what proxies are served.
    fn served(&self) -> Vec<(String, String)> {
        let cache = &self.fixture.cache;
        let names = cache.names(ECDS).into_iter();
        let version = |name: &String| cache.get(ECDS, name).unwrap().version.clone();
        names.map(|name| (name.clone(), version(&name))).collect()
    }

    fn status(&self) -> Option<Arc<LimiterStatus>> {
        let jobs = self.fixture.jobs();
        jobs.into_values().find_map(|job| job.status)
    }
}

fn spec(quota: &str) -> Value {
    let mut spec = one("{cpu}>0.8", quota);
    spec["delivery"] = json!(Delivery::Ecds);
    spec
}

/// All replicas see the limiter with this status.
fn seen(replicas: &[&Replica], generation: i64, spec: &Value, status: Option<&LimiterStatus>) {
    let mut object = limiter("a", generation, spec);
    object["status"] = json!(status);
    for replica in replicas {
        replica.fixture.put::<V1alpha2>(object.clone());
        replica.fixture.engine.absorb();
    }
}

#[tokio::test]
async fn a_replica_that_does_not_lead_serves_what_the_leader_decides() {
    let (leader, other) = (Replica::new(), Replica::new());
    leader.lead(true);
    let both = [&leader, &other];
    // They measure different things.
    leader.fixture.source.set("cpu", 0.9);
    other.fixture.source.set("cpu", 0.1);
    seen(&both, 1, &spec("10"), None);
    for replica in both {
        replica.fixture.tick(1).await;
    }
    assert_eq!(leader.fixture.quotas("a"), [Some(10)]);
    assert_eq!(other.served(), [], "nobody has told it what is decided");
    assert!(
        other.fixture.engine.is_ready(),
        "and it does not wait for samples"
    );
    let decided = leader.status().unwrap();
    seen(&both, 1, &spec("10"), Some(&decided));
    assert!(!leader.served().is_empty());
    assert_eq!(other.served(), leader.served());
    for _ in 0..20 {
        other.fixture.tick(5).await;
    }
    assert_eq!(
        other.served(),
        leader.served(),
        "its own samples change nothing"
    );
    assert_eq!(other.fixture.quotas("a"), [Some(10)]);
    assert!(other.fixture.jobs().is_empty(), "it has nothing to write");

    let before = other.served();
    seen(&both, 2, &spec("20"), Some(&decided));
    assert_eq!(other.served(), before, "an edit waits for the leader");
    leader.fixture.tick(1).await;
    let decided = leader.status().unwrap();
    seen(&both, 2, &spec("20"), Some(&decided));
    assert_ne!(other.served(), before);
    assert_eq!(other.served(), leader.served());
}

#[tokio::test]
async fn a_new_leader_goes_on_from_the_status() {
    let (first, second) = (Replica::new(), Replica::new());
    first.lead(true);
    let both = [&first, &second];
    first.fixture.source.set("cpu", 0.9);
    second.fixture.source.set("cpu", 0.9);
    seen(&both, 1, &spec("10"), None);
    first.fixture.tick(1).await;
    let decided = first.status().unwrap();
    seen(&both, 1, &spec("10"), Some(&decided));
    second.fixture.tick(1).await;
    let served = second.served();
    first.lead(false);
    second.fixture.source.set("cpu", 0.1);
    second.lead(true);
    assert_eq!(second.served(), served, "nothing is sampled yet");
    assert_eq!(second.fixture.quotas("a"), [Some(10)]);
    second.fixture.tick(1).await;
    assert_eq!(second.fixture.quotas("a"), [None], "now it decides");
    let decided = second
        .status()
        .expect("a change of the decision is written");
    // The first has decided something else meanwhile that nobody heard of.
    seen(&both, 1, &spec("10"), Some(&decided));
    first.fixture.tick(1).await;
    assert_eq!(first.fixture.quotas("a"), [None]);
    assert_eq!(first.served(), second.served());
}
