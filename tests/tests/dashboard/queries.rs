//! What we publish for Prometheus, run by promtool: alerts, the panels of traffic, the queries of the documents.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{dashboard, expressions, folder, repository};

/// Documents and charts whose handlers are tried.
const PUBLISHED: [&str; 2] = ["docs/configuration.md", "docs/install.md"];

fn promtool(arguments: &[&str], file: &Path) {
    let prometheus = trimtab_lab::prometheus::find().unwrap_or_else(|e| panic!("{e}"));
    let output = Command::new(prometheus.with_file_name("promtool"))
        .args(arguments)
        .arg(file)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned());
    assert!(output.status.success(), "{}", text.concat());
}

fn text(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A file of tests with expressions in the place of names, which are whole values of `expr`.
fn filled_in(file: &str, name: &str, expressions: &[(&str, &str)]) -> PathBuf {
    let mut tests = text(file);
    for (word, expression) in expressions {
        assert!(!expression.contains('\''), "{expression}");
        let place = format!("expr: {word}");
        assert!(tests.contains(&place), "{file} has no {place}");
        tests = tests.replace(&place, &format!("expr: '{expression}'"));
    }
    let path = folder(name).join("tests.yaml");
    std::fs::write(&path, tests).unwrap();
    path
}

#[test]
fn fault_l13_the_panels_of_traffic_count_what_is_limited_and_gateways_too() {
    let panels = expressions(&dashboard());
    let traffic: Vec<String> = panels
        .iter()
        .filter(|(title, _)| title == "Offered, accepted, limited")
        .map(|(_, expression)| {
            let all = expression.replace("$__rate_interval", "4m");
            all.replace("$namespace", ".*").replace("$limiter", ".*")
        })
        .collect();
    let [offered, _, limited] = traffic.as_slice() else {
        panic!("{traffic:?}");
    };
    let names = [("OFFERED", offered.as_str()), ("LIMITED", limited.as_str())];
    let file = filled_in("tests/promtool/traffic.yaml", "traffic", &names);
    promtool(&["test", "rules"], &file);
}

/// Queries of handlers, by name.
fn handlers(file: &str) -> Vec<(String, String)> {
    let text = text(file);
    let mut name = String::new();
    let mut out = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(query) = line.strip_prefix("query: ") {
            out.push((name.clone(), query.to_owned()));
        } else if let Some(key) = line.strip_suffix(':') {
            key.clone_into(&mut name);
        }
    }
    assert!(!out.is_empty(), "{file}");
    out
}

#[test]
fn fault_l3_every_published_query_has_one_meaning_and_leaves_the_proxy_out() {
    let mut queries: BTreeSet<(String, String)> = BTreeSet::new();
    for file in PUBLISHED {
        queries.extend(handlers(file));
    }
    let names: Vec<&str> = queries.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["cpu", "rps"],
        "one text for each name: {queries:#?}"
    );
    let of = |name: &str| {
        let found = queries.iter().find(|(n, _)| n == name).unwrap();
        found
            .1
            .replace("$service", "cart")
            .replace("$namespace", "shop")
    };
    let (cpu, rps) = (of("cpu"), of("rps"));
    let names = [("CPU", cpu.as_str()), ("RPS", rps.as_str())];
    let file = filled_in("tests/promtool/queries.yaml", "queries", &names);
    promtool(&["test", "rules"], &file);
}

#[test]
fn no_published_query_has_a_window_that_slow_scrapes_leave_empty() {
    let mut all: Vec<(String, String)> = PUBLISHED.iter().flat_map(|f| handlers(f)).collect();
    for line in text("docs/metrics.md").lines() {
        all.extend(
            line.split('`')
                .map(|code| (line.to_owned(), code.to_owned())),
        );
    }
    let mut seen = 0;
    for (place, query) in all {
        for window in query.split('[').skip(1).filter_map(|w| w.split_once(']')) {
            let Some(minutes) = window
                .0
                .strip_suffix('m')
                .and_then(|m| m.parse::<u32>().ok())
            else {
                continue;
            };
            seen += 1;
            assert!(minutes >= 3, "{place}: {query}");
        }
    }
    assert!(seen > 3);
}

fn alerts() -> Vec<Value> {
    let rules: Value = serde_saphyr::from_str(&text("dashboards/alerts.yaml")).unwrap();
    rules["groups"][0]["rules"].as_array().unwrap().clone()
}

#[test]
fn each_cause_has_one_alert_which_fires_and_stays_silent() {
    promtool(
        &["test", "rules"],
        &repository().join("tests/promtool/alerts.yaml"),
    );
    let tests = text("tests/promtool/alerts.yaml");
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(
            tests.contains(&format!("{{alertname=\"{name}\"}}")),
            "tests/promtool/alerts.yaml has nothing that fires {name}"
        );
    }
}

#[test]
fn each_alert_leads_to_its_section() {
    let sections: BTreeSet<String> = text("docs/alerts.md")
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(str::to_lowercase)
        .collect();
    let mut named = BTreeSet::new();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap().to_lowercase();
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        let end = format!("/docs/alerts.md#{name}");
        assert!(url.starts_with("https://") && url.ends_with(&end), "{url}");
        named.insert(name);
    }
    assert_eq!(
        named, sections,
        "left: alerts, right: sections of docs/alerts.md"
    );
}
