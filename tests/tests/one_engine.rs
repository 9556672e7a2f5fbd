//! `translate` prints what `run` writes: the same objects, byte for byte, for every example and several configurations.

#[cfg(test)]
mod translate_and_run {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;
    use trimtab::config::Config;
    use trimtab::manifests::{self, Document};
    use trimtab::operator::Operator;
    use trimtab::{standalone, translate};
    use trimtab_kit::sources::{FixedSource, MetricSource};

    /// Two limits, one of them by a metric that only the configuration knows.
    const LIMITER: &str = "
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec: {selector: {app: orders}, ports: [{name: http, port: 80}]}
---
apiVersion: microservice.slime.io/v1alpha2
kind: SmartLimiter
metadata: {name: orders, namespace: shop}
spec:
  sets:
    _base:
      descriptor:
      - {condition: 'true', action: {quota: '30', fill_interval: {seconds: 1}}}
      - {condition: '{{._base.load.max}} > 3', action: {quota: '5', fill_interval: {seconds: 1}}}
";

    /// Nothing listens on port 9: what Prometheus would say is given like on the command line.
    const CONFIGURATIONS: [&str; 3] = [
    "metrics: {prometheus: {address: 'http://127.0.0.1:9', handlers: {load.max: {query: 'max(load)'}, cpu: {query: 'max(cpu)'}}}}",
    "xds: {advertise: '10.1.2.3:15010'}
limiter: {disableInsertLocalRateLimit: true, proxyVersion: '^1[.]31.*', refresh: 100ms}
metrics: {prometheus: {address: 'http://127.0.0.1:9', handlers: {load.max: {query: 'max(load)'}}}}",
    "xds: {advertise: '10.1.2.3:15010'}
limiter: {delivery: ECDS, refresh: 100ms}
lazyload: {revision: canary}
metaprotocol: {dataPlane: Envoy, scope: serviceNamespace}
metrics: {prometheus: {address: 'http://127.0.0.1:9', handlers: {load.max: {query: 'max(load)'}, cpu: {query: 'max(cpu)'}}}}",
];

    fn config(text: &str) -> Config {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config: Config = serde_saphyr::from_str(text).unwrap();
        config.http.address.set_port(0);
        config.xds.address.set_port(0);
        config.in_cluster = true;
        config
    }

    fn metrics() -> BTreeMap<String, f64> {
        BTreeMap::from([("load.max".to_owned(), 4.0), ("cpu".to_owned(), 0.85)])
    }

    fn inputs() -> Vec<(String, Vec<Document>)> {
        let limiter = manifests::parse(Path::new("limiter.yaml"), LIMITER).unwrap();
        let mut out = vec![("a limiter".to_owned(), limiter)];
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        for folder in [
            "quickstart",
            "limiter",
            "standalone",
            "lazyload/bookinfo",
            "metaprotocol",
        ] {
            let read = manifests::read(&[PathBuf::from(&examples).join(folder)]).unwrap();
            out.push((format!("examples/{folder}"), read.documents));
        }
        out
    }

    /// What an operator writes that runs on the same objects with the same metrics.
    async fn run(documents: &[Document], assumed: &[Value], config: Config) -> Vec<Value> {
        let embedded = standalone::embedded().unwrap();
        for document in documents {
            // What cannot be stored is refused in both.
            let _ = standalone::load(&embedded, document);
        }
        for object in assumed {
            let document = Document::new("assumed", object.clone());
            standalone::load(&embedded, &document).unwrap();
        }
        let source: Vec<Arc<dyn MetricSource>> = vec![Arc::new(FixedSource::new(metrics()))];
        let stop = CancellationToken::new();
        let operator = Operator::start_with(config, embedded.client(), source, stop)
            .await
            .unwrap();
        let outputs = operator.modules.iter().flat_map(|m| m.outputs.clone());
        let outputs: Vec<_> = outputs.collect();
        // Done when nothing has changed in a second: 20 looks in a row, 30 s at most.
        let mut seen = None;
        let mut same = 0;
        for _ in 0..600 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = translate::generated(&embedded.client(), outputs.clone())
                .await
                .unwrap();
            let ready = operator.readiness.missing().is_empty();
            same = if ready && seen.as_ref() == Some(&now) {
                same + 1
            } else {
                0
            };
            seen = Some(now);
            if same >= 20 {
                break;
            }
        }
        operator.stop().await.unwrap();
        seen.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn fault_o2_translate_prints_what_run_writes() {
        for (name, documents) in inputs() {
            for text in CONFIGURATIONS {
                let (_, output) = translate::pass(&documents, &metrics(), &config(text))
                    .await
                    .unwrap();
                let written = run(&documents, &output.assumed, config(text)).await;
                let shown = |objects: &[Value]| serde_json::to_string_pretty(objects).unwrap();
                similar(&name, text, &shown(&output.objects), &shown(&written));
            }
        }
    }

