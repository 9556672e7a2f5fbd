//! `lazyload.exclusions` and `lazyload.auto`.

use serde::{Deserialize, Serialize};
use trimtab_crds::Duration;

use super::HOUR;

/// istiod's monitoring port.
const MONITORING: u16 = 15014;

/// How it is known whether Istio's Sidecar knows exclusions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Exclusions {
    /// Where istiod says its version: its monitoring port. Absent: `http://istiod.ISTIONAMESPACE.svc:15014`, with a revision
    /// `istiod-REVISION`. Empty: it is not asked.
    pub istiod: Option<String>,
}

impl Exclusions {
    /// The address to ask; `None`: nobody.
    pub fn address(&self, namespace: &str, revision: &str) -> Option<String> {
        match self.istiod.as_deref() {
            Some("") => None,
            Some(address) => Some(address.to_owned()),
            None => {
                let name = match revision {
                    "" | "default" => "istiod".to_owned(),
                    revision => format!("istiod-{revision}"),
                };
                Some(format!("http://{name}.{namespace}.svc:{MONITORING}"))
            }
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        match self.istiod.as_deref() {
            None | Some("") => Ok(()),
            Some(address) if address.starts_with("http://") => Ok(()),
            Some(address) => Err(format!(
                "lazyload.exclusions.istiod: \"{address}\" is no address of a monitoring port: write for example http://istiod.istio-system.svc:15014"
            )),
        }
    }
}

/// When mode `Auto` takes its steps. Times are watched time, unless they say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AutoMode {
    /// Workloads are watched at least this long before `Enforce`.
    pub learn: Duration,
    /// And no call outside the scope was seen for this long.
    pub quiet: Duration,
    /// A step is at least this old, by the clock, before it tightens again; doubled with each return.
    pub hold: Duration,
    /// Calls that go to the fallback, `PassthroughCluster` or `BlackHoleCluster` are counted over this long, by the clock.
    pub window: Duration,
    /// More of them in a window than this, and than twice what is usual besides, and it goes back.
    pub calls: u64,
}

impl Default for AutoMode {
    fn default() -> Self {
        Self {
            learn: Duration::from_secs(72 * HOUR),
            quiet: Duration::from_secs(24 * HOUR),
            hold: Duration::from_secs(HOUR),
            window: Duration::from_secs(300),
            calls: 20,
        }
    }
}

impl AutoMode {
    pub(super) fn check(&self) -> Result<(), String> {
        for (key, value) in [
            ("learn", self.learn),
            ("hold", self.hold),
            ("window", self.window),
        ] {
            if value.is_zero() {
                return Err(format!(
                    "lazyload.auto.{key} is 0: without it a fence is tightened without proof, or swings: write a time"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istiod_is_asked_where_its_charts_put_it() {
        let default = Exclusions::default();
        let at = |e: &Exclusions, revision: &str| e.address("istio-system", revision);
        assert_eq!(
            at(&default, "").as_deref(),
            Some("http://istiod.istio-system.svc:15014")
        );
        assert_eq!(
            at(&default, "canary").as_deref(),
            Some("http://istiod-canary.istio-system.svc:15014")
        );
        let none = Exclusions {
            istiod: Some(String::new()),
        };
        assert_eq!((at(&none, ""), none.check()), (None, Ok(())));
        let bad = Exclusions {
            istiod: Some("istiod:15014".to_owned()),
        };
        assert!(bad.check().is_err());
    }
}
