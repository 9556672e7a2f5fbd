//! `make cluster`: the cluster of the tests, for a person.

use std::io::Write as _;

use trimtab_cluster::{Cluster, Istiod};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    match run().await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "starting etcd, kube-apiserver, kube-controller-manager and istiod ..."
    )?;
    let cluster = Cluster::start().await?;
    let istiod = Istiod::start(&cluster).await?;
    writeln!(out, "export KUBECONFIG={}", cluster.kubeconfig().display())?;
    writeln!(
        out,
        "API server {}, istiod {} (plain xDS) and http://{}/debug",
        cluster.server(),
        istiod.grpc(),
        istiod.http()
    )?;
    writeln!(
        out,
        "logs in {}; the CRDs of Istio and Trimtab are installed; pods have no kubelet",
        cluster.dir().display()
    )?;
    writeln!(out, "Ctrl-C ends it")?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}
