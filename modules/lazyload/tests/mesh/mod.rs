//! A mesh from YAML, and what comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use trimtab_crds::fence::{FenceStatus, Mode};
use trimtab_lazyload::config::LazyloadConfig;
use trimtab_lazyload::mesh::{Fence, Index, ResolvedFence, Sidecar};
use trimtab_lazyload::object::{Evidence, FenceKey};
use trimtab_lazyload::scope::{
    Learned, Role, Scope, ScopeInput, Settings, Union, compute, merge, role,
};
use trimtab_lazyload::translate::{Hosts, Owner, inherit, sidecar};
use trimtab_mesh::model::{
    DestinationRule, EndpointSlice, GrpcRoute, HttpRoute, MeshConfig, Namespace, Pod, Service,
    ServiceEntry, VirtualService,
};
use trimtab_mesh::table::{Row, name_of};

/// First document of a case.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Setup {
    kind: String,
    /// The time.
    pub now: Timestamp,
    /// Configuration.
    pub config: LazyloadConfig,
    /// Hosts of the fallback.
    pub fallback: Vec<String>,
    /// Since when dependencies of a fence are fading.
    pub fading: BTreeMap<String, BTreeMap<String, Timestamp>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            kind: "Config".to_owned(),
            now: Timestamp::from_second(1_700_000_000).expect("a time"),
            config: LazyloadConfig::default(),
            fallback: Vec::new(),
            fading: BTreeMap::new(),
        }
    }
}

/// Objects and configuration.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    pub setup: Setup,
    pub objects: Vec<Value>,
}

/// What comes of one fence.
pub struct Part {
    pub fence: ResolvedFence,
    pub scope: Scope,
}

/// An index that follows a mesh.
pub struct Followed {
    mesh: Arc<trimtab_mesh::Mesh>,
    index: Arc<Index>,
}

impl std::ops::Deref for Followed {
    type Target = Index;

    fn deref(&self) -> &Index {
        &self.index
    }
}

fn feed<R: Row<Object: DeserializeOwned>>(index: &Followed, object: &Value) {
    let object = serde_json::from_value(object.clone()).unwrap_or_else(|e| panic!("{object}: {e}"));
    index.mesh.put::<R>(object);
}

fn replace<R: Row<Object: DeserializeOwned>>(index: &Followed, kind: &str, objects: &[Value]) {
    let mine = objects.iter().filter(|o| o["kind"] == kind);
    let mine = mine.map(|o| Arc::new(serde_json::from_value(o.clone()).expect(kind)));
    index.mesh.table::<R>().replace(&mine.collect::<Vec<_>>());
}

fn gone<R: Row<Object: DeserializeOwned>>(index: &Followed, object: &Value) {
    let object: R::Object = serde_json::from_value(object.clone()).expect("an object");
    index.mesh.table::<R>().remove(&name_of(&object));
}

/// An event with a new or changed object.
pub fn apply(index: &Followed, object: &Value) {
    match object["kind"].as_str() {
        Some("Pod") => feed::<Pod>(index, object),
        Some("Service") => feed::<Service>(index, object),
        Some("EndpointSlice") => feed::<EndpointSlice>(index, object),
        Some("ServiceEntry") => feed::<ServiceEntry>(index, object),
        Some("VirtualService") => feed::<VirtualService>(index, object),
        Some("HTTPRoute") => feed::<HttpRoute>(index, object),
        Some("GRPCRoute") => feed::<GrpcRoute>(index, object),
        Some("DestinationRule") => feed::<DestinationRule>(index, object),
        Some("Sidecar") => feed::<Sidecar>(index, object),
        Some("ServiceFence") => feed::<Fence>(index, object),
        Some("Namespace") => feed::<Namespace>(index, object),
        Some("ConfigMap") => feed::<MeshConfig>(index, object),
        other => panic!("unknown kind {other:?}"),
    }
}

/// An event with an object that is gone.
#[allow(dead_code, reason = "not every test deletes")]
pub fn delete(index: &Followed, object: &Value) {
    match object["kind"].as_str() {
        Some("Pod") => gone::<Pod>(index, object),
        Some("Service") => gone::<Service>(index, object),
        Some("EndpointSlice") => gone::<EndpointSlice>(index, object),
        Some("ServiceEntry") => gone::<ServiceEntry>(index, object),
        Some("VirtualService") => gone::<VirtualService>(index, object),
        Some("HTTPRoute") => gone::<HttpRoute>(index, object),
        Some("GRPCRoute") => gone::<GrpcRoute>(index, object),
        Some("DestinationRule") => gone::<DestinationRule>(index, object),
        Some("Sidecar") => gone::<Sidecar>(index, object),
        Some("ServiceFence") => gone::<Fence>(index, object),
        Some("Namespace") => gone::<Namespace>(index, object),
        Some("ConfigMap") => gone::<MeshConfig>(index, object),
        other => panic!("unknown kind {other:?}"),
    }
}

