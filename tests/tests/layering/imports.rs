//! Files of a crate import each other in one direction.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

/// Crates that comply. Add yours when it does.
const CRATES: [&str; 9] = [
    "crds",
    "dataplane",
    "metaprotocol",
    "metaprotocol/xds",
    "modules/kit",
    "modules/lazyload",
    "modules/limiter",
    "modules/mesh",
    "operator",
];
/// Most files in a circle.
const LARGEST_CIRCLE: usize = 2;

/// `a::b` of a crate; the root is empty.
type Module = Vec<String>;
type Graph = BTreeMap<Module, BTreeSet<Module>>;
/// What a module exports that is defined elsewhere: the path to it, by name.
type Exports = BTreeMap<Module, BTreeMap<String, Module>>;

/// The code of formatted source without comments and tests, and the names of its test modules.
fn code(text: &str) -> (String, BTreeSet<String>) {
    let (mut out, mut tests) = (String::new(), BTreeSet::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let item = line.trim_start();
        if item.starts_with("//") {
            continue;
        }
        if item != "#[cfg(test)]" {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        let indent = line.len() - item.len();
        for line in lines.by_ref() {
            let item = line.trim_start();
            let declared = item.strip_suffix(';').and_then(|i| i.split_once("mod "));
            tests.extend(declared.map(|(_, name)| name.to_owned()));
            let deeper = line.is_empty() || line.len() - item.len() > indent;
            if !deeper && line.ends_with([';', '}', ',']) {
                break;
            }
        }
    }
    (out, tests)
}

/// The paths of one use tree, or the path of an expression, from `text` on; returns what follows.
fn tree<'a>(text: &'a str, path: &[String], out: &mut Vec<Module>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = tree(rest, path, out);
            let end = rest.find([',', '}']).unwrap_or(rest.len());
            let (closed, next) = (rest[end..].starts_with('}'), rest.get(end + 1..));
            rest = next.unwrap_or_default().trim_start();
            if closed || rest.is_empty() {
                return rest;
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    let mut path = path.to_vec();
    if !name.is_empty() {
        path.push(name.to_owned());
    }
    match rest.strip_prefix("::") {
        Some(rest) if !name.is_empty() => tree(rest, &path, out),
        _ => {
            // Nothing stands after a trailing comma.
            if !name.is_empty() || rest.starts_with('*') {
                out.push(path);
            }
            rest
        }
    }
}

/// All paths that start in this crate: at its root, at this module, above it, or at a module declared here.
fn paths(code: &str, children: &BTreeSet<&str>) -> Vec<Module> {
    let mut out = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let inner = |c: char| c.is_alphanumeric() || "_$:".contains(c);
            if !code[..at].ends_with(inner) {
                tree(&code[at..], &[], &mut out);
            }
        }
    }
    for (at, _) in code.match_indices("use ") {
        let path = &code[at + "use ".len()..];
        let first = path.split("::").next().unwrap_or_default();
        if children.contains(first) {
            let mut found = Vec::new();
            tree(path, &["self".to_owned()], &mut found);
            out.extend(found);
        }
    }
    out
}

/// Takes the items that a module only passes on out of its code.
fn exports(code: &str, children: &BTreeSet<&str>) -> (String, BTreeMap<String, Module>) {
    let (mut rest, mut out) = (String::new(), BTreeMap::new());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let item = line.trim_start();
        let passed_on = item.starts_with("pub") && !item.starts_with("pub fn");
        let Some((_, path)) = item.split_once("use ").filter(|_| passed_on) else {
            rest.push_str(line);
            rest.push('\n');
            continue;
        };
        let mut path = path.to_owned();
        while !path.ends_with(';') {
            let Some(line) = lines.next() else { break };
            path.push_str(line.trim());
        }
        let own = path
            .split("::")
            .next()
            .is_some_and(|first| children.contains(first));
        let start: &[String] = if own { &["self".to_owned()] } else { &[] };
        let mut found = Vec::new();
        tree(&path, start, &mut found);
        let named = found
            .into_iter()
            .filter_map(|path| Some((path.last()?.clone(), path)));
        out.extend(named);
    }
    (rest, out)
}

/// The module whose file a path leads to, where it is defined and not where it is passed on; `None`: another crate's.
fn target(
    from: &Module,
    path: &Module,
    files: &BTreeMap<Module, String>,
    exports: &Exports,
) -> Option<Module> {
    if !["crate", "self", "super"].contains(&path.first()?.as_str()) {
        return None;
    }
    let mut names = path.iter().peekable();
    let mut found = if names.next_if(|n| *n == "crate").is_some() {
        Module::new()
    } else {
        from.clone()
    };
    while let Some(name) = names.next_if(|n| *n == "self" || *n == "super") {
        if name == "super" {
            found.pop();
        }
    }
    while let Some(name) = names.peek() {
        let mut below = found.clone();
        below.push((*name).clone());
        if !files.contains_key(&below) {
            break;
        }
        names.next();
        found = below;
    }
    let passed_on = names.next().and_then(|name| exports.get(&found)?.get(name));
    match passed_on {
        Some(path) => target(&found, path, files, exports),
        None => Some(found),
    }
}

