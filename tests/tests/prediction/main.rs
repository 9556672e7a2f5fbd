//! The prediction of istiod against istiod: small odd meshes in a real API server, a random Sidecar in each, both releases
//! of istiod asked over ADS for clusters, listeners, routes and names.
//!
//! Many meshes are in the API server at once, so that one push serves many and a client without a Sidecar has them all. The
//! same meshes tell whether scopes are safe: what a workload calls gets in scope what it gets without a Sidecar, and istiod
//! is the judge. `make test` tries 200 meshes, `make fuzz` 2,000 with two seeds, of which about 1 in 100
//! still differs; `TRIMTAB_FUZZ_SEED` sets the seed.
//!
//! | not generated | because |
//! |---|---|
//! | ServiceEntries with several addresses | istiod's order of them is not determined, and of those of one host it takes one for look-ups and for domains |
//! | several ServiceEntries with one host in one namespace, of one age | the same |
//! | routes of both kinds of the Gateway API for one Service | istiod joins them in a way of its own |
//! | subsets of ServiceEntries | their endpoints have labels of their own; a subset without endpoints has no cluster |
//! | endpoints of headless services | there is a listener for each, with and without a Sidecar |
//! | ports of MONGO and MYSQL | istiod keeps them apart from others on one port |
//! | ExternalNames with a dot at the end | istiod takes them for other hosts, the index here does not |
//! | addresses that Istio gives to ServiceEntries | only proxies that capture DNS use them |

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a broken test must stop with its reason"
)]

mod ads;
mod calls;
mod meshes;
#[path = "../validity/random.rs"]
mod random;
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
        out.add(world.judge(&batch).await, first);
        println!(
            "{} meshes of seed {seed}: {} differ, {} calls of {} are changed by their scopes, see {}",
            first + BATCH,
            out.differences.len(),
            out.changed.len(),
            out.calls,
            world.report(&out)
        );
    }
    out
}

/// What the tests of `make test` share.
async fn tried() -> &'static Outcome {
    let seed = std::env::var("TRIMTAB_FUZZ_SEED").map_or(FIXED, |text| text.parse().unwrap());
    TRIED.get_or_init(|| run(seed, 200)).await
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
    let (mut changed, mut calls) = (Vec::new(), 0);
    for seed in random::seeds() {
        let tried = run(seed, 1000).await;
        differences.extend(tried.differences);
        changed.extend(tried.changed);
        calls += tried.calls;
    }
    assert!(differences.is_empty(), "{}", shown(&differences));
    // Not yet all: of wildcards that overlap, the address of a call may belong to the wider one, which the scope does not have.
    assert!(changed.len() * 50 < calls, "{}", shown(&changed));
}
