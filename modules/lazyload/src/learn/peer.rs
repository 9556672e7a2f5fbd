//! Whose word counts: an access log entry is believed for what its connection shows, not for what it says of itself. Pure.
//!
//! | peer | is believed about |
//! |---|---|
//! | the pod that the stream's node id names: its address, or with TLS its namespace and service account | its own calls |
//! | a pod of the fallback, or with TLS its service account, in cluster mode | calls of everybody |
//! | the same of a namespace's fallback | calls of that namespace |
//! | an address of `learn.accessLog.trusted`, on a plain port | calls of everybody |
//! | anybody else | nothing |

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use trimtab_kit::listen::Ends;

use super::access_log::Sender;
use crate::config::{GlobalSidecarMode, LazyloadConfig};
use crate::fallback;
use crate::object::{Caller, Directory};

/// Who is at the other end of a connection, as the connection shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Where it comes from.
    Address(IpAddr),
    /// Namespace and service account of a client certificate that was verified.
    Identity {
        /// The namespace.
        namespace: String,
        /// The service account.
        account: String,
    },
}

impl Peer {
    /// At the other end of a connection; `None`: its certificate is of no workload.
    pub(super) fn of(ends: &Ends) -> Option<Self> {
        let Some(identity) = &ends.identity else {
            return Some(Self::Address(ends.peer.ip()));
        };
        Some(Self::Identity {
            namespace: identity.namespace()?.to_owned(),
            account: identity.account()?.to_owned(),
        })
    }
}

/// Who may speak for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speakers {
    /// Namespaces of fallbacks, each with the namespace whose callers it has; `None`: all.
    places: BTreeMap<String, Option<String>>,
    trusted: Vec<IpNet>,
}

/// About whose calls a peer is believed, besides its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Others {
    Nobody,
    Of(String),
    Everybody,
}

/// What a peer may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Voice {
    /// The workload that the peer itself is, if its stream says so and the connection agrees.
    pub(super) own: Option<Caller>,
    pub(super) others: Others,
}

impl Speakers {
    /// Those of the configuration.
    pub fn new(config: &LazyloadConfig) -> Self {
        let logs = config.learn.access_log.as_ref();
        let places = match config.fallback.global_sidecar_mode {
            GlobalSidecarMode::Cluster => [(config.fallback_namespace().to_owned(), None)].into(),
            GlobalSidecarMode::Namespace => {
                let names = config.fallback.namespace.iter();
                names.map(|n| (n.clone(), Some(n.clone()))).collect()
            }
        };
        Self {
            places,
            trusted: logs.map(|logs| logs.trusted.clone()).unwrap_or_default(),
        }
    }

    /// Peers in these ranges may say anything.
    pub fn trusting(trusted: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            trusted: trusted.into_iter().collect(),
            ..Self::default()
        }
    }

    pub(super) fn voice(&self, peer: &Peer, sender: &Sender, directory: &dyn Directory) -> Voice {
        let voice = |own, others| Voice { own, others };
        match peer {
            Peer::Address(address) => {
                let address = address.to_canonical();
                if self.trusts(address) {
                    return voice(sender.caller(directory), Others::Everybody);
                }
                let own = match sender {
                    Sender::Proxy { namespace, pod, .. } => {
                        directory.pod_at(namespace, pod, address)
                    }
                    Sender::Fallback => None,
                };
                let caller = directory.caller_at(address);
                let fallback = caller.filter(|caller| *caller.workload == *fallback::NAME);
                let others = fallback.map(|caller| self.others(&caller.namespace));
                voice(own, others.unwrap_or(Others::Nobody))
            }
            Peer::Identity { namespace, account } => {
                let own = match sender {
                    Sender::Proxy {
                        namespace: claimed,
                        pod,
                        ..
                    } if claimed == namespace => directory.pod_as(claimed, pod, account),
                    _ => None,
                };
                let others = if account == fallback::NAME {
                    self.others(namespace)
                } else {
                    Others::Nobody
                };
                voice(own, others)
            }
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|range| range.contains(&address))
    }

    /// Whom the fallback of a namespace speaks for.
    fn others(&self, namespace: &str) -> Others {
        match self.places.get(namespace) {
            None => Others::Nobody,
            Some(None) => Others::Everybody,
            Some(Some(callers)) => Others::Of(callers.clone()),
        }
    }
}

