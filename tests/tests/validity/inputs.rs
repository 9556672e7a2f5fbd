//! Configurations and expressions of limiters that nobody meant: each is an error or a value, and nothing stops.

use trimtab::config::Config;
use trimtab_limiter::decide::expression::Expression;

use super::random::{FIXED, Random, seeds};

/// A configuration with many keys.
const CONFIGURATION: &str = "
http: {address: '127.0.0.1:8080'}
xds: {address: '127.0.0.1:15010', advertise: 'trimtab.istio-system.svc:15010'}
mesh: {domain: cluster.local}
metrics:
  prometheus: {address: 'http://prometheus:9090', timeout: 2s}
limiter:
  refresh: 5s
  holdFor: 60s
  delivery: ECDS
  proxyVersion: '^1\\.2[0-9].*'
  exportLimiters: 100
lazyload:
  enabled: true
  domainAliases:
  - {pattern: '(?P<service>[^.]+)\\.shop', templates: ['$service.shop.svc.cluster.local']}
  fallback:
    wormholePort: ['9080']
    proxyVersion: '^1\\.2.*'
    dispatches:
    - {name: a, domains: ['*.example.com'], cluster: PassthroughCluster}
    - {name: b, domainRegex: '[a-z]+\\.example\\.org', cluster: _GLOBAL_SIDECAR}
  writes: {gather: 100ms, perMinute: 60}
metaprotocol:
  dataPlane: Auto
  debounce: 20ms
  proxyVersion: ''
  tracing: {sampling: 10}
";

const VALUES: &[&str] = &[
    "",
    "~",
    "null",
    "true",
    "-1",
    "0",
    "1.5",
    "1e400",
    "99999999999999999999",
    "0x1F",
    "5s",
    "-5s",
    "2562047h47m16.854775807s",
    "''",
    "'a**'",
    "'('",
    "'[\\w--\\d]'",
    "'\\x{100}'",
    "{}",
    "[]",
    "[[]]",
    "{a: 1}",
    "{a: {a: {a: {a: 1}}}}",
    "'127.0.0.1:99999'",
    "'a b'",
    "'é'",
    "\"\\0\"",
    "\"\\n\"",
    "!!binary AA==",
    "&a [*a]",
    "*nowhere",
    "|",
    "- a",
    "{",
    "'",
];

/// One configuration, changed at one to three places.
fn configuration(random: &mut Random) -> String {
    let mut lines: Vec<String> = CONFIGURATION.lines().map(str::to_owned).collect();
    for _ in 0..random.between(1, 3) {
        let at = random.below(lines.len());
        let line = lines[at].clone();
        lines[at] = match (random.below(5), line.rsplit_once(": ")) {
            (0, _) => String::new(),
            (1, _) => format!("{line}\n{line}"),
            (2, _) => format!("{}{line}", " ".repeat(random.below(4))),
            (_, Some((key, _))) => format!("{key}: {}", random.pick(VALUES)),
            (_, None) => format!("{line} {}", random.pick(VALUES)),
        };
    }
    lines.join("\n")
}

fn configurations(seed: u64, n: usize) {
    Config::parse(CONFIGURATION).expect("it is good before it is changed");
    let mut random = Random::new(seed);
    let mut taken = 0;
    for _ in 0..n {
        let text = configuration(&mut random);
        match Config::parse(&text) {
            Ok(config) => {
                taken += 1;
                let again = config.effective().check();
                assert!(again.is_ok(), "{again:?}\n{text}");
            }
            Err(error) => assert!(!format!("{error:#}").is_empty(), "{text}"),
        }
    }
    println!("configurations: {taken} of {n} are taken");
    assert!(taken > 0 && taken < n, "both kinds are there");
}

const PIECES: &[&str] = &[
    "{cpu}",
    "{pod}",
    "{{._base.cpu.sum}}",
    "{{._base.pod}}",
    "{{.v1.memory.max}}",
    "cpu",
    "cpu.max",
    "pod",
    "1",
    "0",
    "100",
    "0.8",
    ".5",
    "1e9",
    "1e309",
    "-",
    "+",
    "*",
    "/",
    "%",
    ">",
    "<",
    ">=",
    "==",
    "!=",
    "=",
    "&&",
    "||",
    "!",
    "(",
    ")",
    "((",
    "[",
    "]",
    "{",
    "}",
    "{{",
    "}}",
    "?",
    ":",
    ",",
    ".",
    "true",
    "false",
    "null",
    "\"a\"",
    "'a'",
    "ceil(",
    "floor(",
    "max(",
    "size(",
    "[1].map(x, x)",
    "\\",
    "\"",
    "\n",
    "\0",
    "é",
    " ",
    "//",
    "in",
    "_",
    "v0",
    "v99",
    "int(",
    "\u{feff}",
];

/// Mostly valid.
fn grown(random: &mut Random, depth: usize) -> String {
    const ATOMS: &[&str] = &[
        "{cpu}",
        "{pod}",
        "cpu.max",
        "pod",
        "1",
        "0.8",
        "100",
        "{{._base.cpu.sum}}",
    ];
    const OPERATORS: &[&str] = &["+", "-", "*", "/", " > ", " <= ", " == ", " && ", " || "];
    match random.below(6) {
        _ if depth == 0 => random.pick(ATOMS).to_owned(),
        0 | 1 => random.pick(ATOMS).to_owned(),
        2 => format!("({})", grown(random, depth - 1)),
        3 => format!(
            "{}{})",
            random.pick(&["ceil(", "floor(", "abs("]),
            grown(random, depth - 1)
        ),
        _ => {
            let (left, right) = (grown(random, depth - 1), grown(random, depth - 1));
            format!("{left}{}{right}", random.pick(OPERATORS))
        }
    }
}

fn limiter_expression(random: &mut Random) -> String {
    let depth = random.between(1, 5);
    let text = grown(random, depth);
    if random.percent(40) {
        return text;
    }
    let mut out: Vec<String> = text.chars().map(String::from).collect();
    for _ in 0..random.between(1, 4) {
        let at = random.below(out.len() + 1);
        out.insert(at, random.pick(PIECES).to_owned());
    }
    if random.percent(2) {
        return out.concat().repeat(random.between(1, 3000));
    }
    out.concat()
}

fn limiter_expressions(seed: u64, n: usize) {
    let mut random = Random::new(seed);
    let mut compiled = 0;
    for _ in 0..n {
        let text = limiter_expression(&mut random);
        match Expression::compile(&text) {
            Ok(expression) => {
                compiled += 1;
                for value in [0.0, 1.0, -1.5, 1e308, f64::NAN, f64::INFINITY] {
                    let values = vec![value; expression.names().len()];
                    let _ = expression.number(&values);
                    let _ = expression.condition(&values);
                }
            }
            Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
        }
    }
    println!("expressions of limiters: {compiled} of {n} compile");
    assert!(compiled > 0 && compiled < n, "both kinds are there");
}

#[test]
fn no_configuration_and_no_expression_stops_it() {
    configurations(FIXED, 200);
    limiter_expressions(FIXED, 1000);
}

#[test]
#[ignore = "minutes: make fuzz"]
fn full_inputs() {
    for seed in seeds() {
        configurations(seed, 2500);
        limiter_expressions(seed, 10_000);
    }
}
