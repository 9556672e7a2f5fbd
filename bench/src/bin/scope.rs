//! Lazy scoping on synthetic meshes with known truth: recall, precision, size against the ideal, and writes.
//!
//! Each mesh lives for two weeks, hour by hour. Calls arrive as access log entries, as a proxy writes them, in all the
//! forms that callers use; between them the callers' telemetry is there, so that what is not called ages. The scopes are
//! those that the operator would write.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress};
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, HttpAccessLogEntry, HttpRequestProperties, TcpAccessLogEntry,
};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, LogEntries, TcpAccessLogEntries,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use trimtab_bench::synthetic::{Form, HOURS, Objects, Synthetic, synthetic};
use trimtab_crds::fence::DependencyState;
use trimtab_lazyload::config::LazyloadConfig;
use trimtab_lazyload::edges::{EdgeState, EdgeStore, Limits};
use trimtab_lazyload::learn::Rules;
use trimtab_lazyload::learn::access_log::{Sender, learn};
use trimtab_lazyload::learn::peer::{Peer, Speakers};
use trimtab_lazyload::mesh::{Fence, Index};
use trimtab_lazyload::object::{Caller, FenceKey};
use trimtab_lazyload::scope::{Learned, Scope, ScopeInput, Settings};
use trimtab_mesh::model::{EndpointSlice, Pod, Service, ServiceEntry, VirtualService};

const HOUR: Duration = Duration::from_secs(3600);
/// Watched hours for which an edge lives at least: the default of `retention.min`.
const RETENTION: u64 = 72;
/// When the mesh is looked at: once a day after the first week.
const LOOKS: std::ops::Range<u64> = 7..14;

/// Measures scopes on synthetic meshes.
#[derive(Debug, Parser)]
struct Args {
    /// Meshes as SERVICES/DEGREE
    #[arg(long = "mesh", default_values = ["400/5", "2000/8", "10000/10"])]
    meshes: Vec<String>,
    /// Seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the figures go
    #[arg(long, default_value = "target/bench/scope.json")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "scope: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let mut stdout = std::io::stdout();
    for mesh in &args.meshes {
        let (services, degree) = mesh
            .split_once('/')
            .and_then(|(s, d)| Some((s.parse().ok()?, d.parse().ok()?)))
            .with_context(|| format!("--mesh {mesh}: write for example 400/5"))?;
        let row = Run::new(synthetic(services, degree, args.seed))?.live()?;
        writeln!(stdout, "{}", serde_json::to_string_pretty(&row)?)?;
        rows.push(row);
    }
    if let Some(folder) = args.out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(
        &args.out,
        serde_json::to_string_pretty(&json!({"meshes": rows}))?,
    )?;
    writeln!(stdout, "results in {}", args.out.display())?;
    Ok(())
}

/// Scopes against the truth, summed over looks and fences.
#[derive(Debug, Default)]
struct Score {
    needed: usize,
    found: usize,
    imported: usize,
    useful: usize,
    ideal: usize,
    missing: BTreeSet<String>,
}

struct Run {
    mesh: Synthetic,
    index: Arc<Index>,
    store: EdgeStore,
    settings: Settings,
    scopes: BTreeMap<FenceKey, Scope>,
    /// Edges of [`Synthetic::edges`] by caller.
    by_caller: Vec<Vec<usize>>,
    writes: Vec<u64>,
    entries: u64,
    ingest: Duration,
    compute: Duration,
    computed: u64,
}

