//! What a check says: a code for each kind of fault, and where it is.

use serde::Serialize;

/// Where the page with all codes is.
const PAGE: &str = "https://trimtab.io/docs/check.md";

/// How bad a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something will not work, or not as it should.
    Warning,
    /// To know.
    Info,
}

impl Severity {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Stable.
    pub id: &'static str,
    /// How bad.
    pub severity: Severity,
    /// What it is, as the page says it.
    pub title: &'static str,
}

macro_rules! codes {
    ($($name:ident $id:literal $severity:ident $title:literal;)*) => {
        $(pub(super) const $name: Code = Code { id: $id, severity: Severity::$severity, title: $title };)*
        /// All codes, sorted.
        pub const CODES: &[Code] = &[$($name),*];
    };
}

codes! {
    NOT_CHECKED "TC001" Warning "Something could not be checked";
    KUBERNETES_OLD "TC101" Error "Kubernetes is too old";
    NO_ISTIOD "TC102" Warning "No istiod is found";
    ISTIOD_OLD "TC103" Error "An object needs a newer istiod";
    ISTIODS_APART "TC104" Warning "istiods are more than one release apart";
    CLOCK_HERE "TC105" Warning "The API server's clock differs from the one here";
    CLOCK_OPERATOR "TC106" Warning "The operator's clock differs from the API server's";
    CRD_MISSING "TC201" Error "A CRD of Trimtab is missing";
    CRD_OLD "TC202" Error "A CRD of Trimtab is of another release";
    CRD_VERSION "TC203" Error "A CRD does not serve a version";
    KIND_MISSING "TC204" Error "A kind that Trimtab writes is missing";
    RIGHT_MISSING "TC301" Error "The operator lacks a right";
    RIGHT_NAMED "TC302" Info "A right is limited";
    MAY_NOT_INSTALL "TC303" Warning "You may not install Trimtab";
    SOURCE_DOWN "TC401" Error "A metric source does not answer";
    QUERY_FAILS "TC402" Warning "A query fails";
    QUERY_EMPTY "TC403" Warning "A query answers nothing";
    QUERY_UNUSABLE "TC404" Warning "A query answers what cannot be used";
    METRICS_API "TC405" Error "The metrics API is not available";
    NOT_READY "TC501" Error "Replicas are not ready";
    IMAGE "TC502" Error "The image cannot be pulled";
    MIXED "TC503" Warning "Replicas run different images";
    OTHER_VERSION "TC504" Warning "The operator is of another version than this program";
    SILENT "TC505" Error "The operator does not answer";
    WAITS "TC506" Error "The operator waits";
    DEGRADED "TC507" Warning "The operator is degraded";
    THROTTLED "TC508" Warning "The write budget is used up";
    NO_LEADER "TC509" Error "Nobody leads";
    LEASE_STALE "TC510" Error "The Lease is not renewed";
    SERVICE_MISSING "TC511" Error "The address that proxies are told leads nowhere";
    SERVICE_EMPTY "TC512" Error "A Service has no ready endpoint";
    PORT_NAME "TC513" Warning "Istio does not see the protocol of a port";
    IN_TROUBLE "TC601" Error "Objects are in trouble";
    NO_PROXIES "TC602" Warning "A namespace with objects has no proxies";
    PROXIES_OLD "TC603" Warning "An object needs newer proxies";
    REVISION_GONE "TC604" Warning "Proxies are of a revision that no istiod has";
    REFUSED "TC605" Warning "The operator refuses an object";
    SLIME "TC701" Warning "Slime is still installed";
    RIVAL "TC702" Warning "Aeraki is still installed";
    WEBHOOK_OLD "TC703" Warning "A webhook of Aeraki still checks objects";
    WEBHOOK_CLOSED "TC704" Error "A webhook that does not answer refuses objects";
}

impl Code {
    /// Where the page says more.
    pub fn link(&self) -> String {
        format!("{PAGE}#{}", self.id.to_lowercase())
    }
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Stable.
    pub code: &'static str,
    /// Kind and name of the object, or what stands for it.
    pub object: String,
    /// Path in it; empty: the whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub fix: String,
    /// Where the page says more.
    pub link: String,
}

/// A check without a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Passed {
    /// What was looked at.
    pub check: &'static str,
    /// What is there.
    pub message: String,
}

/// What a check says as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Faults, the worst first.
    pub findings: Vec<Finding>,
    /// The rest, in the order of the checks.
    pub ok: Vec<Passed>,
}

impl Report {
    /// A fault in a field of an object.
    pub(super) fn find(
        &mut self,
        code: Code,
        (object, field): (impl Into<String>, &str),
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.findings.push(Finding {
            severity: code.severity,
            code: code.id,
            object: object.into(),
            field: field.to_owned(),
            message: message.into(),
            fix: fix.into(),
            link: code.link(),
        });
    }

    /// What is not known. `check`: what was to be looked at.
    pub(super) fn unknown(&mut self, check: &str, why: &str) {
        self.find(
            NOT_CHECKED,
            (check, ""),
            format!("could not be checked: {why}"),
            "run the command with a kubeconfig that may read it, or check it by hand",
        );
    }

    /// Looks at something, and says `ok` of it unless a fault is found.
    pub(super) fn look(&mut self, check: &'static str, look: impl FnOnce(&mut Self) -> String) {
        let before = self.findings.len();
        let message = look(self);
        if self.findings.len() == before && !message.is_empty() {
            self.ok.push(Passed { check, message });
        }
    }

    /// Faults at least as bad as this.
    pub fn at_least(&self, severity: Severity) -> usize {
        let found = self.findings.iter();
        found.filter(|f| f.severity <= severity).count()
    }
}
