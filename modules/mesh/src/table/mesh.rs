//! All tables, and what holds for all of them.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Change, Follower, Row, Table};
use crate::model::MeshConfig;
use crate::{DEFAULT_DOMAIN, ExportDefaults};

/// One table for each kind of row: what modules know of the mesh.
///
/// It follows the MeshConfig: objects without `exportTo` are seen as it says.
#[derive(Debug)]
pub struct Mesh {
    domain: Arc<str>,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    by_row: HashMap<TypeId, Arc<dyn AnyTable>>,
    defaults: ExportDefaults,
}

/// A table of any kind of row.
trait AnyTable: std::fmt::Debug + Send + Sync {
    fn export_by(&self, defaults: &ExportDefaults);

    fn any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<R: Row> AnyTable for Table<R> {
    fn export_by(&self, defaults: &ExportDefaults) {
        Self::export_by(self, defaults);
    }

    fn any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl Mesh {
    /// No objects yet. `domain` is the cluster's; empty: [`DEFAULT_DOMAIN`].
    pub fn new(domain: &str) -> Arc<Self> {
        let domain = if domain.is_empty() {
            DEFAULT_DOMAIN
        } else {
            domain
        };
        Arc::new(Self {
            domain: domain.into(),
            tables: Mutex::default(),
        })
    }

    /// The cluster domain.
    pub fn domain(&self) -> &Arc<str> {
        &self.domain
    }

    /// An object is new or changed.
    pub fn put<R: Row>(&self, object: R::Object) {
        self.table::<R>().put(&Arc::new(object));
    }

    /// An object is gone.
    pub fn remove<R: Row>(&self, namespace: &str, name: &str) {
        let name = (namespace.to_owned(), name.to_owned());
        self.table::<R>().remove(&name);
    }

    /// The table of a kind of row; all who ask get the same.
    pub fn table<R: Row>(&self) -> Arc<Table<R>> {
        let mut tables = self.tables.lock();
        let Tables { by_row, defaults } = &mut *tables;
        let table = by_row.entry(TypeId::of::<R>()).or_insert_with(|| {
            let table = Table::<R>::new(&self.domain);
            table.export_by(defaults);
            table
        });
        let table = table.clone().any().downcast();
        // The key is the type.
        table.unwrap_or_else(|_| Table::new(&self.domain))
    }

    /// Followers ask for tables: none is told while the list of tables is locked. The table of the MeshConfig is telling this.
    fn export_by(&self, defaults: &ExportDefaults) {
        let tables: Vec<Arc<dyn AnyTable>> = {
            let mut tables = self.tables.lock();
            tables.defaults.clone_from(defaults);
            let own = TypeId::of::<MeshConfig>();
            let others = tables.by_row.iter().filter(|(row, _)| **row != own);
            others.map(|(_, table)| table.clone()).collect()
        };
        for table in tables {
            table.export_by(defaults);
        }
    }
}

impl Follower<MeshConfig> for Mesh {
    fn changed(&self, change: Change<'_, MeshConfig>) {
        let defaults = change.new.map(|mesh| mesh.export_defaults());
        self.export_by(&defaults.unwrap_or_default());
    }
}
