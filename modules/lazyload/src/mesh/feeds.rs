//! Watch events into the index, kind by kind.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use trimtab_crds::fence::ServiceFence;
use trimtab_crds::istio::{DestinationRule, ServiceEntry, Sidecar, VirtualService};
use trimtab_kit::watch::Feed;

use super::facts::name_of;
use super::state::State;
use super::{Index, Name};
use crate::object::FenceKey;

/// One kind: put, drop, and a relist that drops what is gone.
macro_rules! feed {
    ($kind:ty, $put:ident, $drop:ident, $names:expr $(, $undecodable:ident)?) => {
        impl Feed<$kind> for Index {
            fn apply(&self, object: Arc<$kind>) {
                self.with(|s| s.$put(&object));
            }

            fn delete(&self, object: Arc<$kind>) {
                self.with(|s| s.$drop(&name_of(object.as_ref())));
            }

            fn reset(&self, objects: Vec<Arc<$kind>>, unreadable: &[Name]) {
                self.with(|s| {
                    let mut kept: HashSet<Name> = objects.iter().map(|o| name_of(o.as_ref())).collect();
                    kept.extend(unreadable.iter().cloned());
                    let names: fn(&State) -> Vec<Name> = $names;
                    for name in names(s).iter().filter(|n| !kept.contains(*n)) {
                        s.$drop(name);
                    }
                    for object in &objects {
                        s.$put(object);
                    }
                });
            }

            $(fn undecodable(&self, namespace: &str, name: &str, error: &str) {
                let key = FenceKey {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                };
                self.with(|s| s.$undecodable(&key, error));
            })?
        }
    };
}

feed!(Service, put_service, drop_service, |s| s
    .registry
    .service_names()
    .cloned()
    .collect());
feed!(ServiceEntry, put_entry, drop_entry, |s| s
    .registry
    .entries
    .keys()
    .cloned()
    .collect());
feed!(VirtualService, put_route, drop_route, |s| s
    .registry
    .route_names());
feed!(DestinationRule, put_rule, drop_rule, |s| s
    .registry
    .rule_names());
feed!(EndpointSlice, put_slice, drop_slice, |s| s
    .slices
    .keys()
    .cloned()
    .collect());
feed!(Pod, put_pod, drop_pod, |s| s.pods.names());
feed!(Sidecar, put_sidecar, drop_sidecar, |s| s
    .sidecars
    .keys()
    .cloned()
    .collect());
feed!(Namespace, put_namespace, drop_namespace, |s| s
    .namespaces
    .keys()
    .map(|n| (String::new(), n.clone()))
    .collect());
feed!(
    ServiceFence,
    put_fence,
    drop_fence,
    |s| s
        .fences
        .keys()
        .map(|k| (k.namespace.clone(), k.name.clone()))
        .collect(),
    undecodable_fence
);
