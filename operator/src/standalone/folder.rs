//! Follows a folder: what its files hold is in the embedded API.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use kube::api::DeleteParams;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use trimtab_embedded::Embedded;
use trimtab_kit::clock::{Clock, SystemClock};
use trimtab_kit::readiness::ReadinessGate;

use super::{Identity, Loaded, api, identity, load, remarks, split};
use crate::blocking::Worker;
use crate::files;
use crate::manifests::{self, Document, Input};

/// Who holds back what an unreadable folder may have had.
pub const FOLDER: &str = "folder";
/// How often the folder is looked at.
const POLL: Duration = Duration::from_millis(500);
/// How long one look may take.
const READ: Duration = Duration::from_secs(10);
/// What a file loses counts when it has been away for so long, and at two looks: editors empty files before they write them,
/// and move them aside and back.
const SETTLE: Duration = Duration::from_secs(1);

/// A document of the folder and what became of it.
#[derive(Clone, Debug)]
struct Known {
    document: Document,
    loaded: Loaded,
}

/// What a file holds.
#[derive(Clone, Debug)]
struct Held {
    text: Arc<str>,
    touched: Option<SystemTime>,
    input: Arc<Input>,
}

/// What one look found.
#[derive(Debug, Default)]
struct Look {
    held: BTreeMap<PathBuf, Held>,
    unreadable: Vec<(PathBuf, String)>,
    skipped: Vec<String>,
}

/// A file that is shorter than what is in force, has fewer objects, or is gone (`None`).
#[derive(Debug)]
struct Waiting {
    text: Option<Arc<str>>,
    since: Duration,
    looks: usize,
}

/// What is wrong with a file or folder.
struct Complaint {
    path: PathBuf,
    text: String,
    /// It may have had a part in what proxies are served.
    served: bool,
}

/// Follows a folder. A file that cannot be read or is refused leaves what it held before.
pub struct Folder {
    dir: PathBuf,
    embedded: Embedded,
    clock: Arc<dyn Clock>,
    reader: Worker<anyhow::Result<Look>>,
    held: BTreeMap<PathBuf, Held>,
    waiting: BTreeMap<PathBuf, Waiting>,
    known: BTreeMap<Identity, Known>,
    gate: Option<ReadinessGate>,
    complaint: String,
    skipped: BTreeSet<String>,
    /// Files and folders that could not be read, or were refused, when the folder was read first, and still cannot: nobody
    /// knows what an earlier process made of them. Absent: it has not been read.
    unknown: Option<BTreeSet<PathBuf>>,
}

impl std::fmt::Debug for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folder")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// Whether objects of an API group may have a part in what proxies are served. Files have objects of other programs, too.
fn is_served(object: &Value) -> bool {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let ours = trimtab_crds::manifests::trimtab_crds();
    let read = [
        "",
        "discovery.k8s.io",
        "gateway.networking.k8s.io",
        "networking.istio.io",
    ];
    read.contains(&group) || ours.iter().any(|(_, crd)| crd.spec.group == group)
}

/// Reads and parses all files of a folder; those that are as `before` are not parsed again.
fn look(dir: &Path, before: &BTreeMap<PathBuf, Held>) -> anyhow::Result<Look> {
    let found = files::look(dir)?;
    let unreadable = found.unreadable.into_iter();
    let mut out = Look {
        unreadable: unreadable.map(|(p, e)| (p, format!("{e:#}"))).collect(),
        skipped: found.skipped,
        ..Look::default()
    };
    for file in found.files {
        // Before the text: what is written in between is then seen as a later touch.
        let touched = std::fs::metadata(&file).and_then(|m| m.modified()).ok();
        let text = match files::text(&file) {
            Ok(text) => text,
            Err(error) => {
                out.unreadable.push((file, format!("{error:#}")));
                continue;
            }
        };
        let same = before.get(&file).filter(|held| *held.text == *text);
        let held = match same.cloned() {
            Some(same) => Held { touched, ..same },
            None => Held {
                input: Arc::new(manifests::input(&file, &text)),
                text: text.into(),
                touched,
            },
        };
        out.held.insert(file, held);
    }
    Ok(out)
}

impl Folder {
    /// Follows `dir`.
    pub fn new(dir: &Path, embedded: Embedded) -> Self {
        Self::with_clock(dir, embedded, Arc::new(SystemClock::new()))
    }

    /// The same on another clock.
    pub fn with_clock(dir: &Path, embedded: Embedded, clock: Arc<dyn Clock>) -> Self {
        Self {
            dir: dir.to_owned(),
            embedded,
            clock,
            reader: Worker::new(),
            held: BTreeMap::new(),
            waiting: BTreeMap::new(),
            known: BTreeMap::new(),
            gate: None,
            complaint: String::new(),
            skipped: BTreeSet::new(),
            unknown: None,
        }
    }

