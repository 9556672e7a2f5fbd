//! `translate` on what people have in their folders: one mistake is named and the rest goes on.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{folder, trimtab};

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec: {selector: {app: orders}, ports: [{name: http, port: 80}]}
";

const LIMITER: &str = "apiVersion: microservice.slime.io/v1alpha2
kind: SmartLimiter
metadata: {name: orders, namespace: shop}
spec: {sets: {SET: {descriptor: [{condition: \"true\", action: {quota: \"30\", fill_interval: {seconds: 1}}}]}}}
";

/// The objects of [`SERVICE`] and [`LIMITER`].
fn good() -> String {
    format!("{SERVICE}---\n{}", LIMITER.replace("SET", "_base"))
}

fn file(name: &str, content: &str) -> PathBuf {
    let path = folder(name).join("in.yaml");
    std::fs::write(&path, content).unwrap();
    path
}

struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn filters(&self) -> usize {
        self.out.matches("kind: EnvoyFilter").count()
    }

    /// Ends with this exit code and says all this.
    fn says(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "{part}: {}", self.err);
        }
    }
}

fn translate(args: &[&str], files: &[&Path], stdin: &str) -> Done {
    let mut command = Command::new(trimtab());
    command.arg("translate").args(args);
    for file in files {
        command.arg("-f").arg(file);
    }
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // Who reads nothing closes it.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Done {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

fn translated(name: &str, text: &str) -> Done {
    translate(&[], &[&file(name, text)], "")
}

#[test]
fn fault_o1_misspelt_fields_are_named_with_what_is_meant() {
    let whole = good();
    for (i, (from, to, meant)) in [
        (
            "spec: {sets",
            "spec: {mod: Shadow, sets",
            "spec.mod: unknown field, did you mean mode?",
        ),
        (
            "quota: \"30\"",
            "quota: \"30\", stragety: average",
            "spec.sets._base.descriptor[0].action.stragety: unknown field, did you mean strategy?",
        ),
        (
            "condition: \"true\"",
            "condition: \"true\", matches: [{name: a, exact_match: b}]",
            "descriptor[0].matches: unknown field, did you mean match?",
        ),
        (
            "condition: \"true\"",
            "condition: \"true\", match: [{name: a, exact_match: b, invert: true}]",
            "match[0].invert: unknown field, did you mean invert",
        ),
        (
            "{seconds: 1}",
            "{seconds: 1, minutes: 1}",
            "fill_interval.minutes: unknown field",
        ),
        (
            "fill_interval",
            "fillIntervall",
            "action.fillIntervall: unknown field",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let done = translated(&format!("o1-{i}"), &whole.replace(from, to));
        done.says(
            1,
            &[meant, "SmartLimiter shop/orders", "(document 2, line 6)"],
        );
        assert_eq!(done.filters(), 0, "{to}");
    }
}

#[test]
fn fault_o3_any_version_of_istios_kinds_and_objects_of_others() {
    let others = "
---
{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: a}, spec: {maxReplicas: 4}}
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: a}, spec: {serviceName: a}}
---
{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: a}}
---
{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: b}}
---
{apiVersion: batch/v1beta1, kind: CronJob, metadata: {name: a}}
---
{apiVersion: v1, kind: List, items: [{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: a}}]}
";
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let rule = format!(
            "---\napiVersion: networking.istio.io/{version}\nkind: DestinationRule\nmetadata: {{name: orders, namespace: shop}}\nspec: {{host: orders, subsets: [{{name: v2, labels: {{version: v2}}}}]}}\n"
        );
        let text = [
            SERVICE,
            "---\n",
            &LIMITER.replace("SET", "v2"),
            &rule,
            others,
        ]
        .concat();
        let done = translated(&format!("o3-{version}"), &text);
        done.says(0, &["passed over, as Trimtab does not read them: CronJob of batch/v1beta1, Rollout of argoproj.io/v1alpha1 (3 objects)"]);
        assert_eq!(done.err.matches("passed over").count(), 1);
        assert_eq!(done.filters(), 1, "{version}");
    }
    let old = good().replace("v1alpha2", "v1alpha1");
    translated("o3-old", &old).says(1, &["write apiVersion: microservice.slime.io/v1alpha2"]);
    let rule = "{apiVersion: networking.istio.io/v1, kind: DestinationRul, metadata: {name: a}}";
    translated("o3-rule", rule).says(1, &["did you mean DestinationRule?"]);
}

#[test]
fn fault_o4_special_files_and_loops_of_links_do_not_hold_it_up() {
    let dir = file("o4", &good()).parent().unwrap().to_owned();
    let fifo = Command::new("mkfifo").arg(dir.join("f.yaml")).status();
    assert!(fifo.unwrap().success());
    for name in ["a", "b"] {
        std::os::unix::fs::symlink(".", dir.join(name)).unwrap();
    }
    std::os::unix::fs::symlink("l.yaml", dir.join("l.yaml")).unwrap();
    let done = translate(&[], &[&dir], "");
    done.says(
        1,
        &[
            "f.yaml: not read: it is a FIFO",
            "b: not read: it leads to a folder",
            "cannot read",
            "l.yaml",
        ],
    );
    assert_eq!(done.filters(), 1);
}

