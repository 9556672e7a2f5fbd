//! Keeps a status small enough for etcd, which takes objects of 1.5 MiB. Pure.
//!
//! The API server keeps a second copy of all keys, `managedFields`. It counts.

use trimtab_crds::fence::{DEPENDENCIES_MAX, Dependency, DependencyState, Domain, FenceStatus};

/// Most bytes of a status with its managed fields. The rest of the object has what is missing to 1,000,000, with spec and
/// annotations of users.
const MAX_BYTES: usize = 900_000;

/// Quotes, commas and names of fields of one entry, with its managed fields.
const DEPENDENCY: usize = 235;
const DOMAIN: usize = 100;
const METRIC: usize = 60;
/// At a time, one part of this many of the dependencies goes.
const PARTS: usize = 16;

/// Leaves out what is needed least until the status fits: first Slime's copy of the dependencies, hosts that the mesh does
/// not know, and those that are out of scope, then Slime's list of hosts, at last the dependencies that were not called for
/// the longest time. The answer says what a reader misses.
pub(super) fn fit(status: &mut FenceStatus) -> Option<String> {
    let all = status.dependencies.len();
    let mut size = size(status);
    if size <= MAX_BYTES && all <= DEPENDENCIES_MAX {
        return None;
    }
    // Without dependencies it is all that there is to read back.
    if size > MAX_BYTES && all > 0 {
        size -= metrics(status);
        status.metric_status.clear();
    }
    let large = |size: usize, status: &FenceStatus| {
        size > MAX_BYTES || status.dependencies.len() > DEPENDENCIES_MAX
    };
    for state in [DependencyState::Unresolved, DependencyState::Expired] {
        if large(size, status) {
            let of_state = status.dependencies.iter().filter(|d| d.state == state);
            size -= of_state.map(dependency).sum::<usize>();
            status.dependencies.retain(|d| d.state != state);
        }
    }
    if size > MAX_BYTES {
        size -= domains(status);
        status.domains.clear();
    }
    while large(size, status) && !status.dependencies.is_empty() {
        size -= forget_oldest(&mut status.dependencies);
    }
    let left = status.dependencies.len();
    (left < all).then(|| {
        format!(
            "the status has no room for all dependencies: {} of {all} are left out, and forgotten at a restart; let fewer workloads share the fence, or set enable to false where a scope is this wide",
            all - left
        )
    })
}

/// Bytes of a status, about.
fn size(status: &FenceStatus) -> usize {
    let dependencies = status.dependencies.iter().map(dependency).sum::<usize>();
    let visitor = status.visitor.keys().map(|key| METRIC + 2 * key.len());
    // Conditions are few, and their messages have a bound.
    dependencies + metrics(status) + domains(status) + visitor.sum::<usize>() + 8000
}

/// Host and caller are keys of the list, and so stand in the managed fields, too.
fn dependency(it: &Dependency) -> usize {
    let evidence = it.evidence.iter().map(|e| e.len() + 3).sum::<usize>();
    let pauses = [&it.idle, &it.longest_gap].into_iter().flatten();
    DEPENDENCY
        + 2 * (it.host.len() + it.caller.len())
        + evidence
        + it.first_seen.len()
        + it.last_seen.len()
        + pauses.map(|p| p.len() + 40).sum::<usize>()
}

/// Each key stands in the managed fields, with quotes that have to be escaped in both.
fn metrics(status: &FenceStatus) -> usize {
    let all = status.metric_status.iter();
    all.map(|(key, value)| METRIC + 2 * key.len() + value.len())
        .sum()
}

fn domains(status: &FenceStatus) -> usize {
    let hosts = |domain: &Domain| domain.hosts.iter().map(|h| h.len() + 3).sum::<usize>();
    let all = status.domains.iter();
    all.map(|(key, domain)| DOMAIN + 2 * key.len() + hosts(domain))
        .sum()
}

/// Drops a part of the dependencies. The answer is its size.
fn forget_oldest(dependencies: &mut Vec<Dependency>) -> usize {
    let many = (dependencies.len() / PARTS).max(1);
    let mut times: Vec<&str> = dependencies.iter().map(|d| d.last_seen.as_str()).collect();
    times.sort_unstable();
    let last = times[many - 1].to_owned();
    let (mut gone, mut bytes) = (0, 0);
    dependencies.retain(|d| {
        let goes = gone < many && d.last_seen <= last;
        if goes {
            gone += 1;
            bytes += dependency(d);
        }
        !goes
    });
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

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
                state,
                ..Dependency::default()
            });
        }
        out
    }

    /// Bytes as the API server stores it, with managed fields.
    fn stored(status: &FenceStatus) -> usize {
        let value = serde_json::to_value(status).unwrap();
        let owned = |of: &Value| {
            let keys = of.as_object().into_iter().flatten();
            let mut out: Map<_, _> = keys
                .map(|(key, _)| (format!("f:{key}"), json!({})))
                .collect();
            out.insert(".".to_owned(), json!({}));
            Value::from(out)
        };
        let mut managed = Map::new();
        for field in ["domains", "metricStatus"] {
            for (key, of) in value[field].as_object().into_iter().flatten() {
                managed.insert(format!("f:{field}f:{key}"), owned(of));
            }
        }
        for of in value["dependencies"].as_array().into_iter().flatten() {
            let key = json!({"caller": of["caller"], "host": of["host"]});
            managed.insert(format!("k:{key}"), owned(of));
        }
        let bytes = |value: &Value| serde_json::to_vec(value).unwrap().len();
        bytes(&value) + bytes(&Value::from(managed))
    }

    #[test]
    fn fault_t7_a_status_never_outgrows_an_object() {
        let sizes = [
            (10, 46),
            (500, 46),
            (2000, 46),
            (2000, 250),
            (2200, 60),
            (6000, 20),
        ];
        for (hosts, length) in sizes {
            for state in [DependencyState::Active, DependencyState::Unresolved] {
                let mut one = status(hosts, length, state);
                let whole = one.clone();
                let missed = fit(&mut one);
                let what = format!("{hosts} of {length}: {} bytes", stored(&one));
                assert!(stored(&one) <= MAX_BYTES, "{what}");
                assert!(
                    size(&one) >= stored(&one),
                    "the estimate is too low: {what}"
                );
                assert!(one.dependencies.len() <= DEPENDENCIES_MAX);
                let fewer = one.dependencies.len() < whole.dependencies.len();
                assert_eq!(missed.is_some(), fewer, "{what}");
                if hosts <= 500 {
                    assert_eq!(one, whole);
                }
                let again = one.clone();
                assert_eq!(fit(&mut one), None);
                assert_eq!(again, one);
            }
        }
    }

    #[test]
    fn fault_t7_what_is_needed_least_goes_first() {
        let mut one = status(1500, 46, DependencyState::Active);
        assert_eq!(fit(&mut one), None);
        assert_eq!((one.metric_status.len(), one.dependencies.len()), (0, 1500));
        let mut one = status(1600, 200, DependencyState::Active);
        for unknown in one.dependencies.iter_mut().step_by(2) {
            unknown.state = DependencyState::Unresolved;
        }
        assert!(fit(&mut one).unwrap().contains("800 of 1600"));
        let active = |d: &Dependency| d.state == DependencyState::Active;
        assert!(one.dependencies.iter().all(active));
        let mut one = status(3000, 250, DependencyState::Active);
        assert!(fit(&mut one).is_some());
        let kept = |time: &str| one.dependencies.iter().any(|d| d.last_seen.ends_with(time));
        assert!(!kept("00:00:00Z") && kept("00:49:59Z"), "called last");
    }
}
