//! Configuration of the lazyload module. Unknown keys are errors.
//!
//! Keys of Slime's `general` keep their names and meanings, in camelCase and in snake_case as Slime reads them; the others
//! are ours.

mod learn;
mod modes;
mod selector;

use regex::Regex;
use serde::{Deserialize, Serialize};
use trimtab_crds::Duration;
use trimtab_crds::fence::Mode;
use trimtab_kit::envoy::re2::{self, Engine};
use trimtab_kit::identity::PortSecurity;

pub(crate) use learn::PROMETHEUS;
pub use learn::{AccessLog, Learn, PrometheusLearning};
pub use modes::{AutoMode, Exclusions};
pub use selector::{LabelSelector, Operator, Requirement};

/// Port of the Service that takes TCP with a PROXY protocol header; not for HTTP.
pub const TCP_PORT: u16 = 15081;

/// In seconds.
const HOUR: u64 = 3600;

/// `lazyload:` in the operator's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key of its own in the file"
)]
pub struct LazyloadConfig {
    /// Whether the module runs.
    pub enabled: bool,
    /// Mode of fences that do not say.
    pub mode: Mode,
    /// The cluster domain: set by the operator from `mesh.domain`, no key of this section.
    #[serde(skip_serializing_if = "is_default_domain")]
    pub domain: String,
    /// Istio's root namespace.
    pub istio_namespace: String,
    /// Trimtab's own namespace.
    pub namespace: String,
    /// Istio revision that generated objects get as label `istio.io/rev`; empty: the fence's own label, or none.
    pub revision: String,
    /// Whether names that only Istio's DNS may know are in the scope of pods whose proxies answer DNS.
    pub dns_hosts: bool,
    /// Whether proxies fetch the keys of JWTs themselves (istiod's `PILOT_JWT_ENABLE_REMOTE_JWKS`): their servers are in scope.
    pub remote_jwks: bool,
    /// Services that every scope has: hosts, or `namespace/*`. Istio's namespace and Trimtab's are always in.
    #[serde(alias = "stable_host")]
    pub stable_host: Vec<String>,
    /// Hosts that stand for others.
    #[serde(alias = "domain_aliases")]
    pub domain_aliases: Vec<DomainAlias>,
    /// Slime's: keep the short name as well as the full one when learning. Kept, without effect, because learning finds the
    /// service that a short name means for its caller, and a Sidecar imports a service by its full name only.
    /// [`LazyloadConfig::warnings`] says so.
    #[serde(alias = "enable_short_domain")]
    pub enable_short_domain: bool,
    /// Label whose value is the fence's name on the pods of a fence without `workloadSelector` (Slime's `global.service`).
    pub workload_label: String,
    /// ServiceFences that Trimtab makes.
    pub fences: AutoFence,
    /// Where calls are learned from.
    pub learn: Learn,
    /// How long learned dependencies are kept.
    pub retention: Retention,
    /// What mode `Exclude` needs of Istio.
    pub exclusions: Exclusions,
    /// When mode `Auto` takes its steps.
    pub auto: AutoMode,
    /// What carries the calls to hosts that are not in scope.
    pub fallback: Fallback,
    /// Bounds of writes.
    pub writes: Writes,
    /// Fences with their own series in `/metrics`, at most.
    pub export_fences: usize,
}

fn is_default_domain(domain: &str) -> bool {
    domain == trimtab_mesh::DEFAULT_DOMAIN
}

impl Default for LazyloadConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            mode: Mode::Enforce,
            domain: trimtab_mesh::DEFAULT_DOMAIN.to_owned(),
            istio_namespace: "istio-system".to_owned(),
            namespace: trimtab_crds::NAMESPACE.to_owned(),
            revision: String::new(),
            dns_hosts: true,
            remote_jwks: false,
            stable_host: Vec::new(),
            domain_aliases: Vec::new(),
            enable_short_domain: false,
            workload_label: "app".to_owned(),
            fences: AutoFence::default(),
            learn: Learn::default(),
            retention: Retention::default(),
            exclusions: Exclusions::default(),
            auto: AutoMode::default(),
            fallback: Fallback::default(),
            writes: Writes::default(),
            export_fences: 1000,
        }
    }
}

/// A rule of Slime's `domainAliases`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DomainAlias {
    /// RE2; applies to a host that it matches exactly once.
    pub pattern: String,
    /// Hosts to add; `$name` or `$1` stands for a group of the pattern.
    pub templates: Vec<String>,
}

/// Which ServiceFences Trimtab makes, and deletes again when they are no longer wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AutoFence {
    /// Make a ServiceFence for each Service that is to be fenced.
    #[serde(alias = "auto_fence")]
    pub auto_fence: bool,
    /// Whether a Service is fenced when neither it nor its Namespace says.
    #[serde(alias = "default_fence")]
    pub default_fence: bool,
    /// Namespaces that get no fences, separated by commas; excludes `whiteNamespaceList`.
    #[serde(alias = "black_namespace_list")]
    pub black_namespace_list: String,
    /// The only namespaces that get fences, separated by commas.
    #[serde(alias = "white_namespace_list")]
    pub white_namespace_list: String,
    /// Label selectors; a Namespace must match one of them. None: every Namespace.
    #[serde(alias = "management_selectors")]
    pub management_selectors: Vec<LabelSelector>,
    /// `labelKey[:alias]`: a fence for each value of this pod label.
    #[serde(alias = "fence_label_key_alias")]
    pub fence_label_key_alias: String,
}

