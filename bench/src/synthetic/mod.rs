//! Synthetic meshes with known truth: who calls what, how often, from when to when.
//!
//! A mesh of `services` Services in namespaces of twenty, each with a workload of two pods that calls some others:
//! the number of callees is geometric with the wanted mean, the callees are drawn by popularity (a fifth of the calls goes
//! to the same twentieth of the services), as in published call graphs. Besides:
//!
//! | share | what |
//! |---|---|
//! | 5 % of the services | headless; called by name, by a pod's name, or by a pod's address |
//! | 2 % | ExternalName, an alias of another service |
//! | 5 % | a VirtualService that leads to another service |
//! | 5 %, besides | hosts of ServiceEntries, every fifth covered by a wildcard |
//! | 5 %, besides | workloads of CronJobs that call once a night and have no Service |
//! | 60 / 25 / 15 % of the calls | many times an hour, some times a day, once a day |
//! | 1 % of the calls | begin or end in the course of the run |
//! | 1 % of the calls, besides | made once and never again |

mod objects;
mod truth;

use std::net::Ipv4Addr;

use trimtab_lazyload::object::Caller;

pub use objects::Objects;
pub use truth::{Form, TrueEdge};

/// Domain of all host names.
pub const DOMAIN: &str = "cluster.local";
/// Hours of a run.
pub const HOURS: u64 = 14 * 24;
/// Services in one namespace.
const NAMESPACE: usize = 20;

/// Deterministic numbers: splitmix64.
#[derive(Clone, Debug)]
pub struct Lot(u64);

impl Lot {
    /// Begins with `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(1).max(1);
        usize::try_from(self.draw() % bound).unwrap_or(0)
    }

    /// True in `percent` of 100 cases.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// What a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With a virtual address.
    Plain,
    /// Without one.
    Headless,
    /// An alias of the service of this number.
    Alias(usize),
    /// With a VirtualService that leads to the service of this number.
    Redirect(usize),
}

/// One service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// What it is.
    pub kind: Kind,
    /// Virtual address.
    pub address: Ipv4Addr,
    /// Addresses of its two pods.
    pub pods: [Ipv4Addr; 2],
}

impl Service {
    /// Full host name.
    pub fn host(&self) -> String {
        format!("{}.{}.svc.{DOMAIN}", self.name, self.namespace)
    }
}

/// A host of a ServiceEntry.
#[derive(Clone, Debug)]
pub struct External {
    /// The host that is called.
    pub host: String,
    /// The host that is imported: itself or a wildcard.
    pub imported: String,
    /// Namespace of the ServiceEntry.
    pub namespace: String,
}

/// A mesh with its truth.
#[derive(Clone, Debug)]
pub struct Synthetic {
    /// Services.
    pub services: Vec<Service>,
    /// Hosts outside.
    pub externals: Vec<External>,
    /// Callers with the addresses of their pods; those after the services are of CronJobs.
    pub callers: Vec<(Caller, [Ipv4Addr; 2])>,
    /// Every call, sorted by caller.
    pub edges: Vec<TrueEdge>,
}

fn address(block: u8, number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).unwrap_or_default();
    let [_, a, b, c] = number.to_be_bytes();
    Ipv4Addr::new(10, block + a, b, c)
}

/// Makes a mesh. The same arguments give the same mesh.
pub fn synthetic(services: usize, degree: usize, seed: u64) -> Synthetic {
    let mut lot = Lot::new(seed);
    let mut mesh = Synthetic {
        services: (0..services)
            .map(|i| service(i, services, &mut lot))
            .collect(),
        externals: (0..services / 20).map(external).collect(),
        callers: Vec::new(),
        edges: Vec::new(),
    };
    for service in mesh
        .services
        .iter()
        .filter(|s| !matches!(s.kind, Kind::Alias(_)))
    {
        let caller = Caller::new(&service.namespace, &service.name);
        mesh.callers.push((caller, service.pods));
    }
    for cron in 0..services / 20 {
        let caller = Caller::new(
            &format!("ns{}", cron % (services / NAMESPACE).max(1)),
            &format!("cron{cron}"),
        );
        mesh.callers
            .push((caller, [address(192, 2 * cron), address(192, 2 * cron + 1)]));
    }
    mesh.edges = truth::edges(&mesh, degree, &mut lot);
    mesh
}

fn service(number: usize, of: usize, lot: &mut Lot) -> Service {
    // Aliases and redirects lead to plain services, which are those whose number ends in 0 to 7.
    let plain = |lot: &mut Lot| lot.below(of / 10) * 10 + lot.below(8);
    let kind = match (number % 10, lot.below(100)) {
        (8, 0..=49) => Kind::Headless,
        (8, 50..=69) => Kind::Alias(plain(lot)),
        (9, 0..=49) => Kind::Redirect(plain(lot)),
        _ => Kind::Plain,
    };
    Service {
        name: format!("svc{number}"),
        namespace: format!("ns{}", number / NAMESPACE),
        kind,
        address: address(96, number),
        pods: [address(128, 2 * number), address(128, 2 * number + 1)],
    }
}

fn external(number: usize) -> External {
    let host = format!("api{number}.partner{}.example.com", number / 5);
    let imported = if number.is_multiple_of(5) {
        format!("*.partner{}.example.com", number / 5)
    } else {
        host.clone()
    };
    External {
        host,
        imported,
        namespace: "ns0".to_owned(),
    }
}
