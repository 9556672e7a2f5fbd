//! DubboAuthorizationPolicies as Envoy's network RBAC filter, before the filter of the service's own side.
//!
//! Stock Envoy authorizes connections, not calls: a policy that names callers only can be kept, one that names
//! interfaces or methods cannot. All DENY policies that can be kept are. ALLOW policies are kept all or none: with some
//! of them missing, callers that they allow would be refused.

use serde_json::{Map, Value, json};
use trimtab_crds::dubbo::{Action, Operation as Call, Rule, Source};
use trimtab_kit::envoyfilter::typed_struct;
use trimtab_kit::problem::Problem;

use super::super::objects::{Objects, Operation};
use super::super::stock;
use crate::features::Feature;
use crate::input::DubboPolicy;
use crate::output::{Refusal, Translation};
use crate::validate::Plan;

const FILTER: &str = "envoy.filters.network.rbac";
const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";

/// Adds the filters to the service's own side, and what cannot be done to the refusals.
pub(in crate::translate) fn apply(plan: &Plan<'_>, out: &mut Translation) {
    let policies = &plan.input.dubbo_policies;
    if policies.is_empty() || out.retained || plan.retained {
        return;
    }
    let of = |action| policies.iter().filter(move |p| p.spec.action == action);
    let deny: Vec<&DubboPolicy> = of(Action::Deny).filter(|p| can_keep(p)).collect();
    let mut allow: Vec<&DubboPolicy> = of(Action::Allow).collect();
    let all = allow.iter().all(|p| can_keep(p));
    for policy in policies.iter().filter(|p| !can_keep(p)) {
        out.refusals.push(refusal(plan, policy));
    }
    if !all {
        let kept = allow.iter().filter(|p| can_keep(p));
        out.refusals.extend(kept.map(|p| not_alone(p)));
        allow.clear();
    }
    insert(plan, out, "DENY", &deny);
    insert(plan, out, "ALLOW", &allow);
}

fn can_keep(policy: &DubboPolicy) -> bool {
    policy.spec.rules.iter().all(names_no_calls)
}

/// Whether a rule is about every call of a caller.
fn names_no_calls(rule: &Rule) -> bool {
    rule.to.is_empty() || rule.to.iter().any(|to| is_every_call(&to.operation))
}

fn is_every_call(call: &Call) -> bool {
    let any = |list: &[String]| list.is_empty() || list.iter().any(|t| t == "*");
    any(&call.interfaces)
        && any(&call.methods)
        && call.not_interfaces.is_empty()
        && call.not_methods.is_empty()
}

fn refusal(plan: &Plan<'_>, policy: &DubboPolicy) -> Refusal {
    let index = policy.spec.rules.iter().position(|r| !names_no_calls(r));
    let index = index.unwrap_or_default();
    let field = format!("spec.rules[{index}].to");
    let object = policy.owner.to_string();
    stock::lacking(
        plan,
        Feature::Authorization,
        &object,
        &field,
        "the policy is not applied",
    )
}

fn not_alone(policy: &DubboPolicy) -> Refusal {
    let text = "another ALLOW policy of the namespace names interfaces or methods and is not applied; this one alone would refuse the callers of that one, so it is not applied either: remove spec.rules[].to there, or use Istio's AuthorizationPolicy";
    Refusal::mistake(
        Problem::new(&policy.owner, "spec.rules", "NotSupported", text),
        false,
    )
}

/// Puts an RBAC filter before the TCP proxy of every inbound chain, ahead of the patches that take its place.
fn insert(plan: &Plan<'_>, out: &mut Translation, action: &str, policies: &[&DubboPolicy]) {
    if policies.is_empty() {
        return;
    }
    let mut rules = Map::new();
    for policy in policies {
        for (i, rule) in policy.spec.rules.iter().enumerate() {
            let key = format!(
                "ns[{}]-policy[{}]-rule[{i}]",
                policy.owner.namespace, policy.owner.name
            );
            let value = json!({"permissions": [{"any": true}], "principals": principals(rule)});
            rules.insert(key, value);
        }
    }
    let config = json!({
        "statPrefix": format!("dubbo.{}.", action.to_ascii_lowercase()),
        "rules": {"action": action, "policies": rules},
    });
    // The name tells the two filters of one chain apart.
    let filter = json!({
        "name": format!("{FILTER}.dubbo_{}", action.to_ascii_lowercase()),
        "typed_config": typed_struct(RBAC, &config),
    });
    let before = Objects::new(plan, Operation::InsertBefore).inbound(|_| filter.clone());
    let Some(before) = before else { return };
    let same = |f: &&mut trimtab_crds::istio::EnvoyFilter| {
        f.metadata.name == before.metadata.name && f.metadata.namespace == before.metadata.namespace
    };
    if let Some(object) = out.envoy_filters.iter_mut().find(same) {
        let patches = &mut object.spec.config_patches;
        let at = patches
            .iter()
            .position(|p| p["patch"]["operation"] == "REPLACE")
            .unwrap_or(patches.len());
        patches.splice(at..at, before.spec.config_patches);
    }
}

/// Callers of a rule: any of its sources.
fn principals(rule: &Rule) -> Vec<Value> {
    if rule.from.is_empty() {
        return vec![json!({"any": true})];
    }
    rule.from.iter().map(|from| source(&from.source)).collect()
}

/// One source: each list is an alternative, all lists must hold.
fn source(of: &Source) -> Value {
    let one_of = |list: &[String], id: fn(&str) -> Value| {
        let ids: Vec<Value> = list.iter().map(|text| id(text)).collect();
        json!({"orIds": {"ids": ids}})
    };
    let mut all = Vec::new();
    for (list, id) in [
        (&of.principals, identity as fn(&str) -> Value),
        (&of.namespaces, namespace),
    ] {
        if !list.is_empty() {
            all.push(one_of(list, id));
        }
    }
    for (list, id) in [
        (&of.not_principals, identity as fn(&str) -> Value),
        (&of.not_namespaces, namespace),
    ] {
        if !list.is_empty() {
            all.push(json!({"notId": one_of(list, id)}));
        }
    }
    if all.is_empty() {
        return json!({"any": true});
    }
    json!({"andIds": {"ids": all}})
}

/// `cluster.local/ns/shop/sa/cart`, `abc*`, `*abc` or `*`: somebody with an identity.
fn identity(text: &str) -> Value {
    let name = if text == "*" {
        return json!({"authenticated": {}});
    } else if let Some(suffix) = text.strip_prefix('*') {
        json!({"suffix": suffix})
    } else if let Some(prefix) = text.strip_suffix('*') {
        json!({"prefix": format!("spiffe://{prefix}")})
    } else {
        json!({"exact": format!("spiffe://{text}")})
    };
    json!({"authenticated": {"principalName": name}})
}

fn namespace(text: &str) -> Value {
    let name = text
        .split('*')
        .map(regex::escape)
        .collect::<Vec<_>>()
        .join("[^/]*");
    let pattern = json!({"safeRegex": {"regex": format!(".*/ns/{name}/.*")}});
    json!({"authenticated": {"principalName": pattern}})
}
