//! What is logged, and in which form.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// The words that levels are written with.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Log lines on standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Log {
    /// Level, or levels by module as in `RUST_LOG`, which goes before it.
    pub level: Option<String>,
    /// Form of the lines.
    pub format: Format,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Log {
    /// Checks what types cannot say. The error names the key and the fix.
    pub fn check(&self) -> Result<(), String> {
        let level = self.level.as_deref().map(filter).transpose();
        level
            .map(drop)
            .map_err(|problem| format!("log.level: {problem}"))
    }
}

/// Starts to log. A level of the environment that is none falls back to `usual`, with a warning: nothing would be logged
/// otherwise.
pub fn start(log: &Log, usual: &str) {
    let variable = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let variable = variable.filter(|text| !text.trim().is_empty());
    let own = log.level.as_deref().and_then(|level| filter(level).ok());
    let (chosen, problem) = match variable.as_deref().map(filter) {
        Some(Ok(chosen)) => (Some(chosen), None),
        Some(Err(problem)) => (own, Some(problem)),
        None => (own, None),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(chosen.unwrap_or_else(|| EnvFilter::new(usual)))
        .with_writer(std::io::stderr);
    match log.format {
        Format::Text => {
            let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            lines.with_ansi(terminal).init();
        }
        Format::Json => lines.json().flatten_event(true).init(),
    }
    if let Some(problem) = problem {
        tracing::warn!("RUST_LOG: {problem}; until then it is as if RUST_LOG were not set");
    }
}

/// Reads levels. The subscriber would take a word that is no level for the name of a module, and log nothing else.
fn filter(text: &str) -> Result<EnvFilter, String> {
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let plain = !part.contains(['=', '[', '{', '/']);
        let level = match part.rsplit_once('=') {
            Some((_, level)) if !level.contains([']', '}']) => level,
            _ if plain => part,
            _ => continue,
        };
        let known = LEVELS.contains(&level.to_ascii_lowercase().as_str())
            || matches!(level.parse::<u8>(), Ok(0..=5));
        if !known {
            return Err(format!(
                "\"{level}\" is no level: write one of {}, or MODULE=LEVEL, for example info,trimtab_limiter=debug",
                LEVELS.join(", ")
            ));
        }
    }
    EnvFilter::try_new(text)
        .map_err(|e| format!("\"{text}\" cannot be read ({e}): write for example info"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_o28_what_is_no_level_is_named() {
        for good in [
            "info",
            "INFO",
            "warn,trimtab_limiter=debug",
            "trimtab=trace,kube=off",
            "info,[span{field=1}]=debug",
            "info,",
            "3",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in [
            "verbose",
            "warning",
            "info,debugg",
            "trimtab=verbose",
            "trimtab_limiter",
            "7",
        ] {
            let problem = filter(bad).unwrap_err();
            assert!(problem.contains("is no level: write one of"), "{problem}");
        }
        let log = Log {
            level: Some("warning".to_owned()),
            ..Log::default()
        };
        assert!(
            log.check()
                .unwrap_err()
                .starts_with("log.level: \"warning\"")
        );
    }
}
