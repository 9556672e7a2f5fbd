//! The embedded API behind a ClusterRole, as the API server's authorizer would stand before it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::http::request::Parts;
use hyper::{Method, header};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// API group, resource (with its subresource; with a blank and the name when only objects of this name are meant), verb.
pub(crate) type Right = (String, String, String);

/// The rights of a ClusterRole, one by one.
pub(crate) fn rights(role: &Value) -> BTreeSet<Right> {
    let mut out = BTreeSet::new();
    for rule in role["rules"].as_array().expect("rules") {
        let list = |key: &str| -> Vec<String> {
            let values = rule[key]
                .as_array()
                .unwrap_or_else(|| panic!("{key} in {rule}"));
            let text = |v: &Value| v.as_str().expect("a text").to_owned();
            values.iter().map(text).collect()
        };
        let names = rule.get("resourceNames").is_some();
        let keys = rule.as_object().expect("a rule").len();
        assert_eq!(keys, 3 + usize::from(names), "only {rule}");
        let resources: Vec<String> = if names {
            let with_names = |r: &String| {
                list("resourceNames")
                    .into_iter()
                    .map(move |n| format!("{r} {n}"))
                    .collect::<Vec<_>>()
            };
            list("resources").iter().flat_map(with_names).collect()
        } else {
            list("resources")
        };
        for group in list("apiGroups") {
            for resource in &resources {
                for verb in list("verbs") {
                    assert!(
                        ![&group, resource, &verb].contains(&&"*".to_owned()),
                        "{rule}"
                    );
                    let right = (group.clone(), resource.clone(), verb);
                    assert!(out.insert(right.clone()), "{right:?} is granted twice");
                }
            }
        }
    }
    out
}

/// What was asked for and granted, and what was not.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub used: BTreeSet<Right>,
    pub refused: BTreeSet<Right>,
}

/// Lets through what the rights allow, and writes down everything.
#[derive(Clone)]
pub(crate) struct Guard {
    api: Client,
    granted: Arc<BTreeSet<Right>>,
    log: Arc<Mutex<Log>>,
}

impl Guard {
    /// A guard before `api`.
    pub(crate) fn new(api: Client, granted: BTreeSet<Right>) -> Self {
        Self {
            api,
            granted: Arc::new(granted),
            log: Arc::default(),
        }
    }

    /// A client with the rights and no more.
    pub(crate) fn client(&self) -> Client {
        let router = Router::new().fallback(pass).with_state(self.clone());
        Client::new(router, "default")
    }

    /// What happened up to now.
    pub(crate) fn with_log<T>(&self, read: impl FnOnce(&Log) -> T) -> T {
        read(&self.log.lock().expect("no panic while locked"))
    }

    /// Whether the request may pass: all the rights that it takes.
    async fn allows(&self, request: &Parts) -> bool {
        let mut allowed = true;
        for right in needed(&self.api, request).await {
            let mut log = self.log.lock().expect("no panic while locked");
            let named = (
                right.0.clone(),
                format!("{} {}", right.1, name(request)),
                right.2.clone(),
            );
            if self.granted.contains(&right) {
                log.used.insert(right);
            } else if self.granted.contains(&named) {
                log.used.insert(named);
            } else {
                log.refused.insert(right);
                allowed = false;
            }
        }
        allowed
    }
}

/// The object that a request is about: of a list or watch the only one that its field selector leaves, as the API server's
/// authorizer has it.
fn name(request: &Parts) -> String {
    let query = request.uri.query().unwrap_or_default();
    let selector = query
        .split('&')
        .find_map(|part| part.strip_prefix("fieldSelector="));
    let selected = selector.and_then(|s| s.strip_prefix("metadata.name%3D"));
    let path = request.uri.path().trim_matches('/').rsplit('/').next();
    selected.or(path).unwrap_or_default().to_owned()
}

async fn pass(State(guard): State<Guard>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    if !guard.allows(&parts).await {
        let message = format!("{} {} is forbidden", parts.method, parts.uri);
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": "Forbidden", "code": 403});
        let mut response = Response::new(axum::body::Body::from(status.to_string()));
        *response.status_mut() = hyper::StatusCode::FORBIDDEN;
        return response;
    }
    let request = hyper::Request::from_parts(parts, Body::from(body));
    let answer = guard
        .api
        .send(request)
        .await
        .expect("the embedded API answers");
    answer.map(axum::body::Body::new)
}

/// The rights that a request takes. An apply of what is not there takes the right to create, too.
async fn needed(api: &Client, request: &Parts) -> Vec<Right> {
    let path = request.uri.path();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => ("no group", parts.as_slice()),
    };
    let rest = match rest {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    let (resource, name) = match rest {
        [resource] => ((*resource).to_owned(), false),
        [resource, _name] => ((*resource).to_owned(), true),
        [resource, _name, subresource] => (format!("{resource}/{subresource}"), true),
        _ => (path.to_owned(), false),
    };
    let watches = request
        .uri
        .query()
        .unwrap_or_default()
        .contains("watch=true");
    let verb = match (&request.method, name) {
        (&Method::GET, true) => "get",
        (&Method::GET, false) if watches => "watch",
        (&Method::GET, false) => "list",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, true) => "delete",
        (&Method::DELETE, false) => "deletecollection",
        _ => "no verb",
    };
    let right = |verb: &str| (group.to_owned(), resource.clone(), verb.to_owned());
    let mut needed = vec![right(verb)];
    let applies = request.headers.get(header::CONTENT_TYPE).is_some_and(|t| {
        t.to_str()
            .unwrap_or_default()
            .starts_with("application/apply-patch")
    });
    if applies && !resource.contains('/') {
        let look = hyper::Request::get(path)
            .body(Body::empty())
            .expect("a request");
        let answer = api.send(look).await.expect("the embedded API answers");
        if answer.status() == hyper::StatusCode::NOT_FOUND {
            needed.push(right("create"));
        }
    }
    needed
}
