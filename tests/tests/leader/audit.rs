//! What the API server has recorded: who wrote what, and who held the Lease then.

use jiff::Timestamp;
use serde_json::Value;
use trimtab_cluster::Cluster;

const LEASES: &str = "leases";
/// Objects that the operator writes.
const WRITTEN: [&str; 4] = ["envoyfilters", "smartlimiters", "events", "sidecars"];

struct Write {
    user: String,
    resource: String,
    name: String,
    received: Timestamp,
    done: Timestamp,
    /// Of a Lease: who holds it afterwards.
    holder: Option<String>,
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

/// Successful writes of replicas, in the order in which the API server was done with them.
fn read(cluster: &Cluster) -> Vec<Write> {
    let text = std::fs::read_to_string(cluster.audit_log()).unwrap_or_default();
    let mut all: Vec<Write> = Vec::new();
    // The last line may be half written.
    for line in text.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let user = event["user"]["username"].as_str().unwrap_or_default();
        let code = event["responseStatus"]["code"].as_u64().unwrap_or(500);
        if event["stage"] != "ResponseComplete" || code >= 400 || !user.starts_with("replica-") {
            continue;
        }
        let holder = event["responseObject"]["spec"]["holderIdentity"].as_str();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        all.push(Write {
            user: user.to_owned(),
            resource: text(&event["objectRef"]["resource"]),
            name: text(&event["objectRef"]["name"]),
            received: time(&event["requestReceivedTimestamp"]),
            done: time(&event["stageTimestamp"]),
            holder: holder.map(ToOwned::to_owned),
        });
    }
    all.sort_by_key(|write| write.done);
    all
}

fn is_output(write: &Write) -> bool {
    WRITTEN.contains(&write.resource.as_str())
}

/// How many objects a user has written, Leases apart.
pub fn writes(cluster: &Cluster, user: &str) -> usize {
    let all = read(cluster);
    all.iter()
        .filter(|write| write.user == user && is_output(write))
        .count()
}

/// Holds that each write was one of the replica that held the Lease, from the first to the last moment of the write.
pub fn hold(cluster: &Cluster) {
    let all = read(cluster);
    let (leases, others): (Vec<_>, Vec<_>) = all.iter().partition(|write| write.resource == LEASES);
    // From when a user held the Lease, or nobody did.
    let held: Vec<(Timestamp, Timestamp, Option<&str>)> = leases
        .iter()
        .map(|write| {
            let free = write.holder.as_deref().is_none_or(str::is_empty);
            (
                write.received,
                write.done,
                (!free).then_some(write.user.as_str()),
            )
        })
        .collect();
    let mut seen = 0;
    for write in others.into_iter().filter(|write| is_output(write)) {
        // The Lease was its user's before the write came, and nobody else asked for it successfully before the write was done.
        let before = held
            .iter()
            .rev()
            .find(|(_, done, _)| *done <= write.received);
        let during = held
            .iter()
            .filter(|(received, done, _)| *done > write.received && *received < write.done);
        let holders = before.into_iter().chain(during).map(|(_, _, user)| *user);
        for holder in holders {
            assert_eq!(
                holder,
                Some(write.user.as_str()),
                "{} {} was written from {} to {}",
                write.resource,
                write.name,
                write.received,
                write.done
            );
        }
        seen += 1;
    }
    println!(
        "{seen} writes, {} of the Lease, each by its holder",
        leases.len()
    );
    assert!(seen > 10, "there was something to write");
}
