//! Objects of one namespace do not decide for another: whose a host and an address are, and what the others are told.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use trimtab::{manifests, translate};
use trimtab_metaprotocol::module::Metaprotocol;

/// What `translate` makes of objects.
pub(crate) struct Made {
    /// Generated objects as `Kind namespace/name`.
    objects: Vec<String>,
    /// All of them, with what goes over xDS.
    pub(crate) text: String,
    refused: Vec<String>,
}

impl Made {
    fn has(&self, part: &str) -> bool {
        self.objects.iter().any(|o| o.contains(part))
    }

    /// One refusal has all the parts.
    pub(crate) fn told(&self, parts: &[&str]) {
        let has = |line: &String| parts.iter().all(|part| line.contains(part));
        assert!(self.refused.iter().any(has), "{parts:?}: {:#?}", self.refused);
    }

    pub(crate) fn quiet(&self) {
        assert_eq!(self.refused, [] as [String; 0]);
    }
}

pub(crate) async fn made_with(config: &str, objects: &str) -> Made {
    let mut configuration = translate::configuration(None).unwrap();
    configuration.edit::<Metaprotocol>(|c| *c = serde_saphyr::from_str(config).unwrap());
    let documents = manifests::parse(Path::new("test.yaml"), objects).unwrap();
    let passed = translate::pass(&documents, &BTreeMap::new(), &configuration).await;
    let (_, output) = passed.unwrap();
    let name = |o: &Value| {
        let text = |field: &str| o["metadata"][field].as_str().unwrap_or_default().to_owned();
        let kind = o["kind"].as_str().unwrap_or_default();
        format!("{kind} {}/{}", text("namespace"), text("name"))
    };
    let all = output.objects.iter().chain(&output.resources);
    Made {
        objects: output.objects.iter().map(name).collect(),
        text: all.map(|o| format!("{o}\n")).collect(),
        refused: output.refused,
    }
}

async fn made(objects: &str) -> Made {
    made_with("{}", objects).await
}

pub(crate) fn service(name: &str, namespace: &str, ip: &str, port: &str, number: u16) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{clusterIP: {ip}, selector: {{app: {name}}}, ports: [{{name: {port}, port: {number}}}]}}\n"
    )
}

/// `day`: when it was made; 0: not known.
pub(crate) fn object(kind: &str, name: &str, namespace: &str, day: u8, spec: &str) -> String {
    let group = match kind {
        "MetaRouter" => "metaprotocol.aeraki.io/v1alpha1",
        "DubboAuthorizationPolicy" => "dubbo.aeraki.io/v1alpha1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        "Service" => "v1",
        redis if redis.starts_with("Redis") => "redis.aeraki.io/v1alpha1",
        _ => "networking.istio.io/v1",
    };
    let created = if day > 0 {
        format!(", creationTimestamp: \"2026-03-{day:02}T00:00:00Z\"")
    } else {
        String::new()
    };
    format!(
        "---\napiVersion: {group}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}{created}}}\n{spec}\n"
    )
}

fn entry(name: &str, namespace: &str, day: u8, addresses: &str, more: &str) -> String {
    let spec = format!(
        "spec: {{hosts: [{name}.{namespace}.example], addresses: {addresses}, resolution: STATIC, {more}\
         ports: [{{number: 7001, name: tcp-metaprotocol-thrift, protocol: TCP}}], endpoints: [{{address: 10.66.0.9}}]}}"
    );
    object("ServiceEntry", name, namespace, day, &spec)
}

#[tokio::test]
async fn fault_t1_no_address_of_a_service_is_taken_over() {
    let ledger = "spec: {clusterIP: 10.40.0.20, clusterIPs: [10.40.0.20, 'fd00::20'], externalIPs: [198.51.100.7], \
        selector: {app: ledger}, ports: [{name: tcp-ledger, port: 7001}]}\n\
        status: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}";
    let ledger = object("Service", "ledger", "stacks", 9, ledger);
    for address in ["10.40.0.20", "10.40.0.20/32", "fd00::20", "198.51.100.7", "203.0.113.9"] {
        for exports in ["", "exportTo: ['.'], ", "exportTo: ['*'], "] {
            for day in [0, 1] {
                let bait = entry("bait", "kiosk", day, &format!("['{address}', 10.99.0.1]"), exports);
                let out = made(&format!("{ledger}{bait}")).await;
                let bare = address.trim_end_matches("/32").replace(':', "-");
                assert!(!out.has(&bare), "{address} {exports}: {:?}", out.objects);
                assert!(out.has("-10.99.0.1-7001"), "its own address: {:?}", out.objects);
                out.told(&["ServiceEntry kiosk/bait", "spec.addresses[0]", "Service stacks/ledger"]);
            }
        }
    }
}

