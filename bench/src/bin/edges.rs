//! Learning of calls: cost of an access log entry, memory of edges, and what a steady mesh writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress};
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, HttpAccessLogEntry, HttpRequestProperties, HttpResponseProperties,
};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, LogEntries,
};
use envoy_types::pb::google::protobuf::{Duration as ProtoDuration, Timestamp as ProtoTimestamp};
use jiff::Timestamp;
use prost::Message as _;
use serde_json::{Value, json};
use trimtab_bench::usage::{self, median};
use trimtab_lazyload::config::Retention;
use trimtab_lazyload::edges::{EdgeStore, HostName, Limits, ObservedCall};
use trimtab_lazyload::learn::Rules;
use trimtab_lazyload::learn::access_log::{Sender, learn};
use trimtab_lazyload::learn::peer::{Peer, Speakers};
use trimtab_lazyload::object::{Caller, Directory, Evidence};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// Hosts that each caller calls.
const DEGREE: usize = 20;
/// Entries of one message, about what Envoy gathers in its buffer of 16 KiB.
const BATCH: usize = 40;
/// Pause between two samples of telemetry in the simulated days.
const SAMPLE: Duration = Duration::from_secs(300);
const START: i64 = 1_750_000_000;

/// Measures the learning of calls.
#[derive(Debug, Parser)]
struct Args {
    /// Entries of one measurement.
    #[arg(long, default_value_t = 40_000)]
    entries: usize,
    /// Measurements of each size, taken in turn.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Where the figures go.
    #[arg(long, default_value = "target/bench/edges.json")]
    out: PathBuf,
}

/// Callers `ns-N/app-N` at an address each, and services that they call.
struct Mesh {
    callers: HashMap<IpAddr, Caller>,
    hosts: HashMap<String, Arc<str>>,
}

fn address(caller: usize) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(caller).unwrap_or(0)).into()
}

fn caller(caller: usize) -> Caller {
    Caller::new(&format!("ns-{}", caller % 50), &format!("app-{caller}"))
}

fn host(caller: usize, nth: usize, services: usize) -> String {
    // Neighbours share services, and no two of one caller are the same.
    let service = (caller * 7 + nth * 13) % services;
    format!("svc-{service}.ns-{}.svc.cluster.local", service % 50)
}

impl Mesh {
    fn new(edges: usize) -> Self {
        let (callers, services) = (edges / DEGREE, (edges / 10).max(100));
        let hosts = (0..services).map(|service| {
            let name = format!("svc-{service}.ns-{}.svc.cluster.local", service % 50);
            (name.clone(), name.into())
        });
        Self {
            callers: (0..callers).map(|c| (address(c), caller(c))).collect(),
            hosts: hosts.collect(),
        }
    }

    fn services(&self) -> usize {
        self.hosts.len()
    }
}

impl Directory for Mesh {
    fn caller_at(&self, address: IpAddr) -> Option<Caller> {
        self.callers.get(&address).cloned()
    }

    fn caller_of_pod(&self, _: &str, _: &str) -> Option<Caller> {
        None
    }

    fn host_of_name(&self, name: &str, _: &str) -> Option<Arc<str>> {
        self.hosts.get(name).cloned()
    }

    fn hosts_at(&self, _: IpAddr, _: u16) -> Vec<Arc<str>> {
        Vec::new()
    }
}

fn store() -> EdgeStore {
    EdgeStore::new(Limits::new(&Retention::default(), 2000))
}

fn filled(mesh: &Mesh) -> EdgeStore {
    let store = store();
    for c in 0..mesh.callers.len() {
        for nth in 0..DEGREE {
            let host = host(c, nth, mesh.services());
            store.see(&caller(c), &host, Evidence::AccessLog, at(0));
        }
    }
    store.drain_changes();
    store
}

