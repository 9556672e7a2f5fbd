//! Keys of Slime's framework and of SlimeBoot: where each went. Those of the modules themselves are known to the modules
//! (`legacy.rs` of each).

use trimtab_kit::module::Became::{self, Key, Nothing, Other};

/// Key and what became of it, in the values of the chart.
pub type Table = &'static [(&'static str, Became)];

/// `global` of a module.
pub const GLOBAL: Table = &[
    (
        "clientGoTokenBucket",
        Nothing(
            "requests to the API server are bounded by config.lazyload.writes and by watches that are shared",
        ),
    ),
    ("configRev", Nothing("no configuration is fetched by xDS")),
    (
        "deployRev",
        Nothing("the Lease is named after the Helm release"),
    ),
    (
        "enableConvertSeToIstioRes",
        Nothing("ServiceEntries are read as they are"),
    ),
    (
        "istioConfigSource",
        Other("objects that only this server has are not seen: apply them to the API server"),
    ),
    (
        "istioRev",
        Other(
            "Trimtab acts on the objects of all revisions: with two control planes, the label istio.io/rev of an object goes to what is generated of it, and istiod of that revision alone obeys it",
        ),
    ),
    ("masterUrl", Nothing("the pod's own API server is used")),
    (
        "multicluster",
        Nothing("Slime does not read it any more either"),
    ),
    ("selfResourceRev", Key("config.lazyload.revision")),
    ("service", Key("config.lazyload.workloadLabel")),
    (
        "slimeNamespace",
        Nothing("Trimtab's namespace is that of the Helm release"),
    ),
    ("strictRev", Nothing("it belongs to istioRev")),
];

/// `global.misc` of a module.
pub const MISC: Table = &[
    ("auxAddr", Nothing("probes and logs are on port 8080")),
    (
        "enableLeaderElection",
        Nothing("two replicas elect a leader by themselves"),
    ),
    (
        "globalSidecarMode",
        Key("config.lazyload.fallback.globalSidecarMode"),
    ),
    ("metricsAddr", Nothing("metrics are on port 8080")),
    (
        "pathRedirect",
        Nothing("the paths of the HTTP port are in docs/api.md"),
    ),
    (
        "seLabelSelectorKeys",
        Other(
            "pods of a ServiceEntry are found by its workloadSelector only: add one to each ServiceEntry that a SmartLimiter names in spec.host",
        ),
    ),
    (
        "xdsSourceEnableIncPush",
        Nothing("no configuration is fetched by xDS"),
    ),
];

/// `spec` of a SlimeBoot.
pub const BOOT: Table = &[
    ("affinity", Key("affinity")),
    (
        "args",
        Other("Trimtab has other arguments: the configuration is values.config"),
    ),
    (
        "containerSecurityContext",
        Nothing("the chart's own meets the Pod Security Standard restricted"),
    ),
    (
        "image",
        Nothing("the image is Trimtab's: image.repository and image.tag"),
    ),
    ("imagePullSecrets", Key("imagePullSecrets")),
    (
        "namespace",
        Nothing("the namespace is that of the Helm release"),
    ),
    ("nodeSelector", Key("nodeSelector")),
    (
        "podSecurityContext",
        Nothing("the chart's own meets the Pod Security Standard restricted"),
    ),
    (
        "replicaCount",
        Nothing("there are two replicas, one of which writes"),
    ),
    ("resources", Key("resources")),
    (
        "serviceAccount",
        Nothing("the chart makes a ServiceAccount: serviceAccount.name names another"),
    ),
    ("tolerations", Key("tolerations")),
    ("volumeMounts", Key("extraVolumeMounts")),
    ("volumes", Key("extraVolumes")),
];

/// `spec.service` of a SlimeBoot.
pub const SERVICE: Table = &[
    ("auxiliaryPort", Nothing("probes and logs are on port 8080")),
    ("logSourcePort", Key("service.ports.accessLogs")),
    (
        "mcpOverXdsPort",
        Nothing("it was of the module meshregistry"),
    ),
    ("port", Nothing("nothing of Slime listened there")),
    ("type", Key("service.type")),
];

/// `spec.component.globalSidecar` of a SlimeBoot.
pub const GLOBAL_SIDECAR: Table = &[
    (
        "affinity",
        Other("the fallback's pods have none: they spread over nodes by themselves"),
    ),
    ("enable", Key("fallback.enabled")),
    (
        "image",
        Nothing("the fallback is a stock Envoy: fallback.image"),
    ),
    (
        "legacyFilterName",
        Nothing("Istio has had only the new names since 1.13"),
    ),
    ("namespace", Key("config.lazyload.fallback.namespace")),
    (
        "port",
        Nothing("the fallback carries every HTTP port, 80 too"),
    ),
    ("probePort", Nothing("it is 18181 always")),
    ("replicas", Key("fallback.replicas")),
    ("resources", Key("fallback.resources")),
    (
        "tolerations",
        Other(
            "the fallback's pods have none: on tainted nodes install the output of trimtab fallback yourself, with fallback.external: true",
        ),
    ),
    ("type", Key("config.lazyload.fallback.globalSidecarMode")),
];

/// `spec.component.globalSidecar.sidecarInject`.
pub const INJECT: Table = &[
    (
        "annotations",
        Other(
            "the fallback's pods have those of the chart only: install the output of trimtab fallback yourself, with fallback.external: true",
        ),
    ),
    (
        "enable",
        Nothing("the fallback needs an injected sidecar always: fallback.podLabels asks for it"),
    ),
    ("labels", Key("fallback.podLabels")),
    (
        "mode",
        Nothing("fallback.podLabels ask for the sidecar, whatever the namespace says"),
    ),
];

/// Variables of the environment of Slime's pods.
pub const ENV: Table = &[
    (
        "ENVOY_FILTER_NAME_LEGACY",
        Nothing("Istio has had only the new names since 1.13"),
    ),
    ("POD_NAME", Nothing("the chart sets its own")),
    ("POD_NAMESPACE", Nothing("the chart sets its own")),
    (
        "SLIME_PASS_LBL_REG",
        Other(
            "labels of owners are not copied to what is generated: select it by the labels trimtab.io/owner-kind and trimtab.io/owner-name",
        ),
    ),
    (
        "WATCH_NAMESPACE",
        Nothing("the Lease is in the namespace of the release"),
    ),
];

/// What became of a key.
pub fn find(table: Table, key: &str) -> Option<Became> {
    let found = table.iter().find(|(name, _)| *name == key);
    found.map(|(_, became)| *became)
}
