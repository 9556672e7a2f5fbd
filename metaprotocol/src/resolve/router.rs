//! A MetaRouter as plain types. Numbers out of range cannot pass the schema; here they become the nearest good one.

use std::collections::BTreeMap;

use kube::ResourceExt;
use trimtab_crds::metaprotocol as crd;

use crate::input::{
    Destination, GlobalRateLimit, KeyValue, LimitCondition, LimitDescriptor, LocalRateLimit,
    Mirror, Retries, Route, Router, TokenBucket, ValueMatch, WeightedDestination,
};
use crate::owner::Owner;
use crate::span::Span;

/// Reads a MetaRouter.
pub fn lower(object: &crd::MetaRouter) -> Router {
    let spec = &object.spec;
    let namespace = object.namespace().unwrap_or_default();
    let gateways = spec.gateways.iter().map(|name| {
        if name.contains('/') {
            name.clone()
        } else {
            format!("{namespace}/{name}")
        }
    });
    Router {
        owner: Owner::of("MetaRouter", object),
        routes: spec.routes.iter().map(route).collect(),
        local_rate_limit: spec.local_rate_limit.as_ref().map(local),
        global_rate_limit: spec.global_rate_limit.as_ref().map(global),
        export_to: spec.export_to.clone(),
        gateways: gateways.collect(),
    }
}

/// Hosts that a router's routes lead to.
pub fn hosts(router: &Router) -> impl Iterator<Item = String> + '_ {
    router.routes.iter().flat_map(|route| {
        let mirror = route.mirror.iter().map(|m| m.destination.host.clone());
        let direct = route
            .destinations
            .iter()
            .map(|d| d.destination.host.clone());
        direct.chain(mirror)
    })
}

fn route(route: &crd::MetaRoute) -> Route {
    let pairs = |list: &[crd::KeyValue]| {
        list.iter()
            .map(|kv| KeyValue {
                key: kv.key.clone(),
                value: kv.value.clone(),
            })
            .collect()
    };
    let mirror = route.mirror.as_ref().zip(route.mirror_share());
    Route {
        name: route.name.clone().unwrap_or_default(),
        matches: route.matches.as_ref().map(matches).unwrap_or_default(),
        destinations: route
            .route
            .iter()
            .map(|d| WeightedDestination {
                destination: destination(&d.destination),
                weight: unsigned(d.weight.unwrap_or_default().into()),
            })
            .collect(),
        mirror: mirror.map(|(to, percent)| Mirror {
            destination: destination(to),
            percent,
        }),
        request_mutation: pairs(&route.request_mutation),
        response_mutation: pairs(&route.response_mutation),
        timeout: route.timeout.as_deref().map(Span::new),
        retries: route.retries.filter(|r| r.attempts > 0).map(|r| Retries {
            attempts: unsigned(r.attempts.into()),
        }),
        field: String::new(),
        unsupported: Vec::new(),
    }
}

fn destination(to: &crd::Destination) -> Destination {
    // A port that is out of range is 0, which validation refuses.
    let port = to.port.map(|p| u16::try_from(p.number).unwrap_or(0));
    Destination {
        host: to.host.clone(),
        subset: to.subset.clone().unwrap_or_default(),
        port,
    }
}

fn matches(given: &crd::Match) -> BTreeMap<String, ValueMatch> {
    given
        .by_name()
        .map(|(name, wanted)| {
            let value = match wanted {
                crd::AttributeMatch::Present => ValueMatch::Present,
                crd::AttributeMatch::Exact(text) => ValueMatch::Exact(text.to_owned()),
                crd::AttributeMatch::Prefix(text) => ValueMatch::Prefix(text.to_owned()),
                crd::AttributeMatch::Regex(text) => ValueMatch::Regex(text.to_owned()),
            };
            (name.to_owned(), value)
        })
        .collect()
}

fn local(limit: &crd::LocalRateLimit) -> LocalRateLimit {
    LocalRateLimit {
        bucket: limit.token_bucket.as_ref().map(bucket),
        conditions: limit
            .conditions
            .iter()
            .map(|c| LimitCondition {
                matches: matches(&c.matches),
                bucket: bucket(&c.token_bucket),
            })
            .collect(),
    }
}

fn bucket(bucket: &crd::TokenBucket) -> TokenBucket {
    TokenBucket {
        max_tokens: unsigned(bucket.max_tokens),
        tokens_per_fill: unsigned(bucket.tokens_per_fill),
        fill_interval: Span::new(&bucket.fill_interval),
    }
}

fn global(limit: &crd::GlobalRateLimit) -> GlobalRateLimit {
    GlobalRateLimit {
        matches: limit.matches.as_ref().map(matches),
        domain: limit.domain.clone(),
        timeout: limit.request_timeout.as_deref().map(Span::new),
        deny_on_fail: limit.deny_on_fail,
        cluster: limit.rate_limit_service.clone(),
        descriptors: limit
            .descriptors
            .iter()
            .map(|d| LimitDescriptor {
                property: d.property.clone(),
                descriptor_key: d.descriptor_key.clone(),
            })
            .collect(),
    }
}

/// The nearest number of Envoy's type.
pub(super) fn unsigned(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}
