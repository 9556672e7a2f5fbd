//! How commands show what they have found.

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

/// Form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl Output {
    /// The answer in this form.
    pub fn print<T: Serialize>(
        self,
        answer: &T,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<String> {
        match self {
            Self::Text => Ok(text()),
            Self::Json => {
                let json = serde_json::to_string_pretty(answer);
                Ok(format!("{}\n", json.context("no JSON can be made of it")?))
            }
        }
    }
}
