//! `trimtab version`: what this program is, and what the operator says that it is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reach::Server;
use crate::shown::Output;

/// A version of the program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// As `trimtab --version` says it.
    pub version: String,
    /// The commit that it was built of; absent: the build was not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

impl Version {
    /// Of this program. The commit comes from the variable `TRIMTAB_COMMIT` of the build: sources without git give the same
    /// program.
    pub fn own() -> Self {
        let commit = option_env!("TRIMTAB_COMMIT").filter(|commit| !commit.is_empty());
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit.map(str::to_owned),
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.version)?;
        let commit = self.commit.as_deref();
        commit.map_or(Ok(()), |commit| write!(f, " (commit {commit})"))
    }
}

/// What to say.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct VersionArgs {
    /// Ask the operator too: at this address, or without one at http://127.0.0.1:8080 or in the cluster
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    server: Option<String>,
    /// Output format
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Both versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Both {
    client: Version,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Version>,
    /// Why the operator's is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// The text, and whether something that was asked for is not known.
pub(crate) async fn version(args: VersionArgs) -> anyhow::Result<(String, bool)> {
    let mut both = Both {
        client: Version::own(),
        ..Both::default()
    };
    if let Some(server) = args.server {
        match ask(&Server::at(Some(server).filter(|s| !s.is_empty()))).await {
            Ok(found) => both.server = Some(found),
            Err(error) => both.problem = Some(format!("{error:#}")),
        }
    }
    let unknown = both.problem.is_some();
    Ok((args.output.print(&both, || text(&both))?, unknown))
}

async fn ask(server: &Server) -> anyhow::Result<Version> {
    server.open().await?.get(&["version"]).await
}

fn text(both: &Both) -> String {
    let server = match (&both.server, &both.problem) {
        (Some(version), _) => format!("server  {version}\n"),
        (None, Some(problem)) => format!("server  unknown: {problem}\n"),
        (None, None) => String::new(),
    };
    format!("client  {}\n{server}", both.client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_told_or_why_not() {
        let version = |commit: Option<&str>| Version {
            version: "1.2.3".to_owned(),
            commit: commit.map(str::to_owned),
        };
        let mut both = Both {
            client: version(None),
            ..Both::default()
        };
        assert_eq!(text(&both), "client  1.2.3\n");
        both.server = Some(version(Some("abc")));
        assert_eq!(text(&both), "client  1.2.3\nserver  1.2.3 (commit abc)\n");
        both.server = None;
        both.problem = Some("nobody answers".to_owned());
        assert!(text(&both).ends_with("server  unknown: nobody answers\n"));
    }
}
