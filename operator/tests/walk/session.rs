//! A reader's shell in a fresh clone.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use trimtab_cluster::tools;
use trimtab_lab::process::cache_dir;

use crate::repository;

/// Bound of one command, and of waiting for what a page shows.
const BOUND: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);
/// Between two askings: a limit of the page counts them too.
const AGAIN: Duration = Duration::from_millis(300);

/// Commands that only ask: they are asked again while what was started before is not up.
const QUESTIONS: [&str; 8] = [
    "kubectl get ",
    "kubectl describe ",
    "kubectl --server http://127.0.0.1:8001 get ",
    "curl ",
    "for i in $(seq 30); do curl ",
    "trimtab describe ",
    "trimtab xds ",
    "kubectl --namespace istio-system get ",
];

pub(crate) struct Session {
    shell: Child,
    /// The clone in which commands run.
    clone: PathBuf,
    /// Commands and what they print.
    records: PathBuf,
    count: usize,
}

impl Session {
    /// A shell for a document, in a copy of what a clone has; with a cluster when there is a kubeconfig.
    pub(crate) fn start(document: &str, kubeconfig: Option<&Path>) -> Self {
        let name = document.replace(['/', '.'], "-");
        let dir = std::env::temp_dir().join(format!("trimtab-walk-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let [clone, records, home, bin] =
            ["clone", "records", "home", "bin"].map(|name| dir.join(name));
        for folder in [&clone, &records, &home, &bin] {
            std::fs::create_dir_all(folder).unwrap();
        }
        copy(&repository().join("examples"), &clone.join("examples"));
        for entry in [
            "charts",
            "crds",
            "dashboards",
            "docs",
            "scripts",
            "Makefile",
        ] {
            symlink(repository().join(entry), clone.join(entry)).unwrap();
        }
        let trimtab = PathBuf::from(env!("CARGO_BIN_EXE_trimtab"));
        let kubectl = std::env::var_os("KUBECTL").map(PathBuf::from);
        let kubectl = kubectl.unwrap_or_else(|| tools::find("kubectl").unwrap());
        let helm = std::env::var_os("HELM").map(PathBuf::from);
        let helm = helm.unwrap_or_else(|| tools::find("helm").unwrap());
        for (name, program) in [("trimtab", trimtab), ("kubectl", kubectl), ("helm", helm)] {
            symlink(program, bin.join(name)).unwrap();
        }
        let path = std::env::var("PATH").unwrap();
        let mut shell = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .current_dir(&clone)
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("HOME", &home)
            .env("TRIMTAB_CACHE", cache_dir())
            .env("KUBECONFIG", kubeconfig.unwrap_or(&home.join("none")))
            // All that is started ends with the session.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        writeln!(shell.stdin.as_mut().unwrap(), "set -o pipefail").unwrap();
        Self {
            shell,
            clone,
            records,
            count: 0,
        }
    }

    /// Saves a file in the clone.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.clone.join(name), format!("{text}\n")).unwrap();
    }

    /// Runs a command; a question again until it is answered as `right` wants, or the bound is over.
    pub(crate) fn ask(
        &mut self,
        command: &str,
        right: impl Fn(i32, &str) -> bool,
    ) -> (i32, String) {
        let begin = Instant::now();
        loop {
            let (code, output) = self.run(command);
            let again = QUESTIONS.iter().any(|q| command.starts_with(q));
            if right(code, &output) || !again || begin.elapsed() > BOUND {
                return (code, output);
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn run(&mut self, command: &str) -> (i32, String) {
        self.count += 1;
        let file = |kind: &str| self.records.join(format!("{}.{kind}", self.count));
        let [script, output, code, part] = ["sh", "out", "code", "part"].map(file);
        std::fs::write(&script, format!("{command}\n")).unwrap();
        let (out, done) = (output.display(), code.display());
        // In the shell itself, so that variables and jobs stay.
        let line = format!(
            "source {} >{out} 2>&1 </dev/null; echo $? >{1}; mv {1} {done}",
            script.display(),
            part.display()
        );
        writeln!(self.shell.stdin.as_mut().unwrap(), "{line}").unwrap();
        let begin = Instant::now();
        while !code.exists() {
            assert!(
                begin.elapsed() < BOUND,
                "{command}\ndoes not end; so far:\n{}",
                std::fs::read_to_string(&output).unwrap_or_default()
            );
            std::thread::sleep(POLL);
        }
        let code = std::fs::read_to_string(&code).unwrap();
        let printed = std::fs::read(&output).unwrap();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        (code.trim().parse().unwrap(), printed)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let group = format!("-{}", self.shell.id());
        // Fails only when all have ended.
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.shell.wait();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(self.clone.parent().unwrap_or(&self.clone));
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").args([from, to]).status();
    assert!(status.unwrap().success());
}
