//! The text of a module about an object.

use std::sync::Arc;

use trimtab_kit::module::{Describe, DescribeRequest, Installed};

/// The text of a module about an object.
pub(crate) fn answer(
    modules: &[Arc<Installed>],
    kind: &str,
    request: &DescribeRequest,
) -> Result<String, String> {
    let kind = kind.to_lowercase();
    let all = || modules.iter().flat_map(|m| &m.describes);
    let named = |d: &&Describe| d.kind == kind || d.aliases.contains(&kind.as_str());
    if let Some(describe) = all().find(named) {
        return describe.text(request);
    }
    let kinds: Vec<&str> = all().map(|d| d.kind).collect();
    Err(format!(
        "\"{kind}\" cannot be described: write one of {}",
        kinds.join(", ")
    ))
}
