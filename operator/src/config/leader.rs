//! `leaderElection:` of the configuration.

use serde::{Deserialize, Serialize};
use trimtab_crds::Duration;
use trimtab_kit::lease::Timing;

/// Of several replicas one writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LeaderElection {
    /// False: this is the only replica, and it always writes.
    pub enabled: bool,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name, the same for all replicas; also the value of the label of the leader's pod.
    pub name: String,
    /// Others take over when they have seen no renewal for this long. Whole seconds.
    pub lease_duration: Duration,
    /// The leader begins no write when its last renewal is older than this.
    pub renew_deadline: Duration,
    /// Time between renewals.
    pub retry_period: Duration,
}

impl Default for LeaderElection {
    fn default() -> Self {
        let Timing {
            lease,
            renew_deadline,
            retry,
            ..
        } = Timing::default();
        Self {
            enabled: false,
            namespace: trimtab_crds::NAMESPACE.to_owned(),
            name: "trimtab".to_owned(),
            lease_duration: lease.into(),
            renew_deadline: renew_deadline.into(),
            retry_period: retry.into(),
        }
    }
}

impl LeaderElection {
    /// As the election takes them.
    pub fn timing(&self) -> Timing {
        Timing {
            lease: *self.lease_duration,
            renew_deadline: *self.renew_deadline,
            retry: *self.retry_period,
            ..Timing::default()
        }
    }

    /// Checks what types cannot say. The error names the key and the fix.
    pub fn check(&self) -> Result<(), String> {
        if self.namespace.is_empty() {
            return Err(
                "leaderElection.namespace is empty: write the namespace of the replicas".to_owned(),
            );
        }
        if self.name.is_empty() || self.name.len() > 63 {
            return Err(format!(
                "leaderElection.name: {:?} must have 1 to 63 characters, as it is the value of a label too",
                self.name
            ));
        }
        self.timing().check("leaderElection")
    }
}
