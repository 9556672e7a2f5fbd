//! The conformance cases against the embedded API.

macro_rules! cases {
    ($($module:ident: $($case:ident),+;)+) => {
        $(mod $module {
            $(#[tokio::test]
            async fn $case() {
                crate::conformance::$module::$case(trimtab_embedded::Embedded::new().client()).await;
            })+
        })+
    };
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
