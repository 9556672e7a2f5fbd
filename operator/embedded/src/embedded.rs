//! The public handle.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::{Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::client::Body as ClientBody;
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, WallClock};
use crate::error::ApiError;
use crate::faults::{Faults, Filter, Interruption};
use crate::handlers::{FieldValidation, Options};
use crate::kinds::CRD_GROUP;
use crate::meta;
use crate::reply::{Body, Reply};
use crate::request::Target;
use crate::serve;
use crate::server::Server;
use crate::spelling;
use crate::store::History;

/// Namespaces that exist from the start.
const NAMESPACES: [&str; 3] = ["default", "istio-system", "kube-system"];

/// A kind in one of its served versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Group, version, kind and plural.
    pub resource: ApiResource,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

/// What an `apiVersion` and `kind` that are not served may be meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nearest {
    /// The kind is served in this `apiVersion`.
    Version(String),
    /// The group has a kind of nearly this name.
    Kind(String),
}

/// An in-memory Kubernetes API. Clones share the same state.
#[derive(Clone)]
pub struct Embedded {
    server: Arc<Server>,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

impl Default for Embedded {
    fn default() -> Self {
        Self::new()
    }
}

impl Embedded {
    /// An empty API with the built-in kinds, on the clock of the machine.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(WallClock))
    }

