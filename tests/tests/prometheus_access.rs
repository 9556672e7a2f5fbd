//! Both users of the client of Prometheus, metric sources and learning, against a real Prometheus behind mutual TLS and a path
//! prefix, and behind a proxy that wants a token and a tenant.

#[cfg(test)]
mod access {
    use std::net::{IpAddr, SocketAddr};
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::Duration;

    use axum::Router;
    use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
    use axum::response::IntoResponse;
    use axum::routing::{get, post};
    use parking_lot::Mutex;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
        KeyPair, KeyUsagePurpose,
    };
    use serde_json::{Value, json};
    use tokio_util::sync::{CancellationToken, DropGuard};
    use trimtab::config::Config;
    use trimtab_kit::clock::SystemClock;
    use trimtab_kit::sources::{
        Failure, MetricSource as _, PrometheusSource, Sample, SampleRequest, SampleRequestId,
    };
    use trimtab_lab::process::{Process, Spec, wait_until};
    use trimtab_lab::prometheus::{self, Prometheus, Target};
    use trimtab_lab::{LabError, ports};
    use trimtab_lazyload::config::Retention;
    use trimtab_lazyload::edges::{EdgeStore, Limits};
    use trimtab_lazyload::learn::Rules;
    use trimtab_lazyload::learn::prometheus::{Backend, PrometheusStats, run};
    use trimtab_lazyload::module::Lazyload;
    use trimtab_lazyload::object::{Caller, Directory};

    const BOUND: Duration = Duration::from_secs(60);

    fn folder(name: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("access-{name}"));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    async fn serve(router: Router) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// What there is to scrape: a number for limiters, and one call for learning.
    async fn exporter() -> SocketAddr {
        let text = "one 42\nistio_requests_total{reporter=\"source\",source_workload=\"front\",source_workload_namespace=\"shop\",\
            destination_service=\"a.shop.svc.cluster.local\"} 1\n";
        serve(Router::new().route("/metrics", get(move || async move { text }))).await
    }

    /// A mesh that knows each host.
    struct Mesh;

    impl Directory for Mesh {
        fn caller_at(&self, _: IpAddr) -> Option<Caller> {
            None
        }

        fn caller_of_pod(&self, _: &str, _: &str) -> Option<Caller> {
            None
        }

        fn host_of_name(&self, name: &str, _: &str) -> Option<Arc<str>> {
            Some(name.into())
        }

        fn hosts_at(&self, _: IpAddr, _: u16) -> Vec<Arc<str>> {
            Vec::new()
        }
    }

    /// A limiter's source and a learner, both with the same keys in their sections of one file.
    struct Users {
        source: PrometheusSource,
        stats: Arc<PrometheusStats>,
        _stop: DropGuard,
    }

    impl Users {
        fn new(access: &Value) -> Self {
            let (mut metrics, mut learn) = (access.clone(), access.clone());
            metrics["handlers"] = json!({"one": {"query": "one"}});
            learn["interval"] = json!("100ms");
            let text = json!({"metrics": {"prometheus": metrics}, "lazyload": {"learn": {"prometheus": learn}}});
            let config = Config::parse(&text.to_string()).unwrap();
            let learning = config.of::<Lazyload>().learn.prometheus.unwrap();
            let backend = Backend {
                directory: Arc::new(Mesh),
                rules: Rules::default(),
                store: Arc::new(EdgeStore::new(Limits::new(&Retention::default(), 100))),
                clock: Arc::new(SystemClock::new()),
                answers: <_>::default(),
                stats: Arc::default(),
            };
            let (stats, stop) = (backend.stats.clone(), CancellationToken::new());
            let shutdown = stop.clone();
            tokio::spawn(async move { run(&learning, &backend, shutdown).await });
            Self {
                source: PrometheusSource::new(config.metrics.prometheus.unwrap()).unwrap(),
                stats,
                _stop: stop.drop_guard(),
            }
        }

        /// What limiters get of `one`.
        async fn sample(&self) -> Sample {
            let sample_request = SampleRequest {
                metrics: vec!["one".to_owned()],
                ..SampleRequest::default()
            };
            let samples = self.source.sample(&[sample_request]).await;
            samples.get(SampleRequestId(0), "one").unwrap().clone()
        }

        async fn answered(&self) -> Result<(), LabError> {
            wait_until("an answer for both", BOUND, || async {
                let (sample, error) = (self.sample().await, self.stats.error());
                let good = sample == Ok(42.0) && error.is_none() && self.stats.new_edges() == 1;
                good.then_some(())
                    .ok_or(format!("{sample:?}, learner: {error:?}"))
            })
            .await
        }

        /// Waits until neither gets an answer, and both are told so by these words; `SECTION` stands for the name of the
        /// section.
        async fn refused(&self, words: &[&str]) {
            let told = |text: &str, section: &str| {
                let mut words = words.iter();
                words.all(|word| text.contains(&word.replace("SECTION", section)))
            };
            wait_until(&format!("both told {words:?}"), BOUND, || async {
                let (sample, error) = (self.sample().await, self.stats.error());
                let source = matches!(&sample, Err(Failure::Error(text)) if told(text, "metrics.prometheus"));
                let learner = error.as_ref().is_some_and(|text| told(text, "lazyload.learn.prometheus"));
                (source && learner)
                    .then_some(())
                    .ok_or(format!("{sample:?}, learner: {error:?}"))
            })
            .await
            .unwrap();
        }
    }

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    impl Authority {
        fn new(name: &str) -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params.distinguished_name.push(DnType::CommonName, name);
            let pem = params.self_signed(&key).unwrap().pem();
            let issuer = Issuer::new(params, key);
            Self { issuer, pem }
        }

        /// Writes `NAME.pem` and `NAME.key`.
        fn issue(&self, folder: &Path, name: &str, usage: ExtendedKeyUsagePurpose) {
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
            std::fs::write(folder.join(format!("{name}.pem")), certificate).unwrap();
            std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
    }

    /// A Prometheus at `https://ADDRESS/prom` that lets nobody in without a certificate of `ca.pem`.
    fn behind_tls(folder: &Path, exporter: SocketAddr) -> (Process, SocketAddr) {
        let address = ports::free_address().unwrap();
        let web = json!({"tls_server_config": {
            "cert_file": "server.pem", "key_file": "server.key",
            "client_ca_file": "ca.pem", "client_auth_type": "RequireAndVerifyClientCert",
        }});
        let scrape = json!({
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
            "scrape_configs": [{"job_name": "all", "static_configs": [{"targets": [exporter.to_string()]}]}],
        });
        std::fs::write(folder.join("web.json"), web.to_string()).unwrap();
        std::fs::write(folder.join("prometheus.json"), scrape.to_string()).unwrap();
        let at = |name: &str| folder.join(name).display().to_string();
        let args = [
            format!("--config.file={}", at("prometheus.json")),
            format!("--web.config.file={}", at("web.json")),
            format!("--storage.tsdb.path={}", at("data")),
            format!("--web.listen-address={address}"),
            format!("--web.external-url=https://{address}/prom"),
            "--web.route-prefix=/prom".to_owned(),
        ];
        let process = Process::start(Spec {
            name: "Prometheus".to_owned(),
            program: prometheus::find().unwrap(),
            args: args.into_iter().map(Into::into).collect(),
            log: folder.join("log"),
        });
        (process.unwrap(), address)
    }

    /// The access with one key changed, or removed by null.
    fn but(access: &Value, key: &str, value: Value) -> Users {
        let mut access = access.clone();
        match value {
            Value::Null => drop(access.as_object_mut().unwrap().remove(key)),
            value => access[key] = value,
        }
        Users::new(&access)
    }

    #[tokio::test]
    async fn mutual_tls_and_a_path_prefix() {
        let folder = folder("tls");
        let (ca, other) = (Authority::new("ours"), Authority::new("theirs"));
        for (name, authority) in [("ca.pem", &ca), ("other-ca.pem", &other)] {
            std::fs::write(folder.join(name), &authority.pem).unwrap();
        }
        ca.issue(&folder, "server", ExtendedKeyUsagePurpose::ServerAuth);
        ca.issue(&folder, "client", ExtendedKeyUsagePurpose::ClientAuth);
        let (process, address) = behind_tls(&folder, exporter().await);
        let access = json!({
            "address": format!("https://{address}/prom"), "caFile": folder.join("ca.pem"),
            "certFile": folder.join("client.pem"), "keyFile": folder.join("client.key"),
        });
        let users = Users::new(&access);
        if let Err(error) = users.answered().await {
            panic!("{error}\n{}", process.log_tail());
        }
        let slash = but(
            &access,
            "address",
            json!(format!("https://{address}/prom/")),
        );
        slash.answered().await.unwrap();

        let root = but(&access, "address", json!(format!("https://{address}")));
        root.refused(&["404", "check that SECTION.address is the base URL"])
            .await;
        let foreign = but(&access, "caFile", json!(folder.join("other-ca.pem")));
        foreign
            .refused(&["UnknownIssuer", "check SECTION.address, caFile"])
            .await;
        let mut nobody = access.clone();
        for key in ["certFile", "keyFile"] {
            nobody.as_object_mut().unwrap().remove(key);
        }
        Users::new(&nobody)
            .refused(&["cannot be asked", "caFile, certFile and keyFile"])
            .await;
        let missing = but(&access, "caFile", json!(folder.join("no.pem")));
        missing
            .refused(&["SECTION.caFile", "no.pem cannot be read"])
            .await;
        let empty = but(&access, "certFile", json!(folder.join("client.key")));
        empty
            .refused(&["SECTION.certFile holds no certificate"])
            .await;

        // Renewed by the wrong authority, half renewed, and renewed.
        other.issue(&folder, "client", ExtendedKeyUsagePurpose::ClientAuth);
        users
            .refused(&["cannot be asked", "caFile, certFile and keyFile"])
            .await;
        ca.issue(&folder, "new", ExtendedKeyUsagePurpose::ClientAuth);
        std::fs::rename(folder.join("new.pem"), folder.join("client.pem")).unwrap();
        users
            .refused(&["SECTION.keyFile gives no TLS configuration"])
            .await;
        std::fs::rename(folder.join("new.key"), folder.join("client.key")).unwrap();
        users.answered().await.unwrap();
    }

    /// Parameters of the address, among the headers.
    const PARAMETERS: &str = "parameters-of-the-address";

    /// Headers of each query that came to the proxy, by whether a limiter or the learner asked.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<(bool, HeaderMap)>>>);

    impl Seen {
        /// Waits until both have sent these headers.
        async fn both(&self, users: &Users, headers: &[(&str, &str)]) {
            wait_until(&format!("{headers:?} of both"), BOUND, || async {
                let _ = users.sample().await;
                let seen = self.0.lock();
                let sent = |limiter: bool| {
                    seen.iter().any(|(by, sent)| {
                        let mut headers = headers.iter();
                        *by == limiter && headers.all(|(k, v)| sent.get(*k).is_some_and(|s| s == v))
                    })
                };
                (sent(true) && sent(false))
                    .then_some(())
                    .ok_or("not yet".to_owned())
            })
            .await
            .unwrap();
        }
    }

    /// A proxy in front of a Prometheus at `/prom`; `/near` and `/away` redirect to it by this and by another host name.
    async fn proxy(behind: &Prometheus, seen: &Seen) -> SocketAddr {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let (url, seen) = (format!("{}/api/v1/query", behind.url()), seen.clone());
        let pass = async move |uri: Uri, mut headers: HeaderMap, body: String| {
            if let Some(parameters) = uri.query() {
                headers.insert(PARAMETERS, HeaderValue::from_str(parameters).unwrap());
            }
            let limiter = !body.contains("istio");
            seen.0.lock().push((limiter, headers.clone()));
            let request = client
                .post(url)
                .header("content-type", &headers["content-type"]);
            match request.body(body).send().await {
                Ok(answer) => (answer.status(), answer.text().await.unwrap()).into_response(),
                Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
            }
        };
        let path = "/prom/api/v1/query";
        let to = |location: String| {
            post(async move || (StatusCode::TEMPORARY_REDIRECT, [("location", location)]))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route(path, post(pass.clone()))
            .route("/api/v1/query", post(pass.clone()))
            .route("/near/api/v1/query", to(path.to_owned()))
            .route(
                "/away/api/v1/query",
                to(format!("http://localhost:{}{path}", address.port())),
            );
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    #[tokio::test]
    async fn a_token_that_changes_and_a_tenant() {
        let folder = folder("token");
        let target = Target::new(exporter().await, "/metrics");
        let behind = Prometheus::start(&folder, Duration::from_millis(200), &[target])
            .await
            .unwrap();
        let seen = Seen::default();
        let address = proxy(&behind, &seen).await;
        let token = folder.join("token");
        let access = json!({
            "address": format!("http://{address}/prom"), "bearerTokenFile": token,
            "headers": {"X-Scope-OrgID": "team-a"},
        });
        let users = Users::new(&access);
        users
            .refused(&["SECTION.bearerTokenFile", "token cannot be read"])
            .await;
        assert!(
            seen.0.lock().is_empty(),
            "nothing is sent without the token"
        );
        for text in ["t1", "t2\n"] {
            std::fs::write(&token, text).unwrap();
            users.answered().await.unwrap();
            let bearer = format!("Bearer {}", text.trim());
            seen.both(
                &users,
                &[("authorization", &bearer), ("x-scope-orgid", "team-a")],
            )
            .await;
        }
        std::fs::write(&token, "two\nlines").unwrap();
        users
            .refused(&["SECTION.bearerTokenFile holds more than a token"])
            .await;
    }

    #[tokio::test]
    async fn fault_t11_fault_l11_parameters_of_the_address_come_with_each_query() {
        let target = Target::new(exporter().await, "/metrics");
        let behind =
            Prometheus::start(&folder("parameters"), Duration::from_millis(200), &[target])
                .await
                .unwrap();
        for (path, parameters) in [
            ("/?tenant=shop", "tenant=shop"),
            ("/prom/?tenant=a%26b&dedup=true", "tenant=a%26b&dedup=true"),
            ("/prom?x", "x"),
        ] {
            let seen = Seen::default();
            let address = proxy(&behind, &seen).await;
            let users = Users::new(&json!({"address": format!("http://{address}{path}")}));
            users.answered().await.unwrap();
            seen.both(&users, &[(PARAMETERS, parameters)]).await;
        }
        // The key of an API is in no message.
        let refusing = serve(
            Router::new().fallback(async |uri: Uri| (StatusCode::FORBIDDEN, format!("no: {uri}"))),
        )
        .await;
        let users =
            Users::new(&json!({"address": format!("http://{refusing}/?key=0123456789abcdef")}));
        users
            .refused(&["HTTP 403", "key=***", "SECTION.address"])
            .await;
    }

    #[tokio::test]
    async fn a_redirect_is_followed_on_the_same_host_only() {
        let target = Target::new(exporter().await, "/metrics");
        let behind = Prometheus::start(&folder("redirect"), Duration::from_millis(200), &[target])
            .await
            .unwrap();
        let seen = Seen::default();
        let address = proxy(&behind, &seen).await;
        let access = |path: &str| json!({"address": format!("http://{address}/{path}"), "headers": {"X-Api-Key": "secret"}});
        let away = Users::new(&access("away"));
        away.refused(&["HTTP 307", "SECTION.address"]).await;
        assert!(seen.0.lock().is_empty(), "another host has got the headers");
        let near = Users::new(&access("near"));
        near.answered().await.unwrap();
        seen.both(&near, &[("x-api-key", "secret")]).await;
    }
}
