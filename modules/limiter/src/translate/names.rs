//! Names of what is generated: Slime's, unless another limiter could give the same one or the API server would refuse it.

use trimtab_crds::limiter::BASE_SET;
use trimtab_kit::generated::shortened;
use xxhash_rust::xxh3::xxh3_64;

/// Longest name of an object.
const LONGEST: usize = 253;
const END: &str = ".ratelimit";

/// Name of the EnvoyFilter of a set: `<name>.<namespace>.ratelimit`, for a subset `<name>.<namespace>.<set>.ratelimit`.
///
/// A subset is named so when it is a label of DNS and not the namespace: set `shop` of `cart` in `shop` would else have the
/// object of limiter `cart.shop`. Then, and for names that are too long, a hash stands in its place.
pub fn envoy_filter_name(name: &str, namespace: &str, set: &str) -> String {
    let plain = if set == BASE_SET {
        format!("{name}.{namespace}{END}")
    } else {
        format!("{name}.{namespace}.{set}{END}")
    };
    if (set == BASE_SET || (is_label(set) && set != namespace)) && plain.len() <= LONGEST {
        return plain;
    }
    let hash = xxh3_64(format!("{namespace}/{name}/{set}").as_bytes());
    let end = format!(".{hash:016x}{END}");
    // A cut of the head is told apart by the hash; one that ends in a dot would be no name.
    let head = shortened(&format!("{name}.{namespace}"), LONGEST - end.len());
    format!("{head}{end}")
}

/// Name of the ECDS resource of a set's common filter.
pub(super) fn resource_name(name: &str, namespace: &str, set: &str) -> String {
    // Names of limiters have dots: a set with one could be the end of another limiter's.
    if set.contains('.') {
        let hash = xxh3_64(set.as_bytes());
        return format!("trimtab.{namespace}.{name}.set-{hash:016x}");
    }
    format!("trimtab.{namespace}.{name}.{set}")
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty()
        && text.len() <= 63
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn fault_l14_slimes_names_stay_where_they_are_names() {
        let name = |name, set| envoy_filter_name(name, "shop", set);
        assert_eq!(name("cart", BASE_SET), "cart.shop.ratelimit");
        assert_eq!(name("cart", "v1"), "cart.shop.v1.ratelimit");
        assert_eq!(name("cart.shop", BASE_SET), "cart.shop.shop.ratelimit");
    }

    #[test]
    fn fault_l14_names_are_unique_and_valid() {
        let long = "l".repeat(253);
        let names = [
            "cart",
            "cart.shop",
            "cart.shop.shop",
            "cart.shop.v1",
            "a",
            "a.shop.b",
            &long,
        ];
        let sets = [
            BASE_SET,
            "shop",
            "Blue_Tier",
            "blue-tier",
            "v1",
            "V1",
            "v1.shop",
            "shop.v1",
            "shop.shop",
            "b",
            "_x",
            "-",
            "x-",
            "é",
        ];
        let mut objects = HashMap::new();
        let mut resources = HashMap::new();
        for name in names {
            for set in sets {
                let object = envoy_filter_name(name, "shop", set);
                assert!(object.len() <= 253, "{object}");
                assert!(object.split('.').all(is_dns_label), "{object}");
                let other = objects.insert(object.clone(), (name, set));
                assert_eq!(other, None, "{object} is of {name} {set} too");
                let resource = resource_name(name, "shop", set);
                let other = resources.insert(resource.clone(), (name, set));
                assert_eq!(other, None, "{resource} is of {name} {set} too");
            }
        }
    }

    /// Kubernetes has no bound of its own for a label of a name.
    fn is_dns_label(text: &str) -> bool {
        let ends =
            |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends(text.chars().next())
            && ends(text.chars().last())
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    }
}
