use envoy_types::pb::envoy::extensions::filters::http::adaptive_concurrency::v3::{
    AdaptiveConcurrency, adaptive_concurrency::ConcurrencyControllerConfig,
};
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use prost::Message as _;

use super::*;

const AIM: Aim = Aim {
    per_pod: Some(80.0),
    bucket_s: 0.1,
    service_s: Some(0.1),
    slo_s: 1.0,
};
const ALL: Facilities = Facilities {
    ecds: true,
    adaptive_concurrency: true,
    envoy: Some((1, 40)),
};

#[test]
fn json_and_protobuf_say_the_same() {
    let bucket = EcdsBucket.filter(&AIM);
    let proto = LocalRateLimit::decode(bucket.proto.as_slice()).unwrap();
    let tokens = proto.token_bucket.unwrap();
    assert_eq!(
        (
            tokens.max_tokens,
            bucket.json["tokenBucket"]["maxTokens"].as_u64()
        ),
        (8, Some(8))
    );
    assert_eq!(tokens.fill_interval.unwrap().nanos, 100_000_000);
    assert_eq!(bucket.json["tokenBucket"]["fillInterval"], "0.100s");

    let bounds = ConcurrencyBounds { pinned: true }.filter(&AIM);
    let proto = AdaptiveConcurrency::decode(bounds.proto.as_slice()).unwrap();
    let Some(ConcurrencyControllerConfig::GradientControllerConfig(proto)) =
        proto.concurrency_controller_config
    else {
        panic!("no gradient controller");
    };
    let (limit, time) = (
        proto.concurrency_limit_params.unwrap(),
        proto.min_rtt_calc_params.unwrap(),
    );
    let json = &bounds.json["gradientControllerConfig"];
    let value = |json: &Value| u32::try_from(json.as_u64().unwrap()).unwrap();
    assert_eq!(
        limit.max_concurrency_limit.unwrap().value,
        value(&json["concurrencyLimitParams"]["maxConcurrencyLimit"])
    );
    assert_eq!(
        time.min_concurrency.unwrap().value,
        value(&json["minRttCalcParams"]["minConcurrency"])
    );
    assert_eq!(time.fixed_value.unwrap().nanos, 300_000_000);
    assert_eq!(json["minRttCalcParams"]["fixedValue"], "0.300s");
}

#[test]
fn bounds_hold_what_the_pod_works_on_and_change_seldom() {
    let bounds = ConcurrencyBounds { pinned: true };
    let json = &bounds.filter(&AIM).json["gradientControllerConfig"];
    // 80 requests per second of 100 ms are 8 at once; as many wait for 100 ms.
    assert_eq!(json["minRttCalcParams"]["minConcurrency"], 16);
    assert_eq!(json["concurrencyLimitParams"]["maxConcurrencyLimit"], 40);
    let with = |rate: f64, service_s: Option<f64>| Aim {
        per_pod: Some(rate),
        service_s,
        ..AIM
    };
    assert!(!bounds.is_worth(&AIM, &with(90.0, Some(0.095))));
    assert!(bounds.is_worth(&AIM, &with(40.0, Some(0.1))));
    assert!(bounds.is_worth(&with(80.0, None), &AIM));
    assert!(!bounds.is_worth(&with(80.0, None), &with(10.0, None)));
    assert!(EcdsBucket.is_worth(&AIM, &with(83.0, None)));
    assert!(!EnvoyFilterBucket.is_worth(&AIM, &with(83.0, None)));
}

#[test]
fn without_what_it_must_know_an_actuator_lets_everything_pass() {
    let none = Aim {
        per_pod: None,
        ..AIM
    };
    assert_eq!(
        EcdsBucket.filter(&none).json,
        json!({"statPrefix": "http_local_rate_limiter"})
    );
    let unknown = Aim {
        service_s: None,
        ..AIM
    };
    for aim in [none, unknown] {
        let json = ConcurrencyBounds { pinned: true }.filter(&aim).json;
        assert_eq!(json["enabled"]["defaultValue"], false);
    }
}

#[test]
fn what_a_proxy_cannot_do_gives_way_and_is_said() {
    let old = Facilities {
        envoy: Some((1, 24)),
        ..ALL
    };
    let bare = Facilities::default();
    let chosen = |facilities: &Facilities, wanted| choose(facilities, wanted).kind;
    assert_eq!(chosen(&ALL, None), Kind::EcdsBucket);
    assert_eq!(chosen(&bare, None), Kind::EnvoyFilterBucket);
    let wanted = Some(Kind::ConcurrencyBounds);
    assert_eq!(choose(&ALL, wanted).why, "asked for");
    assert!(choose(&old, wanted).why.contains("cannot pin"));
    assert_eq!(chosen(&bare, wanted), Kind::EnvoyFilterBucket);
    assert!(
        choose(&bare, wanted)
            .why
            .contains("no filter adaptive_concurrency")
    );
    assert!(choose(&bare, Some(Kind::EcdsBucket)).why.contains("istiod"));
    assert!(
        !actuator(Kind::ConcurrencyBounds, &old)
            .filter(&AIM)
            .json
            .to_string()
            .contains("fixedValue")
    );
}