#[tokio::test]
async fn fault_t1_no_address_of_an_older_entry_is_taken_over() {
    for (old, address) in [("[10.30.0.1]", "10.30.0.1"), ("[10.30.0.0/16]", "10.30.7.7"), ("['fd00::/64']", "fd00::9")] {
        let plain = format!(
            "spec: {{hosts: [db.stacks.example], addresses: {old}, ports: [{{number: 7001, name: tcp, protocol: TCP}}]}}"
        );
        let plain = object("ServiceEntry", "db", "stacks", 1, &plain);
        let bait = entry("bait", "kiosk", 2, &format!("['{address}']"), "");
        let out = made(&format!("{plain}{bait}")).await;
        assert!(!out.text.contains(&format!("\"{address}_7001\"")), "{:?}", out.objects);
        out.told(&["ServiceEntry kiosk/bait", address, "ServiceEntry stacks/db"]);
    }
    // The older one keeps what it has, as if the younger were not there.
    let mine = entry("mine", "stacks", 1, "[10.30.0.1]", "");
    let bait = entry("bait", "kiosk", 2, "[10.30.0.1]", "");
    let (alone, both) = (made(&mine).await, made(&format!("{mine}{bait}")).await);
    assert!(alone.has("mine.stacks.example-10.30.0.1-7001"));
    assert!(both.has("mine.stacks.example-10.30.0.1-7001") && !both.has("bait.kiosk.example-10.30.0.1"));
}

#[tokio::test]
async fn fault_t1_endpoints_written_by_hand_take_nothing_over() {
    let ledger = service("ledger", "stacks", "10.40.0.20", "tcp-ledger", 7001);
    let bait = service("bait", "kiosk", "None", "tcp-metaprotocol-thrift", 7001).replace("selector: {app: bait}, ", "");
    let slice = "addressType: IPv4\nports: [{name: tcp-metaprotocol-thrift, port: 7001}]\nendpoints: [{addresses: [10.40.0.20]}, {addresses: [10.66.0.9]}]";
    let slice = object("EndpointSlice", "bait-1", "kiosk", 0, slice)
        .replace("namespace: kiosk}", "namespace: kiosk, labels: {kubernetes.io/service-name: bait}}");
    let out = made(&format!("{ledger}{bait}{slice}")).await;
    assert!(!out.text.contains("10.40.0.20_7001"), "{:?}", out.objects);
    assert!(out.text.contains("10.66.0.9_7001"), "{:?}", out.objects);
    out.told(&["Service kiosk/bait", "10.40.0.20", "Service stacks/ledger"]);
}

#[tokio::test]
async fn fault_t1_an_address_that_istio_gave_is_taken() {
    let spec = "spec: {hosts: [db.stacks.example], resolution: DNS, ports: [{number: 7001, name: tcp, protocol: TCP}]}\n\
        status: {addresses: [{host: db.stacks.example, value: 240.240.0.5}]}";
    let given = object("ServiceEntry", "db", "stacks", 1, spec);
    let bait = entry("bait", "kiosk", 2, "[240.240.0.5]", "");
    let out = made(&format!("{given}{bait}")).await;
    assert!(!out.has("240.240.0.5"), "{:?}", out.objects);
    out.told(&["ServiceEntry kiosk/bait", "ServiceEntry stacks/db"]);
}

