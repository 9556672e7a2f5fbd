//! A large mesh with objects as clusters have them: with managed fields, environment, volumes and conditions.

use serde_json::{Value, json};

/// Services for each namespace.
const PER_NAMESPACE: usize = 100;
/// Of the pod template.
const HASH: &str = "6d4f8c7b95";

/// How many of each.
#[derive(Clone, Copy, Debug)]
pub struct Large {
    /// Services, each with an EndpointSlice.
    pub services: usize,
    /// Pods, spread evenly over the Services.
    pub pods: usize,
    /// Objects of each of our kinds and of each of Istio's.
    pub objects: usize,
}

fn managed(manager: &str, fields: &[&str]) -> Value {
    let set: serde_json::Map<String, Value> = fields
        .iter()
        .map(|f| (format!("f:{f}"), json!({".": {}, "f:value": {}, "k:{\"type\":\"Ready\"}": {"f:status": {}, "f:type": {}}})))
        .collect();
    json!([{"manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": set}}])
}

fn container(name: &str, image: &str) -> Value {
    let env: Vec<Value> = (0..8)
        .map(|i| json!({"name": format!("SETTING_{i}"), "value": format!("value-of-the-setting-{i}")}))
        .collect();
    json!({
        "name": name, "image": image, "imagePullPolicy": "IfNotPresent", "env": env,
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1,
            "successThreshold": 1, "failureThreshold": 3},
        "volumeMounts": [{"name": "kube-api-access", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
        "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
    })
}

impl Large {
    fn namespace(&self, service: usize) -> String {
        format!(
            "team-{}",
            service % self.services.div_ceil(PER_NAMESPACE).max(1)
        )
    }

    fn host(&self, service: usize) -> String {
        format!(
            "svc-{service}.{}.svc.cluster.local",
            self.namespace(service)
        )
    }

    /// Calls `take` with each object; it gives the object as stored, with its UID.
    pub fn each(&self, mut take: impl FnMut(Value) -> anyhow::Result<Value>) -> anyhow::Result<()> {
        let mut owners = Vec::new();
        for n in 0..self.services.div_ceil(PER_NAMESPACE).max(1) {
            take(
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("team-{n}"), "labels": {"istio-injection": "enabled"}}}),
            )?;
        }
        for i in 0..self.services {
            take(self.service(i))?;
            take(self.slice(i))?;
            owners.push(take(self.replica_set(i))?["metadata"]["uid"].clone());
        }
        for j in 0..self.pods {
            take(self.pod(j, &owners))?;
        }
        for i in 0..self.objects.min(self.services) {
            for object in self.own(i).into_iter().chain(self.istio(i)) {
                take(object)?;
            }
        }
        Ok(())
    }

    fn service(&self, i: usize) -> Value {
        let port = if i.is_multiple_of(10) {
            "tcp-dubbo"
        } else {
            "http"
        };
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("svc-{i}"), "namespace": self.namespace(i), "uid": format!("service-{i}"),
                "labels": {"app": format!("svc-{i}"), "app.kubernetes.io/part-of": "shop", "helm.sh/chart": "svc-1.0.0"},
                "annotations": {"meta.helm.sh/release-name": format!("svc-{i}"), "meta.helm.sh/release-namespace": self.namespace(i)},
                "managedFields": managed("helm", &["ports", "selector", "type", "clusterIP"])},
            "spec": {"selector": {"app": format!("svc-{i}")}, "type": "ClusterIP", "clusterIP": address(96, i), "clusterIPs": [address(96, i)],
                "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
                "ports": [{"name": port, "port": 80, "targetPort": 8080, "protocol": "TCP"}, {"name": "http-metrics", "port": 9090, "targetPort": 9090, "protocol": "TCP"}]},
        })
    }

    /// The owner of the pods: without it they would be collected.
    fn replica_set(&self, i: usize) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": {},
            "metadata": {"name": format!("svc-{i}-{HASH}"), "namespace": self.namespace(i)}})
    }

    fn pods_of(&self, service: usize) -> impl Iterator<Item = usize> {
        (service..self.pods).step_by(self.services.max(1))
    }

    fn slice(&self, i: usize) -> Value {
        let endpoint = |j: usize| {
            json!({"addresses": [address(10, j)], "conditions": {"ready": true, "serving": true, "terminating": false}, "nodeName": format!("node-{}", j % 500),
                "targetRef": {"kind": "Pod", "name": pod_name(i, j), "namespace": self.namespace(i), "uid": format!("pod-{j}")}, "zone": "zone-a"})
        };
        let endpoints: Vec<Value> = self.pods_of(i).map(endpoint).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("svc-{i}-x7k2p"), "namespace": self.namespace(i),
                "labels": {"kubernetes.io/service-name": format!("svc-{i}"), "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io", "app": format!("svc-{i}")},
                "managedFields": managed("kube-controller-manager", &["addressType", "endpoints", "ports"])},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        })
    }

    fn pod(&self, j: usize, owners: &[Value]) -> Value {
        let i = j % self.services.max(1);
        let hash = HASH;
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod_name(i, j), "namespace": self.namespace(i), "uid": format!("pod-{j}"),
                "labels": {"app": format!("svc-{i}"), "version": "v1", "pod-template-hash": hash, "security.istio.io/tlsMode": "istio",
                    "service.istio.io/canonical-name": format!("svc-{i}"), "service.istio.io/canonical-revision": "v1"},
                "annotations": {"prometheus.io/scrape": "true", "kubectl.kubernetes.io/default-container": "app",
                    "sidecar.istio.io/status": "{\"initContainers\":[\"istio-init\"],\"containers\":[\"istio-proxy\"],\"volumes\":[\"istio-envoy\",\"istio-data\"]}"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("svc-{i}-{hash}"), "uid": owners[i], "controller": true, "blockOwnerDeletion": true}],
                "managedFields": managed("kubelet", &["containers", "dnsPolicy", "restartPolicy", "schedulerName", "volumes", "conditions", "containerStatuses", "podIP"])},
            "spec": {"serviceAccountName": format!("svc-{i}"), "nodeName": format!("node-{}", j % 500), "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
                "containers": [container("app", "registry.example.com/shop/app:1.4.2"), container("istio-proxy", "docker.io/istio/proxyv2:1.31.0")],
                "initContainers": [{"name": "istio-init", "image": "docker.io/istio/proxyv2:1.31.0", "args": ["istio-iptables", "-p", "15001", "-z", "15006"]}],
                "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
                "volumes": [{"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]}},
                    {"name": "istio-envoy", "emptyDir": {"medium": "Memory"}}]},
            "status": {"phase": "Running", "podIP": address(10, j), "podIPs": [{"ip": address(10, j)}], "hostIP": "192.0.2.1", "qosClass": "Burstable",
                "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
                "containerStatuses": [{"name": "app", "ready": true, "restartCount": 0, "image": "registry.example.com/shop/app:1.4.2",
                    "imageID": "registry.example.com/shop/app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "started": true}]},
        })
    }

    fn own(&self, i: usize) -> Vec<Value> {
        let metadata = |name: String| json!({"name": name, "namespace": self.namespace(i), "generation": 1, "uid": format!("own-{i}")});
        let next = self.host((i + 1) % self.services.max(1));
        let dubbo = self.host(i * 10 % self.services.max(1));
        let rule = json!({"condition": "{{._base.pod}}>100", "action": {"quota": "30/{{._base.pod}}", "fill_interval": {"seconds": 1}, "strategy": "single"}});
        vec![
            json!({"apiVersion": "microservice.slime.io/v1alpha2", "kind": "SmartLimiter", "metadata": metadata(format!("svc-{i}")),
                "spec": {"sets": {"_base": {"descriptor": [rule]}}}}),
            json!({"apiVersion": "microservice.slime.io/v1alpha1", "kind": "ServiceFence", "metadata": metadata(format!("svc-{i}")),
                "spec": {"enable": true, "workloadSelector": {"fromService": true}, "host": {next.clone(): {}}}}),
            json!({"apiVersion": "metaprotocol.aeraki.io/v1alpha1", "kind": "MetaRouter", "metadata": metadata(format!("router-{i}")),
                "spec": {"hosts": [dubbo.clone()], "routes": [{"name": "all", "route": [{"destination": {"host": dubbo}}]}]}}),
            json!({"apiVersion": "redis.aeraki.io/v1alpha1", "kind": "RedisService", "metadata": metadata(format!("redis-{i}")),
                "spec": {"host": [format!("redis-{i}.example.com")], "redis": [{"route": {"host": format!("redis-{i}.example.com")}}]}}),
            json!({"apiVersion": "redis.aeraki.io/v1alpha1", "kind": "RedisDestination", "metadata": metadata(format!("redis-{i}")),
                "spec": {"host": format!("redis-{i}.example.com"), "trafficPolicy": {"connectionPool": {"redis": {"mode": "PROXY"}}}}}),
            json!({"apiVersion": "dubbo.aeraki.io/v1alpha1", "kind": "DubboAuthorizationPolicy", "metadata": metadata(format!("policy-{i}")),
                "spec": {"rules": [{"to": [{"operation": {"interfaces": ["org.example.Demo"]}}]}]}}),
        ]
    }

    fn istio(&self, i: usize) -> Vec<Value> {
        let metadata = |name: String| {
            json!({"name": name, "namespace": self.namespace(i), "generation": 1,
            "managedFields": managed("argocd-controller", &["hosts", "http", "exportTo"])})
        };
        let host = self.host(i);
        vec![
            json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata(format!("svc-{i}")),
                "spec": {"hosts": [host], "http": [{"match": [{"uri": {"prefix": "/v2"}}], "route": [{"destination": {"host": host, "subset": "v2"}, "weight": 100}]},
                    {"route": [{"destination": {"host": host, "subset": "v1"}, "weight": 100}], "timeout": "5s", "retries": {"attempts": 2}}]}}),
            json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata(format!("svc-{i}")),
                "spec": {"host": host, "trafficPolicy": {"outlierDetection": {"consecutive5xxErrors": 5}},
                    "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]}}),
            json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": metadata(format!("redis-{i}")),
                "spec": {"hosts": [format!("redis-{i}.example.com")], "resolution": "STATIC", "location": "MESH_EXTERNAL",
                    "ports": [{"number": 6379, "name": "tcp-redis", "protocol": "TCP"}], "endpoints": [{"address": address(20, i)}]}}),
        ]
    }
}

fn pod_name(service: usize, pod: usize) -> String {
    format!("svc-{service}-{HASH}-{pod:05}")
}

fn address(first: usize, n: usize) -> String {
    format!("{first}.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255)
}
