//! The Kubernetes objects of the fallback.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::proxy::{LIVE, READY, bootstrap};
use super::{FallbackInput, NAME, PROXY_METADATA, TCP_PORT};
use crate::config::LazyloadConfig;

const FILE: &str = "envoy.json";
const FOLDER: &str = "/etc/trimtab";

/// How the fallback runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Deploy {
    /// A stock Envoy.
    pub image: String,
    /// Pods of each fallback.
    pub replicas: u32,
    /// Seconds between a pod's leaving the mesh and its end. Requests that are under way may take so long.
    pub drain_seconds: u32,
    /// Kubernetes' resources of the container.
    pub resources: Value,
    /// Label that asks Istio's injector for a sidecar, and its value; a revision's is `istio.io/rev`.
    pub inject: BTreeMap<String, String>,
    /// Names of image pull secrets.
    pub image_pull_secrets: Vec<String>,
}

impl Default for Deploy {
    fn default() -> Self {
        Self {
            image: "envoyproxy/envoy:distroless-v1.40.0".to_owned(),
            replicas: 2,
            drain_seconds: 30,
            resources: json!({
                "requests": {"cpu": "100m", "memory": "128Mi"},
                "limits": {"memory": "512Mi"},
            }),
            inject: BTreeMap::from([("sidecar.istio.io/inject".to_owned(), "true".to_owned())]),
            image_pull_secrets: Vec::new(),
        }
    }
}

/// The objects of every fallback, in the order in which they are to be applied. None when the fallback is off.
///
/// Nothing here is privileged, has a token of the API server or a role. Pods leave with the `sleep` hook, which Kubernetes
/// has since 1.30.
pub fn manifests(input: &FallbackInput) -> Vec<Value> {
    let places = input.places();
    places
        .iter()
        .flat_map(|place| of_namespace(input, &place.namespace))
        .collect()
}

/// The Service of every fallback with a pod that is ready: what a mesh is assumed to have when its configuration is
/// worked out without a cluster.
pub fn assumed(config: &LazyloadConfig) -> Vec<Value> {
    let input = FallbackInput {
        config: config.clone(),
        ..FallbackInput::default()
    };
    let port = input.proxy_options().http.port();
    let all = manifests(&input).into_iter();
    all.filter(|manifest| manifest["kind"] == "Service")
        .flat_map(|service| {
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("{NAME}-offline"),
                    "namespace": service["metadata"]["namespace"],
                    "labels": {"kubernetes.io/service-name": NAME},
                },
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}],
                "ports": [{"name": "http-80", "port": port, "protocol": "TCP"}],
            });
            [service, slice]
        })
        .collect()
}

fn of_namespace(input: &FallbackInput, namespace: &str) -> Vec<Value> {
    let config = bootstrap(&input.proxy_options()).to_string();
    let object = |api: &str, kind: &str, content: Value| {
        let mut object = json!({
            "apiVersion": api,
            "kind": kind,
            "metadata": {"name": NAME, "namespace": namespace, "labels": labels(input)},
        });
        if let (Value::Object(object), Value::Object(content)) = (&mut object, content) {
            object.extend(content);
        }
        object
    };
    let mut service = object("v1", "Service", service(input));
    // Slime's own word that nothing is to be fenced here.
    service["metadata"]["labels"]["slime.io/serviceFenced"] = json!("false");
    let mut deployment = object("apps/v1", "Deployment", deployment(input, &config));
    // Several ports with one target are meant; all of them are HTTP, so that one inbound listener does.
    deployment["metadata"]["annotations"] = json!({"galley.istio.io/analyze-suppress": "IST0137"});
    vec![
        object(
            "v1",
            "ServiceAccount",
            json!({"automountServiceAccountToken": false}),
        ),
        object("v1", "ConfigMap", json!({"data": {FILE: config}})),
        service,
        object(
            "networking.istio.io/v1",
            "DestinationRule",
            destination_rule(input, namespace),
        ),
        object(
            "policy/v1",
            "PodDisruptionBudget",
            json!({"spec": {
                "maxUnavailable": 1,
                "selector": {"matchLabels": selector()},
            }}),
        ),
        deployment,
    ]
}

fn labels(input: &FallbackInput) -> Value {
    let mut labels = json!(input.labels());
    labels["app"] = json!(NAME);
    labels
}

fn selector() -> Value {
    json!({"app": NAME})
}

/// The HTTP ports of the fallback's Service: every one leads to the one listener, at `target`.
pub fn service_ports(ports: &BTreeSet<u16>, target: u16) -> Vec<Value> {
    let port = |port: &u16| json!({"name": format!("http-{port}"), "port": port, "protocol": "TCP", "targetPort": target});
    ports.iter().map(port).collect()
}

