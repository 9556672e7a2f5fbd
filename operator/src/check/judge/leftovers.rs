//! What products before Trimtab have left, and webhooks that refuse what they cannot check.

use super::super::facts::{Facts, Leftovers, Webhook};
use super::super::finding::{RIVAL, Report, SLIME, WEBHOOK_CLOSED, WEBHOOK_OLD};
use super::few;

/// Aeraki's webhook. Slime has none, and that of somebody else may have the name of our groups.
const AERAKI: &str = "validation.aeraki.io";

pub(super) fn judge(facts: &Facts, report: &mut Report) {
    report.look("Leftovers", |report| match &facts.leftovers {
        Ok(leftovers) => left(leftovers, report),
        Err(why) => {
            report.unknown("Leftovers", why);
            String::new()
        }
    });
}

fn left(leftovers: &Leftovers, report: &mut Report) -> String {
    let boots = &leftovers.slime_boots;
    if let Some(first) = boots.first() {
        report.find(
            SLIME,
            (first.clone(), ""),
            format!("Slime's operator installs its modules from {}, which write the same objects as Trimtab", few(boots)),
            "run trimtab migrate slime, and follow its steps (docs/migrate/slime.md): Slime's operator is stopped before the SlimeBoot is deleted",
        );
    }
    for rival in &leftovers.rivals {
        report.find(
            RIVAL,
            (rival.clone(), ""),
            "its controller writes the same objects as Trimtab",
            "run trimtab migrate aeraki, and follow its steps (docs/migrate/aeraki.md)",
        );
    }
    leftovers
        .webhooks
        .iter()
        .for_each(|webhook| checks(webhook, report));
    "no SlimeBoot, no Aeraki, no webhook that cannot answer".to_owned()
}

fn checks(webhook: &Webhook, report: &mut Report) {
    let resources: Vec<String> = webhook.resources.iter().cloned().collect();
    let resources = few(&resources);
    let is_old = webhook.name == AERAKI;
    let object = webhook.configuration.clone();
    let delete = format!("kubectl delete {}", webhook.configuration.to_lowercase());
    let service = &webhook.service;
    if webhook.fails_closed && !service.is_empty() && !webhook.answers {
        let fix = if is_old {
            delete
        } else {
            format!("start what serves {service}, or delete the webhook with its product")
        };
        report.find(
            WEBHOOK_CLOSED,
            (object, webhook.name.as_str()),
            format!("Service {service} has no ready endpoint, and failurePolicy is Fail: each {resources} is refused"),
            fix,
        );
    } else if is_old {
        report.find(
            WEBHOOK_OLD,
            (object, webhook.name.as_str()),
            format!("it still checks {resources} by rules that are not Trimtab's"),
            delete,
        );
    }
}