impl Run {
    fn new(mesh: Synthetic) -> anyhow::Result<Self> {
        let config = LazyloadConfig {
            workload_label: "app".to_owned(),
            ..LazyloadConfig::default()
        };
        let objects = Objects::of(&mesh)?;
        let tables = trimtab_mesh::Mesh::new(&config.domain);
        let index = Index::new(&config, &tables);
        index.attach(&tables);
        tables.table::<Service>().replace(&objects.services);
        tables.table::<EndpointSlice>().replace(&objects.slices);
        tables.table::<Pod>().replace(&objects.pods);
        tables.table::<ServiceEntry>().replace(&objects.entries);
        let routes = tables.table::<VirtualService>();
        routes.replace(&objects.virtual_services);
        tables.table::<Fence>().replace(&objects.fences);
        index.drain_changes();
        let mut by_caller = vec![Vec::new(); mesh.callers.len()];
        for (number, edge) in mesh.edges.iter().enumerate() {
            by_caller[edge.caller].push(number);
        }
        Ok(Self {
            store: EdgeStore::new(Limits::new(
                &config.retention,
                config.learn.hosts_per_caller,
            )),
            settings: Settings::new(&config, Vec::new()),
            index,
            scopes: BTreeMap::new(),
            by_caller,
            writes: Vec::new(),
            entries: 0,
            ingest: Duration::ZERO,
            compute: Duration::ZERO,
            computed: 0,
            mesh,
        })
    }

    fn live(mut self) -> anyhow::Result<Value> {
        let mut score = Score::default();
        for hour in 0..HOURS {
            let now = Timestamp::from_second(1_800_000_000 + i64::try_from(hour * 3600)?)?;
            let callers: Vec<&Caller> =
                self.mesh.callers.iter().map(|(caller, _)| caller).collect();
            self.store.watched(callers, HOUR);
            self.store.tick(HOUR * u32::try_from(hour)?);
            self.calls(hour, now);
            self.write(now);
            if hour % 24 == 23 && LOOKS.contains(&(hour / 24)) {
                self.look(hour, &mut score);
            }
        }
        Ok(self.report(&score))
    }