fn service(input: &FallbackInput) -> Value {
    let options = input.proxy_options();
    let mut ports = service_ports(&input.all_ports(), options.http.port());
    if let Some(tcp) = options.tcp {
        ports.push(json!({"name": "tcp-proxy-protocol", "port": TCP_PORT, "protocol": "TCP", "targetPort": tcp.port()}));
    }
    json!({"spec": {"type": "ClusterIP", "selector": selector(), "ports": ports}})
}

/// `useClientProtocol` because one port carries HTTP/1.1 and gRPC; Istio applies it on both sides of the fallback's
/// sidecar. Callers' proxies give idle connections up long before the fallback does.
fn destination_rule(input: &FallbackInput, namespace: &str) -> Value {
    json!({"spec": {
        "host": input.host(namespace),
        "trafficPolicy": {
            "connectionPool": {"http": {
                "useClientProtocol": true,
                "idleTimeout": "300s",
                "http1MaxPendingRequests": i32::MAX,
                "http2MaxRequests": i32::MAX,
                "maxRetries": 1024,
            }},
        },
    }})
}

fn deployment(input: &FallbackInput, config: &str) -> Value {
    let deploy = &input.deploy;
    let mut pod_labels = labels(input);
    for (key, value) in &deploy.inject {
        pod_labels[key] = json!(value);
    }
    let secrets: Vec<Value> = deploy
        .image_pull_secrets
        .iter()
        .map(|name| json!({"name": name}))
        .collect();
    let mut pod = json!({
        "serviceAccountName": NAME,
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": deploy.drain_seconds + 15,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": {"matchLabels": selector()},
            },
        }]}},
        "containers": [container(input)],
        "volumes": [{"name": "config", "configMap": {"name": NAME}}],
    });
    if !secrets.is_empty() {
        pod["imagePullSecrets"] = json!(secrets);
    }
    json!({"spec": {
        "replicas": deploy.replicas,
        "selector": {"matchLabels": selector()},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {
            "metadata": {"labels": pod_labels, "annotations": annotations(input, config)},
            "spec": pod,
        },
    }})
}

fn annotations(input: &FallbackInput, config: &str) -> Value {
    let (key, value) = PROXY_METADATA;
    let mut metadata = Map::new();
    metadata.insert(format!("ISTIO_META_{key}"), json!(value));
    // Istio's proxy of the pod gets its signal at the same time as Envoy does; it must outlast what is under way.
    metadata.insert("EXIT_ON_ZERO_ACTIVE_CONNECTIONS".to_owned(), json!("true"));
    metadata.insert(
        "MINIMUM_DRAIN_DURATION".to_owned(),
        json!(format!("{}s", input.deploy.drain_seconds)),
    );
    let proxy = json!({"holdApplicationUntilProxyStarts": true, "proxyMetadata": metadata});
    let options = input.proxy_options();
    let mut annotations = json!({
        // A changed configuration makes new pods.
        "checksum/config": format!("{:016x}", xxh3_64(config.as_bytes())),
        "proxy.istio.io/config": proxy.to_string(),
        "prometheus.io/scrape": "true",
        "prometheus.io/port": options.probe.port().to_string(),
        "prometheus.io/path": "/metrics",
    });
    if let Some(tcp) = options.tcp {
        // The PROXY protocol header must reach Envoy as it is.
        annotations["traffic.sidecar.istio.io/excludeInboundPorts"] = json!(tcp.port().to_string());
    }
    annotations
}

fn container(input: &FallbackInput) -> Value {
    let options = input.proxy_options();
    let mut ports = vec![
        json!({"name": "http", "containerPort": options.http.port(), "protocol": "TCP"}),
        json!({"name": "probe", "containerPort": options.probe.port(), "protocol": "TCP"}),
    ];
    if let Some(tcp) = options.tcp {
        ports.push(json!({"name": "tcp", "containerPort": tcp.port(), "protocol": "TCP"}));
    }
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": "probe"},
            "periodSeconds": period,
            "failureThreshold": failures,
        })
    };
    json!({
        "name": "envoy",
        "image": input.deploy.image,
        "args": [
            "-c", format!("{FOLDER}/{FILE}"),
            "--service-cluster", NAME,
            "--service-node", "$(POD_NAME).$(POD_NAMESPACE)",
            "--disable-hot-restart",
            "-l", "warning",
        ],
        "env": [field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace")],
        "ports": ports,
        "startupProbe": probe(READY, 1, 60),
        "readinessProbe": probe(READY, 2, 2),
        "livenessProbe": probe(LIVE, 10, 3),
        // New calls stop as soon as the mesh knows that the pod leaves; what is under way has this long.
        "lifecycle": {"preStop": {"sleep": {"seconds": input.deploy.drain_seconds}}},
        "resources": input.deploy.resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "config", "mountPath": FOLDER, "readOnly": true}],
    })
}
