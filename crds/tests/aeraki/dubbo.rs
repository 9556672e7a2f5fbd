//! DubboAuthorizationPolicy.

use serde_json::{Value, json};
use trimtab_crds::dubbo::DubboAuthorizationPolicySpec;

use super::{apply, assert_accepted, assert_refused, columns};

fn policy(spec: &Value) -> Result<Value, String> {
    apply("dubbo.aeraki.io/v1alpha1", "DubboAuthorizationPolicy", spec)
}

#[test]
fn no_documented_field_is_pruned() {
    let given = json!({"action": "DENY", "rules": [{
        "from": [{"source": {"principals": ["cluster.local/ns/a/sa/b"], "notPrincipals": ["*b"], "namespaces": ["dev"], "notNamespaces": ["prod*"]}}],
        "to": [{"operation": {"interfaces": ["a.Demo"], "notInterfaces": ["b.*"], "methods": ["*"], "notMethods": ["say*"]}}]}]});
    let stored = assert_accepted(policy(&given), &given);
    assert_eq!(stored, given);
    let typed: DubboAuthorizationPolicySpec = serde_json::from_value(stored).unwrap();
    assert_eq!(serde_json::to_value(typed).unwrap(), given);
}

#[test]
fn the_action_is_allow_by_default_and_rules_may_be_absent() {
    let stored = assert_accepted(policy(&json!({})), &json!({}));
    assert_eq!(stored["action"], "ALLOW");
    let any = json!({"rules": [{}]});
    assert_accepted(policy(&any), &any);
}

#[test]
fn bad_policies_are_refused() {
    let from = |source: Value| json!({"rules": [{"from": [{"source": source}]}]});
    let to = |operation: Value| json!({"rules": [{"to": [{"operation": operation}]}]});
    for (bad, want) in [
        (json!({"action": "AUDIT"}), "supported values"),
        (json!({"rules": [{"from": [{}]}]}), "source"),
        (json!({"rules": [{"to": [{}]}]}), "operation"),
        (from(json!({})), "source needs one of principals"),
        (
            from(json!({"namespaces": []})),
            "source needs one of principals",
        ),
        (to(json!({})), "operation needs one of interfaces"),
        (from(json!({"principals": ["a*b"]})), "should match"),
        (to(json!({"methods": [""]})), "should match"),
        (to(json!({"methods": ["*a*"]})), "should match"),
    ] {
        assert_refused(policy(&bad), &bad, want);
    }
}

#[test]
fn columns_answer_the_first_questions() {
    assert_eq!(
        columns("dubbo.aeraki.io_dubboauthorizationpolicies.yaml"),
        ["Action", "Accepted", "Programmed", "Age"]
    );
}
