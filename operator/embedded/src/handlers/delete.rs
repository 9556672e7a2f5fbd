//! delete and deletecollection.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::error::ApiError;
use crate::meta;
use crate::reply::{Renderer, Reply};
use crate::request::{Query, Target};
use crate::server::Server;
use crate::store::{Key, Stored};

/// What a delete request asks for.
struct Deletion {
    orphan: bool,
    dry_run: bool,
    uid: Option<String>,
    resource_version: Option<String>,
}

impl Deletion {
    fn parse(query: &Query, body: &Value) -> Self {
        let text = |path: &str| {
            body.pointer(path)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let policy =
            text("/propagationPolicy").unwrap_or_else(|| query.get("propagationPolicy").to_owned());
        let dry_run = query.get("dryRun") == "All" || body["dryRun"][0] == "All";
        Self {
            orphan: policy == "Orphan" || body["orphanDependents"] == true,
            dry_run,
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
        }
    }

    fn check(&self, target: &Target, object: &Value) -> Result<(), ApiError> {
        for (want, field) in [
            (&self.uid, "uid"),
            (&self.resource_version, "resourceVersion"),
        ] {
            let have = meta::text(object, field).unwrap_or_default();
            if let Some(want) = want
                && want != have
            {
                return Err(ApiError::Conflict {
                    subject: target.resource.subject(meta::name(object)),
                    message: format!(
                        "Precondition failed: {field} in precondition: {want}, in object meta: {have}"
                    ),
                });
            }
        }
        Ok(())
    }
}

impl Server {
    pub(crate) fn delete(
        &self,
        renderer: &Renderer,
        query: &Query,
        body: &Value,
    ) -> Result<Reply, ApiError> {
        let target = &*renderer.target;
        let name = target.named()?;
        let deletion = Deletion::parse(query, body);
        let (stored, gone) = self.delete_one(target, &target.key(name), &deletion)?;
        if !gone {
            return Ok(Reply::new(200, renderer.object(&stored)));
        }
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {
                "name": name, "group": target.resource.group(), "kind": &*target.resource.id.plural,
                "uid": meta::uid(&stored.value),
            },
        });
        Ok(Reply::json(200, &status))
    }

    pub(crate) fn delete_collection(
        &self,
        renderer: &Renderer,
        query: &Query,
        body: &Value,
    ) -> Result<Reply, ApiError> {
        let deletion = Deletion::parse(query, body);
        let selector = query.selector()?;
        let page = self.select(renderer, &selector, None, None);
        let mut deleted = Vec::new();
        for stored in &page.items {
            let key = Key::new(meta::namespace(&stored.value), meta::name(&stored.value));
            match self.delete_one(&renderer.target, &key, &deletion) {
                Ok((stored, _)) => deleted.push(stored),
                Err(ApiError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let metadata = json!({ "resourceVersion": self.store.read().revision().to_string() });
        Ok(Reply::new(200, renderer.list(&deleted, &metadata)))
    }

    fn delete_one(
        &self,
        target: &Target,
        key: &Key,
        deletion: &Deletion,
    ) -> Result<(Arc<Stored>, bool), ApiError> {
        loop {
            let seen = self
                .store
                .read()
                .get(&target.resource.id, key)
                .ok_or_else(|| ApiError::NotFound(target.resource.subject(&key.name)))?;
            deletion.check(target, &seen.value)?;
            if deletion.dry_run {
                return Ok((seen, true));
            }
            if let Some(done) = self.try_delete(target, key, &seen, deletion.orphan) {
                self.count_write(target, "delete");
                return Ok(done);
            }
        }
    }

    /// One attempt; `None` if somebody else wrote in between.
    pub(crate) fn try_delete(
        &self,
        target: &Target,
        key: &Key,
        seen: &Arc<Stored>,
        orphan: bool,
    ) -> Option<(Arc<Stored>, bool)> {
        let id = &target.resource.id;
        if orphan && let Some(uid) = meta::uid(&seen.value) {
            self.orphan_dependents(uid);
        }
        if self.may_vanish_now(target, &seen.value) {
            let last = self
                .store
                .write()
                .remove(id, key, seen, seen.value.clone())
                .ok()?;
            self.after_removal(&target.resource, &last.value);
            return Some((last, true));
        }
        if meta::is_terminating(&seen.value) {
            return Some((Arc::clone(seen), false));
        }
        let mut value = seen.value.clone();
        meta::set(
            &mut value,
            "deletionTimestamp",
            json!(rfc3339(self.clock.now())),
        );
        meta::set(&mut value, "deletionGracePeriodSeconds", json!(0));
        if target.resource.kind == "Namespace" {
            meta::child(&mut value, "status").insert("phase".to_owned(), json!("Terminating"));
        }
        let stored = self.store.write().put(id, key, Some(seen), value).ok()?;
        let gone = self.finish_if_container(target, key);
        Some((stored, gone))
    }
}
