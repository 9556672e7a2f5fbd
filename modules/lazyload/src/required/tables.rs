//! The objects that make pods need something.

use std::collections::BTreeSet;
use std::sync::Arc;

use trimtab_mesh::Mesh;
use trimtab_mesh::model::{
    Clusters, CustomPolicy, ExtensionClusters, FilterClusters, KeyServers, Labels, MeshConfig,
    Namespace, Outside, PluginClusters, Pod, Telemetry,
};
use trimtab_mesh::table::{Row, Table};

use super::needs::{Needs, Pods, is_for};
use crate::scope::Reason;

#[derive(Debug)]
pub(super) struct Tables {
    pods: Arc<Table<Pod>>,
    namespaces: Arc<Table<Namespace>>,
    mesh_config: Arc<Table<MeshConfig>>,
    filters: Arc<Table<FilterClusters>>,
    plugins: Arc<Table<PluginClusters>>,
    extensions: Arc<Table<ExtensionClusters>>,
    pub(super) policies: Arc<Table<CustomPolicy>>,
    pub(super) telemetries: Arc<Table<Telemetry>>,
    keys: Arc<Table<KeyServers>>,
}

/// The pods of a fence, and where what is for them may stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) namespace: &'a str,
    pub(super) root: &'a str,
    pub(super) pods: &'a BTreeSet<Pods>,
}

impl Place<'_> {
    /// Rows of the namespace and of the root namespace.
    pub(super) fn rows<R: Row>(&self, table: &Table<R>) -> Vec<Arc<R>> {
        let rows = table.rows();
        let places = BTreeSet::from([self.namespace, self.root]);
        let near = places
            .into_iter()
            .flat_map(|place| rows.in_namespace(place));
        near.map(|(_, row)| row.clone()).collect()
    }
}

impl Tables {
    pub(super) fn new(mesh: &Mesh) -> Self {
        Self {
            pods: mesh.table(),
            namespaces: mesh.table(),
            mesh_config: mesh.table(),
            filters: mesh.table(),
            plugins: mesh.table(),
            extensions: mesh.table(),
            policies: mesh.table(),
            telemetries: mesh.table(),
            keys: mesh.table(),
        }
    }

    pub(super) fn mesh_config(&self) -> Option<Arc<MeshConfig>> {
        let rows = self.mesh_config.rows();
        rows.iter().next().map(|(_, mesh)| mesh.clone())
    }

    /// The ConfigMap of a MeshConfig that cannot be read.
    pub(super) fn unreadable(&self) -> Option<String> {
        let rows = self.mesh_config.rows();
        let mut bad = rows.iter().filter(|(_, mesh)| mesh.unreadable);
        bad.next()
            .map(|((namespace, name), _)| format!("{namespace}/{name}"))
    }

    /// Without pods: such as the labels of the selector would give.
    pub(super) fn pods_of(&self, namespace: &str, selector: &Labels) -> BTreeSet<Pods> {
        let ambient = self.namespaces.get("", namespace);
        let rows = self.pods.rows();
        let pods = rows.of_groups(rows.index().select(namespace, selector));
        let gateway = |pod: &Pod| {
            let why = pod.capture.outside(pod.is_ambient(ambient.as_deref()));
            matches!(why, Some(Outside::Gateway | Outside::Waypoint))
        };
        let own = pods.iter().filter(|pod| !gateway(pod));
        let mut out: BTreeSet<Pods> = own
            .map(|pod| Pods {
                labels: pod.group.labels.clone(),
                dns: pod.capture.dns,
            })
            .collect();
        if out.is_empty() {
            out.insert(Pods {
                labels: selector.clone(),
                dns: None,
            });
        }
        out
    }

    /// Hosts of the clusters that objects name which change the proxies of the pods.
    pub(super) fn clusters(&self, place: &Place<'_>, out: &mut Needs) {
        let filters = place.rows(&self.filters);
        let plugins = place.rows(&self.plugins);
        let extensions = place.rows(&self.extensions);
        let all = filters.iter().map(|row| &row.0);
        let all = all.chain(plugins.iter().map(|row| &row.0));
        for clusters in all.chain(extensions.iter().map(|row| &row.0)) {
            let Clusters {
                id,
                kind,
                selector,
                hosts,
            } = clusters;
            if is_for(selector, place.pods) {
                let reason = Reason::Filter(format!("{kind} {}/{}", id.namespace, id.name));
                out.ask(hosts, &reason);
            }
        }
    }

    /// Hosts of keys that the proxies of the pods fetch.
    pub(super) fn keys(&self, place: &Place<'_>, out: &mut Needs) {
        for row in place.rows(&self.keys) {
            if is_for(&row.selector, place.pods) {
                let object = format!("RequestAuthentication {}/{}", row.id.namespace, row.id.name);
                out.ask(&row.hosts, &Reason::Keys(object));
            }
        }
    }
}
