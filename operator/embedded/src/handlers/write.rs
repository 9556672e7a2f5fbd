//! create, update, patch and server-side apply.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::admit::{FieldValidation, Options, check_name};
use crate::apply;
use crate::clock::rfc3339;
use crate::error::{ApiError, Cause};
use crate::meta;
use crate::reply::{Renderer, Reply};
use crate::request::Target;
use crate::server::Server;
use crate::store::{Key, LARGEST, Raced, Stored, size};

/// How often a write that others overtake is tried again.
const ATTEMPTS: usize = 64;

/// The end of a write.
pub(crate) struct Written {
    pub(crate) stored: Arc<Stored>,
    pub(crate) created: bool,
    pub(crate) changed: bool,
    warnings: Vec<String>,
}

impl Server {
    pub(crate) fn create(
        &self,
        renderer: &Renderer,
        mut body: Value,
        options: &Options,
    ) -> Result<Reply, ApiError> {
        let target = &*renderer.target;
        target.identify(&mut body)?;
        report_unknown_of_config(target, &body, options)?;
        let generated = meta::name(&body).is_empty();
        let mut tries = 0;
        loop {
            let name = self.name_for(target, &mut body)?;
            let result = self.persist(target, &name, options, |old, warnings| match old {
                Some(_) => Err(ApiError::AlreadyExists(target.resource.subject(&name))),
                None => self.prepare_create(target, body.clone(), options, warnings),
            });
            match result {
                Err(ApiError::AlreadyExists(_)) if generated && tries < 8 => {
                    tries += 1;
                    meta::of(&mut body).remove("name");
                }
                other => return other.map(|written| self.answer(renderer, "create", &written)),
            }
        }
    }

    fn name_for(&self, target: &Target, body: &mut Value) -> Result<String, ApiError> {
        if meta::name(body).is_empty() {
            let Some(prefix) = meta::text(body, "generateName") else {
                target.refuse(
                    "",
                    vec![Cause::new(
                        "FieldValueRequired",
                        "metadata.name",
                        "Required value: name or generateName is required",
                    )],
                )?;
                return Ok(String::new());
            };
            let name = format!("{prefix}{}", self.suffix());
            meta::set(body, "name", json!(name));
        }
        let name = meta::name(body).to_owned();
        check_name(target, &name)?;
        Ok(name)
    }

    fn prepare_create(
        &self,
        target: &Target,
        body: Value,
        options: &Options,
        warnings: &mut Vec<String>,
    ) -> Result<Value, ApiError> {
        if target.status {
            return Err(ApiError::NotFound(
                target.resource.subject(meta::name(&body)),
            ));
        }
        self.check_namespace(target, meta::name(&body))?;
        let mut new = body;
        if target.scope() == apply::Scope::WithoutStatus {
            meta::as_map(&mut new).remove("status");
        }
        if !meta::of(&mut new)
            .get("resourceVersion")
            .is_none_or(|v| v == "")
        {
            return Err(ApiError::BadRequest(
                "resourceVersion should not be set on objects to be created".to_owned(),
            ));
        }
        for field in [
            "resourceVersion",
            "generation",
            "deletionTimestamp",
            "selfLink",
            "managedFields",
        ] {
            meta::of(&mut new).remove(field);
        }
        self.stamp(&mut new);
        target.admit(&mut new, None, options.validation, warnings)?;
        let manager = target.manager("Update", &options.manager);
        apply::track(
            None,
            &mut new,
            target.shape(),
            target.scope(),
            &manager,
            &self.now_text(),
        );
        Ok(new)
    }

    /// Gives a new object its identity.
    fn stamp(&self, new: &mut Value) {
        meta::set(new, "uid", json!(self.new_uid()));
        meta::set(new, "creationTimestamp", json!(self.now_text()));
    }

    fn now_text(&self) -> String {
        rfc3339(self.clock.now())
    }

    fn check_namespace(&self, target: &Target, name: &str) -> Result<(), ApiError> {
        let Some(namespace) = target
            .namespace
            .as_deref()
            .filter(|_| target.resource.namespaced)
        else {
            if target.resource.namespaced {
                return Err(ApiError::BadRequest(format!(
                    "{} {name:?}: a namespace is required; send the request to /namespaces/NAMESPACE/{}",
                    target.resource.kind, target.resource.id.plural
                )));
            }
            return Ok(());
        };
        match self.namespace(namespace) {
            None => Err(ApiError::NotFound(crate::error::Subject {
                resource: "namespaces".to_owned(),
                name: namespace.to_owned(),
                ..Default::default()
            })),
            Some(ns) if meta::is_terminating(&ns.value) => Err(ApiError::Forbidden {
                subject: target.resource.subject(name),
                message: format!(
                    "unable to create new content in namespace {namespace} because it is being terminated"
                ),
            }),
            Some(_) => Ok(()),
        }
    }

