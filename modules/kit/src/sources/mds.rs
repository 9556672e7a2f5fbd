//! Metric discovery: metrics that somebody pushes over gRPC.

mod service;
mod store;

/// The generated messages, client and server of `trimtab.mds.v1alpha1`.
#[allow(missing_docs, clippy::pedantic, rustdoc::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mds_protos.rs"));
}

use std::collections::BTreeMap;
use std::time::Instant;

use async_trait::async_trait;

/// The well-known types in the messages.
pub use generated::google::protobuf as well_known;
pub use generated::trimtab::mds::v1alpha1 as proto;
pub use service::{Pushers, serve};
pub use store::{MdsConfig, MdsStore, Reach};

use super::{Aggregate, MetricName, MetricSource, SampleRequest, Samples, SourceHealth};

/// Provides every name that was pushed for the service of a demand or for its pods.
///
/// A value for the service is used as it is. Without one the bare name is the mean over the demand's pods; the suffixes `.avg`, `.sum`, `.max`,
/// `.min` and `.count` choose another aggregate.
#[derive(Clone, Debug)]
pub struct MdsSource {
    store: MdsStore,
}

impl MdsSource {
    /// A source that reads `store`.
    pub fn new(store: MdsStore) -> Self {
        Self { store }
    }
}

#[async_trait]
impl MetricSource for MdsSource {
    fn name(&self) -> &'static str {
        "mds"
    }

    fn provides(&self) -> Vec<MetricName> {
        self.store.names()
    }

    /// Answers every name that is, or recently was, pushed for anything; names that nobody ever pushed are left to other sources.
    async fn sample(&self, sample_requests: &[SampleRequest]) -> Samples {
        let start = Instant::now();
        let mut values = BTreeMap::new();
        let view = self.store.read();
        for sample_request in sample_requests {
            for name in &sample_request.metrics {
                if let Some(sample) = view.sample(sample_request, name) {
                    values.insert((sample_request.id, name.clone()), sample);
                }
            }
        }
        drop(view);
        Samples {
            values,
            queries: 0,
            elapsed: start.elapsed(),
            ..Samples::default()
        }
    }

    fn health(&self) -> SourceHealth {
        self.store.health()
    }
}

/// The base of a name with a derived suffix, or the name itself.
fn base(name: &str) -> (&str, Option<Aggregate>) {
    Aggregate::split(name).map_or((name, None), |(base, aggregate)| (base, Some(aggregate)))
}