impl Others {
    /// Whether the peer is believed about calls of this workload.
    pub(super) fn include(&self, caller: &Caller) -> bool {
        match self {
            Self::Nobody => false,
            Self::Of(namespace) => *caller.namespace == **namespace,
            Self::Everybody => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::testing::{front, small};

    fn sender(id: &str) -> Sender {
        Sender::named(id)
    }

    const FRONT: &str = "sidecar~10.0.0.1~front-1.shop~shop.svc.cluster.local";

    #[test]
    fn fault_t7_a_peer_is_believed_for_what_its_connection_shows() {
        let config: LazyloadConfig = serde_saphyr::from_str(
            "{learn: {accessLog: {trusted: [192.0.2.0/24]}}, fallback: {clusterGsNamespace: mesh}}",
        )
        .unwrap();
        let cluster = Speakers::new(&config);
        let config: LazyloadConfig = serde_saphyr::from_str(
            "fallback: {globalSidecarMode: namespace, namespace: [shop, mesh]}",
        )
        .unwrap();
        let namespaces = Speakers::new(&config);
        let at = |speakers: &Speakers, address: &str, id: &str| {
            let peer = Peer::Address(address.parse().unwrap());
            speakers.voice(&peer, &sender(id), &small())
        };
        let voice = |own: bool, others| Voice {
            own: own.then(front),
            others,
        };
        // The pod itself, by either form of its address; a stranger; another pod.
        for address in ["10.0.0.1", "::ffff:10.0.0.1"] {
            assert_eq!(at(&cluster, address, FRONT), voice(true, Others::Nobody));
        }
        for address in ["127.0.0.1", "10.0.0.2", "10.99.0.1", "::1"] {
            assert_eq!(at(&cluster, address, FRONT), voice(false, Others::Nobody));
            assert_eq!(at(&cluster, address, "x"), voice(false, Others::Nobody));
        }
        // The fallback, and a pod that is called like it in a namespace without one.
        assert_eq!(
            at(&cluster, "10.0.0.8", "x"),
            voice(false, Others::Everybody)
        );
        assert_eq!(at(&cluster, "10.0.0.9", "x"), voice(false, Others::Nobody));
        let shop = Others::Of("shop".to_owned());
        assert_eq!(at(&namespaces, "10.0.0.9", "x"), voice(false, shop));
        // What the administrator trusts.
        assert_eq!(
            at(&cluster, "192.0.2.7", FRONT),
            voice(true, Others::Everybody)
        );
        assert_eq!(
            at(&namespaces, "192.0.2.7", FRONT),
            voice(false, Others::Nobody)
        );
    }

    #[test]
    fn fault_t7_a_certificate_speaks_for_its_namespace() {
        let config: LazyloadConfig =
            serde_saphyr::from_str("fallback: {clusterGsNamespace: mesh}").unwrap();
        let speakers = Speakers::new(&config);
        let of = |namespace: &str, account: &str| {
            let peer = Peer::Identity {
                namespace: namespace.to_owned(),
                account: account.to_owned(),
            };
            speakers.voice(&peer, &sender(FRONT), &small())
        };
        assert_eq!(of("shop", "default").own, Some(front()));
        assert_eq!(of("shop", "back").own, None, "another account's pod");
        assert_eq!(of("bank", "default").own, None);
        assert_eq!(of("mesh", fallback::NAME).others, Others::Everybody);
        assert_eq!(of("shop", fallback::NAME).others, Others::Nobody);
    }
}
