//! Durations as users write them.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trimtab_crds::Duration;
use trimtab_crds::duration::NotADuration;

/// A duration in Go's notation, which Aeraki's resources use: `100ms`, `1m30s`, `1.5s`. Kept as written, so that an
/// error can show it; [`Span::get`] reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Span(String);

impl Span {
    /// From text; what is not a duration is found by [`Span::get`].
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The duration, unless the text is not one.
    pub fn get(&self) -> Result<Duration, NotADuration> {
        self.0.parse()
    }

    /// In protobuf's JSON form, e.g. `0.100s`; the text itself when it is not a duration.
    pub fn to_json(&self) -> String {
        self.get()
            .map_or_else(|_| self.0.clone(), Duration::to_proto_json)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
