//! What `kubectl explain` says.

use std::collections::BTreeMap;

use serde_json::Value;
use trimtab_crds::manifests::trimtab_crds;

fn walk(at: &str, schema: &Value, out: &mut Vec<(String, String)>) {
    for (key, field) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}.{key}");
        let text = field["description"].as_str().unwrap_or_default();
        out.push((at.clone(), text.to_owned()));
        walk(&at, field, out);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            walk(&format!("{at}[]"), &schema[inner], out);
        }
    }
}

#[test]
fn fault_o29_every_field_of_every_kind_says_what_it_does() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (_, crd) in trimtab_crds() {
        let crd = serde_json::to_value(crd).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let schema = &version["schema"]["openAPIV3Schema"];
            let text = schema["description"].as_str().unwrap_or_default();
            let mut fields = vec![(kind.to_owned(), text.to_owned())];
            walk(kind, schema, &mut fields);
            for (at, text) in fields {
                seen += 1;
                let few = text.split_whitespace().count() < 3;
                if few || text.contains("Auto-generated") || text.contains("derived type") {
                    wrong.push(format!("{at}: \"{text}\""));
                }
            }
        }
    }
    assert!(seen > 200, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What kubectl knows without any CRD.
const BUILT_IN: [&str; 14] = [
    "cm", "deploy", "ds", "ep", "ev", "hpa", "ing", "netpol", "ns", "pdb", "po", "rs", "sa", "svc",
];

/// Plural, singular, kind and short names of a CRD, as kubectl compares them.
fn names(crd: &Value) -> Vec<String> {
    let names = &crd["spec"]["names"];
    let short = names["shortNames"].as_array().into_iter().flatten();
    let all = ["plural", "singular", "kind"].map(|key| &names[key]);
    let all = all.into_iter().chain(short).filter_map(Value::as_str);
    let mut all: Vec<String> = all.map(str::to_lowercase).collect();
    all.sort();
    all.dedup();
    all
}

/// kubectl takes a name that two groups have for the first of them: a user would look at the wrong objects, or at none.
#[test]
fn fault_o16_no_name_is_that_of_another_kind() {
    let file = trimtab_cluster::tools::find("crds.yaml").unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let istio = trimtab::manifests::parse(&file, &text).unwrap();
    let mut all: Vec<Value> = istio.into_iter().map(|d| d.object).collect();
    assert!(all.len() > 10, "Istio's");
    let ours = trimtab_crds().into_iter();
    let ours = ours.filter(|(file, _)| !trimtab::manifests::is_first_form(file));
    all.extend(ours.map(|(_, crd)| serde_json::to_value(crd).unwrap()));
    let mut owners: BTreeMap<String, Vec<String>> = BUILT_IN
        .map(|name| (name.to_owned(), vec!["built in".to_owned()]))
        .into();
    for crd in &all {
        let owner = crd["metadata"]["name"].as_str().unwrap().to_owned();
        for name in names(crd) {
            owners.entry(name).or_default().push(owner.clone());
        }
    }
    let shared: Vec<_> = owners
        .iter()
        .filter(|(_, owners)| owners.len() > 1)
        .collect();
    assert!(shared.is_empty(), "{shared:#?}");
    assert_eq!(owners["sml"], ["smartlimiters.microservice.slime.io"]);
}
