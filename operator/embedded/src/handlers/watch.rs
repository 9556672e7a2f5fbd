//! watch: initial state, then the shared event log, one cursor per watcher.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{StreamExt, unfold};
use tokio::time::{Instant, sleep_until};

use crate::error::ApiError;
use crate::faults::{Interruption, Interruptions};
use crate::reply::{Renderer, Reply};
use crate::request::Query;
use crate::selectors::Selector;
use crate::server::Server;
use crate::store::{EventKind, LogEvent, Past};

/// How many log entries a watcher takes at a time.
const BATCH: usize = 256;
/// How long a watch runs when the client does not say.
const DEFAULT_TIMEOUT: u64 = 1800;

struct Watcher {
    server: Arc<Server>,
    renderer: Renderer,
    selector: Selector,
    cursor: u64,
    pending: VecDeque<Bytes>,
    bookmarks: bool,
    first: bool,
    done: bool,
    changed: tokio::sync::watch::Receiver<u64>,
    interruptions: Interruptions,
    deadline: Instant,
    next_bookmark: Instant,
}

impl Server {
    pub(crate) fn watch(
        self: &Arc<Self>,
        renderer: Renderer,
        query: &Query,
    ) -> Result<Reply, ApiError> {
        let selector = query.selector()?;
        let initial = query.flag("sendInitialEvents");
        let start = match query.get("resourceVersion") {
            "" | "0" => None,
            text => Some(text.parse::<u64>().map_err(|_| {
                ApiError::BadRequest(format!(
                    "Invalid value: {text:?}: resourceVersion must be a number"
                ))
            })?),
        };
        let timeout = query.number("timeoutSeconds").unwrap_or(DEFAULT_TIMEOUT);
        let now = Instant::now();
        let mut watcher = Watcher {
            changed: self.store.write().subscribe(&renderer.target.resource.id),
            interruptions: self.faults.watch_interruptions(),
            server: Arc::clone(self),
            renderer,
            selector,
            cursor: start.unwrap_or_default(),
            pending: VecDeque::new(),
            bookmarks: query.flag("allowWatchBookmarks"),
            first: true,
            done: false,
            deadline: now + Duration::from_secs(timeout),
            next_bookmark: now + self.bookmark_interval(),
        };
        let from_now = query.get("sendInitialEvents") == "false" && start.is_none();
        if from_now {
            watcher.cursor = self.store.read().revision();
        } else if initial || start.is_none() {
            watcher.send_initial(initial);
        }
        Ok(Reply::stream(unfold(watcher, Watcher::step).boxed()))
    }
}

impl Watcher {
    fn send_initial(&mut self, announce_end: bool) {
        let page = self
            .server
            .select(&self.renderer, &self.selector, None, None);
        self.cursor = page.revision;
        for stored in &page.items {
            let object = self.renderer.with_header(stored, self.first);
            self.first = false;
            self.pending.push_back(line("ADDED", &object));
        }
        if announce_end && self.bookmarks {
            let bookmark = self.renderer.bookmark(self.cursor, true);
            self.pending.push_back(line("BOOKMARK", &bookmark));
        }
    }

    /// The next chunk of the stream.
    async fn step(mut self) -> Option<(Bytes, Self)> {
        loop {
            if !self.pending.is_empty() {
                return Some((self.flush(), self));
            }
            if self.done {
                return None;
            }
            // Marked before the log is read: a change in between wakes the watcher again.
            self.changed.mark_unchanged();
            if self.read_log() {
                continue;
            }
            self.wait().await;
        }
    }

    /// All that is ready, as one chunk.
    fn flush(&mut self) -> Bytes {
        if self.pending.len() == 1 {
            return self.pending.pop_front().unwrap_or_default();
        }
        let mut all = Vec::with_capacity(self.pending.iter().map(Bytes::len).sum());
        for bytes in self.pending.drain(..) {
            all.extend_from_slice(&bytes);
        }
        Bytes::from(all)
    }

    /// Takes a batch from the log; returns whether there was anything.
    fn read_log(&mut self) -> bool {
        let id = &self.renderer.target.resource.id;
        let read = {
            let store = self.server.store.read();
            let revision = store.revision();
            let batch =
                (self.cursor <= revision).then(|| store.events_after(id, self.cursor, BATCH));
            batch.and_then(Result::ok).map(|batch| (batch, revision))
        };
        let Some((batch, revision)) = read else {
            self.expire();
            return true;
        };
        for event in &batch {
            self.cursor = event.revision;
            self.emit(event);
        }
        if batch.len() < BATCH {
            // The log was read to its end under the lock, so nothing up to this revision is missing.
            self.cursor = revision;
        }
        !batch.is_empty()
    }

    fn emit(&mut self, event: &LogEvent) {
        let namespace = self.renderer.target.namespace.as_deref();
        if namespace.is_some_and(|wanted| *event.object.namespace != *wanted) {
            return;
        }
        let selects =
            |past: &Past| self.selector.is_empty() || self.selector.matches(&past.stored().value);
        let before = event.previous.as_ref().is_some_and(selects);
        let after = event.kind != EventKind::Deleted && selects(&event.object);
        let kind = match (before, after) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return,
        };
        let object = if self.renderer.shows_text() {
            event.object.json.clone()
        } else {
            self.renderer
                .with_header(&event.object.stored(), self.first)
        };
        self.first = false;
        self.pending.push_back(line(kind, &object));
    }

    fn expire(&mut self) {
        let error = ApiError::Expired(format!("too old resource version: {}", self.cursor));
        self.pending
            .push_back(line("ERROR", &Bytes::from(error.to_status().to_string())));
        self.done = true;
    }

    fn push_bookmark(&mut self) {
        let bookmark = self.renderer.bookmark(self.cursor, false);
        self.pending.push_back(line("BOOKMARK", &bookmark));
    }

    async fn wait(&mut self) {
        let plural = Arc::clone(&self.renderer.target.resource.id.plural);
        let bookmark_at = if self.bookmarks {
            self.next_bookmark
        } else {
            self.deadline
        };
        tokio::select! {
            how = self.interruptions.next(&plural) => match how {
                Interruption::Drop => self.done = true,
                Interruption::Expire => self.expire(),
            },
            result = self.changed.changed() => self.done = result.is_err(),
            () = sleep_until(self.deadline) => self.done = true,
            () = sleep_until(bookmark_at), if self.bookmarks => {
                self.next_bookmark = Instant::now() + self.server.bookmark_interval();
                if !self.changed.has_changed().unwrap_or(true) {
                    self.push_bookmark();
                }
            }
        }
    }
}

fn line(kind: &str, object: &Bytes) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 40);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    Bytes::from(out)
}
