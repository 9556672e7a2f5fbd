//! The gRPC services: one for all types, and one for each type that has its own.

use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service as HttpService, http};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Status, Streaming};

use crate::accept::Ends;
use crate::authenticate::{Authenticated, authenticated};
use crate::cache::ResourceCache;
use crate::codec::{Encoded, Requests};
use crate::identity::PeerInfo;
use crate::options::{Limits, Security, ServerOptions};
use crate::protocol::{Delta, Protocol, Sotw};
use crate::responses::{Responses, open};
use crate::stats::Stats;
use crate::stream::StreamSettings;
use crate::types::{CDS, ECDS, EDS, LDS, RDS};

/// What every stream is opened with.
#[derive(Clone)]
pub(crate) struct Service {
    cache: ResourceCache,
    options: Arc<ServerOptions>,
    limits: Arc<Limits>,
    shutdown: CancellationToken,
}

impl Service {
    pub(crate) fn new(
        cache: ResourceCache,
        options: ServerOptions,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            cache,
            limits: Arc::new(options.limits.clone()),
            options: Arc::new(options),
            shutdown,
        }
    }

    fn open<P: Protocol>(
        &self,
        only: Option<&'static str>,
        info: PeerInfo,
        most_age: Option<Duration>,
        requests: Streaming<P::Request>,
    ) -> Result<Responses<P>, Status> {
        let stats = self.cache.stats();
        if !self.cache.is_ready() {
            Stats::add(&stats.streams_refused, 1);
            return Err(Status::unavailable(
                "the first snapshot is not complete yet; try again",
            ));
        }
        if P::DELTA && self.cache.is_partial() {
            Stats::add(&stats.streams_refused, 1);
            return Err(Status::unavailable(
                "some resources are not complete yet, and a delta client would drop them; try again",
            ));
        }
        let most = self.limits.streams;
        if usize::try_from(Stats::read(&stats.streams_active)).is_ok_and(|open| open >= most) {
            Stats::add(&stats.limited_streams, 1);
            return Err(Status::resource_exhausted(format!(
                "the xDS server has {most} streams open, and more are not allowed; try another replica, or raise the limit of streams"
            )));
        }
        let settings = StreamSettings {
            info,
            trust: self.options.trust_nodes,
            limits: Arc::clone(&self.limits),
            debounce: self.options.debounce,
        };
        Ok(open(
            &self.cache,
            only,
            requests,
            settings,
            most_age,
            &self.shutdown,
        ))
    }
}

/// Share of what is left of a token's life for which a stream may live: it ends up to a tenth later, and never after the token.
const TOKEN_SHARE: f64 = 0.9;

/// How long a stream may live.
fn most_age(
    options: &ServerOptions,
    token: Option<&Authenticated>,
    now: SystemTime,
) -> Option<Duration> {
    let of_token = token.and_then(|t| t.expires).map(|end| {
        let left = end.duration_since(now).unwrap_or_default();
        left.mul_f64(TOKEN_SHARE)
    });
    [options.max_connection_age, of_token]
        .into_iter()
        .flatten()
        .min()
}

/// A service of the xDS API.
trait Api: Send + Sync + 'static {
    /// Full name of the service.
    const NAME: &'static str;
    /// What the names of its methods end with.
    const SUBJECT: &'static str;
    /// The type that it serves, if it serves just one.
    const ONLY: Option<&'static str>;
}

macro_rules! apis {
    ($($api:ident, $name:literal, $subject:literal, $only:expr;)*) => {
        $(struct $api;

        impl Api for $api {
            const NAME: &'static str = $name;
            const SUBJECT: &'static str = $subject;
            const ONLY: Option<&'static str> = $only;
        })*
    };
}

