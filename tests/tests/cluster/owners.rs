//! Somebody with rights in one namespace tries to get the calls of another, through a real istiod.

use serde_json::{Value, json};
use trimtab_cluster::{Cluster, Forwarder, Namespace, service_account_token, wait_for};
use trimtab_lab::ports::free_port;

use crate::fixture::{BOUND, cluster};
use crate::peers::{Peer, client, counts, server};
use crate::protocols::{CALLS, Mesh, mesh, moves_to};

/// All rights in one namespace, as a tenant has them at most.
const TENANT: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: tenant, namespace: NAMESPACE}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: tenant, namespace: NAMESPACE}
rules: [{apiGroups: ['*'], resources: ['*'], verbs: ['*']}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant, namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: tenant}
subjects: [{kind: ServiceAccount, name: tenant, namespace: NAMESPACE}]
";

/// A server of the tenant's.
const SINK: &str = "
apiVersion: v1
kind: Service
metadata: {name: sink, namespace: NAMESPACE}
spec:
  selector: {app: sink}
  ports: [{name: tcp-metaprotocol-thrift, port: 9090, targetPort: TARGET}]
";

/// What he tries; each is an object that Istio's and Trimtab's schemas take.
const ATTACKS: [(&str, &str); 7] = [
    ("an address, for his own namespace", "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: bait, namespace: NAMESPACE}
spec:
  hosts: [bait.example]
  addresses: [VIP]
  exportTo: ['.']
  resolution: STATIC
  ports: [{number: 9090, name: tcp-metaprotocol-thrift, protocol: TCP}]
  endpoints: [{address: SINK, ports: {tcp-metaprotocol-thrift: TARGET}}]
"),
    ("an address, for all, with a router that is for the root namespace", "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: bait-all, namespace: NAMESPACE}
spec:
  hosts: [bait-all.example]
  addresses: [VIP]
  exportTo: ['*']
  resolution: STATIC
  ports: [{number: 9090, name: tcp-metaprotocol-thrift, protocol: TCP}]
  endpoints: [{address: SINK, ports: {tcp-metaprotocol-thrift: TARGET}}]
---
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {name: bait-all, namespace: NAMESPACE}
spec:
  hosts: [bait-all.example]
  exportTo: ['*']
  routes: [{name: all, route: [{destination: {host: sink.NAMESPACE.svc.cluster.local}}]}]
"),
    ("a route, for the victim's namespace", "
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {name: grab, namespace: NAMESPACE}
spec:
  hosts: [orders.VICTIM.svc.cluster.local]
  exportTo: [VICTIM]
  routes: [{name: all, route: [{destination: {host: sink.NAMESPACE.svc.cluster.local}}]}]
"),
    ("a route and a limit, for all", "
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {name: grab-all, namespace: NAMESPACE}
spec:
  hosts: [orders.VICTIM.svc.cluster.local]
  exportTo: ['*']
  routes: [{name: all, route: [{destination: {host: sink.NAMESPACE.svc.cluster.local}}]}]
  globalRateLimit: {domain: d, rateLimitService: 'outbound|9090||sink.NAMESPACE.svc.cluster.local',
    denyOnFail: true, descriptors: [{property: method, descriptorKey: method}]}
"),
    ("HTTP rules", "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: grab, namespace: NAMESPACE}
spec:
  hosts: [orders.VICTIM.svc.cluster.local]
  http: [{route: [{destination: {host: sink.NAMESPACE.svc.cluster.local}}]}]
"),
    ("subsets", "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: grab, namespace: NAMESPACE}
spec:
  host: orders.VICTIM.svc.cluster.local
  subsets: [{name: v1, labels: {version: v2}}]
"),
    ("another protocol", "
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisDestination
metadata: {name: grab, namespace: NAMESPACE}
spec:
  host: orders.VICTIM.svc.cluster.local
  trafficPolicy: {connectionPool: {redis: {mode: CLUSTER, discoveryEndpoints: ['sink.NAMESPACE.svc.cluster.local:9090']}}}
"),
];

/// The tenant's namespace, with a server that nobody shall reach.
struct Tenant {
    namespace: Namespace<'static>,
    kubeconfig: String,
    sink: Peer,
    address: String,
    target: u16,
    _way: Forwarder,
}

async fn tenant(cluster: &'static Cluster) -> Tenant {
    let namespace = Namespace::create(cluster, "evil").await.unwrap();
    namespace.apply(TENANT).await.unwrap();
    let token = service_account_token(cluster, namespace.name(), "tenant", &[])
        .await
        .unwrap();
    let kubeconfig = cluster.kubeconfig_with_token("evil", &token).unwrap();
    let target = free_port().unwrap();
    let pod = namespace.pod("sink", &[("app", "sink")]).await.unwrap();
    let (sink, at) = server("thrift_server.py", "sink").await;
    let local = pod.address(target);
    let tenant = Tenant {
        kubeconfig: kubeconfig.display().to_string(),
        address: pod.ip.to_string(),
        target,
        _way: Forwarder::to(local, at).await.unwrap(),
        namespace,
        sink,
    };
    tenant.apply(SINK, "", "").await.unwrap();
    tenant
}

impl Tenant {
    /// Applies with the tenant's own rights.
    async fn apply(&self, text: &str, victim: &str, vip: &str) -> trimtab_cluster::Result<String> {
        let text = text
            .replace("SINK", &self.address)
            .replace("TARGET", &self.target.to_string())
            .replace("VICTIM", victim)
            .replace("VIP", vip);
        let text = text.replace("NAMESPACE", self.namespace.name());
        let apply = ["--kubeconfig", &self.kubeconfig, "apply", "-f", "-"];
        self.namespace.cluster().kubectl(&apply, &text).await
    }

    /// Waits until a router of the tenant's was looked at, and gives the reason of `Accepted`.
    async fn accepted(&self, router: &str) -> Value {
        let get = [
            "get",
            "metarouters.metaprotocol.aeraki.io",
            router,
            "-o",
            "json",
        ];
        wait_for(&format!("a status of {router}"), BOUND, || async {
            let text = self.namespace.kubectl(&get, "").await;
            let text = text.map_err(|error| error.to_string())?;
            let object: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let conditions = object["status"]["conditions"].as_array();
            let found = conditions
                .into_iter()
                .flatten()
                .find(|c| c["type"] == "Accepted");
            found.cloned().ok_or_else(|| object["status"].to_string())
        })
        .await
        .unwrap()
    }
}

/// Calls on the connection that is open and on a new one; each must reach the victim's own version.
async fn nothing_moved(mesh: &Mesh, caller: &mut Peer, what: &str) {
    let call = json!({"method": "say", "calls": CALLS});
    let own = counts(&[("v1", CALLS)]);
    assert_eq!(
        caller.ask(call.clone()).await,
        own,
        "{what}: an open connection"
    );
    let mut fresh = client("thrift_client.py", mesh.tunnel.address(), &[]);
    assert_eq!(fresh.ask(call).await, own, "{what}: a new connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_t1_a_tenant_moves_and_loses_no_call_of_another_namespace() {
    let cluster = cluster().await;
    let mesh = mesh("victim", "tcp-thrift", "thrift_server.py").await;
    mesh.proxy.wait_listener("thrift_proxy").await.unwrap();
    let mut caller = client("thrift_client.py", mesh.tunnel.address(), &[]);
    moves_to(&mut caller, &json!({"method": "say", "calls": CALLS}), "v1").await;
    let victim = mesh.namespace.name().to_owned();
    let mut tenant = tenant(cluster).await;
    let refused = tenant
        .apply(&SINK.replace("NAMESPACE", "VICTIM"), &victim, "")
        .await;
    assert!(refused.is_err(), "he has rights in his namespace only");
    let before = mesh.listener().await;
    for (what, text) in ATTACKS {
        tenant.apply(text, &victim, &mesh.vip).await.unwrap();
        nothing_moved(&mesh, &mut caller, what).await;
    }
    // Trimtab has looked at all of them when the last has a status; the calls go on meanwhile.
    for (router, reason) in [("grab", "NotOwner"), ("grab-all", "NotOwner")] {
        let condition = tenant.accepted(router).await;
        assert_eq!(condition["status"], "False", "{condition}");
        assert_eq!(condition["reason"], reason, "{condition}");
        nothing_moved(&mesh, &mut caller, router).await;
    }
    tenant.accepted("bait-all").await;
    nothing_moved(&mesh, &mut caller, "all of them").await;
    let all = [
        "get",
        "envoyfilters.networking.istio.io",
        "-A",
        "-o",
        "name",
        "-l",
    ];
    let label = format!("trimtab.io/owner-namespace={}", tenant.namespace.name());
    let written = cluster
        .kubectl(&[&all[..], &[&label]].concat(), "")
        .await
        .unwrap();
    assert!(!written.contains(&mesh.vip), "{written}");
    assert_eq!(mesh.listener().await, before, "no listener has changed");
    assert_eq!(tenant.sink.calls().await, 0);
}
