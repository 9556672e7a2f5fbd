//! A network of its own for a test: the ports that documents name are free there.

use std::process::Command;

/// Set in the run of a test that has its own network.
const INSIDE: &str = "TRIMTAB_WALK_INSIDE";

/// Brings the loopback interface up and becomes the program.
const BEGIN: &str = r#"ip link set lo up && exec "$0" "$@""#;

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "sh", "-c", BEGIN]);
    command
}

/// True: this is the run in which to test. False: the test ran in another process, which has its own network, and passed.
pub(crate) fn own(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let possible = unshare().arg("true").output();
    if !possible.is_ok_and(|output| output.status.success()) {
        println!("no network of its own: the ports of the documents must be free on this machine");
        return true;
    }
    let this = std::env::current_exe().expect("the test's program");
    let output = unshare()
        .arg(this)
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare runs");
    let utf8 = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (utf8(&output.stdout), utf8(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("1 passed"), "{test} did not run: {out}");
    false
}
