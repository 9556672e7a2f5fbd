//! Objects of users, and the proxies that they are for.

use trimtab_kit::istiod::Release;

use super::super::facts::{Asked, Facts, Namespace, Need, Objects, Proxies, Troubled};
use super::super::finding::{
    IN_TROUBLE, ISTIOD_OLD, NO_PROXIES, PROXIES_OLD, REVISION_GONE, Report,
};
use super::{count, few};

pub(super) fn judge(facts: &Facts, report: &mut Report) {
    report.look("Objects", |report| objects(facts, report));
    report.look("Namespaces", |report| match &facts.namespaces {
        Ok(namespaces) => reached(facts, namespaces, report),
        Err(why) => {
            report.unknown("Namespaces", why);
            String::new()
        }
    });
    report.look("Proxies", |report| match &facts.proxies {
        Ok(proxies) => {
            revisions(facts, proxies, report);
            let pods = proxies.iter().map(|p| p.pods).sum();
            count(pods, "proxy").replace("proxys", "proxies")
        }
        Err(why) => {
            report.unknown("Proxies", why);
            String::new()
        }
    });
    report.look("Releases", |report| {
        facts
            .needs
            .iter()
            .for_each(|need| needed(facts, need, report));
        "no object needs more than there is".to_owned()
    });
}

fn objects(facts: &Facts, report: &mut Report) -> String {
    let mut total = 0;
    for (name, objects) in &facts.objects {
        match objects {
            Ok(objects) => {
                total += objects.total;
                // Nobody has looked at them before Trimtab is installed.
                if facts.operator.is_some() {
                    in_trouble(objects, report);
                }
            }
            Err(why) => report.unknown(&format!("Objects {name}"), why),
        }
    }
    format!("{} of Trimtab's kinds", count(total, "object"))
}

fn in_trouble(objects: &Objects, report: &mut Report) {
    let Objects {
        kind,
        total,
        troubled,
    } = objects;
    let Some(worst) = troubled.iter().min() else {
        return;
    };
    let Troubled {
        name,
        condition,
        reason,
        message,
        ..
    } = worst;
    let others = match troubled.len() {
        1 => String::new(),
        many => format!(" ({many} of {total} are not as they should be)"),
    };
    let (field, what) = if condition.is_empty() {
        (
            "status",
            "the operator has not written its status".to_owned(),
        )
    } else {
        (
            "status.conditions",
            format!("{condition} is not True, {reason}: {message}"),
        )
    };
    report.find(
        IN_TROUBLE,
        (format!("{kind} {name}"), field),
        format!("{what}{others}"),
        format!(
            "see kubectl get {} -A; trimtab describe says more of one",
            kind.to_lowercase()
        ),
    );
}

fn reached(facts: &Facts, namespaces: &[Namespace], report: &mut Report) -> String {
    let proxies = facts.proxies.as_deref().unwrap_or_default();
    let known = facts.proxies.is_ok();
    for namespace in namespaces {
        let any = proxies.iter().any(|p| p.namespace == namespace.name);
        if any || namespace.injected || !known || namespace.pods == 0 {
            continue;
        }
        let (why, fix) = if namespace.ambient {
            (
                "it is in ambient mode, and no pod of it has a proxy of its own",
                "limits, scopes and routes are for sidecars and gateways: label the namespace istio-injection=enabled instead",
            )
        } else {
            (
                "no pod of it has a proxy, and its labels ask for none",
                "label the namespace istio-injection=enabled, or istio.io/rev=REVISION, and restart its pods",
            )
        };
        report.find(
            NO_PROXIES,
            (format!("Namespace {}", namespace.name), "metadata.labels"),
            format!(
                "{why}: Trimtab's objects there ({}) do nothing in its pods",
                namespace.objects
            ),
            fix,
        );
    }
    format!("{} with objects", count(namespaces.len(), "namespace"))
}

fn revisions(facts: &Facts, proxies: &[Proxies], report: &mut Report) {
    let istiods: &Asked<_> = &facts.istiods;
    let Some(istiods) = istiods.as_ref().ok().filter(|all| !all.is_empty()) else {
        return;
    };
    let mut gone: Vec<&Proxies> = proxies
        .iter()
        .filter(|p| !p.revision.is_empty() && istiods.iter().all(|i| i.revision != p.revision))
        .collect();
    gone.sort_by_key(|p| &p.revision);
    for group in gone.chunk_by(|a, b| a.revision == b.revision) {
        let pods: usize = group.iter().map(|p| p.pods).sum();
        let namespaces: Vec<String> = group.iter().map(|p| p.namespace.clone()).collect();
        let namespaces = few(&namespaces);
        report.find(
            REVISION_GONE,
            (format!("Namespace {}", group[0].namespace), "istio.io/rev"),
            format!(
                "{} in {namespaces} are of revision {}, and no istiod is",
                count(pods, "pod"),
                group[0].revision
            ),
            "restart the pods, so that they get a proxy of a revision that runs",
        );
    }
}

fn needed(facts: &Facts, need: &Need, report: &mut Report) {
    let Some(since) = Release::read(&need.since) else {
        return;
    };
    let older = |version: &str| Release::read(version).filter(|release| *release < since);
    let Need {
        object,
        field,
        what,
        instead,
        ..
    } = need;
    if need.of_proxies {
        let proxies = facts.proxies.as_deref().unwrap_or_default();
        let own = proxies.iter().filter(|p| p.namespace == need.namespace);
        let old: Vec<(Release, usize)> = own
            .filter_map(|p| Some((older(&p.version)?, p.pods)))
            .collect();
        let Some(oldest) = old.iter().map(|(release, _)| *release).min() else {
            return;
        };
        let pods = old.iter().map(|(_, pods)| pods).sum();
        report.find(
            PROXIES_OLD,
            (object.clone(), field.as_str()),
            format!(
                "{what} needs proxies of Istio {since}, and {} of namespace {} are older, down to {oldest}",
                count(pods, "pod"),
                need.namespace
            ),
            format!("restart the pods after the upgrade of Istio, or {instead}"),
        );
        return;
    }
    let istiods = facts.istiods.as_deref().unwrap_or_default();
    let old = istiods
        .iter()
        .find_map(|i| Some((older(i.version.as_deref()?)?, i)));
    if let Some((release, istiod)) = old {
        report.find(
            ISTIOD_OLD,
            (object.clone(), field.as_str()),
            format!(
                "{what} needs Istio {since}, and istiod of Deployment {} is {release}",
                istiod.place
            ),
            format!("upgrade Istio, or {instead}"),
        );
    }
}
