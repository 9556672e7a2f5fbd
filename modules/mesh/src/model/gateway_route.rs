//! HTTPRoutes and GRPCRoutes whose parent is a Service: istiod makes VirtualServices of them, one for each parent.

use std::collections::BTreeMap;
use std::sync::Arc;

use trimtab_crds::gateway_api::{
    self, BackendFilter, BackendReference, GrpcMethodMatch, GrpcRouteMatch, HttpRouteMatch,
    ParentReference, RequestMirror, RouteFilter, RouteRule, ValueMatch,
};

use super::route::{Destination, HttpMatch, HttpRule, Mirror, Part, Source, Test, Weighted};
use super::{Identity, RouteKind, VirtualService};
use crate::names::service_host;
use crate::table::{Known, Row};
use crate::{ExportDefaults, Exports};

/// The API group of `Hostname`, which names a host of Istio's registry.
const ISTIO: &str = "networking.istio.io";

/// An HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRoute {
    /// What istiod makes of it, for each Service that is its parent.
    pub services: Box<[Arc<VirtualService>]>,
}

/// A GRPCRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcRoute {
    /// What istiod makes of it, for each Service that is its parent.
    pub services: Box<[Arc<VirtualService>]>,
}

/// istiod does not take the route at all.
struct Refused;

type Checked<T> = Result<T, Refused>;

struct Reader<'a> {
    id: &'a Identity,
    kind: RouteKind,
    domain: &'a str,
}

