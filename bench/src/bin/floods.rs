//! What floods cost: memory, CPU and what is refused, while a limit stays in force and probes are answered.
//!
//! The program runs as shipped, in a process of its own. The control is a stream of a proxy that holds a limit: it must stay
//! open, and the limit must neither change nor go. After all floods a new stream gets the limit.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use clap::Parser;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use trimtab_bench::floods::{ECDS, FLOODS, Ports, answers, channel, node, send, stream};
use trimtab_bench::usage;
use trimtab_lab::http::get;
use trimtab_lab::ports::free_address;

/// The chart's memory limit, in MiB.
const MEMORY: f64 = 512.0;
/// Longest wait for anything.
const BOUND: Duration = Duration::from_secs(60);
/// Limiters with a query of their own.
const GREEDY: usize = 8;

/// Floods the shipped program.
#[derive(Debug, Parser)]
struct Args {
    /// The program.
    #[arg(long)]
    trimtab: PathBuf,
    /// How long each flood lasts, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floods: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("trimtab-floods-{}", std::process::id()));
    fs::create_dir_all(folder.join("objects"))?;
    let result = floods(args, &folder).await;
    fs::remove_dir_all(&folder)?;
    result
}

async fn floods(args: &Args, folder: &Path) -> anyhow::Result<()> {
    let prometheus = prometheus().await?;
    let ports = Ports {
        http: free_address()?,
        xds: free_address()?,
        logs: free_address()?,
        mds: free_address()?,
    };
    let mut child = start(args, folder, ports, prometheus).await?;
    let mut control = Control::open(ports.xds, "control").await?;
    let lasting = Duration::from_secs(args.seconds);
    let mut failed = Vec::new();
    println!("| flood | RSS peak, MiB | CPU, s | refused | probes answered | control |");
    println!("|---|---|---|---|---|---|");
    for flood in FLOODS {
        let process = child.id().context("the program ended")?.to_string();
        fs::write(format!("/proc/{process}/clear_refs"), "5")?;
        let (cpu, refused) = (usage::cpu_of(&process), refusals(ports.http).await?);
        let probes = tokio::spawn(probe(ports.http, lasting));
        let ended = tokio::time::timeout(lasting, send(flood, ports)).await;
        if let Ok(Err(error)) = ended {
            bail!("{flood:?}: {error:#}");
        }
        let (answered, asked) = probes.await?;
        let spent = usage::cpu_of(&process).saturating_sub(cpu).as_secs_f64();
        let peak = usage::memory_of(&process).peak;
        let refused = refusals(ports.http).await? - refused;
        let control = control.check();
        println!(
            "| {} | {peak:.0} | {spent:.1} | {refused:.0} | {answered} of {asked} | {} |",
            flood.name(),
            if control.is_ok() { "held" } else { "LOST" }
        );
        let survived = peak < MEMORY && answered * 10 >= asked * 9 && control.is_ok();
        if !survived {
            failed.push(flood.name());
        }
    }
    Control::open(ports.xds, "late").await?;
    child.kill().await?;
    ensure!(
        failed.is_empty(),
        "over {MEMORY} MiB, without answers to probes, or without the limit: {}",
        failed.join("; ")
    );
    Ok(())
}

/// A proxy that holds the limit.
struct Control {
    responses: mpsc::UnboundedReceiver<DiscoveryResponse>,
}

