//! Every case says what it should, and Envoy accepts everything that the cases make.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use envoy_types::pb::google::protobuf::Duration;
use expect_test::expect_file;
use prost::Message;
use serde_json::{Value, json};
use trimtab_lab::envoy;
use trimtab_tests::merge;

use crate::cases::{self, Case};
use crate::lab::{self, Mesh};

#[test]
fn every_case_gives_its_golden_output() {
    let names = cases::names();
    assert!(names.len() > 80, "the cases are there: {names:?}");
    for name in &names {
        let folder = cases::root().join(name);
        let files: BTreeSet<String> = std::fs::read_dir(&folder)
            .expect("a folder")
            .map(|f| {
                f.expect("a file")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        let rewriting = std::env::var_os("UPDATE_EXPECT").is_some();
        let complete = BTreeSet::from(["in.yaml".to_owned(), "out.yaml".to_owned()]);
        assert!(
            rewriting || files == complete,
            "{}: has {files:?}, wanted are in.yaml and out.yaml",
            folder.display()
        );
        expect_file![folder.join("out.yaml")].assert_eq(&cases::load(name).render());
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for name in cases::names() {
        let (a, b) = (cases::load(&name), cases::load(&name));
        assert_eq!(a.render(), b.render(), "{name}");
        let bodies = |c: &Case| -> Vec<Vec<u8>> {
            c.translation
                .extension_configs
                .iter()
                .map(|e| e.body.clone())
                .collect()
        };
        assert_eq!(bodies(&a), bodies(&b), "{name}");
    }
}

#[test]
fn both_spellings_are_one() {
    assert_eq!(
        cases::load("spelling-snake").render(),
        cases::load("spelling-camel").render()
    );
}

#[test]
fn identities_do_not_depend_on_quota_condition_or_interval() {
    let identities = |case: &Case| -> Vec<String> {
        let text = json!(case.envoy_filters()).to_string();
        text.match_indices("-Id[")
            .map(|(i, _)| text[i..].split(']').next().unwrap_or_default().to_owned())
            .collect()
    };
    for name in cases::names() {
        let before = cases::load(&name);
        let mut input = before.input.clone();
        for descriptor in input.spec.sets.values_mut().flatten() {
            if descriptor.action.quota.parse::<u32>().is_ok_and(|q| q > 0) {
                descriptor.action.quota = "4711".to_owned();
            }
        }
        assert_eq!(identities(&before), identities(&Case::of(input)), "{name}");
    }
}

/// Merges and validates; `what` names it in failures.
fn accepted(what: &str, mesh: &Mesh, filters: &[Value], inline: &BTreeMap<String, Value>) {
    let mut config = mesh.proxy.bootstrap();
    let report = merge::apply(&mut config, filters, &lab::facts(filters))
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(
        report.unmatched,
        Vec::<String>::new(),
        "{what}: patches without a place"
    );
    assert_eq!(
        report.skipped,
        Vec::<String>::new(),
        "{what}: objects for other proxies"
    );
    if !inline.is_empty() {
        let mut used = merge::inline_extension_configs(&mut config, inline);
        used.sort();
        used.dedup();
        assert_eq!(
            used,
            inline.keys().cloned().collect::<Vec<_>>(),
            "{what}: a filter asks for each value"
        );
    }
    if let Err(reason) = envoy::validate(&config) {
        panic!("{what}: Envoy refuses it: {reason}");
    }
}

fn check(name: &str, mesh: &Mesh) {
    let case = cases::load(name);
    let filters = case.envoy_filters();
    for filter in &filters {
        accepted(name, mesh, std::slice::from_ref(filter), &BTreeMap::new());
    }
    if filters.len() > 1 {
        // A pod of a subset gets the objects of _base too.
        accepted(
            &format!("{name}, all objects"),
            mesh,
            &filters,
            &BTreeMap::new(),
        );
    }
    let configs = &case.translation.extension_configs;
    if configs.is_empty() {
        return;
    }
    for config in configs {
        let decoded =
            TypedExtensionConfig::decode(config.body.as_slice()).expect("a TypedExtensionConfig");
        let any = decoded.typed_config.expect("a configuration");
        assert_eq!(
            (decoded.name.as_str(), any.type_url.as_str()),
            (config.name.as_str(), lab::LOCAL_RATE_LIMIT),
            "{name}"
        );
        let limit = LocalRateLimit::decode(any.value.as_slice()).expect("a LocalRateLimit");
        let mut said = cases::canonical(&config.canonical);
        if let Some(fields) = said.as_object_mut() {
            fields.remove("alwaysConsumeDefaultTokenBucket");
        }
        assert_eq!(
            as_json(&limit),
            said,
            "{name}: the body says what the version is made of"
        );
        assert_eq!(limit.descriptors.len(), config.live, "{name}");
    }
    let inline = configs
        .iter()
        .map(|c| {
            (
                c.name.clone(),
                json!({"typed_config": lab::typed_struct(&cases::canonical(&c.canonical))}),
            )
        })
        .collect();
    accepted(&format!("{name}, values inline"), mesh, &filters, &inline);
}

#[test]
fn envoy_accepts_every_object_of_every_case() {
    let mesh = Mesh::new(lab::nowhere());
    let names = cases::names();
    let halves = names.split_at(names.len() / 2);
    std::thread::scope(|scope| {
        for half in [halves.0, halves.1] {
            let mesh = &mesh;
            scope.spawn(move || half.iter().for_each(|name| check(name, mesh)));
        }
    });
}

/// Protobuf as JSON, written apart from the code under test.
fn as_json(limit: &LocalRateLimit) -> Value {
    let span = |d: &Option<Duration>| {
        let d = d.unwrap_or_default();
        if d.nanos == 0 {
            format!("{}s", d.seconds)
        } else {
            format!("{}.{:03}s", d.seconds, d.nanos / 1_000_000)
        }
    };
    let mut out = json!({"statPrefix": limit.stat_prefix});
    let bucket = |b: &envoy_types::pb::envoy::r#type::v3::TokenBucket| {
        let mut v = json!({"maxTokens": b.max_tokens, "fillInterval": span(&b.fill_interval)});
        if let Some(tokens) = &b.tokens_per_fill {
            v["tokensPerFill"] = json!(tokens.value);
        }
        v
    };
    if let Some(b) = &limit.token_bucket {
        out["tokenBucket"] = bucket(b);
        out["descriptors"] = json!([]);
    }
    for (key, percent) in [
        ("filterEnabled", &limit.filter_enabled),
        ("filterEnforced", &limit.filter_enforced),
    ] {
        if let Some(p) = percent {
            let numerator = p.default_value.map_or(0, |v| v.numerator);
            out[key] =
                json!({"runtimeKey": p.runtime_key, "defaultValue": {"numerator": numerator}});
        }
    }
    for d in &limit.descriptors {
        let entries: Vec<Value> = d
            .entries
            .iter()
            .map(|e| {
                let mut entry = json!({"key": e.key});
                if !e.value.is_empty() {
                    entry["value"] = json!(e.value);
                }
                entry
            })
            .collect();
        let item = json!({"entries": entries, "tokenBucket": d.token_bucket.as_ref().map(bucket)});
        if let Some(list) = out["descriptors"].as_array_mut() {
            list.push(item);
        }
    }
    answers(limit, &mut out);
    out
}

/// What refused requests get, and how many values have a bucket.
fn answers(limit: &LocalRateLimit, out: &mut Value) {
    if !limit.response_headers_to_add.is_empty() {
        out["responseHeadersToAdd"] = limit
            .response_headers_to_add
            .iter()
            .map(|h| {
                let header = h.header.clone().unwrap_or_default();
                json!({"header": {"key": header.key, "value": header.value}, "appendAction": "APPEND_IF_EXISTS_OR_ADD"})
            })
            .collect();
    }
    if let Some(status) = &limit.status {
        out["status"] = json!({"code": status.code});
    }
    if limit.rate_limited_as_resource_exhausted {
        out["rateLimitedAsResourceExhausted"] = json!(true);
    }
    if limit.enable_x_ratelimit_headers == 1 {
        out["enableXRatelimitHeaders"] = json!("DRAFT_VERSION_03");
    }
    if let Some(values) = limit.max_dynamic_descriptors {
        out["maxDynamicDescriptors"] = json!(values.value);
    }
}
