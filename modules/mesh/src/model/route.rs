//! Rules of VirtualServices: what istiod decides when it makes a proxy's configuration, and where they lead.

use std::collections::BTreeMap;
use std::sync::Arc;

use trimtab_crds::istio::{self, SourceMatch, StringMatch};

use super::{Labels, selects};
use crate::names::full_host;

/// Name of the gateway that all sidecars are.
pub const SIDECARS: &str = "mesh";

/// A rule for HTTP requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRule {
    /// Requests that it is for: those that meet any of these; empty: all.
    pub matches: Box<[HttpMatch]>,
    /// Namespace and name of the VirtualService that has further rules.
    pub delegate: Option<(Arc<str>, Arc<str>)>,
    /// Clients are sent elsewhere: to this host, or to the same one by another address.
    pub redirect: Option<Option<Box<str>>>,
    /// The proxy answers by itself.
    pub responds: bool,
    /// Host that requests get on the way.
    pub authority: Option<Box<str>>,
    /// Where requests go.
    pub routes: Box<[Weighted]>,
    /// Where copies go.
    pub mirrors: Box<[Mirror]>,
}

/// A rule for TLS or TCP connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpRule {
    /// Connections that it is for: those that meet any of these; empty: all.
    pub matches: Box<[TcpMatch]>,
    /// Where connections go.
    pub routes: Box<[Weighted]>,
}

/// What a request must be like: all that is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpMatch {
    /// The caller.
    pub source: Source,
    /// The request.
    pub request: BTreeMap<Part, Test>,
    /// The case of the path does not matter.
    pub ignores_case: bool,
}

/// What a connection must be like: all that is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpMatch {
    /// The caller.
    pub source: Source,
    /// Names of the TLS handshake.
    pub sni: Box<[Box<str>]>,
    /// Networks of the destination.
    pub subnets: Box<[Box<str>]>,
}

/// What a match says of the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Namespace; `None`: any.
    pub namespace: Option<Box<str>>,
    /// Labels; all must be on the pod.
    pub labels: Labels,
    /// Gateways, [`SIDECARS`] among them; empty: those of the VirtualService.
    pub gateways: Box<[Box<str>]>,
    /// Port of the listener; `None`: any.
    pub port: Option<u16>,
}

/// A part of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Path.
    Uri,
    /// Scheme.
    Scheme,
    /// Method.
    Method,
    /// Host.
    Authority,
    /// A header.
    Header(Box<str>),
    /// A header that must not pass the test.
    WithoutHeader(Box<str>),
    /// A parameter of the query.
    Query(Box<str>),
}

/// A test of a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Test {
    /// It is there.
    Present,
    /// The whole text.
    Exact(Box<str>),
    /// Its beginning.
    Prefix(Box<str>),
    /// A regular expression for the whole text.
    Regex(Box<str>),
}

/// A destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// Full host; empty: istiod does not know what is meant.
    pub host: Arc<str>,
    /// Subset of a DestinationRule; empty: none.
    pub subset: Box<str>,
    /// Port, when it is written.
    pub port: Option<u16>,
}

/// A destination with its share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weighted {
    /// The destination.
    pub to: Destination,
    /// Its share; 0 gets nothing where there are others, and all where it is alone.
    pub weight: u32,
}

/// Where copies go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirror {
    /// The destination.
    pub to: Destination,
    /// Any request is copied.
    pub active: bool,
    /// It is the rule's `mirror`, and not one of its `mirrors`.
    pub single: bool,
}

impl Source {
    fn read(source: SourceMatch) -> Self {
        Self {
            namespace: some(source.source_namespace),
            labels: source.source_labels,
            gateways: source.gateways.into_iter().map(Into::into).collect(),
            port: Some(source.port).filter(|port| *port > 0),
        }
    }

    /// Whether a sidecar in `namespace` has routes of this match of an HTTP rule. `labels`: of its pod; `None`: any, so that
    /// labels do not count. Where gateways are written istiod looks at nothing else.
    pub fn http_applies(&self, namespace: &str, labels: Option<&Labels>) -> bool {
        if !self.gateways.is_empty() {
            return self.is_for_sidecars();
        }
        self.is_of(namespace, labels)
    }

    /// The same for a match of a TLS or TCP rule, on a port.
    pub fn tcp_applies(&self, namespace: &str, labels: Option<&Labels>, port: u16) -> bool {
        let on_port = self.port.is_none_or(|p| p == port);
        on_port && self.is_for_sidecars() && self.is_of(namespace, labels)
    }

    fn is_for_sidecars(&self) -> bool {
        self.gateways.is_empty() || self.gateways.iter().any(|g| **g == *SIDECARS)
    }

    fn is_of(&self, namespace: &str, labels: Option<&Labels>) -> bool {
        let of_pod = labels.is_none_or(|labels| selects(&self.labels, labels));
        of_pod && self.namespace.as_deref().is_none_or(|n| n == namespace)
    }
}

