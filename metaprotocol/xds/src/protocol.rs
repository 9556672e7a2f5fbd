//! The two variants of the protocol: state of the world and delta.

use std::time::Instant;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

use crate::session::{Action, Session};

/// What differs between the variants outside of the session.
pub(crate) trait Protocol: Send + Sync + Unpin + 'static {
    type Request: prost::Message + Default + 'static;
    const DELTA: bool;

    fn type_url(request: &mut Self::Request) -> &mut String;
    fn node(request: &mut Self::Request) -> Option<Node>;
    fn handle(session: &mut Session, request: Self::Request, now: Instant) -> Vec<Action>;
}

/// State of the world (`StreamXxx`).
pub(crate) struct Sotw;

impl Protocol for Sotw {
    type Request = DiscoveryRequest;
    const DELTA: bool = false;

    fn type_url(request: &mut DiscoveryRequest) -> &mut String {
        &mut request.type_url
    }

    fn node(request: &mut DiscoveryRequest) -> Option<Node> {
        request.node.take()
    }

    fn handle(session: &mut Session, request: DiscoveryRequest, now: Instant) -> Vec<Action> {
        session.on_sotw(request, now)
    }
}

/// Changes only (`DeltaXxx`).
pub(crate) struct Delta;

impl Protocol for Delta {
    type Request = DeltaDiscoveryRequest;
    const DELTA: bool = true;

    fn type_url(request: &mut DeltaDiscoveryRequest) -> &mut String {
        &mut request.type_url
    }

    fn node(request: &mut DeltaDiscoveryRequest) -> Option<Node> {
        request.node.take()
    }

    fn handle(session: &mut Session, request: DeltaDiscoveryRequest, now: Instant) -> Vec<Action> {
        session.on_delta(request, now)
    }
}
