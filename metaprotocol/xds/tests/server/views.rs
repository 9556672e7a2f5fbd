//! What each client sees, and what the server knows of it.

use trimtab_xds::{Audience, ECDS, LDS, RDS, Scope, Stats};

use crate::client::{
    ADS, ADS_DELTA, Delta, Sotw, ack, ack_delta, ask, ask_delta, changes, listed, nack, node,
    resource, scoped, strings,
};
use crate::common::{Server, wait_until};

fn group(name: &str) -> Scope {
    Scope::only([Audience::Group(name.into())])
}

#[tokio::test]
async fn two_groups_see_different_listeners_of_one_name_and_only_those_concerned_are_told() {
    let server = Server::start().await;
    let set = vec![
        scoped("in", "red", group("red")),
        scoped("in", "blue", group("blue")),
    ];
    assert_eq!(server.cache.update_scoped(LDS, set, &[]), 1);
    let mut red = Sotw::connect(&server, ADS).await;
    red.send(ask(node("r", "red"), LDS, &[]));
    let first = red.next().await;
    assert_eq!(listed(&first), ["in@red"]);
    red.send(ack(&first, &[]));
    let mut blue = Delta::connect(&server, ADS_DELTA).await;
    blue.send(ask_delta(node("b", "blue"), LDS, &["*"]));
    let first = blue.next().await;
    assert_eq!(changes(&first).0, ["in@blue"]);
    blue.send(ack_delta(&first));

    let before = Stats::read(&server.cache.stats().pushes);
    let extra = vec![scoped("extra", "1", group("red"))];
    server.cache.update_scoped(LDS, extra, &[]);
    let more = red.next().await;
    assert_eq!(listed(&more), ["extra@1", "in@red"]);
    red.send(ack(&more, &[]));
    blue.silent().await;
    assert_eq!(Stats::read(&server.cache.stats().pushes), before + 1);

    // The scope moves: one loses it, the other gains it.
    let moved = vec![scoped("extra", "1", group("blue"))];
    server.cache.update_scoped(LDS, moved, &[]);
    assert_eq!(listed(&red.next().await), ["in@red"]);
    assert_eq!(changes(&blue.next().await).0, ["extra@1"]);
    server.stop().await;
}

#[tokio::test]
async fn a_name_that_must_not_be_seen_is_answered_as_if_it_did_not_exist() {
    let server = Server::start().await;
    let secret = |version| vec![scoped("secret", version, group("others"))];
    server.cache.update_scoped(ECDS, secret("1"), &[]);
    let mut client = Delta::connect(&server, ADS_DELTA).await;
    client.send(ask_delta(node("n", "mine"), ECDS, &["secret"]));
    let nothing = client.next().await;
    assert_eq!(changes(&nothing), (vec![], strings(&["secret"])));
    client.send(ack_delta(&nothing));
    server.cache.update_scoped(ECDS, secret("2"), &[]);
    client.silent().await;
    let denied = |server: &Server| {
        let stats = server.cache.type_stats();
        stats
            .iter()
            .find(|t| t.type_url == ECDS)
            .expect("the type")
            .denied
    };
    assert_eq!(denied(&server), 1, "asked once");
    server
        .cache
        .update(ECDS, vec![resource("secret", "2")], &[]);
    let shown = client.next().await;
    assert_eq!(changes(&shown).0, ["secret@2"]);
    client.send(ack_delta(&shown));
    server.cache.update_scoped(ECDS, secret("2"), &[]);
    assert_eq!(changes(&client.next().await).1, ["secret"]);
    server.stop().await;
}

#[tokio::test]
async fn a_group_that_becomes_an_exception_loses_what_it_had() {
    let server = Server::start().await;
    let except = || Scope::except([Audience::Group("mine".into())]);
    server.cache.update(LDS, vec![resource("a", "1")], &[]);
    let mut sotw = Sotw::connect(&server, ADS).await;
    sotw.send(ask(node("s", "mine"), LDS, &[]));
    let first = sotw.next().await;
    assert_eq!(listed(&first), ["a@1"]);
    sotw.send(ack(&first, &[]));
    let mut clients = Vec::new();
    for (id, group) in [("d", "mine"), ("o", "other")] {
        let mut client = Delta::connect(&server, ADS_DELTA).await;
        client.send(ask_delta(node(id, group), LDS, &["*"]));
        let first = client.next().await;
        assert_eq!(changes(&first).0, ["a@1"]);
        client.send(ack_delta(&first));
        clients.push(client);
    }
    let [mine, other] = clients.as_mut_slice() else {
        panic!("two clients");
    };
    let moved = vec![scoped("a", "1", except())];
    assert_eq!(server.cache.update_scoped(LDS, moved, &[]), 1);
    let without = sotw.next().await;
    assert_eq!(listed(&without), Vec::<String>::new());
    sotw.send(ack(&without, &[]));
    let without = mine.next().await;
    assert_eq!(changes(&without), (vec![], strings(&["a"])));
    mine.send(ack_delta(&without));
    other.silent().await;

    // A variant of its own, which only it is told of.
    let own = scoped("a", "2", group("mine"));
    let both = vec![own, scoped("a", "1", except())];
    server.cache.update_scoped(LDS, both, &[]);
    assert_eq!(listed(&sotw.next().await), ["a@2"]);
    assert_eq!(changes(&mine.next().await).0, ["a@2"]);
    other.silent().await;
    server.stop().await;
}

