//! CRDs and rights.

use std::collections::BTreeMap;

use super::super::facts::{Crd, Facts, FoundCrd, Missing, Rights};
use super::super::finding::{
    CRD_MISSING, CRD_OLD, CRD_VERSION, KIND_MISSING, MAY_NOT_INSTALL, RIGHT_MISSING, RIGHT_NAMED,
    Report,
};
use super::{count, few};

const UPGRADE: &str = "run helm upgrade --install trimtab-crds with the chart of this release";

pub(super) fn judge(facts: &Facts, report: &mut Report) {
    report.look("CRDs", |report| match &facts.crds {
        Ok(crds) => own(crds, report),
        Err(why) => {
            report.unknown("CRDs", why);
            String::new()
        }
    });
    report.look("Istio's kinds", |report| match &facts.written_kinds {
        Ok(kinds) => written(kinds, report),
        Err(why) => {
            report.unknown("Istio's kinds", why);
            String::new()
        }
    });
    report.look("Rights", |report| match &facts.rights {
        Ok(rights) => of_account(rights, report),
        Err(why) => {
            report.unknown("Rights", why);
            String::new()
        }
    });
}

fn own(crds: &[Crd], report: &mut Report) -> String {
    let missing: Vec<String> = crds
        .iter()
        .filter(|crd| crd.found.is_none())
        .map(|crd| crd.name.clone())
        .collect();
    if let [first, others @ ..] = missing.as_slice() {
        let more = match others {
            [] => String::new(),
            others => format!(", and of {}", few(others)),
        };
        report.find(
            CRD_MISSING,
            (format!("CustomResourceDefinition {first}"), ""),
            format!("it is not installed{more}: there can be no objects of it"),
            UPGRADE,
        );
    }
    for crd in crds {
        if let Some(found) = &crd.found {
            installed(crd, found, report);
        }
    }
    format!("{} of this release", count(crds.len(), "CRD"))
}

fn installed(crd: &Crd, found: &FoundCrd, report: &mut Report) {
    let object = format!("CustomResourceDefinition {}", crd.name);
    let absent: Vec<String> = crd.wanted.difference(&found.served).cloned().collect();
    if !absent.is_empty() {
        report.find(
            CRD_VERSION,
            (object, "spec.versions"),
            format!(
                "it does not serve {}, which this release reads",
                few(&absent)
            ),
            UPGRADE,
        );
    } else if !found.lacks.is_empty() {
        report.find(
            CRD_OLD,
            (object, "spec.versions"),
            format!(
                "its schema does not have {}: the API server drops such fields, or takes what should be refused",
                few(&found.lacks)
            ),
            UPGRADE,
        );
    }
}

fn written(kinds: &BTreeMap<String, bool>, report: &mut Report) -> String {
    for (name, _) in kinds.iter().filter(|(_, served)| !**served) {
        report.find(
            KIND_MISSING,
            (format!("CustomResourceDefinition {name}"), ""),
            "the cluster does not serve it, and Trimtab writes objects of it",
            "install Istio's CRDs (chart istio/base), or switch the module off that writes them",
        );
    }
    let names: Vec<String> = kinds.keys().cloned().collect();
    names.join(", ")
}

fn of_account(rights: &Rights, report: &mut Report) -> String {
    let Rights {
        subject,
        of_operator,
        asked,
        missing,
    } = rights;
    if *of_operator {
        for right in missing {
            operators(right, subject, report);
        }
    } else if !missing.is_empty() {
        let listed: Vec<String> = missing.iter().map(shown).collect();
        report.find(
            MAY_NOT_INSTALL,
            (subject.clone(), ""),
            format!(
                "it lacks {}, and nobody can grant a right that he does not have: {}",
                count(missing.len(), "right"),
                few(&listed)
            ),
            "let somebody with the role cluster-admin run helm install",
        );
    }
    format!("{} of {subject}", count(*asked, "right"))
}

fn operators(right: &Missing, subject: &str, report: &mut Report) {
    let object = subject.to_owned();
    if right.resource == "secrets" && right.name.is_empty() {
        // The chart may name the Secrets, which no review tells.
        report.find(
            RIGHT_NAMED,
            (object, "rbac.secrets.names"),
            "it may not get each Secret: passwords of other Secrets than those of the chart's rbac.secrets.names are not known",
            "nothing, or name more Secrets",
        );
        return;
    }
    report.find(
        RIGHT_MISSING,
        (object, &right.resource),
        format!("it may not {}", shown(right)),
        "run helm upgrade trimtab with the values in use, which writes the ClusterRole anew; with rbac.create: false, grant it",
    );
}

fn shown(right: &Missing) -> String {
    let verbs: Vec<&str> = right.verbs.iter().map(String::as_str).collect();
    let name = Some(&right.name).filter(|name| !name.is_empty());
    let name = name.map_or_else(String::new, |name| format!(" \"{name}\""));
    let namespaces: Vec<String> = right.namespaces.iter().cloned().collect();
    let place = if namespaces.is_empty() {
        String::new()
    } else {
        format!(" in {}", few(&namespaces))
    };
    format!("{} {}{name}{place}", verbs.join(", "), right.resource)
}
