//! Online Boutique as published with TopFull: who calls whom, with how many pods, under which load.
//!
//! The paths, replicas, cores and loads are the published ones (repository kaist-ina/TopFull). The time that a call takes at
//! each service is ours, because it was not published: it is chosen so that the published loads sit near the knee of each
//! service. At 1500/500/600 requests per second `productcatalog` is offered 1.25 times its capacity, `checkout` 1.20,
//! `recommendation` 1.09 and `cart` 1.04 (the published detector treats `productcatalog` and `cart` as the services that run
//! hot); the others are below theirs (`currency` 0.96 to `frontend` 0.61).
//! Before the surge, at 900/30/1000, every service is below its capacity.

use super::lp;

/// A service: pods of equal size, each with its own queue.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Name of the service; its pods are `NAME-0` and so on.
    pub name: &'static str,
    /// Number of pods.
    pub pods: usize,
    /// Calls that a pod works on at the same time: its cores, at least one.
    pub workers: usize,
    /// Mean time that a worker needs for a call, in seconds. A pod with half a core needs twice its CPU time.
    pub work_s: f64,
}

impl Service {
    /// Calls per second that all pods can answer.
    pub fn capacity(&self) -> f64 {
        self.pods as f64 * self.workers as f64 / self.work_s
    }
}

/// An API: the services that a call passes, one after the other. The first one waits for all others.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    /// Name of the API.
    pub name: &'static str,
    /// Indices into [`SERVICES`].
    pub path: &'static [usize],
}

const fn service(name: &'static str, pods: usize, workers: usize, work_s: f64) -> Service {
    Service {
        name,
        pods,
        workers,
        work_s,
    }
}

/// The services. `productcatalog` has half a core a pod: its CPU time for a call is half of the time given here.
pub const SERVICES: [Service; 10] = [
    service("frontend", 15, 1, 0.0035),
    service("currency", 3, 1, 0.001_25),
    service("ad", 1, 1, 0.0006),
    service("recommendation", 2, 2, 0.0019),
    service("productcatalog", 5, 1, 0.002_55),
    service("cart", 5, 1, 0.002),
    service("checkout", 5, 1, 0.012),
    service("email", 1, 1, 0.0014),
    service("payment", 1, 1, 0.0016),
    service("shipping", 1, 1, 0.001_05),
];

/// The APIs with their published paths.
pub const APIS: [Api; 5] = [
    Api {
        name: "getproduct",
        path: &[0, 1, 2, 3, 4, 5],
    },
    Api {
        name: "postcheckout",
        path: &[0, 1, 3, 4, 5, 6, 7, 8, 9],
    },
    Api {
        name: "getcart",
        path: &[0, 1, 3, 4, 9, 5],
    },
    Api {
        name: "postcart",
        path: &[0, 4, 5],
    },
    Api {
        name: "emptycart",
        path: &[0, 5],
    },
];

/// Number of APIs.
pub const N_APIS: usize = APIS.len();

/// Offered requests per second of each API.
pub type Load = [f64; N_APIS];

/// The published loads are those of getproduct, postcheckout and cart; the load generator splits cart 30:15:15.
const fn load(getproduct: f64, postcheckout: f64, cart: f64) -> Load {
    [
        getproduct,
        postcheckout,
        cart * 0.5,
        cart * 0.25,
        cart * 0.25,
    ]
}

/// A scenario: a load until `step_s`, and another one from then on.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Name of the scenario.
    pub name: &'static str,
    /// Load before the overload.
    pub before: Load,
    /// Load of the overload.
    pub during: Load,
    /// Begin of the overload, in seconds.
    pub step_s: f64,
    /// End of the episode, in seconds.
    pub end_s: f64,
}

/// The published loads, after a minute at 60 % of them.
pub const OVER: Scenario = Scenario {
    name: "over",
    before: load(900.0, 300.0, 360.0),
    during: load(1500.0, 500.0, 600.0),
    step_s: 60.0,
    end_s: 300.0,
};

/// The published surge.
pub const SURGE: Scenario = Scenario {
    name: "surge",
    before: load(900.0, 30.0, 1000.0),
    during: load(6100.0, 370.0, 9000.0),
    step_s: 60.0,
    end_s: 300.0,
};

/// All scenarios.
pub const SCENARIOS: [Scenario; 2] = [OVER, SURGE];

/// What is possible at most under a load, as goodput of each API in requests per second.
///
/// The sum is the optimum of a linear programme: each API up to its demand, each service up to its capacity. Of all optima
/// this is the fairest: the lowest share of the demand is as high as possible, then the second lowest, and so on.
pub fn ideal(load: &Load) -> Load {
    let rows: Vec<Vec<f64>> = (0..SERVICES.len())
        .map(|s| {
            APIS.iter()
                .map(|a| f64::from(u8::from(a.path.contains(&s))))
                .collect()
        })
        .collect();
    let capacities: Vec<f64> = SERVICES.iter().map(Service::capacity).collect();
    let mut shares = [0.0; N_APIS];
    for (share, value) in shares.iter_mut().zip(lp::fairest(&rows, &capacities, load)) {
        *share = value;
    }
    shares
}