/// A list of every kind.
#[allow(dead_code, reason = "not every test relists")]
pub fn relist(index: &Followed, objects: &[Value]) {
    replace::<Namespace>(index, "Namespace", objects);
    replace::<MeshConfig>(index, "ConfigMap", objects);
    replace::<Pod>(index, "Pod", objects);
    replace::<Service>(index, "Service", objects);
    replace::<EndpointSlice>(index, "EndpointSlice", objects);
    replace::<ServiceEntry>(index, "ServiceEntry", objects);
    replace::<VirtualService>(index, "VirtualService", objects);
    replace::<HttpRoute>(index, "HTTPRoute", objects);
    replace::<GrpcRoute>(index, "GRPCRoute", objects);
    replace::<DestinationRule>(index, "DestinationRule", objects);
    replace::<Sidecar>(index, "Sidecar", objects);
    replace::<Fence>(index, "ServiceFence", objects);
}

fn evidence(name: &str) -> Evidence {
    match name {
        "AccessLog" => Evidence::AccessLog,
        "Prometheus" => Evidence::Prometheus,
        "Policy" => Evidence::Policy,
        "Template" => Evidence::Template,
        _ => Evidence::Restored,
    }
}

fn learned(status: &FenceStatus) -> Vec<Learned> {
    let edges = status.dependencies.iter().map(|d| Learned {
        host: d.host.as_str().into(),
        state: d.state,
        evidence: d.evidence.iter().map(|e| evidence(e)).collect(),
        last_seen: d.last_seen.parse().ok(),
    });
    edges.collect()
}

impl Mesh {
    /// Documents; a first one of kind Config is the setup.
    #[allow(dead_code, reason = "not every test reads files")]
    pub fn parse(text: &str) -> Result<Self, String> {
        let values: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|e| e.to_string())?;
        let mut mesh = Self::default();
        for value in values {
            if value["kind"] == "Config" {
                mesh.setup = serde_json::from_value(value).map_err(|e| e.to_string())?;
            } else {
                mesh.objects.push(value);
            }
        }
        mesh.setup.config.check()?;
        Ok(mesh)
    }

    /// All objects as new ones.
    pub fn index(&self) -> Followed {
        let mesh = trimtab_mesh::Mesh::new(&self.setup.config.domain);
        let index = Index::new(&self.setup.config, &mesh);
        index.attach(&mesh);
        let index = Followed { mesh, index };
        for object in &self.objects {
            apply(&index, object);
        }
        index
    }

    /// Scope of a fence; later events find it.
    pub fn part(&self, index: &Index, key: &FenceKey) -> Option<Part> {
        self.with(index, key, |input| index.scope(input))
    }

    /// Scope of a fence as it would be now.
    #[allow(dead_code, reason = "not every test compares")]
    pub fn peek(&self, index: &Index, key: &FenceKey) -> Option<Part> {
        self.with(index, key, |input| compute(input, &*index.services()))
    }

    fn with(
        &self,
        index: &Index,
        key: &FenceKey,
        scope: impl FnOnce(&ScopeInput<'_>) -> Scope,
    ) -> Option<Part> {
        let fence = index.resolve(key)?;
        let settings = Settings::new(&self.setup.config, self.setup.fallback.clone());
        let none = BTreeMap::new();
        let scope = scope(&ScopeInput {
            fence: key,
            spec: &fence.spec,
            created: fence.created,
            learned: &learned(&fence.status),
            before: &fence.status.domains,
            fading: self.setup.fading.get(&key.to_string()).unwrap_or(&none),
            now: self.setup.now,
            settings: &settings,
            required: &[],
        });
        Some(Part { fence, scope })
    }

    /// All fences.
    pub fn parts(&self, index: &Index) -> BTreeMap<FenceKey, Part> {
        let keys = index.fences().into_iter();
        keys.map(|key| (key.clone(), self.part(index, &key).expect("a fence")))
            .collect()
    }

    pub fn render(&self) -> String {
        self.render_from(&self.index())
    }

    pub fn render_from(&self, index: &Index) -> String {
        let parts = self.parts(index);
        let shown: BTreeMap<String, Value> = parts
            .iter()
            .map(|(key, part)| (key.to_string(), show(part, &parts, &self.setup)))
            .collect();
        serde_saphyr::to_string(&json!(shown)).expect("YAML")
    }
}

