//! `trimtab fallback`: the objects of the fallback, for those who do not install it by the chart.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use trimtab_crds::NAMESPACE;
use trimtab_lazyload::fallback::proxy::ProxyOptions;
use trimtab_lazyload::fallback::{DEFAULT_PORT, Deploy, FallbackInput, filters, manifests, ports};

use crate::config::Config;
use crate::manifests::yaml;
use crate::modules;

/// Port of the access log server in a cluster.
const ACCESS_LOGS: u16 = 8082;

/// What is printed.
#[derive(Clone, Debug, Args)]
pub struct FallbackArgs {
    /// Configuration file
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Where the fallback sends its access logs; default: Service trimtab-leader in Trimtab's namespace, port 8082
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    access_logs: Option<String>,
    /// Port of the fallback's Service that takes unknown HTTP calls
    #[arg(long, default_value_t = DEFAULT_PORT)]
    port: u16,
    /// Image: a stock Envoy
    #[arg(long)]
    image: Option<String>,
    /// Pods of each fallback
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,
    /// The mesh's outboundTrafficPolicy is REGISTRY_ONLY, as by lazyload.fallback.registryOnly
    #[arg(long)]
    registry_only: bool,
    /// Also print the EnvoyFilters that lead calls to it, for the ports of lazyload.fallback.wormholePort. The operator writes
    /// them by itself, once there are pods
    #[arg(long)]
    filters: bool,
}

fn host_port(text: &str) -> Result<String, String> {
    let port = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(port) if port > 0 => Ok(text.to_owned()),
        _ => Err(format!(
            "\"{text}\" is not HOST:PORT: write for example trimtab-leader.{NAMESPACE}.svc:8082"
        )),
    }
}

impl FallbackArgs {
    /// The objects as YAML. Fails when the configuration does without a fallback.
    pub fn text(&self, config: &Config) -> anyhow::Result<String> {
        let mut lazyload = modules::lazyload(config);
        if !lazyload.enabled || !lazyload.fallback.enabled {
            bail!(
                "the configuration does without a fallback: set lazyload.enabled and lazyload.fallback.enabled to true"
            );
        }
        // Found ports belong to a running mesh.
        lazyload.fallback.auto_port = false;
        if self.registry_only {
            lazyload.fallback.registry_only = Some(true);
        }
        let own = format!(
            "trimtab-leader.{}.svc.{}:{ACCESS_LOGS}",
            lazyload.namespace, lazyload.domain
        );
        let default = Deploy::default();
        let mut input = FallbackInput {
            config: lazyload,
            port: self.port,
            proxy: ProxyOptions {
                access_log: self.access_logs.clone().unwrap_or(own),
                ..ProxyOptions::default()
            },
            deploy: Deploy {
                image: self.image.clone().unwrap_or(default.image),
                replicas: self.replicas.unwrap_or(default.replicas),
                ..default
            },
            ..FallbackInput::default()
        };
        input.check().map_err(anyhow::Error::msg)?;
        input.ports = ports::fixed(&input.config.fallback);
        let mut objects = manifests(&input);
        if self.filters {
            for filter in filters(&input) {
                objects.push(serde_json::to_value(filter)?);
            }
        }
        print(&objects)
    }
}

fn print(objects: &[Value]) -> anyhow::Result<String> {
    let mut out = String::new();
    for object in objects {
        let mut object = object.clone();
        // Generated types do not carry these two.
        if object["kind"].is_null() {
            object["apiVersion"] = json!("networking.istio.io/v1alpha3");
            object["kind"] = json!("EnvoyFilter");
        }
        out.push_str("---\n");
        out.push_str(&yaml(&object)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: FallbackArgs,
    }

    fn run(arguments: &[&str], config: &str) -> anyhow::Result<Vec<Value>> {
        let line = Line::try_parse_from(std::iter::once(&"x").chain(arguments))?;
        let config: Config = serde_saphyr::from_str(config)?;
        let text = line.args.text(&config)?;
        let parsed = crate::manifests::parse(std::path::Path::new("out"), &text)?;
        Ok(parsed.into_iter().map(|d| d.object).collect())
    }

    fn kinds(objects: &[Value]) -> Vec<&str> {
        objects.iter().filter_map(|o| o["kind"].as_str()).collect()
    }

    const OBJECTS: [&str; 6] = [
        "ServiceAccount",
        "ConfigMap",
        "Service",
        "DestinationRule",
        "PodDisruptionBudget",
        "Deployment",
    ];

    #[test]
    fn objects_and_filters_are_printed() {
        let objects = run(&[], "{}").unwrap();
        assert_eq!(kinds(&objects), OBJECTS);
        let config = objects[1]["data"]["envoy.json"].as_str().unwrap();
        assert!(
            config.contains("trimtab-leader.istio-system.svc.cluster.local"),
            "{config}"
        );
        let more = run(
            &["--filters", "--access-logs", "logs.example:9000", "--replicas", "3", "--port", "8000"],
            "lazyload: {namespace: mesh, fallback: {wormholePort: ['9080'], globalSidecarMode: namespace, namespace: [a, b]}}",
        )
        .unwrap();
        assert_eq!(kinds(&more).len(), 2 * OBJECTS.len() + 2);
        let ports = &more[2]["spec"]["ports"];
        assert_eq!(ports[0]["port"], 8000);
        assert_eq!(ports[1]["port"], 9080);
        assert_eq!(more[5]["spec"]["replicas"], 3);
        assert_eq!(
            more.last()
                .map(|o| (&o["kind"], &o["metadata"]["namespace"])),
            Some((&json!("EnvoyFilter"), &json!("b")))
        );
        let config = more[1]["data"]["envoy.json"].as_str().unwrap();
        assert!(config.contains("logs.example"), "{config}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let off = run(&[], "lazyload: {fallback: {enabled: false}}").unwrap_err();
        assert!(
            off.to_string().contains("lazyload.fallback.enabled"),
            "{off}"
        );
        for (arguments, config, wanted) in [
            (&["--port", "15081"][..], "{}", "port 15081"),
            (&["--port", "0"], "{}", "port is 0"),
            (
                &[],
                "lazyload: {fallback: {wormholePort: ['15081']}}",
                "lazyload.fallback.wormholePort",
            ),
        ] {
            let error = run(arguments, config).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        for bad in ["trimtab", "trimtab:", ":8082", "trimtab:0", "trimtab:x"] {
            let error = run(&["--access-logs", bad], "{}").unwrap_err();
            assert!(error.to_string().contains("is not HOST:PORT"), "{error}");
        }
    }
}
