//! Regular expressions of all kinds, against Envoy.

use serde_json::json;
use trimtab_kit::envoy::re2::{self, Engine};

use trimtab_dataplane::{BootstrapOptions, bootstrap};
use trimtab_lab::envoy;

use super::judge::{Case, Depth, compare, listener};
use super::random::{FIXED, Random, seeds};

/// Pieces that are put one after the other without sense.
const TOKENS: &[&str] = &[
    "a",
    "b",
    "k",
    "S",
    "é",
    "漢",
    "0",
    "-",
    ".",
    "[",
    "[^",
    "]",
    "(",
    "(?:",
    "(?i)",
    "(?i:",
    "(?s)",
    "(?m-i)",
    "(?-)",
    "(?P<n>",
    "(?<n>",
    "(?P<a.b>",
    "(?P<>",
    "(?P=n)",
    "(?=",
    "(?!",
    "(?<=",
    "(?<!",
    "(?>",
    "(?#",
    "(?x)",
    ")",
    "|",
    "*",
    "+",
    "?",
    "*?",
    "+?",
    "**",
    "*+",
    "{2}",
    "{2,}",
    "{2,3}",
    "{,3}",
    "{0}",
    "{1000}",
    "{1001}",
    "{02}",
    "{3,2}",
    "{",
    "}",
    "\\",
    "\\d",
    "\\W",
    "\\s",
    "\\b",
    "\\B",
    "\\A",
    "\\z",
    "\\Z",
    "\\C",
    "\\Q",
    "\\E",
    "\\pL",
    "\\p{Greek}",
    "\\p{^Lu}",
    "\\P{N}",
    "\\p{LU}",
    "\\p{Letter}",
    "\\p{",
    "\\x41",
    "\\x{7f}",
    "\\x{ff}",
    "\\x{100}",
    "\\x{1F4D6}",
    "\\x{",
    "\\x4",
    "\\1",
    "\\12",
    "\\0",
    "\\400",
    "\\n",
    "\\u0041",
    "\\-",
    "\\.",
    "\\/",
    "\\_",
    "\\k<n>",
    "\\h",
    "\\<",
    "&&",
    "--",
    "~~",
    "[:alpha:]",
    "[:^digit:]",
    "[:foo:]",
    "[.a.]",
    "^",
    "$",
    " ",
    ",",
    ":",
    "/",
    "\"",
    "#",
    "\t",
    "\u{7f}",
];

/// Members of classes.
const MEMBERS: &[&str] = &[
    "a",
    "A",
    "z",
    "0-9",
    "a-z",
    "A-Z",
    "a-",
    "_",
    ".",
    "é",
    "\\d",
    "\\w",
    "\\S",
    "\\pL",
    "\\p{Greek}",
    "\\P{Lu}",
    "[:alpha:]",
    "[:^space:]",
    "\\x{7f}-\\x{ff}",
    "\\-",
    "k",
    "S",
    "µ",
    "\\n",
    "\\]",
    "@-Z",
    "!-/",
    "z-a",
    "--a",
    "&&",
];

/// Pieces that stand for themselves.
const ATOMS: &[&str] = &[
    "a",
    "b",
    "k",
    "ab",
    "abc",
    "x",
    "é",
    ".",
    "\\d",
    "\\w",
    "\\.",
    "/",
    "-",
    "^",
    "$",
    "\\b",
    "\\p{Greek}",
    "\\pL",
    "\\PN",
    "\\x41",
    "\\Qa.b\\E",
    "\\C",
    "",
    "0",
    "K",
    "@",
];

const GROUPS: &[&str] = &["", "?:", "?i:", "?s:", "?P<n1>", "?<n2>", "?-i:", "?U:"];

const REPEATS: &[&str] = &[
    "*", "+", "?", "*?", "+?", "??", "{2}", "{3,}", "{0,2}", "{2,7}", "{0,}", "{1}", "{0}",
    "{0,1}", "{1,}", "{5,50}", "{10,30}", "{200}", "{1000}",
];

fn class(random: &mut Random) -> String {
    let members: Vec<&str> = (0..random.between(1, 4))
        .map(|_| random.pick(MEMBERS))
        .collect();
    format!("[{}{}]", random.pick(&["", "^"]), members.concat())
}

