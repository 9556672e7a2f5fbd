//! Keeps a status small enough for etcd, which takes objects of 1.5 MiB. Pure.

use trimtab_crds::fence::{DEPENDENCIES_MAX, Dependency, DependencyState, Domain, FenceStatus};

/// Most bytes of an object with its managed fields, in which the long lists of the status are one value each.
const OBJECT: usize = 1_380_000;
/// A status of less says nothing any more.
const LEAST: usize = 40_000;

/// Conditions, which are few and whose messages have a bound, and what else is not a list.
const FIXED: usize = 30_000;
/// Quotes, commas and names of fields of one entry.
const DEPENDENCY: usize = 90;
const DOMAIN: usize = 40;
const METRIC: usize = 6;

/// How large a status may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusRoom {
    /// Bytes of the object without its status.
    pub rest: usize,
    /// How often the API server refused one as too large.
    shrunk: u32,
}

impl StatusRoom {
    /// The API server takes less than etcd does by default. Whether a smaller status makes sense.
    pub fn shrink(&mut self) -> bool {
        let smaller = self.bytes() > LEAST;
        self.shrunk += u32::from(smaller);
        smaller
    }

    /// Most bytes of the status.
    pub(super) fn bytes(self) -> usize {
        let most = OBJECT.saturating_sub(self.rest);
        most.checked_shr(self.shrunk).unwrap_or(0).max(LEAST)
    }
}

/// Leaves out what is needed least until the status fits: first Slime's copy of the dependencies, then its list of hosts,
/// then dependencies that are out of scope or that the mesh does not know, at last those in scope; the oldest call first.
/// The answer says what a reader misses.
pub(super) fn fit(status: &mut FenceStatus, most: usize) -> Option<String> {
    let mut size = size(status);
    let mut parts = Vec::new();
    // Without dependencies it is all that there is to read back.
    if size > most && !status.dependencies.is_empty() && !status.metric_status.is_empty() {
        size -= metrics(status);
        parts.push(format!("metricStatus ({})", status.metric_status.len()));
        status.metric_status.clear();
    }
    if size > most && !status.domains.is_empty() {
        size -= domains(status);
        parts.push(format!("domains ({})", status.domains.len()));
        status.domains.clear();
    }
    let all = status.dependencies.len();
    let gone = forget(&mut status.dependencies, size, most);
    let mut tail = "";
    if gone.out_of_scope + gone.in_scope > 0 {
        parts.push(gone.told(all));
        tail = ", which are forgotten at a restart: let fewer workloads share the fence, or set enable to false where a scope is this wide";
    }
    (!parts.is_empty()).then(|| {
        format!(
            "the status has no room for everything, and the Sidecar has it all the same; left out: {}{tail}",
            parts.join(", ")
        )
    })
}

/// Bytes of a status, about, and never less than it has.
fn size(status: &FenceStatus) -> usize {
    let dependencies = status.dependencies.iter().map(dependency).sum::<usize>();
    let visitor = status.visitor.keys().map(|key| 2 * key.len() + 30);
    dependencies + metrics(status) + domains(status) + visitor.sum::<usize>() + FIXED
}

fn dependency(it: &Dependency) -> usize {
    let evidence = it.evidence.iter().map(|e| e.len() + 3).sum::<usize>();
    let pauses = [&it.idle, &it.longest_gap].into_iter().flatten();
    DEPENDENCY
        + it.host.len()
        + it.caller.len()
        + evidence
        + it.first_seen.len()
        + it.last_seen.len()
        + pauses.map(|p| p.len() + 20).sum::<usize>()
}

/// Each key has quotes that have to be escaped.
fn metrics(status: &FenceStatus) -> usize {
    let escaped = |text: &str| text.len() + text.matches(['"', '\\']).count();
    let all = status.metric_status.iter();
    all.map(|(key, value)| METRIC + escaped(key) + value.len())
        .sum()
}

fn domains(status: &FenceStatus) -> usize {
    let hosts = |domain: &Domain| domain.hosts.iter().map(|h| h.len() + 3).sum::<usize>();
    let all = status.domains.iter();
    all.map(|(key, domain)| DOMAIN + key.len() + hosts(domain))
        .sum()
}

/// Numbers of dependencies that were left out.
#[derive(Default)]
struct Gone {
    out_of_scope: usize,
    in_scope: usize,
}

impl Gone {
    fn told(&self, all: usize) -> String {
        let named = [
            (self.out_of_scope, "out of scope"),
            (self.in_scope, "in scope"),
        ];
        let named = named.iter().filter(|(count, _)| *count > 0);
        let named: Vec<String> = named.map(|(n, what)| format!("{n} {what}")).collect();
        let gone = self.out_of_scope + self.in_scope;
        format!("{gone} of {all} dependencies ({})", named.join(", "))
    }
}