#[test]
fn fault_o5_one_object_in_two_files_is_refused_with_both() {
    let (first, second) = (file("o5-a", &good()), file("o5-b", &good()));
    let done = translate(&[], &[&first, &second], "");
    let (first, second) = (first.display().to_string(), second.display().to_string());
    let named = format!("refused: {second}: SmartLimiter shop/orders: it is in {first} too");
    done.says(1, &[&named, "that one counts: remove one of them"]);
    assert_eq!(done.filters(), 1);
}

#[test]
fn fault_o9_one_bad_object_is_named_and_the_rest_goes_on() {
    let long = "x".repeat(1 << 20);
    for (i, (kind, field, value)) in [
        ("Pod", "spec", "{containers: oops}"),
        ("Pod", "spec", &format!("{{containers: {long}}}")),
        ("Service", "spec", "{ports: [{port: '80'}]}"),
        ("EndpointSlice", "endpoints", "{a: b}"),
        ("Namespace", "spec", "[]"),
        ("ServiceEntry", "spec", "{hosts: oops}"),
        ("ConfigMap", "data", "[a]"),
    ]
    .into_iter()
    .enumerate()
    {
        let api_version = match kind {
            "EndpointSlice" => "discovery.k8s.io/v1",
            "ServiceEntry" => "networking.istio.io/v1beta1",
            _ => "v1",
        };
        let bad = format!(
            "apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: broken-0}}\n{field}: {value}\n"
        );
        let (bad, good) = (
            file(&format!("o9-{i}"), &bad),
            file(&format!("o9-g{i}"), &good()),
        );
        let done = translate(&["-n", "shop"], &[&bad, &good], "");
        assert_eq!(done.filters(), 1, "{kind}");
        let named = format!("refused: {}: {kind} shop/broken-0: ", bad.display());
        done.says(1, &[&named, field, "(document 1, line 1)"]);
        let refused = done.err.lines().filter(|l| l.starts_with("refused"));
        let refused: Vec<&str> = refused.collect();
        assert_eq!(refused.len(), 1, "{kind}");
        assert!(refused[0].len() < 600, "{kind}: {} bytes", refused[0].len());
    }
}

