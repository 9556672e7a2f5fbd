//! Processes that end with the one that started them, also when that one is killed.

use std::ffi::OsString;
use std::fs::File;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child as Shell, Command, Stdio};
use std::time::{Duration, Instant};

use trimtab_lab::LabError;

use crate::{ClusterError, Result};

/// The shell holds the read end of a pipe whose write end only the parent has: when the parent ends, by whatever
/// signal, the read ends, and the program is killed, with the processes that it started, and its data removed. Statics
/// of a test process are never dropped, so a `Drop` alone would leave a control plane behind after each run. A line on the pipe says that
/// the data stay.
const GUARD: &str = r#"
exec 3<&0
remove="$1"; shift
setsid "$@" </dev/null 3<&- &
child=$!
( while read -r _ <&3; do remove=; done; kill -s KILL -- "-$child" 2>/dev/null; wait; [ -z "$remove" ] || rm -rf "$remove" ) &
exec 3<&-
wait "$child"
"#;

const POLL: Duration = Duration::from_millis(20);
/// Lines of a log that an error message carries.
const TAIL_LINES: usize = 15;

/// What to run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    /// Working folder.
    pub(crate) dir: PathBuf,
    /// Removed when the program has ended.
    pub(crate) remove: Option<PathBuf>,
}

/// A running program; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Child {
    spec: Spec,
    shell: Shell,
    log: PathBuf,
}

impl Child {
    /// Starts it; its output goes to `NAME.log` in its folder.
    pub(crate) fn start(spec: Spec) -> Result<Self> {
        let log = spec.dir.join(format!("{}.log", spec.name));
        let shell = spawn(&spec, &log)?;
        Ok(Self { spec, shell, log })
    }

    /// Kills it as `kill -9` does, and keeps its data for [`Self::start_again`].
    pub(crate) fn crash(&mut self) {
        if let Some(mut stdin) = self.shell.stdin.take() {
            // It fails when the program has ended, which is what is wanted.
            let _ = stdin.write_all(b"keep\n");
        }
        let _ = self.shell.wait();
    }

    /// Starts it again on its data, after [`Self::crash`].
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.shell = spawn(&self.spec, &self.log)?;
        Ok(())
    }

    /// Kills it and waits for its end.
    pub(crate) fn kill(&mut self) {
        // Closing the pipe is the order to end.
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }

    /// Waits until `check` says `Ok`, or the program ends, or `bound` is over.
    pub(crate) async fn wait_ready<F, Fut>(&mut self, bound: Duration, mut check: F) -> Result<()>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = std::result::Result<(), String>>,
    {
        let begin = Instant::now();
        loop {
            if let Ok(Some(status)) = self.shell.try_wait() {
                return Err(LabError::Exited {
                    name: self.spec.name.to_owned(),
                    status,
                    log: self.log.clone(),
                    tail: tail(&self.log),
                }
                .into());
            }
            let Err(reason) = check().await else {
                return Ok(());
            };
            if begin.elapsed() >= bound {
                return Err(LabError::TimedOut {
                    what: format!("{} to be ready", self.spec.name),
                    bound,
                    reason,
                    tail: format!("; {} ends with:\n{}", self.log.display(), tail(&self.log)),
                }
                .into());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(spec: &Spec, log: &Path) -> Result<Shell> {
    let open = || {
        File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(ClusterError::file(log))
    };
    Command::new("sh")
        .args(["-c", GUARD, "guard"])
        .arg(spec.remove.as_deref().unwrap_or(Path::new("")))
        .arg(&spec.program)
        .args(&spec.args)
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&spec.dir)
        .stdin(Stdio::piped())
        .stdout(open()?)
        .stderr(open()?)
        .spawn()
        .map_err(ClusterError::file(&spec.program))
}

/// Waits until `check` gives a value; the last reason is in the error when `bound` is over first.
pub async fn wait_for<T, F, Fut>(what: &str, bound: Duration, mut check: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = std::result::Result<T, String>>,
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
                }
                .into());
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