/// Reads the files below a folder; those of test modules are left out.
fn read(folder: &Path, module: &Module, out: &mut BTreeMap<Module, String>) {
    let own = ["lib.rs", "main.rs", "mod.rs"].map(|name| folder.join(name));
    let own = own.iter().find(|file| file.exists()).cloned();
    let own = own.unwrap_or_else(|| folder.with_extension("rs"));
    if !own.exists() {
        return;
    }
    let (text, tests) = code(&std::fs::read_to_string(own).unwrap());
    out.insert(module.clone(), text);
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let rust = path.is_dir() || path.extension().is_some_and(|e| e == "rs");
        if !rust || tests.contains(&name) || ["lib", "main", "mod"].contains(&&*name) {
            continue;
        }
        let below = [module.as_slice(), &[name]].concat();
        if !out.contains_key(&below) {
            read(&path.with_extension(""), &below, out);
        }
    }
}

fn graph(files: &BTreeMap<Module, String>) -> Graph {
    let children = |from: &Module| -> BTreeSet<&str> {
        let below = files
            .keys()
            .filter(|m| m.split_last().is_some_and(|(_, up)| up == from));
        below.filter_map(|m| Some(m.last()?.as_str())).collect()
    };
    let (mut exported, mut own) = (Exports::new(), BTreeMap::new());
    for (module, text) in files {
        let (code, passed_on) = exports(text, &children(module));
        exported.insert(module.clone(), passed_on);
        own.insert(module, code);
    }
    let imports = |(from, text): (&&Module, &String)| {
        let paths = paths(text, &children(from));
        let targets = paths
            .iter()
            .filter_map(|path| target(from, path, files, &exported));
        let found = targets.filter(|module| module != *from).collect();
        ((*from).clone(), found)
    };
    own.iter().map(imports).collect()
}

/// The shortest way from one file to another along imports.
fn way(graph: &Graph, from: &Module, to: &Module) -> Option<Vec<Module>> {
    let mut ways = VecDeque::from([vec![from.clone()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in way
            .last()
            .and_then(|last| graph.get(last))
            .into_iter()
            .flatten()
        {
            let longer = [way.as_slice(), std::slice::from_ref(next)].concat();
            if next == to {
                return Some(longer);
            }
            if seen.insert(next) {
                ways.push_back(longer);
            }
        }
    }
    None
}

/// The circles that have too many files, each as a list of its files and a way around through the first.
fn circles(graph: &Graph) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for file in graph.keys() {
        let around: Vec<&Module> = graph
            .keys()
            .filter(|other| way(graph, file, other).is_some() && way(graph, other, file).is_some())
            .collect();
        if around.len() > LARGEST_CIRCLE && around.first() == Some(&file) {
            let text = |module: &Module| format!("crate::{}", module.join("::"));
            let all: Vec<String> = around.iter().map(|m| text(m)).collect();
            let way: Vec<String> = way(graph, file, file).iter().flatten().map(text).collect();
            out.insert(format!("{}; one way: {}", all.join(", "), way.join(" -> ")));
        }
    }
    out
}

#[test]
fn files_import_each_other_in_one_direction() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for folder in CRATES {
        let mut files = BTreeMap::new();
        read(
            &repository.join(folder).join("src"),
            &Module::new(),
            &mut files,
        );
        let graph = graph(&files);
        let imports: usize = graph.values().map(BTreeSet::len).sum();
        assert!(
            imports > files.len(),
            "{folder}: only {imports} imports found"
        );
        let circles = circles(&graph);
        assert!(
            circles.is_empty(),
            "{folder}: files import each other: {circles:#?}"
        );
    }
}

#[test]
fn a_circle_is_found_and_tests_do_not_count() {
    let files: BTreeMap<Module, String> = [
        ("", "mod a;\nmod b;\nmod c;\npub use c::C;"),
        ("a", "use crate::{\n    b::{self, B},\n    d,\n};\n#[cfg(test)]\nmod tests {\n    use crate::d::D;\n}\n"),
        ("b", "fn f() -> super::c::C {}"),
        ("c", "use crate::a::A as _;\n// crate::d\nuse std::{a, b};"),
        ("d", "use crate::a;"),
    ]
    .iter()
    .map(|(name, text)| {
        let module = name.split("::").filter(|n| !n.is_empty()).map(str::to_owned);
        (module.collect(), code(text).0)
    })
    .collect();
    let found = circles(&graph(&files));
    let expected =
        "crate::a, crate::b, crate::c, crate::d; one way: crate::a -> crate::d -> crate::a";
    assert_eq!(found, [expected.to_owned()].into());
    let mut fewer = files;
    fewer.remove(&vec!["c".to_owned()]);
    assert!(circles(&graph(&fewer)).is_empty(), "two files may");
}
