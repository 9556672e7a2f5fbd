//! Allocation holds its promises for any set of objects.

use proptest::prelude::*;

use super::*;

fn ranges() -> Ranges {
    Ranges {
        v4: "240.241.0.0/28".parse().ok(),
        v6: "2001:db8:1::/64".parse().ok(),
    }
}

fn entry(name: &str, created: i64, addresses: &[&str]) -> Entry {
    Entry {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        created: Timestamp::from_second(created).ok(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        managed: true,
    }
}

fn apply(entries: &mut [Entry], allocation: &Allocation) {
    for change in &allocation.assignments {
        let entry = entries
            .iter_mut()
            .find(|e| e.name == change.name && e.namespace == change.namespace)
            .unwrap();
        entry.addresses.clone_from(&change.addresses);
    }
}

#[test]
fn a_host_gets_one_address_of_each_family() {
    let out = allocate(&ranges(), &[entry("a", 1, &[])], &BTreeSet::new());
    let addresses = &out.assignments[0].addresses;
    assert_eq!(addresses.len(), 2);
    assert!(addresses.iter().all(|a| ranges().contains(*a)));
    assert!(out.problems.is_empty());
}

#[test]
fn addresses_of_users_stay() {
    let entries = [entry("a", 1, &["10.1.1.1"]), entry("b", 2, &["10.1.1.1"])];
    assert_eq!(
        allocate(&ranges(), &entries, &BTreeSet::new()),
        Allocation::default()
    );
}

#[test]
fn fault_t1_a_younger_object_takes_no_address_that_was_given() {
    let mine = entry("mine", 1, &["240.241.0.3", "2001:db8:1::3"]);
    let mut other = entry("other", 2, &["240.241.0.3"]);
    other.managed = false;
    let out = allocate(&ranges(), &[mine.clone(), other.clone()], &BTreeSet::new());
    assert_eq!(out, Allocation::default());
    other.created = Timestamp::from_second(0).ok();
    let out = allocate(&ranges(), &[mine, other], &BTreeSet::new());
    assert_eq!(out.assignments.len(), 1, "the older one keeps it");
}

#[test]
fn of_two_with_one_address_the_older_keeps_it() {
    let both = ["240.241.0.3", "2001:db8:1::3"];
    let entries = [entry("a", 2, &both), entry("b", 1, &both)];
    let out = allocate(&ranges(), &entries, &BTreeSet::new());
    assert_eq!(out.assignments.len(), 1);
    assert_eq!(out.assignments[0].name, "a");
    let kept: Vec<IpAddr> = both.iter().map(|a| a.parse().unwrap()).collect();
    assert!(
        out.assignments[0]
            .addresses
            .iter()
            .all(|a| !kept.contains(a))
    );
}

#[test]
fn a_family_that_is_added_later_is_filled_in() {
    let entries = [entry("a", 1, &["240.241.0.3"])];
    let out = allocate(&ranges(), &entries, &BTreeSet::new());
    let addresses = &out.assignments[0].addresses;
    assert_eq!(addresses[0].to_string(), "240.241.0.3");
    assert!(addresses[1].is_ipv6());
}

#[test]
fn a_full_range_is_a_problem_of_those_that_get_nothing() {
    let small = Ranges {
        v4: "240.241.0.0/30".parse().ok(),
        v6: None,
    };
    let entries = [entry("a", 1, &[]), entry("b", 1, &[]), entry("c", 1, &[])];
    let out = allocate(&small, &entries, &BTreeSet::new());
    assert_eq!(out.assignments.len(), 2);
    assert_eq!(out.problems.len(), 1);
    assert!(out.problems[0].to_string().contains("ServiceEntry shop/c"));
    for tiny in ["240.241.0.0/32", "240.241.0.0/31"] {
        let none = Ranges {
            v4: tiny.parse().ok(),
            v6: "2001:db8::/128".parse().ok(),
        };
        let out = allocate(&none, &entries[..1], &BTreeSet::new());
        assert_eq!(out.problems.len(), 2, "{tiny}");
    }
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u8..16).prop_map(|n| IpAddr::from([240, 241, 0, n])),
        (0_u16..8).prop_map(|n| IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, n])),
        (0_u8..4).prop_map(|n| IpAddr::from([10, 0, 0, n])),
    ]
}

fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
    let one = (0_i64..5, prop::collection::vec(any_address(), 0..4));
    prop::collection::vec(one, 0..10).prop_map(|list| {
        list.into_iter()
            .enumerate()
            .map(|(i, (created, addresses))| Entry {
                namespace: format!("ns{}", i % 3),
                name: format!("e{i}"),
                created: (created > 0).then(|| Timestamp::from_second(created).unwrap()),
                addresses,
                managed: true,
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn every_host_has_its_own_and_a_second_run_changes_nothing(
        mut entries in any_entries(),
        taken in prop::collection::btree_set(any_address(), 0..4),
    ) {
        let ranges = ranges();
        let first = allocate(&ranges, &entries, &taken);
        prop_assert!(first.problems.is_empty());
        apply(&mut entries, &first);
        let mut seen = taken.clone();
        for entry in &entries {
            let ours: Vec<&IpAddr> = entry.addresses.iter().filter(|a| ranges.contains(**a)).collect();
            for address in &ours {
                prop_assert!(seen.insert(**address), "{address} twice");
            }
            let users_own = !entry.addresses.is_empty() && ours.is_empty();
            prop_assert!(users_own || entry.addresses.iter().any(IpAddr::is_ipv4));
            prop_assert!(users_own || entry.addresses.iter().any(IpAddr::is_ipv6));
        }
        prop_assert_eq!(allocate(&ranges, &entries, &taken), Allocation::default());
    }

    #[test]
    fn the_order_of_objects_does_not_matter(entries in any_entries()) {
        let mut reversed = entries.clone();
        reversed.reverse();
        let none = BTreeSet::new();
        prop_assert_eq!(allocate(&ranges(), &entries, &none), allocate(&ranges(), &reversed, &none));
    }

    #[test]
    fn a_new_host_moves_no_other(mut entries in any_entries()) {
        let none = BTreeSet::new();
        let first = allocate(&ranges(), &entries, &none);
        apply(&mut entries, &first);
        entries.push(Entry { namespace: "a".to_owned(), name: "new".to_owned(), created: None, addresses: Vec::new(), managed: true });
        let second = allocate(&ranges(), &entries, &none);
        prop_assert_eq!(second.assignments.len(), 1);
        prop_assert_eq!(&second.assignments[0].name, "new");
    }
}
