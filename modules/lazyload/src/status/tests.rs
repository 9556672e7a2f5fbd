//! Conditions of fences.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::*;

fn facts<'a>(
    programmed_state: &'a ProgrammedState,
    fallback: &'a FallbackState,
    dependencies: &'a [Dependency],
    size: &'a ScopeSize,
) -> Facts<'a> {
    static NONE: BTreeMap<String, Domain> = BTreeMap::new();
    static NOTHING: BTreeMap<String, String> = BTreeMap::new();
    Facts {
        generation: 3,
        mode: Mode::Enforce,
        refusals: &[],
        warnings: &[],
        programmed_state,
        fallback,
        first_calls: &[],
        not_carried: &[],
        domains: &NONE,
        metric_status: &NOTHING,
        dependencies,
        size,
        entries: 2,
        room: StatusRoom::default(),
        auto: None,
        inherited: "",
    }
}

fn condition<'a>(status: &'a FenceStatus, kind: &str) -> &'a Condition {
    status.conditions.iter().find(|c| c.type_ == kind).unwrap()
}

#[test]
fn fault_l8_a_fence_says_whether_it_is_ready() {
    let size = ScopeSize::default();
    let not_ready = FallbackState::NotReady("no pods".into());
    let refused = ProgrammedState::Refused;
    for (state, fallback, wanted) in [
        (
            &ProgrammedState::Written,
            &FallbackState::Ready,
            ("True", "Ready"),
        ),
        (&ProgrammedState::Written, &not_ready, ("False", "NotReady")),
        (
            &ProgrammedState::Observing,
            &not_ready,
            ("True", "Observing"),
        ),
        (&refused, &FallbackState::Ready, ("False", "Refused")),
    ] {
        let made = status(
            &facts(state, fallback, &[], &size),
            &FenceStatus::default(),
            Timestamp::UNIX_EPOCH,
        );
        let ready = condition(&made, "Ready");
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), wanted);
    }
}

#[test]
fn fault_t15_a_fence_names_hosts_that_refuse_first_calls() {
    let size = ScopeSize::default();
    let hosts = ["a.shop.svc by AuthorizationPolicy shop/a".to_owned()];
    let not_ready = FallbackState::NotReady("no pods".into());
    for (state, fallback, told) in [
        (ProgrammedState::Written, &FallbackState::Ready, true),
        (ProgrammedState::Written, &not_ready, true),
        (ProgrammedState::Written, &FallbackState::Unused, false),
        (ProgrammedState::Observing, &FallbackState::Ready, false),
    ] {
        let mut facts = facts(&state, fallback, &[], &size);
        facts.first_calls = &hosts;
        let made = status(&facts, &FenceStatus::default(), Timestamp::UNIX_EPOCH);
        let found = made
            .conditions
            .iter()
            .find(|c| c.type_ == "FirstCallsRefused");
        assert_eq!(found.is_some(), told, "{state:?} {fallback:?}");
        if let Some(found) = found {
            assert!(found.message.contains(&hosts[0]), "{}", found.message);
        }
    }
}

#[test]
fn a_later_call_alone_is_no_news() {
    let size = ScopeSize {
        services: 1,
        mesh_services: 100,
        bytes: 1000,
        mesh_bytes: 100_000,
    };
    let seen = |at: &str| {
        vec![Dependency {
            host: "a".into(),
            last_seen: at.into(),
            ..Dependency::default()
        }]
    };
    let first = status(
        &facts(
            &ProgrammedState::Written,
            &FallbackState::Ready,
            &seen("1"),
            &size,
        ),
        &FenceStatus::default(),
        Timestamp::UNIX_EPOCH,
    );
    let grown = ScopeSize {
        mesh_services: 105,
        ..size.clone()
    };
    let later = status(
        &facts(
            &ProgrammedState::Written,
            &FallbackState::Ready,
            &seen("2"),
            &grown,
        ),
        &first,
        Timestamp::MAX,
    );
    assert_eq!(later, first);
    let doubled = ScopeSize {
        mesh_services: 200,
        ..size
    };
    let status_update = status(
        &facts(
            &ProgrammedState::Written,
            &FallbackState::Ready,
            &seen("2"),
            &doubled,
        ),
        &first,
        Timestamp::MAX,
    );
    assert_eq!(status_update.scope.unwrap().mesh_services, 200);
    assert_eq!(
        status_update.dependencies[0].last_seen, "2",
        "what is written is up to date"
    );
}

#[test]
fn each_standing_has_its_reason_and_keeps_its_time() {
    let size = ScopeSize::default();
    let other = FenceKey {
        namespace: "a".into(),
        name: "b".into(),
    };
    for (programmed_state, wanted, reason) in [
        (ProgrammedState::Written, "True", "Programmed"),
        (ProgrammedState::Excluding(0), "True", "Programmed"),
        (ProgrammedState::Open, "False", "Open"),
        (ProgrammedState::MergedInto(other), "True", "Merged"),
        (ProgrammedState::Observing, "False", "Observing"),
        (
            ProgrammedState::UserSidecar("a/b".into()),
            "False",
            "UserSidecar",
        ),
        (
            ProgrammedState::WaitsForFallback,
            "False",
            "WaitsForFallback",
        ),
        (ProgrammedState::Refused, "False", "Refused"),
        (
            ProgrammedState::Unsupported("x".into()),
            "False",
            "Unsupported",
        ),
        (
            ProgrammedState::WriteFailed("Forbidden", "x".into()),
            "False",
            "Forbidden",
        ),
    ] {
        let fallback = FallbackState::NotReady("no pods".into());
        let facts = facts(&programmed_state, &fallback, &[], &size);
        let first = status(&facts, &FenceStatus::default(), Timestamp::UNIX_EPOCH);
        let programmed = condition(&first, "Programmed");
        assert_eq!(
            (programmed.status.as_str(), programmed.reason.as_str()),
            (wanted, reason)
        );
        assert_eq!(condition(&first, "FallbackReady").message, "no pods");
        let again = status(&facts, &first, Timestamp::MAX);
        assert_eq!(again, first, "nothing has changed, so no time has");
    }
}

#[test]
fn refusals_come_before_remarks() {
    let (size, refusals) = (
        ScopeSize::default(),
        [Problem::MissingService {
            namespace: "shop".into(),
            name: "web".into(),
        }],
    );
    let warnings: Vec<String> = (0..7).map(|i| format!("w{i}")).collect();
    let mut facts = facts(
        &ProgrammedState::Written,
        &FallbackState::Unused,
        &[],
        &size,
    );
    facts.warnings = &warnings;
    let remarked = status(&facts, &FenceStatus::default(), Timestamp::UNIX_EPOCH);
    assert!(
        condition(&remarked, "Accepted")
            .message
            .ends_with("and 2 more")
    );
    facts.refusals = &refusals;
    let refused = status(&facts, &FenceStatus::default(), Timestamp::UNIX_EPOCH);
    assert_eq!(condition(&refused, "Accepted").reason, "ServiceNotFound");
    let failed = ProgrammedState::WriteFailed("Invalid", "é".repeat(5000));
    facts.programmed_state = &failed;
    let failed = status(&facts, &FenceStatus::default(), Timestamp::UNIX_EPOCH);
    let message = &condition(&failed, "Programmed").message;
    assert_eq!(*message, "é".repeat(MAX_MESSAGE));
}