    /// The cases of lazy scoping: the configuration of a folder's first document, and its objects.
    fn cases() -> Vec<(String, String, Vec<Document>)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/lazyload");
        let folders = std::fs::read_dir(root).unwrap();
        let case = |folder: PathBuf| {
            let text = std::fs::read_to_string(folder.join("in.yaml")).unwrap();
            let values: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
            let (setup, objects): (Vec<Value>, Vec<Value>) =
                values.into_iter().partition(|v| v["kind"] == "Config");
            let section = setup.first().map(|s| s["config"].clone());
            let section = section
                .filter(Value::is_object)
                .unwrap_or_else(|| json!({}));
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            let documents = objects.into_iter().map(|o| Document::new(&name, o));
            let documents = documents.collect();
            (name, json!({"lazyload": section}).to_string(), documents)
        };
        let mut cases: Vec<_> = folders.map(|f| case(f.unwrap().path())).collect();
        cases.sort_by(|a, b| a.0.cmp(&b.0));
        cases
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn fault_s21_translate_and_run_give_the_same_sidecars_for_a_folder() {
        let all = cases();
        assert!(all.len() >= 30, "{}", all.len());
        for some in all.chunks(8) {
            let both = some.iter().map(async |(name, text, documents)| {
                let (_, output) = translate::pass(documents, &metrics(), &config(text))
                    .await
                    .unwrap();
                let written = run(documents, &output.assumed, config(text)).await;
                let shown = |objects: &[Value]| {
                    let sidecars: Vec<&Value> =
                        objects.iter().filter(|o| o["kind"] == "Sidecar").collect();
                    serde_json::to_string_pretty(&sidecars).unwrap()
                };
                similar(name, text, &shown(&output.objects), &shown(&written));
            });
            futures::future::join_all(both).await;
        }
    }

    fn similar(name: &str, config: &str, translated: &str, written: &str) {
        if translated == written {
            return;
        }
        let differs = translated
            .lines()
            .zip(written.lines())
            .position(|(a, b)| a != b)
            .unwrap_or_default();
        let around = |text: &str| {
            text.lines()
                .skip(differs.saturating_sub(8))
                .take(16)
                .collect::<Vec<_>>()
                .join("\n")
        };
        panic!(
            "{name} with\n{config}\n--- translate\n{}\n--- run\n{}",
            around(translated),
            around(written)
        );
    }

    #[tokio::test]
    async fn fault_o2_settings_of_the_file_hold_in_translate() {
        let documents = manifests::parse(Path::new("limiter.yaml"), LIMITER).unwrap();
        let (_, output) = translate::pass(&documents, &metrics(), &config(CONFIGURATIONS[1]))
            .await
            .unwrap();
        assert_eq!(output.refused, Vec::<String>::new());
        let text = serde_json::to_string(&output.objects).unwrap();
        assert!(text.contains("^1[.]31.*"), "{text}");
        assert!(
            !text.contains("INSERT_FIRST") && !text.contains("INSERT_BEFORE"),
            "{text}"
        );
        // Without an address of the xDS server ECDS cannot be delivered, as the operator says too.
        let config = config(
            "limiter: {delivery: ECDS}\nmetrics: {prometheus: {address: 'http://127.0.0.1:9', handlers: {load.max: {query: 'x'}}}}",
        );
        let (_, output) = translate::pass(&documents, &metrics(), &config)
            .await
            .unwrap();
        assert!(output.objects.is_empty(), "{:?}", output.objects);
        assert!(
            output.refused.iter().any(|r| r.contains("xds.advertise")),
            "{:?}",
            output.refused
        );
    }

    #[tokio::test]
    async fn a_metric_that_is_not_given_says_how_to_give_it() {
        let documents = manifests::parse(Path::new("limiter.yaml"), LIMITER).unwrap();
        let (_, output) = translate::pass(&documents, &BTreeMap::new(), &config(CONFIGURATIONS[0]))
            .await
            .unwrap();
        let notes = output.notes.join("\n");
        assert!(notes.contains("--metric load.max=VALUE"), "{notes}");
    }
}
