//! Expressions of `condition` and `quota`: compiled once, evaluated on doubles.
//!
//! The syntax is CEL's, cut to what a limit needs (`scan.rs`, `parse.rs`), with values that may be missing: where a part
//! gives no finite number there is no value, and what needs it has none either. No input panics: length, nesting and
//! operators are bounded before the parser sees the tokens.

pub use super::error::ExpressionError;
use super::parse::{Kind, Node, Part, parse};
use super::scan::{Function, scan};

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    text: Box<str>,
    tree: Part,
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

/// A part that has no value, and why.
struct NoValue(String);

impl Expression {
    /// Compiles `text`.
    pub fn compile(text: &str) -> Result<Self, ExpressionError> {
        let scanned = scan(text)?;
        let tree = parse(text, &scanned)?;
        Ok(Self {
            text: text.into(),
            tree,
            names: scanned.names,
        })
    }

    /// Whether it gives a number; else it gives true or false.
    pub fn is_number(&self) -> bool {
        self.tree.kind == Kind::Number
    }

    /// Metric names in order of first use, as written: `cpu`, `_base.cpu.sum`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Evaluates with the value of each name, in the order of [`Self::names`].
    pub fn evaluate(&self, values: &[f64]) -> Result<Outcome, ExpressionError> {
        self.value(&self.tree, values).map_err(|NoValue(what)| {
            let values = self.show(values);
            ExpressionError::NotFinite {
                what: if values.is_empty() {
                    what
                } else {
                    format!("{what} ({values})")
                },
            }
        })
    }

    fn value(&self, part: &Part, values: &[f64]) -> Result<Outcome, NoValue> {
        let number = |part: &Part| self.of_number(part, values);
        let truth = |part: &Part| self.of_truth(part, values);
        Ok(match &part.node {
            Node::Number(number) => Outcome::Number(*number),
            Node::Truth(truth) => Outcome::Bool(*truth),
            Node::Variable(index) => {
                let value = values.get(*index).copied().unwrap_or(f64::NAN);
                let what = format!("{} is no finite number", self.written(part));
                Outcome::Number(finite(value, || what)?)
            }
            Node::Not(inner) => Outcome::Bool(!truth(inner)?),
            Node::Negative(inner) => Outcome::Number(-number(inner)?),
            Node::Two(operator @ ("&&" | "||"), left, right) => {
                // One side can decide alone, also when the other has no value.
                let decides = *operator == "||";
                let (left, right) = match truth(left) {
                    Ok(value) if value == decides => return Ok(Outcome::Bool(value)),
                    left => (left, truth(right)),
                };
                match right {
                    Ok(value) if value == decides => Outcome::Bool(value),
                    right => left.and(right).map(Outcome::Bool)?,
                }
            }
            Node::Two(operator, left, right) if left.kind == Kind::Truth => {
                Outcome::Bool((truth(left)? == truth(right)?) == (*operator == "=="))
            }
            Node::Two(operator, left, right) => {
                let text = self.text.get(left.from..right.to).unwrap_or_default();
                two(text, operator, number(left)?, number(right)?)?
            }
            Node::Choice(parts) => {
                let [condition, then, otherwise] = parts.as_ref();
                let chosen = if truth(condition)? { then } else { otherwise };
                self.value(chosen, values)?
            }
            Node::Call(function, arguments) => {
                let arguments: Vec<f64> = arguments.iter().map(number).collect::<Result<_, _>>()?;
                Outcome::Number(call(*function, &arguments))
            }
        })
    }

    fn of_number(&self, part: &Part, values: &[f64]) -> Result<f64, NoValue> {
        match self.value(part, values)? {
            Outcome::Number(number) => Ok(number),
            Outcome::Bool(truth) => Ok(f64::from(u8::from(truth))),
        }
    }

    fn of_truth(&self, part: &Part, values: &[f64]) -> Result<bool, NoValue> {
        match self.value(part, values)? {
            Outcome::Bool(truth) => Ok(truth),
            Outcome::Number(_) => Err(NoValue(format!("{} is a number", self.written(part)))),
        }
    }

    /// A part as the user wrote it.
    fn written(&self, part: &Part) -> &str {
        self.text.get(part.from..part.to).unwrap_or_default()
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
}

fn finite(value: f64, why: impl FnOnce() -> String) -> Result<f64, NoValue> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(NoValue(why()))
    }
}

/// A comparison or a computation of two numbers, which is written as `text`.
#[allow(clippy::float_cmp)] // equality is what the user asks for
fn two(text: &str, operator: &str, left: f64, right: f64) -> Result<Outcome, NoValue> {
    let number = match operator {
        "<" => return Ok(Outcome::Bool(left < right)),
        "<=" => return Ok(Outcome::Bool(left <= right)),
        ">" => return Ok(Outcome::Bool(left > right)),
        ">=" => return Ok(Outcome::Bool(left >= right)),
        "==" => return Ok(Outcome::Bool(left == right)),
        "!=" => return Ok(Outcome::Bool(left != right)),
        "+" => left + right,
        "-" => left - right,
        "*" => left * right,
        _ => left / right,
    };
    let why = || {
        let (left, right) = (pretty(left), pretty(right));
        if operator == "/" && right == "0" {
            format!("{text} is {left}/{right}, a division by zero")
        } else {
            format!("{text} is no finite number: {left} {operator} {right}")
        }
    };
    finite(number, why).map(Outcome::Number)
}

fn call(function: Function, arguments: &[f64]) -> f64 {
    let all = arguments.iter().copied();
    let first = arguments.first().copied().unwrap_or(f64::NAN);
    match function {
        Function::Min => all.fold(f64::INFINITY, f64::min),
        Function::Max => all.fold(f64::NEG_INFINITY, f64::max),
        Function::Ceil => first.ceil(),
        Function::Floor => first.floor(),
        Function::Round => first.round(),
        Function::Abs => first.abs(),
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

#[cfg(test)]
mod tests;