#[tokio::test]
async fn fault_t1_the_export_of_a_host_binds() {
    for (exports, namespaces) in [
        ("exportTo: ['.'], ", &["kiosk"][..]),
        ("exportTo: ['.', stacks], ", &["kiosk", "stacks"]),
        ("exportTo: [kube-system], ", &[]),
        ("exportTo: [istio-system], ", &[]),
        ("exportTo: ['~'], ", &[]),
        ("exportTo: ['*'], ", &["istio-system"]),
    ] {
        let out = made(&entry("own", "kiosk", 0, "[10.30.0.1]", exports)).await;
        let wanted: Vec<String> = namespaces
            .iter()
            .map(|n| format!("EnvoyFilter {n}/trimtab-outbound-own.kiosk.example-10.30.0.1-7001"))
            .collect();
        assert_eq!(out.objects, wanted, "{exports}");
    }
    // A router widens nothing.
    let own = entry("own", "kiosk", 0, "[10.30.0.1]", "exportTo: ['.'], ");
    let router = "spec: {hosts: [own.kiosk.example], exportTo: ['*'], routes: [{route: [{destination: {host: own.kiosk.example}}]}]}";
    let out = made(&format!("{own}{}", object("MetaRouter", "own", "kiosk", 0, router))).await;
    assert!(out.objects.iter().all(|o| o.contains(" kiosk/")), "{:?}", out.objects);
}

const REDIS: &str = "sessions.stacks.svc.cluster.local";

fn grab(kind: &str, namespace: &str) -> String {
    let spec = match kind {
        "RedisDestination" => format!(
            "spec: {{host: {REDIS}, trafficPolicy: {{connectionPool: {{redis: {{mode: CLUSTER, auth: {{plain: {{password: stolen}}}}, \
             discoveryEndpoints: ['sink.kiosk.svc.cluster.local:6380']}}}}}}}}"
        ),
        _ => format!("spec: {{host: [{REDIS}], redis: [{{route: {{host: sink.kiosk.svc.cluster.local, port: 6380}}}}]}}"),
    };
    object(kind, "grab", namespace, 1, &spec)
}

#[tokio::test]
async fn fault_t2_redis_objects_of_others_do_not_count() {
    let sessions = service("sessions", "stacks", "10.40.0.30", "tcp-redis", 6380)
        + &service("sink", "kiosk", "10.40.0.66", "tcp-redis", 6380);
    let own = format!("spec: {{host: {REDIS}, trafficPolicy: {{connectionPool: {{redis: {{mode: PROXY}}}}}}}}");
    let own = object("RedisDestination", "sessions", "stacks", 2, &own);
    for kind in ["RedisDestination", "RedisService"] {
        let foreign = grab(kind, "kiosk");
        let out = made(&format!("{sessions}{foreign}")).await;
        assert_eq!(out.objects, [] as [String; 0], "{kind}");
        out.told(&[&format!("{kind} kiosk/grab"), "spec.host", "belongs to namespace stacks", "trustedNamespaces"]);
        let (alone, both) = (made(&format!("{sessions}{own}")).await, made(&format!("{sessions}{own}{foreign}")).await);
        assert_eq!(alone.text, both.text, "{kind}: the owner's is as if the other were not there");
        assert!(alone.text.contains(&format!("outbound|6380||{REDIS}")));
        alone.quiet();
        // The root namespace decides, and who the operator names.
        let root = made(&format!("{sessions}{}", grab(kind, "istio-system"))).await;
        assert!(root.text.contains("sink.kiosk"), "{kind}: {:#?}", root.refused);
        root.quiet();
        let trusted = made_with("trustedNamespaces: [kiosk]", &format!("{sessions}{foreign}")).await;
        assert!(trusted.text.contains("sink.kiosk"), "{kind}");
        trusted.quiet();
    }
}

#[tokio::test]
async fn fault_t2_destination_rules_of_others_do_not_count() {
    let loans = service("loans", "stacks", "10.40.0.21", "tcp-metaprotocol-dubbo", 9191);
    let host = "loans.stacks.svc.cluster.local";
    let router = format!("spec: {{hosts: [{host}], routes: [{{route: [{{destination: {{host: {host}, subset: v1}}}}]}}]}}");
    let router = object("MetaRouter", "loans", "stacks", 5, &router);
    let rule = |namespace: &str, day| {
        let spec = format!("spec: {{host: {host}, subsets: [{{name: v1, labels: {{version: v1}}}}]}}");
        object("DestinationRule", "loans", namespace, day, &spec)
    };
    let out = made(&format!("{loans}{router}{}", rule("kiosk", 1))).await;
    out.told(&["MetaRouter stacks/loans", "subset"]);
    for namespace in ["stacks", "istio-system"] {
        let out = made(&format!("{loans}{router}{}", rule(namespace, 1))).await;
        out.quiet();
        assert!(out.text.contains(&format!("outbound|9191|v1|{host}")));
    }
}