impl Reader<'_> {
    /// What is made of a route.
    fn route<M: Default>(
        &self,
        parents: &[ParentReference],
        rules: &[RouteRule<M>],
        request: fn(&M) -> BTreeMap<Part, Test>,
    ) -> Box<[Arc<VirtualService>]> {
        let rules = rules.iter().map(|rule| {
            let matches = rule.matches.iter().map(request).collect();
            self.rule(matches, &rule.filters, &rule.backend_refs)
        });
        let rules: Checked<Vec<_>> = rules.collect();
        self.services(parents, &rules.map(|all| all.concat()))
    }

    /// What is made for each parent. Rules of a parent that names a port are for that port.
    fn services(
        &self,
        parents: &[ParentReference],
        rules: &Checked<Vec<HttpRule>>,
    ) -> Box<[Arc<VirtualService>]> {
        let Ok(rules) = rules else {
            return Box::default();
        };
        let of_services = parents.iter().filter(|parent| {
            let group = parent.group.as_deref();
            parent.kind.as_deref() == Some("Service") && matches!(group, Some("" | "core"))
        });
        let made = of_services.map(|parent| {
            let namespace = parent.namespace.as_deref().unwrap_or(&self.id.namespace);
            let port = parent.port.and_then(|n| u16::try_from(n).ok());
            let host: Arc<str> = service_host(&parent.name, namespace, self.domain).into();
            let made = VirtualService {
                id: self.id.clone(),
                kind: self.kind,
                hosts: Box::new([host]),
                mesh: true,
                exports: Exports::new([]),
                http: rules.iter().map(|rule| on_port(rule, port)).collect(),
                ..VirtualService::default()
            };
            Arc::new(made.summed_up())
        });
        made.filter(|made| !made.http.is_empty()).collect()
    }

    /// One rule for each match.
    fn rule(
        &self,
        matches: Vec<BTreeMap<Part, Test>>,
        filters: &[RouteFilter],
        backends: &[BackendReference],
    ) -> Checked<Vec<HttpRule>> {
        let mut rule = HttpRule::default();
        let mut mirrors = Vec::new();
        for filter in filters {
            let known = [
                "RequestHeaderModifier",
                "ResponseHeaderModifier",
                "RequestMirror",
            ]
            .contains(&&*filter.type_);
            let http = ["RequestRedirect", "URLRewrite", "CORS"].contains(&&*filter.type_);
            if !(known || http && self.kind == RouteKind::HttpRoute) {
                return Err(Refused);
            }
            if let Some(mirror) = filter
                .request_mirror
                .as_ref()
                .filter(|_| filter.type_ == "RequestMirror")
            {
                match self.destination(&mirror.backend_ref) {
                    Ok(to) => mirrors.push(Mirror {
                        to,
                        active: share(mirror) > 0.0,
                        single: false,
                    }),
                    // Of an HTTPRoute the copy alone is left out.
                    Err(Refused) if self.kind == RouteKind::HttpRoute => {}
                    Err(Refused) => return Err(Refused),
                }
            }
            let host = |f: &Option<gateway_api::HostFilter>| {
                f.as_ref().map(|f| f.hostname.as_deref().map(Into::into))
            };
            match filter.type_.as_str() {
                "RequestRedirect" => rule.redirect = host(&filter.request_redirect),
                "URLRewrite" => rule.authority = host(&filter.url_rewrite).flatten(),
                _ => {}
            }
        }
        rule.mirrors = mirrors.into();
        rule.routes = self.routes(backends)?;
        rule.responds = rule.routes.is_empty() && rule.redirect.is_none();
        if matches.is_empty() {
            return Ok(vec![rule]);
        }
        let of = |request| HttpRule {
            matches: Box::new([HttpMatch {
                request,
                ..HttpMatch::default()
            }]),
            ..rule.clone()
        };
        Ok(matches.into_iter().map(of).collect())
    }

    /// Backends without a share are no destinations.
    fn routes(&self, backends: &[BackendReference]) -> Checked<Box<[Weighted]>> {
        let weight =
            |b: &BackendReference| b.weight.map_or(1, |w| u32::try_from(w).unwrap_or_default());
        let called = backends.iter().filter(|b| weight(b) > 0);
        let routes = called.map(|backend| {
            let headers = |f: &BackendFilter| {
                ["RequestHeaderModifier", "ResponseHeaderModifier"].contains(&&*f.type_)
            };
            if !backend.filters.iter().all(headers) {
                return Err(Refused);
            }
            Ok(Weighted {
                to: self.destination(backend)?,
                weight: weight(backend),
            })
        });
        routes.collect()
    }

    fn destination(&self, to: &BackendReference) -> Checked<Destination> {
        let namespace = to.namespace.as_deref().unwrap_or(&self.id.namespace);
        let group = match to.group.as_deref() {
            None | Some("" | "core") => "",
            Some(group) => group,
        };
        let host = match (group, to.kind.as_deref().unwrap_or("Service")) {
            ("", "Service") if !to.name.contains('.') => {
                service_host(&to.name, namespace, self.domain)
            }
            (ISTIO, "Hostname") if to.namespace.is_none() => to.name.clone(),
            ("multicluster.x-k8s.io", "ServiceImport") => {
                service_host(&to.name, namespace, self.domain)
            }
            ("", "Service") | (ISTIO, "Hostname") => return Err(Refused),
            _ => return Ok(Destination::default()),
        };
        let port = to.port().ok_or(Refused)?;
        Ok(Destination {
            host: host.into(),
            subset: "".into(),
            port: Some(port),
        })
    }
}

fn on_port(rule: &HttpRule, port: Option<u16>) -> HttpRule {
    let Some(port) = port else {
        return rule.clone();
    };
    let source = Source {
        port: Some(port),
        ..Source::default()
    };
    let of = |m: &HttpMatch| HttpMatch {
        source: source.clone(),
        ..m.clone()
    };
    let matches: Box<[HttpMatch]> = if rule.matches.is_empty() {
        Box::new([of(&HttpMatch::default())])
    } else {
        rule.matches.iter().map(of).collect()
    };
    HttpRule {
        matches,
        ..rule.clone()
    }
}

fn share(mirror: &RequestMirror) -> f64 {
    match (&mirror.fraction, mirror.percent) {
        (Some(share), _) => {
            f64::from(share.numerator) / f64::from(share.denominator.unwrap_or(100))
        }
        (None, Some(percent)) => f64::from(percent),
        (None, None) => 100.0,
    }
}

