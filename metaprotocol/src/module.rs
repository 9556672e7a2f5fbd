//! What the MetaProtocol module is made of, as the kit takes it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, ResourceExt};
use trimtab_crds::dubbo::DubboAuthorizationPolicy;
use trimtab_crds::istio::{EnvoyFilter, Gateway, ServiceEntry, VirtualService};
use trimtab_crds::metaprotocol::{ApplicationProtocol, MetaRouter};
use trimtab_crds::redis::{RedisDestination, RedisService};
use trimtab_crds::{OWNER_KIND_LABEL, OWNER_NAME_LABEL};
use trimtab_kit::apply::{Key, Ownership};
use trimtab_kit::engine::Engine as _;
use trimtab_kit::generated::OWNER_NAMESPACE_LABEL;
use trimtab_kit::module::{Module, ModuleConfig, Setup, SetupError};
use trimtab_kit::rights::Right;
use trimtab_mesh::model::{self as mesh, DestinationRule, EndpointSlice};
use trimtab_xds::{DRDS, GENERIC_RDS, RDS, TRDS};

use crate::config::MetaprotocolConfig;
use crate::engine::{Engine, WorkItem};
use crate::index::{Index, Kept};
use crate::metrics::MetaprotocolCollector;
use crate::object::{Kind, ServiceKey};
use crate::secrets::SecretReader;
use crate::translate::MODULE;
use crate::vip::Ranges;
use crate::{describe, http};

/// Label of what Aeraki wrote, under the same names.
const AERAKI: (&str, &str) = ("manager", "Aeraki");

/// The MetaProtocol module.
#[derive(Debug)]
pub struct Metaprotocol;

impl ModuleConfig for MetaprotocolConfig {
    fn check(&self) -> Result<(), String> {
        self.check()
    }

    fn enabled(&self) -> bool {
        self.enabled
    }
}

/// Owner of a generated object, by its labels.
fn owner<K: Resource>(object: &K) -> Option<Key> {
    let label = |name: &str| object.labels().get(name).cloned();
    let key = ServiceKey {
        kind: label(OWNER_KIND_LABEL)?,
        namespace: label(OWNER_NAMESPACE_LABEL)?,
        name: label(OWNER_NAME_LABEL)?,
    };
    Some(key.to_owner())
}

impl Module for Metaprotocol {
    const NAME: &'static str = MODULE;
    type Config = MetaprotocolConfig;

    fn setup(config: MetaprotocolConfig, setup: &mut Setup<'_>) -> Result<(), SetupError> {
        let context = setup.context().clone();
        let settings = Arc::new(config.settings(&context.xds_endpoint));
        let index = Index::new(&context.mesh, settings);
        let reader = SecretReader::new(context.client.clone());
        let secrets = config.read_secrets.then_some(reader);
        let engine = Engine::new(
            index.clone(),
            &context,
            config.debounce.into(),
            config.vips.clone(),
            secrets.clone(),
        );
        for type_url in [RDS, TRDS, DRDS, GENERIC_RDS] {
            context.xds.serve_type(type_url);
        }
        watches(setup, &index);
        generates(setup, &engine);
        setup.publishes_events(&engine.events);
        setup.engine(&engine);
        if let Some(reader) = secrets {
            setup.right(Right::on::<Secret>(&["get"]));
            setup.task("secrets", reader.follow(index, context.shutdown));
        }
        if config.vips != Ranges::default() {
            setup.right(Right::on::<ServiceEntry>(&["patch"]));
        }
        setup.api(http::api(engine.clone()));
        let collector = MetaprotocolCollector::new(engine.clone(), config.export_routers);
        setup.collector(Box::new(collector));
        describes(setup, &engine);
        let found = engine.clone();
        setup.findings(move || found.findings());
        let served = engine.clone();
        setup.resources(move || served.resources());
        setup.expose(engine);
        Ok(())
    }
}

fn describes(setup: &mut Setup<'_>, engine: &Arc<Engine>) {
    let described = engine.clone();
    let (singular, others) = names(Kind::MetaRouter);
    setup.describe(singular, others, move |request| {
        let (namespace, name) = (&request.namespace, &request.name);
        match described.router_view(namespace, name) {
            Some(view) => Ok(describe::text(&view, &request.attributes)),
            None => Err(format!("there is no MetaRouter {namespace}/{name}")),
        }
    });
    for kind in Kind::DESCRIBED {
        let (singular, others) = names(kind);
        let described = engine.clone();
        setup.describe(singular, others, move |request| {
            let (namespace, name) = (&request.namespace, &request.name);
            let view = described.object_view(kind, namespace, name);
            view.map(|view| describe::object(&view))
                .ok_or_else(|| format!("there is no {} {namespace}/{name}", kind.as_str()))
        });
    }
}

/// Singular, plural and short name.
fn names(kind: Kind) -> (&'static str, &'static [&'static str]) {
    match kind {
        Kind::RedisService => ("redisservice", &["redisservices", "rsvc"]),
        Kind::RedisDestination => ("redisdestination", &["redisdestinations", "rd"]),
        Kind::DubboAuthorizationPolicy => (
            "dubboauthorizationpolicy",
            &["dubboauthorizationpolicies", "dap"],
        ),
        Kind::MetaRouter => ("metarouter", &["metarouters", "mr"]),
        Kind::ApplicationProtocol => ("applicationprotocol", &["applicationprotocols"]),
    }
}

fn watches(setup: &mut Setup<'_>, index: &Arc<Index>) {
    setup.follow::<mesh::Service>(index);
    setup.follow::<EndpointSlice>(index);
    setup.follow::<mesh::ServiceEntry>(index);
    setup.follow::<mesh::Namespace>(index);
    setup.follow::<DestinationRule>(index);
    setup.follow_mesh_defaults();
    setup.follow_mesh_config::<mesh::MeshConfig>(index);
    setup.follow::<Kept<Gateway>>(index);
    setup.follow::<Kept<VirtualService>>(index);
    setup.follow::<Kept<MetaRouter>>(index);
    setup.follow::<Kept<ApplicationProtocol>>(index);
    setup.follow::<Kept<RedisService>>(index);
    setup.follow::<Kept<RedisDestination>>(index);
    setup.follow::<Kept<DubboAuthorizationPolicy>>(index);
    setup.writes_status::<MetaRouter>();
    setup.writes_status::<ApplicationProtocol>();
    setup.writes_status::<RedisService>();
    setup.writes_status::<RedisDestination>();
    setup.writes_status::<DubboAuthorizationPolicy>();
}

fn generates(setup: &mut Setup<'_>, engine: &Arc<Engine>) {
    let touch = |engine: Arc<Engine>| {
        Arc::new(move |namespace: &str, name: &str| {
            if let Some(owner) = ServiceKey::from_owner(namespace, name) {
                engine.queue().push(WorkItem::Objects(owner));
            }
        })
    };
    let filters = Ownership {
        module: Some(MODULE),
        owner: owner::<EnvoyFilter>,
        predecessor: Some(AERAKI),
    };
    setup.generates("EnvoyFilter", filters, touch(engine.clone()));
    let services = Ownership {
        module: Some(MODULE),
        owner: owner::<VirtualService>,
        predecessor: Some(AERAKI),
    };
    setup.generates("VirtualService", services, touch(engine.clone()));
}
