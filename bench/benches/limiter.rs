//! Benchmarks of the limiter. Group names say what is compared; see README.md.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use trimtab_bench::mesh::Mesh;
use trimtab_crds::limiter::{BASE_SET, Delivery, first_form};
use trimtab_kit::clock::{Clock, ManualClock, SystemClock};
use trimtab_kit::engine::Engine as _;
use trimtab_kit::sources::{
    Handler, HandlerType, MetricSource, PrometheusConfig, PrometheusSource, Row, SampleRequest,
    Samples,
};
use trimtab_limiter::decide::decide;
use trimtab_limiter::decide::expression::Expression;
use trimtab_limiter::engine::{Engine, SampleRequests};
use trimtab_limiter::index::{Index, V1alpha2};
use trimtab_limiter::input::{LimiterInput, Reading, SetFacts, Settings, TargetFacts};
use trimtab_limiter::owner::Owner;
use trimtab_limiter::translate::translate;
use trimtab_limiter::validate::validate;
use trimtab_xds::ResourceCache;

/// API version of the newer form.
const V1ALPHA2: &str = "microservice.slime.io/v1alpha2";

/// One condition in both spellings, and the same as CEL over a map.
const OURS: &str = "{cpu}>0.8 && {pod}>=2";
const PLAIN: &str = "m.cpu > 0.8 && m.pod >= 2.0";

fn expressions(c: &mut Criterion) {
    let mut group =
        c.benchmark_group("compile a condition: trimtab (with placeholders) vs cel crate");
    group.bench_function("trimtab", |b| {
        b.iter(|| Expression::compile(black_box(OURS)).unwrap());
    });
    group.bench_function("cel", |b| {
        b.iter(|| cel::Program::compile(black_box(PLAIN)).unwrap());
    });
    group.finish();

    let mut group =
        c.benchmark_group("evaluate a condition: trimtab (flat numbers) vs cel crate (map)");
    let expression = Expression::compile(OURS).unwrap();
    assert!(expression.condition(&[0.9, 3.0]).unwrap());
    group.bench_function("trimtab", |b| {
        b.iter(|| expression.condition(black_box(&[0.9, 3.0])).unwrap());
    });
    let program = cel::Program::compile(PLAIN).unwrap();
    // A new context for each evaluation, with its standard library either built anew, as the crate's examples do, or shared.
    let library = cel::Context::default();
    let run = |mut context: cel::Context<'_>, values: &[f64; 2]| {
        let map = HashMap::from([("cpu".to_owned(), values[0]), ("pod".to_owned(), values[1])]);
        context.add_variable("m", map).unwrap();
        program.execute(&context).unwrap()
    };
    let plain = |values: &[f64; 2]| run(cel::Context::default(), values);
    let shared = |values: &[f64; 2]| run(library.new_inner_scope(), values);
    for values in [[0.9, 3.0], [0.9, 1.0]] {
        let expected = cel::Value::Bool(expression.condition(&values).unwrap());
        assert_eq!(
            (plain(&values), shared(&values)),
            (expected.clone(), expected)
        );
    }
    group.bench_function("cel", |b| b.iter(|| plain(black_box(&[0.9, 3.0]))));
    group.bench_function("cel, shared library", |b| {
        b.iter(|| shared(black_box(&[0.9, 3.0])));
    });
    group.finish();
}

/// A limiter of the first form that limits.
fn input(delivery: Delivery) -> LimiterInput {
    let mesh = Mesh {
        limiters: 1,
        pods: 3,
    };
    let object: first_form::SmartLimiter = serde_json::from_value(mesh.limiter(0)).unwrap();
    let owner = Owner {
        api_version: "microservice.netease.com/v1alpha1".to_owned(),
        namespace: "ns-0".to_owned(),
        name: "svc-0".to_owned(),
        ..Owner::default()
    };
    let selector = BTreeMap::from([("app".to_owned(), "svc-0".to_owned())]);
    let sets = BTreeMap::from([(
        BASE_SET.to_owned(),
        SetFacts {
            pods: 3,
            ..SetFacts::default()
        },
    )]);
    let metrics = [("_base.cpu", 0.9), ("_base.pod", 3.0)];
    LimiterInput {
        owner,
        spec: (&object.spec).into(),
        target: TargetFacts {
            misread: <_>::default(),
            neighbours: <_>::default(),
            adaptive_elsewhere: None,
            rivals: Vec::new(),
            no_virtual_host: <_>::default(),
            selector,
            sets,
            problem: None,
            shared: false,
            ports: Vec::new(),
        },
        metrics: metrics
            .into_iter()
            .map(|(k, v)| (k.to_owned(), Reading::fresh(v)))
            .collect(),
        defaults: None,
        adaptive: BTreeMap::new(),
        previous: Vec::new(),
        overdue: <_>::default(),
        settings: Arc::new(Settings {
            delivery,
            known_metrics: ["cpu".to_owned()].into(),
            ..Settings::default()
        }),
    }
}