apis! {
    Aggregated, "envoy.service.discovery.v3.AggregatedDiscoveryService", "AggregatedResources", None;
    Clusters, "envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters", Some(CDS);
    Endpoints, "envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints", Some(EDS);
    Listeners, "envoy.service.listener.v3.ListenerDiscoveryService", "Listeners", Some(LDS);
    HttpRoutes, "envoy.service.route.v3.RouteDiscoveryService", "Routes", Some(RDS);
    ExtensionConfigs, "envoy.service.extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs", Some(ECDS);
}

/// One service of the API.
struct Served<A> {
    service: Service,
    api: PhantomData<A>,
}

impl<A> Clone for Served<A> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            api: PhantomData,
        }
    }
}

impl<A: Api> NamedService for Served<A> {
    const NAME: &'static str = A::NAME;
}

impl<A: Api> Served<A> {
    /// A streaming method; a stream that is not admitted gets an error status and no message.
    async fn stream<P: Protocol>(&self, request: http::Request<Body>) -> http::Response<Body> {
        let (parts, body) = request.into_parts();
        let compressed = parts.headers.get("grpc-encoding");
        if compressed.is_some_and(|encoding| encoding != "identity") {
            return Status::unimplemented("compressed requests are not served; send them plain")
                .into_http();
        }
        let ends = parts.extensions.get::<Ends>();
        let mut info = PeerInfo {
            addr: ends.map(|ends| ends.peer),
            spiffe: ends.and_then(|ends| ends.identity.clone()),
        };
        let options = &self.service.options;
        let peer = info.addr.map(|addr| addr.ip());
        let token = match &options.security {
            Security::Plain | Security::Certificates(_) => None,
            Security::Tokens(tokens) => {
                match authenticated(tokens.authenticator.as_ref(), peer, &parts.headers).await {
                    Ok(token) => Some(token),
                    Err(status) => {
                        Stats::add(&self.service.cache.stats().tokens_refused, 1);
                        tracing::debug!(addr = ?info.addr, %status, "a token was refused");
                        return status.into_http();
                    }
                }
            }
        };
        let age = most_age(options, token.as_ref(), SystemTime::now());
        if let Some(token) = token {
            info.spiffe = Some(Arc::new(token.id));
        }
        let requests = Streaming::new_request(
            Requests::<P::Request>::default(),
            body,
            None,
            Some(self.service.limits.message_bytes),
        );
        match self.service.open::<P>(A::ONLY, info, age, requests) {
            Ok(responses) => {
                let mut response = http::Response::new(Body::new(Encoded::new(responses)));
                let grpc = http::HeaderValue::from_static("application/grpc");
                response.headers_mut().insert("content-type", grpc);
                response
            }
            Err(status) => status.into_http(),
        }
    }
}

impl<A: Api> HttpService<http::Request<Body>> for Served<A> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let served = self.clone();
        Box::pin(async move { Ok(served.answer(request).await) })
    }
}

impl<A: Api> Served<A> {
    async fn answer(&self, request: http::Request<Body>) -> http::Response<Body> {
        let method = request
            .uri()
            .path()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .strip_suffix(A::SUBJECT);
        match method {
            Some("Stream") => self.stream::<Sotw>(request).await,
            Some("Delta") => self.stream::<Delta>(request).await,
            Some("Fetch") if A::ONLY.is_some() => Status::unimplemented(
                "polling is not served; use the streaming or the delta method of this service",
            )
            .into_http(),
            _ => Status::unimplemented("the service has no such method").into_http(),
        }
    }
}

/// All services.
pub(crate) fn routes(service: &Service) -> Routes {
    fn served<A: Api>(service: &Service) -> Served<A> {
        Served {
            service: service.clone(),
            api: PhantomData,
        }
    }
    Routes::new(served::<Aggregated>(service))
        .add_service(served::<Clusters>(service))
        .add_service(served::<Endpoints>(service))
        .add_service(served::<Listeners>(service))
        .add_service(served::<HttpRoutes>(service))
        .add_service(served::<ExtensionConfigs>(service))
}
