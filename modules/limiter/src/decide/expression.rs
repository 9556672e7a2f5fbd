//! Expressions of `condition` and `quota`: compiled once, evaluated on doubles.
//!
//! One evaluator, the `cel` crate, after the placeholder pass in `scan.rs`. No input panics: length, nesting and operators are
//! bounded before the parser sees the text.

use std::sync::OnceLock;

use cel::{Context, Program, Value};

use super::scan::{FUNCTIONS, scan};

/// What is wrong with an expression, with the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Nothing is written.
    #[error("the expression is empty: write true for \"always\", or a comparison like {{cpu}}>0.8")]
    Empty,
    /// Over the bound.
    #[error("the expression is longer than {max} bytes: shorten it")]
    TooLong {
        /// The bound.
        max: usize,
    },
    /// A token is wrong.
    #[error("at character {position}: {problem}")]
    Syntax {
        /// From 1.
        position: usize,
        /// What is wrong.
        problem: String,
    },
    /// A call of a function that does not exist.
    #[error("unknown function \"{name}\": known are {}", known_functions())]
    UnknownFunction {
        /// As written.
        name: String,
    },
    /// A metric that no source provides.
    #[error("unknown metric \"{name}\": known here are {known}")]
    UnknownMetric {
        /// As written.
        name: String,
        /// Sorted, separated by commas.
        known: String,
    },
    /// The result has the wrong type.
    #[error("the expression evaluates to {got}, expected {expected}")]
    WrongType {
        /// What came out.
        got: &'static str,
        /// `a number` or `true or false`.
        expected: &'static str,
    },
    /// The result is infinite or not a number, mostly a division by zero.
    #[error("the expression evaluates to no finite number ({values}); is it a division by zero?")]
    NotFinite {
        /// The values used.
        values: String,
    },
    /// The evaluator refuses.
    #[error("the expression cannot be evaluated: {0}")]
    Evaluation(String),
}

impl ExpressionError {
    /// PascalCase reason for conditions and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownMetric { .. } => "UnknownMetric",
            Self::NotFinite { .. } => "NotFinite",
            _ => "InvalidExpression",
        }
    }
}

fn known_functions() -> String {
    FUNCTIONS.map(|(name, _)| name).join(", ")
}

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    program: Program,
    names: Vec<String>,
}

/// Result of an expression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// A comparison.
    Bool(bool),
    /// A finite number.
    Number(f64),
}

/// What is the same for all expressions: the functions that we document, and no others.
fn functions() -> &'static Context<'static> {
    static FUNCTIONS: OnceLock<Context<'static>> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        let mut context = Context::empty();
        context.add_function("min", |a: f64, b: f64| a.min(b));
        context.add_function("max", |a: f64, b: f64| a.max(b));
        context.add_function("ceil", f64::ceil);
        context.add_function("floor", f64::floor);
        context.add_function("round", f64::round);
        context.add_function("abs", f64::abs);
        context
    })
}

impl Expression {
    /// Compiles `text`.
    pub fn compile(text: &str) -> Result<Self, ExpressionError> {
        let scanned = scan(text)?;
        let program = Program::compile(&scanned.cel).map_err(|e| parse_error(&e.to_string()))?;
        let expression = Self {
            program,
            names: scanned.names,
        };
        Ok(expression)
    }

    /// Metric names in order of first use, as written: `cpu`, `_base.cpu.sum`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Evaluates with the value of each name, in the order of [`Self::names`].
    pub fn evaluate(&self, values: &[f64]) -> Result<Outcome, ExpressionError> {
        let mut context = functions().new_inner_scope();
        for (i, value) in values.iter().enumerate() {
            context.add_variable_from_value(format!("v{i}"), *value);
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(b)) => Ok(Outcome::Bool(b)),
            Ok(Value::Float(f)) if f.is_finite() => Ok(Outcome::Number(f)),
            Ok(Value::Float(_)) => Err(ExpressionError::NotFinite {
                values: self.show(values),
            }),
            Ok(_) => Err(ExpressionError::WrongType {
                got: "another type",
                expected: "a number or true or false",
            }),
            Err(e) => Err(ExpressionError::Evaluation(self.named(&e.to_string()))),
        }
    }

    /// Evaluates a condition. A number counts as true when it is exactly 1, as in Slime.
    #[allow(clippy::float_cmp)] // Slime's rule is exact equality with 1
    pub fn condition(&self, values: &[f64]) -> Result<bool, ExpressionError> {
        Ok(match self.evaluate(values)? {
            Outcome::Bool(b) => b,
            Outcome::Number(n) => n == 1.0,
        })
    }

    /// Evaluates a quota: a number of requests that is not rounded yet.
    pub fn number(&self, values: &[f64]) -> Result<f64, ExpressionError> {
        match self.evaluate(values)? {
            Outcome::Number(n) => Ok(n),
            Outcome::Bool(_) => Err(ExpressionError::WrongType {
                got: "true or false",
                expected: "a number of requests",
            }),
        }
    }

    /// The values by name, for messages: `cpu=0.85, pod=3`.
    pub fn show(&self, values: &[f64]) -> String {
        self.names
            .iter()
            .zip(values)
            .map(|(n, v)| format!("{n}={}", pretty(*v)))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Puts metric names back into a message of the evaluator.
    fn named(&self, message: &str) -> String {
        let mut out = message.to_owned();
        for (i, name) in self.names.iter().enumerate().rev() {
            out = out.replace(&format!("'v{i}'"), &format!("'{name}'"));
        }
        out
    }
}

/// A number for people: at most four decimals, none that are zero.
pub fn pretty(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

/// The parser's message without its source picture, which shows rewritten text.
fn parse_error(message: &str) -> ExpressionError {
    let line = message
        .lines()
        .map(str::trim)
        .find(|l| l.contains("Syntax error"))
        .or_else(|| message.lines().next())
        .unwrap_or("syntax error");
    let problem = line
        .rsplit_once("Syntax error:")
        .map_or(line, |(_, p)| p)
        // The grammar's list of what could follow helps nobody.
        .split(" expecting")
        .next()
        .unwrap_or_default()
        .trim();
    ExpressionError::Evaluation(format!(
        "syntax error: {problem}; an operator or a value is missing or misplaced"
    ))
}

#[cfg(test)]
mod tests {
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
        assert!(
            Expression::compile("cpu + true")
                .unwrap()
                .number(&[1.0])
                .is_err()
        );
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
        fn arithmetic_is_ordinary_arithmetic(a in -1e6..1e6f64, b in -1e6..1e6f64, c in 1.0..1e6f64) {
            let e = Expression::compile("{a}-{b}/{c}*2+1").unwrap();
            prop_assert!((e.number(&[a, b, c]).unwrap() - (a - b / c * 2.0 + 1.0)).abs() < 1e-6);
        }
    }
}
