//! Golden cases: reading, computing, writing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use trimtab_crds::limiter::{Delivery, DescriptorState, DescriptorStatus};
use trimtab_kit::identity::XdsEndpoint;
use trimtab_limiter::decide::decide;
use trimtab_limiter::input::LimiterInput;
use trimtab_limiter::status::{Report, status};
use trimtab_limiter::translate::{Translation, translate};
use trimtab_limiter::validate::{Validated, delivery_problem, validate_for};

/// An input with all that is made of it.
pub(crate) struct Case {
    pub input: LimiterInput,
    pub validated: Validated,
    pub decisions: Vec<DescriptorStatus>,
    pub translation: Translation,
}

/// The folder of all cases.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/limiter")
}

/// Names of all cases, sorted.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(root())
        .expect("the folder of golden cases")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// Reads a case's input.
pub(crate) fn input(name: &str) -> LimiterInput {
    let path = root().join(name).join("in.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Computes a case by name.
pub(crate) fn load(name: &str) -> Case {
    Case::of(input(name))
}

impl Case {
    pub(crate) fn of(input: LimiterInput) -> Self {
        let validated = validate_for(&input.owner, &input.spec, &input.target.ports);
        let decisions = decide(&input, &validated);
        let translation = translate(&input, &validated, &decisions);
        Self {
            input,
            validated,
            decisions,
            translation,
        }
    }

    /// The same case delivered in another way.
    pub(crate) fn delivered_by(
        mut input: LimiterInput,
        delivery: Delivery,
        xds_address: &str,
    ) -> Self {
        input.spec.delivery = Some(delivery);
        Arc::make_mut(&mut input.settings).xds = XdsEndpoint::plain(xds_address);
        Self::of(input)
    }

    /// The generated EnvoyFilters as JSON.
    pub(crate) fn envoy_filters(&self) -> Vec<Value> {
        self.translation
            .envoy_filters
            .iter()
            .map(|filter| serde_json::to_value(filter).expect("JSON"))
            .collect()
    }

    /// What is refused: reason, field, fix.
    pub(crate) fn refused(&self) -> Vec<String> {
        let mut out: Vec<String> = self
            .validated
            .problems()
            .map(|problem| format!("{}: {problem}", problem.reason))
            .collect();
        let found_later = self
            .decisions
            .iter()
            .zip(&self.validated.rules)
            .filter(|(d, c)| d.state == DescriptorState::Refused && c.rule.is_ok());
        out.extend(found_later.map(|(d, _)| d.reason.clone()));
        out
    }

    /// `out.yaml`.
    pub(crate) fn render(&self) -> String {
        let extension_configs: Vec<Value> = self
            .translation
            .extension_configs
            .iter()
            .map(|c| json!({"name": c.name, "live": c.live, "config": canonical(&c.canonical)}))
            .collect();
        let report = Report {
            delivery: delivery_problem(self.input.delivery(), &self.input.settings.xds),
            ..Report::default()
        };
        let now = Timestamp::from_second(1_700_000_000).expect("a time");
        let status = status(
            &self.input,
            &self.validated,
            &self.decisions,
            &report,
            &[],
            now,
        );
        let out = json!({
            "decisions": self.decisions,
            "envoyFilters": self.envoy_filters(),
            "extensionConfigs": extension_configs,
            "refused": self.refused(),
            "status": status,
        });
        serde_saphyr::to_string(&out).expect("YAML")
    }
}

/// The content of an ECDS resource.
pub(crate) fn canonical(text: &str) -> Value {
    serde_json::from_str(text).expect("canonical JSON")
}
