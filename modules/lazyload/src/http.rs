//! JSON API of lazy scoping.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use trimtab_kit::api::{Api, ApiError, Call, LIMIT, List, Parameter};

use crate::describe;
use crate::engine::{EdgeView, Engine, FenceView};
use crate::object::FenceKey;

/// Edges in one answer, at most, unless asked otherwise.
const EDGES: usize = 2000;

/// Of Slime's reset.
const NAMESPACE: Parameter = Parameter {
    name: "ns",
    text: "Namespace of the fences",
    most: None,
    required: true,
};
const NAME: Parameter = Parameter {
    name: "name",
    text: "One fence; all of the namespace without it",
    most: None,
    required: false,
};

/// Whose calls were forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct Forgotten<T> {
    /// The fence, or the fences.
    forgotten: T,
}

/// The routes.
pub(crate) fn api(engine: Arc<Engine>) -> Api {
    let (mesh, of_pod) = (engine.clone(), engine.clone());
    fences(&engine)
        .get(
            "/api/v1/lazyload",
            "The mesh and its scopes in numbers",
            &[],
            move |_| Ok(mesh.mesh_view()),
        )
        .get(
            "/api/v1/lazyload/pods/{namespace}/{name}",
            "The ServiceFences of a pod",
            &[LIMIT],
            move |call| {
                let (namespace, name) = call.object();
                let items = of_pod.pod_views(&namespace, &name);
                if items.is_empty() {
                    return Err(ApiError::missing(describe::no_pod(&namespace, &name)));
                }
                List::of(items, call)
            },
        )
        .get(
            "/api/v1/lazyload/edges",
            "Who calls whom; 2000 edges unless limit says another number",
            &[LIMIT],
            move |call| edges(&engine, call),
        )
}

fn fences(engine: &Arc<Engine>) -> Api {
    let [all, one, to_forget, to_reset] = [(); 4].map(|()| engine.clone());
    Api::new()
        .get(
            "/api/v1/lazyload/fences",
            "All ServiceFences, without entries and dependencies",
            &[LIMIT],
            move |call| List::of(brief(&all), call),
        )
        .get(
            "/api/v1/lazyload/fences/{namespace}/{name}",
            "A ServiceFence with its entries, why each is there, and what was learned",
            &[],
            move |call| {
                let key = key(call);
                one.fence_view(&key).ok_or_else(|| missing(&key))
            },
        )
        .post(
            "/api/v1/lazyload/fences/{namespace}/{name}/forget",
            "Forgets what was learned of a fence's workloads",
            &[],
            move |call| {
                let key = key(call);
                if !to_forget.forget(&key) {
                    return Err(missing(&key));
                }
                Ok(Forgotten { forgotten: key })
            },
        )
        .post(
            "/lazyload/debug/svfReset",
            "Slime's way to forget: all fences of a namespace, or one",
            &[NAMESPACE, NAME],
            move |call| Ok(reset(&to_reset, call)),
        )
}

fn key(call: &Call) -> FenceKey {
    let (namespace, name) = call.object();
    FenceKey { namespace, name }
}

fn missing(key: &FenceKey) -> ApiError {
    ApiError::missing(describe::no_fence(key))
}

/// Without entries and dependencies, which make the answer long: ask for a fence to see them.
fn brief(engine: &Engine) -> Vec<FenceView> {
    let brief = |key: FenceKey| {
        let view = engine.fence_view(&key)?;
        Some(FenceView {
            entries: <_>::default(),
            dependencies: Vec::new(),
            ..view
        })
    };
    engine.fences().into_iter().filter_map(brief).collect()
}

fn edges(engine: &Engine, call: &Call) -> Result<List<EdgeView>, ApiError> {
    let limit = call.number(&LIMIT)?.unwrap_or(EDGES);
    Ok(List {
        items: engine.edge_views(limit),
        total: engine.mesh_view().edges,
    })
}

fn reset(engine: &Engine, call: &Call) -> Forgotten<BTreeSet<FenceKey>> {
    let (namespace, name) = (call.query.get("ns"), call.query.get("name"));
    let meant = |key: &FenceKey| {
        Some(&key.namespace) == namespace && name.is_none_or(|name| *name == key.name)
    };
    let keys: BTreeSet<FenceKey> = engine.fences().into_iter().filter(meant).collect();
    for key in &keys {
        engine.forget(key);
    }
    Forgotten { forgotten: keys }
}
