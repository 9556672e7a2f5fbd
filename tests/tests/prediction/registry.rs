//! The prediction's side: the same objects as it reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::MappedRwLockReadGuard;
use serde_json::{Value, json};
use trimtab_crds::fence::{ServiceFenceSpec, Strategy};
use trimtab_crds::istio::SidecarSpec;
use trimtab_lazyload::config::LazyloadConfig;
use trimtab_lazyload::mesh::{self, Fence, Index};
use trimtab_lazyload::object::FenceKey;
use trimtab_lazyload::predict::{Client, Egress, Given, Release, Undecided};
use trimtab_lazyload::predict::{otherwise, predict, undecided};
use trimtab_lazyload::scope::{Labels, ScopeInput, Settings, compute};
use trimtab_lazyload::translate::{Hosts, Owner, inherit, sidecar};
use trimtab_mesh::Mesh;
use trimtab_mesh::model::{
    DestinationRule, GrpcRoute, HttpRoute, Service, ServiceEntry, VirtualService,
};

use crate::ads::APP;
use crate::meshes::SmallMesh;

const DOMAIN: &str = "cluster.local";

/// The mesh as Trimtab has it.
pub struct Registry {
    index: Arc<Index>,
    mesh: Arc<Mesh>,
}

/// A proxy whose configuration is predicted: its namespace, and the entries of its Sidecar.
#[derive(Clone, Debug)]
pub struct Asked {
    pub namespace: String,
    pub entries: Option<Vec<String>>,
    pub release: Release,
}

/// The scope of a fence that names what a workload calls.
pub struct Scoped {
    pub entries: Vec<String>,
    /// The Sidecar that Trimtab writes.
    pub spec: SidecarSpec,
}

fn config() -> LazyloadConfig {
    LazyloadConfig {
        domain: DOMAIN.to_owned(),
        ..LazyloadConfig::default()
    }
}

impl Registry {
    pub fn new<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Self {
        let mesh = Mesh::new(DOMAIN);
        let index = Index::new(&config(), &mesh);
        index.attach(&mesh);
        let out = Self { index, mesh };
        objects.into_iter().for_each(|object| out.put(object));
        out
    }

    pub fn put(&self, object: &Value) {
        let (mesh, object) = (&self.mesh, object.clone());
        match object["kind"].as_str().unwrap() {
            "Service" => mesh.put::<Service>(serde_json::from_value(object).unwrap()),
            "ServiceEntry" => mesh.put::<ServiceEntry>(serde_json::from_value(object).unwrap()),
            "VirtualService" => mesh.put::<VirtualService>(serde_json::from_value(object).unwrap()),
            "DestinationRule" => {
                mesh.put::<DestinationRule>(serde_json::from_value(object).unwrap());
            }
            "HTTPRoute" => mesh.put::<HttpRoute>(serde_json::from_value(object).unwrap()),
            "GRPCRoute" => mesh.put::<GrpcRoute>(serde_json::from_value(object).unwrap()),
            "Sidecar" => mesh.put::<mesh::Sidecar>(serde_json::from_value(object).unwrap()),
            "ServiceFence" => mesh.put::<Fence>(serde_json::from_value(object).unwrap()),
            other => panic!("{other}"),
        }
    }

    pub fn services(&self) -> MappedRwLockReadGuard<'_, mesh::Registry> {
        self.index.services()
    }

    /// Entries of the Sidecar for a whole namespace that counts there. `None`: there is none; everything.
    pub fn default_entries(&self, namespace: &str) -> Option<Vec<String>> {
        let row = self.index.default_sidecar(namespace)?;
        let hosts = row.hosts.iter().cloned().collect::<Vec<_>>();
        (!hosts.is_empty()).then_some(hosts)
    }

    pub fn has_default(&self, namespace: &str) -> bool {
        self.index.default_sidecar(namespace).is_some()
    }

    /// Whether calls to what nobody knows go out, by the Sidecar for the whole of a namespace or the mesh's default.
    pub fn allows_any(&self, namespace: &str) -> bool {
        self.index.registry_only(namespace) != Some(true)
    }

    fn asked<T>(
        &self,
        asked: &Asked,
        ask: impl Fn(&Client<'_>, Option<&Egress>, &mesh::Registry) -> T,
    ) -> T {
        let labels = Labels::from([("app".to_owned(), APP.to_owned())]);
        let namespace = &*asked.namespace;
        let client = Client {
            namespace,
            labels: Some(&labels),
            domain: DOMAIN,
            root: "istio-system",
            release: asked.release,
        };
        let entries = asked.entries.iter().flatten().map(String::as_str);
        let egress = asked
            .entries
            .as_ref()
            .map(|_| Egress::new(entries, namespace));
        ask(&client, egress.as_ref(), &self.services())
    }

    pub fn predict(&self, asked: &Asked) -> Given {
        self.asked(asked, |client, egress, services| {
            predict(client, egress, services)
        })
    }

    /// What istiod may give besides, as far as one of the hosts is undecided: one thing decided otherwise in each.
    pub fn others(&self, asked: &Asked, matters: impl Fn(&str) -> bool) -> Vec<Given> {
        self.asked(asked, |client, egress, services| {
            let all = undecided(client, egress, services).into_iter();
            let all = all.filter(|(what, _)| matters(what.host()));
            let ways = all.flat_map(|(what, ways): (Undecided, usize)| {
                (1..ways).map(move |way| (what.clone(), way))
            });
            ways.map(|way| otherwise(client, egress, services, way))
                .collect()
        })
    }

    /// What Trimtab writes for a workload that calls what the mesh says.
    pub fn scope(&self, mesh: &SmallMesh, selector: &Labels) -> Scoped {
        let key = FenceKey {
            namespace: mesh.client.clone(),
            name: "fenced".to_owned(),
        };
        self.put(&json!({"kind": "ServiceFence", "apiVersion": "microservice.slime.io/v1alpha1",
            "metadata": {"namespace": key.namespace, "name": key.name, "uid": "u"}, "spec": {"enable": true}}));
        let host = mesh.calls.iter();
        let host = host.map(|host| (host.clone(), Strategy::default()));
        let spec = ServiceFenceSpec {
            host: host.collect(),
            ..ServiceFenceSpec::default()
        };
        let (none, before) = (BTreeMap::new(), BTreeMap::new());
        let settings = Settings::new(&config(), Vec::new());
        let input = ScopeInput {
            fence: &key,
            spec: &spec,
            created: None,
            learned: &[],
            before: &before,
            fading: &none,
            now: Timestamp::UNIX_EPOCH,
            settings: &settings,
            required: &[],
        };
        let entries: BTreeSet<String> = compute(&input, &*self.services())
            .entries
            .into_keys()
            .collect();
        let fence = self.index.resolve(&key).expect("the fence");
        let written = sidecar(&Owner::of(&fence), selector, Hosts::Only(&entries), "");
        Scoped {
            spec: inherit(written, fence.inherits.as_deref()).spec,
            entries: entries.into_iter().collect(),
        }
    }
}
