//! Where the programs are that `make deps` builds.

use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trimtab_lab::process::cache_dir;

use crate::{ClusterError, Result};

/// Folder of programs that replace ours: `etcd` and `kube-apiserver` as envtest installs them.
const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// How often it is looked at whether a program is there.
const STEP: Duration = Duration::from_millis(200);

/// The folder that `scripts/cluster-tools.sh` fills.
pub fn folder() -> PathBuf {
    cache_dir().join("cluster/bin")
}

/// The path of a program or file of [`folder`], e.g. `helm` or `istio-previous/pilot-discovery`.
///
/// Waits, blocking the thread, while `scripts/cluster-tools.sh` builds what is not there yet: only `make test` on a machine
/// that has never run it.
///
/// `etcd`, `kube-apiserver` and `kubectl` are taken from `KUBEBUILDER_ASSETS` when that is set.
pub fn find(name: &str) -> Result<PathBuf> {
    let assets = std::env::var_os(ASSETS).filter(|value| !value.is_empty());
    if let Some(assets) = assets
        && ["etcd", "kube-apiserver", "kubectl"].contains(&name)
    {
        return existing(name, &Path::new(&assets).join(name), ASSETS);
    }
    let path = folder().join(name);
    while !path.is_file() && is_building() {
        std::thread::sleep(STEP);
    }
    existing(name, &path, "TRIMTAB_CACHE")
}

/// Whether the programs are being built: `make test` builds them beside the tests that need none of them.
fn is_building() -> bool {
    let lock = std::fs::File::open(cache_dir().join("cluster/lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
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
