//! A real Prometheus.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::{Process, Spec, cache_dir, find_program, wait_until};
use crate::{LabError, http, ports};

/// Longest wait for a start, replay of a killed server's log included.
const START_BOUND: Duration = Duration::from_secs(60);

/// Path of the metrics of an Envoy's admin interface.
pub const ENVOY_METRICS_PATH: &str = "/stats/prometheus";

/// Something to scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its address.
    pub address: SocketAddr,
    /// Path of its metrics.
    pub path: String,
    /// Labels added to its series; a label of the same name in the metrics wins.
    pub labels: BTreeMap<String, String>,
}

impl Target {
    /// A target without labels.
    pub fn new(address: SocketAddr, path: &str) -> Self {
        Self {
            address,
            path: path.to_owned(),
            labels: BTreeMap::new(),
        }
    }

    /// The same target with one more label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// Finds the Prometheus to run: `PROMETHEUS_BIN`, the one `make deps` unpacked, or `prometheus` on `PATH`.
pub fn find() -> Result<PathBuf, LabError> {
    find_program(
        "prometheus",
        "PROMETHEUS_BIN",
        &[cache_dir().join("prometheus/usr/bin/prometheus")],
    )
}

/// A running Prometheus; dropping it kills it.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
    targets: PathBuf,
}

impl Prometheus {
    /// Starts it in `dir` (configuration, data and log), scraping every `interval`; ready when this returns.
    pub async fn start(
        dir: &Path,
        interval: Duration,
        targets: &[Target],
    ) -> Result<Self, LabError> {
        fs::create_dir_all(dir).map_err(LabError::file(dir))?;
        // Prometheus takes relative file names from the folder of its configuration, not from the current one.
        let dir = dir.canonicalize().map_err(LabError::file(dir))?;
        let targets_file = dir.join("targets.json");
        write_targets(&targets_file, targets)?;
        let config = dir.join("prometheus.json");
        fs::write(&config, configuration(&targets_file, interval).to_string())
            .map_err(LabError::file(&config))?;
        let address = ports::free_address()?;
        let args = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", dir.join("data").display()),
            format!("--web.listen-address={address}"),
            "--log.level=warn".to_owned(),
            // Targets wait twice before they are scraped: in discovery, always 5 s, and for this interval, 5 s too
            // unless set.
            "--scrape.discovery-reload-interval=1s".to_owned(),
        ];
        let process = Process::start(Spec {
            name: "Prometheus".to_owned(),
            program: find()?,
            args: args.into_iter().map(OsString::from).collect(),
            log: dir.join("prometheus.log"),
        })?;
        let mut prometheus = Self {
            process,
            address,
            targets: targets_file,
        };
        prometheus.wait_ready().await?;
        Ok(prometheus)
    }

    async fn wait_ready(&mut self) -> Result<(), LabError> {
        let address = self.address;
        self.process
            .wait_ready(START_BOUND, || async move {
                http::get(address, "/-/ready")
                    .await
                    .map(drop)
                    .map_err(|error| error.to_string())
            })
            .await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The process, for its id and its log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Replaces the targets. Prometheus gathers changes for five seconds before it follows them, so a pod that is to be
    /// scraped from its first moment is better listed before it exists.
    pub fn set_targets(&self, targets: &[Target]) -> Result<(), LabError> {
        write_targets(&self.targets, targets)
    }

    /// Runs an instant query and returns `data.result`.
    pub async fn query(&self, expression: &str) -> Result<Value, LabError> {
        let path = format!("/api/v1/query?query={}", percent_encode(expression));
        let text = http::get(self.address, &path).await?;
        let mut answer: Value = serde_json::from_str(&text).map_err(|error| LabError::Http {
            address: self.address,
            path,
            reason: format!("not JSON: {error}"),
        })?;
        Ok(answer["data"]["result"].take())
    }

    /// The value of a query with one result; `None` when it has none or several.
    pub async fn value(&self, expression: &str) -> Result<Option<f64>, LabError> {
        let result = self.query(expression).await?;
        let [sample] = result.as_array().map_or(&[][..], Vec::as_slice) else {
            return Ok(None);
        };
        Ok(sample["value"][1]
            .as_str()
            .and_then(|text| text.parse().ok()))
    }

    /// Waits until the query has one value that `accept` takes.
    pub async fn wait_value(
        &self,
        expression: &str,
        bound: Duration,
        accept: impl Fn(f64) -> bool,
    ) -> Result<f64, LabError> {
        let accept = &accept;
        wait_until(
            &format!("Prometheus query {expression}"),
            bound,
            || async move {
                match self.value(expression).await {
                    Ok(Some(value)) if accept(value) => Ok(value),
                    Ok(Some(value)) => Err(format!("the value is {value}")),
                    Ok(None) => Err("there is no value".to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            },
        )
        .await
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same address and data, ready when this returns.
    pub async fn restart(&mut self) -> Result<(), LabError> {
        self.process.restart()?;
        self.wait_ready().await
    }
}

/// JSON is YAML, and needs no quoting rules of its own.
fn configuration(targets: &Path, interval: Duration) -> Value {
    let interval = format!("{}ms", interval.as_millis());
    json!({
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "scrape_configs": [{
            "job_name": "lab",
            // Pods say their own namespace and name; Prometheus would rename these labels to exported_*.
            "honor_labels": true,
            "file_sd_configs": [{"files": [targets], "refresh_interval": "1s"}],
            "metric_relabel_configs": [{
                // Envoy puts its own prefix, and the stats logger's, before Istio's names.
                "source_labels": ["__name__"],
                "regex": "envoy_(?:istio_)?(istio_.*)",
                "target_label": "__name__",
                "replacement": "$1",
            }],
        }],
    })
}

fn write_targets(file: &Path, targets: &[Target]) -> Result<(), LabError> {
    let group = |target: &Target| {
        let mut labels = target.labels.clone();
        labels.insert("__metrics_path__".to_owned(), target.path.clone());
        json!({"targets": [target.address.to_string()], "labels": labels})
    };
    let groups: Vec<Value> = targets.iter().map(group).collect();
    // Renamed into place: Prometheus reads at any time, and half a file would drop all targets.
    let temporary = file.with_extension("tmp");
    fs::write(&temporary, Value::Array(groups).to_string()).map_err(LabError::file(&temporary))?;
    fs::rename(&temporary, file).map_err(LabError::file(file))
}

fn percent_encode(text: &str) -> String {
    text.bytes().fold(
        String::with_capacity(text.len() * 2),
        |mut encoded, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                encoded.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
            encoded
        },
    )
}
