//! Generated objects follow pods, are repaired, and leave nothing behind; a restart writes nothing.

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use trimtab_crds::istio::EnvoyFilter;
use trimtab_crds::limiter::first_form;
use trimtab_embedded::Filter;
use trimtab_kit::engine::Engine as _;
use trimtab_lab::process::wait_until;

use crate::support::{BOUND, Dial, bucket, filters, mesh, operator, pod, status, status_where};

fn engine(
    operator: &trimtab::operator::Operator,
) -> std::sync::Arc<trimtab_limiter::engine::Engine> {
    operator.get().unwrap()
}

#[tokio::test]
async fn the_example_follows_metric_and_pods() {
    let (embedded, dial) = (mesh(true), Dial::default());
    dial.set(0.5);
    let operator = operator(&embedded, &dial, "limiter: {refresh: 100ms}").await;
    status_where(&embedded, "idle", |s| s.state.as_deref() == Some("Idle")).await;
    assert!(filters(&embedded).await.is_empty());
    dial.set(0.85);
    bucket(&embedded, Some(15)).await;
    embedded.load(pod("a-2", true)).unwrap();
    bucket(&embedded, Some(10)).await;
    let seen = status_where(&embedded, "ten each", |s| {
        s.limit.as_deref() == Some("10/1s per pod")
    })
    .await;
    assert!(seen.reason.unwrap().contains("pod=3"));
    // A pod that is not Ready does not count.
    embedded.load(pod("a-2", false)).unwrap();
    bucket(&embedded, Some(15)).await;
    dial.set(0.5);
    bucket(&embedded, None).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn hand_edits_and_deletions_are_repaired() {
    let (embedded, dial) = (mesh(true), Dial::default());
    dial.set(0.9);
    let operator = operator(&embedded, &dial, "limiter: {refresh: 100ms}").await;
    bucket(&embedded, Some(15)).await;
    let api: Api<EnvoyFilter> = Api::namespaced(embedded.client(), "default");
    let edit = json!({"spec": {"configPatches": []}});
    api.patch(
        "a.default.ratelimit",
        &PatchParams::default(),
        &Patch::Merge(&edit),
    )
    .await
    .unwrap();
    bucket(&embedded, Some(15)).await;
    api.delete("a.default.ratelimit", &DeleteParams::default())
        .await
        .unwrap();
    bucket(&embedded, Some(15)).await;
    let stripped = json!({"metadata": {"labels": null}});
    api.patch(
        "a.default.ratelimit",
        &PatchParams::default(),
        &Patch::Merge(&stripped),
    )
    .await
    .unwrap();
    trimtab_lab::process::wait_until("labels are back", crate::support::BOUND, || async {
        let labels = api
            .get("a.default.ratelimit")
            .await
            .map_err(|e| e.to_string())?
            .metadata
            .labels
            .unwrap_or_default();
        if labels.contains_key("trimtab.io/owner-name") {
            Ok(())
        } else {
            Err(format!("{labels:?}"))
        }
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fault_l14_an_object_of_somebody_else_is_left_alone() {
    let (embedded, dial) = (mesh(true), Dial::default());
    dial.set(0.9);
    let theirs = json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": {"name": "a.default.ratelimit", "namespace": "default", "labels": {"team": "shop"}},
        "spec": {"workloadSelector": {"labels": {"app": "other"}}, "configPatches": []}});
    embedded.load(theirs).unwrap();
    let operator = operator(&embedded, &dial, "limiter: {refresh: 100ms}").await;
    let seen = status_where(&embedded, "a conflict", |s| {
        let mut conditions = s.conditions.iter();
        conditions.any(|c| c.type_ == "Applied" && c.reason == "Conflict")
    })
    .await;
    let applied = seen
        .conditions
        .iter()
        .find(|c| c.type_ == "Applied")
        .unwrap();
    assert_eq!(applied.status, "False");
    for word in [
        "EnvoyFilter default/a.default.ratelimit",
        "delete or rename it",
    ] {
        assert!(applied.message.contains(word), "{}", applied.message);
    }
    let api: Api<EnvoyFilter> = Api::namespaced(embedded.client(), "default");
    let left = api.get("a.default.ratelimit").await.unwrap();
    assert_eq!(left.spec.config_patches.len(), 0, "as it was");
    assert!(
        !left
            .metadata
            .labels
            .unwrap()
            .contains_key("trimtab.io/owner-name")
    );
    api.delete("a.default.ratelimit", &DeleteParams::default())
        .await
        .unwrap();
    bucket(&embedded, Some(15)).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn deletion_leaves_nothing_behind() {
    let (embedded, dial) = (mesh(true), Dial::default());
    dial.set(0.9);
    let operator = operator(
        &embedded,
        &dial,
        "limiter: {refresh: 100ms, delivery: ECDS}",
    )
    .await;
    trimtab_lab::process::wait_until("outputs", crate::support::BOUND, || async {
        let names = operator.cache.names(trimtab_xds::ECDS);
        if names.len() == 1 && filters(&embedded).await.len() == 1 {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        }
    })
    .await
    .unwrap();
    let api: Api<first_form::SmartLimiter> = Api::namespaced(embedded.client(), "default");
    api.delete("a", &DeleteParams::default()).await.unwrap();
    trimtab_lab::process::wait_until("nothing left", crate::support::BOUND, || async {
        let left = (
            filters(&embedded).await.len(),
            operator.cache.names(trimtab_xds::ECDS).len(),
            engine(&operator).views().len(),
        );
        if left == (0, 0, 0) {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_with_nothing_changed_writes_nothing() {
    let (embedded, dial) = (mesh(true), Dial::default());
    dial.set(0.9);
    let first = operator(&embedded, &dial, "limiter: {refresh: 100ms}").await;
    bucket(&embedded, Some(15)).await;
    status_where(&embedded, "limiting", |s| {
        s.state.as_deref() == Some("Limiting")
    })
    .await;
    first.stop().await.unwrap();
    let before = embedded.write_count();
    let revision = embedded.revision();
    let second = operator(&embedded, &dial, "limiter: {refresh: 100ms}").await;
    trimtab_lab::process::wait_until(
        "the second run has sampled",
        crate::support::BOUND,
        || async {
            let engine = engine(&second);
            let first = engine.views().into_iter().next().ok_or("no view")?;
            let view = engine
                .view(&first.namespace, &first.name)
                .ok_or("no view")?;
            if view.history.len() > 1 && engine.queue().depth() == 0 {
                Ok(())
            } else {
                Err(format!("{} points", view.history.len()))
            }
        },
    )
    .await
    .unwrap();
    assert_eq!(embedded.write_count(), before, "a restart wrote objects");
    assert_eq!(embedded.revision(), revision);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn moving_metrics_cause_no_loop_of_writes() {
    let (embedded, dial) = (mesh(true), Dial::default());
    dial.set(0.9);
    let operator = operator(&embedded, &dial, "limiter: {refresh: 100ms}").await;
    status_where(&embedded, "limiting", |s| {
        s.state.as_deref() == Some("Limiting")
    })
    .await;
    let before = embedded.write_count();
    for i in 0..20 {
        let value = 0.9 + f64::from(i) / 100.0;
        dial.set(value);
        trimtab_lab::process::wait_until("the sample is used", crate::support::BOUND, || async {
            let view = engine(&operator)
                .views()
                .into_iter()
                .next()
                .ok_or("no view")?;
            let seen = view.metrics.get("_base.cpu").and_then(|r| r.value);
            if seen == Some(value) {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await
        .unwrap();
    }
    let writes = embedded.write_count() - before;
    assert!(
        writes <= 1,
        "{writes} writes for 20 values that change no decision"
    );
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn an_outage_of_the_api_server_is_survived() {
    let (embedded, dial) = (mesh(true), Dial::default());
    dial.set(0.5);
    let operator = operator(&embedded, &dial, "limiter: {refresh: 100ms}").await;
    status_where(&embedded, "idle", |s| s.state.as_deref() == Some("Idle")).await;
    embedded
        .faults()
        .fail_next(Filter::any().verb("patch"), 6, 500);
    embedded.faults().drop_watches(Filter::any());
    dial.set(0.9);
    bucket(&embedded, Some(15)).await;
    status_where(&embedded, "limiting and applied", |s| {
        s.state.as_deref() == Some("Limiting")
            && s.conditions
                .iter()
                .any(|c| c.type_ == "Applied" && c.status == "True")
    })
    .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn an_invalid_edit_and_a_lost_service_take_nothing_away() {
    let (embedded, dial) = (mesh(true), Dial::default());
    dial.set(0.9);
    let operator = operator(&embedded, &dial, "limiter: {refresh: 100ms}").await;
    bucket(&embedded, Some(15)).await;
    let services: Api<k8s_openapi::api::core::v1::Service> =
        Api::namespaced(embedded.client(), "default");
    services
        .delete("a", &DeleteParams::default())
        .await
        .unwrap();
    let seen = status_where(&embedded, "unresolved", |s| {
        s.conditions
            .iter()
            .any(|c| c.type_ == "Resolved" && c.status == "False")
    })
    .await;
    let resolved = seen
        .conditions
        .iter()
        .find(|c| c.type_ == "Resolved")
        .unwrap();
    assert_eq!(resolved.reason, "ServiceNotFound");
    assert!(
        resolved.message.contains("spec.workloadSelector"),
        "{}",
        resolved.message
    );
    assert_eq!(
        filters(&embedded).await.len(),
        1,
        "the limit in force stays"
    );
    assert!(status(&embedded).await.observed_generation.is_some());
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn fields_that_a_hand_edit_adds_are_taken_away() {
    let (embedded, dial) = (mesh(true), Dial::default());
    dial.set(0.9);
    let operator = operator(&embedded, &dial, "limiter: {refresh: 100ms}").await;
    bucket(&embedded, Some(15)).await;
    let api: Api<EnvoyFilter> = Api::namespaced(embedded.client(), "default");
    let edit = json!({"spec": {"priority": 7, "workloadSelector": {"labels": {"no": "pod"}}, "targetRefs": [{"name": "x"}]}});
    let params = PatchParams {
        field_manager: Some("somebody".to_owned()),
        ..PatchParams::default()
    };
    api.patch("a.default.ratelimit", &params, &Patch::Merge(&edit))
        .await
        .unwrap();
    wait_until("the added fields are gone", BOUND, || async {
        let spec = api
            .get("a.default.ratelimit")
            .await
            .map_err(|e| e.to_string())?
            .spec;
        let labels = spec.workload_selector.clone().unwrap_or_default().labels;
        if spec.priority == Some(10) && spec.others.is_empty() && !labels.contains_key("no") {
            Ok(())
        } else {
            Err(format!("{:?} {:?} {labels:?}", spec.priority, spec.others))
        }
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_deletion_in_a_gap_of_the_watch_is_repaired() {
    let (embedded, dial) = (mesh(true), Dial::default());
    dial.set(0.9);
    let operator = operator(&embedded, &dial, "limiter: {refresh: 100ms}").await;
    bucket(&embedded, Some(15)).await;
    embedded
        .faults()
        .drop_watches(Filter::any().resource("envoyfilters"));
    let api: Api<EnvoyFilter> = Api::namespaced(embedded.client(), "default");
    api.delete("a.default.ratelimit", &DeleteParams::default())
        .await
        .unwrap();
    embedded.expire_history("envoyfilters");
    bucket(&embedded, Some(15)).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_write_that_is_refused_shows_and_is_tried_again() {
    let (embedded, dial) = (mesh(true), Dial::default());
    dial.set(0.9);
    embedded
        .faults()
        .fail_next(Filter::any().verb("patch").resource("envoyfilters"), 3, 403);
    let operator = operator(&embedded, &dial, "limiter: {refresh: 100ms}").await;
    let seen = status_where(&embedded, "Applied is False", |s| {
        s.conditions
            .iter()
            .any(|c| c.type_ == "Applied" && c.status == "False")
    })
    .await;
    let applied = seen.conditions.iter().find(|c| c.type_ == "Applied");
    assert_eq!(applied.unwrap().reason, "Forbidden");
    bucket(&embedded, Some(15)).await;
    status_where(&embedded, "Applied is True again", |s| {
        s.conditions
            .iter()
            .any(|c| c.type_ == "Applied" && c.status == "True")
    })
    .await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_mistake_in_an_edit_keeps_the_limit_that_is_in_force() {
    let (embedded, dial) = (mesh(true), Dial::default());
    dial.set(0.9);
    let operator = operator(&embedded, &dial, "limiter: {refresh: 100ms}").await;
    bucket(&embedded, Some(15)).await;
    let api: Api<first_form::SmartLimiter> = Api::namespaced(embedded.client(), "default");
    for (condition, reason) in [
        ("{cpuu}>0.8", "UnknownMetric"),
        ("{cpu}>(", "InvalidExpression"),
    ] {
        let edit = json!({"spec": {"descriptors": [{"condition": condition, "action": {"quota": "30/{pod}", "fill_interval": {"seconds": 1}}}]}});
        api.patch("a", &PatchParams::default(), &Patch::Merge(&edit))
            .await
            .unwrap();
        let seen = status_where(&embedded, reason, |s| {
            s.conditions
                .iter()
                .any(|c| c.type_ == "Accepted" && c.reason == reason)
        })
        .await;
        assert_eq!(seen.limit.as_deref(), Some("15/1s per pod"), "{condition}");
        bucket(&embedded, Some(15)).await;
    }
    let edit = json!({"spec": {"descriptors": [{"condition": "{cpu}>0.8", "action": {"quota": "60/{pod}", "fill_interval": {"seconds": 1}}}]}});
    api.patch("a", &PatchParams::default(), &Patch::Merge(&edit))
        .await
        .unwrap();
    bucket(&embedded, Some(30)).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_long_name_is_cleaned_up_too() {
    let (embedded, dial) = (mesh(false), Dial::default());
    dial.set(0.9);
    let operator = operator(&embedded, &dial, "limiter: {refresh: 100ms}").await;
    let name = "gateway-".to_owned() + &"x".repeat(70);
    embedded
        .load(json!({"apiVersion": "microservice.slime.io/v1alpha2", "kind": "SmartLimiter", "metadata": {"name": name, "namespace": "default"},
            "spec": {"workloadSelector": {"app": "a"}, "sets": {"_base": {"descriptor": [
                {"condition": "{cpu}>0.8", "action": {"quota": "30", "fill_interval": {"seconds": 1}}}]}}}}))
        .unwrap();
    bucket(&embedded, Some(30)).await;
    dial.set(0.1);
    bucket(&embedded, None).await;
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_fight_over_an_object_slows_down() {
    let (embedded, dial) = (mesh(true), Dial::default());
    dial.set(0.9);
    let operator = operator(&embedded, &dial, "limiter: {refresh: 100ms}").await;
    bucket(&embedded, Some(15)).await;
    let api: Api<EnvoyFilter> = Api::namespaced(embedded.client(), "default");
    let edit = json!({"spec": {"configPatches": []}});
    let before = embedded.writes("envoyfilters", "apply");
    // Somebody reverts every repair at once, for as long as the quick repairs last and a little more.
    let started = tokio::time::Instant::now();
    let mut reverts = 0;
    while started.elapsed() < std::time::Duration::from_secs(4) {
        let filter = api.get("a.default.ratelimit").await.unwrap();
        if !filter.spec.config_patches.is_empty() {
            api.patch(
                "a.default.ratelimit",
                &PatchParams::default(),
                &Patch::Merge(&edit),
            )
            .await
            .unwrap();
            reverts += 1;
        }
        tokio::task::yield_now().await;
    }
    let repairs = embedded.writes("envoyfilters", "apply") - before;
    assert!(
        (3..=9).contains(&repairs),
        "{repairs} repairs of {reverts} reverts in 4 s"
    );
    bucket(&embedded, Some(15)).await;
    operator.stop().await.unwrap();
}