#[test]
fn fault_o10_what_must_be_a_text_is_one() {
    let whole = good();
    for (i, (from, to, fix)) in [
        (
            "namespace: shop",
            "namespace: 2024",
            "metadata.namespace: must be a string: write \"2024\"",
        ),
        (
            "namespace: shop",
            "namespace: yes",
            "metadata.namespace: must be a string, and YAML reads yes",
        ),
        ("namespace: shop", "namespace: n", "put it in quotes"),
        ("namespace: shop", "namespace: 1e3", "put it in quotes"),
        ("namespace: shop", "namespace: [a]", "is a list or a map"),
        (
            "name: orders",
            "name: 7",
            "metadata.name: must be a string: write \"7\"",
        ),
        (
            "namespace: shop",
            "namespace: shop, labels: {tier: 1}",
            "metadata.labels.tier: must be a string: write \"1\"",
        ),
        (
            "namespace: shop",
            "namespace: shop, annotations: {on: true}",
            "metadata.annotations.",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let done = translated(&format!("o10-{i}"), &whole.replace(from, to));
        done.says(1, &[fix]);
        assert_eq!(done.filters(), 0, "{to}");
    }
    for none in ["namespace: null", "namespace: ''"] {
        let done = translate(
            &["-n", "shop"],
            &[&file("o10-none", &whole.replace("namespace: shop", none))],
            "",
        );
        done.says(0, &["SmartLimiter shop/orders"]);
    }
}

#[test]
fn fault_o22_standard_input_and_a_namespace() {
    let bare = good().replace(", namespace: shop", "");
    let done = translate(&["-n", "shop", "-f", "-"], &[], &bare);
    done.says(0, &["SmartLimiter shop/orders"]);
    let of_file = translated("o22", &good());
    assert_eq!(done.out, of_file.out);
    let both = translate(
        &["-f", "-"],
        &[&file("o22-b", SERVICE)],
        &LIMITER.replace("SET", "_base"),
    );
    assert_eq!(both.out, of_file.out);
    translate(&["-f", "-"], &[], "a: [").says(1, &["-: not YAML"]);
    let describe = Command::new(trimtab())
        .args(["describe", "svf", "x", "-f", "-"])
        .stdin(Stdio::null())
        .output();
    assert_eq!(describe.unwrap().status.code(), Some(1));
}

const ROUTED: &str = "apiVersion: v1
kind: Service
metadata: {name: ledger, namespace: shop}
spec: {CLUSTER selector: {app: ledger}, ports: [{name: tcp-metaprotocol-thrift, port: 9090}]}
---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {name: ledger, namespace: shop}
spec:
  hosts: [ledger.shop.svc.cluster.local]
  routes:
  - {name: any, match: {attributes: {method: {exact: \"\"}}}, route: [{destination: {host: ledger.shop.svc.cluster.local}}]}
";

#[test]
fn fault_o23_invented_values_are_told() {
    let done = translated("o23", &ROUTED.replace("CLUSTER", ""));
    done.says(0, &["assumed: Service shop/ledger: spec.clusterIP is 10."]);
    let given = translated(
        "o23-given",
        &ROUTED.replace("CLUSTER", "clusterIP: 10.96.5.1,"),
    );
    given.says(0, &[]);
    assert!(!given.err.contains("clusterIP"), "{}", given.err);
    let ecds = good().replace("spec: {sets", "spec: {delivery: ECDS, sets");
    translated("o23-xds", &ecds).says(
        0,
        &["assumed: proxies reach Trimtab at trimtab.istio-system.svc:15010"],
    );
}

#[test]
fn fault_o30_objects_that_lead_nowhere_are_told() {
    let redis = "apiVersion: redis.aeraki.io/v1alpha1
kind: RedisService
metadata: {name: sessions, namespace: shop}
spec: {host: [sessions.shop.svc.cluster.local], redis: [{match: {key: {prefix: \"*\"}}, route: {host: sessions.shop.svc.cluster.local}}]}
";
    for (name, text) in [
        ("o30-alone", redis.to_owned()),
        ("o30", format!("{}---\n{redis}", good())),
    ] {
        translated(name, &text).says(
            1,
            &[
                "RedisService shop/sessions: spec.host[0]: no Service or ServiceEntry has the host",
                "sessions.shop.svc.cluster.local",
            ],
        );
    }
    let policy = "{apiVersion: dubbo.aeraki.io/v1alpha1, kind: DubboAuthorizationPolicy, metadata: {name: a, namespace: shop}, spec: {rules: [{to: [{operation: {methods: [m]}}]}]}}";
    translated("o30-dubbo", policy).says(
        1,
        &["DubboAuthorizationPolicy shop/a: ", "has a Dubbo port"],
    );
    let protocol = "{apiVersion: metaprotocol.aeraki.io/v1alpha1, kind: ApplicationProtocol, metadata: {name: mine}, spec: {protocol: mine, codec: c}}";
    translated("o30-protocol", &format!("{}---\n{protocol}", good()))
        .says(0, &["ApplicationProtocol mine: spec.protocol: no port"]);
    let selected = good().replace(
        "spec: {sets",
        "spec: {workloadSelector: {app: nobody}, sets",
    );
    translated("o30-limiter", &selected).says(
        0,
        &["SmartLimiter shop/orders: no pod of the input has the labels app=nobody"],
    );
}

#[test]
fn fault_o31_mistakes_of_the_reader_name_document_line_and_fix() {
    let deep = format!("{}b{}", "{a: ".repeat(70), "}".repeat(70));
    let whole = format!(
        "{}---\n# no object\nkind: Pod\n---\nx: {deep}\n---\nmode: a\nother: b\nmode: c\n",
        good()
    );
    let path = file("o31", &whole);
    let done = translate(&[], &[&path], "");
    done.says(
        1,
        &[
            "an object has no apiVersion: every Kubernetes object needs it (document 3, line 12)",
            "nested more than 64 deep, which is the bound: write it flatter (document 4, line 14)",
            "a key is written twice, keep one: mode, at lines 16 and 18",
        ],
    );
    assert_eq!(done.filters(), 1, "the rest goes on");
    for word in ["budget", "DuplicateKeyPolicy", "Depth {"] {
        assert!(!done.err.contains(word), "{}", done.err);
    }
    assert_eq!(done.err.matches(&path.display().to_string()).count(), 3);
}

#[test]
fn fault_o33_presence_of_a_method_means_any() {
    let whole = ROUTED.replace("CLUSTER", "clusterIP: 10.96.5.1,");
    let done = translated("o33", &whole);
    done.says(0, &[]);
    assert!(done.out.contains("methodName: \"\""), "{}", done.out);
    // What cannot be expressed says which route it is.
    let odd = whole.replace(
        "  routes:\n",
        "  routes:\n  - {name: odd, match: {attributes: {method: {regex: 'a.*'}}}, route: [{destination: {host: ledger.shop.svc.cluster.local}}]}\n",
    );
    translated("o33-odd", &odd).says(1, &["MetaRouter shop/ledger: spec.routes[0]"]);
}