impl HttpMatch {
    fn read(object: &istio::HttpMatchRequest) -> Self {
        let single = [
            (Part::Uri, object.uri.clone()),
            (Part::Scheme, object.scheme()),
            (Part::Method, object.method.clone()),
            (Part::Authority, object.authority()),
        ];
        let single = single
            .into_iter()
            .filter_map(|(part, test)| Some((part, Test::read(&test?))));
        let headers = object
            .headers
            .iter()
            .map(|(name, test)| (Part::Header(name.as_str().into()), Test::read(test)));
        let without = object.without_headers().into_iter();
        let without =
            without.map(|(name, test)| (Part::WithoutHeader(name.into()), Test::read(&test)));
        let query = object.query_params().into_iter();
        let query = query.map(|(name, test)| (Part::Query(name.into()), Test::read(&test)));
        Self {
            source: Source::read(object.source()),
            request: single.chain(headers).chain(without).chain(query).collect(),
            ignores_case: object.ignores_case(),
        }
    }

    /// Whether every request passes, so that istiod leaves out what comes after it.
    pub fn takes_all(&self) -> bool {
        let mut rest = self.request.iter().filter(|(part, _)| **part != Part::Uri);
        let uri = match self.request.get(&Part::Uri) {
            None => true,
            Some(Test::Prefix(prefix)) => **prefix == *"/",
            Some(Test::Regex(regex)) => **regex == *".*",
            Some(_) => false,
        };
        uri && rest.next().is_none()
    }
}

impl Test {
    fn read(test: &StringMatch) -> Self {
        let written =
            |text: &Option<String>| text.as_deref().filter(|t| !t.is_empty()).map(Into::into);
        let exact = written(&test.exact).map(Self::Exact);
        let prefix = || written(&test.prefix).map(Self::Prefix);
        let regex = || written(&test.regex).map(Self::Regex);
        exact
            .or_else(prefix)
            .or_else(regex)
            .unwrap_or(Self::Present)
    }
}

fn some(text: String) -> Option<Box<str>> {
    Some(text).filter(|t| !t.is_empty()).map(Into::into)
}

/// Reads rules of an object in a namespace.
pub(super) struct Reader<'a> {
    pub(super) namespace: &'a str,
    pub(super) domain: &'a str,
}

impl Reader<'_> {
    pub(super) fn full(&self, host: &str) -> Arc<str> {
        full_host(host, self.namespace, self.domain).into()
    }

    fn destination(&self, to: &istio::Destination) -> Destination {
        Destination {
            host: self.full(&to.host),
            subset: to.subset.as_str().into(),
            port: to.port(),
        }
    }

    fn weighted(&self, routes: &[istio::RouteDestination]) -> Box<[Weighted]> {
        let one = |route: &istio::RouteDestination| Weighted {
            to: self.destination(&route.destination),
            weight: route
                .weight
                .and_then(|w| u32::try_from(w).ok())
                .unwrap_or_default(),
        };
        routes.iter().map(one).collect()
    }

    pub(super) fn http(&self, rule: &istio::HttpRule) -> HttpRule {
        let delegate = rule.delegate.as_ref().filter(|d| !d.name.is_empty());
        HttpRule {
            matches: rule.matches.iter().map(HttpMatch::read).collect(),
            delegate: delegate.map(|d| {
                let own = d.namespace.is_empty();
                let namespace = if own { self.namespace } else { &d.namespace };
                (namespace.into(), d.name.as_str().into())
            }),
            redirect: rule.redirect().map(|r| some(r.authority)),
            responds: rule.responds(),
            authority: rule.rewritten_authority().map(Into::into),
            routes: self.weighted(&rule.route),
            mirrors: self.mirrors(rule),
        }
    }

    fn mirrors(&self, rule: &istio::HttpRule) -> Box<[Mirror]> {
        let share = match (rule.mirror_percentage, rule.mirror_percent) {
            (Some(share), _) => share.value,
            (None, Some(share)) => share,
            (None, None) => 100.0,
        };
        let one = rule.mirror.iter().map(|to| Mirror {
            to: self.destination(to),
            active: share > 0.0,
            single: true,
        });
        let more = rule.mirrors.iter().map(|mirror| Mirror {
            to: self.destination(&mirror.destination),
            active: mirror.percentage.is_none_or(|share| share.value > 0.0),
            single: false,
        });
        one.chain(more).collect()
    }

    pub(super) fn tcp(&self, rule: &istio::TcpRule) -> TcpRule {
        let matches = rule.matches().into_iter().map(|m| TcpMatch {
            source: Source::read(m.source),
            sni: m.sni_hosts.into_iter().map(Into::into).collect(),
            subnets: m.destination_subnets.into_iter().map(Into::into).collect(),
        });
        TcpRule {
            matches: matches.collect(),
            routes: self.weighted(&rule.route),
        }
    }
}

impl HttpRule {
    /// Destinations, those of copies too.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let routes = self.routes.iter().map(|r| &r.to);
        routes.chain(self.mirrors.iter().map(|m| &m.to))
    }

    /// Destinations that get requests: of several those with a share, unless the rule sends none on.
    pub fn called(&self) -> impl Iterator<Item = &Destination> {
        let alone = self.routes.len() == 1;
        let sends = self.redirect.is_none() && !self.responds;
        let routes = self
            .routes
            .iter()
            .filter(move |r| sends && (alone || r.weight > 0));
        routes.map(|r| &r.to)
    }

    /// Destinations that get copies.
    pub fn copied(&self) -> impl Iterator<Item = &Destination> {
        let sends = self.redirect.is_none() && !self.responds;
        let active = self.mirrors.iter().filter(move |m| sends && m.active);
        active.map(|m| &m.to)
    }
}
