//! The alerting rules as the chart renders them: single rules changed, and held to one cluster.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::helm::{object, render, repository};

fn rules(arguments: &[&str]) -> Vec<Value> {
    let mut all = vec!["--set", "prometheusRule.enabled=true"];
    all.extend(arguments);
    let text = render("trimtab", &all).unwrap();
    let rule = object(&text, "PrometheusRule", "trimtab");
    let groups = rule["spec"]["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1);
    groups[0]["rules"].as_array().unwrap().clone()
}

/// The rules that users import without the chart.
fn published() -> Vec<Value> {
    let path = repository().join("dashboards/alerts.yaml");
    let rules: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    rules["groups"][0]["rules"].as_array().unwrap().clone()
}

#[test]
fn fault_o35_each_rule_can_be_left_out_and_changed() {
    let all = published();
    assert_eq!(
        rules(&[]),
        all,
        "without values the rules are the published ones"
    );
    for rule in &all {
        let name = rule["alert"].as_str().unwrap();
        let off = format!("alerts.rules.{name}.enabled=false");
        let others: Vec<Value> = all.iter().filter(|r| *r != rule).cloned().collect();
        assert_eq!(rules(&["--set", &off]), others, "{name}");
        let set = format!("alerts.rules.{name}.for=1h,alerts.rules.{name}.severity=page");
        let changed = rules(&["--set", &set]);
        let changed = changed.iter().find(|r| r["alert"] == name).unwrap();
        let mut wanted = rule.clone();
        wanted["for"] = json!("1h");
        wanted["labels"]["severity"] = json!("page");
        assert_eq!(changed, &wanted);
    }
    let base = "prometheusRule.runbookUrl=https://wiki.example.com/trimtab";
    for rule in rules(&["--set", base]) {
        let url = rule["annotations"]["runbook_url"].as_str().unwrap();
        assert!(
            url.starts_with("https://wiki.example.com/trimtab#trimtab"),
            "{url}"
        );
    }
}

#[test]
fn fault_o35_the_schema_knows_each_rule_by_name() {
    let path = repository().join("charts/trimtab/values.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let rules = &schema["properties"]["alerts"]["properties"]["rules"];
    let names: Vec<Value> = published().iter().map(|r| r["alert"].clone()).collect();
    assert_eq!(
        rules["propertyNames"]["enum"],
        json!(names),
        "in the order of the file"
    );
    for name in &names {
        assert!(
            rules["properties"][name.as_str().unwrap()].is_object(),
            "{name}"
        );
    }
    for (set, words) in [
        (
            "alerts.rules.TrimtabDwn.enabled=false",
            ["'TrimtabDwn' not allowed", "'TrimtabDown', "],
        ),
        (
            "alerts.rules.TrimtabDown.for=soon",
            ["/alerts/rules/TrimtabDown/for", "'soon'"],
        ),
        (
            "alerts.rules.TrimtabDown.expr=up",
            ["/alerts/rules/TrimtabDown", "'expr' not allowed"],
        ),
    ] {
        let error = render("trimtab", &["--set", set]).unwrap_err();
        for word in words {
            assert!(error.contains(word), "{set}: {error}");
        }
    }
}

/// `tests/promtool/alerts.yaml` with series of `cluster`, for the rules in `file`.
fn tests_of(cluster: &str, file: &Path) -> PathBuf {
    let text = std::fs::read_to_string(repository().join("tests/promtool/alerts.yaml")).unwrap();
    let text = text.replace("../../dashboards/alerts.yaml", &file.to_string_lossy());
    let label = format!("cluster=\"{cluster}\"");
    let lines = text.lines().map(|line| {
        let Some((before, rest)) = line.split_once("series: '") else {
            return line.to_owned();
        };
        let (series, values) = rest.split_once('\'').unwrap();
        let series = match series.split_once('{') {
            Some((name, labels)) => format!("{name}{{{label},{labels}"),
            None => format!("{series}{{{label}}}"),
        };
        format!("{before}series: '{series}'{values}")
    });
    let path = file.with_file_name(format!("tests-{cluster}.yaml"));
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    path
}

fn promtool(tests: &Path) -> (bool, String) {
    let prometheus = trimtab_lab::prometheus::find().unwrap_or_else(|e| panic!("{e}"));
    let output = Command::new(prometheus.with_file_name("promtool"))
        .args(["test", "rules"])
        .arg(tests)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned());
    (output.status.success(), text.concat())
}

/// In a Prometheus of several clusters, each cluster has alerts of its own, also that nothing of it is scraped.
#[test]
fn fault_o35_rules_of_a_cluster_look_at_its_series_and_say_its_name() {
    let rules = rules(&["--set", "alerts.cluster=east"]);
    for rule in &rules {
        assert_eq!(rule["labels"]["cluster"], "east");
        let expression = rule["expr"].as_str().unwrap();
        let names = expression.matches("trimtab_").count();
        assert_eq!(
            expression.matches("cluster=\"east\"").count(),
            names,
            "{expression}"
        );
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("alerts-of-a-cluster");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("rules.yaml");
    let groups = json!({"groups": [{"name": "trimtab", "rules": rules}]});
    std::fs::write(&file, groups.to_string()).unwrap();
    let (well, text) = promtool(&tests_of("east", &file));
    assert!(well, "as before with series of this cluster: {text}");
    // Series of another cluster say nothing of this one: it is down for these rules, in each situation, and nothing else.
    let (_, text) = promtool(&tests_of("west", &file));
    let got: Vec<&str> = text
        .lines()
        .filter_map(|l| l.trim().strip_prefix("got: "))
        .collect();
    assert!(got.len() > 10, "{text}");
    let down = |line: &&str| line.contains("alertname=\"TrimtabDown\"");
    assert!(got.iter().all(down), "{text}");
}