fn at(seconds: u64) -> Timestamp {
    let seconds = START.saturating_add(i64::try_from(seconds).unwrap_or(0));
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn socket(address: IpAddr, port: u32) -> Address {
    Address {
        address: Some(AddressKind::SocketAddress(SocketAddress {
            address: address.to_string(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..SocketAddress::default()
        })),
    }
}

/// An entry with the fields that Envoy fills.
fn entry(c: usize, host: &str) -> HttpAccessLogEntry {
    let time = |nanos| Some(ProtoDuration { seconds: 0, nanos });
    HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            downstream_remote_address: Some(socket(address(c), 40_123)),
            downstream_direct_remote_address: Some(socket(address(c), 40_123)),
            downstream_local_address: Some(socket(address(900_000), 15_080)),
            upstream_remote_address: Some(socket(address(800_000), 8080)),
            upstream_local_address: Some(socket(address(900_000), 51_000)),
            upstream_cluster: "first-call".to_owned(),
            route_name: "default".to_owned(),
            start_time: Some(ProtoTimestamp {
                seconds: START,
                nanos: 5,
            }),
            time_to_last_rx_byte: time(110_000),
            time_to_first_upstream_tx_byte: time(600_000),
            time_to_last_upstream_tx_byte: time(610_000),
            time_to_first_upstream_rx_byte: time(2_600_000),
            time_to_last_upstream_rx_byte: time(2_700_000),
            time_to_first_downstream_tx_byte: time(2_650_000),
            time_to_last_downstream_tx_byte: time(2_750_000),
            stream_id: "6b6d4c9e-6f56-9d6b-8a49-2d3f0e7f8b11".to_owned(),
            upstream_request_attempt_count: 1,
            ..AccessLogCommon::default()
        }),
        protocol_version: 2,
        request: Some(HttpRequestProperties {
            request_method: 1,
            scheme: "http".to_owned(),
            authority: format!("{host}:8080"),
            path: "/api/v1/orders/1234?expand=lines".to_owned(),
            user_agent: "okhttp/4.12.0".to_owned(),
            request_id: "6b6d4c9e-6f56-9d6b-8a49-2d3f0e7f8b11".to_owned(),
            request_headers_bytes: 412,
            ..HttpRequestProperties::default()
        }),
        response: Some(HttpResponseProperties {
            response_headers_bytes: 120,
            response_body_bytes: 2048,
            ..HttpResponseProperties::default()
        }),
    }
}

/// Encoded messages of calls that the store knows, spread over all edges.
fn messages(mesh: &Mesh, entries: usize) -> Vec<Vec<u8>> {
    let callers = mesh.callers.len();
    let mut next = 0x9e37_79b9_u64;
    let mut random = |below: usize| {
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        usize::try_from(next % below as u64).unwrap_or(0)
    };
    (0..entries / BATCH)
        .map(|_| {
            let log_entry = (0..BATCH)
                .map(|_| {
                    let c = random(callers);
                    entry(c, &host(c, random(DEGREE), mesh.services()))
                })
                .collect();
            StreamAccessLogsMessage {
                identifier: None,
                log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry })),
            }
            .encode_to_vec()
        })
        .collect()
}

struct Bench {
    edges: usize,
    mesh: Mesh,
    store: EdgeStore,
    messages: Vec<Vec<u8>>,
    decode: Vec<u64>,
    learn: Vec<u64>,
}

impl Bench {
    fn new(edges: usize, entries: usize) -> Self {
        let mesh = Mesh::new(edges);
        Self {
            edges,
            store: filled(&mesh),
            messages: messages(&mesh, entries),
            mesh,
            decode: Vec::new(),
            learn: Vec::new(),
        }
    }

    /// Picoseconds an entry, of decoding and of the rest.
    fn round(&mut self) -> anyhow::Result<()> {
        let peer = Peer::Address(std::net::Ipv4Addr::LOCALHOST.into());
        let rules = Rules {
            speakers: Speakers::trusting(["127.0.0.0/8".parse()?]),
            ..Rules::default()
        };
        let (mut decode, mut rest, mut known) = (Duration::ZERO, Duration::ZERO, 0);
        for bytes in &self.messages {
            let start = Instant::now();
            let message = StreamAccessLogsMessage::decode(bytes.as_slice())?;
            let decoded = Instant::now();
            let learned = learn(&message, &Sender::Fallback, &peer, &self.mesh, &rules);
            known += self.store.see_all(&learned.observed_calls, at(60)).known;
            rest += decoded.elapsed();
            // Freeing the message is a part of reading it.
            let freeing = Instant::now();
            drop(learned);
            drop(message);
            decode += decoded.duration_since(start) + freeing.elapsed();
        }
        let entries = (self.messages.len() * BATCH) as u64;
        ensure!(known == entries, "{known} of {entries} entries are known");
        let each = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(0) * 1000 / entries;
        self.decode.push(each(decode));
        self.learn.push(each(rest));
        Ok(())
    }

