//! What a module needs of the mesh and asks outside of it, for `trimtab check`.

use kube::Resource;
use serde::de::DeserializeOwned;

use super::Setup;
use crate::needs::{Dependency, Need, Needs};

impl Setup<'_> {
    /// Objects of the kind `K` need releases of the mesh, as `asked` says.
    pub fn needs<K: Resource<DynamicType = ()> + DeserializeOwned>(
        &mut self,
        asked: impl Fn(&K) -> Vec<Need> + Send + Sync + 'static,
    ) {
        self.installed.needs.push(Needs::on(asked));
    }

    /// The module asks what `key` of the configuration names; `problem` says why that does not answer.
    pub fn depends(
        &mut self,
        key: &'static str,
        problem: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) {
        self.installed
            .dependencies
            .push(Dependency::new(key, problem));
    }
}