fn one_limiter(c: &mut Criterion) {
    let mut group = c.benchmark_group("one limiter, step by step");
    let plain = input(Delivery::EnvoyFilter);
    group.bench_function("validate", |b| {
        b.iter(|| validate(black_box(&plain.owner), black_box(&plain.spec)));
    });
    let validated = validate(&plain.owner, &plain.spec);
    let decisions = decide(&plain, &validated);
    assert_eq!(decisions.first().and_then(|d| d.quota), Some(10));
    group.bench_function("decide", |b| {
        b.iter(|| decide(black_box(&plain), &validated));
    });
    for (name, delivery) in [
        ("translate to EnvoyFilter", Delivery::EnvoyFilter),
        ("translate to ECDS", Delivery::Ecds),
    ] {
        let input = input(delivery);
        let translation = translate(&input, &validated, &decisions);
        assert_eq!(translation.envoy_filters.len(), 1);
        assert_eq!(
            translation.extension_configs.len(),
            usize::from(delivery == Delivery::Ecds)
        );
        group.bench_function(name, |b| {
            b.iter(|| translate(black_box(&input), &validated, &decisions));
        });
    }
    group.finish();
}

/// An engine with a mesh, what it asks for, and an answer for a CPU.
fn engine(limiters: usize) -> (Arc<Engine>, Arc<SampleRequests>) {
    let (engine, book, _) = engine_on(limiters, Arc::new(SystemClock::new()));
    (engine, book)
}

/// The same on a clock, with its mesh.
fn engine_on(
    limiters: usize,
    clock: Arc<dyn Clock>,
) -> (Arc<Engine>, Arc<SampleRequests>, Arc<trimtab_mesh::Mesh>) {
    let mut config = PrometheusConfig::new("http://127.0.0.1:9");
    config
        .handlers
        .insert("cpu".to_owned(), Handler::new("cpu", HandlerType::PerPod));
    let source: Arc<dyn MetricSource> = Arc::new(PrometheusSource::new(config).unwrap());
    let settings = Settings {
        known_metrics: source.provides().into_iter().collect(),
        ..Settings::default()
    };
    let mesh = trimtab_mesh::Mesh::new("cluster.local");
    let index = Index::new("istio-system", &mesh);
    index.attach(&mesh);
    let engine = Engine::new(
        index.clone(),
        vec![source],
        settings,
        clock,
        ResourceCache::new(),
        Arc::default(),
    );
    Mesh {
        limiters,
        pods: limiters * 3,
    }
    .feed(&mesh)
    .unwrap();
    engine.absorb();
    let book = engine.sample_requests(0);
    assert_eq!(book.sample_requests.len(), limiters);
    (engine, book, mesh)
}

fn answer(book: &SampleRequests, cpu: f64) -> Samples {
    let mut samples = Samples::default();
    for sample_request in &book.sample_requests {
        for name in &sample_request.metrics {
            samples
                .values
                .insert((sample_request.id, name.clone()), Ok(cpu));
        }
    }
    samples
}

const SIZES: [usize; 2] = [1_000, 10_000];

