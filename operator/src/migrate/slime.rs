//! From Slime: SlimeBoot or the ConfigMaps of its modules, SmartLimiters, ServiceFences, and what Slime made.

mod boot;
mod keys;
mod made;
mod steps;

use serde_json::{Value, json};
use trimtab_kit::module::{Became, Factory, camel_case};

use super::objects::{Objects, items, place, text};
use super::report::Report;
use super::values::Values;
use crate::config::Config;
use boot::Slime;
use keys::{BOOT, ENV, GLOBAL, GLOBAL_SIDECAR, INJECT, MISC, SERVICE, Table};

/// What a migration from Slime is. `refused`: what the operator says of the objects.
pub fn report(objects: &Objects, modules: &[Factory], refused: &[String]) -> Report {
    let mut out = Work {
        modules,
        values: Values::default(),
        report: Report {
            title: "From Slime to Trimtab.".to_owned(),
            ..Report::default()
        },
    };
    let found = boot::modules(objects);
    if found.is_empty() {
        out.report.decide(
            "the installation of Slime",
            "no SlimeBoot and no ConfigMap of a module was read, so that values.yaml has nothing of it",
            &["read the cluster (no -f), or give the objects of Slime's namespace too"],
        );
    }
    for module in &found {
        out.module(module);
    }
    for boot in objects.kind("SlimeBoot") {
        out.boot(boot);
    }
    out.switches(&found);
    if !objects
        .which("SmartLimiter", made::is_first_form)
        .is_empty()
    {
        out.values.set("config.metrics.metricsServer", json!({}));
    }
    let Work {
        values, mut report, ..
    } = out;
    made::classify(objects, &mut report);
    for line in refused {
        report.decide("Trimtab refuses", line.as_str(), &["change the object before the step that installs Trimtab: its last limit stays in force until then"]);
    }
    report.values = values.into_value();
    checked(&mut report);
    steps::write(objects, &found, &mut report);
    report
}

/// What the operator would say of its part of the values.
fn checked(report: &mut Report) {
    let Ok(text) = crate::manifests::yaml(&report.values["config"]) else {
        return;
    };
    if let Err(error) = Config::parse(&text) {
        report.decide(
            "values.yaml",
            format!("config.{error:#}"),
            &["change the value before helm install: the chart or the operator refuses it"],
        );
    }
}

struct Work<'a> {
    modules: &'a [Factory],
    values: Values,
    report: Report,
}

