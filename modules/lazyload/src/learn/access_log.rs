//! Access log messages to observed calls. Pure.
//!
//! What a peer may say of whom is in [`super::peer`]; what it may not say is counted as [`Skip::Unverified`].
//!
//! | sender | source | destination |
//! |---|---|---|
//! | the fallback | metadata `trimtab`: `source_namespace` and `source_pod`, or `source` (`NAMESPACE/POD`); else the peer's address | `:authority`; else the upstream cluster, if it is of a service; else the custom tag `trimtab.host`; else the original destination: metadata `destination` (`IP:PORT`) or the local address; else the server name: of TLS that ends there, or the custom tag `sni` |
//! | a sidecar, outbound | its own node id | the upstream cluster; for a cluster of no service as with the fallback |
//! | a sidecar, inbound (Slime's global-sidecar) | the peer's address | as with the fallback |

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress};
use envoy_types::pb::envoy::data::accesslog::v3::{AccessLogCommon, HttpAccessLogEntry};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    Identifier, LogEntries,
};
use envoy_types::pb::google::protobuf::Struct;
use envoy_types::pb::google::protobuf::value::Kind;

use super::host::{self, Target};
use super::peer::{Others, Peer, Voice};
use super::{Rules, Skip, Skipped};
use crate::edges::{HostName, ObservedCall};
use crate::object::{Caller, Directory, Evidence};

/// Namespace of the dynamic metadata that the fallback's filters set.
pub const METADATA: &str = "trimtab";
/// Key of [`METADATA`]: the namespace of the calling pod.
pub const SOURCE_NAMESPACE: &str = "source_namespace";
/// Key of [`METADATA`]: the name of the calling pod.
pub const SOURCE_POD: &str = "source_pod";
/// Key of [`METADATA`]: both, as `NAMESPACE/POD`.
pub const SOURCE: &str = "source";
/// Key of [`METADATA`]: where the call was going, `IP:PORT`.
pub const DESTINATION: &str = "destination";
/// Custom tag: the host of the one service that a port of standalone mode's fallbacks leads to.
pub const HOST_TAG: &str = "trimtab.host";
/// Custom tag: the server name of TLS that passes through.
pub const SNI_TAG: &str = "sni";

/// Port of an authority that names none.
const DEFAULT_PORT: u16 = 80;

/// Who sends a stream of logs, as its first message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A fallback, or any proxy that Istio does not run.
    Fallback,
    /// A proxy that Istio runs: node id `sidecar~IP~POD.NAMESPACE~DOMAIN`.
    Proxy {
        /// First address of the pod.
        address: Option<IpAddr>,
        /// Namespace of the pod.
        namespace: String,
        /// Name of the pod.
        pod: String,
    },
}

impl Sender {
    /// Reads the identifier of a stream's first message.
    pub fn new(identifier: Option<&Identifier>) -> Self {
        let node = identifier.and_then(|i| i.node.as_ref());
        Self::named(node.map_or("", |node| node.id.as_str()))
    }

    pub(super) fn named(id: &str) -> Self {
        Self::proxy(id).unwrap_or(Self::Fallback)
    }

    fn proxy(id: &str) -> Option<Self> {
        let mut parts = id.split('~');
        if !matches!(parts.next()?, "sidecar" | "router") {
            return None;
        }
        let address = parts.next()?.parse().ok();
        // Names of pods may have dots, namespaces have none.
        let (pod, namespace) = parts.next()?.rsplit_once('.')?;
        Some(Self::Proxy {
            address,
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
        })
    }

    /// The workload that it says it is.
    pub(super) fn caller(&self, directory: &dyn Directory) -> Option<Caller> {
        match self {
            Self::Fallback => None,
            Self::Proxy {
                address,
                namespace,
                pod,
            } => directory
                .caller_of_pod(namespace, pod)
                .or_else(|| address.and_then(|a| directory.caller_at(a))),
        }
    }

    /// Whether an entry of a cluster without a direction was logged for a call that came in.
    fn is_peer(&self, peer: Option<IpAddr>) -> bool {
        match (self, peer) {
            (Self::Proxy { address, .. }, Some(peer)) => {
                !peer.is_loopback() && address.is_some_and(|own| own != peer)
            }
            _ => false,
        }
    }
}

/// The observed calls of one message.
#[derive(Debug, Default)]
pub struct Learned<'m> {
    /// What was seen.
    pub observed_calls: Vec<ObservedCall<'m>>,
    /// How many entries the message has.
    pub entries: u64,
    /// What taught nothing.
    pub skipped: Skipped,
}