/// What is written for a fence: `None` when another one writes it, or nobody.
pub fn written(part: &Part, parts: &BTreeMap<FenceKey, Part>) -> (Option<Role>, Option<Union>) {
    let fence = &part.fence;
    let Some(claim) = fence.claim().filter(|c| c.writes) else {
        return (None, None);
    };
    let role = role(&claim, &fence.overlaps);
    let union = match &role {
        Role::Writes { with, .. } => {
            let others = with.iter().map(|key| &parts[key].scope);
            Some(merge(std::iter::once(&part.scope).chain(others)))
        }
        Role::MergedInto(_) => None,
    };
    (Some(role), union)
}

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|i| i.to_string()).collect()
}

/// Whether the Sidecar has everything: one of its fences says so.
fn is_wide(own: Mode, role: Option<&Role>, parts: &BTreeMap<FenceKey, Part>) -> bool {
    let Some(Role::Writes { with, .. }) = role else {
        return false;
    };
    let others = with.iter().map(|key| parts[key].fence.mode);
    let mut modes = std::iter::once(own).chain(others);
    modes.any(|mode| matches!(mode, Mode::Exclude | Mode::Auto))
}

fn show(part: &Part, parts: &BTreeMap<FenceKey, Part>, setup: &Setup) -> Value {
    let (fence, scope) = (&part.fence, &part.scope);
    let (role, union) = written(part, parts);
    // Nothing was watched here, so that nothing is excluded.
    let nothing = BTreeSet::new();
    let wide = is_wide(fence.mode, role.as_ref(), parts);
    let object = union.as_ref().map(|union| {
        let hosts: BTreeSet<String> = union.entries.keys().cloned().collect();
        let hosts = if wide {
            Hosts::AllBut(&nothing)
        } else {
            Hosts::Only(&hosts)
        };
        let selector = fence.selector.clone().expect("a selector");
        let sidecar = sidecar(&Owner::of(fence), &selector, hosts, &setup.config.revision);
        inherit(sidecar, fence.inherits.as_deref())
    });
    let entries: BTreeMap<&String, Vec<String>> =
        scope.entries.iter().map(|(e, r)| (e, texts(r))).collect();
    let mut out = json!({
        "mode": fence.mode.as_str(),
        "callers": texts(&fence.callers),
        "entries": entries,
        "imports": scope.imports.services.keys().chain(scope.imports.routes.keys()).collect::<Vec<_>>(),
        "domains": scope.domains,
        "unresolved": scope.unresolved,
        "warnings": texts(&scope.warnings),
        "problems": texts(&fence.problems),
        "size": union.as_ref().map_or(&scope.size, |u| &u.size),
        "userSidecars": fence.user_sidecars,
        "sidecar": object,
    });
    match role {
        Some(Role::MergedInto(key)) => out["mergedInto"] = json!(key.to_string()),
        Some(Role::Writes { with, partly }) if !with.is_empty() => {
            out["with"] = json!(texts(with));
            out["partly"] = json!(texts(partly));
        }
        _ => {}
    }
    if let Some(next) = scope.next {
        out["next"] = json!(next);
    }
    if !scope.fading.is_empty() {
        out["fading"] = json!(scope.fading);
    }
    if let Some(name) = &fence.default_sidecar {
        out["defaultSidecar"] = json!(name);
    }
    if let Some(inherited) = &fence.inherits {
        out["inherits"] = json!({"from": inherited.from, "fields": inherited.fields()});
    }
    if fence.standing.outside() > 0 {
        out["outside"] = json!(fence.standing.text());
    }
    without_empty(out)
}

fn without_empty(mut out: Value) -> Value {
    let empty = |v: &Value| {
        v.is_null()
            || v.as_array().is_some_and(Vec::is_empty)
            || v.as_object().is_some_and(serde_json::Map::is_empty)
    };
    if let Some(fields) = out.as_object_mut() {
        fields.retain(|_, v| !empty(v));
    }
    out
}
