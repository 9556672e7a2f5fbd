//! Who has an address, and who decides.

use std::slice::from_ref;

use serde_json::{Value, json};

use super::*;
use crate::table::read;

/// Objects of namespace `a` are as old as their text says, e.g. `2` for the second of the month.
fn meta(name: &str, namespace: &str, day: u8) -> Value {
    let mut out = json!({"name": name, "namespace": namespace});
    if day > 0 {
        out["creationTimestamp"] = json!(format!("2026-03-{day:02}T00:00:00Z"));
    }
    out
}

fn service(name: &str, namespace: &str, day: u8, spec: &Value, status: &Value) -> Arc<Service> {
    let object = json!({"metadata": meta(name, namespace, day), "spec": spec, "status": status});
    let object = Arc::new(serde_json::from_value(object).unwrap());
    read("cluster.local", [object]).remove(0)
}

fn entry(name: &str, namespace: &str, day: u8, addresses: &[&str]) -> Arc<ServiceEntry> {
    exported(name, namespace, day, addresses, &["*"])
}

fn exported(
    name: &str,
    namespace: &str,
    day: u8,
    addresses: &[&str],
    exports: &[&str],
) -> Arc<ServiceEntry> {
    let object = json!({"metadata": meta(name, namespace, day), "spec": {
        "hosts": [format!("{name}.example")], "addresses": addresses, "exportTo": exports,
        "ports": [{"number": 7001, "name": "tcp", "protocol": "TCP"}],
    }});
    let object = Arc::new(serde_json::from_value(object).unwrap());
    read("cluster.local", [object]).remove(0)
}

/// Who keeps ServiceEntry `kiosk/bait` from port 7001 of an address.
fn keeps(of: &Addresses, address: &str) -> Option<String> {
    let object = ("kiosk", "bait");
    let holder = of.holder(address.parse().unwrap(), 7001, "ServiceEntry", object);
    holder.map(ToString::to_string)
}

#[test]
fn fault_t1_an_address_of_a_service_is_no_other_s() {
    let spec = json!({
        "clusterIP": "10.40.0.20", "clusterIPs": ["10.40.0.20", "fd00::20"],
        "externalIPs": ["198.51.100.7"], "ports": [{"port": 7001}],
    });
    let status = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}, {"hostname": "x"}]}});
    let all = [
        "10.40.0.20",
        "fd00::20",
        "198.51.100.7",
        "203.0.113.9",
        "::ffff:10.40.0.20",
    ];
    // The newest object and the least private export: it has its own addresses even so.
    let ledger = service("ledger", "stacks", 9, &spec, &status);
    let bait = exported("bait", "kiosk", 1, &all, &["."]);
    let owners = Addresses::new(&[ledger], &[bait], &[]);
    for address in all {
        let holder = keeps(&owners, address);
        assert_eq!(
            holder.as_deref(),
            Some("Service stacks/ledger"),
            "{address}"
        );
    }
}

#[test]
fn fault_t1_an_address_of_an_older_entry_is_no_other_s() {
    let old = entry("old", "stacks", 1, &["10.30.0.1", "10.31.0.0/16"]);
    for (day, address, holder) in [
        (2, "10.30.0.1", Some("ServiceEntry stacks/old")),
        (2, "10.31.7.7", Some("ServiceEntry stacks/old")),
        (0, "10.31.7.7", Some("ServiceEntry stacks/old")),
        (2, "10.32.0.1", None),
    ] {
        let bait = entry("bait", "kiosk", day, &[address]);
        let owners = Addresses::new(&[], &[old.clone(), bait], &[]);
        assert_eq!(keeps(&owners, address).as_deref(), holder, "{address}");
    }
    let young = entry("young", "stacks", 3, &["10.30.0.1", "0.0.0.0/0"]);
    let bait = entry("bait", "kiosk", 2, &["10.30.0.1"]);
    let owners = Addresses::new(&[], &[young, bait], &[]);
    assert_eq!(keeps(&owners, "10.30.0.1"), None, "the older has it");
}

#[test]
fn two_entries_that_nobody_sees_both_do_not_meet() {
    let address = "198.51.100.20";
    let mine = exported("db", "stacks", 1, &[address], &["."]);
    for (exports, holder) in [
        (&["."][..], None),
        (&["*"], Some("ServiceEntry stacks/db")),
        (&["stacks"], Some("ServiceEntry stacks/db")),
    ] {
        let bait = exported("bait", "kiosk", 2, &[address], exports);
        let owners = Addresses::new(&[], &[mine.clone(), bait], &[]);
        assert_eq!(keeps(&owners, address).as_deref(), holder, "{exports:?}");
    }
}

#[test]
fn fault_m11_in_one_namespace_the_older_has_the_port() {
    let address = "10.30.0.1";
    let older = entry("z", "kiosk", 1, &[address]);
    let bait = entry("bait", "kiosk", 2, &[address]);
    let owners = Addresses::new(&[], &[older, bait.clone()], &[]);
    assert_eq!(
        keeps(&owners, address).as_deref(),
        Some("ServiceEntry kiosk/z")
    );
    let other = owners.holder(
        address.parse().unwrap(),
        7002,
        "ServiceEntry",
        ("kiosk", "bait"),
    );
    assert_eq!(
        other, None,
        "ports of one address may be of several objects"
    );
}

#[test]
fn addresses_of_pods_belong_to_the_service_that_selects_them() {
    let spec = json!({"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 7001}]});
    let db = service("db", "stacks", 9, &spec, &json!({}));
    let slice = |labels: Value| -> Arc<EndpointSlice> {
        let object = json!({
            "metadata": {"name": "db-1", "namespace": "stacks", "labels": labels},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.244.0.7"]}],
        });
        let object = Arc::new(serde_json::from_value(object).unwrap());
        read("cluster.local", [object]).remove(0)
    };
    let kept = slice(json!({
        "kubernetes.io/service-name": "db",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }));
    let written = slice(json!({"kubernetes.io/service-name": "db"}));
    let bait = entry("bait", "kiosk", 1, &["10.244.0.7"]);
    let holder = |slice: &Arc<EndpointSlice>| {
        let owners = Addresses::new(from_ref(&db), from_ref(&bait), from_ref(slice));
        keeps(&owners, "10.244.0.7")
    };
    assert_eq!(holder(&kept).as_deref(), Some("Service stacks/db"));
    assert_eq!(
        holder(&written),
        None,
        "a slice by hand takes nothing from an older object"
    );
}

#[test]
fn who_decides() {
    let further = BTreeSet::from(["platform".to_owned()]);
    let trust = Trust {
        root: "istio-system",
        further: &further,
    };
    for (namespace, decides) in [
        ("stacks", true),
        ("istio-system", true),
        ("platform", true),
        ("kiosk", false),
        ("", false),
    ] {
        assert_eq!(trust.decides(namespace, "stacks"), decides, "{namespace}");
    }
    assert!(!Trust::root("istio-system").decides("platform", "stacks"));
}
