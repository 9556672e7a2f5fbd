//! The built-in kinds.
//!
//! Those that Trimtab reads or writes, and the others that stand in folders of applications: they are stored like
//! these, and nobody looks at them.

use crate::kinds::{CRD_GROUP, Column, Resource, Version, column};
use crate::store::ResourceId;

/// group (`-`: the core group), versions (the first is stored), kind, plural, short names (`-`: none), scope, and what is
/// besides: a status, generations.
const TABLE: &str = "
-                            v1        Namespace                      namespaces                       ns       cluster    status
-                            v1        Pod                            pods                             po       namespaced status
-                            v1        Service                        services                         svc      namespaced status
-                            v1        Endpoints                      endpoints                        ep       namespaced none
-                            v1        ConfigMap                      configmaps                       cm       namespaced none
-                            v1        Secret                         secrets                          -        namespaced none
-                            v1        Event                          events                           ev       namespaced none
-                            v1        ServiceAccount                 serviceaccounts                  sa       namespaced none
-                            v1        Node                           nodes                            no       cluster    status
-                            v1        PersistentVolume               persistentvolumes                pv       cluster    status
-                            v1        PersistentVolumeClaim          persistentvolumeclaims           pvc      namespaced status
-                            v1        ReplicationController          replicationcontrollers           rc       namespaced both
-                            v1        LimitRange                     limitranges                      limits   namespaced none
-                            v1        ResourceQuota                  resourcequotas                   quota    namespaced status
-                            v1        PodTemplate                    podtemplates                     -        namespaced none
apps                         v1        Deployment                     deployments                      deploy   namespaced both
apps                         v1        ReplicaSet                     replicasets                      rs       namespaced both
apps                         v1        StatefulSet                    statefulsets                     sts      namespaced both
apps                         v1        DaemonSet                      daemonsets                       ds       namespaced both
apps                         v1        ControllerRevision             controllerrevisions              -        namespaced none
batch                        v1        Job                            jobs                             -        namespaced both
batch                        v1        CronJob                        cronjobs                         cj       namespaced both
autoscaling                  v2,v1     HorizontalPodAutoscaler        horizontalpodautoscalers         hpa      namespaced status
policy                       v1        PodDisruptionBudget            poddisruptionbudgets             pdb      namespaced both
networking.k8s.io            v1        Ingress                        ingresses                        ing      namespaced both
networking.k8s.io            v1        IngressClass                   ingressclasses                   -        cluster    none
networking.k8s.io            v1        NetworkPolicy                  networkpolicies                  netpol   namespaced none
rbac.authorization.k8s.io    v1        Role                           roles                            -        namespaced none
rbac.authorization.k8s.io    v1        RoleBinding                    rolebindings                     -        namespaced none
rbac.authorization.k8s.io    v1        ClusterRole                    clusterroles                     -        cluster    none
rbac.authorization.k8s.io    v1        ClusterRoleBinding             clusterrolebindings              -        cluster    none
storage.k8s.io               v1        StorageClass                   storageclasses                   sc       cluster    none
scheduling.k8s.io            v1        PriorityClass                  priorityclasses                  pc       cluster    none
node.k8s.io                  v1        RuntimeClass                   runtimeclasses                   -        cluster    none
admissionregistration.k8s.io v1        ValidatingWebhookConfiguration validatingwebhookconfigurations  -        cluster    none
admissionregistration.k8s.io v1        MutatingWebhookConfiguration   mutatingwebhookconfigurations    -        cluster    none
apiregistration.k8s.io       v1        APIService                     apiservices                      -        cluster    status
discovery.k8s.io             v1        EndpointSlice                  endpointslices                   -        namespaced none
events.k8s.io                v1        Event                          events                           ev       namespaced none
coordination.k8s.io          v1        Lease                          leases                           -        namespaced none
apiextensions.k8s.io         v1        CustomResourceDefinition       customresourcedefinitions        crd,crds cluster    both
metrics.k8s.io               v1beta1   PodMetrics                     pods                             -        namespaced none
";

/// Kinds that `kubectl get all` shows.
const ALL: [&str; 10] = [
    "CronJob",
    "DaemonSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "Job",
    "Pod",
    "ReplicaSet",
    "ReplicationController",
    "Service",
    "StatefulSet",
];

/// The resources of the table.
pub(crate) fn resources() -> impl Iterator<Item = Resource> {
    TABLE.lines().filter_map(resource)
}

fn resource(line: &str) -> Option<Resource> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [group, versions, kind, plural, short, scope, features] = words.as_slice() else {
        return None;
    };
    let group = if *group == "-" { "" } else { *group };
    let status = matches!(*features, "status" | "both");
    let version = |name: &str| Version {
        name: name.to_owned(),
        status,
        schema: None,
        rules: None,
        raw_schema: None,
        columns: columns(group, kind),
    };
    Some(Resource {
        id: ResourceId::new(group, plural),
        kind: (*kind).to_owned(),
        list_kind: format!("{kind}List"),
        singular: kind.to_lowercase(),
        short_names: short
            .split(',')
            .filter(|s| *s != "-")
            .map(str::to_owned)
            .collect(),
        categories: Vec::from_iter(ALL.contains(kind).then(|| "all".to_owned())),
        namespaced: *scope == "namespaced",
        builtin: true,
        generation: *features == "both",
        storage: versions.split(',').next().unwrap_or_default().to_owned(),
        versions: versions.split(',').map(version).collect(),
    })
}

fn columns(group: &str, kind: &str) -> Vec<Column> {
    let text = |name: &str, path: &str| column(name, "string", path);
    let mut columns = match (group, kind) {
        ("", "Pod") => vec![
            text("Ready", ".status.conditions[?(@.type==\"Ready\")].status"),
            text("Status", ".status.phase"),
            text("IP", ".status.podIP"),
            text("Node", ".spec.nodeName"),
        ],
        ("", "Service") => vec![
            text("Type", ".spec.type"),
            text("Cluster-IP", ".spec.clusterIP"),
            text("Ports", ".spec.ports[*].port"),
        ],
        ("", "Namespace") => vec![text("Status", ".status.phase")],
        ("", "Event") => vec![
            column("Last Seen", "date", ".lastTimestamp"),
            text("Type", ".type"),
            text("Reason", ".reason"),
            text("Object", ".involvedObject.name"),
            text("Message", ".message"),
        ],
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet") => vec![
            column("Desired", "integer", ".spec.replicas"),
            column("Ready", "integer", ".status.readyReplicas"),
        ],
        ("coordination.k8s.io", _) => vec![text("Holder", ".spec.holderIdentity")],
        ("discovery.k8s.io", _) => vec![
            text("AddressType", ".addressType"),
            text("Ports", ".ports[*].port"),
            text("Endpoints", ".endpoints[*].addresses[0]"),
        ],
        (CRD_GROUP, _) => {
            return vec![column("Created At", "date", ".metadata.creationTimestamp")];
        }
        _ => Vec::new(),
    };
    columns.push(column("Age", "date", ".metadata.creationTimestamp"));
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_kind() {
        let all: Vec<Resource> = resources().collect();
        assert_eq!(all.len(), TABLE.trim().lines().count());
        let of = |kind: &str| all.iter().find(|r| r.kind == kind).unwrap();
        let autoscaler = of("HorizontalPodAutoscaler");
        assert_eq!(autoscaler.storage, "v2");
        assert!(autoscaler.version("v1").is_some());
        assert!(!of("Node").namespaced && of("Pod").group().is_empty());
        assert!(of("Pod").versions[0].status && !of("Pod").generation);
    }
}