fn test(value: &ValueMatch, unless_said: fn(Box<str>) -> Test) -> Test {
    let text: Box<str> = value.value.as_deref().unwrap_or_default().into();
    match value.type_.as_deref() {
        Some("Exact") => Test::Exact(text),
        Some("RegularExpression") => Test::Regex(text),
        _ => unless_said(text),
    }
}

fn headers(headers: &[ValueMatch]) -> impl Iterator<Item = (Part, Test)> {
    headers
        .iter()
        .map(|h| (Part::Header(h.name.as_str().into()), test(h, Test::Exact)))
}

fn http_match(object: &HttpRouteMatch) -> BTreeMap<Part, Test> {
    let path = object
        .path
        .as_ref()
        .map(|path| match test(path, Test::Prefix) {
            Test::Prefix(text) if text.is_empty() => Test::Prefix("/".into()),
            Test::Prefix(text) if text.len() > 1 => {
                Test::Prefix(text.strip_suffix('/').unwrap_or(&text).into())
            }
            other => other,
        });
    let method = object.method.as_deref().map(|m| Test::Exact(m.into()));
    let query = object.query_params.iter();
    let query = query.map(|q| (Part::Query(q.name.as_str().into()), test(q, Test::Exact)));
    let uri = path.map(|path| (Part::Uri, path));
    let method = method.map(|method| (Part::Method, method));
    uri.into_iter()
        .chain(method)
        .chain(headers(&object.headers))
        .chain(query)
        .collect()
}

fn grpc_path(call: &GrpcMethodMatch) -> Option<Test> {
    let regex = call.type_.as_deref() == Some("RegularExpression");
    Some(match (call.service.as_deref(), call.method.as_deref()) {
        (None, None) => return None,
        (Some(service), None) if regex => Test::Regex(format!("/{service}/.+").into()),
        (Some(service), None) => Test::Prefix(format!("/{service}/").into()),
        (None, Some(method)) => Test::Regex(format!("/[^/]+/{method}").into()),
        (Some(service), Some(method)) if regex => {
            Test::Regex(format!("/{service}/{method}").into())
        }
        (Some(service), Some(method)) => Test::Exact(format!("/{service}/{method}").into()),
    })
}

fn grpc_match(object: &GrpcRouteMatch) -> BTreeMap<Part, Test> {
    let path = object
        .method
        .as_ref()
        .and_then(grpc_path)
        .map(|path| (Part::Uri, path));
    path.into_iter().chain(headers(&object.headers)).collect()
}

impl Row for HttpRoute {
    type Object = gateway_api::HttpRoute;
    type Index = ();

    fn read(object: &Arc<gateway_api::HttpRoute>, known: &Known<'_, Self>) -> Option<Self> {
        let reader = Reader {
            id: &Identity::of(object.as_ref()),
            kind: RouteKind::HttpRoute,
            domain: known.domain,
        };
        let services = reader.route(&object.spec.parent_refs, &object.spec.rules, http_match);
        (!services.is_empty()).then_some(Self { services })
    }

    fn under(&self, defaults: &ExportDefaults) -> Option<Self> {
        under(&self.services, defaults).map(|services| Self { services })
    }
}

impl Row for GrpcRoute {
    type Object = gateway_api::GrpcRoute;
    type Index = ();

    fn read(object: &Arc<gateway_api::GrpcRoute>, known: &Known<'_, Self>) -> Option<Self> {
        let reader = Reader {
            id: &Identity::of(object.as_ref()),
            kind: RouteKind::GrpcRoute,
            domain: known.domain,
        };
        let services = reader.route(&object.spec.parent_refs, &object.spec.rules, grpc_match);
        (!services.is_empty()).then_some(Self { services })
    }

    fn under(&self, defaults: &ExportDefaults) -> Option<Self> {
        under(&self.services, defaults).map(|services| Self { services })
    }
}

fn under(
    services: &[Arc<VirtualService>],
    defaults: &ExportDefaults,
) -> Option<Box<[Arc<VirtualService>]>> {
    let now = services
        .iter()
        .map(|service| service.under(defaults).map(Arc::new));
    now.collect()
}

#[cfg(test)]
mod tests;
