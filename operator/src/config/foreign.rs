//! Files of others that are given as configuration.

use std::path::Path;

use serde_json::Value;

/// What to do with a SlimeBoot, the one object that an installation of Slime consists of.
pub(super) fn advice(path: &Path, text: &str) -> Option<String> {
    let documents = serde_saphyr::from_multiple::<Value>(text).ok()?;
    let boot = documents.iter().any(|d| d["kind"] == "SlimeBoot");
    let file = path.display();
    boot.then(|| {
        format!(
            "{file} is a SlimeBoot and no configuration of Trimtab: run `trimtab migrate slime -f {file}`, which prints the values of the chart"
        )
    })
}
