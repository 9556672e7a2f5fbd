//! Hand-made EnvoyFilters with Envoy's local rate limit become SmartLimiters where these say the same.

mod actions;
mod bucket;
mod patch;
mod place;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::objects::{Objects, annotation, name, namespace, owner_kind, place};
use super::report::{Report, titled};
use actions::RateLimit;
use bucket::{Bucket, Limit};
use patch::Found;
use place::{Place, Side};

/// Label of what Trimtab made.
const OURS: (&str, &str) = (trimtab_crds::MANAGED_BY_LABEL, trimtab_crds::MANAGED_BY);

/// What becomes of the rate limits of EnvoyFilters.
pub fn report(objects: &Objects) -> Report {
    let mut report = Report {
        title: "From hand-made local rate limits to SmartLimiters.".to_owned(),
        ..Report::default()
    };
    let mut done = Vec::new();
    for filter in objects.kind("EnvoyFilter") {
        let at = format!("EnvoyFilter {}", place(filter));
        if super::objects::label(filter, OURS.0) == OURS.1 || owner_kind(filter) == "SmartLimiter" {
            report.stay(vec![at], "made for a SmartLimiter");
            continue;
        }
        let read = patch::read(filter);
        if !read.concerns_limits() {
            report.stay(vec![at], "it limits nothing");
            continue;
        }
        for reason in &read.refused {
            report.decide(at.clone(), reason.as_str(), &[]);
        }
        if !read.refused.is_empty() {
            continue;
        }
        match convert(filter, &read) {
            Ok(limiters) if limiters.is_empty() => {
                report.stay(vec![at], "it inserts the filter and limits nothing: delete it when no other EnvoyFilter has limits for its pods");
            }
            Ok(limiters) => {
                if read.others > 0 {
                    report.decide(at.clone(), format!("{} of its patches are no local rate limit", read.others), &["leave them in the EnvoyFilter, and take the patches of the limit out instead of deleting it"]);
                }
                report.objects.extend(limiters);
                done.push((at, filter, read.others > 0));
            }
            Err(reason) => report.decide(at, reason, &[]),
        }
    }
    finish(&done, &mut report);
    report
}

/// Remarks and steps.
fn finish(done: &[(String, &Value, bool)], report: &mut Report) {
    if done.is_empty() {
        return;
    }
    let whole: Vec<&Value> = done
        .iter()
        .filter(|(_, _, more)| !more)
        .map(|(_, f, _)| *f)
        .collect();
    report.change(
        titled("EnvoyFilter", done.iter().map(|(_, f, _)| place(f)).collect()),
        "replaced by the SmartLimiters; series of Envoy have other names, and refused gRPC calls get RESOURCE_EXHAUSTED, which Istio does not repeat (action.response.grpcStatus: FromStatus is what Envoy does by itself)",
    );
    report.step(
        "Apply the SmartLimiters",
        "both limit, with buckets of their own: no request passes that either refuses",
        vec!["kubectl apply -f limiters.yaml".to_owned()],
        &["kubectl delete -f limiters.yaml"],
    );
    report.step(
        "Compare",
        "each SmartLimiter is Ready and Programmed, or says why not",
        vec!["kubectl get smartlimiters.microservice.slime.io --all-namespaces".to_owned()],
        &[],
    );
    let delete = |f: &&Value| {
        let (namespace, name) = (namespace(f), name(f));
        format!("kubectl --namespace {namespace} delete envoyfilter {name}")
    };
    let title = if whole.len() == done.len() {
        "Delete the EnvoyFilters"
    } else {
        "Delete the EnvoyFilters, and of those with other patches take the limits out"
    };
    report.step(
        title,
        "the SmartLimiters limit alone",
        whole.iter().map(delete).collect(),
        &["kubectl apply with the files that you gave"],
    );
}

/// Which limiter a rule belongs to: what an object says once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    gateway: bool,
    shadow: bool,
}

