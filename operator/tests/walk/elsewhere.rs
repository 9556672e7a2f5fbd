//! What a walk cannot run as it stands, with the reason. A line that no document has fails the test.

/// A command of a document.
pub(crate) struct Line {
    pub(crate) document: &'static str,
    pub(crate) command: &'static str,
    /// What is run instead.
    pub(crate) instead: Option<&'static str>,
    pub(crate) reason: &'static str,
}

const NO_KUBELET: &str = "the cluster of the tests has no kubelet, so no pod ever starts";
const OPERATOR: &str = "there is no pod to forward to: the program runs here, with the configuration that the chart gave it";

/// The operator at the address to which the page forwards the pod's port.
const RUN: Option<&str> = Some(
    "kubectl -n istio-system get configmap trimtab -o jsonpath='{.data.config\\.yaml}' > operator.yaml
trimtab run --config operator.yaml > operator.log 2>&1 &",
);

/// Stops what [`RUN`] has started, too.
macro_rules! stop {
    ($command:literal) => {
        Some(concat!(
            "for job in $(jobs -p); do kill $job; done; wait\n",
            $command
        ))
    };
}

pub(crate) const LINES: &[Line] = &[
    Line {
        document: "README.md",
        command: "cargo build -p trimtab",
        instead: None,
        reason: "cargo has built the program for this test, and a build takes minutes",
    },
    Line {
        document: "docs/check.md",
        command: "trimtab check",
        instead: None,
        reason: NO_KUBELET,
    },
    Line {
        document: "docs/install.md",
        command: "kubectl --namespace istio-system rollout status deployment/trimtab",
        instead: None,
        reason: NO_KUBELET,
    },
    Line {
        document: "docs/install.md",
        command: "kubectl --namespace istio-system port-forward deployment/trimtab 8080 &",
        instead: RUN,
        reason: OPERATOR,
    },
    Line {
        document: "docs/servicefence.md",
        command: "kubectl --namespace istio-system port-forward deployment/trimtab 8080 &",
        instead: RUN,
        reason: OPERATOR,
    },
    Line {
        document: "docs/servicefence.md",
        command: "trimtab describe pod productpage-7d9 -n bookinfo        # the fences of a pod",
        instead: None,
        reason: NO_KUBELET,
    },
    Line {
        document: "docs/metaprotocol.md",
        command: "kubectl -n istio-system port-forward deployment/trimtab 8080 &",
        instead: RUN,
        reason: OPERATOR,
    },
    Line {
        document: "docs/migrate/slime.md",
        command: "kubectl --namespace istio-system rollout status deployment/trimtab",
        instead: RUN,
        reason: OPERATOR,
    },
    Line {
        document: "docs/migrate/lazyxds.md",
        command: "kubectl --namespace istio-system rollout status deployment/trimtab",
        instead: RUN,
        reason: OPERATOR,
    },
    Line {
        document: "docs/migrate/slime.md",
        command: "kubectl --namespace istio-system scale deployment trimtab --replicas=0",
        instead: stop!("kubectl --namespace istio-system scale deployment trimtab --replicas=0"),
        reason: OPERATOR,
    },
    Line {
        document: "docs/migrate/lazyxds.md",
        command: "helm uninstall trimtab --namespace istio-system",
        instead: stop!("helm uninstall trimtab --namespace istio-system"),
        reason: OPERATOR,
    },
    Line {
        document: "docs/metaprotocol.md",
        command: "trimtab xds diff NODE",
        instead: None,
        reason: "NODE is a proxy that `trimtab xds nodes` lists; here none is connected",
    },
];

/// Sections that another test walks.
pub(crate) const SECTIONS: &[(&str, &str, &str)] = &[(
    "docs/migrate/aeraki.md",
    "Steps",
    "tests/tests/cluster/from_aeraki.rs runs them, and looks at what holds before and after each",
)];

const CRDS: &str = "helm install trimtab-crds charts/trimtab-crds --namespace istio-system";
const CHART: &str = "helm install trimtab charts/trimtab --namespace istio-system";

/// Applies a fixture.
macro_rules! apply {
    ($file:literal) => {
        concat!(
            "kubectl apply -f ",
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/fixtures/",
            $file
        )
    };
}

const ESTABLISHED: &str =
    "kubectl wait --for=condition=established --timeout=60s crd --all > /dev/null";

/// What pages say is there already: Trimtab, installed from its charts, or what another product left.
pub(crate) const BEFORE: &[(&str, &[&str])] = &[
    ("docs/servicefence.md", &[CRDS, CHART]),
    ("docs/metaprotocol.md", &[CRDS, CHART]),
    ("examples/lazyload/README.md", &[CRDS, CHART]),
    (
        "docs/migrate/slime.md",
        &[
            apply!("slime/crds.yaml"),
            ESTABLISHED,
            apply!("slime/objects.yaml"),
            "uid() { kubectl --namespace shop get \"$1\" \"$2\" -o jsonpath='{.metadata.uid}'; }",
            concat!(
                "sed -e \"s/LIMITER/$(uid smartlimiter reviews)/\" -e \"s/FENCE/$(uid servicefence productpage)/\" ",
                env!("CARGO_MANIFEST_DIR"),
                "/../tests/fixtures/slime/generated.yaml | kubectl apply -f -"
            ),
        ],
    ),
    (
        "docs/migrate/aeraki.md",
        &[
            apply!("aeraki/crd.yaml"),
            ESTABLISHED,
            apply!("aeraki/objects.yaml"),
        ],
    ),
    ("docs/migrate/lazyxds.md", &[apply!("lazyxds/objects.yaml")]),
];

pub(crate) fn line(document: &str, command: &str) -> Option<&'static Line> {
    let mut lines = LINES.iter();
    lines.find(|l| l.document == document && l.command == command)
}

pub(crate) fn section(document: &str, heading: &str) -> Option<&'static str> {
    let mut sections = SECTIONS.iter();
    let found = sections.find(|(d, h, _)| *d == document && *h == heading);
    found.map(|(_, _, reason)| *reason)
}

pub(crate) fn before(document: &str) -> &'static [&'static str] {
    let found = BEFORE.iter().find(|(d, _)| *d == document);
    found.map_or(&[], |(_, commands)| commands)
}