fn router(host: &str, namespace: &str, day: u8, more: &str) -> String {
    let spec = format!(
        "spec: {{hosts: ['{host}'], {more}routes: [{{name: all, route: [{{destination: {{host: sink.kiosk.svc.cluster.local}}}}]}}]}}"
    );
    object("MetaRouter", "grab", namespace, day, &spec)
}

#[tokio::test]
async fn fault_t4_routers_of_others_do_not_count() {
    let host = "loans.stacks.svc.cluster.local";
    let mesh = service("loans", "stacks", "10.40.0.21", "tcp-metaprotocol-thrift", 9191)
        + &service("sink", "kiosk", "10.40.0.66", "tcp-metaprotocol-thrift", 9191)
        + &entry("bank", "stacks", 1, "[10.30.0.1]", "");
    let before = made(&mesh).await;
    before.quiet();
    let limit = "localRateLimit: {tokenBucket: {maxTokens: 1, tokensPerFill: 1, fillInterval: 1h}}, ";
    for (named, more) in [
        (host, ""),
        (host, limit),
        (host, "exportTo: [stacks], "),
        ("bank.stacks.example", ""),
    ] {
        let out = made(&format!("{mesh}{}", router(named, "kiosk", 1, more))).await;
        assert_eq!(out.text, before.text, "{named} {more}");
        out.told(&["MetaRouter kiosk/grab", "spec.hosts[0]", named, "belongs to namespace stacks"]);
    }
    for short in ["loans", "loans.stacks"] {
        let out = made(&format!("{mesh}{}", router(short, "kiosk", 1, ""))).await;
        assert_eq!(out.text, before.text, "{short}");
        out.told(&["MetaRouter kiosk/grab", short]);
    }
    let out = made(&format!("{mesh}{}", router(host, "istio-system", 1, ""))).await;
    out.quiet();
    assert_ne!(out.text, before.text, "the root namespace decides");
    // An older entry with the host of another's Service gives no right to it.
    let fake = "spec: {hosts: [loans.stacks.svc.cluster.local], addresses: [10.40.0.99], resolution: STATIC, \
        ports: [{number: 9191, name: tcp-metaprotocol-thrift, protocol: TCP}], endpoints: [{address: 10.66.0.9}]}";
    let fake = object("ServiceEntry", "fake", "kiosk", 1, fake);
    let out = made(&format!("{mesh}{fake}{}", router(host, "kiosk", 1, ""))).await;
    assert_eq!(out.text, before.text);
    out.told(&["ServiceEntry kiosk/fake", "Service stacks/loans"]);
    out.told(&["MetaRouter kiosk/grab", "belongs to namespace stacks"]);
}

#[tokio::test]
async fn fault_t3_the_hosts_of_a_gateway_bind() {
    let sink = service("sink", "kiosk", "10.40.0.66", "tcp-metaprotocol-thrift", 9191);
    let router = router("sink.kiosk.svc.cluster.local", "kiosk", 1, "gateways: [doors/front], ");
    for (hosts, taken) in [
        ("['stacks/*.stacks.example']", false),
        ("['stacks/*']", false),
        ("['./*']", false),
        ("['~/*']", false),
        ("['kiosk/other.example']", false),
        ("['*.example']", false),
        ("['kiosk/*']", true),
        ("['*']", true),
        ("['*/*']", true),
        ("['stacks/*', 'kiosk/*.kiosk.svc.cluster.local']", true),
        ("['sink.kiosk.svc.cluster.local']", true),
    ] {
        let front = format!(
            "spec: {{selector: {{istio: ingressgateway}}, servers: [{{port: {{number: 9191, name: tcp-metaprotocol-thrift, protocol: TCP}}, hosts: {hosts}}}]}}"
        );
        let front = object("Gateway", "front", "doors", 0, &front);
        let out = made(&format!("{sink}{front}{router}")).await;
        assert_eq!(out.has(" doors/trimtab-gateway-outbound-front.doors-9191"), taken, "{hosts}");
        assert_eq!(out.has("VirtualService doors/aeraki-vs-doors.front-9191"), taken, "{hosts}");
        if taken {
            out.quiet();
        } else {
            out.told(&["MetaRouter kiosk/grab", "server 9191 of Gateway doors/front takes"]);
        }
    }
}

