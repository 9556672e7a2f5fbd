//! `run --standalone --out`: the folder is what is in force.

use kube::core::ApiResource;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use trimtab::outputs::{Outputs, outside};
use trimtab::standalone;
use trimtab_embedded::Embedded;
use trimtab_kit::readiness::Readiness;

use crate::support::{folder, ring};

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    let version = if kind == "EnvoyFilter" {
        "v1alpha3"
    } else {
        "v1"
    };
    json!({
        "apiVersion": format!("networking.istio.io/{version}"), "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "labels": {"app.kubernetes.io/managed-by": "trimtab"}},
        "spec": spec,
    })
}

fn filter(password: bool) -> Value {
    let value = if password {
        json!({"auth_password": {"inline_string": "s3cret"}})
    } else {
        json!({"name": "plain"})
    };
    json!({"configPatches": [{"applyTo": "CLUSTER", "match": {"context": "ANY"}, "patch": {"operation": "MERGE", "value": value}}]})
}

/// An API with objects, and the folder that follows it.
fn fixture(name: &str, objects: &[Value]) -> (Embedded, Outputs, std::path::PathBuf) {
    ring();
    let embedded = standalone::embedded().unwrap();
    embedded.ensure_namespace("shop").unwrap();
    for object in objects {
        embedded.load(object.clone()).unwrap();
    }
    let dir = folder(name).join("out");
    let outputs = Outputs::new(embedded.client(), dir.clone(), Readiness::new(), kinds());
    (embedded, outputs, dir)
}

fn texts(dir: &Path) -> BTreeMap<String, String> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| {
            let text = std::fs::read_to_string(e.path()).unwrap();
            (e.file_name().into_string().unwrap(), text)
        })
        .collect()
}

async fn twice(outputs: &mut Outputs) {
    outputs.sync().await.unwrap();
    outputs.sync().await.unwrap();
}

fn kinds() -> Vec<ApiResource> {
    use trimtab_crds::istio::{EnvoyFilter, Sidecar, VirtualService};
    vec![
        ApiResource::erase::<EnvoyFilter>(&()),
        ApiResource::erase::<Sidecar>(&()),
        ApiResource::erase::<VirtualService>(&()),
    ]
}

