//! A real Envoy.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use trimtab_kit::envoy::re2::{MAX_PROGRAM, PROGRAM_SIZE_KEY};

use crate::process::{Process, Spec, cache_dir, find_program};
use crate::{LabError, http};

/// Longest wait for a start; it takes a fraction of a second on an idle machine.
const START_BOUND: Duration = Duration::from_secs(30);

/// Finds the Envoy to run: `ENVOY_BIN`, the one `make deps` installed, or `envoy` on `PATH`.
pub fn find() -> Result<PathBuf, LabError> {
    // The folder name carries the Python version that made the environment, so it has to be listed.
    let libraries = cache_dir().join("envoy/lib");
    let mut cached: Vec<PathBuf> = fs::read_dir(&libraries)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("site-packages/envoy/_bin/envoy"))
        .collect();
    cached.sort();
    find_program("envoy", "ENVOY_BIN", &cached)
}

/// Lets Envoy load a bootstrap configuration without running it; the error is Envoy's own reason.
///
/// What arrives later over xDS is not covered: drive traffic too.
pub fn validate(config: &Value) -> Result<(), String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let envoy = find().map_err(|error| error.to_string())?;
    let name = format!(
        "trimtab-validate-{}-{}.json",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let file = std::env::temp_dir().join(name);
    fs::write(&file, config.to_string()).map_err(|error| format!("{}: {error}", file.display()))?;
    // At this log level the reason is printed and nothing else; at `off` it would be lost.
    let output = Command::new(&envoy)
        .args(["--mode", "validate", "-l", "critical", "-c"])
        .arg(&file)
        .output();
    // A file left in the temporary folder is no reason to fail.
    let _ = fs::remove_file(&file);
    let output = output.map_err(|error| format!("{}: {error}", envoy.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    Err(text.trim().replace(&*file.to_string_lossy(), "bootstrap"))
}

/// `layered_runtime` as Istio's bootstrap has it, as far as it decides which configuration a proxy takes: regular
/// expressions may be larger than Envoy's 100 instructions.
pub fn istio_runtime() -> Value {
    json!({"layers": [{"name": "global config", "static_layer": {PROGRAM_SIZE_KEY: MAX_PROGRAM}}]})
}

/// The admin interface of an Envoy, whoever started it.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    address: SocketAddr,
}

/// A running Envoy; dropping it kills it.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    admin: Admin,
}

impl std::ops::Deref for Envoy {
    type Target = Admin;

    fn deref(&self) -> &Admin {
        &self.admin
    }
}

impl Envoy {
    /// Writes the bootstrap to `dir` and starts an Envoy on it, ready when this returns. Its log is `dir/envoy.log`.
    pub async fn start(config: &Value, dir: &Path) -> Result<Self, LabError> {
        let admin = socket_address(&config["admin"]["address"]).ok_or_else(|| {
            LabError::Config("admin.address.socket_address is missing or has no port".to_owned())
        })?;
        fs::create_dir_all(dir).map_err(LabError::file(dir))?;
        let file = dir.join("envoy.json");
        // JSON, because Envoy reads YAML 1.1, in which a listener named `n` is the value false.
        fs::write(&file, config.to_string()).map_err(LabError::file(&file))?;
        // Hot restart shares memory between the proxies of one machine; one worker makes counts exact.
        let mut args: Vec<_> = [
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "-l",
            "warning",
            "-c",
        ]
        .map(Into::into)
        .into();
        args.push(file.into_os_string());
        let name = format!(
            "Envoy {}",
            config["node"]["id"].as_str().unwrap_or_default()
        );
        let process = Process::start(Spec {
            name,
            program: find()?,
            args,
            log: dir.join("envoy.log"),
        })?;
        let mut envoy = Self {
            process,
            admin: Admin::new(admin),
        };
        envoy.wait_ready().await?;
        Ok(envoy)
    }

    async fn wait_ready(&mut self) -> Result<(), LabError> {
        let admin = self.admin();
        self.process
            .wait_ready(START_BOUND, || async move {
                http::get(admin, "/ready")
                    .await
                    .map(drop)
                    .map_err(|error| error.to_string())
            })
            .await
    }

    /// The process, for its id and its log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same configuration, ready when this returns.
    pub async fn restart(&mut self) -> Result<(), LabError> {
        self.process.restart()?;
        self.wait_ready().await
    }
}

impl Admin {
    /// The admin interface at an address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Address of the admin interface.
    pub fn admin(&self) -> SocketAddr {
        self.address
    }

    /// Whether it serves now.
    pub async fn ready(&self) -> bool {
        http::get(self.address, "/ready").await.is_ok()
    }

    /// Counters and gauges whose name begins with `prefix`.
    pub async fn stats(&self, prefix: &str) -> Result<BTreeMap<String, u64>, LabError> {
        let text = http::get(self.address, "/stats").await?;
        let parse = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            // Histograms and texts are no numbers and are left out.
            name.starts_with(prefix)
                .then(|| Some((name.to_owned(), value.trim().parse().ok()?)))?
        };
        Ok(text.lines().filter_map(parse).collect())
    }

    /// One counter or gauge; 0 when it does not exist, as Envoy creates many of them at first use.
    pub async fn stat(&self, name: &str) -> Result<u64, LabError> {
        Ok(self.stats(name).await?.get(name).copied().unwrap_or(0))
    }

    /// The configuration that is in force, endpoints included.
    pub async fn config_dump(&self) -> Result<Value, LabError> {
        self.json("/config_dump?include_eds").await
    }

    /// Version, node and the compiled-in extensions.
    pub async fn server_info(&self) -> Result<Value, LabError> {
        self.json("/server_info").await
    }

    /// The address a listener is bound to.
    pub async fn listener_address(&self, name: &str) -> Result<SocketAddr, LabError> {
        let list = self.json("/listeners?format=json").await?;
        list["listener_statuses"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|status| status["name"] == name)
            .and_then(|status| socket_address(&status["local_address"]))
            .ok_or_else(|| LabError::Config(format!("the proxy has no listener named {name}")))
    }

    async fn json(&self, path: &str) -> Result<Value, LabError> {
        let text = http::get(self.address, path).await?;
        serde_json::from_str(&text).map_err(|error| LabError::Http {
            address: self.address,
            path: path.to_owned(),
            reason: format!("not JSON: {error}"),
        })
    }
}

/// Reads an Envoy `Address` in its JSON form.
pub(crate) fn socket_address(address: &Value) -> Option<SocketAddr> {
    let socket = &address["socket_address"];
    let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
    Some(SocketAddr::new(
        socket["address"].as_str()?.parse().ok()?,
        port,
    ))
}
