//! Generated objects as files: a folder that holds exactly what is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use kube::Client;
use kube::core::ApiResource;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL};
use trimtab_kit::readiness::Readiness;

use crate::blocking::Worker;
use crate::{manifests, translate};

/// How often objects and files are compared.
const POLL: Duration = Duration::from_millis(500);
/// How long one pass over the files may take.
const WRITE: Duration = Duration::from_secs(10);

/// Only for us: objects may hold passwords, and whoever needs a file can be given it.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

fn make(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(dir)
}

/// Makes the folder `out`, which must not be in `input`: all files there are read, also those that we would write.
pub fn outside(out: &Path, input: &Path) -> anyhow::Result<()> {
    let shown = out.display();
    make(out)
        .with_context(|| format!("--out {shown}: the folder cannot be made: choose another one"))?;
    separate("--out", out, input)
}

/// Whether a folder is not in `input`, whose files are read; `option` names it.
pub fn separate(option: &str, folder: &Path, input: &Path) -> anyhow::Result<()> {
    let here = Path::new(".");
    let folder = Some(folder).filter(|f| *f != Path::new("")).unwrap_or(here);
    let whole = folder.canonicalize();
    let whole = whole.with_context(|| format!("{option}: {}", folder.display()))?;
    anyhow::ensure!(
        !whole.starts_with(input.canonicalize()?),
        "{option}: {} is in {}, whose files are read: choose a folder outside of it",
        folder.display(),
        input.display()
    );
    Ok(())
}

/// Keeps a folder equal to the generated objects of an API; files of others stay.
pub struct Outputs {
    client: Client,
    readiness: Readiness,
    kinds: Vec<ApiResource>,
    files: Arc<Mutex<Files>>,
    worker: Worker<anyhow::Result<()>>,
    complaint: String,
}

/// The folder, as far as it is known.
#[derive(Debug)]
struct Files {
    dir: PathBuf,
    /// Files with our label that nothing wanted at the last look.
    unwanted: BTreeSet<String>,
    /// Files of others, as they were when they were read.
    foreign: BTreeMap<String, (Option<SystemTime>, u64)>,
}

impl Debug for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Outputs {
    /// Files in `dir` of the generated objects of `kinds` that `client` has. Nothing is removed before `readiness` has no
    /// blocker: until then an object may be missing only because it is not made yet.
    pub fn new(
        client: Client,
        dir: PathBuf,
        readiness: Readiness,
        kinds: Vec<ApiResource>,
    ) -> Self {
        let files = Files {
            dir,
            unwanted: BTreeSet::new(),
            foreign: BTreeMap::new(),
        };
        Self {
            client,
            readiness,
            kinds,
            files: Arc::new(Mutex::new(files)),
            worker: Worker::new(),
            complaint: String::new(),
        }
    }

    /// Follows the objects until shutdown. A complaint is logged once, not twice a second.
    pub async fn follow(mut self, shutdown: CancellationToken) {
        loop {
            let synced = tokio::select! {
                () = shutdown.cancelled() => return,
                synced = self.sync() => synced,
            };
            let complaint = match synced {
                Ok(()) => String::new(),
                Err(error) => format!("{error:#}"),
            };
            if complaint != self.complaint {
                if !complaint.is_empty() {
                    tracing::warn!("outputs cannot be written: {complaint}; trying again");
                }
                self.complaint = complaint;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Compares once, and writes and removes what differs.
    pub async fn sync(&mut self) -> anyhow::Result<()> {
        // Looked at first: what is listed afterwards is then whole.
        let ready = self.readiness.missing().is_empty();
        let wanted = self.desired().await?;
        let files = Arc::clone(&self.files);
        let done = self
            .worker
            .run(WRITE, move || files.lock().sync(&wanted, ready));
        done.await?
    }

    /// Generated objects as files. No name of an object has `_`, and the kind stands last, so that no two objects have one
    /// file.
    async fn desired(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut files = BTreeMap::new();
        let objects = translate::generated(&self.client, self.kinds.iter().cloned()).await?;
        for object in objects.iter().filter(|o| has_our_label(o)) {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
            let name = format!(
                "{}_{}.{}.yaml",
                text("/metadata/namespace").unwrap_or_default(),
                text("/metadata/name").unwrap_or_default(),
                text("/kind").unwrap_or_default().to_lowercase()
            );
            files.insert(name, manifests::yaml(object)?);
        }
        Ok(files)
    }
}

impl Files {
    fn sync(&mut self, wanted: &BTreeMap<String, String>, ready: bool) -> anyhow::Result<()> {
        let shown = || self.dir.display().to_string();
        make(&self.dir).with_context(|| format!("{}: the folder cannot be made", shown()))?;
        let mut first = Ok(());
        for (name, file) in wanted {
            // One file that cannot be written holds up no other.
            first = first.and(self.put(name, file));
        }
        first.and(self.clean(wanted, ready))
    }

    fn put(&self, name: &str, wanted: &str) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        // A FIFO in its place would hold up the reader.
        let same = std::fs::symlink_metadata(&path)
            .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o777 == FILE_MODE)
            && std::fs::read(&path).is_ok_and(|text| text == wanted.as_bytes());
        if same {
            return Ok(());
        }
        let temporary = self.dir.join(temporary(name));
        let written = replace(&path, &temporary, wanted);
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written.with_context(|| path.display().to_string())
    }

    /// Removes what has our label and is not wanted, at the second look: writers may be a moment behind.
    fn clean(&mut self, wanted: &BTreeMap<String, String>, ready: bool) -> anyhow::Result<()> {
        let mut unwanted = BTreeSet::new();
        let mut foreign = BTreeMap::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let metadata = entry.metadata()?;
            if !metadata.is_file() || !name.ends_with(".yaml") || wanted.contains_key(&name) {
                continue;
            }
            let state = (metadata.modified().ok(), metadata.len());
            if self.foreign.get(&name) == Some(&state) || !is_ours(&entry.path()) {
                foreign.insert(name, state);
            } else if ready {
                unwanted.insert(name);
            }
        }
        for name in unwanted.intersection(&self.unwanted) {
            std::fs::remove_file(self.dir.join(name)).with_context(|| name.clone())?;
        }
        self.unwanted = unwanted;
        self.foreign = foreign;
        Ok(())
    }
}

pub(crate) fn temporary(name: &str) -> String {
    format!(".{name}.tmp")
}

/// Through a rename: a reader never sees half a file, and nobody else ever sees a secret.
pub(crate) fn replace(path: &Path, temporary: &Path, wanted: &str) -> std::io::Result<()> {
    match std::fs::remove_file(temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(temporary)?;
    file.write_all(wanted.as_bytes())?;
    // The process may allow less than the mode.
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    std::fs::rename(temporary, path)
}

/// Whether all that a file holds are generated objects.
fn is_ours(path: &Path) -> bool {
    let documents = manifests::read_file(path).and_then(manifests::Input::complete);
    documents.is_ok_and(|documents| {
        !documents.is_empty() && documents.iter().all(|d| has_our_label(&d.object))
    })
}

fn has_our_label(object: &Value) -> bool {
    object["metadata"]["labels"][MANAGED_BY_LABEL] == MANAGED_BY
}
