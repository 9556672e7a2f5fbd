//! Which names a resource refers to, read from its bytes.
//!
//! A name that a resource refers to is the value of some field in it. Its message type need not be known: each field of
//! bytes may be a text or a message, and is looked at as both. That a text happens to read as a message only adds
//! texts that are no names.

/// Deepest nesting that is looked into; Envoy's listeners are less than half as deep.
const DEPTH: u8 = 64;

/// Whether `found` says yes to the value of any field in an encoded message: O(bytes) for each level of nesting.
pub(crate) fn any_field<'a>(message: &'a [u8], found: &mut dyn FnMut(&'a [u8]) -> bool) -> bool {
    visit(message, DEPTH, found)
}

fn visit<'a>(message: &'a [u8], depth: u8, found: &mut dyn FnMut(&'a [u8]) -> bool) -> bool {
    let mut rest = message;
    while let Some((value, after)) = next_field(rest) {
        rest = after;
        let Some(value) = value else { continue };
        if found(value) || (depth > 0 && visit(value, depth - 1, found)) {
            return true;
        }
    }
    false
}

/// The first field, if it is of bytes, and what comes after it; `None` at the end, and for what is no message.
fn next_field(message: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (key, rest) = number(message)?;
    if key >> 3 == 0 {
        return None;
    }
    match key & 7 {
        0 => Some((None, number(rest)?.1)),
        1 => Some((None, rest.get(8..)?)),
        2 => {
            let (length, rest) = number(rest)?;
            let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            Some((Some(value), rest))
        }
        5 => Some((None, rest.get(4..)?)),
        _ => None,
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(place + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
    use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{
        TcpProxy, tcp_proxy::ClusterSpecifier,
    };
    use envoy_types::pb::google::protobuf::Any;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn names(message: &[u8], name: &str) -> bool {
        any_field(message, &mut |value| value == name.as_bytes())
    }

    #[test]
    fn a_name_is_found_at_any_depth_and_only_as_a_whole() {
        let proxy = TcpProxy {
            stat_prefix: "x".into(),
            cluster_specifier: Some(ClusterSpecifier::Cluster("outbound|80||a.b".into())),
            ..TcpProxy::default()
        };
        let filter = Filter {
            name: "tcp".into(),
            config_type: Some(filter::ConfigType::TypedConfig(Any {
                type_url: "type.googleapis.com/x".into(),
                value: proxy.encode_to_vec(),
            })),
        };
        let listener = Listener {
            name: "l".into(),
            filter_chains: vec![FilterChain {
                filters: vec![filter],
                ..FilterChain::default()
            }],
            ..Listener::default()
        };
        let bytes = listener.encode_to_vec();
        assert!(names(&bytes, "outbound|80||a.b") && names(&bytes, "tcp") && names(&bytes, "l"));
        assert!(!names(&bytes, "outbound|80||a") && !names(&bytes, "80"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut seen = 0;
            any_field(&bytes, &mut |_| { seen += 1; false });
            prop_assert!(seen <= bytes.len() * usize::from(DEPTH + 1));
        }
    }
}
