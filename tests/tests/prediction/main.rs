//! The prediction of istiod against istiod: small odd meshes in a real API server, a random Sidecar in each, both releases
//! of istiod asked over ADS for clusters, listeners, routes and names.
//!
//! Many meshes are in the API server at once, so that one push serves many and a client without a Sidecar has them all. The
//! same meshes tell whether scopes are safe: what a workload calls gets in scope what it gets without a Sidecar, and istiod
//! is the judge. `make test` tries 200 meshes, `make fuzz` 2,000 with two seeds; `TRIMTAB_FUZZ_SEED` sets the
//! seed, `TRIMTAB_FUZZ_MESHES` the number of meshes of each.
//!
//! What istiod decides by the order of a Go map it may decide anew with each push: the order of services that sort alike
//! (addresses of one ServiceEntry; ServiceEntries with one host, namespace and second), and which ServiceEntry of one age in
//! several namespaces a route leads to. There each of its answers is right, and no other (`predict::undecided`). A scope
//! does not depend on it: it names such hosts itself.
//!
//! | not compared | because |
//! |---|---|
//! | calls that nobody takes without a Sidecar | they go out as they came; in scope a wildcard may take them, where without a Sidecar a VirtualService of another host under it hides the rest |
//! | calls that fail without a Sidecar | they lead to a cluster that is not there |
//! | TCP calls to a host without an address (or to a range), where another such host has the port | both have one listener, and which one gets the connections depends on what is imported; in scope it may be the right one |
//! | calls to, or led to, a host of which the client's namespace has a service that it does not export to itself | no entry imports it; any VirtualService of the mesh that leads there brings it, in place of one that the client sees |
//!
//! | not generated | because |
//! |---|---|
//! | routes of the Gateway API for ServiceEntries | they are not read |
//! | DestinationRules with `workloadSelector` | it is not read |
//! | pods and endpoints of headless services | there is a listener for each, with and without a Sidecar |
//! | ports of MONGO and MYSQL | istiod keeps them apart from others on one port |
//! | ExternalNames with a dot at the end | istiod takes them for other hosts, the index here does not |
//! | addresses that Istio gives to ServiceEntries | only proxies that capture DNS use them |
//! | egress listeners with a port of their own | they are taken over as they are |

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a broken test must stop with its reason"
)]

mod ads;
mod calls;
mod compare;
mod meshes;
#[path = "../validity/random.rs"]
mod random;
mod registry;
mod world;

use std::collections::BTreeSet;

use tokio::sync::OnceCell;

use random::{FIXED, Random};
use world::{Outcome, World};

/// Meshes that are in the API server at once.
const BATCH: usize = 50;

static TRIED: OnceCell<Outcome> = OnceCell::const_new();

async fn run(seed: u64, meshes: usize) -> Outcome {
    let world = World::start(BATCH).await;
    let mut random = Random::new(seed);
    let mut out = Outcome::default();
    for first in (0..meshes).step_by(BATCH) {
        let batch: Vec<meshes::SmallMesh> = (0..BATCH)
            .map(|slot| meshes::small(slot, &mut random))
            .collect();
        let root = random.percent(40);
        let root = root.then(|| meshes::sidecars::of_root(BATCH, &mut random));
        out.add(world.judge(&batch, root).await, first);
        println!("{} meshes of seed {seed}: {}", first + BATCH, out.summary());
    }
    println!("see {}", world.report(&out));
    out
}

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(variable: &str, default: T) -> T {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// What the tests of `make test` share.
async fn tried() -> &'static Outcome {
    let seed = number("TRIMTAB_FUZZ_SEED", FIXED);
    let meshes = number("TRIMTAB_FUZZ_MESHES", 200);
    TRIED.get_or_init(|| run(seed, meshes)).await
}

fn shown(all: &[String]) -> String {
    let few: Vec<&str> = all.iter().take(10).map(String::as_str).collect();
    format!("{} in all\n{}", all.len(), few.join("\n\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn istiod_gives_what_is_predicted() {
    let tried = tried().await;
    assert!(
        tried.differences.is_empty(),
        "{}",
        shown(&tried.differences)
    );
    let kinds: BTreeSet<&str> = tried.kinds.iter().map(String::as_str).collect();
    for kind in [
        "Service",
        "ServiceEntry",
        "VirtualService",
        "DestinationRule",
        "HTTPRoute",
        "GRPCRoute",
        "Sidecar",
    ] {
        assert!(kinds.contains(kind), "{kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_get_in_scope_what_they_get_without_a_sidecar() {
    let tried = tried().await;
    assert!(tried.calls > 200, "{}", tried.calls);
    assert!(tried.changed.is_empty(), "{}", shown(&tried.changed));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make fuzz"]
async fn two_thousand_meshes_are_predicted() {
    let mut differences = Vec::new();
    let mut changed = Vec::new();
    for seed in random::seeds() {
        let tried = run(seed, number("TRIMTAB_FUZZ_MESHES", 1000)).await;
        differences.extend(tried.differences);
        changed.extend(tried.changed);
    }
    assert!(differences.is_empty(), "{}", shown(&differences));
    assert!(changed.is_empty(), "{}", shown(&changed));
}