#[tokio::test]
async fn fault_t3_a_server_that_is_not_for_the_older_router_leads_to_the_other() {
    let mesh = service("sink", "kiosk", "10.40.0.66", "tcp-metaprotocol-thrift", 9191)
        + &service("loans", "stacks", "10.40.0.21", "tcp-metaprotocol-thrift", 9191);
    let front = "spec: {selector: {istio: g}, servers: [{port: {number: 9191, name: tcp-metaprotocol-thrift, protocol: TCP}, hosts: ['stacks/*']}]}";
    let front = object("Gateway", "front", "doors", 0, front);
    let older = router("sink.kiosk.svc.cluster.local", "kiosk", 1, "gateways: [doors/front], ");
    let younger = router("loans.stacks.svc.cluster.local", "stacks", 2, "gateways: [doors/front], ");
    let out = made(&format!("{mesh}{front}{older}{younger}")).await;
    assert!(out.has("VirtualService doors/aeraki-vs-doors.front-9191"), "{:?}", out.refused);
    assert_eq!(out.refused.len(), 1, "{:?}", out.refused);
}

#[tokio::test]
async fn fault_t16_a_namespace_may_keep_objects_of_others_out() {
    let mesh = service("sink", "kiosk", "10.40.0.66", "tcp-metaprotocol-thrift", 9191)
        + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: quiet, labels: {trimtab.io/accept-objects: \"false\"}}\n";
    let host = "sink.kiosk.svc.cluster.local";
    let exported = |to: &str| format!("{mesh}{}", router(host, "kiosk", 1, &format!("exportTo: {to}, ")));
    let outbound = |out: &Made| -> Vec<String> {
        let all = out.objects.iter().filter(|o| o.contains("-outbound-"));
        all.map(|o| o[12..].split('/').next().unwrap().to_owned()).collect()
    };
    for (to, namespaces, closed) in [
        ("[stacks, kube-system]", &["stacks"][..], &["kube-system"][..]),
        ("[quiet, stacks, '.']", &["kiosk", "stacks"], &["quiet"]),
        ("[istio-system]", &[], &["istio-system"]),
        ("[kube-public, quiet]", &[], &["kube-public", "quiet"]),
        ("['*']", &["istio-system"], &[]),
    ] {
        let out = made(&exported(to)).await;
        assert_eq!(outbound(&out), namespaces, "{to}");
        assert_eq!(out.refused.len(), closed.len(), "{to}: {:?}", out.refused);
        for name in closed {
            out.told(&["MetaRouter kiosk/grab", "spec.exportTo[", name]);
        }
    }
    let out = made_with("closedNamespaces: [stacks]", &exported("[stacks, kube-system]")).await;
    assert_eq!(outbound(&out), ["kube-system"], "the operator's list is the whole list");
}

#[tokio::test]
async fn fault_m11_two_hosts_with_one_address_and_port() {
    let isbn = entry("isbn", "library", 0, "[10.30.0.1, 10.30.0.2]", "");
    let author = entry("author", "library", 0, "[10.30.0.1, 10.30.0.3]", "");
    let out = made(&format!("{isbn}{author}")).await;
    for (part, there) in [
        ("author.library.example-10.30.0.1", true),
        ("author.library.example-10.30.0.3", true),
        ("isbn.library.example-10.30.0.1", false),
        ("isbn.library.example-10.30.0.2", true),
    ] {
        assert_eq!(out.has(part), there, "{part}: {:?}", out.objects);
    }
    out.told(&["ServiceEntry library/isbn", "ServiceEntry library/author", "10.30.0.1", "an address of its own"]);
    let older = isbn.replace("namespace: library}", "namespace: library, creationTimestamp: \"2026-01-01T00:00:00Z\"}");
    let out = made(&format!("{older}{author}")).await;
    assert!(out.has("isbn.library.example-10.30.0.1") && !out.has("author.library.example-10.30.0.1"));
    let shelf = service("shelf", "library", "10.30.0.1", "tcp-metaprotocol-dubbo", 7001);
    let out = made(&format!("{shelf}{older}")).await;
    assert!(out.has("shelf.library.svc.cluster.local-10.30.0.1") && !out.has("isbn.library.example-10.30.0.1"));
    out.told(&["ServiceEntry library/isbn", "Service library/shelf"]);
    let other = author.replace("number: 7001", "number: 7002");
    made(&format!("{isbn}{other}")).await.quiet();
}

#[tokio::test]
async fn fault_m12_any_method_is_no_pattern() {
    let index = service("index", "library", "10.20.0.10", "tcp-metaprotocol-thrift", 9098);
    let host = "index.library.svc.cluster.local";
    for (value, good) in [
        ("{exact: \"\"}", true),
        ("{regex: \"*\"}", true),
        ("{}", true),
        ("null", true),
        ("{prefix: get}", false),
        ("{regex: \"get.*\"}", false),
    ] {
        let spec = format!(
            "spec: {{hosts: [{host}], routes: [{{match: {{attributes: {{method: {value}}}}}, route: [{{destination: {{host: {host}}}}}]}}]}}"
        );
        let out = made(&format!("{index}{}", object("MetaRouter", "index", "library", 0, &spec))).await;
        assert_eq!(out.refused.is_empty(), good, "{value}: {:?}", out.refused);
        if good {
            assert!(out.text.contains("\"methodName\":\"\""), "{}", out.text);
        }
    }
}

#[tokio::test]
async fn fault_m13_a_short_host_is_of_the_namespace() {
    let host = "stack.library.svc.cluster.local";
    let mesh = service("stack", "library", "10.20.0.11", "tcp-dubbo", 20882)
        + &object("ServiceEntry", "outside", "library", 0,
            "spec: {hosts: [stack], addresses: [10.30.0.9], resolution: STATIC, ports: [{number: 20882, name: tcp-dubbo, protocol: TCP}]}")
        + &object("DestinationRule", "stack", "library", 0, "spec: {host: stack, subsets: [{name: ground, labels: {floor: ground}}]}");
    let router = format!("spec: {{hosts: [{host}], routes: [{{route: [{{destination: {{host: {host}, subset: ground}}}}]}}]}}");
    let rules = "spec: {hosts: [stack], http: [{route: [{destination: {host: stack, subset: ground}}]}]}";
    for routes in [
        object("MetaRouter", "stack", "library", 0, &router),
        object("VirtualService", "stack", "library", 0, rules),
    ] {
        let out = made(&format!("{mesh}{routes}")).await;
        out.quiet();
        assert!(out.text.contains(&format!("outbound|20882|ground|{host}")), "{}", out.text);
    }
}

#[tokio::test]
async fn fault_m18_what_fits_nothing_is_told() {
    let web = service("web", "library", "10.20.0.12", "tcp-metaprotocol-thrift", 9099)
        + &service("cache", "library", "10.20.0.13", "tcp-redis", 6379);
    let cache = "cache.library.svc.cluster.local";
    let nowhere = "cahce.library.svc.cluster.local";
    for (kind, namespace, spec, parts) in [
        ("RedisService", "library", format!("spec: {{host: [{nowhere}], redis: [{{route: {{host: {nowhere}}}}}]}}"), vec!["spec.host[0]", nowhere]),
        ("RedisService", "library", format!("spec: {{host: [{cache}, {nowhere}], redis: [{{route: {{host: {cache}}}}}]}}"), vec!["spec.host[1]", nowhere]),
        ("RedisService", "kiosk", format!("spec: {{host: [{cache}], redis: [{{route: {{host: {cache}}}}}]}}"), vec!["spec.host[0]", "belongs to namespace library"]),
        ("RedisDestination", "library", format!("spec: {{host: {nowhere}}}"), vec!["spec.host", nowhere]),
        ("RedisDestination", "library", "spec: {host: web.library.svc.cluster.local}".to_owned(), vec!["spec.host", "tcp-redis"]),
        ("MetaRouter", "library", format!("spec: {{hosts: [{nowhere}], routes: [{{route: [{{destination: {{host: {cache}}}}}]}}]}}"), vec!["spec.hosts[0]", nowhere]),
        ("DubboAuthorizationPolicy", "library", "spec: {rules: [{from: [{source: {namespaces: [a]}}]}]}".to_owned(), vec!["namespace library", "tcp-dubbo"]),
    ] {
        let name = if namespace == "library" { "cache" } else { "grab" };
        let out = made(&format!("{web}{}", object(kind, name, namespace, 0, &spec))).await;
        let title = format!("{kind} {namespace}/{name}");
        let mut all = vec![title.as_str()];
        all.extend(parts);
        out.told(&all);
    }
}
