//! Programs that the tests run.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// A running program in a folder of its own; both go when it is dropped.
pub(crate) struct Process {
    child: Child,
    folder: PathBuf,
    started: Instant,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Process {
    /// Starts `program` with the folder's files; `{folder}` in arguments stands for it.
    pub(crate) fn start(
        program: PathBuf,
        name: &str,
        files: &[(&str, String)],
        args: &[&str],
    ) -> Self {
        let unique = format!("trimtab-lazyload-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(unique);
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in files {
            fs::write(folder.join(file), text).unwrap();
        }
        let log = fs::File::create(folder.join("log")).unwrap();
        let args = args
            .iter()
            .map(|arg| arg.replace("{folder}", &folder.to_string_lossy()));
        let child = Command::new(program)
            .args(args)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            child,
            folder,
            started: Instant::now(),
        }
    }

    /// Fails when the program has ended or does not come up.
    pub(crate) fn check(&mut self) {
        let ended = self.child.try_wait().unwrap();
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let late = self.started.elapsed() > BOUND;
        assert!(ended.is_none() && !late, "{ended:?}: {log}");
    }

    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program that a variable names, or one of those that `make deps` or the system has installed.
pub(crate) fn find(variable: &str, cached: &[PathBuf], name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    let found = cached.iter().cloned().chain(on_path).find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("no {name}: run `make deps`, or set {variable}"))
}

/// Where `make deps` installs.
pub(crate) fn cache() -> PathBuf {
    std::env::var_os("TRIMTAB_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/trimtab"),
        PathBuf::from,
    )
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
