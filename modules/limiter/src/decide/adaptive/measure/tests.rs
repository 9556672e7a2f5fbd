use super::*;

fn row(pod: &str, labels: &[(&str, &str)], value: f64) -> Row {
    let labels = labels.iter();
    Row {
        pod: pod.into(),
        labels: labels.map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        value,
    }
}

fn requests(pod: &str, code: &str, flags: &str, value: f64) -> Row {
    row(
        pod,
        &[("response_code", code), ("response_flags", flags)],
        value,
    )
}

fn within(pod: &str, le: &str, value: f64) -> Row {
    row(pod, &[("le", le)], value)
}

fn measured(list: Vec<(&str, Vec<Row>)>) -> Measured {
    let list = list.into_iter();
    list.map(|(name, rows)| (name.to_owned(), rows.into()))
        .collect()
}

fn seen(measured: &Measured, flags_tell: bool, tiers: &[(&str, i64)]) -> Seen {
    let mut a = PodFacts::new("ns", "a", true);
    a.cpu_limit = Some(2.0);
    let pods = [
        a,
        PodFacts::new("ns", "b", true),
        PodFacts::new("ns", "c", false),
    ];
    let tiers = tiers.iter().map(|(i, t)| ((*i).to_owned(), *t)).collect();
    let source = Source {
        measured,
        pods: &pods,
        statuses: &[429].into(),
        flags_tell,
        bound: 500.0,
        tiers: &tiers,
    };
    tick(&source, 7.0)
}

#[test]
fn refusals_errors_and_clients_that_left_are_told_apart() {
    let measured = measured(vec![
        (
            REQUESTS,
            vec![
                requests("a", "200", "-", 60.0),
                requests("a", "429", "RL", 30.0),
                requests("a", "429", "-", 4.0),
                requests("a", "0", "DC", 5.0),
                requests("a", "504", "UT", 2.0),
                requests("a", "503", "UF,URX", 1.0),
                requests("b", "200", "-", 10.0),
            ],
        ),
        (
            WITHIN,
            vec![
                within("a", "500.0", 50.0),
                within("a", "1000", 60.0),
                within("a", "+Inf", 64.0),
                within("b", "500", 10.0),
                within("b", "+Inf", 10.0),
            ],
        ),
        (TIME, vec![row("a", &[], 6400.0), row("b", &[], 1000.0)]),
        (CORES, vec![row("a", &[], 1.0), row("b", &[], 1.0)]),
    ]);
    let seen = seen(&measured, true, &[]);
    let a = &seen.tick.pods["a"];
    assert_eq!(
        (a.offered, a.accepted, a.errors),
        (Some(102.0), Some(72.0), Some(1.0))
    );
    // Answers of the application with our status are answers.
    assert_eq!((a.ok, a.late), (Some(50.0), Some(14.0 + 7.0)));
    assert_eq!(
        (a.cpu, seen.tick.pods["b"].cpu),
        (Some(0.5), None),
        "no limit, no share"
    );
    assert_eq!(seen.tick.pods["c"].offered, None, "no series");
    assert_eq!((seen.offered, seen.shed), (Some(112.0), Some(30.0)));
    let all = &seen.tick.apis[""];
    assert_eq!((all.ok, all.mean_s), (Some(60.0), Some(0.1)));
}

#[test]
fn what_is_missing_is_not_nothing() {
    let only = measured(vec![(REQUESTS, vec![requests("a", "200", "-", 60.0)])]);
    let without = seen(&only, true, &[]);
    let a = &without.tick.pods["a"];
    assert_eq!((a.offered, a.ok, a.late), (Some(60.0), None, None));
    assert!(without.notes[0].contains("window"), "{:?}", without.notes);
    let nothing = seen(&Measured::new(), true, &[]);
    assert_eq!(
        (nothing.offered, nothing.tick.apis[""].offered),
        (None, None)
    );
    let refused = measured(vec![(REQUESTS, vec![requests("a", "429", "RL", 60.0)])]);
    let refused = seen(&refused, true, &[]);
    assert_eq!(refused.tick.pods["a"].ok, Some(0.0), "all was refused");
}

#[test]
fn callers_know_our_refusals_by_their_status() {
    let measured = measured(vec![
        (
            REQUESTS,
            vec![
                requests("", "200", "-", 60.0),
                requests("", "429", "-", 20.0),
            ],
        ),
        (
            WITHIN,
            vec![within("", "500", 30.0), within("", "+Inf", 30.0)],
        ),
    ]);
    let seen = seen(&measured, false, &[]);
    let all = &seen.tick.apis[""];
    assert_eq!(
        (all.offered, all.accepted, all.ok, all.late),
        (Some(80.0), Some(60.0), Some(60.0), Some(0.0))
    );
    assert_eq!(seen.tick.pods["a"].offered, None);
}

#[test]
fn own_queries_win_and_tiers_share_what_is_offered() {
    let measured = measured(vec![
        (REQUESTS, vec![requests("a", "200", "-", 60.0)]),
        ("adaptive.offered", vec![row("", &[], 100.0)]),
        ("adaptive.ok", vec![row("", &[], 50.0)]),
        ("adaptive.late", vec![row("", &[], 10.0)]),
        ("adaptive.inflight", vec![row("", &[], 8.0)]),
        ("adaptive.tier1.offered", vec![row("", &[], 25.0)]),
    ]);
    let seen = seen(&measured, true, &[("1", 3)]);
    assert_eq!(
        seen.tick.pods["a"].offered, None,
        "of the service as a whole"
    );
    assert_eq!(seen.tick.pods["a"].inflight, Some(4.0));
    let (low, rest) = (&seen.tick.apis["1"], &seen.tick.apis[""]);
    assert_eq!((low.offered, rest.offered), (Some(25.0), Some(75.0)));
    assert_eq!(
        (low.tier.clone(), rest.tier.clone()),
        (Some(3.into()), Some(4.into()))
    );
    assert_eq!(low.ok, Some(12.5));
}
