//! Changes of the mesh into the index, kind by kind.

use trimtab_mesh::Name;
use trimtab_mesh::model::{
    DestinationRule, EndpointSlice, GrpcRoute, HttpRoute, Namespace, Pod, Service, ServiceEntry,
    VirtualService,
};
use trimtab_mesh::table::{Change, Follower};

use super::{Fence, Index, Sidecar};
use crate::object::FenceKey;

macro_rules! follow {
    ($($row:ty => $change:ident),* $(,)?) => {
        $(impl Follower<$row> for Index {
            fn changed(&self, change: Change<'_, $row>) {
                self.with(|state| state.$change(&change));
            }
        })*
    };
}

follow!(
    Service => service,
    Namespace => namespace,
    ServiceEntry => entry,
    EndpointSlice => slice,
    VirtualService => route,
    HttpRoute => http_route,
    GrpcRoute => grpc_route,
    DestinationRule => rule,
    Pod => pod,
    Sidecar => sidecar,
);

impl Follower<Fence> for Index {
    fn changed(&self, change: Change<'_, Fence>) {
        self.with(|state| state.fence(&change));
    }

    fn undecodable(&self, name: &Name, error: &str) {
        self.with(|state| state.undecodable_fence(&FenceKey::of(name), error));
    }
}
