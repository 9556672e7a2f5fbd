//! Messages of Envoy from their JSON form to the binary one.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;

static POOL: LazyLock<Result<DescriptorPool, String>> = LazyLock::new(|| {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    DescriptorPool::decode(bytes).map_err(|e| e.to_string())
});

/// The message of `type_url` in its binary form; a field that is not known is an error. The order of the entries of a
/// map may differ between two processes, which is why versions are made of the JSON form.
pub(super) fn encode(type_url: &str, value: &Value) -> Result<Vec<u8>, String> {
    let pool = POOL.as_ref().map_err(Clone::clone)?;
    let name = type_url.rsplit('/').next().unwrap_or_default();
    let message = pool
        .get_message_by_name(name)
        .ok_or_else(|| format!("{name} is not known"))?;
    let message = DynamicMessage::deserialize(message, value).map_err(|e| e.to_string())?;
    Ok(message.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster};
    use envoy_types::pb::envoy::config::listener::v3::Listener;
    use serde_json::json;
    use trimtab_xds::{CDS, LDS};

    use super::*;

    #[test]
    fn another_reader_finds_the_fields_where_envoy_has_them() {
        let value = json!({"name": "c", "type": "EDS", "lb_policy": "RANDOM", "alt_stat_name": "s",
            "connect_timeout": "1.500s", "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}}});
        let found = Cluster::decode(encode(CDS, &value).unwrap().as_slice()).unwrap();
        assert_eq!(
            (found.name.as_str(), found.alt_stat_name.as_str()),
            ("c", "s")
        );
        assert_eq!(found.lb_policy, cluster::LbPolicy::Random as i32);
        assert_eq!(found.connect_timeout.unwrap().nanos, 500_000_000);
        let eds = found.eds_cluster_config.unwrap().eds_config.unwrap();
        assert_eq!(eds.resource_api_version, 2);
        let value = json!({"name": "l", "bind_to_port": false, "traffic_direction": "OUTBOUND"});
        let found = Listener::decode(encode(LDS, &value).unwrap().as_slice()).unwrap();
        assert!(!found.bind_to_port.unwrap().value);
        assert_eq!(found.traffic_direction, 2);
    }

    #[test]
    fn unknown_fields_and_messages_are_errors() {
        assert!(
            encode(CDS, &json!({"nope": 1}))
                .unwrap_err()
                .contains("nope")
        );
        assert!(encode("x/unknown", &json!({})).is_err());
    }
}