/// A client that accepted `a@1` and `b@1`, asked for `none`, and refused `a@2`.
async fn refusing(server: &Server) -> Sotw {
    server
        .cache
        .update(RDS, vec![resource("a", "1"), resource("b", "1")], &[]);
    let mut client = Sotw::connect(server, ADS).await;
    client.send(ask(node("n", "g"), RDS, &["a", "b", "none"]));
    let names = ["a", "b", "none"];
    let first = client.next().await;
    client.send(ack(&first, &names));
    wait_until("the acceptance", || {
        Stats::read(&server.cache.stats().acks) == 1
    })
    .await;
    server.cache.update(RDS, vec![resource("a", "2")], &[]);
    let second = client.next().await;
    client.send(nack(&second, &names, "no such cluster"));
    wait_until("the refusal", || {
        Stats::read(&server.cache.stats().nacks) == 1
    })
    .await;

    client
}

#[tokio::test]
async fn the_view_of_a_node_tells_what_was_sent_accepted_and_refused() {
    let server = Server::start().await;
    let mut client = refusing(&server).await;
    let names = ["a", "b", "none"];
    let view = server.cache.node("n").expect("a connected node");
    assert_eq!(view.audiences, ["group g", "node n"]);
    assert_eq!(view.identity, None);
    let [subscription] = view.subscriptions.as_slice() else {
        panic!("one subscription: {view:?}");
    };
    assert_eq!(subscription.type_url, RDS);
    let [a, b, none] = subscription.resources.as_slice() else {
        panic!("three names: {subscription:?}");
    };
    let version = |stamp: &Option<trimtab_xds::Stamp>| {
        let stamp = stamp.clone().expect("a stamp");
        assert!(stamp.at.is_some());
        stamp.version
    };
    assert_eq!((a.name.as_str(), a.current.as_deref()), ("a", Some("2")));
    assert_eq!(
        (version(&a.sent), version(&a.acked)),
        ("2".into(), "1".into())
    );
    let refused = a.refused.as_ref().expect("a refusal");
    assert_eq!(
        (refused.version.as_str(), refused.message.as_str()),
        ("2", "no such cluster")
    );
    assert!(!a.is_synced());
    assert!(b.is_synced() && b.refused.is_none());
    assert!(none.current.is_none() && none.sent.is_none() && none.is_synced());

    // A better content clears the refusal.
    server.cache.update(RDS, vec![resource("a", "3")], &[]);
    let third = client.next().await;
    client.send(ack(&third, &names));
    wait_until("the next acceptance", || {
        Stats::read(&server.cache.stats().acks) == 2
    })
    .await;
    let view = server.cache.node("n").expect("a connected node");
    let all = view.subscriptions.iter().flat_map(|s| &s.resources);
    assert!(
        all.into_iter()
            .all(|r| r.is_synced() && r.refused.is_none()),
        "{view:?}"
    );
    assert_eq!(server.cache.nodes().len(), 1);
    assert_eq!(server.cache.node("someone-else"), None);

    drop(client);
    wait_until("it is gone", || server.cache.node("n").is_none()).await;
    server.stop().await;
}

#[tokio::test]
async fn counters_are_kept_by_type_and_protocol() {
    let server = Server::start().await;
    server.cache.update(RDS, vec![resource("a", "1")], &[]);
    let mut sotw = Sotw::connect(&server, ADS).await;
    sotw.send(ask(node("n", ""), RDS, &["a"]));
    let first = sotw.next().await;
    sotw.send(ack(&first, &["a"]));
    let mut delta = Delta::connect(&server, ADS_DELTA).await;
    delta.send(ask_delta(node("n", ""), ECDS, &["x"]));
    let first = delta.next().await;
    delta.send(ack_delta(&first));
    wait_until("both are answered", || {
        Stats::read(&server.cache.stats().acks) == 2
    })
    .await;

    let all = server.cache.type_stats();
    let of = |url: &str| all.iter().find(|t| t.type_url == url).expect("the type");
    let routes = of(RDS);
    assert_eq!((routes.streams_sotw, routes.streams_delta), (1, 0));
    assert_eq!((routes.names, routes.changes), (1, 1));
    assert_eq!((routes.pushes, routes.resources, routes.bytes), (1, 1, 3));
    assert_eq!((routes.acks, routes.nacks), (1, 0));
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register("convergence", "of routes", routes.convergence.clone());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("\nconvergence_count 1\n"), "{text}");
    let extensions = of(ECDS);
    assert_eq!((extensions.streams_sotw, extensions.streams_delta), (0, 1));
    assert_eq!(
        (extensions.pushes, extensions.removed, extensions.resources),
        (1, 1, 0)
    );

    drop((sotw, delta));
    wait_until("no subscription is left", || {
        let all = server.cache.type_stats();
        all.iter().all(|t| t.streams_sotw + t.streams_delta == 0)
    })
    .await;
    server.stop().await;
}
