//! The modules of a Slime installation, from its SlimeBoots, or from the ConfigMaps that its chart made of them.

use serde_json::Value;
use trimtab_kit::module::camel_case;

use crate::migrate::objects::{Objects, items, name, namespace, place, text};

/// A module and its configuration.
#[derive(Debug, Default)]
pub struct Slime {
    /// Where it is written.
    pub origin: String,
    /// Namespace of its Deployment.
    pub namespace: String,
    /// Name of the Deployment and of the ConfigMap: the module's, or that of the bundle that it is in.
    pub deployment: String,
    /// `limiter`, `lazyload`, `plugin`, `meshregistry`, or what is written.
    pub kind: String,
    /// Whether it runs.
    pub enabled: bool,
    /// Its own configuration, keys in camelCase.
    pub general: Value,
    /// Configuration of the framework.
    pub global: Value,
    /// Where metrics come from.
    pub metric: Value,
}

/// All modules.
pub fn modules(objects: &Objects) -> Vec<Slime> {
    let mut out = Vec::new();
    for boot in objects.kind("SlimeBoot") {
        let origin = format!("SlimeBoot {}: spec.module", place(boot));
        add(
            &mut out,
            &origin,
            namespace_of(boot),
            items(boot, "/spec/module"),
        );
    }
    // Other programs have a `cfg` too: it is Slime's where Slime is, as far as that was read.
    let mut homes: Vec<&str> = objects
        .kind("SlimeBoot")
        .into_iter()
        .map(namespace_of)
        .collect();
    let boots = objects.which("Deployment", |o| name(o) == "slime-boot");
    homes.extend(boots.into_iter().map(namespace));
    let at_home = |map: &Value| homes.is_empty() || homes.contains(&namespace(map));
    for map in objects.which("ConfigMap", at_home) {
        let known = |m: &Slime| m.namespace == namespace(map) && m.deployment == name(map);
        if out.iter().any(known) {
            continue;
        }
        let mut written = Vec::new();
        for (key, content) in map["data"].as_object().into_iter().flatten() {
            if key == "cfg" || key.starts_with("cfg_") {
                let content = content.as_str().unwrap_or_default();
                let parsed = serde_saphyr::from_str::<Value>(content).unwrap_or_default();
                // The global-sidecar has a `cfg` too, with nothing but ports.
                if ["general", "bundle", "kind", "fence", "limiter"]
                    .iter()
                    .any(|key| !parsed[key].is_null())
                {
                    written.push(parsed);
                }
            }
        }
        let origin = format!("ConfigMap {}: data", place(map));
        let before = out.len();
        add(&mut out, &origin, namespace(map), &written);
        for module in &mut out[before..] {
            if module.deployment.is_empty() {
                name(map).clone_into(&mut module.deployment);
            }
        }
    }
    out
}

/// SlimeBoot says where its modules run.
fn namespace_of(boot: &Value) -> &str {
    match text(boot, "/spec/namespace") {
        "" => namespace(boot),
        written => written,
    }
}

fn add(out: &mut Vec<Slime>, origin: &str, namespace: &str, written: &[Value]) {
    let bundle = written.iter().find(|m| !m["bundle"].is_null());
    for (i, module) in written.iter().enumerate() {
        if !module["bundle"].is_null() {
            continue;
        }
        let named = text(module, "/name");
        let (old, general) = old_form(module).unwrap_or_default();
        let of_bundle = bundle.map_or(&[][..], |b| items(b, "/bundle/modules"));
        let of_bundle = of_bundle.iter().find(|m| text(m, "/name") == named);
        let kind = [
            text(module, "/kind"),
            of_bundle.map_or("", |m| text(m, "/kind")),
            old,
            named,
        ];
        let kind = kind.into_iter().find(|k| !k.is_empty()).unwrap_or("?");
        let mut global = bundle.map_or(Value::Null, |b| b["global"].clone());
        merge(&mut global, &module["global"]);
        let mut metric = bundle.map_or(Value::Null, |b| b["metric"].clone());
        merge(&mut metric, &module["metric"]);
        let enabled = [&module["enable"], &general["enable"]];
        let mut all = camel(&module["general"]);
        merge(&mut all, &camel(&general));
        if let Some(keys) = all.as_object_mut() {
            keys.remove("enable");
        }
        out.push(Slime {
            origin: format!("{origin}[{i}]"),
            namespace: namespace.to_owned(),
            deployment: bundle.map_or(named, |b| text(b, "/name")).to_owned(),
            kind: known_kind(kind).to_owned(),
            enabled: enabled.iter().any(|e| **e == true),
            general: all,
            global,
            metric,
        });
    }
}

/// Up to v0.3 a module's configuration stood under its own name.
fn old_form(module: &Value) -> Option<(&'static str, Value)> {
    let forms = [
        ("limiter", "limiter"),
        ("fence", "lazyload"),
        ("lazyload", "lazyload"),
        ("plugin", "plugin"),
    ];
    forms
        .into_iter()
        .find_map(|(key, kind)| Some((kind, module.get(key)?.clone())))
}

/// Old configurations have no kind: the name tells.
fn known_kind(kind: &str) -> &str {
    let kinds = [
        ("limiter", "limiter"),
        ("lazyload", "lazyload"),
        ("fence", "lazyload"),
        ("plugin", "plugin"),
        ("meshregistry", "meshregistry"),
    ];
    let found = kinds.iter().find(|(part, _)| kind.contains(part));
    found.map_or(kind, |(_, kind)| *kind)
}

/// The keys of a map in camelCase.
fn camel(value: &Value) -> Value {
    match value {
        Value::Object(keys) => {
            let keys = keys.iter().map(|(key, v)| (camel_case(key), v.clone()));
            Value::Object(keys.collect())
        }
        other => other.clone(),
    }
}

/// `over` over `base`, key by key.
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}
