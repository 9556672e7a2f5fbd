//! Istio's kinds: what we do not know is kept where we write.

use serde_json::{Value, json};
use trimtab_crds::istio::{
    DestinationRuleSpec, GatewaySpec, ServiceEntrySpec, SidecarSpec, VirtualServiceSpec,
};

use super::{apply, assert_accepted};

/// Stored by the API as given, and the same after a trip through the type.
fn survives<T: serde::de::DeserializeOwned + serde::Serialize>(kind: &str, given: &Value) {
    let stored = assert_accepted(apply("networking.istio.io/v1", kind, given), given);
    assert_eq!(&stored, given, "{kind}");
    let typed: T = serde_json::from_value(stored).unwrap();
    assert_eq!(&serde_json::to_value(typed).unwrap(), given, "{kind}");
}

#[test]
fn virtual_services_gateways_and_sidecars_keep_every_field() {
    survives::<VirtualServiceSpec>(
        "VirtualService",
        &json!({"hosts": ["a"], "gateways": ["mesh", "ns/gw"], "exportTo": ["."],
            "http": [{"match": [{"uri": {"prefix": "/"}}], "route": [{"destination": {"host": "a"}}]}],
            "tls": [{"match": [{"sniHosts": ["a"]}]}], "tcp": [{"match": [{"port": 20880}]}], "later": {"x": 1}}),
    );
    survives::<GatewaySpec>(
        "Gateway",
        &json!({"selector": {"istio": "ingress"}, "later": true, "servers": [{
            "port": {"number": 20880, "name": "tcp-metaprotocol-dubbo", "protocol": "TCP"},
            "hosts": ["*"], "bind": "0.0.0.0", "tls": {"mode": "PASSTHROUGH"}, "name": "s"}]}),
    );
    survives::<SidecarSpec>(
        "Sidecar",
        &json!({"workloadSelector": {"labels": {"app": "a"}},
            "egress": [{"port": {"number": 80, "protocol": "HTTP", "name": "http"}, "bind": "127.0.0.1", "captureMode": "NONE", "hosts": ["./*"]}, {"hosts": ["istio-system/*"]}],
            "ingress": [{"port": {"number": 80}, "defaultEndpoint": "127.0.0.1:8080"}],
            "outboundTrafficPolicy": {"mode": "ALLOW_ANY"}, "inboundConnectionPool": {"tcp": {}}}),
    );
}

#[test]
fn destination_rules_and_service_entries_hold_what_is_read() {
    survives::<DestinationRuleSpec>(
        "DestinationRule",
        &json!({"host": "a", "exportTo": ["*"],
            "trafficPolicy": {"loadBalancer": {"consistentHash": {"httpHeaderName": "user"}}},
            "subsets": [{"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": {"tls": {"mode": "DISABLE"}}}]}),
    );
    survives::<ServiceEntrySpec>(
        "ServiceEntry",
        &json!({"hosts": ["a.b"], "addresses": ["240.240.0.1", "2001:db8::1"], "location": "MESH_INTERNAL", "resolution": "STATIC",
            "workloadSelector": {"labels": {"app": "a"}}, "endpoints": [{"address": "10.0.0.1"}],
            "ports": [{"number": 20880, "name": "tcp-metaprotocol-dubbo", "protocol": "TCP"}],
            "exportTo": ["."], "subjectAltNames": ["spiffe://x"]}),
    );
}
