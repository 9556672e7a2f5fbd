//! Memory of the operator in a large mesh, against a program that keeps whole objects in one reflector store a kind.
//!
//! The API is in a process of its own; so are the operator and the stores, which use the same allocator. Besides, the CPU
//! time that each of them takes for a changed Service and for a new list of a kind.

use std::future::Future;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, ValueEnum};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::{reflector, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab_bench::large::Large;
use trimtab_bench::usage;
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::fence::ServiceFence;
use trimtab_crds::istio::{DestinationRule, EnvoyFilter, ServiceEntry, Sidecar, VirtualService};
use trimtab_crds::limiter::v1alpha2::SmartLimiter;
use trimtab_crds::metaprotocol::{ApplicationProtocol, MetaRouter};
use trimtab_crds::redis::{RedisDestination, RedisService};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longest wait for anything.
const BOUND: Duration = Duration::from_secs(900);
/// Memory is read when it has been the same, within one MiB, for so long.
const QUIET: Duration = Duration::from_secs(5);
/// The kinds that are listed again.
const RELISTED: [&str; 3] = ["services", "endpointslices", "pods"];
/// Services that are changed, one after the other.
const CHANGES: usize = 500;
/// A process has done its work when it took less CPU time than `IDLE_CPU` for so long.
const IDLE: Duration = Duration::from_secs(2);
/// What timers take in that time.
const IDLE_CPU: Duration = Duration::from_millis(10);

/// Measures memory in a large mesh.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Services, each with an EndpointSlice.
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// Pods in all.
    #[arg(long, default_value_t = 50_000)]
    pods: usize,
    /// Objects of each of our kinds and of each of Istio's.
    #[arg(long, default_value_t = 1_000)]
    objects: usize,
    /// What this process is; the run itself starts the others.
    #[arg(long, value_enum, hide = true)]
    role: Option<Role>,
    /// Where the API is.
    #[arg(long, hide = true)]
    api: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Host,
    Operator,
    Stores,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.role {
        None => run(&args).await,
        Some(Role::Host) => host(&args).await,
        Some(Role::Operator) => operator(&args).await,
        Some(Role::Stores) => stores(&args).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "memory: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let (mut host, line) = start(args, Role::Host, None).await?;
    let api: SocketAddr = line.parse().context("address of the API")?;
    let api_args = Args {
        api: Some(api),
        ..args.clone()
    };
    let pods = Api::<Pod>::all(client(&api_args)?);
    let one = pods.list(&ListParams::default().limit(1)).await?;
    let rest = one.metadata.remaining_item_count.unwrap_or_default();
    ensure!(
        one.items.len() + usize::try_from(rest)? == args.pods,
        "the API does not have all pods"
    );
    let mut rows = Vec::new();
    for (name, role) in [
        ("whole objects, one store a kind", Role::Stores),
        ("operator, first start", Role::Operator),
        ("operator, restart", Role::Operator),
    ] {
        let (mut child, line) = start(args, role, Some(api)).await?;
        let mut numbers = line
            .split_whitespace()
            .filter_map(|n| n.parse::<f64>().ok());
        let mut next = || numbers.next().context("a number");
        let (resident, peak, cpu) = (next()?, next()?, next()?);
        println!("| {name:<32} | {resident:>6.0} MiB | peak {peak:>6.0} MiB | {cpu:>6.1} s CPU |");
        rows.push((resident, peak));
        work(&api_args, &mut host, &child).await?;
        child.kill().await?;
    }
    for (resident, peak) in &rows[1..] {
        println!(
            "of the stores: {:.2} after start, {:.2} peak",
            resident / rows[0].0,
            peak / rows[0].1
        );
    }
    Ok(())
}

/// Prints the CPU time that a process takes for changes and for new lists.
async fn work(args: &Args, host: &mut Child, child: &Child) -> anyhow::Result<()> {
    let process = child.id().context("the process has ended")?.to_string();
    let before = idle(&process).await?;
    let all = Api::<Service>::all(client(args)?);
    let some = ListParams::default().limit(CHANGES.try_into()?);
    let list = all.list(&some);
    let stamp = before.as_nanos().to_string();
    for service in list.await?.items {
        let namespace = service.metadata.namespace.unwrap_or_default();
        let api = Api::<Service>::namespaced(all.clone().into_client(), &namespace);
        let change = serde_json::json!({"metadata": {"labels": {"changed": stamp}}});
        let name = service.metadata.name.context("a name")?;
        api.patch(&name, &PatchParams::default(), &Patch::Merge(change))
            .await?;
    }
    let spent = idle(&process).await?.saturating_sub(before);
    let each = spent.as_secs_f64() * 1e6 / CHANGES as f64;
    println!("|   {CHANGES} Services changed one by one: {each:.0} us CPU each");
    for kind in RELISTED {
        let before = idle(&process).await?;
        let input = host.stdin.as_mut().context("no input")?;
        input.write_all(format!("{kind}\n").as_bytes()).await?;
        // It tries again after a pause of a second or so.
        let begin = Instant::now();
        while usage::cpu_of(&process).saturating_sub(before) < IDLE_CPU {
            ensure!(begin.elapsed() < BOUND, "{kind} were not listed again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let spent = idle(&process).await?.saturating_sub(before);
        println!("|   {kind} listed again: {} ms CPU", spent.as_millis());
    }
    Ok(())
}

/// Waits until a process is idle, and gives its CPU time.
async fn idle(process: &str) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    loop {
        let before = usage::cpu_of(process);
        tokio::time::sleep(IDLE).await;
        let now = usage::cpu_of(process);
        if now.saturating_sub(before) < IDLE_CPU {
            return Ok(now);
        }
        ensure!(begin.elapsed() < BOUND, "the process is never idle");
    }
}

/// Starts this program in a role; gives the first line that it prints.
async fn start(
    args: &Args,
    role: Role,
    api: Option<SocketAddr>,
) -> anyhow::Result<(Child, String)> {
    let value = role.to_possible_value().context("a role")?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--role", value.get_name()])
        .args(["--services", &args.services.to_string()])
        .args(["--pods", &args.pods.to_string()])
        .args(["--objects", &args.objects.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    if let Some(api) = api {
        command.args(["--api", &api.to_string()]);
    }
    let mut child = command.spawn().context("a process cannot be started")?;
    let output = child.stdout.take().context("no output")?;
    let line = BufReader::new(output).lines().next_line().await?;
    Ok((child, line.context("a process ended early")?))
}

async fn host(args: &Args) -> anyhow::Result<()> {
    let embedded = std::sync::Arc::new(trimtab::standalone::embedded()?);
    let mesh = Large {
        services: args.services,
        pods: args.pods,
        objects: args.objects,
    };
    mesh.each(|object| Ok(embedded.load(object)?))?;
    embedded.set_history(args.pods);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    let relisted = std::sync::Arc::clone(&embedded);
    std::thread::spawn(move || {
        for kind in std::io::stdin().lines().map_while(Result::ok) {
            relisted.expire_history(&kind);
        }
    });
    embedded.serve(listener, CancellationToken::new()).await?;
    Ok(())
}

fn client(args: &Args) -> anyhow::Result<Client> {
    let api = args.api.context("--api is missing")?;
    let url = format!("http://{api}").parse().context("address")?;
    Ok(Client::try_from(kube::Config::new(url))?)
}

/// Prints memory and CPU time once memory is steady.
async fn report() -> anyhow::Result<()> {
    let (begin, mut since, mut last) = (Instant::now(), Instant::now(), 0.0_f64);
    while since.elapsed() < QUIET {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = usage::memory().resident;
        if (now - last).abs() > 1.0 {
            (last, since) = (now, Instant::now());
        }
        if begin.elapsed() > BOUND {
            bail!("memory never was steady");
        }
    }
    let memory = usage::memory();
    let cpu = usage::process_cpu().as_secs_f64();
    println!("{} {} {cpu}", memory.resident, memory.peak);
    std::future::pending().await
}

async fn operator(args: &Args) -> anyhow::Result<()> {
    let mut config = Config::default();
    config.http.address.set_port(0);
    config.xds.address.set_port(0);
    for module in ["lazyload", "metaprotocol"] {
        let section = serde_json::json!({"enabled": true});
        config.modules.insert(module.to_owned(), section);
    }
    let operator = Operator::start(config, client(args)?, CancellationToken::new()).await?;
    let begin = Instant::now();
    while !operator.readiness.missing().is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if begin.elapsed() > BOUND {
            bail!("not ready: {:?}", operator.readiness.missing());
        }
    }
    report().await
}

type Ready = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Keeps all objects of a kind; ready after the first list.
fn store<K>(client: &Client) -> Ready
where
    K: Resource<DynamicType = ()>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let (reader, writer) = reflector::store::<K>();
    let watching = watcher(Api::<K>::all(client.clone()), watcher::Config::default());
    tokio::spawn(async move {
        let stream = reflector(writer, watching);
        futures::pin_mut!(stream);
        while stream.next().await.is_some() {}
    });
    Box::pin(async move {
        let _ = reader.wait_until_ready().await;
        // It lives as long as the process.
        std::mem::forget(reader);
    })
}

async fn stores(args: &Args) -> anyhow::Result<()> {
    let client = client(args)?;
    let all = [
        store::<Service>(&client),
        store::<Pod>(&client),
        store::<EndpointSlice>(&client),
        store::<Namespace>(&client),
        store::<ServiceEntry>(&client),
        store::<VirtualService>(&client),
        store::<DestinationRule>(&client),
        store::<Sidecar>(&client),
        store::<EnvoyFilter>(&client),
        store::<SmartLimiter>(&client),
        store::<ServiceFence>(&client),
        store::<MetaRouter>(&client),
        store::<ApplicationProtocol>(&client),
        store::<RedisService>(&client),
        store::<RedisDestination>(&client),
        store::<DubboAuthorizationPolicy>(&client),
    ];
    for ready in all {
        tokio::time::timeout(BOUND, ready).await?;
    }
    report().await
}
