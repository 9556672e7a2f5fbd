//! Child processes that end with their guard.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::future::Future;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::LabError;

/// Lines of a log that an error message carries.
const TAIL_LINES: usize = 12;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// What to run.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Name in messages.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Standard output and error are appended to this file.
    pub log: PathBuf,
}

/// A running child; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    spec: Spec,
    child: Child,
}

impl Process {
    /// Starts the program.
    pub fn start(spec: Spec) -> Result<Self, LabError> {
        let child = spawn(&spec)?;
        Ok(Self { spec, child })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it as `kill -9` does and waits for its end. Nothing happens when it has ended already.
    pub fn kill(&mut self) {
        // Both fail only when the child is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it if it runs and starts the same program again, with the same log.
    pub fn restart(&mut self) -> Result<(), LabError> {
        self.kill();
        self.child = spawn(&self.spec)?;
        Ok(())
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        tail(&self.spec.log)
    }

    /// Waits until `check` says `Ok`, the process ends, or `bound` is over; the error carries the end of the log.
    pub async fn wait_ready<F, Fut>(
        &mut self,
        bound: Duration,
        mut check: F,
    ) -> Result<(), LabError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), String>>,
    {
        let begin = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(LabError::Exited {
                    name: self.spec.name.clone(),
                    status,
                    log: self.spec.log.clone(),
                    tail: self.log_tail(),
                });
            }
            let Err(reason) = check().await else {
                return Ok(());
            };
            if begin.elapsed() >= bound {
                let tail = format!(
                    "; its log {} ends with:\n{}",
                    self.spec.log.display(),
                    self.log_tail()
                );
                return Err(LabError::TimedOut {
                    what: format!("{} to be ready", self.spec.name),
                    bound,
                    reason,
                    tail,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until `check` says `Ok`; its last reason is in the error when `bound` is over first.
pub async fn wait_until<T, F, Fut>(what: &str, bound: Duration, mut check: F) -> Result<T, LabError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let begin = Instant::now();
    loop {
        match check().await {
            Ok(value) => return Ok(value),
            Err(reason) if begin.elapsed() >= bound => {
                return Err(LabError::TimedOut {
                    what: what.to_owned(),
                    bound,
                    reason,
                    tail: String::new(),
                });
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// Finds a program: the variable first, then `cached` paths, then `PATH`.
pub(crate) fn find_program(
    program: &'static str,
    variable: &'static str,
    cached: &[PathBuf],
) -> Result<PathBuf, LabError> {
    if let Some(path) = std::env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
    {
        let looked = format!("{variable} is {}, which is not a file", path.display());
        return if path.is_file() {
            Ok(path)
        } else {
            Err(LabError::Missing {
                program,
                looked,
                variable,
            })
        };
    }
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut looked = String::from("looked in PATH");
    for path in cached {
        let _ = write!(looked, ", {}", path.display());
    }
    cached
        .iter()
        .cloned()
        .chain(std::env::split_paths(&on_path).map(|directory| directory.join(program)))
        .find(|path| path.is_file())
        .ok_or(LabError::Missing {
            program,
            looked,
            variable,
        })
}

/// The folder into which `make deps` installs: `TRIMTAB_CACHE`, or `.cache/trimtab` of the home folder.
pub fn cache_dir() -> PathBuf {
    std::env::var_os("TRIMTAB_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/trimtab"),
        PathBuf::from,
    )
}

fn spawn(spec: &Spec) -> Result<Child, LabError> {
    if let Some(parent) = spec.log.parent() {
        fs::create_dir_all(parent).map_err(LabError::file(parent))?;
    }
    let open = || {
        File::options()
            .create(true)
            .append(true)
            .open(&spec.log)
            .map_err(LabError::file(&spec.log))
    };
    Command::new(&spec.program)
        .args(&spec.args)
        .current_dir(spec.log.parent().unwrap_or(Path::new(".")))
        .stdin(Stdio::null())
        .stdout(open()?)
        .stderr(open()?)
        .spawn()
        .map_err(|source| LabError::Spawn {
            name: spec.name.clone(),
            path: spec.program.clone(),
            source,
        })
}

fn tail(log: &Path) -> String {
    // Only the end is read: a proxy's debug log can be large.
    const WINDOW: u64 = 16 * 1024;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let Ok(text) = read() else {
        return String::from("(no log)");
    };
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
