//! Whether a proxy may share a limit with the other members of its cluster by itself (`local_cluster_rate_limit`).
//!
//! Envoy multiplies what a request costs by the number of members. A bucket with fewer tokens than members is never full enough for
//! one request: everything is refused, for ever. Shares by arithmetic have no such edge.

/// Tokens for each member at least, so that a scale-out between two checks does not reach the edge.
const MARGIN: u32 = 2;

/// How the members of a cluster share a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Share {
    /// Each proxy divides by itself.
    ByProxy,
    /// Each proxy gets its part as a number, for this reason.
    ByArithmetic(String),
}

/// Decides for a bucket of `tokens` in a proxy whose bootstrap names `local_cluster`, with `members` members. To be asked again
/// whenever any of them changes.
pub fn share(local_cluster: Option<&str>, tokens: u32, members: u32) -> Share {
    let Some(name) = local_cluster else {
        return Share::ByArithmetic(
            "the proxy has no local cluster (cluster_manager.local_cluster_name in its bootstrap), which proxies of Istio have not, \
             and Envoy refuses local_cluster_rate_limit without one"
                .to_owned(),
        );
    };
    if members == 0 {
        return Share::ByArithmetic(format!(
            "the local cluster {name} has no members that are known"
        ));
    }
    let least = members.saturating_mul(MARGIN);
    if tokens < least {
        return Share::ByArithmetic(format!(
            "local_cluster_rate_limit would refuse every request when cluster {name} has more members than the bucket has tokens: \
             {tokens} tokens for {members} members; it needs {least}"
        ));
    }
    Share::ByProxy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bucket_with_room_for_twice_the_members_is_shared_by_proxies() {
        assert_eq!(share(Some("a"), 10, 5), Share::ByProxy);
        assert_eq!(share(Some("a"), 1, 0).reason(), "no members");
        for (tokens, members) in [
            (9, 5),
            (5, 5),
            (3, 5),
            (2, 3),
            (0, 1),
            (u32::MAX - 1, u32::MAX),
        ] {
            assert_eq!(
                share(Some("a"), tokens, members).reason(),
                "needs",
                "{tokens} for {members}"
            );
        }
        assert_eq!(share(None, 1000, 1).reason(), "no local cluster");
    }

    impl Share {
        /// A word of the reason.
        fn reason(&self) -> &str {
            let Self::ByArithmetic(why) = self else {
                return "";
            };
            ["no local cluster", "no members", "needs"]
                .into_iter()
                .find(|word| why.contains(word))
                .unwrap_or(why)
        }
    }
}
