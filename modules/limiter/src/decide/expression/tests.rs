//! Expressions: values, missing values, messages.

use super::*;
use proptest::prelude::*;

fn number(text: &str, values: &[f64]) -> f64 {
    Expression::compile(text).unwrap().number(values).unwrap()
}

fn truth(text: &str, values: &[f64]) -> bool {
    Expression::compile(text)
        .unwrap()
        .condition(values)
        .unwrap()
}

#[test]
fn three_spellings_are_one_expression() {
    for text in [
        "{cpu}>0.8",
        "{{.cpu}} > 0.8",
        "cpu > 0.8",
        "{{index . \"cpu\"}}>0.8",
    ] {
        assert!(truth(text, &[0.85]), "{text}");
        assert!(!truth(text, &[0.5]), "{text}");
    }
    let e = Expression::compile("{{._base.cpu.sum}}>100 && pod>=2").unwrap();
    assert_eq!(e.names(), ["_base.cpu.sum", "pod"]);
}

#[test]
fn series_of_a_group_are_named_in_quotes() {
    let text = r#"{{index . "{version=\"v1\",zone=\"a b\"}"}} > {{index ._base "cpu.sum"}}"#;
    let e = Expression::compile(text).unwrap();
    assert_eq!(e.names(), [r#"{version="v1",zone="a b"}"#, "_base.cpu.sum"]);
    for bad in [
        r#"{{index . "a}}"#,
        "{{index . }}",
        r#"{{index . "a b"}}"#,
        r#"{{index . "\"}}"#,
    ] {
        assert!(Expression::compile(bad).is_err(), "{bad}");
    }
}

#[test]
fn l5_less_than_works() {
    assert!(truth("5<6", &[]));
    assert!(truth("{rt99} <= 250.5", &[250.5]));
}

#[test]
fn l6_reals_are_reals() {
    assert!(truth("0.5>0.3", &[]));
    assert!((number("1/4", &[]) - 0.25).abs() < 1e-12);
}

#[test]
fn l7_minus_and_division_associate_to_the_left() {
    assert!((number("10-3-2", &[]) - 5.0).abs() < 1e-12);
    assert!((number("100/10/2", &[]) - 5.0).abs() < 1e-12);
    assert!((number("12/2*3", &[]) - 18.0).abs() < 1e-12);
}

#[test]
fn l8_names_that_are_prefixes_of_each_other_live_together() {
    let e = Expression::compile("{cpu} + {cpu.sum}").unwrap();
    assert_eq!(e.names(), ["cpu", "cpu.sum"]);
    assert!((e.number(&[1.0, 2.0]).unwrap() - 3.0).abs() < 1e-12);
}

#[test]
fn slime_logic_operators_and_spaces_work() {
    assert!(truth("1>2|3>2", &[]));
    assert!(!truth("1>2&3>2", &[]));
    assert!(truth("(3 > 2) && !(1 > 2)", &[]));
    assert!(truth("1", &[]));
}

#[test]
fn functions_and_choice() {
    assert!((number("max(2, min(9, pod*2))", &[3.0]) - 6.0).abs() < 1e-12);
    assert!((number("cpu > 0.9 ? 10 : 20", &[0.95]) - 10.0).abs() < 1e-12);
}

#[test]
fn errors_say_what_to_change() {
    let cases = [
        ("", "empty"),
        ("{{if .a}}1{{end}}", "template statements"),
        ("{cpu", "not closed"),
        ("cpu > ", "missing"),
        ("(1", "not closed"),
        ("1)", "not opened"),
        ("5m > 1", "no units"),
        ("rate(cpu)", "unknown function"),
        ("1.2.3", "not a number"),
        ("cpu @ 1", "no meaning"),
    ];
    for (text, want) in cases {
        let error = Expression::compile(text).unwrap_err().to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
    let error = Expression::compile("30/{pod}")
        .unwrap()
        .number(&[0.0])
        .unwrap_err();
    assert!(error.to_string().contains("pod=0"), "{error}");
    assert_eq!(error.reason(), "NotFinite");
    assert!(Expression::compile("cpu + true").is_err());
}

/// What a text gives with every metric at a value: a value, or why there is none.
fn result(text: &str, values: &[f64]) -> Result<Outcome, String> {
    let e = Expression::compile(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    e.evaluate(values).map_err(|e| e.to_string())
}

#[test]
fn fault_l6_a_division_by_zero_has_no_value() {
    for text in [
        "{a}/{b} > 0.2",
        "{a}/{b} < 0.2",
        "{a}/{b} == {a}/{b}",
        "{a}/{b} != 1",
        "!({a}/{b} > 0.2)",
        "({a}/{b} > 0.2) == false",
        "{a}/{b} > 1 ? 1 : 2",
        "{a} == {a} ? {a}/{b} : 2",
        "min(100, {a}/{b})",
        "max({a}/{b}, 7)",
        "max(1, 2, {a}/{b})",
        "ceil({a}/{b})",
        "floor({a}/{b})",
        "round({a}/{b})",
        "abs(-({a}/{b}))",
        "1/({a}/{b})",
        "({a}/{b})*0",
        "{a}/{b} > 0.2 && {b} == 0",
        "{a}/{b} > 0.2 || {b} > 0",
    ] {
        for a in [0.0, 1.0, -1.0] {
            let told = result(text, &[a, 0.0]).unwrap_err();
            let wanted = format!("{{a}}/{{b}} is {}/0, a division by zero", pretty(a));
            assert!(told.contains(&wanted), "{text}: {told}");
            assert!(
                told.contains(&format!("a={}, b=0", pretty(a))),
                "{text}: {told}"
            );
        }
    }
    for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for text in [
            "{a} > 1",
            "{a} == {a}",
            "!({a} < 1)",
            "min({a}, 1)",
            "{a} > 0 ? 1 : 2",
        ] {
            let told = result(text, &[odd]).unwrap_err();
            assert!(told.contains("{a} is no finite number"), "{text}: {told}");
        }
    }
    assert!(result("1e300*1e300 > 1", &[]).is_err());
    assert!(result("-1e300-1e308*10 < 1", &[]).is_err());
}

#[test]
fn fault_l6_what_does_not_need_the_value_has_one() {
    for (text, wanted) in [
        ("{b} > 0 && {a}/{b} > 0.2", Outcome::Bool(false)),
        ("{a}/{b} > 0.2 && {b} > 0", Outcome::Bool(false)),
        ("{b} == 0 || {a}/{b} > 0.2", Outcome::Bool(true)),
        ("{b} > 0 ? {a}/{b} : 7", Outcome::Number(7.0)),
    ] {
        assert_eq!(result(text, &[0.0, 0.0]), Ok(wanted), "{text}");
    }
}

/// Expressions with a mistake: the character that is named, and the fix.
const MESSAGES: &[(&str, usize, &str)] = &[
    ("pod > 1 and pod < 9", 9, "write && instead of and"),
    ("pod > 1 OR pod < 9", 9, "write || instead of OR"),
    ("not pod > 1", 1, "write ! instead of not"),
    ("not (pod > 1)", 1, "write ! instead of not"),
    ("if pod > 1 then 3", 1, "write a ? b : c instead of if"),
    ("pod > 1 && TRUE", 12, "write true instead of TRUE"),
    ("False", 1, "write false instead of False"),
    ("always", 1, "write true instead of always"),
    ("1 < pod < 9", 8, "write 1 < pod && pod < 9"),
    ("9 >= {pod} > 1", 11, "write 9 >= {pod} && {pod} > 1"),
    ("pod > 1,5", 8, "write 1.5"),
    ("pod, 3", 4, "between the values of min and max"),
    ("100/s", 5, "write 100, and the time in fill_interval"),
    (
        "100 / minute",
        7,
        "write 100, and the time in fill_interval",
    ),
    ("min() > 1", 1, "min takes two or more values"),
    ("max(3) > 1", 1, "max takes two or more values"),
    ("ceil() > 1", 1, "ceil takes one value"),
    ("abs(1, 2)", 1, "abs takes one value"),
    ("pod = 3", 5, "write == instead of ="),
    ("pod => 3", 5, "write >= instead of =>"),
    ("pod =< 3", 5, "write <= instead of =<"),
    ("cpu > 80%", 9, "no operator %"),
    ("{cpu}>", 7, "a value is missing after \">\""),
    ("> 5", 1, "a value is missing in front of \">\""),
    ("pod + * 3", 6, "a value is missing after \"+\""),
    ("()", 2, "a value is missing after \"(\""),
    (
        "pod 5",
        5,
        "an operator is missing between \"pod\" and \"5\"",
    ),
    ("(pod > 1) (pod < 3)", 11, "an operator is missing"),
    ("pod && pod > 1", 1, "write for example pod > 0"),
    ("!pod", 2, "write for example pod > 0"),
    ("pod > 1 ? 3", 12, "the part after : is missing"),
    ("pod ? 3 : 4", 1, "write for example pod > 0"),
    ("pod > 1 ? 3 : true", 15, "both sides of :"),
    ("pod > (cpu > 1)", 7, "true or false"),
    ("größe > 1", 3, "no meaning here"),
];

#[test]
fn fault_l17_messages_name_the_place_and_the_fix() {
    for (text, position, fix) in MESSAGES {
        let told = match Expression::compile(text) {
            Err(ExpressionError::Syntax {
                position: at,
                problem,
            }) => (at, problem),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(told.0, *position, "{text}: {}", told.1);
        assert!(told.1.contains(*fix), "{text}: {}", told.1);
    }
    for fine in [
        "min(1,5) > 1",
        "min(1, 2, 3)",
        "(pod > 1) == (cpu > 1)",
        "and_more > 1",
        "{s}/{m}",
    ] {
        assert!(Expression::compile(fine).is_ok(), "{fine}");
    }
}

/// Numbers and truth values of any depth, in the syntax.
fn tree() -> impl Strategy<Value = String> {
    let number = prop::sample::select(vec!["{a}", "{b}", "{c}", "0", "0.5", "3", "1e300"]);
    let number = number
        .prop_map(str::to_owned)
        .prop_recursive(4, 24, 3, |inner| {
            let operator = prop::sample::select(vec!["+", "-", "*", "/"]);
            let compare = prop::sample::select(vec!["<", "<=", ">", ">=", "==", "!="]);
            let two = prop::sample::select(vec!["min", "max"]);
            let one = prop::sample::select(vec!["ceil", "floor", "round", "abs", "-"]);
            prop_oneof![
                (inner.clone(), operator, inner.clone())
                    .prop_map(|(a, o, b)| format!("({a} {o} {b})")),
                (two, inner.clone(), inner.clone()).prop_map(|(f, a, b)| format!("{f}({a}, {b})")),
                (one, inner.clone()).prop_map(|(f, a)| format!("{f}({a})")),
                (inner.clone(), compare, inner.clone(), inner.clone())
                    .prop_map(|(a, o, b, c)| format!("({a} {o} {b} ? {b} : {c})")),
            ]
        });
    let compare = prop::sample::select(vec!["<", "<=", ">", ">=", "==", "!="]);
    let truth = (number.clone(), compare, number.clone());
    let truth = truth.prop_map(|(a, o, b)| format!("({a} {o} {b})"));
    let truth = truth.prop_recursive(2, 8, 2, |inner| {
        let operator = prop::sample::select(vec!["&&", "||", "==", "!="]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, o, b)| format!("({a} {o} {b})")),
            inner.prop_map(|a| format!("!{a}")),
        ]
    });
    prop_oneof![number, truth]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_gives_a_result_or_an_error(text in ".{0,200}") {
        if let Ok(e) = Expression::compile(&text) {
            let values = vec![1.5; e.names().len()];
            let _ = e.evaluate(&values);
        }
    }

    #[test]
    fn any_token_soup_gives_a_result_or_an_error(tokens in prop::collection::vec(prop::sample::select(vec![
        "{cpu}", "{{._base.pod}}", "cpu.sum", "1", "0", "0.5", "1e9", "(", ")", "+", "-", "*", "/", "<", ">", ">=", "==", "!=", "!",
        "&", "|", "&&", "||", "?", ":", ",", "min(", "true", "false", " ", "in", "null", "{", "}", "{{", "}}", ".", "[", "]", "'", "\"", "\\", "é",
    ]), 0..60)) {
        let text = tokens.concat();
        if let Ok(e) = Expression::compile(&text) {
            let values = vec![0.0; e.names().len()];
            let _ = e.evaluate(&values);
        }
    }

    #[test]
    fn fault_l6_a_value_is_never_infinite_or_not_a_number(
        tree in tree(),
        values in prop::collection::vec(prop::sample::select(vec![
            0.0, -0.0, 1.0, -2.5, 1e308, -1e308, f64::NAN, f64::INFINITY, f64::NEG_INFINITY,
        ]), 3),
    ) {
        let e = Expression::compile(&tree).unwrap();
        let values: Vec<f64> = e.names().iter().map(|name| match name.as_str() {
            "a" => values[0],
            "b" => values[1],
            _ => values[2],
        }).collect();
        // Arithmetic alone decides nothing else: one part without a value and there is none.
        let strict = !tree.contains(['&', '|', '?']);
        match e.evaluate(&values) {
            Ok(Outcome::Number(n)) => prop_assert!(n.is_finite(), "{tree}: {n}"),
            Ok(Outcome::Bool(_)) | Err(ExpressionError::NotFinite { .. }) => {}
            Err(other) => prop_assert!(false, "{tree}: {other}"),
        }
        if strict && values.iter().any(|v| !v.is_finite()) {
            prop_assert!(e.evaluate(&values).is_err(), "{tree} with {values:?}");
        }
    }

    #[test]
    fn arithmetic_is_ordinary_arithmetic(a in -1e6..1e6f64, b in -1e6..1e6f64, c in 1.0..1e6f64) {
        let e = Expression::compile("{a}-{b}/{c}*2+1").unwrap();
        prop_assert!((e.number(&[a, b, c]).unwrap() - (a - b / c * 2.0 + 1.0)).abs() < 1e-6);
    }
}
