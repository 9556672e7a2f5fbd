//! Questions about rights: there are none here, and whoever asks is told so.

use bytes::Bytes;
use http::{Method, Request};
use serde_json::json;

use crate::reply::Reply;

const REASON: &str = "this API asks for no rights: whoever reaches it may do everything";

/// Answers `kubectl auth can-i` and `kubectl auth whoami`; `None`: it is another request.
pub(crate) fn answer(request: &Request<Bytes>) -> Option<Reply> {
    if request.method() != Method::POST {
        return None;
    }
    let everything = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
    let (kind, status) = match request.uri().path() {
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => (
            "SelfSubjectAccessReview",
            json!({"allowed": true, "reason": REASON}),
        ),
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews" => (
            "SelfSubjectRulesReview",
            json!({"resourceRules": everything, "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}], "incomplete": false}),
        ),
        "/apis/authentication.k8s.io/v1/selfsubjectreviews" => (
            "SelfSubjectReview",
            json!({"userInfo": {"username": "anybody", "groups": ["system:masters"]}}),
        ),
        _ => return None,
    };
    let group = if kind == "SelfSubjectReview" {
        "authentication.k8s.io"
    } else {
        "authorization.k8s.io"
    };
    let review = json!({
        "apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {}, "spec": {}, "status": status,
    });
    Some(Reply::json(201, &review))
}
