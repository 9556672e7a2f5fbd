//! The ways back of the migrations: from the last step that has one to what was there before the first.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trimtab_cluster::Cluster;

use crate::document::{Document, Part};
use crate::session::Session;
use crate::{chosen, documents, elsewhere, network, parts, prepare, run};

/// What a migration may change.
const KINDS: &str = "deployments,services,configmaps,envoyfilters,sidecars,virtualservices,gateways,destinationrules,serviceaccounts";
/// How long garbage may take to be collected.
const BOUND: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(300);

/// What matters of all objects, by kind, namespace and name.
fn snapshot(session: &mut Session, kinds: &str) -> BTreeMap<String, Value> {
    let command = format!("kubectl get {kinds} --all-namespaces --output json");
    let (code, output) = session.ask(&command, |code, _| code == 0);
    assert_eq!(code, 0, "{output}");
    let list: Value = serde_json::from_str(&output).expect("a list");
    let items = list["items"].as_array().expect("items").iter();
    let told = items.map(|object| {
        let meta = &object["metadata"];
        let [kind, namespace, name] = [&object["kind"], &meta["namespace"], &meta["name"]];
        let owned = meta.get("ownerReferences").is_some();
        // Trimtab takes those of a user's object over in place; their owner writes them anew.
        let content = if owned {
            json!("owned")
        } else {
            json!([object["spec"], object["data"]])
        };
        (format!("{kind} {namespace}/{name}"), content)
    });
    told.collect()
}

/// Walks a page to the last step with a way back, and back.
fn there_and_back(document: &Document, session: &mut Session) -> Vec<String> {
    prepare(document, session);
    let before = snapshot(session, KINDS);
    let is_back = |part: &Part| matches!(part, Part::Back(_));
    let last = document.parts.iter().rposition(is_back);
    let (there, _) = document.parts.split_at(last.unwrap_or_default());
    let mut failed = parts(document, there, session);
    assert_ne!(
        snapshot(session, KINDS),
        before,
        "{}: the steps do something",
        document.name
    );
    for block in document.ways_back().collect::<Vec<_>>().into_iter().rev() {
        if let Err(error) = run(document, block, session) {
            failed.push(format!("{}:{}: {error}", document.name, block.line));
        }
    }
    let begin = Instant::now();
    loop {
        let after = snapshot(session, KINDS);
        if after == before {
            return failed;
        }
        if begin.elapsed() > BOUND {
            let differs = |a: &BTreeMap<String, Value>, b: &BTreeMap<String, Value>| -> Vec<_> {
                let mut keys: Vec<_> = a.iter().filter(|(k, v)| b.get(*k) != Some(v)).collect();
                keys.truncate(10);
                keys.into_iter().map(|(k, v)| format!("{k}: {v}")).collect()
            };
            let (was, is) = (differs(&before, &after), differs(&after, &before));
            failed.push(format!("{}: was: {was:#?}\nis: {is:#?}", document.name));
            return failed;
        }
        std::thread::sleep(POLL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ways_back_of_migrations_lead_back() {
    if !network::own("ways_back::the_ways_back_of_migrations_lead_back") {
        return;
    }
    let all = documents();
    let here = |d: &&Document| {
        let mut blocks = d.ways_back();
        blocks.any(|b| elsewhere::section(&d.name, &b.heading).is_none())
    };
    let pages: Vec<&Document> = all.iter().filter(here).collect();
    let names: Vec<&str> = pages.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["docs/migrate/lazyxds.md", "docs/migrate/slime.md"]);
    let mut failed = Vec::new();
    for document in pages.into_iter().filter(|d| chosen(d)) {
        let cluster = Cluster::without_trimtab().await.unwrap();
        let namespace = ["create", "namespace", "istio-system"];
        cluster.kubectl(&namespace, "").await.unwrap();
        let mut session = Session::start(&document.name, Some(cluster.kubeconfig()));
        failed.extend(tokio::task::block_in_place(|| {
            there_and_back(document, &mut session)
        }));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
