//! A Lease as Kubernetes has it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::ObjectMeta;
use trimtab_crds::{MANAGED_BY, MANAGED_BY_LABEL};

use super::election::Draft;
use super::step::Record;

/// What a Lease says.
pub(super) fn read(lease: Lease) -> Record {
    let spec = lease.spec.unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    let time = |t: Option<MicroTime>| t.map(|t| -> Timestamp { t.0 });
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        lasts: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        transitions: spec.lease_transitions.unwrap_or_default(),
        acquired: time(spec.acquire_time),
        renewed: time(spec.renew_time),
        version: lease.metadata.resource_version.unwrap_or_default(),
    }
}

/// The Lease of a draft.
pub(super) fn written(name: &str, draft: &Draft) -> Lease {
    let record = &draft.record;
    let labels = [(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())];
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.into()),
            resource_version: draft.base.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(record.holder.clone()),
            lease_duration_seconds: Some(i32::try_from(record.lasts.as_secs()).unwrap_or(i32::MAX)),
            lease_transitions: Some(record.transitions),
            acquire_time: record.acquired.map(MicroTime),
            renew_time: record.renewed.map(MicroTime),
            ..LeaseSpec::default()
        }),
    }
}
