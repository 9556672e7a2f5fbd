//! Objects to a mesh, and the golden cases.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use trimtab_dataplane::{
    FallbackInput, HttpLimit, Listen, Served, Snapshot, StandaloneInput, StandaloneObjects,
    discover, resources, snapshot,
};
use trimtab_kit::problem::Problem;
use trimtab_mesh::table::read;
use trimtab_metaprotocol::resolve::Mesh;

/// Objects with what belongs to them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Case {
    #[serde(default)]
    pub listen: Listen,
    pub objects: Vec<Value>,
    #[serde(default)]
    pub limits: Vec<HttpLimit>,
    #[serde(default)]
    pub pod_labels: Vec<Pod>,
    #[serde(default)]
    pub fallback: Option<FallbackInput>,
}

/// Labels of a pod, and where it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pod {
    pub namespace: String,
    pub name: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub address: Option<IpAddr>,
}

fn of<T: DeserializeOwned>(object: &Value) -> Arc<T> {
    let object = serde_json::from_value(object.clone()).unwrap_or_else(|e| panic!("{object}: {e}"));
    Arc::new(object)
}

impl Case {
    /// What is found in the objects.
    pub(crate) fn input(&self) -> (StandaloneInput, Vec<Problem>) {
        let mut mesh = Mesh::default();
        let mut around = StandaloneObjects {
            listen: self.listen.clone(),
            limits: self.limits.clone(),
            fallback: self.fallback.clone(),
            ..StandaloneObjects::default()
        };
        for pod in &self.pod_labels {
            let key = (pod.namespace.clone(), pod.name.clone());
            around.pod_labels.insert(key.clone(), pod.labels.clone());
            around
                .pod_addresses
                .extend(pod.address.map(|address| (key, address)));
        }
        for object in &self.objects {
            match object["kind"].as_str().expect("a kind") {
                "Service" => mesh.services.extend(read("cluster.local", [of(object)])),
                "EndpointSlice" => mesh
                    .endpoint_slices
                    .extend(read("cluster.local", [of(object)])),
                "ServiceEntry" => mesh
                    .service_entries
                    .extend(read("cluster.local", [of(object)])),
                "DestinationRule" => mesh
                    .destination_rules
                    .extend(read("cluster.local", [of(object)])),
                "VirtualService" => around.virtual_services.push(of(object)),
                "Sidecar" => around.sidecars.push(of(object)),
                "MetaRouter" => mesh.routers.push(of(object)),
                "RedisService" => mesh.redis_services.push(of(object)),
                "RedisDestination" => mesh.redis_destinations.push(of(object)),
                other => panic!("{other}"),
            }
        }
        let found = discover(&mesh, &around);
        (found.input, found.problems)
    }

    /// What every proxy is served.
    pub(crate) fn snapshot(&self, before: Option<&Snapshot>) -> Snapshot {
        snapshot(&self.input().0, before, Instant::now())
    }

    /// What is served to proxies that see all.
    pub(crate) fn served(&self, before: Option<&Served>) -> Served {
        resources(&self.input().0, before)
    }
}

/// The folder of all cases.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/standalone")
}

/// All cases by name.
pub(crate) fn all() -> BTreeMap<String, Case> {
    let folder = std::fs::read_dir(root()).expect("the folder of golden cases");
    let names = folder.map(|entry| {
        entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    names.map(|name| (name.clone(), load(&name))).collect()
}

fn load(name: &str) -> Case {
    let path = root().join(name).join("in.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
