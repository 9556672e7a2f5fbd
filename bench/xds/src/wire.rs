//! The messages of the benchmark: resources that all servers serve, requests, and a reader of responses that looks only
//! at what the measurements need, so that the clients cost little beside the servers.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::rpc::Status;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};

/// Type of all resources.
pub const TYPE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// Digits of the serial number at the start of the virtual host's name.
const DIGITS: usize = 12;

/// Name of a resource.
pub fn name(index: usize) -> String {
    format!("r-{index:08}")
}

/// The encoded resource: about `size` bytes, with the serial number of its last change inside.
pub fn body(index: usize, serial: u64, size: usize) -> Vec<u8> {
    let mut label = format!("{serial:0DIGITS$}-");
    label.extend(std::iter::repeat_n('x', size.saturating_sub(label.len())));
    let host = VirtualHost {
        name: label,
        domains: vec!["*".to_owned()],
        ..VirtualHost::default()
    };
    let routes = RouteConfiguration {
        name: name(index),
        virtual_hosts: vec![host],
        ..RouteConfiguration::default()
    };
    routes.encode_to_vec()
}

/// The fields of an encoded message that are strings, bytes or messages.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.0.is_empty() {
                return None;
            }
            let (tag, wire) = decode_key(&mut self.0).ok()?;
            match wire {
                WireType::LengthDelimited => {
                    let length = usize::try_from(decode_varint(&mut self.0).ok()?).ok()?;
                    let (field, rest) = self.0.split_at_checked(length)?;
                    self.0 = rest;
                    return Some((tag, field));
                }
                WireType::Varint => {
                    decode_varint(&mut self.0).ok()?;
                }
                WireType::SixtyFourBit => self.0 = self.0.get(8..)?,
                WireType::ThirtyTwoBit => self.0 = self.0.get(4..)?,
                WireType::StartGroup | WireType::EndGroup => return None,
            }
        }
    }
}

fn field(message: &[u8], number: u32) -> Option<&[u8]> {
    Fields(message)
        .find(|(tag, _)| *tag == number)
        .map(|(_, field)| field)
}

/// One resource in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Name of the resource.
    pub name: &'a [u8],
    /// Version of the resource; empty in state of the world.
    pub version: &'a [u8],
    /// Serial number of its last change.
    pub serial: u64,
}

/// The serial number in an encoded resource and its name.
fn inside(body: &[u8]) -> Option<(u64, &[u8])> {
    let label = field(field(body, 2)?, 1)?;
    let digits = label.get(..DIGITS)?;
    let serial = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((serial, field(body, 1)?))
}

/// Reads a response, calls `seen` for each resource, and returns the version and the nonce.
pub fn read_response<'a>(
    message: &'a [u8],
    delta: bool,
    mut seen: impl FnMut(Seen<'a>),
) -> Result<(&'a [u8], &'a [u8])> {
    let mut version: &[u8] = &[];
    let mut nonce: &[u8] = &[];
    for (tag, value) in Fields(message) {
        match (tag, delta) {
            (1, _) => version = value,
            (5, _) => nonce = value,
            (2, true) => {
                let any = field(value, 2).context("a resource without content")?;
                let body = field(any, 2).context("an Any without a value")?;
                let (serial, _) = inside(body).context("a resource that is not ours")?;
                seen(Seen {
                    name: field(value, 3).unwrap_or_default(),
                    version: field(value, 1).unwrap_or_default(),
                    serial,
                });
            }
            (2, false) => {
                let body = field(value, 2).context("an Any without a value")?;
                let (serial, name) = inside(body).context("a resource that is not ours")?;
                let version = &[];
                seen(Seen {
                    name,
                    version,
                    serial,
                });
            }
            _ => {}
        }
    }
    Ok((version, nonce))
}

/// What a stream asks for when it opens.
#[derive(Debug, Clone, Default)]
pub struct Interest {
    /// Delta or state of the world.
    pub delta: bool,
    /// Indexes of the resources; empty asks for all.
    pub names: Vec<usize>,
    /// Versions that the client says it holds, as [`versions`] encodes them; delta only.
    pub versions: Vec<u8>,
}

/// The part of a first request that says which versions the client holds.
pub fn versions(held: &HashMap<String, String>) -> Vec<u8> {
    let request = DeltaDiscoveryRequest {
        initial_resource_versions: held.clone(),
        ..DeltaDiscoveryRequest::default()
    };
    request.encode_to_vec()
}