    /// Shows complaints in `/readyz` as well. They block nothing.
    #[must_use]
    pub fn shown_at(mut self, gate: ReadinessGate) -> Self {
        gate.release();
        self.gate = Some(gate);
        self
    }

    /// Whether all that was there when the folder was read first has been read since, or is gone.
    pub fn is_known(&self) -> bool {
        self.unknown.as_ref().is_none_or(BTreeSet::is_empty)
    }

    /// Brings the API up to date with the folder. Returns what was refused, a line each.
    pub async fn sync(&mut self) -> anyhow::Result<Vec<String>> {
        let (dir, before) = (self.dir.clone(), self.held.clone());
        let looked = self.reader.run(READ, move || look(&dir, &before)).await;
        let found = looked.with_context(|| self.dir.display().to_string())??;
        self.warn_of(found.skipped);
        let mut refused: Vec<Complaint> = Vec::new();
        let mut stay: Vec<PathBuf> = Vec::new();
        for (path, text) in found.unreadable {
            stay.push(path.clone());
            refused.push(Complaint {
                path,
                text,
                served: true,
            });
        }
        let touched = self.settle(found.held, &stay);
        let mut seen: BTreeMap<Identity, Known> = BTreeMap::new();
        self.take_all(&touched, &mut stay, &mut seen, &mut refused);
        for path in stay {
            self.keep(&path, &mut seen);
        }
        for (id, known) in &self.known {
            if !seen.contains_key(id) && known.loaded == Loaded::Taken {
                delete(&self.embedded, id, &known.document.object).await?;
            }
        }
        self.known = seen;
        let bad = refused.iter().filter(|c| c.served);
        let bad: BTreeSet<PathBuf> = bad.map(|c| c.path.clone()).collect();
        match &mut self.unknown {
            Some(unknown) => unknown.retain(|path| bad.contains(path)),
            None => self.unknown = Some(bad),
        }
        Ok(refused.into_iter().map(|c| c.text).collect())
    }

    /// Warns once of what is never read.
    fn warn_of(&mut self, skipped: Vec<String>) {
        let skipped: BTreeSet<String> = skipped.into_iter().collect();
        for line in skipped.difference(&self.skipped) {
            tracing::warn!("{line}");
        }
        self.skipped = skipped;
    }

    /// Decides what each file holds. Files that are only touched are loaded again: they are the answer.
    fn settle(
        &mut self,
        found: BTreeMap<PathBuf, Held>,
        unreadable: &[PathBuf],
    ) -> BTreeSet<PathBuf> {
        let mut again = BTreeSet::new();
        let gone = self.held.keys().filter(|path| !found.contains_key(*path));
        let gone: Vec<PathBuf> = gone.cloned().collect();
        for path in gone {
            if !unreadable.iter().any(|u| path.starts_with(u)) && self.has_settled(&path, None) {
                self.held.remove(&path);
            }
        }
        for (path, new) in found {
            let before = self.held.get(&path);
            let same = before.is_some_and(|held| held.text == new.text);
            if same && before.is_some_and(|held| held.touched != new.touched) {
                again.insert(path.clone());
            }
            let loses = !same && before.is_some_and(|held| self.loses(held, &new));
            if loses && !self.has_settled(&path, Some(&new.text)) {
                continue;
            }
            self.waiting.remove(&path);
            self.held.insert(path, new);
        }
        self.waiting.retain(|path, _| self.held.contains_key(path));
        again
    }

    /// Whether a new text may be half of one: it is shorter, or objects are not in it.
    fn loses(&self, held: &Held, new: &Held) -> bool {
        let ids = |input: &Input| -> BTreeSet<Identity> {
            let documents = input.documents.iter();
            documents
                .map(|d| identity(&self.embedded, &d.object))
                .collect()
        };
        new.text.len() < held.text.len() || !ids(&new.input).is_superset(&ids(&held.input))
    }

    /// Whether a file has been like this for long enough.
    fn has_settled(&mut self, path: &Path, text: Option<&Arc<str>>) -> bool {
        let now = self.clock.monotonic();
        let before = self
            .waiting
            .remove(path)
            .filter(|w| w.text.as_ref() == text);
        let (since, looks) = before.map_or((now, 1), |w| (w.since, w.looks + 1));
        if looks >= 2 && now.saturating_sub(since) >= SETTLE {
            return true;
        }
        let waiting = Waiting {
            text: text.cloned(),
            since,
            looks,
        };
        self.waiting.insert(path.to_owned(), waiting);
        false
    }

