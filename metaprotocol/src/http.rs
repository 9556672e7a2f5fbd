//! JSON API of the MetaProtocol module.

use std::sync::Arc;

use trimtab_kit::api::{Api, ApiError, LIMIT, List};

use crate::engine::Engine;

/// The routes.
pub(crate) fn api(engine: Arc<Engine>) -> Api {
    let (hosts, all) = (engine.clone(), engine.clone());
    Api::new()
        .get(
            "/api/v1/metaprotocol",
            "All hosts with layer-7 ports, and what is made of them",
            &[LIMIT],
            move |call| List::of(hosts.views(), call),
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
