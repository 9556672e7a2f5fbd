//! Objects to a mesh, and the golden cases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use trimtab_metaprotocol::error::Problem;
use trimtab_metaprotocol::resolve::Mesh;
use trimtab_metaprotocol::standalone::{
    HttpLimit, Listen, Served, StandaloneInput, Surroundings, discover, resources,
};

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
}

/// Labels of a pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pod {
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
}

fn of<T: DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object.clone()).unwrap_or_else(|e| panic!("{object}: {e}"))
}

impl Case {
    /// What is found in the objects.
    pub(crate) fn input(&self) -> (StandaloneInput, Vec<Problem>) {
        let mut mesh = Mesh::default();
        let mut around = Surroundings {
            listen: self.listen.clone(),
            limits: self.limits.clone(),
            ..Surroundings::default()
        };
        for pod in &self.pod_labels {
            let key = (pod.namespace.clone(), pod.name.clone());
            around.pod_labels.insert(key, pod.labels.clone());
        }
        for object in &self.objects {
            match object["kind"].as_str().expect("a kind") {
                "Service" => mesh.services.push(of(object)),
                "EndpointSlice" => mesh.endpoint_slices.push(of(object)),
                "ServiceEntry" => mesh.service_entries.push(of(object)),
                "DestinationRule" => mesh.destination_rules.push(of(object)),
                "VirtualService" => around.virtual_services.push(of(object)),
                "MetaRouter" => mesh.routers.push(of(object)),
                "RedisService" => mesh.redis_services.push(of(object)),
                "RedisDestination" => mesh.redis_destinations.push(of(object)),
                other => panic!("{other}"),
            }
        }
        let found = discover(&mesh, &around);
        (found.input, found.problems)
    }

    /// What is served.
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