    /// Loads what the files hold. What a file held that is about to lose it gives way to the same object in another file.
    fn take_all(
        &self,
        again: &BTreeSet<PathBuf>,
        stay: &mut Vec<PathBuf>,
        seen: &mut BTreeMap<Identity, Known>,
        refused: &mut Vec<Complaint>,
    ) {
        let (mut now, mut documents) = (Vec::new(), Vec::new());
        for (path, held) in &self.held {
            refused.extend(held.input.refused.iter().map(|text| Complaint {
                path: path.clone(),
                text: text.clone(),
                served: true,
            }));
            if self.waiting.contains_key(path) {
                now.push(path.clone());
                continue;
            }
            if !held.input.refused.is_empty() {
                // Which object a part was that cannot be read nobody knows: what the file held before stays.
                stay.push(path.clone());
            }
            documents.extend(held.input.documents.iter().cloned());
        }
        let in_force = |document: &Document| {
            let known = self.known.get(&identity(&self.embedded, &document.object));
            known.is_some_and(|known| known.document.file == document.file)
        };
        let split = split(&self.embedded, documents, in_force);
        for document in split.taken {
            let file = document.file.clone();
            let reload = again.contains(&file);
            if !self.take(document, reload, seen, refused) {
                // Nor whose name or kind is new and wrong.
                stay.push(file);
            }
        }
        refused.extend(split.refused.into_iter().map(|(document, text)| Complaint {
            path: document.file,
            text,
            // What counts is known.
            served: false,
        }));
        stay.extend(now);
    }

    /// What was loaded from a file, or from the files of a folder, stays.
    fn keep(&self, path: &Path, seen: &mut BTreeMap<Identity, Known>) {
        let of_path = |known: &Known| known.document.file.starts_with(path);
        for (id, known) in self.known.iter().filter(|(_, k)| of_path(k)) {
            seen.entry(id.clone()).or_insert_with(|| known.clone());
        }
    }

    /// Loads one document unless it is loaded already; one that is refused leaves what it was before. False: it is refused and
    /// was not there before.
    fn take(
        &self,
        document: Document,
        reload: bool,
        seen: &mut BTreeMap<Identity, Known>,
        refused: &mut Vec<Complaint>,
    ) -> bool {
        let id = identity(&self.embedded, &document.object);
        let before = self.known.get(&id);
        let same = before.filter(|b| b.document.object == document.object);
        if let Some(before) = same.filter(|_| !reload) {
            let loaded = before.loaded;
            seen.insert(id, Known { document, loaded });
            return true;
        }
        match load(&self.embedded, &document) {
            Ok(loaded) => {
                tell(&document, loaded, same.is_some());
                seen.insert(id, Known { document, loaded });
                true
            }
            Err(error) => {
                refused.push(Complaint {
                    served: is_served(&document.object),
                    path: document.file,
                    text: format!("{error:#}"),
                });
                seen.extend(before.map(|b| (id, b.clone())));
                before.is_some()
            }
        }
    }

    /// Follows until shutdown. A complaint is logged once, not twice a second. `known` is told when all is known that the
    /// folder held at first.
    pub async fn follow(mut self, known: impl Fn(), shutdown: CancellationToken) {
        let mut told = false;
        loop {
            let synced = tokio::select! {
                () = shutdown.cancelled() => return,
                synced = self.sync() => synced,
            };
            self.complain(match synced {
                Ok(refused) => refused.join("\n"),
                Err(error) => format!("{error:#}"),
            });
            if !told && self.is_known() {
                told = true;
                known();
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    fn complain(&mut self, complaint: String) {
        if complaint == self.complaint {
            return;
        }
        if let Some(gate) = &self.gate {
            match complaint.as_str() {
                "" => gate.release(),
                text => gate.fail(&text.replace('\n', "; ")),
            }
        }
        if !complaint.is_empty() {
            tracing::error!("{complaint}; what was loaded before stays in force");
        }
        self.complaint = complaint;
    }
}

fn tell(document: &Document, loaded: Loaded, again: bool) {
    let object = document.title();
    match loaded {
        Loaded::PassedOver => {
            tracing::info!(%object, "passed over: Trimtab does not read this kind");
        }
        Loaded::Taken if again => tracing::debug!(%object, "loaded again: its file was touched"),
        Loaded::Taken => {
            tracing::info!(%object, "loaded");
            for remark in remarks(document) {
                tracing::warn!("{remark}");
            }
        }
    }
}

async fn delete(embedded: &Embedded, id: &Identity, object: &Value) -> anyhow::Result<()> {
    let (_, kind, namespace, name) = id;
    let Some(api) = api(embedded, object, namespace) else {
        return Ok(());
    };
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => tracing::info!(%kind, %namespace, %name, "deleted: it is no longer in the folder"),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