fn ticks(c: &mut Criterion) {
    let mut group = c.benchmark_group("one tick of all limiters: same values");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(8));
    for size in SIZES {
        let (engine, book) = engine(size);
        let samples = answer(&book, 0.9);
        engine.apply_samples(&book, samples.clone());
        assert!(
            engine
                .views()
                .iter()
                .all(|v| v.descriptors.iter().all(|d| d.quota == Some(10)))
        );
        group.throughput(Throughput::Elements(size as u64));
        group.bench_with_input(BenchmarkId::new("demands", size), &size, |b, _| {
            b.iter(|| engine.sample_requests(0));
        });
        group.bench_with_input(BenchmarkId::new("absorb_harvest", size), &size, |b, _| {
            b.iter_batched(
                || samples.clone(),
                |h| engine.apply_samples(&book, h),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();

    let mut group = c.benchmark_group("one tick of all limiters: every limit goes on or off");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(8));
    for size in SIZES {
        let (engine, book) = engine(size);
        let answers = [answer(&book, 0.9), answer(&book, 0.1)];
        let mut round = 0;
        group.throughput(Throughput::Elements(size as u64));
        group.bench_with_input(BenchmarkId::new("absorb_harvest", size), &size, |b, _| {
            let mut next = || {
                round += 1;
                answers[round % 2].clone()
            };
            b.iter_batched(
                &mut next,
                |h| engine.apply_samples(&book, h),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Prometheus' series of one pod, as the queries of strategy `adaptive` bring them.
fn rows(name: &str, request: &SampleRequest, round: usize) -> Vec<Row> {
    let offered = if round == 0 { 60.0 } else { 250.0 };
    let row = |pod: &Arc<str>, labels: &[(&str, &str)], value: f64| Row {
        pod: pod.clone(),
        labels: labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        value,
    };
    let pods = request.pods.iter().map(|pod| &pod.name);
    let of_pod = |pod: &Arc<str>| match name {
        "adaptive.requests" => vec![
            row(
                pod,
                &[("response_code", "200"), ("response_flags", "-")],
                offered,
            ),
            row(
                pod,
                &[("response_code", "429"), ("response_flags", "RL")],
                offered / 2.0,
            ),
        ],
        "adaptive.within" => vec![
            row(pod, &[("le", "500")], offered / 3.0),
            row(pod, &[("le", "+Inf")], offered),
        ],
        _ => vec![row(pod, &[], 0.5)],
    };
    pods.flat_map(of_pod).collect()
}

/// A tenth of the limiters has strategy `adaptive`.
fn adaptive(c: &mut Criterion) {
    let limiters = 10_000;
    let every = 10;
    let clock = ManualClock::default();
    let (engine, _, mesh) = engine_on(limiters, Arc::new(clock.clone()));
    let world = Mesh {
        limiters,
        pods: limiters * 3,
    };
    let newer = (0..limiters).filter(|i| world.limiter(*i)["apiVersion"] == V1ALPHA2);
    for i in newer.take(limiters / every) {
        let mut limiter = world.limiter(i);
        limiter["metadata"]["generation"] = 2.into();
        limiter["spec"] = json!({"delivery": "ECDS", "sets": {"_base": {"descriptor": [
            {"action": {"strategy": "adaptive", "adaptive": {"slo": "500ms"}}}]}}});
        let object = serde_json::from_value(limiter).unwrap();
        mesh.table::<V1alpha2>().put(&Arc::new(object));
    }
    engine.absorb();
    let book = engine.sample_requests(0);
    let of_law = book.sample_requests.iter().filter(|r| r.rows).count();
    assert_eq!(of_law, limiters / every);
    let answers = [0, 1].map(|round| {
        let mut samples = answer(&book, 0.9);
        for request in book.sample_requests.iter().filter(|r| r.rows) {
            for name in &request.metrics {
                let rows = rows(name, request, round);
                samples.rows.insert((request.id, name.clone()), rows);
            }
        }
        samples
    });
    let mut group = c.benchmark_group("one tick of 10,000 limiters, 1,000 of them adaptive");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(8));
    let mut round = 0;
    group.bench_function("absorb_harvest", |b| {
        let mut next = || {
            round += 1;
            clock.advance(Duration::from_secs(5));
            // Ten ticks of calm, ten of overload.
            answers[round / 10 % 2].clone()
        };
        b.iter_batched(
            &mut next,
            |h| engine.apply_samples(&book, h),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, expressions, one_limiter, ticks, adaptive);
criterion_main!(benches);
