//! The command line on files with mistakes, on files of other programs, and on files without a namespace.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{folder, trimtab};

fn run(args: &[&str], files: &[&Path]) -> Output {
    let mut command = Command::new(trimtab());
    command.args(args);
    for file in files {
        command.arg("-f").arg(file);
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file of its own in a folder of its own.
fn file(name: &str, content: &str) -> PathBuf {
    let path = folder(name).join("in.yaml");
    std::fs::write(&path, content).unwrap();
    path
}

const ROUTED: &str = "apiVersion: networking.istio.io/VERSION
kind: ServiceEntry
metadata: {name: lending, namespace: library}
spec:
  hosts: [lending.library.example]
  addresses: [10.20.0.5]
  resolution: STATIC
  ports: [{number: 9095, name: tcp-metaprotocol-thrift, protocol: TCP}]
  endpoints: [{address: 10.20.1.5, labels: {edition: second}}]
---
apiVersion: networking.istio.io/VERSION
kind: DestinationRule
metadata: {name: lending, namespace: library}
spec: {host: lending.library.example, subsets: [{name: second, labels: {edition: second}}]}
---
apiVersion: networking.istio.io/VERSION
kind: Gateway
metadata: {name: edge, namespace: library}
spec: {selector: {app: edge}, servers: [{port: {number: 9095, name: tcp-metaprotocol-thrift, protocol: TCP}, hosts: ['library/lending.library.example']}]}
---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {name: lending, namespace: library}
spec:
  hosts: [lending.library.example]
  gateways: [edge]
  routes: [{name: all, route: [{destination: {host: lending.library.example, subset: second}}]}]
";

const SCOPED: &str = "apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {selector: {app: a}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/VERSION
kind: VirtualService
metadata: {name: a, namespace: shop}
spec: {hosts: [b.example], http: [{route: [{destination: {host: c.example}}]}]}
---
apiVersion: networking.istio.io/VERSION
kind: Sidecar
metadata: {name: users, namespace: other}
spec: {egress: [{hosts: ['./*']}]}
---
apiVersion: microservice.slime.io/v1alpha1
kind: ServiceFence
metadata: {name: a, namespace: shop}
spec: {enable: true, host: {b.example: {stable: {}}}}
";

#[test]
fn fault_m4_every_version_of_istios_kinds_gives_the_same_output() {
    for (name, input) in [("routed", ROUTED), ("scoped", SCOPED)] {
        let outputs = ["v1", "v1beta1", "v1alpha3"].map(|version| {
            let file = file(
                &format!("m4-{name}-{version}"),
                &input.replace("VERSION", version),
            );
            let output = run(&["translate", "--xds"], &[&file]);
            let (out, err) = (text(&output.stdout), text(&output.stderr));
            assert!(output.status.success(), "{version}: {err}");
            assert!(out.contains("kind: "), "{version}: {out}");
            (out, err)
        });
        assert_eq!(outputs[0], outputs[1]);
        assert_eq!(outputs[0], outputs[2]);
    }
}

#[test]
fn fault_m4_what_is_no_object_does_not_end_everything() {
    let good = file("m4-good", &ROUTED.replace("VERSION", "v1"));
    let bad = file(
        "m4-bad",
        "kind: Service\nmetadata: {name: x}\n---\na: [\n---\napiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: roll}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {name: twice}\nspec: {}\nspec: {ports: []}\n",
    );
    let alone = run(&["translate"], &[&good]);
    let both = run(&["translate"], &[&good, &bad]);
    assert_eq!(text(&both.stdout), text(&alone.stdout));
    assert_eq!(both.status.code(), Some(1));
    let err = text(&both.stderr);
    for part in [
        "Service default/x: an object has no apiVersion",
        "not YAML",
        "Service default/twice: a key is written twice",
        "lines 13 and 14",
        "passed over, as Trimtab does not read them: Rollout of argoproj.io/v1alpha1",
    ] {
        assert!(err.contains(part), "no {part:?} in {err}");
    }
    assert!(!err.contains("DuplicateKeyPolicy"), "{err}");
    let passed = run(
        &["translate"],
        &[
            &good,
            &file(
                "m4-passed",
                "{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: roll}}",
            ),
        ],
    );
    assert!(passed.status.success(), "{}", text(&passed.stderr));
}

#[test]
fn fault_m10_misspelt_fields_are_refused_by_their_path() {
    for (name, object, path, meant) in [
        (
            "router",
            "{apiVersion: metaprotocol.aeraki.io/v1alpha1, kind: MetaRouter, metadata: {name: o, namespace: library}, spec: {hosts: [lending.library.example], routes: [{name: a, match: {attribute: {method: {exact: x}}}, route: [{destination: {host: lending.library.example}}]}]}}",
            "spec.routes[0].match.attribute",
            "attributes",
        ),
        (
            "policy",
            "{apiVersion: dubbo.aeraki.io/v1alpha1, kind: DubboAuthorizationPolicy, metadata: {name: o, namespace: library}, spec: {aktion: DENY, rules: [{form: []}]}}",
            "spec.rules[0].form",
            "from",
        ),
        (
            "redis",
            "{apiVersion: redis.aeraki.io/v1alpha1, kind: RedisService, metadata: {name: o, namespace: library}, spec: {host: [a.library.svc.cluster.local], setings: {auth: {plain: {password: x}}}}}",
            "spec.setings",
            "settings",
        ),
        (
            "destination",
            "{apiVersion: redis.aeraki.io/v1alpha1, kind: RedisDestination, metadata: {name: o, namespace: library}, spec: {host: a.library.svc.cluster.local, trafficPolicy: {connectionPool: {rediss: {mode: CLUSTER}}}}}",
            "spec.trafficPolicy.connectionPool.rediss",
            "redis",
        ),
        (
            "limiter",
            "{apiVersion: microservice.slime.io/v1alpha2, kind: SmartLimiter, metadata: {name: o, namespace: library}, spec: {mod: Shadow, sets: {_base: {descriptor: [{condition: 'true', matches: [], action: {quota: '1', fill_interval: {seconds: 1}}}]}}}}",
            "spec.sets._base.descriptor[0].matches",
            "match",
        ),
        (
            "first",
            "{apiVersion: microservice.netease.com/v1alpha1, kind: SmartLimiter, metadata: {name: o, namespace: library}, spec: {descriptors: [{condition: 'true', action: {quota: '1', fill_interval: {minutes: 1, seconds: 1}}}]}}",
            "spec.descriptors[0].action.fill_interval.minutes",
            "nanos",
        ),
        (
            "fence",
            "{apiVersion: microservice.slime.io/v1alpha1, kind: ServiceFence, metadata: {name: o, namespace: library}, spec: {enabled: true}}",
            "spec.enabled",
            "enable",
        ),
        (
            "protocol",
            "{apiVersion: metaprotocol.aeraki.io/v1alpha1, kind: ApplicationProtocol, metadata: {name: o}, spec: {protocol: p, codek: c}}",
            "spec.codek",
            "codec",
        ),
    ] {
        let file = file(&format!("m10-{name}"), object);
        let output = run(&["translate", "--xds"], &[&file]);
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.contains(&format!("{path}: unknown field")), "{err}");
        assert!(err.contains(meant), "{err}");
        assert!(
            !text(&output.stdout).contains("kind:"),
            "{}",
            text(&output.stdout)
        );

        let good =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("m10-{}", std::process::id()));
        std::fs::write(&good, ROUTED.replace("VERSION", "v1")).unwrap();
        let args = ["describe", "metarouter", "lending", "-n", "library"];
        let output = run(&args, &[&good, &file]);
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.contains(&format!("{path}: unknown field")), "{err}");
        assert!(text(&output.stdout).contains("MetaRouter library/lending"));
    }
}