/// How long learned dependencies are kept, in time that was watched: time in which the telemetry of the caller was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Retention {
    /// At least this long.
    pub min: Duration,
    /// At least this many times the longest pause between two calls.
    pub gap_factor: u32,
    /// A dependency that has expired stays in the Sidecar for this long.
    pub grace: Duration,
    /// An expired dependency is remembered for this long, so that its next call tells how seldom it is called.
    pub remember: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            min: Duration::from_secs(72 * HOUR),
            gap_factor: 3,
            grace: Duration::from_secs(300),
            remember: Duration::from_secs(840 * HOUR),
        }
    }
}

/// What carries the calls to hosts that are not in scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key of its own in the file"
)]
pub struct Fallback {
    /// Whether Trimtab wires the fallback. False: unknown calls go where Istio's `outboundTrafficPolicy` sends them.
    pub enabled: bool,
    /// `cluster`: one fallback for the mesh; `namespace`: one in each of `namespaces`.
    #[serde(alias = "global_sidecar_mode")]
    pub global_sidecar_mode: GlobalSidecarMode,
    /// Namespace of the fallback in cluster mode; empty: Trimtab's.
    #[serde(alias = "cluster_gs_namespace")]
    pub cluster_gs_namespace: String,
    /// Namespaces of the fallbacks in namespace mode.
    pub namespace: Vec<String>,
    /// HTTP ports of services whose unknown calls are carried.
    #[serde(alias = "wormhole_port")]
    pub wormhole_port: Vec<String>,
    /// Find HTTP ports in the mesh, besides.
    #[serde(alias = "auto_port")]
    pub auto_port: bool,
    /// Also drop found ports that no service has any more.
    #[serde(alias = "cleanup_wormhole_port")]
    pub cleanup_wormhole_port: bool,
    /// Also take ports named `grpc` and `http2`.
    #[serde(alias = "support_h2")]
    pub support_h2: bool,
    /// Carry unknown TCP and TLS connections too. Without it they go where Istio sends them.
    pub tcp: bool,
    /// The mesh's `outboundTrafficPolicy` is REGISTRY_ONLY. It decides only what the fallback's own pods do with unknown TCP:
    /// nobody shall reach by the fallback what the mesh does not allow.
    ///
    /// Absent: as the MeshConfig says.
    pub registry_only: Option<bool>,
    /// Rules for hosts that go elsewhere.
    pub dispatches: Vec<Dispatch>,
    /// Unknown calls go to `PassthroughCluster` instead of the fallback.
    #[serde(alias = "passthrough_by_default")]
    pub passthrough_by_default: bool,
    /// Set the source headers by a Lua filter, for proxies that do not know `%ENVIRONMENT()%`.
    #[serde(alias = "add_env_header_via_lua")]
    pub add_env_header_via_lua: bool,
    /// RE2 for `match.proxy.proxyVersion` of every patch.
    #[serde(alias = "proxy_version")]
    pub proxy_version: String,
}

impl Default for Fallback {
    fn default() -> Self {
        Self {
            enabled: true,
            global_sidecar_mode: GlobalSidecarMode::Cluster,
            cluster_gs_namespace: String::new(),
            namespace: Vec::new(),
            wormhole_port: Vec::new(),
            auto_port: true,
            cleanup_wormhole_port: false,
            support_h2: true,
            tcp: false,
            registry_only: None,
            dispatches: Vec::new(),
            passthrough_by_default: false,
            add_env_header_via_lua: false,
            proxy_version: String::new(),
        }
    }
}

/// Slime's `globalSidecarMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GlobalSidecarMode {
    /// One fallback for the mesh.
    #[default]
    Cluster,
    /// One in each namespace.
    Namespace,
}

/// A rule of Slime's `dispatches`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Dispatch {
    /// Name of the virtual host.
    pub name: String,
    /// Domains as in an Envoy virtual host.
    pub domains: Vec<String>,
    /// RE2 on `:authority`, in place of `domains`.
    #[serde(alias = "domain_regex")]
    pub domain_regex: String,
    /// An Istio cluster name, `PassthroughCluster`, or `_GLOBAL_SIDECAR` for the fallback.
    pub cluster: String,
}

/// Bounds of writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Writes {
    /// Changes are gathered for this long, so that istiod pushes once for all of them.
    pub gather: Duration,
    /// Sidecars written a minute, at most; the rest waits. 0: no bound.
    pub per_minute: u32,
}

impl Default for Writes {
    fn default() -> Self {
        Self {
            gather: Duration::from_millis(100),
            per_minute: 600,
        }
    }
}

impl LazyloadConfig {
    /// Namespace of the fallback in cluster mode.
    pub fn fallback_namespace(&self) -> &str {
        if self.fallback.cluster_gs_namespace.is_empty() {
            &self.namespace
        } else {
            &self.fallback.cluster_gs_namespace
        }
    }

