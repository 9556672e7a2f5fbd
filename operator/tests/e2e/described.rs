//! `trimtab describe` of limiters, and of Redis and Dubbo objects: from files, from a running operator, and when none answers.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use trimtab_lab::ports::free_address;
use trimtab_lab::process::{Process, Spec, wait_until};

use crate::support::{BOUND, examples, folder, trimtab};

fn run(args: &[&str], home: &Path) -> Output {
    let mut command = Command::new(trimtab());
    command.args(args).env("HOME", home);
    command.env("KUBECONFIG", home.join("kubeconfig"));
    command.output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn example(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/metaprotocol");
    root.join(name)
}

#[test]
fn fault_o21_limiters_are_described_from_files_by_all_their_names() {
    let dir = folder("described-files");
    let files = examples();
    let files = files.to_str().unwrap();
    for kind in ["smartlimiter", "smartlimiters", "sml", "SmartLimiter"] {
        let args = ["describe", kind, "a", "-f", files, "--metric", "cpu=0.9"];
        let output = run(&args, &dir);
        let (stdout, stderr) = texts(&output);
        assert!(output.status.success(), "{stderr}");
        assert!(
            stdout.starts_with("SmartLimiter default/a: LIMITING: "),
            "{stdout}"
        );
        assert!(
            stdout.contains("EnvoyFilter default/a.default.ratelimit"),
            "{stdout}"
        );
        assert!(stdout.contains("value cpu = 0.9 (fresh"), "{stdout}");
    }
    let args = ["describe", "smartlimiter", "b", "-f", files];
    let output = run(&args, &dir);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        texts(&output)
            .1
            .contains("there is no SmartLimiter default/b")
    );
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn redis_and_dubbo_objects_are_described_from_files() {
    let dir = folder("described-layer7");
    let (service, destination, policy) = ("redis-cache", "redis-sessions", "dubbo-demo");
    for (kind, name, folder, wanted) in [
        (
            "redisservice",
            service,
            "redis",
            "keys that begin with \"session:\" go to redis-sessions",
        ),
        ("rsvc", service, "redis", "clients of redis-cache"),
        ("redisdestinations", destination, "redis", "mode CLUSTER"),
        ("rd", destination, "redis", "connections to redis-sessions"),
        (
            "dubboauthorizationpolicy",
            policy,
            "dubbo",
            "ALLOW: calls that match a rule pass",
        ),
        (
            "dap",
            policy,
            "dubbo",
            "cluster.local/ns/default/sa/dubbo-consumer",
        ),
    ] {
        let files = example(folder);
        let files = files.to_str().unwrap();
        let output = run(&["describe", kind, name, "-f", files], &dir);
        let (stdout, stderr) = texts(&output);
        let first = stdout.lines().next().unwrap_or_default();
        assert!(
            first.contains(&format!(" default/{name}: IN FORCE: at ")),
            "{kind}: {stdout}{stderr}"
        );
        assert!(stdout.contains(wanted), "{kind}: {stdout}");
        assert!(
            stdout.contains("conditions:\n    Accepted True"),
            "{kind}: {stdout}"
        );
    }
    // Without its service nothing comes of it, and the first line says so.
    let alone = example("redis").join("redisservice.yaml");
    let alone = alone.to_str().unwrap();
    let output = run(&["describe", "rsvc", service, "-f", alone], &dir);
    let (stdout, stderr) = texts(&output);
    let begin = "RedisService default/redis-cache: NOT IN FORCE: ";
    assert!(stdout.starts_with(begin), "{stdout}{stderr}");
    let _ = std::fs::remove_dir_all(dir);
}

/// The operator runs for a while, decides, and dies; an API server that goes on without it has what it wrote.
#[tokio::test]
async fn without_an_operator_the_status_is_told_and_that_nobody_answers() {
    crate::support::ring();
    let dir = folder("described-down");
    let (api, http, xds) = (
        free_address().unwrap(),
        free_address().unwrap(),
        free_address().unwrap(),
    );
    let config = dir.join("config.yaml");
    std::fs::write(
        &config,
        format!("{{http: {{address: '{http}'}}, xds: {{address: '{xds}'}}}}"),
    )
    .unwrap();
    let cluster = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: 'http://{api}'}}}}], contexts: [{{name: c, context: {{cluster: c, user: u}}}}], users: [{{name: u, user: {{}}}}]}}"
    );
    std::fs::write(dir.join("kubeconfig"), cluster).unwrap();
    let mut process = Process::start(Spec {
        name: "trimtab".to_owned(),
        program: trimtab(),
        args: vec![
            "run".into(),
            "--config".into(),
            config.into_os_string(),
            "--standalone".into(),
            examples().into_os_string(),
            "--serve-api".into(),
            api.to_string().into(),
        ],
        log: dir.join("log"),
    })
    .unwrap();
    process
        .wait_ready(BOUND, || async move {
            let ready = trimtab_lab::http::get(http, "/readyz").await;
            ready.map(drop).map_err(|e| e.to_string())
        })
        .await
        .unwrap();
    let server = format!("http://{http}");
    let answered = ["describe", "sml", "a", "--server", &server];
    wait_until("an answer", BOUND, || async {
        let (stdout, stderr) = texts(&run(&answered, &dir));
        let begun = stdout.starts_with("SmartLimiter default/a: ");
        begun.then_some(()).ok_or(stdout + &stderr)
    })
    .await
    .unwrap();
    // Nobody is at that port; the API server is the same.
    let gone = format!("http://{}", free_address().unwrap());
    let output = run(&["describe", "sml", "a", "--server", &gone], &dir);
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
    let first = stdout.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("SmartLimiter default/a: "),
        "{stdout}{stderr}"
    );
    assert!(
        first.contains("TRIMTAB DOES NOT RUN") || first.contains("NOBODY ANSWERS"),
        "{stdout}"
    );
    assert!(stdout.contains("  fix: "), "{stdout}");
    let output = run(&["describe", "sml", "b", "--server", &gone], &dir);
    let (_, stderr) = texts(&output);
    assert!(
        stderr.contains("no operator answers at") && stderr.contains("has no sml default/b either"),
        "{stderr}"
    );
    drop(process);
    let _ = std::fs::remove_dir_all(dir);
}
