use trimtab_mesh::names::{covers, full_host, normal, service_of, wild_key, wild_keys};

use super::services::{Exports, Port, Protocol};
use super::*;
use crate::config::LazyloadConfig;

#[test]
fn exports_are_read_as_istio_reads_them() {
    for (list, own, other, third) in [
        (vec![], true, true, true),
        (vec!["*"], true, true, true),
        (vec![".", "*"], true, true, true),
        (vec!["."], true, false, false),
        (vec!["~"], false, false, false),
        (vec!["other"], false, true, false),
        (vec![" . ", " other "], true, true, false),
        (vec![""], true, true, true),
    ] {
        let exports = Exports::new(list.iter().copied());
        let seen = ["own", "other", "third"].map(|client| exports.visible("own", client));
        assert_eq!(seen, [own, other, third], "{list:?}");
    }
    let clients = |list: &[&str]| -> Option<Vec<String>> {
        let exports = Exports::new(list.iter().copied());
        let clients = exports.clients("own")?;
        Some(clients.map(ToOwned::to_owned).collect())
    };
    assert_eq!(clients(&[]), None);
    assert_eq!(clients(&[".", "own", "b"]).unwrap(), ["b", "own"]);
    assert_eq!(clients(&["."]).unwrap(), ["own"]);
    assert!(clients(&["~"]).unwrap().is_empty());
}

#[test]
fn wildcards_cover_what_istio_says() {
    for (pattern, host, wanted) in [
        ("*.b.c", "a.b.c", true),
        ("*.b.c", "x.a.b.c", true),
        ("*.b.c", "b.c", false),
        ("*.b.c", "*.a.b.c", true),
        ("*.a.b.c", "*.b.c", false),
        ("*-x.b.c", "y-x.b.c", true),
        ("*", "b.c", true),
        ("b.c", "b.c", false),
    ] {
        assert_eq!(covers(pattern, host), wanted, "{pattern} {host}");
        let found = wild_keys(host).any(|key| key == wild_key(pattern));
        assert!(!wanted || found, "{pattern} is found for {host}");
    }
}

#[test]
fn names_are_made_whole() {
    assert_eq!(normal(" Web.A. ").as_deref(), Some("web.a"));
    for bad in ["", ".", "a:80", "a b", "a/b", "[::1]"] {
        assert_eq!(normal(bad), None, "{bad:?}");
    }
    assert_eq!(full_host("web", "a", "x.y"), "web.a.svc.x.y");
    assert_eq!(full_host("web.b", "a", "x.y"), "web.b", "as Istio does");
    assert_eq!(service_of("web.a.svc.x.y", "x.y"), Some(("web", "a")));
    for other in ["p.web.a.svc.x.y", "a.svc.x.y", "web.a.svc", "*.a.svc.x.y"] {
        assert_eq!(service_of(other, "x.y"), None, "{other}");
    }
}

#[test]
fn a_bad_alias_disables_only_itself() {
    let config: LazyloadConfig = serde_saphyr::from_str(
        "domainAliases: [{pattern: '(', templates: [x]}, {pattern: '^a$', templates: [b, a, b]}]",
    )
    .unwrap();
    let settings = Settings::new(&config, Vec::new());
    assert_eq!(settings.aliases("a"), ["b"], "not itself, and once");
    assert!(settings.aliases("aa").is_empty());
}

#[test]
fn bytes_are_the_documented_sum() {
    let port = |protocol| Port {
        number: 1,
        protocol,
    };
    let http = size::CLUSTER + size::VIRTUAL_HOST;
    let tcp = size::CLUSTER + size::LISTENER;
    assert_eq!(
        size::of_service(&[port(Protocol::Http2), port(Protocol::Tls)], 3),
        http + tcp + 6 * size::ENDPOINT
    );
    assert_eq!(
        size::of_service(&[port(Protocol::Auto)], 0),
        http + size::LISTENER
    );
}

fn claim(name: &str, labels: &[&str], age: i64, writes: bool) -> Claim {
    Claim {
        key: FenceKey {
            namespace: "a".to_owned(),
            name: name.to_owned(),
        },
        created: Timestamp::from_second(age).ok(),
        selector: labels
            .iter()
            .map(|l| ((*l).to_owned(), String::new()))
            .collect(),
        writes,
    }
}

#[test]
fn the_widest_then_the_oldest_writes() {
    let wide = claim("wide", &["a"], 3, true);
    let middle = claim("middle", &["a", "b"], 1, true);
    let narrow = claim("narrow", &["a", "b", "c"], 0, true);
    let to_wide = Role::MergedInto(wide.key.clone());
    assert_eq!(role(&narrow, &[middle.clone(), wide.clone()]), to_wide);
    assert_eq!(role(&middle, &[narrow.clone(), wide.clone()]), to_wide);
    let all = Role::Writes {
        with: vec![middle.key.clone(), narrow.key.clone()],
        partly: Vec::new(),
    };
    assert_eq!(role(&wide, &[narrow.clone(), middle.clone()]), all);

    let younger = claim("another", &["a"], 4, true);
    let unknown = Claim {
        created: None,
        ..claim("b", &["a"], 0, true)
    };
    assert_eq!(role(&younger, std::slice::from_ref(&wide)), to_wide);
    assert_eq!(role(&unknown, std::slice::from_ref(&wide)), to_wide);

    let silent = claim("silent", &["a"], 0, false);
    let alone = Role::Writes {
        with: Vec::new(),
        partly: Vec::new(),
    };
    assert_eq!(role(&wide, &[silent]), alone);
}

#[test]
fn a_union_of_nothing_imports_nothing() {
    let union = merge([]);
    assert_eq!(union.entries.keys().collect::<Vec<_>>(), [NOTHING]);
    let mut some = Scope::default();
    some.entries.insert("a/b".to_owned(), BTreeSet::new());
    let mut none = Scope::default();
    none.entries.insert(NOTHING.to_owned(), BTreeSet::new());
    let union = merge([&some, &none]);
    assert_eq!(union.entries.keys().collect::<Vec<_>>(), ["a/b"]);
    let mut all = Scope::default();
    all.entries.insert(EVERYTHING.to_owned(), BTreeSet::new());
    let union = merge([&some, &all]);
    assert_eq!(union.entries.keys().collect::<Vec<_>>(), [EVERYTHING]);
}