impl Control {
    /// Asks until it gets the limit.
    async fn open(port: SocketAddr, id: &str) -> anyhow::Result<Self> {
        let begin = Instant::now();
        loop {
            match Self::once(port, id).await {
                Ok(control) => return Ok(control),
                Err(error) if begin.elapsed() > BOUND => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn once(port: SocketAddr, id: &str) -> anyhow::Result<Self> {
        let first = DiscoveryRequest {
            node: Some(node(id.into(), Node::default())),
            type_url: ECDS.into(),
            ..DiscoveryRequest::default()
        };
        let (sender, mut responses) = stream(channel(port).await?, first).await?;
        let got = tokio::time::timeout(BOUND, responses.message()).await??;
        let got = got.context("the stream ended")?;
        ensure!(!got.resources.is_empty(), "no limit");
        let ack = |response: &DiscoveryResponse| DiscoveryRequest {
            type_url: ECDS.into(),
            response_nonce: response.nonce.clone(),
            version_info: response.version_info.clone(),
            ..DiscoveryRequest::default()
        };
        sender.send(ack(&got)).await?;
        let (tell, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            // Dropping `tell` says that the stream has ended.
            while let Ok(Some(response)) = responses.message().await {
                let answered = sender.send(ack(&response)).await;
                if answered.is_err() || tell.send(response).is_err() {
                    return;
                }
            }
        });
        Ok(Self { responses: told })
    }

    /// Whether the stream is there and nothing came.
    fn check(&mut self) -> anyhow::Result<()> {
        match self.responses.try_recv() {
            Err(mpsc::error::TryRecvError::Empty) => Ok(()),
            Err(mpsc::error::TryRecvError::Disconnected) => bail!("the control's stream ended"),
            Ok(response) => bail!(
                "the control got {} resources anew",
                response.resources.len()
            ),
        }
    }
}

/// Asks the probes ten times a second; how often they answered, of how often they were asked.
async fn probe(http: SocketAddr, lasting: Duration) -> (usize, usize) {
    let (begin, mut answered, mut asked) = (Instant::now(), 0, 0);
    while begin.elapsed() < lasting {
        for path in ["/healthz", "/readyz"] {
            asked += 1;
            // The kubelet's default.
            let answer = tokio::time::timeout(Duration::from_secs(1), get(http, path)).await;
            answered += usize::from(matches!(answer, Ok(Ok(_))));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    (answered, asked)
}

/// What the program refused or dropped so far, of everything.
async fn refusals(http: SocketAddr) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let text = loop {
        match get(http, "/metrics").await {
            Ok(text) => break text,
            Err(error) if begin.elapsed() > BOUND => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    let counted = |line: &&str| {
        let refuses = [
            "_limited_total",
            "_refused_total",
            "_skipped_total",
            "_rejected_total",
        ];
        refuses.iter().any(|name| {
            line.split(['{', ' '])
                .next()
                .is_some_and(|n| n.ends_with(name))
        })
    };
    let values = text.lines().filter(counted);
    Ok(values
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum())
}

/// A Prometheus whose answers become large.
async fn prometheus() -> anyhow::Result<SocketAddr> {
    let series = |i: usize| {
        format!(
            r#"{{"metric":{{"a":"{i}","b":"{}"}},"value":[1,"1"]}}"#,
            "v".repeat(40)
        )
    };
    let many: Vec<String> = (0..750_000).map(series).collect();
    let large = format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#,
        many.join(",")
    );
    let large = axum::body::Bytes::from(large);
    let small = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
    let answer = move || {
        let body = if answers().exists() {
            Body::from(large.clone())
        } else {
            Body::from(small)
        };
        std::future::ready(Response::new(body))
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let router = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn start(
    args: &Args,
    folder: &Path,
    ports: Ports,
    prometheus: SocketAddr,
) -> anyhow::Result<Child> {
    let config = json!({
        "http": {"address": ports.http},
        "xds": {"address": ports.xds, "advertise": ports.xds},
        "limiter": {"refresh": "500ms", "delivery": "ECDS"},
        "metrics": {"prometheus": {"address": format!("http://{prometheus}"), "timeout": "5s"},
            "mds": {"address": ports.mds}},
        "lazyload": {"learn": {"accessLog": {"address": ports.logs}}, "fallback": {"enabled": false}},
    });
    let file = folder.join("config.yaml");
    fs::write(&file, config.to_string())?;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects()});
    fs::write(folder.join("objects/all.json"), list.to_string())?;
    let log = fs::File::create(folder.join("log"))?;
    let mut child = Command::new(&args.trimtab)
        .args(["run", "--config"])
        .arg(&file)
        .arg("--standalone")
        .arg(folder.join("objects"))
        // As the chart sets it.
        .env("MIMALLOC_ALLOW_THP", "0")
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{} cannot be started", args.trimtab.display()))?;
    let begin = Instant::now();
    while get(ports.http, "/readyz").await.is_err() {
        if let Some(status) = child.try_wait()? {
            bail!(
                "the program ended, {status}: {}",
                fs::read_to_string(folder.join("log"))?
            );
        }
        ensure!(begin.elapsed() < BOUND, "the program is not ready");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(child)
}

/// A service with a limit, a fence on its pod, and limiters with queries of their own.
fn objects() -> Vec<serde_json::Value> {
    let meta = |name: &str| json!({"name": name, "namespace": "stacks", "labels": {"app": "desk"}});
    let service = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(name),
            "spec": {"selector": {"app": "desk"}, "ports": [{"name": "http", "port": 8087}]}})
    };
    let limiter = |name: &str, metrics: serde_json::Value, condition: &str| {
        json!({"apiVersion": "microservice.slime.io/v1alpha2", "kind": "SmartLimiter",
            "metadata": meta(name),
            "spec": {"metrics": metrics, "sets": {"_base": {"descriptor": [{"condition": condition,
                "action": {"quota": "9", "fill_interval": {"seconds": 1}}}]}}}})
    };
    let mut all = vec![
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta("desk-1"),
            "spec": {"containers": [{"name": "app", "image": "desk:1"}, {"name": "istio-proxy", "image": "proxy:1"}]},
            "status": {"phase": "Running", "podIP": "127.0.0.1",
                "conditions": [{"type": "Ready", "status": "True"}]}}),
        json!({"apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence",
            "metadata": meta("desk"),
            "spec": {"enable": true, "workloadSelector": {"labels": {"app": "desk"}}}}),
        service("desk"),
        limiter("desk", json!({}), "true"),
    ];
    for i in 0..GREEDY {
        let name = format!("greedy{i}");
        all.push(service(&name));
        let query = json!({"load": {"query": format!("load{i}"), "type": "Group"}});
        all.push(limiter(&name, query, "{load} > 0.5"));
    }
    all
}