impl Work<'_> {
    /// The configuration of one module.
    fn module(&mut self, module: &Slime) {
        self.global(module);
        let factory = self.modules.iter().find(|f| f.name == module.kind).copied();
        let Some(factory) = factory else {
            self.report.decide(
                format!("{}: module {}", module.origin, module.kind),
                "Trimtab has no such module; what it made stays in force as long as its objects are there",
                &[
                    "keep this one module of Slime running, in its own SlimeBoot, and leave it out of the steps that stop Slime",
                    "turn what it made into objects of your own (remove their ownerReferences), and stop it",
                ],
            );
            return;
        };
        for (key, value) in module.general.as_object().into_iter().flatten() {
            let at = format!("{}.general.{key}", module.origin);
            if key == "metricSourceType" {
                let what = if value == "prometheus" {
                    "metrics of Prometheus teach calls, and access logs of the fallback too"
                } else {
                    "access logs of the fallback teach calls, as the chart has it by default"
                };
                self.report.stay(vec![at], what);
                continue;
            }
            let became = factory
                .legacy()
                .iter()
                .find(|l| l.key == key.as_str())
                .map(|l| l.became);
            let became = match became {
                Some(Became::Key(path)) => {
                    self.set(at, &format!("config.{}.{path}", factory.name), texts(value));
                    continue;
                }
                other => other,
            };
            self.became(at, became, value);
        }
        self.metric(module);
    }

    fn global(&mut self, module: &Slime) {
        let origin = format!("{}.global", module.origin);
        for (key, value) in module.global.as_object().into_iter().flatten() {
            let at = format!("{origin}.{key}");
            match camel_case(key).as_str() {
                "istioNamespace" => self.istio_namespace(at, value),
                "configSources" => self.config_sources(&at, value),
                "log" => self.log(&at, value),
                "misc" => self.misc(&at, value),
                // Both are the defaults of either side, or empty.
                "service" if value == "app" => {}
                _ if value == "" => {}
                key => self.became(at, keys::find(GLOBAL, key), value),
            }
        }
    }

    fn istio_namespace(&mut self, at: String, value: &Value) {
        if value == "istio-system" || value == "" {
            return;
        }
        for path in [
            "config.limiter.rootNamespace",
            "config.lazyload.istioNamespace",
            "config.metaprotocol.rootNamespace",
        ] {
            self.set(at.clone(), path, value.clone());
        }
        let istiod = format!("{}/istio", value.as_str().unwrap_or_default());
        self.set(at, "config.mesh.configMap", istiod);
    }

    fn config_sources(&mut self, at: &str, value: &Value) {
        for (i, source) in value.as_array().into_iter().flatten().enumerate() {
            let at = format!("{at}[{i}]");
            let address = text(source, "/address");
            if address.starts_with("k8s://") {
                self.report
                    .change(vec![at], "left out: the API server is read always");
            } else {
                self.report.decide(
                    at,
                    format!("{address}: objects that only this server has are not seen: Trimtab reads the API server alone"),
                    &["apply these ServiceEntries to the API server", "leave limits and fences of these hosts out"],
                );
            }
        }
    }

    fn log(&mut self, at: &str, value: &Value) {
        for (key, value) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{key}");
            let level = value.as_str().unwrap_or_default();
            match (key.as_str(), level) {
                ("logLevel", "" | "info") => {}
                ("logLevel", "warning") => self.set(at, "logLevel", "warn"),
                ("logLevel", "fatal" | "panic") => self.set(at, "logLevel", "error"),
                ("logLevel", level) => self.set(at, "logLevel", level),
                _ => self.report.change(
                    vec![at],
                    "left out: logs go to standard error, at one level",
                ),
            }
        }
    }

    fn misc(&mut self, at: &str, value: &Value) {
        for (key, value) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{key}");
            match camel_case(&key.replace('-', "_")).as_str() {
                "logSourcePort" => {
                    let port = value
                        .as_str()
                        .and_then(|v| v.rsplit(':').next()?.parse::<u16>().ok());
                    match port {
                        Some(8082) | None => self
                            .report
                            .stay(vec![at], "access logs arrive at port 8082"),
                        Some(port) => self.set(at, "service.ports.accessLogs", port),
                    }
                }
                "seLabelSelectorKeys" if value == "app" => {}
                key => self.became(at, keys::find(MISC, key), value),
            }
        }
    }

    /// Where numbers come from.
    fn metric(&mut self, module: &Slime) {
        let at = format!("{}.metric", module.origin);
        if !module.metric["k8s"].is_null() {
            self.report.change(
                vec![format!("{at}.k8s")],
                "left out: the number of pods is always there",
            );
        }
        let prometheus = &module.metric["prometheus"];
        let address = &prometheus["address"];
        if address.is_null() {
            return;
        }
        let learns = module.kind == "lazyload";
        if learns && module.general["metricSourceType"] == "accesslog" {
            self.report.change(
                vec![format!("{at}.prometheus")],
                "left out: metricSourceType is accesslog",
            );
            return;
        }
        if module.general["disableAdaptive"] == true {
            self.report.change(
                vec![format!("{at}.prometheus")],
                "left out: disableAdaptive is set",
            );
            return;
        }
        let path = if learns {
            "config.lazyload.learn.prometheus"
        } else {
            "config.metrics.prometheus"
        };
        self.set(
            format!("{at}.prometheus.address"),
            &format!("{path}.address"),
            address.clone(),
        );
        let handlers = &prometheus["handlers"];
        if handlers.is_null() {
            return;
        }
        let at = format!("{at}.prometheus.handlers");
        if learns {
            self.report.change(vec![at], "left out: two queries for the whole mesh take the place of one a fence; config.lazyload.learn.prometheus.requests is the query");
        } else {
            self.set(at, &format!("{path}.handlers"), handlers.clone());
        }
    }

    fn boot(&mut self, boot: &Value) {
        let origin = format!("SlimeBoot {}: spec", place(boot));
        for (key, value) in boot["spec"].as_object().into_iter().flatten() {
            let at = format!("{origin}.{key}");
            match key.as_str() {
                "module" => {}
                "istioNamespace" => self.istio_namespace(at, value),
                "service" => self.table(&at, SERVICE, value),
                "env" => self.env(&at, items(boot, "/spec/env")),
                "component" => self.components(&at, value),
                key => self.became(at, keys::find(BOOT, key), value),
            }
        }
    }

    fn env(&mut self, at: &str, variables: &[Value]) {
        for variable in variables {
            let name = text(variable, "/name");
            self.became(
                format!("{at}.{name}"),
                keys::find(ENV, name),
                &variable["value"],
            );
        }
    }

    fn components(&mut self, at: &str, value: &Value) {
        for (name, component) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            if name != "globalSidecar" {
                self.report
                    .change(vec![at], "left out: nothing of Trimtab needs it");
                continue;
            }
            self.table(&at, GLOBAL_SIDECAR, component);
            self.table(
                &format!("{at}.sidecarInject"),
                INJECT,
                &component["sidecarInject"],
            );
        }
    }

    fn table(&mut self, at: &str, table: Table, value: &Value) {
        for (key, value) in value.as_object().into_iter().flatten() {
            if key != "sidecarInject" {
                self.became(format!("{at}.{key}"), keys::find(table, key), value);
            }
        }
    }

    fn became(&mut self, at: String, became: Option<Became>, value: &Value) {
        match became {
            Some(Became::Key(path)) => self.set(at, path, texts(value)),
            Some(Became::Nothing(why)) => self.report.change(vec![at], format!("left out: {why}")),
            Some(Became::Other(what)) => self.report.decide(at, what, &[]),
            None => self.report.decide(
                at,
                "no key of Slime that is known here",
                &["if it does something, look for it in docs/configuration.md; otherwise leave it out"],
            ),
        }
    }

    fn set(&mut self, at: String, path: &str, value: impl Into<Value>) {
        let value = value.into();
        if self.values.set(path, value.clone()) {
            self.report.stay(vec![at], format!("the same as {path}"));
            return;
        }
        let there = self.values.get(path).cloned().unwrap_or_default();
        self.report.decide(
            at,
            format!("{path}: one Trimtab takes the place of several modules, and these have {there} and {value}"),
            &["leave the first one in values.yaml, or write the other"],
        );
    }

    /// Modules that were off stay off.
    fn switches(&mut self, found: &[Slime]) {
        let on = |kind: &str| found.iter().any(|m| m.kind == kind && m.enabled);
        let off = "off, as it was: switch it on when you want it";
        if !on("lazyload") {
            self.values.set("config.lazyload.enabled", false.into());
            self.report
                .change(vec!["ServiceFences (config.lazyload)".to_owned()], off);
        } else if self.values.get("fallback.enabled") != Some(&Value::Bool(true)) {
            self.report.decide(
                "values.yaml: fallback.enabled",
                "no component.globalSidecar is switched on, and without a fallback no scope narrows",
                &[
                    "fallback.enabled: true, which carries first calls as the global-sidecar does",
                    "config.lazyload.fallback.enabled: false: calls out of scope follow outboundTrafficPolicy",
                ],
            );
        }
        self.values.set("config.metaprotocol.enabled", false.into());
        self.report
            .change(vec!["MetaRouters (config.metaprotocol)".to_owned()], off);
        if on("lazyload") {
            for (key, what) in [
                ("autoPort", "HTTP ports are found in the mesh"),
                ("supportH2", "ports named grpc and http2 are carried too"),
            ] {
                let path = format!("config.lazyload.fallback.{key}");
                if self.values.get(&path).is_none() {
                    self.report.change(
                        vec![format!("general.{key}")],
                        format!("on by default here: {what}; {path}: false is what Slime does"),
                    );
                }
            }
        }
        self.report.decide(
            "values.yaml: image.repository",
            "no image is published: the chart needs the name of yours",
            &["build one with make image and push it to your registry: docs/install.md"],
        );
    }
}

/// Slime reads numbers where texts belong, as in lists of ports.
fn texts(value: &Value) -> Value {
    match value {
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::Number(number) => number.to_string().into(),
                other => other.clone(),
            })
            .collect(),
        other => other.clone(),
    }
}