/// Mostly valid.
fn grown(random: &mut Random, depth: usize) -> String {
    let kind = random.below(100);
    if depth == 0 || kind < 30 {
        return random.pick(ATOMS).to_owned();
    }
    let several = |random: &mut Random| -> Vec<String> {
        (0..random.between(1, 4))
            .map(|_| grown(random, depth - 1))
            .collect()
    };
    match kind {
        30..40 => class(random),
        40..60 => several(random).concat(),
        60..72 => format!("({}{})", random.pick(GROUPS), several(random).join("|")),
        72..86 => format!("(?:{}){}", grown(random, depth - 1), random.pick(REPEATS)),
        _ => format!("{}{}", grown(random, depth - 1), random.pick(REPEATS)),
    }
}

/// Of one that is grown, with something taken out, put in or exchanged.
fn spoiled(random: &mut Random) -> String {
    let depth = random.between(1, 5);
    let mut out: Vec<String> = grown(random, depth).chars().map(String::from).collect();
    for _ in 0..random.between(1, 3) {
        let at = random.below(out.len() + 1);
        match random.below(3) {
            0 if at < out.len() => drop(out.remove(at)),
            1 if at < out.len() => random.pick(TOKENS).clone_into(&mut out[at]),
            _ => out.insert(at, random.pick(TOKENS).to_owned()),
        }
    }
    out.concat()
}

/// An expression; empty ones are refused by the fields that they stand in.
fn expression(random: &mut Random) -> String {
    let text = match random.below(100) {
        0..55 => {
            let depth = random.between(1, 6);
            format!(
                "{}{}",
                random.pick(&["", "", "(?i)", "(?s)"]),
                grown(random, depth)
            )
        }
        55..75 => (0..random.between(1, 8))
            .map(|_| random.pick(TOKENS))
            .collect(),
        _ => spoiled(random),
    };
    if text.is_empty() {
        "a".to_owned()
    } else {
        text
    }
}

fn cases(seed: u64, n: usize) -> Vec<Case> {
    let mut random = Random::new(seed);
    (0..n)
        .map(|_| {
            let text = expression(&mut random);
            Case {
                passes: re2::check(&text, Engine::Envoy).is_ok(),
                route: json!({
                    "match": {"prefix": "/", "headers": [
                        {"name": "x", "string_match": {"safe_regex": {"regex": text}}}]},
                    "direct_response": {"status": 200},
                }),
                text,
            }
        })
        .collect()
}

#[test]
fn fault_t9_an_expression_passes_if_envoy_takes_it() {
    compare("expressions", &cases(FIXED, 600), Depth::Slice(30));
}

#[test]
#[ignore = "minutes: make fuzz"]
fn full_expressions() {
    for seed in seeds() {
        compare("expressions", &cases(seed, 2500), Depth::Full);
    }
}

/// What Envoy's language library and ours say of many more, without Envoy: it must end, whatever is written.
#[test]
fn no_expression_stops_the_reader() {
    let mut random = Random::new(FIXED);
    for _ in 0..20_000 {
        let text = expression(&mut random);
        for engine in [Engine::Envoy, Engine::Istiod] {
            if let Err(error) = re2::check(&text, engine) {
                assert!(!error.to_string().contains(['\n', '\r', '\0']), "{text:?}");
            }
        }
    }
}

#[test]
fn fault_t9_fault_l5_the_bootstrap_takes_what_istios_takes() {
    let text = "^(?:/[a-z0-9_-]+){1,20}$";
    let options = BootstrapOptions::new("p", "127.0.0.1:1".parse().unwrap());
    let mut config = bootstrap(&options);
    let matched = json!({"prefix": "/", "headers": [{"name": "x", "string_match": {"safe_regex": {"regex": text}}}]});
    config["static_resources"]["listeners"] = json!([listener(&[
        &json!({"match": matched, "direct_response": {"status": 200}})
    ])]);
    assert_eq!(envoy::validate(&config), Ok(()));
    config["layered_runtime"] = json!({});
    let why = envoy::validate(&config).unwrap_err();
    assert!(why.contains("RE2 program size"), "{why}");
}
