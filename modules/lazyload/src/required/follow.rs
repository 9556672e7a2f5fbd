//! Whose needs a change may concern.

use std::sync::Arc;

use trimtab_mesh::model::{
    CustomPolicy, ExtensionClusters, FilterClusters, KeyServers, MeshConfig, PluginClusters, Pod,
    ServiceEntry, Telemetry,
};
use trimtab_mesh::table::{Change, Follower};

use super::Requirements;

macro_rules! follow {
    ($($row:ty),* $(,)?) => {
        $(impl Follower<$row> for Requirements {
            fn changed(&self, change: Change<'_, $row>) {
                self.touch(&change.name.0);
            }
        })*
    };
}

follow!(
    CustomPolicy,
    ExtensionClusters,
    FilterClusters,
    KeyServers,
    PluginClusters,
    Telemetry,
);

impl Follower<MeshConfig> for Requirements {
    fn changed(&self, change: Change<'_, MeshConfig>) {
        let part = |mesh: &Arc<MeshConfig>| {
            (
                mesh.root_namespace.clone(),
                mesh.extension_providers.clone(),
                mesh.default_providers.clone(),
                mesh.default_config.captures_dns(),
                mesh.unreadable,
            )
        };
        if change.old.map(part) != change.new.map(part) {
            self.state.lock().touched.all = true;
            self.wake.notify_one();
        }
    }
}

/// Pods of a new group are an event of the index; here counts a pod whose proxy is asked otherwise than before.
impl Follower<Pod> for Requirements {
    fn changed(&self, change: Change<'_, Pod>) {
        let (Some(old), Some(new)) = (change.old, change.new) else {
            return;
        };
        if old.capture.dns != new.capture.dns {
            self.touch(&change.name.0);
        }
    }
}

impl Follower<ServiceEntry> for Requirements {
    fn changed(&self, change: Change<'_, ServiceEntry>) {
        let mut state = self.state.lock();
        let (old, new) = (change.old, change.new);
        let touched = state.names.change(old.map(|e| &**e), new.map(|e| &**e));
        if touched.is_empty() {
            return;
        }
        state.touched.namespaces.extend(touched);
        drop(state);
        self.wake.notify_one();
    }
}