#[tokio::test]
async fn fault_o6_leftovers_of_a_run_before_go_and_files_of_the_user_stay() {
    let (_embedded, mut outputs, dir) =
        fixture("out-leftovers", &[object("Sidecar", "a", &json!({}))]);
    std::fs::create_dir_all(&dir).unwrap();
    let gone = object("EnvoyFilter", "gone", &filter(false)).to_string();
    let own = gone.replace("trimtab", "me");
    std::fs::write(dir.join("shop_gone.yaml"), &gone).unwrap();
    std::fs::write(dir.join("own.yaml"), &own).unwrap();
    std::fs::write(dir.join("both.yaml"), format!("{own}\n---\n{gone}\n")).unwrap();
    std::fs::write(dir.join("broken.yaml"), "a: [").unwrap();
    std::fs::write(dir.join("notes.txt"), "mine").unwrap();
    twice(&mut outputs).await;
    let names: Vec<String> = texts(&dir).into_keys().collect();
    assert_eq!(
        names,
        [
            "both.yaml",
            "broken.yaml",
            "notes.txt",
            "own.yaml",
            "shop_a.sidecar.yaml"
        ]
    );
    std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn fault_o6_nothing_goes_before_the_operator_is_ready() {
    ring();
    let embedded = standalone::embedded().unwrap();
    let dir = folder("out-ready").join("out");
    std::fs::create_dir_all(&dir).unwrap();
    let left = object("EnvoyFilter", "left", &filter(false)).to_string();
    std::fs::write(dir.join("left.yaml"), left).unwrap();
    let readiness = Readiness::new();
    let blocker = readiness.block("first samples");
    let mut outputs = Outputs::new(embedded.client(), dir.clone(), readiness, kinds());
    twice(&mut outputs).await;
    assert_eq!(texts(&dir).len(), 1);
    blocker.release();
    twice(&mut outputs).await;
    assert_eq!(texts(&dir).len(), 0);
    std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn fault_o6_deleted_and_edited_files_and_the_folder_come_back() {
    let objects = [
        object("EnvoyFilter", "same", &filter(false)),
        object("Sidecar", "same", &json!({})),
        object("VirtualService", "same", &json!({"hosts": ["a"]})),
    ];
    let (_embedded, mut outputs, dir) = fixture("out-edited", &objects);
    outputs.sync().await.unwrap();
    let good = texts(&dir);
    assert_eq!(good.len(), 3, "one file a kind: {:?}", good.keys());
    std::fs::write(dir.join("shop_same.sidecar.yaml"), "edited").unwrap();
    std::fs::remove_file(dir.join("shop_same.envoyfilter.yaml")).unwrap();
    outputs.sync().await.unwrap();
    assert_eq!(texts(&dir), good);
    std::fs::remove_dir_all(&dir).unwrap();
    outputs.sync().await.unwrap();
    assert_eq!(texts(&dir), good);
    std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn fault_t12_files_are_for_their_owner_only() {
    let objects = [
        object("EnvoyFilter", "plain", &filter(false)),
        object("EnvoyFilter", "redis", &filter(true)),
    ];
    let (_embedded, mut outputs, dir) = fixture("out-modes", &objects);
    let mode = |name: &str| {
        let metadata = std::fs::metadata(dir.join(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    outputs.sync().await.unwrap();
    let secret = "shop_redis.envoyfilter.yaml";
    assert_eq!(mode(secret), 0o600);
    assert_eq!(mode("shop_plain.envoyfilter.yaml"), 0o600);
    // A folder of the user's stays as it is; one that is made is as private as its files.
    std::fs::remove_dir_all(&dir).unwrap();
    outputs.sync().await.unwrap();
    assert_eq!(mode("."), 0o700);
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
    outputs.sync().await.unwrap();
    assert_eq!(mode("."), 0o755);
    std::fs::set_permissions(dir.join(secret), PermissionsExt::from_mode(0o644)).unwrap();
    outputs.sync().await.unwrap();
    assert_eq!(mode(secret), 0o600, "opened by hand");
    std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn fault_o6_a_fifo_or_a_folder_in_the_place_of_a_file_holds_up_no_other() {
    let objects = [
        object("EnvoyFilter", "a", &filter(false)),
        object("Sidecar", "b", &json!({})),
        object("VirtualService", "c", &json!({"hosts": ["a"]})),
    ];
    let (_embedded, mut outputs, dir) = fixture("out-fifo", &objects);
    std::fs::create_dir_all(dir.join("shop_b.sidecar.yaml/mine")).unwrap();
    let fifo = std::process::Command::new("mkfifo")
        .arg(dir.join("shop_a.envoyfilter.yaml"))
        .status();
    assert!(fifo.unwrap().success());
    let error = outputs.sync().await.unwrap_err();
    assert!(
        format!("{error:#}").contains("shop_b.sidecar.yaml"),
        "{error:#}"
    );
    for name in ["shop_a.envoyfilter.yaml", "shop_c.virtualservice.yaml"] {
        assert!(dir.join(name).is_file(), "{name}");
    }
    assert!(dir.join("shop_b.sidecar.yaml/mine").is_dir(), "the user's");
    std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
}

#[test]
fn fault_o6_a_folder_that_does_not_do_is_an_error_at_start() {
    let input = folder("out-input");
    for (out, why) in [
        (input.clone(), "outside"),
        (input.join("deep/out"), "outside"),
        (std::env::current_exe().unwrap(), "choose another one"),
    ] {
        let error = outside(&out, &input).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let beside = folder("out-beside");
    outside(&beside.join("out"), &input).unwrap();
    for dir in [input, beside] {
        std::fs::remove_dir_all(dir).unwrap();
    }
}