/// Reads one message of a sender, who is `peer` by its connection.
pub fn learn<'m>(
    message: &'m StreamAccessLogsMessage,
    sender: &Sender,
    peer: &Peer,
    directory: &dyn Directory,
    rules: &Rules,
) -> Learned<'m> {
    let mut reader = Reader {
        sender,
        voice: rules.speakers.voice(peer, sender, directory),
        directory,
        rules,
        learned: Learned::default(),
    };
    match &message.log_entries {
        Some(LogEntries::HttpLogs(logs)) => {
            reader.learned.observed_calls.reserve(logs.log_entry.len());
            for entry in &logs.log_entry {
                reader.entry(entry.common_properties.as_ref(), authority(entry));
            }
        }
        Some(LogEntries::TcpLogs(logs)) => {
            reader.learned.observed_calls.reserve(logs.log_entry.len());
            for entry in &logs.log_entry {
                reader.entry(entry.common_properties.as_ref(), "");
            }
        }
        None => {}
    }
    reader.learned
}

fn authority(entry: &HttpAccessLogEntry) -> &str {
    entry.request.as_ref().map_or("", |r| &r.authority)
}

/// What an upstream cluster tells.
enum Cluster<'m> {
    /// `outbound|PORT|SUBSET|HOST`, or with `_.` as gateways have it.
    Service(&'m str),
    Inbound,
    /// None, `PassthroughCluster`, `BlackHoleCluster`, a cluster of the fallback, ...
    Other,
}

fn cluster(name: &str) -> Cluster<'_> {
    let host = name
        .strip_prefix("outbound|")
        .and_then(|rest| rest.splitn(3, '|').nth(2))
        .or_else(|| {
            let rest = name.strip_prefix("outbound_.")?;
            rest.splitn(3, "_.").nth(2)
        });
    match host {
        Some(host) => Cluster::Service(host),
        None if name.starts_with("inbound|") || name.starts_with("InboundPassthroughCluster") => {
            Cluster::Inbound
        }
        None => Cluster::Other,
    }
}

struct Reader<'m, 'e> {
    sender: &'e Sender,
    voice: Voice,
    directory: &'e dyn Directory,
    rules: &'e Rules,
    learned: Learned<'m>,
}