    /// Checks what types cannot say. The error names the key and the fix.
    pub fn check(&self) -> Result<(), String> {
        for (key, value) in [
            ("domain", &self.domain),
            ("istioNamespace", &self.istio_namespace),
            ("workloadLabel", &self.workload_label),
            ("namespace", &self.namespace),
        ] {
            if value.is_empty() {
                return Err(format!("lazyload.{key} is empty: give a name"));
            }
        }
        self.check_fences()?;
        self.auto.check()?;
        self.exclusions.check()?;
        if let Some(prometheus) = &self.learn.prometheus {
            let checked = prometheus.access().check(&PROMETHEUS);
            checked.map_err(|e| e.to_string())?;
            let label = &prometheus.namespace_label;
            if !label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_')
            {
                return Err(format!(
                    "lazyload.learn.prometheus.namespaceLabel: {label:?} is no name of a label: write for example namespace"
                ));
            }
        }
        self.check_fallback()
    }

    /// What is accepted and has no effect, with the reason; for the log.
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut out = Vec::new();
        if self.enable_short_domain {
            out.push(
                "lazyload.enableShortDomain has no effect: short names are learned as the services that they mean, and a \
                 Sidecar imports full names only: remove it",
            );
        }
        let logs = self.learn.access_log.as_ref();
        if logs.is_some_and(|l| l.security == PortSecurity::Mesh && !l.trusted.is_empty()) {
            out.push(
                "lazyload.learn.accessLog.trusted has no effect with security: Mesh, where certificates and not addresses \
                 say who sends: remove it",
            );
        }
        out
    }

    fn check_fences(&self) -> Result<(), String> {
        let auto = &self.fences;
        if !auto.black_namespace_list.is_empty() && !auto.white_namespace_list.is_empty() {
            return Err(
                "lazyload.fences.blackNamespaceList and lazyload.fences.whiteNamespaceList are both set: \
                 remove one of them"
                    .to_owned(),
            );
        }
        for alias in &self.domain_aliases {
            regex(
                &format!("domainAliases: pattern \"{}\"", alias.pattern),
                &alias.pattern,
            )?;
            if alias.templates.is_empty() {
                return Err(format!(
                    "lazyload.domainAliases: pattern \"{}\" has no templates: add the hosts that it stands for",
                    alias.pattern
                ));
            }
        }
        Ok(())
    }

    fn check_fallback(&self) -> Result<(), String> {
        let fallback = &self.fallback;
        for port in &fallback.wormhole_port {
            match port.parse::<u16>() {
                Ok(TCP_PORT) => {
                    return Err(format!(
                        "lazyload.fallback.wormholePort: \"{port}\" is the fallback's own port for TCP: leave it out"
                    ));
                }
                Ok(1..) => {}
                _ => {
                    return Err(format!(
                        "lazyload.fallback.wormholePort: \"{port}\" is not a port: write a number from 1 to 65535"
                    ));
                }
            }
        }
        re2::check_key(
            "lazyload.fallback.proxyVersion",
            &fallback.proxy_version,
            Engine::Istiod,
        )?;
        if fallback.global_sidecar_mode == GlobalSidecarMode::Namespace
            && fallback.namespace.is_empty()
        {
            return Err(
                "lazyload.fallback.namespace is empty: namespace mode needs the namespaces \
                 that get a fallback"
                    .to_owned(),
            );
        }
        for (index, dispatch) in fallback.dispatches.iter().enumerate() {
            check_templates(index, dispatch)?;
            let at = format!("lazyload.fallback.dispatches: \"{}\"", dispatch.name);
            if dispatch.name.is_empty() || dispatch.cluster.is_empty() {
                return Err(format!("{at} needs a name and a cluster"));
            }
            if dispatch.domains.is_empty() == dispatch.domain_regex.is_empty() {
                return Err(format!("{at} needs either domains or domainRegex"));
            }
            re2::check_key(
                &format!("{at}: domainRegex"),
                &dispatch.domain_regex,
                Engine::Envoy,
            )?;
        }
        Ok(())
    }
}

/// Slime's chart took templates of Helm here; nothing renders them in this file.
fn check_templates(index: usize, dispatch: &Dispatch) -> Result<(), String> {
    let domains = dispatch.domains.iter().enumerate();
    let domains = domains.map(|(i, domain)| (format!("domains[{i}]"), domain));
    let texts = [
        ("name".to_owned(), &dispatch.name),
        ("cluster".to_owned(), &dispatch.cluster),
    ];
    for (key, text) in texts.into_iter().chain(domains) {
        if text.contains("{{") || text.contains("}}") {
            return Err(format!(
                "lazyload.fallback.dispatches[{index}].{key}: {text:?} is a template, which nothing renders here: write what it stands for"
            ));
        }
    }
    Ok(())
}

/// A pattern that is matched here.
fn regex(what: &str, pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|e| {
        format!("lazyload.{what} is not a regular expression: write it in the syntax of RE2: {e}")
    })
}

#[cfg(test)]
mod tests;
