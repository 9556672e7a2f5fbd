//! What `kubectl explain` says.

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
