//! What a port speaks.

use std::collections::BTreeMap;
use std::sync::Arc;

use trimtab_crds::metaprotocol::ApplicationProtocol;
use trimtab_mesh::layer7_kinds;

use crate::input::Protocol;

/// Codec of Dubbo in Aeraki's proxies.
pub(super) const DUBBO_CODEC: &str = "aeraki.meta_protocol.codec.dubbo";
const THRIFT_CODEC: &str = "aeraki.meta_protocol.codec.thrift";

/// Codecs by the name of their protocol: the two that are known without an object, and those of ApplicationProtocols.
#[derive(Clone, Debug)]
pub struct Registry {
    codecs: BTreeMap<String, String>,
}

impl Registry {
    /// Of these objects; a later one by name overrides an earlier one of the same protocol.
    pub fn new<'a>(objects: impl IntoIterator<Item = &'a Arc<ApplicationProtocol>>) -> Self {
        let mut codecs = BTreeMap::from([
            ("dubbo".to_owned(), DUBBO_CODEC.to_owned()),
            ("thrift".to_owned(), THRIFT_CODEC.to_owned()),
        ]);
        let mut sorted: Vec<&Arc<ApplicationProtocol>> = objects.into_iter().collect();
        sorted.sort_by_key(|o| o.metadata.name.clone());
        for object in sorted {
            codecs.insert(object.spec.protocol.clone(), object.spec.codec.clone());
        }
        Self { codecs }
    }
}

/// What a port with this name and `appProtocol` speaks; `None`: nothing that is managed here.
///
/// The second part of the name, without regard to case, is the kind (`tcp-dubbo`, `tcp-metaprotocol-NAME`). Where the
/// name says nothing, `appProtocol` may: `DOMAIN/metaprotocol-NAME`, `DOMAIN/dubbo`, also with `tcp-`.
pub fn protocol(name: &str, app_protocol: Option<&str>, registry: &Registry) -> Option<Protocol> {
    layer7_kinds(name, app_protocol).find_map(|(kind, application)| of(kind, application, registry))
}

fn of(kind: &str, application: Option<&str>, registry: &Registry) -> Option<Protocol> {
    Some(match kind.to_ascii_lowercase().as_str() {
        "metaprotocol" => {
            let name = application.unwrap_or_default();
            Protocol::MetaProtocol {
                application_protocol: name.to_owned(),
                codec: registry.codecs.get(name).cloned(),
                multiplexing: false,
            }
        }
        "dubbo" => Protocol::Dubbo,
        "thrift" => Protocol::Thrift,
        "redis" => Protocol::Redis,
        "zookeeper" => Protocol::Zookeeper,
        "kafka" => Protocol::Kafka,
        _ => return None,
    })
}
