//! JSON API of the MetaProtocol module.

use std::sync::Arc;

use trimtab_kit::api::{Api, ApiError, LIMIT, List};

use crate::engine::Engine;
use crate::object::Kind;

/// The routes.
pub(crate) fn api(engine: Arc<Engine>) -> Api {
    let (hosts, all, objects) = (engine.clone(), engine.clone(), engine.clone());
    Api::new()
        .get(
            "/api/v1/metaprotocol",
            "All hosts with layer-7 ports, and what is made of them",
            &[LIMIT],
            move |call| List::of(hosts.views(), call),
        )
        .get(
            "/api/v1/metaprotocol/objects/{kind}/{namespace}/{name}",
            "A RedisService, RedisDestination or DubboAuthorizationPolicy, what is made of it, and who has it",
            &[],
            move |call| {
                let asked = call.path("kind").to_lowercase();
                let mut kinds = Kind::DESCRIBED.into_iter();
                let kind = kinds.find(|kind| kind.as_str().to_lowercase() == asked);
                let kind = kind.ok_or_else(|| ApiError::missing(format!(
                    "{asked} is not described here: write redisservice, redisdestination or dubboauthorizationpolicy"
                )))?;
                let (namespace, name) = call.object();
                let view = objects.object_view(kind, &namespace, &name);
                view.ok_or_else(|| {
                    ApiError::missing(format!("there is no {} {namespace}/{name}", kind.as_str()))
                })
            },
        )
        .get(
            "/api/v1/metaprotocol/routers",
            "All MetaRouters",
            &[LIMIT],
            move |call| List::of(all.router_summaries(), call),
        )
        .get(
            "/api/v1/metaprotocol/routers/{namespace}/{name}",
            "A MetaRouter with all that calls through it depend on",
            &[],
            move |call| {
                let (namespace, name) = call.object();
                let view = engine.router_view(&namespace, &name);
                view.ok_or_else(|| {
                    ApiError::missing(format!("there is no MetaRouter {namespace}/{name}"))
                })
            },
        )
}
