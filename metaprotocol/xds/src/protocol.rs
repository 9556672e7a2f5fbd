//! The two variants of the protocol: state of the world and delta.

use std::time::Instant;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use tonic::Status;

use crate::session::{Action, Session};
use crate::types::MAX_TEXT;

/// What differs between the variants outside of the session.
pub(crate) trait Protocol: Send + Sync + Unpin + 'static {
    type Request: prost::Message + Default + 'static;
    const DELTA: bool;

    /// Bounds the texts of a request.
    fn check(request: &Self::Request) -> Result<(), Status>;
    fn type_url(request: &mut Self::Request) -> &mut String;
    fn node(request: &mut Self::Request) -> Option<Node>;
    fn handle(session: &mut Session, request: Self::Request, now: Instant) -> Vec<Action>;
}

fn bounded<'a>(mut texts: impl Iterator<Item = &'a String>) -> Result<(), Status> {
    texts.find(|text| text.len() > MAX_TEXT).map_or(Ok(()), |text| {
        Err(Status::invalid_argument(format!(
            "a name, a version or a type of the request has {} bytes, and {MAX_TEXT} are allowed; shorten it",
            text.len()
        )))
    })
}

/// State of the world (`StreamXxx`).
pub(crate) struct Sotw;

impl Protocol for Sotw {
    type Request = DiscoveryRequest;
    const DELTA: bool = false;

    fn check(request: &DiscoveryRequest) -> Result<(), Status> {
        let locators = request.resource_locators.iter().map(|l| &l.name);
        let names = request.resource_names.iter().chain(locators);
        bounded(names.chain([&request.type_url]))
    }

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

    fn check(request: &DeltaDiscoveryRequest) -> Result<(), Status> {
        let locators = request.resource_locators_subscribe.iter().map(|l| &l.name);
        let names = request.resource_names_subscribe.iter().chain(locators);
        let known = request.initial_resource_versions.iter();
        let known = known.flat_map(|(name, version)| [name, version]);
        bounded(names.chain(known).chain([&request.type_url]))
    }

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