impl<'m> Reader<'m, '_> {
    fn entry(&mut self, common: Option<&'m AccessLogCommon>, authority: &'m str) {
        self.learned.entries += 1;
        let outcome = match common {
            Some(common) => self.read(common, authority),
            None => Err(Skip::Malformed),
        };
        if let Err(skip) = outcome {
            self.learned.skipped.add(skip, 1);
        }
    }

    fn read(&mut self, common: &'m AccessLogCommon, authority: &'m str) -> Result<(), Skip> {
        let cluster = match self.sender {
            Sender::Fallback => Cluster::Inbound,
            Sender::Proxy { .. } => cluster(&common.upstream_cluster),
        };
        let metadata = metadata(common);
        let peer = socket(common.downstream_direct_remote_address.as_ref())
            .or_else(|| socket(common.downstream_remote_address.as_ref()))
            .map(|(address, _)| address);
        let inbound = match cluster {
            Cluster::Inbound => true,
            Cluster::Service(_) => false,
            Cluster::Other => self.sender.is_peer(peer),
        };
        let caller = if inbound {
            self.source(metadata, peer)?
        } else {
            self.voice.own.clone().ok_or(Skip::Unverified)?
        };
        if let Cluster::Service(host) = cluster
            && !self.rules.is_fallback(host)
        {
            let host = host::clean(host).ok_or(Skip::Malformed)?;
            // A cluster that a proxy has and the mesh does not is one that is gone, or made up.
            let host = match self.directory.known_host(&host) {
                Some(known) => (HostName::Shared(known), true),
                None => (HostName::Text(host), false),
            };
            self.keep(caller, vec![host]);
            return Ok(());
        }
        let hosts = self.destination(common, metadata, authority, &caller.namespace)?;
        self.keep(caller, hosts);
        Ok(())
    }

    /// Who called the sender.
    fn source(&self, metadata: Option<&Struct>, peer: Option<IpAddr>) -> Result<Caller, Skip> {
        if self.voice.others == Others::Nobody {
            return Err(Skip::Unverified);
        }
        let pod = metadata.and_then(|metadata| {
            let namespace = text(metadata, SOURCE_NAMESPACE);
            let pod = text(metadata, SOURCE_POD);
            let pod = namespace.zip(pod);
            pod.or_else(|| text(metadata, SOURCE)?.split_once('/'))
        });
        let caller = pod
            .and_then(|(namespace, pod)| self.directory.caller_of_pod(namespace, pod))
            .or_else(|| self.directory.caller_at(peer?))
            .ok_or(Skip::SourceUnknown)?;
        if self.voice.others.include(&caller) {
            Ok(caller)
        } else {
            Err(Skip::Unverified)
        }
    }

    fn destination(
        &mut self,
        common: &'m AccessLogCommon,
        metadata: Option<&'m Struct>,
        authority: &'m str,
        namespace: &str,
    ) -> Result<Vec<(HostName<'m>, bool)>, Skip> {
        let (rules, directory) = (self.rules, self.directory);
        let skipped = &mut self.learned.skipped;
        let mut hosts =
            |target, port| rules.hosts(target, port, namespace, directory, &mut *skipped);
        // A broken authority is the client's; the address still tells where it went.
        let mut skip = Skip::DestinationUnknown;
        if !authority.is_empty() {
            match host::target(authority) {
                None => skip = Skip::Malformed,
                Some(target) => {
                    let found = hosts(target, DEFAULT_PORT);
                    if !found.is_empty() {
                        return Ok(found);
                    }
                }
            }
        }
        // A fallback that has a cluster for each host; on the way in, a proxy of Istio has none of these.
        if let Cluster::Service(host) = cluster(&common.upstream_cluster)
            && let Some(target) = host::target(host)
        {
            let found = hosts(target, 0);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        if let Some(target) = tag(common, HOST_TAG).and_then(host::target) {
            let found = hosts(target, 0);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let original = metadata.and_then(|metadata| text(metadata, DESTINATION));
        let address = original
            .and_then(host::target)
            .or_else(|| {
                let (address, port) = socket(common.downstream_local_address.as_ref())?;
                Some(Target::Address(address, Some(port)))
            })
            .filter(|target| matches!(target, Target::Address(..)));
        if let Some(target) = address {
            let found = hosts(target, 0);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        if let Some(host) = server_name(common).and_then(sni_host) {
            let found = hosts(host, 0);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Err(skip)
    }

    fn keep(&mut self, caller: Caller, mut hosts: Vec<(HostName<'m>, bool)>) {
        let last = hosts.pop();
        for (host, known) in hosts {
            let observed_call = ObservedCall::new(caller.clone(), host, known, Evidence::AccessLog);
            self.learned.observed_calls.push(observed_call);
        }
        if let Some((host, known)) = last {
            let observed_call = ObservedCall::new(caller, host, known, Evidence::AccessLog);
            self.learned.observed_calls.push(observed_call);
        }
    }
}

/// A custom tag that says something; Envoy writes `-` for what it does not know.
fn tag<'m>(common: &'m AccessLogCommon, name: &str) -> Option<&'m str> {
    let value = common.custom_tags.get(name)?;
    (!value.is_empty() && value != "-").then_some(value)
}

/// The server name of TLS that ends at the sender, else of TLS that passes through it.
fn server_name(common: &AccessLogCommon) -> Option<&str> {
    let tls = common.tls_properties.as_ref();
    let own = tls.map(|tls| tls.tls_sni_hostname.as_str());
    own.filter(|name| !name.is_empty())
        .or_else(|| tag(common, SNI_TAG))
}

/// The host of a server name, which is a cluster name when it comes from one of Istio's proxies.
fn sni_host(sni: &str) -> Option<Target<'_>> {
    match cluster(sni) {
        Cluster::Service(host) => host::target(host),
        Cluster::Inbound => None,
        Cluster::Other => host::target(sni),
    }
}

fn metadata(common: &AccessLogCommon) -> Option<&Struct> {
    common.metadata.as_ref()?.filter_metadata.get(METADATA)
}

fn text<'m>(metadata: &'m Struct, key: &str) -> Option<&'m str> {
    match metadata.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn socket(address: Option<&Address>) -> Option<(IpAddr, u16)> {
    let Some(AddressKind::SocketAddress(SocketAddress {
        address,
        port_specifier,
        ..
    })) = &address?.address
    else {
        return None;
    };
    let port = match port_specifier {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(*port).unwrap_or(0),
        _ => 0,
    };
    let address: IpAddr = address.parse().ok()?;
    // An IPv6 socket shows an IPv4 peer in IPv6 clothes.
    Some((address.to_canonical(), port))
}

#[cfg(test)]
mod tests;
