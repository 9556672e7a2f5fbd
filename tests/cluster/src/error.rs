//! What can go wrong while the control plane is started or asked.

use std::path::PathBuf;

use trimtab_lab::LabError;

/// A failure of the harness, never of what is tested on it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A program has not been built.
    #[error(
        "{program} was not found at {path}; run `make deps` (it builds the control plane of the tests once; cluster/build.log of the cache says what failed), or set {variable}"
    )]
    Missing {
        /// Name of the program.
        program: String,
        /// Where it was looked for.
        path: PathBuf,
        /// The variable that names its folder.
        variable: &'static str,
    },
    /// A process, a port or an answer.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The API server refused something.
    #[error("kubernetes: {0}")]
    Kube(#[from] kube::Error),
    /// The client configuration could not be used.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// A file of the harness.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The reason of the operating system.
        source: std::io::Error,
    },
    /// A command line tool failed.
    #[error("`{command}` ended with {status}:\n{output}")]
    Command {
        /// What was run.
        command: String,
        /// How it ended.
        status: String,
        /// Standard output and error.
        output: String,
    },
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

/// Result of the harness.
pub type Result<T, E = ClusterError> = std::result::Result<T, E>;

impl ClusterError {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