    /// All calls of an hour, a message for each caller and kind.
    fn calls(&mut self, hour: u64, now: Timestamp) {
        let peer = Peer::Address(std::net::Ipv4Addr::LOCALHOST.into());
        let rules = Rules {
            speakers: Speakers::trusting("127.0.0.0/8".parse().ok()),
            ..Rules::default()
        };
        for (caller, edges) in self.by_caller.iter().enumerate() {
            let (mut http, mut tcp) = (Vec::new(), Vec::new());
            for edge in edges
                .iter()
                .map(|e| &self.mesh.edges[*e])
                .filter(|e| e.called(hour))
            {
                let source = self.mesh.callers[caller].1[usize::from(hour % 2 == 1)];
                let mut common = AccessLogCommon {
                    downstream_direct_remote_address: Some(at(source, 40_000)),
                    ..AccessLogCommon::default()
                };
                match &edge.form {
                    Form::Name(authority) => http.push(HttpAccessLogEntry {
                        common_properties: Some(common),
                        request: Some(HttpRequestProperties {
                            authority: authority.clone(),
                            ..HttpRequestProperties::default()
                        }),
                        ..HttpAccessLogEntry::default()
                    }),
                    Form::Address(address) => {
                        common.downstream_local_address = Some(at(*address, 8080));
                        tcp.push(TcpAccessLogEntry {
                            common_properties: Some(common),
                            ..TcpAccessLogEntry::default()
                        });
                    }
                }
            }
            self.entries += (http.len() + tcp.len()) as u64;
            let messages = [
                LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: http }),
                LogEntries::TcpLogs(TcpAccessLogEntries { log_entry: tcp }),
            ];
            for entries in messages {
                let message = StreamAccessLogsMessage {
                    identifier: None,
                    log_entries: Some(entries),
                };
                let begun = Instant::now();
                let learned = learn(
                    &message,
                    &Sender::Fallback,
                    &peer,
                    self.index.as_ref(),
                    &rules,
                );
                self.store.see_all(&learned.observed_calls, now);
                self.ingest += begun.elapsed();
            }
        }
    }

    /// Works out the fences of callers whose edges have changed; a Sidecar with other hosts would be written.
    fn write(&mut self, now: Timestamp) {
        let begun = Instant::now();
        let mut dirty = BTreeSet::new();
        for caller in self.store.drain_changes() {
            dirty.extend(self.index.fences_of(&caller));
        }
        let mut writes = 0;
        for key in dirty {
            let Some(fence) = self.index.resolve(&key) else {
                continue;
            };
            let learned: Vec<Learned> = fence
                .callers
                .iter()
                .flat_map(|caller| self.store.of(caller))
                .map(|edge| Learned {
                    host: edge.host,
                    state: match edge.state {
                        EdgeState::Active => DependencyState::Active,
                        EdgeState::Expiring => DependencyState::Expiring,
                        EdgeState::Expired => DependencyState::Expired,
                    },
                    evidence: edge.evidence.into_iter().collect(),
                    last_seen: Some(edge.last_seen),
                })
                .collect();
            let before = self.scopes.get(&key).cloned().unwrap_or_default();
            let scope = self.index.scope(&ScopeInput {
                fence: &key,
                spec: &fence.spec,
                created: fence.created,
                learned: &learned,
                before: &before.domains,
                fading: &before.fading,
                now,
                settings: &self.settings,
                required: &[],
            });
            self.computed += 1;
            if !scope.entries.keys().eq(before.entries.keys()) {
                writes += 1;
            }
            self.scopes.insert(key, scope);
        }
        self.writes.push(writes);
        self.compute += begun.elapsed();
    }

    fn look(&self, hour: u64, score: &mut Score) {
        for (number, (caller, _)) in self.mesh.callers.iter().enumerate() {
            let key = FenceKey {
                namespace: caller.namespace.to_string(),
                name: caller.workload.to_string(),
            };
            let (mut needed, mut ideal) = (BTreeSet::new(), BTreeSet::new());
            for edge in self.by_caller[number].iter().map(|e| &self.mesh.edges[*e]) {
                if edge.called_within(hour, RETENTION) {
                    needed.extend(edge.needs.iter().map(String::as_str));
                }
                if edge.alive(hour) {
                    ideal.extend(edge.needs.iter().map(String::as_str));
                }
            }
            let imported: BTreeSet<&str> =
                self.scopes.get(&key).map_or_else(BTreeSet::new, |scope| {
                    let services = scope.imports.services.keys();
                    services
                        .filter_map(|s| s.split_once('/'))
                        .map(|(_, host)| host)
                        .collect()
                });
            score.needed += needed.len();
            score.found += needed.intersection(&imported).count();
            score.imported += imported.len();
            score.useful += imported.intersection(&ideal).count();
            score.ideal += ideal.len();
            let missing = needed
                .difference(&imported)
                .map(|host| format!("{key} -> {host}"));
            score.missing.extend(missing.take(3));
        }
    }

    fn report(&self, score: &Score) -> Value {
        let share = |a: usize, b: usize| a as f64 / b.max(1) as f64;
        let steady: u64 = self.writes.iter().skip(240).sum();
        let counts = self.store.counts();
        let missing: Vec<&String> = score.missing.iter().take(10).collect();
        let sizes = self
            .scopes
            .values()
            .map(|s| (s.size.bytes, s.size.mesh_bytes));
        let (own, mesh) = sizes.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        json!({
            "services": self.mesh.services.len(),
            "workloads": self.mesh.callers.len(),
            "dependencies": self.mesh.edges.len(),
            "recall": share(score.found, score.needed),
            "missing": missing,
            "precision": share(score.useful, score.imported),
            "scope_of_ideal": share(score.imported, score.ideal),
            "services_per_workload": share(score.imported, LOOKS.count() * self.mesh.callers.len()),
            "bytes_of_mesh": own as f64 / (mesh as f64).max(1.0),
            "edges_known": counts.edges,
            "log_entries": self.entries,
            "ingest_entries_per_second": self.entries as f64 / self.ingest.as_secs_f64(),
            "scope_microseconds": self.compute.as_secs_f64() * 1e6 / (self.computed.max(1) as f64),
            "sidecar_writes_first_day": self.writes.iter().take(24).sum::<u64>(),
            "sidecar_writes_per_hour_last_four_days": steady as f64 / (HOURS - 240) as f64,
        })
    }
}

fn at(address: std::net::Ipv4Addr, port: u32) -> Address {
    Address {
        address: Some(AddressKind::SocketAddress(SocketAddress {
            address: address.to_string(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..SocketAddress::default()
        })),
    }
}
