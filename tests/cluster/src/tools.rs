//! Where the programs are that `make deps` builds.

use std::path::{Path, PathBuf};

use trimtab_lab::process::cache_dir;

use crate::{ClusterError, Result};

/// Folder of programs that replace ours: `etcd` and `kube-apiserver` as envtest installs them.
const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// The folder that `scripts/cluster-tools.sh` fills.
pub fn folder() -> PathBuf {
    cache_dir().join("cluster/bin")
}

/// The path of a program or file of [`folder`], e.g. `helm` or `istio-previous/pilot-discovery`.
///
/// `etcd`, `kube-apiserver` and `kubectl` are taken from `KUBEBUILDER_ASSETS` when that is set.
pub fn find(name: &str) -> Result<PathBuf> {
    let assets = std::env::var_os(ASSETS).filter(|value| !value.is_empty());
    if let Some(assets) = assets
        && ["etcd", "kube-apiserver", "kubectl"].contains(&name)
    {
        return existing(name, &Path::new(&assets).join(name), ASSETS);
    }
    existing(name, &folder().join(name), "TRIMTAB_CACHE")
}

fn existing(name: &str, path: &Path, variable: &'static str) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_owned());
    }
    Err(ClusterError::Missing {
        program: name.to_owned(),
        path: path.to_owned(),
        variable,
    })
}