fn node(id: usize) -> Node {
    Node {
        id: format!("proxy-{id}"),
        cluster: "bench".to_owned(),
        ..Node::default()
    }
}

/// The first request of a stream.
pub fn hello(id: usize, interest: &Interest) -> Vec<u8> {
    let names: Vec<String> = interest.names.iter().map(|i| name(*i)).collect();
    if interest.delta {
        let wildcard = names.is_empty().then(|| "*".to_owned());
        let request = DeltaDiscoveryRequest {
            node: Some(node(id)),
            type_url: TYPE.to_owned(),
            resource_names_subscribe: names.into_iter().chain(wildcard).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        // Encoded messages one after the other are one message with the fields of both.
        return [request.encode_to_vec().as_slice(), &interest.versions].concat();
    }
    let request = DiscoveryRequest {
        node: Some(node(id)),
        type_url: TYPE.to_owned(),
        resource_names: names,
        ..DiscoveryRequest::default()
    };
    request.encode_to_vec()
}

/// The answer to a response, with a refusal if there is one. State of the world repeats the names.
pub fn answer(interest: &Interest, version: &[u8], nonce: &[u8], refused: bool) -> Vec<u8> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let error_detail = refused.then(|| Status {
        code: 13,
        message: "refused by the benchmark".to_owned(),
        ..Status::default()
    });
    if interest.delta {
        let request = DeltaDiscoveryRequest {
            type_url: TYPE.to_owned(),
            response_nonce: text(nonce),
            error_detail,
            ..DeltaDiscoveryRequest::default()
        };
        return request.encode_to_vec();
    }
    let request = DiscoveryRequest {
        type_url: TYPE.to_owned(),
        version_info: text(version),
        resource_names: interest.names.iter().map(|i| name(*i)).collect(),
        response_nonce: text(nonce),
        error_detail,
        ..DiscoveryRequest::default()
    };
    request.encode_to_vec()
}

/// A request for one more name on an open delta stream.
pub fn subscribe(index: usize) -> Vec<u8> {
    let request = DeltaDiscoveryRequest {
        type_url: TYPE.to_owned(),
        resource_names_subscribe: vec![name(index)],
        ..DeltaDiscoveryRequest::default()
    };
    request.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::service::discovery::v3::{
        DeltaDiscoveryResponse, DiscoveryResponse, Resource,
    };
    use envoy_types::pb::google::protobuf::Any;

    fn any(index: usize, serial: u64) -> Any {
        Any {
            type_url: TYPE.to_owned(),
            value: body(index, serial, 100),
        }
    }

    #[test]
    fn what_a_delta_response_says_is_found() {
        let resource = |index, serial| Resource {
            name: name(index),
            version: format!("v{serial}"),
            resource: Some(any(index, serial)),
            ..Resource::default()
        };
        let message = DeltaDiscoveryResponse {
            system_version_info: "s".to_owned(),
            nonce: "n".to_owned(),
            resources: vec![resource(1, 7), resource(2, 8)],
            ..DeltaDiscoveryResponse::default()
        };
        let bytes = message.encode_to_vec();
        let mut found = Vec::new();
        let (version, nonce) = read_response(&bytes, true, |seen| found.push(seen)).unwrap();
        assert_eq!((version, nonce), (&b"s"[..], &b"n"[..]));
        let serials: Vec<u64> = found.iter().map(|seen| seen.serial).collect();
        assert_eq!(serials, [7, 8]);
        assert_eq!(
            (found[1].name, found[1].version),
            (name(2).as_bytes(), &b"v8"[..])
        );
    }

    #[test]
    fn what_a_full_response_says_is_found_and_garbage_is_an_error() {
        let message = DiscoveryResponse {
            version_info: "3".to_owned(),
            nonce: "n".to_owned(),
            resources: vec![any(5, 9)],
            ..DiscoveryResponse::default()
        };
        let bytes = message.encode_to_vec();
        let mut found = Vec::new();
        read_response(&bytes, false, |seen| found.push((seen.name, seen.serial))).unwrap();
        assert_eq!(found, [(name(5).as_bytes(), 9)]);
        assert!(read_response(&bytes, true, |_| {}).is_err());
    }
}
