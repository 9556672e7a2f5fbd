//! The examples, configurations and links of the documents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use trimtab::config::Config;
use trimtab::{manifests, translate};
use trimtab_lazyload::module::Lazyload;

use crate::repository;

/// Blocks of YAML in a document.
fn yaml_blocks(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository().join(file)).unwrap();
    let blocks: Vec<String> = text
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default().to_owned())
        .collect();
    assert!(!blocks.is_empty(), "{file} has no YAML");
    blocks
}

#[test]
fn documented_configurations_are_read_and_the_documented_defaults_are_the_defaults() {
    let parse = |text: &String| -> Config {
        let config: Config = serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        config.check().unwrap_or_else(|e| panic!("{e}\n{text}"));
        config
    };
    let blocks = yaml_blocks("docs/configuration.md");
    let all = parse(&blocks[0]);
    assert_eq!(all.effective(), Config::default().effective());
    // What is left out in the text would be filled in by the parser, so the keys are compared too.
    let written: Value = serde_saphyr::from_str(&blocks[0]).unwrap();
    let default = serde_json::to_value(all.effective()).unwrap();
    for section in [
        "http",
        "log",
        "mesh",
        "xds",
        "limiter",
        "lazyload",
        "metaprotocol",
    ] {
        let keys = |v: &Value| {
            v[section]
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<BTreeSet<String>>()
        };
        assert_eq!(keys(&written), keys(&default), "keys of {section}");
    }
    assert!(parse(&blocks[1]).xds.tokens.is_some());
    assert!(parse(&blocks[2]).xds.tls.is_some());
    assert!(parse(&blocks[3]).mesh.certificate.is_some());
    let sources = parse(&blocks[4]).metrics;
    assert!(
        sources.prometheus.is_some() && sources.metrics_server.is_some() && sources.mds.is_some()
    );
    let scoping = parse(&blocks[5]).of::<Lazyload>();
    assert!(scoping.learn.prometheus.is_some() && scoping.fences.auto_fence);
    assert_eq!(
        (
            scoping.domain_aliases.len(),
            scoping.fallback.dispatches.len()
        ),
        (1, 2)
    );
    let values: Value = serde_saphyr::from_str(&yaml_blocks("docs/install.md")[0]).unwrap();
    let config = serde_saphyr::to_string(&values["config"]).unwrap();
    assert!(parse(&config).metrics.prometheus.is_some());
}

/// Keys of the page's tables "Configuration", with what the page says of them.
fn keys_of_slime(table: &str) -> Vec<(String, bool)> {
    let text = std::fs::read_to_string(repository().join("docs/slime-compatibility.md")).unwrap();
    let section = text.split(table).nth(1).expect("the section");
    let rows = section.split("\n#").next().unwrap().lines();
    let mut out = Vec::new();
    for row in rows.filter(|row| row.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let rejected = cells[1].starts_with("rejected as");
        let keys = cells[0].split('`').skip(1).step_by(2);
        // Keys of other sections have a path, and values are written with their key.
        let keys = keys.filter(|key| !key.contains('.'));
        let keys = keys.filter_map(|key| key.split(':').next());
        out.extend(keys.map(|key| (key.to_owned(), rejected)));
    }
    out
}

#[test]
fn fault_o18_keys_of_slime_are_known_or_refused_as_the_page_says() {
    let known = |section: &str, key: &str| {
        // A wrong type is another error.
        let inner = format!("{{{key}: {{}}}}");
        let parts = section.rsplit('.');
        let text = parts.fold(inner, |text, part| format!("{{{part}: {text}}}"));
        let config: Config = serde_saphyr::from_str(&text).unwrap();
        let checked = config.check().map_err(|error| format!("{error:#}"));
        !checked.is_err_and(|error| error.contains(&format!("unknown field `{key}`")))
    };
    let mut rejections = 0;
    for (table, sections) in [
        ("\n## Configuration\n", &["limiter"][..]),
        (
            "\nSlime's keys of `general` are under `lazyload`",
            &["lazyload", "lazyload.fences", "lazyload.fallback"],
        ),
    ] {
        let keys = keys_of_slime(table);
        assert!(keys.len() > 5, "{keys:?}");
        for (key, rejected) in keys {
            let there = sections.iter().any(|section| known(section, &key));
            assert_eq!(there, !rejected, "{table}: {key}");
            rejections += usize::from(rejected);
        }
    }
    assert!(rejections > 0);
}

#[test]
fn fault_o23_namespaces_and_ports_of_the_documents_are_the_defaults() {
    let config = Config::default();
    let text = |file: &str| std::fs::read_to_string(repository().join(file)).unwrap();
    let ports = text("docs/README.md");
    let mds = trimtab::config::Mds::default();
    for address in [config.http.address, config.xds.address, mds.address] {
        let row = format!("\n| {} | ", address.port());
        assert!(ports.contains(&row), "docs/README.md has no row {row}");
    }
    let home = config.of::<Lazyload>().namespace;
    let mut commands = 0;
    for file in [
        "README.md",
        "docs/install.md",
        "docs/servicefence.md",
        "docs/metaprotocol.md",
        "charts/trimtab/README.md",
        "charts/trimtab-crds/README.md",
        "examples/lazyload/README.md",
    ] {
        let text = text(file);
        for line in text.lines() {
            assert!(!line.contains("trimtab-system"), "{file}: {line}");
            if line.trim_start().starts_with("helm ") {
                let there = line.contains(&format!("--namespace {home}"));
                assert!(there, "{file}: {line}");
                commands += 1;
            }
        }
    }
    assert!(commands > 5);
}

#[tokio::test]
async fn documented_limiters_are_accepted_and_give_objects() {
    let metrics: BTreeMap<String, f64> = ["cpu", "queue"]
        .map(|name| (name.to_owned(), 1000.0))
        .into();
    for block in yaml_blocks("docs/smartlimiter.md") {
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews, namespace: default}\nspec: {selector: {app: reviews}}\n";
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: reviews-1, namespace: default, labels: {app: reviews}}\n\
               status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}\n";
        let text = format!("{service}---\n{pod}---\n{block}");
        let documents = manifests::parse(Path::new("docs/smartlimiter.md"), &text).unwrap();
        let config = translate::configuration(None).unwrap();
        let (_, output) = translate::pass(&documents, &metrics, &config)
            .await
            .unwrap();
        assert_eq!(output.refused, Vec::<String>::new(), "{block}");
        assert_eq!(output.objects.len(), 1, "{block}\n{:?}", output.notes);
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let top = "README.md ARCHITECTURE.md CONTRIBUTING.md SECURITY.md CHANGELOG.md";
    let mut files: Vec<String> = top.split(' ').map(str::to_owned).collect();
    let more = "charts/trimtab charts/trimtab-crds examples examples/lazyload";
    files.extend(more.split(' ').map(|folder| format!("{folder}/README.md")));
    for entry in std::fs::read_dir(repository().join("docs")).unwrap() {
        files.push(format!(
            "docs/{}",
            entry.unwrap().file_name().to_string_lossy()
        ));
    }
    let mut links = 0;
    for file in files.iter().filter(|f| f.ends_with(".md")) {
        let path = repository().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next())
        {
            if link.is_empty() || link.contains("://") {
                continue;
            }
            links += 1;
            assert!(
                path.parent().unwrap().join(link).exists(),
                "{file} links to {link}, which does not exist"
            );
        }
    }
    assert!(links > 5, "the documents link to each other");
}
