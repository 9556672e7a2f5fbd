use super::*;

/// What RE2 takes in its Latin-1 mode.
const GOOD: &[&str] = &[
    "",
    "(a{10}){100}",
    "(?:(?:a{10}){10}){10}",
    "(?P<name>x)",
    "(?<name>x)",
    r"\x{7A}",
    r"\x{ff}",
    r"\p{Greek}",
    r"\p{^Greek}",
    r"\PN",
    "[^/]{1,100}",
    r"[\w-.]+",
    r"\Qa.b\E+",
    r"\Q(",
    "a{,3}",
    "a{01}",
    "a{3",
    r"a\C",
    "a*(?i)",
    "a*(?i)*",
    "a??",
    "a{2}?",
    "[]a]",
    "[^]a]",
    "[[:alpha:]-z]",
    "[[.a.]]",
    "[[:]",
    "[[:]a:",
    "[a&&b]",
    "(?i-s)a",
    "(|)*",
    "^*",
    "é漢",
    r"\<",
    r"\012",
    "(?P<x>a)(?P<x>b)",
    "^(?:/[a-z0-9_-]+){1,20}$",
];

/// What it does not take, and why.
const BAD: &[(&str, Fault)] = &[
    ("/books/[0-9]+**", Fault::RepeatedRepeat),
    ("x*+", Fault::RepeatedRepeat),
    ("a{2}{3}", Fault::RepeatedRepeat),
    ("a???", Fault::RepeatedRepeat),
    ("([a-z]{1,20}[.]){1,60}shop", Fault::RepeatProduct),
    ("(?:(?:a{10}){10}){11}", Fault::RepeatProduct),
    ("(?:a{600,}){2}", Fault::RepeatProduct),
    ("a{1001}", Fault::RepeatSize),
    ("a{3,2}", Fault::RepeatSize),
    ("(?:a{0}){1001}", Fault::RepeatSize),
    ("*a", Fault::NothingToRepeat),
    ("(+)", Fault::NothingToRepeat),
    ("a|{2}", Fault::NothingToRepeat),
    ("(?i)*", Fault::NothingToRepeat),
    (r"\Q\E*", Fault::NothingToRepeat),
    (r"[\w--\d]", Fault::Escape),
    ("[a--b]", Fault::Range),
    ("[z-a]", Fault::Range),
    ("[[:foo:]]", Fault::Range),
    ("[[:]pha:]]", Fault::Range),
    (r"\p{LU}", Fault::UnicodeGroup),
    (r"\p{Letter}", Fault::UnicodeGroup),
    (r"\pé", Fault::UnicodeGroup),
    (r"\p{L", Fault::UnicodeGroup),
    ("(?P<shelf.no>x)", Fault::GroupName),
    ("(?P<>x)", Fault::GroupName),
    ("(?P<x", Fault::GroupName),
    ("(?P=x)", Fault::GroupKind),
    ("(?=x)", Fault::GroupKind),
    ("(?<!x)", Fault::GroupKind),
    ("(?>x)", Fault::GroupKind),
    ("(?x)x", Fault::GroupKind),
    ("(?-)x", Fault::GroupKind),
    (r"\x{1F4D6}", Fault::Escape),
    (r"\x{100}", Fault::Escape),
    (r"\400", Fault::Escape),
    (r"\1", Fault::Escape),
    (r"\Z", Fault::Escape),
    (r"\u0041", Fault::Escape),
    (r"a\E", Fault::Escape),
    (r"\é", Fault::Escape),
    ("\\", Fault::Escape),
    ("[a", Fault::MissingBracket),
    ("[]", Fault::MissingBracket),
    ("(a", Fault::MissingParenthesis),
    ("a)", Fault::UnexpectedParenthesis),
];

#[test]
fn fault_t9_an_expression_is_judged_as_envoy_does() {
    for good in GOOD {
        assert_eq!(check(good, Engine::Envoy), Ok(()), "{good}");
    }
    for (bad, fault) in BAD {
        let found = check(bad, Engine::Envoy).map_err(|e| e.fault);
        assert_eq!(found, Err(*fault), "{bad}");
    }
}

#[test]
fn istiod_reads_code_points_and_has_no_bytes() {
    for good in [r"\x{1F4D6}", r"1\.2[0-9].*", r"(?P<x>é)"] {
        assert_eq!(check(good, Engine::Istiod), Ok(()), "{good}");
    }
    for bad in [r"\C", r"\x{110000}", "(?P<é>x)", "a**", "(?=x)"] {
        assert!(check(bad, Engine::Istiod).is_err(), "{bad}");
    }
}

#[test]
fn a_program_is_counted_before_a_proxy_refuses_it() {
    // What RE2 counts; here it may be a little more.
    for (text, real) in [
        ("a", 5),
        (r"\d", 5),
        (r"\w", 7),
        ("(?s).+", 7),
        (r"\p{L}", 11),
        ("[^/]{1,1000}", 3003),
        ("^(?:/[a-z0-9_-]+){1,20}$", 142),
    ] {
        let size = program_size(text, Engine::Envoy).unwrap();
        assert!((real..=real + 5).contains(&size), "{text}: {size}");
    }
    assert_eq!(
        check("[aceg]{1000}".repeat(8).as_str(), Engine::Envoy),
        Ok(())
    );
    let large = check("[aceg]{1000}".repeat(9).as_str(), Engine::Envoy);
    let size = 36_004;
    assert_eq!(large.map_err(|e| e.fault), Err(Fault::TooLarge { size }));
    assert!(check(&"a".repeat(40_000), Engine::Istiod).is_ok());
}

#[test]
fn depth_costs_no_stack() {
    let nested = |n: usize| format!("{}a{}", "(".repeat(n), ")".repeat(n));
    assert_eq!(check(&nested(1000), Engine::Envoy), Ok(()));
    let deep = check(&nested(200_000), Engine::Envoy);
    assert_eq!(deep.map_err(|e| e.fault), Err(Fault::TooDeep));
    let open = check(&"(".repeat(200_000), Engine::Envoy);
    assert_eq!(open.map_err(|e| e.fault), Err(Fault::TooDeep));
}

#[test]
fn a_message_shows_the_part_and_the_fix() {
    let error = check("/books/[0-9]+**", Engine::Envoy).unwrap_err();
    assert_eq!(error.part, "+*");
    assert!(error.to_string().contains("keep one"), "{error}");
    let error = check(&format!("{}[z-a]", "é".repeat(100)), Engine::Envoy).unwrap_err();
    assert_eq!(error.part, "z-a");
}
