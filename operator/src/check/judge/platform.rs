//! Kubernetes, Istio and clocks.

use trimtab_kit::istiod::Release;

use super::super::facts::{Facts, Istiod};
use super::super::finding::{
    CLOCK_HERE, CLOCK_OPERATOR, ISTIODS_APART, KUBERNETES_OLD, NO_ISTIOD, Report,
};
use super::count;

/// The first whose API server knows the rules of our CRDs.
const KUBERNETES: Release = Release {
    major: 1,
    minor: 25,
};
/// Clocks that differ by more make certificates and tokens invalid, and ages of samples wrong.
const CLOCKS: i64 = 60;

pub(super) fn judge(facts: &Facts, report: &mut Report) {
    report.look("Kubernetes", |report| kubernetes(facts, report));
    report.look("Istio", |report| match &facts.istiods {
        Ok(istiods) => istio(istiods, report),
        Err(why) => {
            report.unknown("Istio", why);
            String::new()
        }
    });
    report.look("Time", |report| clocks(facts, report));
}

fn kubernetes(facts: &Facts, report: &mut Report) -> String {
    let version = &facts.kubernetes.version;
    let release = Release::read(version.trim_start_matches('v'));
    if release.is_some_and(|release| release < KUBERNETES) {
        report.find(
            KUBERNETES_OLD,
            ("API server", "version"),
            format!("it is {version}, which does not know the validation rules of Trimtab's CRDs"),
            format!("upgrade Kubernetes to {KUBERNETES} or later"),
        );
    }
    version.clone()
}

fn istio(istiods: &[Istiod], report: &mut Report) -> String {
    if istiods.is_empty() {
        report.find(
            NO_ISTIOD,
            ("Istio", ""),
            "no Deployment has the label app=istiod: nobody gives proxies what Trimtab writes",
            "install Istio, or ignore this where its control plane runs outside of the cluster",
        );
    }
    let releases: Vec<(Release, &Istiod)> = istiods
        .iter()
        .filter_map(|i| Some((Release::read(i.version.as_deref()?)?, i)))
        .collect();
    let (oldest, newest) = (
        releases.iter().min_by_key(|(release, _)| *release),
        releases.iter().max_by_key(|(release, _)| *release),
    );
    if let (Some((old, first)), Some((new, last))) = (oldest, newest)
        && (new.major != old.major || new.minor > old.minor + 1)
    {
        report.find(
            ISTIODS_APART,
            (format!("Deployment {}", first.place), ""),
            format!(
                "istiod {old} runs beside {new} of Deployment {}: what Trimtab writes for all is seen by both",
                last.place
            ),
            "upgrade the older one, or remove it when no proxy is connected to it any more",
        );
    }
    let shown: Vec<String> = istiods.iter().map(shown).collect();
    shown.join(", ")
}

fn shown(istiod: &Istiod) -> String {
    let version = istiod.version.as_deref().unwrap_or("of unknown version");
    let revision = Some(&istiod.revision).filter(|r| !r.is_empty());
    let revision = revision.map_or_else(String::new, |r| format!(", revision {r}"));
    format!("istiod {version} ({}{revision})", istiod.place)
}

fn clocks(facts: &Facts, report: &mut Report) -> String {
    let direction = |ahead: i64| if ahead > 0 { "ahead of" } else { "behind" };
    let seconds = |ahead: i64| {
        let number = usize::try_from(ahead.unsigned_abs()).unwrap_or(usize::MAX);
        count(number, "second")
    };
    let here = facts.kubernetes.clock_ahead;
    if let Some(ahead) = here.filter(|ahead| ahead.abs() > CLOCKS) {
        report.find(
            CLOCK_HERE,
            ("API server", "clock"),
            format!("it is {} {} the clock of this machine", seconds(ahead), direction(ahead)),
            "synchronize both with NTP: certificates and tokens are not valid yet, or not any more, by one of them",
        );
    }
    let operator = facts.operator.as_ref();
    let ahead = operator.and_then(|operator| operator.clock_ahead);
    if let Some(ahead) = ahead.filter(|ahead| ahead.abs() > CLOCKS) {
        report.find(
            CLOCK_OPERATOR,
            ("Operator", "clock"),
            format!("it is {} {} the API server's", seconds(ahead), direction(ahead)),
            "synchronize the clocks of the nodes with NTP: proxies refuse certificates that are not valid yet",
        );
    }
    if here.is_none() && ahead.is_none() {
        return String::new();
    }
    format!("they differ by less than {CLOCKS} seconds")
}