    fn figures(&self) -> Value {
        let nanos = |values: &[u64]| median(values).unwrap_or(0) as f64 / 1000.0;
        let (decode, learn) = (nanos(&self.decode), nanos(&self.learn));
        let both: Vec<u64> = self
            .decode
            .iter()
            .zip(&self.learn)
            .map(|(a, b)| a + b)
            .collect();
        json!({
            "edges": self.edges,
            "decodeNanosPerEntry": decode,
            "learnNanosPerEntry": learn,
            "entriesPerSecond": (1e9 / nanos(&both)).round(),
        })
    }
}

/// Memory of a store with this many edges, in MiB.
fn memory(edges: usize) -> f64 {
    let mesh = Mesh::new(edges);
    let before = usage::memory().resident;
    let store = filled(&mesh);
    let after = usage::memory().resident;
    drop(store);
    after - before
}

/// Five days of a mesh in which each hour `churn` of 1,000 edges are replaced by others.
///
/// A tenth of the edges is called once an hour, the others all the time. The answer is written forms of callers an hour,
/// and the same without the hours that learn everything.
fn days(edges: usize, churn: usize) -> Value {
    let mesh = Mesh::new(edges);
    let store = filled(&mesh);
    let callers: Vec<Caller> = (0..mesh.callers.len()).map(caller).collect();
    let mut calls: Vec<(usize, String)> = (0..edges)
        .map(|e| (e / DEGREE, host(e / DEGREE, e % DEGREE, mesh.services())))
        .collect();
    let mut written: BTreeMap<Caller, _> = BTreeMap::new();
    for caller in &callers {
        written.insert(caller.clone(), store.to_dependencies(caller));
    }
    let hours = 120_u64;
    let per_hour = 3600 / SAMPLE.as_secs();
    let (mut writes, mut touched) = (0_u64, BTreeSet::new());
    for sample in 0..hours * per_hour {
        let now = at(sample * SAMPLE.as_secs());
        if sample % per_hour == 0 {
            for gone in 0..edges * churn / 1000 {
                let which = (usize::try_from(sample).unwrap_or(0) * 31 + gone * 101) % edges;
                calls[which].1 = format!("new-{sample}-{gone}.ns-1.svc.cluster.local");
            }
        }
        store.watched(&callers, SAMPLE);
        let seen: Vec<ObservedCall<'_>> = calls
            .iter()
            .enumerate()
            .filter(|(e, _)| e % 10 != 0 || sample % per_hour == 0)
            .map(|(_, (c, host))| {
                let host = HostName::Text(host.as_str().into());
                ObservedCall::new(callers[*c].clone(), host, true, Evidence::AccessLog)
            })
            .collect();
        store.see_all(&seen, now);
        store.tick(SAMPLE * u32::try_from(sample).unwrap_or(0));
        for caller in store.drain_changes() {
            let form = store.to_dependencies(&caller);
            if written.get(&caller) != Some(&form) {
                writes += 1;
                touched.insert(caller.clone());
                written.insert(caller, form);
            }
        }
    }
    json!({
        "edges": edges,
        "callers": callers.len(),
        "edgesReplacedPerHour": edges * churn / 1000,
        "writesPerHour": writes as f64 / hours as f64,
        "callersWritten": touched.len(),
    })
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // First, while the allocator has nothing to give again.
    let mebibytes = memory(100_000);
    let mut benches: Vec<Bench> = SIZES.iter().map(|s| Bench::new(*s, args.entries)).collect();
    for _ in 0..args.rounds {
        for bench in &mut benches {
            bench.round()?;
        }
    }
    let entries: Vec<Value> = benches.iter().map(Bench::figures).collect();
    let cost = |i: usize| entries[i]["learnNanosPerEntry"].as_f64().unwrap_or(0.0);
    let report = json!({
        "machine": usage::machine(),
        "entries": entries,
        "learnCostAt100000To1000": cost(2) / cost(0),
        "memoryMiBAt100000": mebibytes,
        "bytesPerEdge": (mebibytes * 1_048_576.0 / 100_000.0).round(),
        "steady": days(10_000, 0),
        "churn": days(10_000, 10),
    });
    if let Some(folder) = args.out.parent() {
        fs::create_dir_all(folder)?;
    }
    let text = serde_json::to_string_pretty(&report)?;
    fs::write(&args.out, &text)?;
    println!("{text}");
    Ok(())
}