    pub(crate) fn update(
        &self,
        renderer: &Renderer,
        mut body: Value,
        options: &Options,
    ) -> Result<Reply, ApiError> {
        let target = &*renderer.target;
        let name = target.named()?.to_owned();
        target.identify(&mut body)?;
        report_unknown_of_config(target, &body, options)?;
        let written = self.persist(target, &name, options, |old, warnings| {
            let old = old.ok_or_else(|| ApiError::NotFound(target.resource.subject(&name)))?;
            self.prepare_update(target, old, body.clone(), options, warnings)
        })?;
        Ok(self.answer(renderer, "update", &written))
    }

    fn prepare_update(
        &self,
        target: &Target,
        old: &Value,
        new: Value,
        options: &Options,
        warnings: &mut Vec<String>,
    ) -> Result<Value, ApiError> {
        check_preconditions(target, old, &new)?;
        let mut new = target.carry_over(old, new);
        target.admit(&mut new, Some(old), options.validation, warnings)?;
        let manager = target.manager("Update", &options.manager);
        apply::track(
            Some(old),
            &mut new,
            target.shape(),
            target.scope(),
            &manager,
            &self.now_text(),
        );
        Ok(new)
    }

    pub(crate) fn patch(
        &self,
        renderer: &Renderer,
        content_type: &str,
        body: &[u8],
        options: &Options,
    ) -> Result<Reply, ApiError> {
        let target = &*renderer.target;
        let name = target.named()?.to_owned();
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        if kind.starts_with("application/apply-patch") {
            let config = crate::request::body("application/yaml", body)?;
            return self.apply(renderer, &name, config, options);
        }
        let patch = crate::request::body(kind, body)?;
        let written = self.persist(target, &name, options, |old, warnings| {
            let old = old.ok_or_else(|| ApiError::NotFound(target.resource.subject(&name)))?;
            let mut new = renderer.converted(old);
            apply_patch(target, kind, &patch, &mut new)?;
            target.identify(&mut new)?;
            self.prepare_update(target, old, new, options, warnings)
        })?;
        Ok(self.answer(renderer, "patch", &written))
    }

    fn apply(
        &self,
        renderer: &Renderer,
        name: &str,
        mut config: Value,
        options: &Options,
    ) -> Result<Reply, ApiError> {
        let target = &*renderer.target;
        target.identify(&mut config)?;
        check_name(target, name)?;
        if config
            .pointer("/metadata/managedFields")
            .is_some_and(|v| !v.is_null())
        {
            return Err(ApiError::BadRequest(
                "metadata.managedFields must be nil".to_owned(),
            ));
        }
        report_unknown_of_config(target, &config, options)?;
        let manager = target.manager("Apply", &options.manager);
        let written = self.persist(target, name, options, |old, warnings| {
            if old.is_none() {
                if target.status || config.pointer("/metadata/uid").is_some() {
                    return Err(ApiError::NotFound(target.resource.subject(name)));
                }
                self.check_namespace(target, name)?;
            }
            if let Some(old) = old {
                check_preconditions(target, old, &config)?;
            }
            let mut live = old.map(|o| renderer.converted(o));
            if let Some(live) = &mut live {
                meta::of(live).remove("resourceVersion");
            }
            let now = self.now_text();
            let merged = apply::server_side(
                live.as_ref(),
                &without_version(&config),
                target.shape(),
                target.scope(),
                &manager,
                options.force,
                &now,
            )
            .map_err(|causes| ApiError::ApplyConflict {
                subject: target.resource.subject(name),
                causes,
            })?;
            let mut new = match old {
                Some(old) => target.carry_over(old, merged),
                None => merged,
            };
            if old.is_none() {
                self.stamp(&mut new);
            }
            target.admit(&mut new, old, options.validation, warnings)?;
            Ok(new)
        })?;
        Ok(self.answer(renderer, "apply", &written))
    }

    /// Creates or replaces an object with its status, without field ownership.
    pub(crate) fn load(
        &self,
        target: &Target,
        mut object: Value,
        options: &Options,
    ) -> Result<Value, ApiError> {
        target.identify(&mut object)?;
        let name = target.named()?.to_owned();
        check_name(target, &name)?;
        let written = self.persist(target, &name, options, |old, warnings| {
            let mut new = object.clone();
            let status = new.get("status").cloned();
            if let Some(old) = old {
                new = target.carry_over(old, new);
                meta::copy(&mut new, old, "managedFields");
                if status.is_some() {
                    meta::put_field(&mut new, "status", status.as_ref());
                }
            } else {
                self.check_namespace(target, &name)?;
                for field in ["resourceVersion", "managedFields"] {
                    meta::of(&mut new).remove(field);
                }
                // A file may say how old an object is, and of two for one thing the older often counts.
                let created = meta::text(&new, "creationTimestamp").map(str::to_owned);
                let created = created.filter(|text| text.parse::<Timestamp>().is_ok());
                self.stamp(&mut new);
                if let Some(created) = created {
                    meta::set(&mut new, "creationTimestamp", json!(created));
                }
            }
            target.admit(&mut new, old, options.validation, warnings)?;
            Ok(new)
        })?;
        Ok(written.stored.value.clone())
    }

