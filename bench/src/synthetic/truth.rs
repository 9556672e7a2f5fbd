//! Who calls what, how often, and what a proxy needs for it.

use std::collections::BTreeSet;

use super::{HOURS, Kind, Lot, Synthetic};

/// How a call names its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// By this name, as the caller writes it.
    Name(String),
    /// By this address, as TCP clients of headless services do.
    Address(std::net::Ipv4Addr),
}

/// One dependency of one workload.
#[derive(Clone, Debug)]
pub struct TrueEdge {
    /// Number of the caller in [`Synthetic::callers`].
    pub caller: usize,
    /// How the destination is named.
    pub form: Form,
    /// Hosts that the proxy must know, sorted.
    pub needs: Vec<String>,
    /// Hours between two calls.
    pub every: u64,
    /// Hour of the first call.
    pub from: u64,
    /// Hour from which it is not called any more.
    pub until: u64,
}

impl TrueEdge {
    /// Whether it is called in `hour`.
    pub fn called(&self, hour: u64) -> bool {
        (self.from..self.until).contains(&hour) && (hour - self.from).is_multiple_of(self.every)
    }

    /// Whether it was called in the `window` hours before `hour`, that hour included.
    pub fn called_within(&self, hour: u64, window: u64) -> bool {
        (hour.saturating_sub(window)..=hour).any(|h| self.called(h))
    }

    /// Whether a caller has it as a dependency in `hour`: it was called and will be, or is the only call of a moment.
    pub fn alive(&self, hour: u64) -> bool {
        (self.from..self.until).contains(&hour)
    }
}

pub(super) fn edges(mesh: &Synthetic, degree: usize, lot: &mut Lot) -> Vec<TrueEdge> {
    let mut out = Vec::new();
    let services = mesh
        .services
        .iter()
        .filter(|s| !matches!(s.kind, Kind::Alias(_)))
        .count();
    for caller in 0..mesh.callers.len() {
        let cron = caller >= services;
        let mut callees = BTreeSet::new();
        for _ in 0..geometric(degree, lot) {
            callees.insert(popular(mesh.services.len() + mesh.externals.len(), lot));
        }
        for callee in callees {
            let every = if cron { 24 } else { cadence(lot) };
            let mut edge = edge(mesh, caller, callee, lot);
            edge.every = every;
            edge.from = lot.draw() % every;
            match lot.below(200) {
                0 => edge.from += HOURS / 3,
                1 => edge.until = HOURS / 3,
                _ => {}
            }
            out.push(edge);
            if lot.percent(1) {
                let other = popular(mesh.services.len(), lot);
                let mut once = self::edge(mesh, caller, other, lot);
                once.from = lot.draw() % (HOURS / 2);
                once.until = once.from + 1;
                out.push(once);
            }
        }
    }
    out
}

/// One and more, with this mean.
fn geometric(mean: usize, lot: &mut Lot) -> usize {
    let mut n = 1;
    while n < 20 * mean && lot.below(mean) > 0 {
        n += 1;
    }
    n
}

/// A fifth of the draws goes to the first twentieth.
fn popular(of: usize, lot: &mut Lot) -> usize {
    if lot.percent(20) {
        lot.below((of / 20).max(1))
    } else {
        lot.below(of)
    }
}

fn cadence(lot: &mut Lot) -> u64 {
    match lot.below(100) {
        0..=59 => 1,
        60..=84 => 6,
        _ => 24,
    }
}

/// The edge to the service or, beyond them, the outside host of this number.
fn edge(mesh: &Synthetic, caller: usize, to: usize, lot: &mut Lot) -> TrueEdge {
    let (form, mut needs) = match mesh.services.get(to) {
        None => {
            let external = &mesh.externals[to - mesh.services.len()];
            (
                Form::Name(external.host.clone()),
                vec![external.imported.clone()],
            )
        }
        Some(service) => {
            let own = mesh.callers[caller].0.namespace.as_ref() == service.namespace;
            let (name, namespace) = (&service.name, &service.namespace);
            let form = match (lot.below(4), &service.kind) {
                (0, Kind::Headless) => Form::Address(service.pods[0]),
                (0, _) if own => Form::Name(name.clone()),
                (0 | 1, _) => Form::Name(format!("{name}.{namespace}")),
                (2, Kind::Headless) => Form::Name(format!("{name}-0.{}", service.host())),
                (2, _) => Form::Name(format!("{name}.{namespace}.svc:8080")),
                _ => Form::Name(service.host()),
            };
            let mut needs = vec![service.host()];
            if let Kind::Alias(other) | Kind::Redirect(other) = service.kind {
                needs.push(mesh.services[other].host());
            }
            (form, needs)
        }
    };
    needs.sort();
    TrueEdge {
        caller,
        form,
        needs,
        every: 1,
        from: 0,
        until: u64::MAX,
    }
}