/// Drops dependencies until the status fits.
fn forget(dependencies: &mut Vec<Dependency>, mut size: usize, most: usize) -> Gone {
    let mut gone = Gone::default();
    let mut left = dependencies.len();
    if size <= most && left <= DEPENDENCIES_MAX {
        return gone;
    }
    let is_in = |d: &Dependency| {
        !matches!(
            d.state,
            DependencyState::Expired | DependencyState::Unresolved
        )
    };
    let mut order: Vec<usize> = (0..left).collect();
    // Stable: of one second, those that come first in the list.
    let all: &[Dependency] = dependencies;
    order.sort_by_key(|i| (is_in(&all[*i]), &all[*i].last_seen));
    let mut keep = vec![true; left];
    for i in order {
        if size <= most && left <= DEPENDENCIES_MAX {
            break;
        }
        let dropped = &all[i];
        size -= dependency(dropped);
        left -= 1;
        keep[i] = false;
        let counter = if is_in(dropped) {
            &mut gone.in_scope
        } else {
            &mut gone.out_of_scope
        };
        *counter += 1;
    }
    let mut keep = keep.into_iter();
    dependencies.retain(|_| keep.next().unwrap_or(true));
    gone
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(hosts: usize, length: usize, state: DependencyState) -> FenceStatus {
        let mut out = FenceStatus::default();
        for i in 0..hosts {
            let host = format!("h{i:05}.{}", "x".repeat(length - 7));
            let domain = Domain {
                hosts: vec![host.clone()],
                ..Domain::default()
            };
            out.domains.insert(host.clone(), domain);
            out.metric_status
                .insert(crate::edges::metric_key(&host), "1".to_owned());
            out.dependencies.push(Dependency {
                host,
                caller: "desk-of-the-stacks".to_owned(),
                evidence: vec!["AccessLog".to_owned(), "Prometheus".to_owned()],
                first_seen: "2026-01-01T00:00:00Z".to_owned(),
                last_seen: format!("2026-01-01T00:{:02}:{:02}Z", i / 60 % 60, i % 60),
                idle: Some("36h".to_owned()),
                longest_gap: Some("24h".to_owned()),
                state,
            });
        }
        out
    }

    /// Bytes as the API server stores it, with managed fields.
    fn stored(status: &FenceStatus) -> usize {
        let managed = json!({"f:status": {
            "f:dependencies": {}, "f:domains": {}, "f:metricStatus": {}, "f:mode": {}, "f:observedGeneration": {},
        }});
        serde_json::to_vec(status).unwrap().len() + managed.to_string().len()
    }

    const MOST: usize = OBJECT - 10_000;

    #[test]
    fn fault_s14_t7_a_status_never_outgrows_an_object() {
        let sizes = [
            (10, 46),
            (500, 46),
            (2000, 46),
            (2000, 253),
            (2200, 60),
            (4000, 253),
            (6000, 20),
        ];
        for (hosts, length) in sizes {
            for state in [DependencyState::Active, DependencyState::Unresolved] {
                let mut one = status(hosts, length, state);
                let whole = one.clone();
                let missed = fit(&mut one, MOST);
                let what = format!("{hosts} of {length}: {} bytes", stored(&one));
                assert!(stored(&one) <= MOST, "{what}");
                assert!(
                    size(&one) >= stored(&one),
                    "the estimate is too low: {what}"
                );
                assert!(one.dependencies.len() <= DEPENDENCIES_MAX);
                assert_eq!(missed.is_some(), one != whole, "{what}");
                if hosts <= 2000 && length < 100 {
                    assert_eq!(one, whole);
                }
                if hosts <= 2000 {
                    assert_eq!(one.dependencies, whole.dependencies, "{what}");
                }
                let again = one.clone();
                assert_eq!(fit(&mut one, MOST), None);
                assert_eq!(again, one);
            }
        }
    }

    #[test]
    fn fault_s14_t7_what_is_needed_least_goes_first() {
        let mut one = status(2000, 130, DependencyState::Active);
        let told = fit(&mut one, MOST).unwrap();
        assert!(told.ends_with("left out: metricStatus (2000)"), "{told}");
        assert_eq!((one.domains.len(), one.dependencies.len()), (2000, 2000));
        let mut one = status(2000, 253, DependencyState::Active);
        let told = fit(&mut one, MOST).unwrap();
        let left = "left out: metricStatus (2000), domains (2000)";
        assert!(told.ends_with(left), "{told}");

        let mut one = status(4000, 253, DependencyState::Active);
        for (i, other) in one.dependencies.iter_mut().enumerate() {
            match i % 4 {
                0 => other.state = DependencyState::Unresolved,
                1 => other.state = DependencyState::Expired,
                _ => {}
            }
        }
        let told = fit(&mut one, MOST).unwrap();
        let dropped = 4000 - one.dependencies.len();
        assert!((500..2000).contains(&dropped), "{dropped}");
        let part = format!("{dropped} of 4000 dependencies ({dropped} out of scope)");
        assert!(told.contains(&part), "{told}");
        let times = |d: &&Dependency| matches!(d.state, DependencyState::Expired);
        let oldest = one.dependencies.iter().filter(times).map(|d| &d.last_seen);
        assert!(oldest.min().unwrap().as_str() > "2026-01-01T00:10:00Z");

        let mut one = status(4000, 253, DependencyState::Active);
        assert!(fit(&mut one, MOST).unwrap().contains("in scope"));
    }

    #[test]
    fn fault_s14_a_status_that_is_refused_becomes_smaller_and_not_nothing() {
        let mut room = StatusRoom {
            rest: 500_000,
            ..StatusRoom::default()
        };
        let mut before = room.bytes();
        assert_eq!(before, OBJECT - 500_000);
        let mut tries = 0;
        while room.shrink() {
            assert!(room.bytes() < before);
            before = room.bytes();
            tries += 1;
        }
        assert_eq!((room.bytes(), tries), (LEAST, 5));
        let all = StatusRoom {
            rest: usize::MAX,
            ..StatusRoom::default()
        };
        assert_eq!(all.bytes(), LEAST);
    }
}