    /// Reads, builds, and writes unless somebody was faster; then again.
    pub(crate) fn persist(
        &self,
        target: &Target,
        name: &str,
        options: &Options,
        build: impl Fn(Option<&Value>, &mut Vec<String>) -> Result<Value, ApiError>,
    ) -> Result<Written, ApiError> {
        let key = target.key(name);
        for _ in 0..ATTEMPTS {
            let seen = self.store.read().get(&target.resource.id, &key);
            let mut warnings = Vec::new();
            let mut new = build(seen.as_ref().map(|s| &s.value), &mut warnings)?;
            self.before_write(target, &mut new, seen.as_ref().map(|s| &s.value))?;
            if let Some(seen) = &seen
                && seen.value == new
            {
                return Ok(Written {
                    stored: Arc::clone(seen),
                    created: false,
                    changed: false,
                    warnings,
                });
            }
            if !options.dry_run && size(&new) > LARGEST {
                return Err(ApiError::TooLarge("etcdserver: request is too large"));
            }
            let created = seen.is_none();
            let stored = if options.dry_run {
                Ok(Arc::new(Stored::draft(new)))
            } else {
                self.commit(target, &key, seen.as_ref(), new)
            };
            if let Ok(stored) = stored {
                return Ok(Written {
                    stored,
                    created,
                    changed: !options.dry_run,
                    warnings,
                });
            }
        }
        Err(ApiError::Conflict {
            subject: target.resource.subject(name),
            message: "the object changes too often; try again".to_owned(),
        })
    }

    fn commit(
        &self,
        target: &Target,
        key: &Key,
        seen: Option<&Arc<Stored>>,
        new: Value,
    ) -> Result<Arc<Stored>, Raced> {
        let id = &target.resource.id;
        let finished = seen.is_some() && self.may_vanish(target, &new);
        let stored = {
            let mut store = self.store.write();
            match (finished, seen) {
                (true, Some(seen)) => store.remove(id, key, seen, new)?,
                _ => store.put(id, key, seen, new)?,
            }
        };
        if finished {
            self.after_removal(&target.resource, &stored.value);
        } else {
            self.after_write(target, &stored.value, seen.is_none());
        }
        Ok(stored)
    }

    fn answer(&self, renderer: &Renderer, verb: &str, written: &Written) -> Reply {
        if written.changed {
            self.count_write(&renderer.target, verb);
        }
        let code = if written.created { 201 } else { 200 };
        let mut reply = Reply::new(code, renderer.object(&written.stored));
        reply.warnings.clone_from(&written.warnings);
        reply
    }
}

fn without_version(config: &Value) -> Value {
    let mut config = config.clone();
    meta::of(&mut config).remove("resourceVersion");
    config
}

/// What the client sent is reported, not what is left of it after merging, or after its status was put aside.
fn report_unknown_of_config(
    target: &Target,
    config: &Value,
    options: &Options,
) -> Result<(), ApiError> {
    if options.validation != FieldValidation::Strict {
        return Ok(());
    }
    let Some(schema) = &target.served()?.schema else {
        return Ok(());
    };
    let unknown = crate::schema::prune(schema, &mut config.clone());
    let name = meta::name(config);
    target.report_unknown(name, &unknown, options.validation, &mut Vec::new())
}

/// A `resourceVersion` or a `uid` in the body is a precondition.
fn check_preconditions(target: &Target, old: &Value, new: &Value) -> Result<(), ApiError> {
    let conflict = |message: String| {
        Err(ApiError::Conflict {
            subject: target.resource.subject(meta::name(old)),
            message,
        })
    };
    if let Some(uid) = meta::uid(new)
        && Some(uid) != meta::uid(old)
    {
        return conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::uid(old).unwrap_or_default()
        ));
    }
    if let Some(version) = meta::text(new, "resourceVersion")
        && Some(version) != meta::text(old, "resourceVersion")
    {
        return conflict(
            "the object has been modified; please apply your changes to the latest version and try again".to_owned(),
        );
    }
    Ok(())
}

fn apply_patch(
    target: &Target,
    kind: &str,
    patch: &Value,
    new: &mut Value,
) -> Result<(), ApiError> {
    match kind {
        "application/json-patch+json" => {
            let patch: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|e| ApiError::BadRequest(format!("the body is not a JSON patch: {e}")))?;
            json_patch::patch(new, &patch).map_err(|e| {
                ApiError::Invalid {
                    subject: target.resource.subject(meta::name(new)),
                    causes: vec![Cause::new("FieldValueInvalid", "patch", e.to_string())],
                }
            })
        }
        "application/merge-patch+json" => {
            json_patch::merge(new, patch);
            Ok(())
        }
        "application/strategic-merge-patch+json" if target.resource.builtin => {
            apply::strategic_merge(new, patch, target.shape());
            Ok(())
        }
        "application/strategic-merge-patch+json" => Err(ApiError::UnsupportedMediaType(
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml".to_owned(),
        )),
        _ => Err(ApiError::UnsupportedMediaType(
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
                .to_owned(),
        )),
    }
}
