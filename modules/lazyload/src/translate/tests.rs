use trimtab_crds::OWNER_NAME_LABEL;
use trimtab_kit::generated::REVISION_LABEL;

use super::*;

fn key(name: &str) -> FenceKey {
    FenceKey {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

fn hosts(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|h| (*h).to_owned()).collect()
}

fn egress_of(hosts: Hosts<'_>) -> Vec<String> {
    let key = key("web");
    let owner = Owner {
        key: &key,
        uid: "",
        revision: None,
    };
    let object = sidecar(&owner, &Labels::new(), hosts, "");
    assert!(object.metadata.owner_references.is_none(), "offline");
    object.spec.egress[0].hosts.clone()
}

#[test]
fn nothing_is_said_as_istio_says_it() {
    assert_eq!(egress_of(Hosts::Only(&hosts(&[]))), ["~/*"]);
}

#[test]
fn exclusions_follow_everything() {
    let unused = hosts(&["b/y", "a/x"]);
    assert_eq!(egress_of(Hosts::AllBut(&unused)), ["*/*", "~a/x", "~b/y"]);
    assert_eq!(egress_of(Hosts::AllBut(&hosts(&[]))), ["*/*"]);
}

#[test]
fn labels_stay_within_their_bounds() {
    let long = "n".repeat(200);
    let key = key(&long);
    let owner = Owner {
        key: &key,
        uid: "u",
        revision: None,
    };
    let object = sidecar(&owner, &Labels::new(), Hosts::Only(&hosts(&[])), "");
    let labels = object.metadata.labels.unwrap();
    assert_eq!(labels[OWNER_NAME_LABEL].len(), 63);
    assert!(!labels.contains_key(REVISION_LABEL));
    assert_eq!(object.metadata.name.as_deref(), Some(long.as_str()));
}
