//! The state of the API and the way of a request through it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use parking_lot::{Mutex, RwLock};
use serde_json::Value;

use crate::access;
use crate::clock::Clock;
use crate::discovery;
use crate::error::ApiError;
use crate::faults::Faults;
use crate::handlers::Options;
use crate::kinds::Registry;
use crate::reply::{Renderer, Reply, View};
use crate::request::{self, Query, Target, Verb};
use crate::store::{History, Key, Place, ResourceId, Store, Stored};

/// What is kept of the past of each resource. A watch that starts or falls further behind lists again.
const HISTORY: History = History {
    events: 1000,
    bytes: 8 << 20,
};
/// How often a quiet watch gets a bookmark.
const BOOKMARK_MILLIS: u64 = 30_000;

/// Requests and writes so far.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) writes: BTreeMap<(String, String), u64>,
    pub(crate) requests: BTreeMap<(String, String), u64>,
}

/// Everything behind [`crate::Embedded`].
pub(crate) struct Server {
    pub(crate) registry: RwLock<Registry>,
    pub(crate) store: RwLock<Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) faults: Faults,
    pub(crate) counters: Mutex<Counters>,
    /// Objects that garbage collection leaves alone.
    pub(crate) held: Mutex<HashSet<Place>>,
    sequence: AtomicU64,
    bookmark_millis: AtomicU64,
}

impl Server {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            registry: RwLock::new(Registry::new()),
            store: RwLock::new(Store::new(HISTORY)),
            clock,
            faults: Faults::default(),
            counters: Mutex::default(),
            held: Mutex::default(),
            sequence: AtomicU64::new(0),
            bookmark_millis: AtomicU64::new(BOOKMARK_MILLIS),
        }
    }

    pub(crate) fn bookmark_interval(&self) -> Duration {
        Duration::from_millis(self.bookmark_millis.load(Ordering::Relaxed))
    }

    pub(crate) fn set_bookmark_interval(&self, interval: Duration) {
        let millis = u64::try_from(interval.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        self.bookmark_millis.store(millis, Ordering::Relaxed);
    }

    /// A number that looks random and is the same in every run.
    fn next_number(&self) -> u64 {
        let mut z = self
            .sequence
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn new_uid(&self) -> String {
        let (a, b) = (self.next_number(), self.next_number());
        format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            b >> 52,
            b & 0xffff_ffff_ffff
        )
    }

    /// Five characters for `generateName`.
    pub(crate) fn suffix(&self) -> String {
        const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut n = self.next_number();
        (0..5)
            .map(|_| {
                let index = usize::try_from(n % 27).unwrap_or_default();
                n /= 27;
                char::from(ALPHABET[index])
            })
            .collect()
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<Arc<Stored>> {
        self.store
            .read()
            .get(&ResourceId::new("", "namespaces"), &Key::new("", name))
    }

    pub(crate) fn count_write(&self, target: &Target, verb: &str) {
        let plural = counted_name(target);
        *self
            .counters
            .lock()
            .writes
            .entry((plural, verb.to_owned()))
            .or_default() += 1;
    }

    /// Answers one request.
    pub(crate) async fn handle(self: Arc<Self>, request: Request<Bytes>) -> Reply {
        if let Some(reply) = access::answer(&request) {
            return reply;
        }
        let resolved = {
            let registry = self.registry.read();
            match request::target(&registry, request.uri().path()) {
                Ok(Some(target)) => Ok(target),
                Ok(None) => match discovery::answer(&registry, &request) {
                    Some(reply) => return reply,
                    None => Err(ApiError::NoResource(request.uri().path().to_owned())),
                },
                Err(error) => Err(error),
            }
        };
        let reply = match resolved {
            Ok(target) => self.serve_target(target, request).await,
            Err(error) => Err(error),
        };
        reply.unwrap_or_else(|error| {
            tracing::debug!(%error, code = error.code(), "request refused");
            Reply::error(&error)
        })
    }

    async fn serve_target(
        self: Arc<Self>,
        target: Target,
        request: Request<Bytes>,
    ) -> Result<Reply, ApiError> {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let verb = request::verb(request.method(), &target, &query)?;
        let plural = Arc::clone(&target.resource.id.plural);
        *self
            .counters
            .lock()
            .requests
            .entry((counted_name(&target), verb.name().to_owned()))
            .or_default() += 1;
        if let Some(delay) = self.faults.delay_for(verb.name(), &plural) {
            tokio::time::sleep(delay).await;
        }
        if let Some(code) = self.faults.take_failure(verb.name(), &plural) {
            return Err(ApiError::Injected(code));
        }
        if let Some(message) = self.faults.denial(verb.name(), &plural, request.body()) {
            return Err(ApiError::BadRequest(message));
        }
        let lose = self.faults.take_loss(verb.name(), &plural);
        let reply = self.dispatch(verb, target, &query, &request);
        if lose {
            return Err(ApiError::Injected(504));
        }
        reply
    }

    /// Does the request; nothing in here waits.
    pub(crate) fn dispatch(
        self: &Arc<Self>,
        verb: Verb,
        target: Target,
        query: &Query,
        request: &Request<Bytes>,
    ) -> Result<Reply, ApiError> {
        let headers = request.headers();
        let renderer = Renderer {
            target: Arc::new(target),
            view: View::of(headers),
            now: self.clock.now(),
        };
        let content_type = headers
            .get(http::header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("application/json");
        let bytes = request.body();
        let options = Options::parse(query, headers)?;
        let optional_body = || {
            if bytes.is_empty() {
                Ok(Value::Null)
            } else {
                request::body(content_type, bytes)
            }
        };
        match verb {
            Verb::Get => self.get(&renderer),
            Verb::List => self.list(&renderer, query),
            Verb::Watch => self.watch(renderer, query),
            Verb::Create => self.create(&renderer, request::body(content_type, bytes)?, &options),
            Verb::Update => self.update(&renderer, request::body(content_type, bytes)?, &options),
            Verb::Patch => self.patch(&renderer, content_type, bytes, &options),
            Verb::Delete => self.delete(&renderer, query, &optional_body()?),
            Verb::DeleteCollection => self.delete_collection(&renderer, query, &optional_body()?),
        }
    }
}

fn counted_name(target: &Target) -> String {
    if target.status {
        format!("{}/status", target.resource.id.plural)
    } else {
        target.resource.id.plural.to_string()
    }
}