/// The limiters of one EnvoyFilter.
fn convert(filter: &Value, read: &Found<'_>) -> Result<Vec<Value>, String> {
    let mut groups: BTreeMap<Group, Vec<Value>> = BTreeMap::new();
    let wide = read.buckets.iter().any(|b| b.of_filter);
    if wide && read.buckets.iter().any(|b| !b.of_filter) {
        return Err("it has a bucket in the filter and others at routes, which replace the first one there; of rules of a SmartLimiter all count: write the limiter by hand".to_owned());
    }
    for bucket in &read.buckets {
        let group = Group {
            gateway: bucket.side == Side::Gateway,
            shadow: bucket.limit.shadow,
        };
        let rules = groups.entry(group).or_default();
        rules.extend(rules_of(bucket, &read.rate_limits)?);
    }
    let selector = &filter["spec"]["workloadSelector"]["labels"];
    groups.retain(|_, rules| !rules.is_empty());
    if !groups.is_empty() && selector.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err("it has no workloadSelector and limits every workload that it reaches, each with a bucket of its own: write one SmartLimiter a Service, or select the pods by a label".to_owned());
    }
    let several = groups.len() > 1;
    let made = groups
        .into_iter()
        .map(|(group, rules)| limiter(filter, group, &rules, several));
    Ok(made.collect())
}

fn limiter(filter: &Value, group: Group, rules: &[Value], several: bool) -> Value {
    let mut named = name(filter).to_owned();
    if several {
        named.push_str(if group.gateway {
            "-gateway"
        } else {
            "-sidecar"
        });
        named.push_str(if group.shadow { "-shadow" } else { "" });
    }
    let mut spec = json!({
        "workloadSelector": filter["spec"]["workloadSelector"]["labels"],
        "sets": {"_base": {"descriptor": rules}},
    });
    if group.gateway {
        spec["gateway"] = true.into();
    }
    if group.shadow {
        spec["mode"] = "Shadow".into();
    }
    let mut metadata = json!({"name": named, "namespace": namespace(filter)});
    if metadata["namespace"] == "" {
        metadata["namespace"] = "default".into();
    }
    let revision = super::objects::label(filter, "istio.io/rev");
    if !revision.is_empty() {
        metadata["labels"] = json!({"istio.io/rev": revision});
    }
    let note = annotation(filter, "description");
    if !note.is_empty() {
        metadata["annotations"] = json!({"description": note});
    }
    json!({
        "apiVersion": "microservice.slime.io/v1alpha2",
        "kind": "SmartLimiter",
        "metadata": metadata,
        "spec": spec,
    })
}

/// The descriptors of one bucket and of those of its descriptors.
fn rules_of(bucket: &Bucket<'_>, rate_limits: &[RateLimit<'_>]) -> Result<Vec<Value>, String> {
    let mut out = Vec::new();
    let Limit {
        default,
        descriptors,
        ..
    } = &bucket.limit;
    if let Some(tokens) = default {
        out.push(rule(bucket, *tokens, &[], &bucket.place));
    }
    for descriptor in descriptors {
        let here: Vec<&RateLimit<'_>> = rate_limits
            .iter()
            .filter(|r| r.side == bucket.side && (bucket.of_filter || r.place == bucket.place))
            .collect();
        let mut made = here
            .iter()
            .filter_map(|r| Some((r, r.makes(&descriptor.entries)?)));
        let words = descriptor.words();
        let Some((rate_limit, matches)) = made.next() else {
            if here.iter().any(|r| r.is_beyond()) {
                return Err(format!(
                    "descriptor {words}: an action of its rate_limits has no match of a SmartLimiter: known are generic_key, header_value_match, query_parameter_value_match, request_headers, remote_address and masked_remote_address"
                ));
            }
            return Err(format!(
                "descriptor {words}: no rate_limits of the same place make it, so that its bucket is never used; if those of another EnvoyFilter do, put both into one"
            ));
        };
        if made.next().is_some() {
            return Err(format!(
                "descriptor {words}: several rate_limits make it and share its bucket; rules of a SmartLimiter have one each"
            ));
        }
        out.push(rule(
            bucket,
            descriptor.tokens,
            &matches?,
            &rate_limit.place,
        ));
    }
    Ok(out)
}

fn rule(bucket: &Bucket<'_>, tokens: bucket::Tokens, matches: &[Value], place: &Place) -> Value {
    let mut action = json!({
        "quota": tokens.quota.to_string(),
        "fill_interval": tokens.interval(),
    });
    if !bucket.limit.headers.is_empty() {
        action["headers_to_add"] = bucket.limit.headers.clone().into();
    }
    if !bucket.limit.response.is_empty() {
        action["response"] = Value::Object(bucket.limit.response.clone());
    }
    let mut rule = json!({"condition": "true", "action": action});
    if !matches.is_empty() {
        rule["match"] = matches.into();
    }
    if let Some(target) = place.target() {
        rule["target"] = target;
    }
    rule
}