#[test]
fn fault_m21_objects_without_a_namespace_go_where_it_is_said() {
    let without = ROUTED
        .replace("VERSION", "v1")
        .replace(", namespace: library", "")
        .replace("library/lending", "./lending");
    let protocol = "---\n{apiVersion: metaprotocol.aeraki.io/v1alpha1, kind: ApplicationProtocol, metadata: {name: o}, spec: {protocol: p, codec: c}}\n";
    let plain = file("m21-without", &format!("{without}{protocol}"));
    let named = file(
        "m21-with",
        &without
            .replace("lending}", "lending, namespace: loans}")
            .replace("name: edge}", "name: edge, namespace: loans}"),
    );
    let want = run(&["translate"], &[&named]);
    for flag in [["-n", "loans"], ["--namespace", "loans"]] {
        let output = run(&["translate", flag[0], flag[1]], &[&plain]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), text(&want.stdout));
    }
    let output = run(&["translate", "-n", "other"], &[&named]);
    assert_eq!(
        text(&output.stdout),
        text(&want.stdout),
        "a namespace that is written counts"
    );
    let output = run(
        &["describe", "metarouter", "lending", "-n", "loans"],
        &[&plain],
    );
    assert!(
        text(&output.stdout).contains("MetaRouter loans/lending"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn fault_m21_a_router_without_a_service_is_described_as_such() {
    let router = file(
        "m21-alone",
        "{apiVersion: metaprotocol.aeraki.io/v1alpha1, kind: MetaRouter, metadata: {name: a, namespace: library}, spec: {hosts: [gone.library.svc.cluster.local], routes: [{route: [{destination: {host: gone.library.svc.cluster.local}}]}]}}",
    );
    let output = run(
        &["describe", "metarouter", "a", "-n", "library"],
        &[&router],
    );
    let out = text(&output.stdout);
    assert!(
        out.contains("no Service or ServiceEntry has the host gone.library.svc.cluster.local"),
        "{out}"
    );
    assert!(!out.contains("of  /"), "{out}");
}

#[test]
fn fault_m10_fields_that_istio_does_not_have_are_noted() {
    let good = ROUTED.replace("VERSION", "v1");
    let plain = run(&["translate"], &[&file("m10-istio-good", &good)]);
    let odd = good.replace(
        "resolution: STATIC",
        "resolution: STATIC\n  resolutions: STATIC",
    );
    let output = run(&["translate"], &[&file("m10-istio-odd", &odd)]);
    let err = text(&output.stderr);
    assert!(output.status.success(), "{err}");
    assert_eq!(text(&output.stdout), text(&plain.stdout));
    assert!(
        err.contains("ServiceEntry library/lending: spec.resolutions")
            && err.contains("did you mean resolution?"),
        "{err}"
    );
}
