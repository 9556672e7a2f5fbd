//! `run --standalone` while somebody edits the folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use kube::api::DeleteParams;
use trimtab::standalone::{self, Folder};
use trimtab_crds::limiter::v1alpha2::SmartLimiter;
use trimtab_embedded::Embedded;
use trimtab_kit::clock::ManualClock;

use crate::support::{folder, ring};

fn limiter(name: &str, quota: u32) -> String {
    format!(
        "apiVersion: microservice.slime.io/v1alpha2
kind: SmartLimiter
metadata: {{name: {name}, namespace: shop}}
spec: {{sets: {{_base: {{descriptor: [{{condition: \"true\", action: {{quota: \"{quota}\", fill_interval: {{seconds: 1}}}}}}]}}}}}}
"
    )
}

/// A folder that is looked at twice a second, by a clock of its own.
struct Case {
    dir: PathBuf,
    embedded: Embedded,
    clock: ManualClock,
    folder: Folder,
}

impl Case {
    fn new(name: &str) -> Self {
        ring();
        let dir = folder(name);
        let (embedded, clock) = (standalone::embedded().unwrap(), ManualClock::default());
        let folder = Folder::with_clock(&dir, embedded.clone(), Arc::new(clock.clone()));
        Self {
            dir,
            embedded,
            clock,
            folder,
        }
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.dir.join(file), text).unwrap();
    }

    async fn look(&mut self) -> String {
        self.clock.advance(Duration::from_millis(500));
        self.folder.sync().await.unwrap().join("\n")
    }

    /// Names and quotas of all limiters.
    async fn limits(&self) -> Vec<String> {
        let api: Api<SmartLimiter> = Api::all(self.embedded.client());
        let list = api.list(&<_>::default()).await.unwrap();
        let shown = |l: &SmartLimiter| {
            let spec = serde_json::to_value(&l.spec).unwrap();
            let quota = &spec["sets"]["_base"]["descriptor"][0]["action"]["quota"];
            format!(
                "{} {}",
                l.metadata.name.as_deref().unwrap(),
                quota.as_str().unwrap()
            )
        };
        list.items.iter().map(shown).collect()
    }

    async fn holds(&self, want: &[&str]) {
        assert_eq!(self.limits().await, want);
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[tokio::test]
async fn fault_o5_the_file_in_force_stays_and_the_copy_is_refused() {
    let mut case = Case::new("folder-o5");
    case.write("orders.yaml", &limiter("a", 30));
    assert_eq!(case.look().await, "");
    // In order of name the copy is first.
    case.write("orders-backup.yaml", &limiter("a", 30));
    let refused = case.look().await;
    let named = |refused: &str, file: &str, other: &str| {
        let first = case.dir.join(file).display().to_string();
        refused.starts_with(&first) && refused.contains(&format!("{other} too"))
    };
    assert!(
        named(&refused, "orders-backup.yaml", "orders.yaml"),
        "{refused}"
    );
    for (file, quota) in [("orders-backup.yaml", 31), ("orders.yaml", 32)] {
        case.write(file, &limiter("a", quota));
        assert_ne!(case.look().await, "");
    }
    case.holds(&["a 32"]).await;
    std::fs::remove_file(case.dir.join("orders.yaml")).unwrap();
    assert_eq!(case.look().await, "");
    case.holds(&["a 31"]).await;
    for _ in 0..4 {
        assert_eq!(case.look().await, "");
    }
    case.holds(&["a 31"]).await;
}

#[tokio::test]
async fn fault_o5_a_mounted_config_map_is_one_file() {
    let mut case = Case::new("folder-o5-mount");
    let link = |to: &Path, at: PathBuf| std::os::unix::fs::symlink(to, at).unwrap();
    for (version, quota) in [("..1", 30), ("..2", 40)] {
        std::fs::create_dir(case.dir.join(version)).unwrap();
        case.write(&format!("{version}/a.yaml"), &limiter("a", quota));
    }
    link(Path::new("..1"), case.dir.join("..data"));
    link(Path::new("..data/a.yaml"), case.dir.join("a.yaml"));
    assert_eq!(case.look().await, "");
    case.holds(&["a 30"]).await;
    link(Path::new("..2"), case.dir.join("..data_tmp"));
    assert_eq!(case.look().await, "");
    std::fs::rename(case.dir.join("..data_tmp"), case.dir.join("..data")).unwrap();
    assert_eq!(case.look().await, "");
    case.holds(&["a 40"]).await;
}

#[tokio::test]
async fn fault_o11_a_half_saved_file_takes_nothing_away() {
    let mut case = Case::new("folder-o11");
    let whole = format!("{}---\n{}", limiter("a", 30), limiter("b", 30));
    case.write("all.yaml", &whole);
    case.look().await;
    let first = limiter("a", 30);
    for half in ["", first.as_str(), &whole[..whole.len() - 90]] {
        case.write("all.yaml", half);
        case.look().await;
        case.holds(&["a 30", "b 30"]).await;
        case.write("all.yaml", &whole);
        case.look().await;
        case.holds(&["a 30", "b 30"]).await;
    }
    // Aside and back, and under another name for good.
    let (here, aside) = (case.dir.join("all.yaml"), case.dir.join("all.bak"));
    std::fs::rename(&here, &aside).unwrap();
    case.look().await;
    std::fs::rename(&aside, &here).unwrap();
    case.look().await;
    case.holds(&["a 30", "b 30"]).await;
    std::fs::rename(&here, case.dir.join("new.yaml")).unwrap();
    for _ in 0..4 {
        assert_eq!(case.look().await, "");
        case.holds(&["a 30", "b 30"]).await;
    }
    // An edit that makes it longer counts at once.
    case.write("new.yaml", &whole.replace("\"30\"", "\"400\""));
    case.look().await;
    case.holds(&["a 400", "b 400"]).await;
}

#[tokio::test]
async fn fault_o11_what_is_gone_for_a_second_is_gone() {
    let mut case = Case::new("folder-o11-gone");
    let whole = format!("{}---\n{}", limiter("a", 30), limiter("b", 30));
    case.write("all.yaml", &whole);
    case.write("c.yaml", &limiter("c", 30));
    case.look().await;
    case.write("all.yaml", &limiter("b", 30));
    std::fs::remove_file(case.dir.join("c.yaml")).unwrap();
    case.look().await;
    case.look().await;
    case.holds(&["a 30", "b 30", "c 30"]).await;
    case.look().await;
    case.holds(&["b 30"]).await;
    // The same length of time with another text each time does not count.
    for i in 0..4 {
        case.write("all.yaml", &format!("# {i}\n"));
        case.look().await;
        case.holds(&["b 30"]).await;
    }
    case.look().await;
    case.look().await;
    case.holds(&[]).await;
    // The folder is away, and comes back empty.
    case.write("all.yaml", &whole);
    case.look().await;
    std::fs::remove_dir_all(&case.dir).unwrap();
    for _ in 0..4 {
        assert!(case.folder.sync().await.is_err());
        case.clock.advance(Duration::from_secs(1));
    }
    std::fs::create_dir(&case.dir).unwrap();
    case.look().await;
    case.holds(&["a 30", "b 30"]).await;
    for _ in 0..3 {
        case.look().await;
    }
    case.holds(&[]).await;
}

#[tokio::test]
async fn fault_o38_what_kubectl_deletes_comes_back_when_its_file_is_touched() {
    let mut case = Case::new("folder-o38");
    case.write("a.yaml", &limiter("a", 30));
    case.look().await;
    let api: Api<SmartLimiter> = Api::namespaced(case.embedded.client(), "shop");
    api.delete("a", &DeleteParams::default()).await.unwrap();
    case.look().await;
    case.holds(&[]).await;
    let file = std::fs::File::options()
        .append(true)
        .open(case.dir.join("a.yaml"));
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    file.unwrap().set_modified(later).unwrap();
    case.look().await;
    case.holds(&["a 30"]).await;
}
