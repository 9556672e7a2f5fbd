//! get and list.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::reply::{Renderer, Reply};
use crate::request::Query;
use crate::selectors::Selector;
use crate::server::Server;
use crate::store::{Key, Stored};

impl Server {
    pub(crate) fn get(&self, renderer: &Renderer) -> Result<Reply, ApiError> {
        let target = &renderer.target;
        let name = target.named()?;
        let stored = self
            .store
            .read()
            .get(&target.resource.id, &target.key(name))
            .ok_or_else(|| ApiError::NotFound(target.resource.subject(name)))?;
        Ok(Reply::new(200, renderer.object(&stored)))
    }

    pub(crate) fn list(&self, renderer: &Renderer, query: &Query) -> Result<Reply, ApiError> {
        let selector = query.selector()?;
        let limit = query
            .number("limit")
            .filter(|n| *n > 0)
            .and_then(|n| usize::try_from(n).ok());
        let after = match query.get("continue") {
            "" => None,
            token => Some(parse_token(token)?),
        };
        let page = self.select(renderer, &selector, limit, after.as_ref());
        let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
        if let Some((key, remaining)) = page.next {
            metadata["continue"] = json!(token(&key));
            if selector.is_empty() {
                metadata["remainingItemCount"] = json!(remaining);
            }
        }
        Ok(Reply::new(200, renderer.list(&page.items, &metadata)))
    }

    /// Collects the selected objects under one read lock; objects are shared, not copied.
    pub(crate) fn select(
        &self,
        renderer: &Renderer,
        selector: &Selector,
        limit: Option<usize>,
        after: Option<&Key>,
    ) -> Page {
        let target = &renderer.target;
        let id = &target.resource.id;
        let store = self.store.read();
        let mut page = Page {
            items: Vec::new(),
            revision: store.revision(),
            next: None,
        };
        let namespace = target.namespace.as_deref();
        if namespace.is_some_and(|ns| selector.excludes_namespace(ns)) {
            return page;
        }
        if let (Some(name), true) = (
            selector.single_name(),
            namespace.is_some() || !target.resource.namespaced,
        ) {
            let found = store.get(id, &target.key(name));
            page.items = found
                .into_iter()
                .filter(|s| selector.matches(&s.value))
                .collect();
            return page;
        }
        let mut last = None;
        let mut scan = store.scan(id, namespace, after);
        for (key, stored) in scan.by_ref() {
            if !selector.matches(&stored.value) {
                continue;
            }
            if limit.is_some_and(|limit| page.items.len() >= limit) {
                let remaining = 1 + scan.count();
                page.next = last.map(|key: &Key| (key.clone(), remaining));
                break;
            }
            last = Some(key);
            page.items.push(Arc::clone(stored));
        }
        page
    }
}

/// A part of a list.
pub(crate) struct Page {
    pub(crate) items: Vec<Arc<Stored>>,
    pub(crate) revision: u64,
    next: Option<(Key, usize)>,
}

/// A continue token: the last key, in hexadecimal so that nobody builds one by hand.
fn token(key: &Key) -> String {
    let text = json!([key.namespace, key.name]).to_string();
    text.bytes().fold(String::new(), |mut out, byte| {
        use std::fmt::Write as _;
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn parse_token(token: &str) -> Result<Key, ApiError> {
    let bad = || {
        ApiError::BadRequest(format!(
            "continue key is not valid: {token:?} was not given by a list"
        ))
    };
    let bytes: Option<Vec<u8>> = (0..token.len())
        .step_by(2)
        .map(|i| {
            token
                .get(i..i + 2)
                .and_then(|h| u8::from_str_radix(h, 16).ok())
        })
        .collect();
    let value: Value = serde_json::from_slice(&bytes.ok_or_else(bad)?).map_err(|_| bad())?;
    match (value[0].as_str(), value[1].as_str()) {
        (Some(namespace), Some(name)) => Ok(Key::new(namespace, name)),
        _ => Err(bad()),
    }
}
