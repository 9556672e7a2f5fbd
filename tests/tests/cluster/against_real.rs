//! The conformance cases of the embedded API against a real kube-apiserver: what holds in both is what the embedded API
//! may promise. The documentation of the crate lists what is left.

use trimtab_cluster::Cluster;

macro_rules! cases {
    ($($module:ident: $($case:ident),+;)+) => {
        $(mod $module {
            use super::client;

            $(#[tokio::test]
            async fn $case() {
                crate::conformance::$module::$case(client().await).await;
            })+
        })+
    };
}

async fn client() -> kube::Client {
    Cluster::shared().await.unwrap().client().await.unwrap()
}

cases! {
    crud: create_get_update_delete, no_op_writes_keep_the_version, patches, strategic_merge_of_keyed_lists,
        names_and_namespaces_are_checked, selectors_and_pages, status_is_a_door_of_its_own,
        pods_have_a_status_and_fields, dry_runs_change_nothing, deletes_have_preconditions_and_collections;
    apply: creates_and_is_idempotent, conflicts_name_manager_and_field, an_update_takes_ownership,
        fields_not_sent_any_more_go, two_managers_share_keyed_lists, status_is_applied_apart,
        managed_fields_are_not_accepted;
    schema: refusals_name_the_fields, defaults_and_pruning, nulls_of_fields_that_are_not_nullable_go,
        strict_writes_name_unknown_fields, transition_rules_see_the_old_value,
        defaults_that_the_schema_refuses_are_refused, fault_m17_what_an_established_crd_keeps_does_not_change;
    collect: finalizers_hold_an_object, dependents_go_with_their_last_owner, orphans_stay,
        an_object_of_a_dead_owner_is_collected, a_namespace_takes_its_content_along;
    watch: from_a_version, objects_enter_and_leave_a_selection, without_a_version_starts_with_what_is_there,
        streaming_lists_end_with_a_bookmark, a_watch_ends_at_its_time_limit;
}

/// The embedded API is as strict as the real one: the same fields of every kind of ours are named.
#[tokio::test]
async fn fault_m10_unknown_fields_are_those_of_a_real_api_server() {
    let client = client().await;
    let embedded = trimtab::standalone::embedded().unwrap().client();
    for (_, crd) in trimtab_crds::manifests::trimtab_crds() {
        let (object, paths) = trimtab_tests::fields::with_unknown_fields(&crd);
        let (real, ours) = (
            named(&client, &object).await,
            named(&embedded, &object).await,
        );
        assert_eq!(real, ours, "{}", crd.spec.names.kind);
        assert_eq!(real, paths, "{}", crd.spec.names.kind);
    }
}

/// The unknown fields that the server names when the object is made, sorted.
async fn named(client: &kube::Client, object: &serde_json::Value) -> Vec<String> {
    let of = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(|v| v.as_str())
            .unwrap_or_default()
    };
    let (group, version) = of("/apiVersion").split_once('/').unwrap();
    let plural = match of("/kind") {
        "DubboAuthorizationPolicy" => "dubboauthorizationpolicies".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    let namespace = match of("/metadata/namespace") {
        "" => String::new(),
        namespace => format!("/namespaces/{namespace}"),
    };
    let url =
        format!("/apis/{group}/{version}{namespace}/{plural}?dryRun=All&fieldValidation=Strict");
    let request = hyper::Request::post(url)
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .unwrap();
    let message = match client.request::<serde_json::Value>(request).await {
        Err(kube::Error::Api(status)) => status.message.clone(),
        other => panic!("a refusal was expected, not {other:?}"),
    };
    let parts = message.split("unknown field \"").skip(1);
    let mut paths: Vec<String> = parts
        .filter_map(|part| part.split('"').next())
        .map(str::to_owned)
        .collect();
    paths.sort();
    paths
}

/// Exports of objects that Slime or an older Trimtab wrote, by the real kubectl.
#[tokio::test]
async fn fault_m16_kubectl_takes_objects_with_the_status_of_slime() {
    let cluster = Cluster::shared().await.unwrap();
    let client = cluster.client().await.unwrap();
    let namespace = crate::conformance::namespace(&client).await;
    let spec = "sets: {_base: {descriptor: [{condition: 'true', action: {quota: '6', fill_interval: {seconds: 30}}}]}}";
    let first =
        "descriptors: [{condition: 'true', action: {quota: '6', fill_interval: {seconds: 30}}}]";
    let fence = "enable: true";
    let action = |interval: &str| {
        format!(
            "ratelimitStatus: {{_base: {{descriptor: [{{condition: x, action: {{quota: '6', {interval}, strategy: single, headers_to_add: []}}, match: [{{name: a, exact_match: b}}], target: {{port: 8085}}, custom_key: k, customValue: v}}]}}}}"
        )
    };
    let mut objects = Vec::new();
    for (i, status) in [
        action("fill_interval: {seconds: 30}"),
        action("fillInterval: {seconds: '30'}"),
        "metricStatus: {_base.pod: '2'}, serviceStatus: {selector: {app: a}, listener: [{port: 1}]}, endPointStatus: {cpu: '1'}".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        for (version, spec) in [
            ("microservice.slime.io/v1alpha2", spec),
            ("microservice.netease.com/v1alpha1", first),
        ] {
            let kind = if spec == first { "first" } else { "second" };
            objects.push(format!(
                "{{apiVersion: {version}, kind: SmartLimiter, metadata: {{name: {kind}-{i}, namespace: {namespace}}}, spec: {{{spec}}}, status: {{{status}}}}}"
            ));
        }
    }
    for (i, status) in [
        "domains: {a.example: {hosts: [a.example], status: ACTIVE}}, visitor: {a.example: true}",
        "domains: {a.example: {hosts: [a.example], status: 2}}, metricStatus: {'{destination_service=\"a.example\"}': '3'}, another: 1",
    ]
    .iter()
    .enumerate()
    {
        objects.push(format!(
            "{{apiVersion: microservice.slime.io/v1alpha1, kind: ServiceFence, metadata: {{name: fence-{i}, namespace: {namespace}}}, spec: {{{fence}}}, status: {{{status}}}}}"
        ));
    }
    let embedded = trimtab::standalone::embedded().unwrap();
    for object in &objects {
        cluster
            .kubectl(&["apply", "-f", "-"], object)
            .await
            .expect(object);
        let read = trimtab::manifests::parse(std::path::Path::new("in"), object).unwrap();
        trimtab::standalone::load(&embedded, &read[0]).expect(object);
    }
}