    /// The same on another clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let embedded = Self {
            server: Arc::new(Server::new(clock)),
        };
        for name in NAMESPACES {
            if let Err(error) = embedded.ensure_namespace(name) {
                tracing::error!(name, %error, "a namespace of the start cannot be made");
            }
        }
        embedded
    }

    /// A client of this API. Needs a tokio runtime.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    /// Installs a CRD, or replaces it; the same as writing it through a client.
    pub fn install_crd(&self, crd: &CustomResourceDefinition) -> Result<(), ApiError> {
        let mut value = serde_json::to_value(crd).map_err(|e| ApiError::Internal(e.to_string()))?;
        value["apiVersion"] = json!(format!("{CRD_GROUP}/v1"));
        value["kind"] = json!("CustomResourceDefinition");
        self.load(value).map(|_| ())
    }

    /// Makes a namespace unless it exists.
    pub fn ensure_namespace(&self, name: &str) -> Result<(), ApiError> {
        if self.server.namespace(name).is_some() {
            return Ok(());
        }
        self.load(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }))
            .map(|_| ())
    }

    /// Creates or replaces an object as it is, its status included, without field ownership; returns the stored
    /// object. It is validated and defaulted like any other write; fields that its schema does not know are removed. An
    /// object that is already there with the same content is not written. A new one keeps the time of creation that it says. Made for filling the API from files: nobody
    /// owns what was loaded, so that the first server-side apply finds the fields with `before-first-apply`.
    pub fn load(&self, object: Value) -> Result<Value, ApiError> {
        self.load_with(object, FieldValidation::Ignore, false)
    }

    /// The same, but an object with a field that its schema does not know is refused, as by kubectl; the error says what
    /// the field may be meant for. The object stays until it is deleted, whether its owners are there or not.
    pub fn load_to_stay(&self, object: Value) -> Result<Value, ApiError> {
        self.load_with(object, FieldValidation::Explained, true)
    }

    /// The kind of an object, if it is served in this version.
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<Kind> {
        let registry = self.server.registry.read();
        let (resource, version) = registry.by_kind(api_version, kind)?;
        Some(Kind {
            namespaced: resource.namespaced,
            resource: ApiResource {
                group: resource.group().to_owned(),
                api_version: resource.api_version(&version),
                version,
                kind: resource.kind.clone(),
                plural: resource.id.plural.to_string(),
            },
        })
    }

    /// What a kind that is not served may be meant for: another version of it, or a kind of nearly its name.
    pub fn nearest_kind(&self, api_version: &str, kind: &str) -> Option<Nearest> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let registry = self.server.registry.read();
        if let Some(known) = registry.of_group(group, kind) {
            return Some(Nearest::Version(known.api_version(&known.storage)));
        }
        let kinds = registry.all().filter(|r| r.group() == group);
        let near = spelling::misspelt(kind, kinds.map(|r| r.kind.as_str()))?;
        Some(Nearest::Kind(near.to_owned()))
    }

    fn load_with(
        &self,
        object: Value,
        validation: FieldValidation,
        stays: bool,
    ) -> Result<Value, ApiError> {
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let found = self.server.registry.read().by_kind(&api_version, &kind);
        let (resource, version) = found.ok_or_else(|| {
            ApiError::NoResource(format!(
                "no kind {kind:?} in {api_version:?}; install its CRD first or correct apiVersion and kind"
            ))
        })?;
        let namespace = meta::text(&object, "namespace").unwrap_or("default");
        let target = Target {
            namespace: resource.namespaced.then(|| namespace.to_owned()),
            resource,
            version,
            name: Some(meta::name(&object).to_owned()),
            status: false,
        };
        let place = (target.resource.id.clone(), target.key(meta::name(&object)));
        let fresh = stays && self.server.held.lock().insert(place.clone());
        let options = Options {
            dry_run: false,
            force: true,
            manager: String::new(),
            validation,
        };
        let loaded = self.server.load(&target, object, &options);
        if fresh && loaded.is_err() {
            self.server.held.lock().remove(&place);
        }
        loaded
    }

    /// Serves the API over HTTP/1 until `shutdown` is cancelled.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> std::io::Result<()> {
        serve::serve(Arc::clone(&self.server), listener, shutdown).await
    }

    /// Faults to inject.
    pub fn faults(&self) -> &Faults {
        &self.server.faults
    }

    /// Ends running watches of matching resources with 410, and forgets their history, so that watches from an older
    /// resource version get 410 too.
    pub fn expire_history(&self, plural: &str) {
        let ids: Vec<_> = {
            let registry = self.server.registry.read();
            registry
                .all()
                .filter(|r| &*r.id.plural == plural)
                .map(|r| r.id.clone())
                .collect()
        };
        for id in ids {
            self.server.store.write().compact(&id);
        }
        self.server
            .faults
            .interrupt(Filter::any().resource(plural), Interruption::Expire);
    }

    /// How many events are kept for each resource, whatever their size; a watch that starts or falls behind further gets
    /// 410. Without this it is 1,000, and at most 8 MiB.
    pub fn set_history(&self, events: usize) {
        let history = History {
            events,
            bytes: usize::MAX,
        };
        self.server.store.write().set_history(history);
    }

    /// How often a quiet watch gets a bookmark (30 seconds unless set); counts for watches that start later.
    pub fn set_bookmark_interval(&self, interval: Duration) {
        self.server.set_bookmark_interval(interval);
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.server.store.read().revision()
    }

    /// The number of requests that changed an object. Garbage collection, [`Embedded::load`] and writes that
    /// changed nothing do not count.
    pub fn write_count(&self) -> u64 {
        self.server.counters.lock().writes.values().sum()
    }

    /// Requests that changed an object, by plural name (`PLURAL/status` for the status) and verb (`create`,
    /// `update`, `patch`, `apply` or `delete`).
    pub fn writes(&self, plural: &str, verb: &str) -> u64 {
        let key = (plural.to_owned(), verb.to_owned());
        self.server
            .counters
            .lock()
            .writes
            .get(&key)
            .copied()
            .unwrap_or(0)
    }

    /// All requests, by plural name and verb (`get`, `list`, `watch`, `create`, `update`, `patch`, `delete`,
    /// `deletecollection`), whatever came of them.
    pub fn requests(&self, plural: &str, verb: &str) -> u64 {
        let key = (plural.to_owned(), verb.to_owned());
        self.server
            .counters
            .lock()
            .requests
            .get(&key)
            .copied()
            .unwrap_or(0)
    }
}

impl tower::Service<Request<ClientBody>> for Embedded {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ClientBody>) -> Self::Future {
        let server = Arc::clone(&self.server);
        async move {
            let (parts, body) = request.into_parts();
            let reply = match body.collect().await {
                Ok(collected) => {
                    let bytes: Bytes = collected.to_bytes();
                    server.handle(Request::from_parts(parts, bytes)).await
                }
                Err(error) => Reply::error(&ApiError::BadRequest(format!(
                    "the body cannot be read: {error}"
                ))),
            };
            Ok(reply.into_http())
        }
        .boxed()
    }
}
