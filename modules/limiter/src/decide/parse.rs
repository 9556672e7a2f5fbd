//! From tokens to a tree in which every part is known to be a number or a truth value.
//!
//! Precedence is CEL's: `?:`, then `||`, `&&`, comparisons, `+ -`, `* /`, and `! -` in front of a value. A mistake is named
//! with its place and what to write.

use super::error::ExpressionError;
use super::scan::{Function, Scanned, Token, What, position};

/// What comes out of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Truth,
}

/// A part of an expression.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub node: Node,
    pub kind: Kind,
    /// Where it is written, in bytes.
    pub from: usize,
    pub to: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Number(f64),
    Truth(bool),
    Variable(usize),
    Not(Box<Part>),
    Negative(Box<Part>),
    Two(&'static str, Box<Part>, Box<Part>),
    Choice(Box<[Part; 3]>),
    Call(Function, Vec<Part>),
}

/// Units of time that people write behind a quota.
const UNITS: [&str; 12] = [
    "s", "sec", "second", "seconds", "m", "min", "minute", "minutes", "h", "hour", "hours", "ms",
];

struct Parser<'a> {
    text: &'a str,
    tokens: &'a [Token],
    at: usize,
}

/// Parses what was scanned.
pub(super) fn parse(text: &str, scanned: &Scanned) -> Result<Part, ExpressionError> {
    let mut parser = Parser {
        text,
        tokens: &scanned.tokens,
        at: 0,
    };
    let whole = parser.choice()?;
    match parser.tokens.get(parser.at) {
        None => Ok(whole),
        Some(rest) => Err(parser.unexpected(rest)),
    }
}

impl Parser<'_> {
    fn error(&self, at: usize, problem: impl Into<String>) -> ExpressionError {
        ExpressionError::Syntax {
            position: position(self.text, at),
            problem: problem.into(),
        }
    }

    fn written(&self, from: usize, to: usize) -> &str {
        self.text.get(from..to).unwrap_or_default()
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn operator(&self, of: &[&'static str]) -> Option<&'static str> {
        match self.peek()?.what {
            What::Operator(operator) if of.contains(&operator) => Some(operator),
            _ => None,
        }
    }

    /// What stands where the expression should end.
    fn unexpected(&self, rest: &Token) -> ExpressionError {
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        let after = self.tokens.get(self.at + 1);
        let number = |token: Option<&Token>| match token {
            Some(token) if matches!(token.what, What::Number(_)) => {
                Some(self.written(token.from, token.to))
            }
            _ => None,
        };
        if rest.what == What::Operator(",") {
            return match (number(before), number(after)) {
                (Some(whole), Some(part)) => {
                    let fix = format!("write {whole}.{part}: decimals come after a dot");
                    self.error(rest.from, fix)
                }
                _ => self.error(
                    rest.from,
                    "a comma stands only between the values of min and max",
                ),
            };
        }
        let here = self.written(rest.from, rest.to);
        match before {
            Some(before) if !matches!(rest.what, What::Operator(_) | What::Close) => {
                let before = self.written(before.from, before.to);
                let problem = format!("an operator is missing between \"{before}\" and \"{here}\"");
                self.error(rest.from, problem)
            }
            _ => self.error(rest.from, format!("\"{here}\" has no meaning here")),
        }
    }

    fn choice(&mut self) -> Result<Part, ExpressionError> {
        let condition = self.binary(0)?;
        if self.operator(&["?"]).is_none() {
            return Ok(condition);
        }
        self.needs(&condition, Kind::Truth, "?")?;
        self.at += 1;
        let then = self.choice()?;
        if self.operator(&[":"]).is_none() {
            let at = self.peek().map_or(self.text.len(), |t| t.from);
            return Err(self.error(at, "write a ? b : c: the part after : is missing"));
        }
        self.at += 1;
        let otherwise = self.choice()?;
        if then.kind != otherwise.kind {
            let problem = "both sides of : must be numbers, or both true or false";
            return Err(self.error(otherwise.from, problem));
        }
        Ok(Part {
            kind: then.kind,
            from: condition.from,
            to: otherwise.to,
            node: Node::Choice(Box::new([condition, then, otherwise])),
        })
    }

    /// Operators of one level and the tighter ones.
    fn binary(&mut self, level: usize) -> Result<Part, ExpressionError> {
        const LEVELS: [&[&str]; 5] = [
            &["||"],
            &["&&"],
            &["<", "<=", ">", ">=", "==", "!="],
            &["+", "-"],
            &["*", "/"],
        ];
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = self.operator(operators) {
            self.at += 1;
            let right = self.binary(level + 1)?;
            left = self.join(operator, left, right)?;
        }
        Ok(left)
    }

    fn join(
        &self,
        operator: &'static str,
        left: Part,
        right: Part,
    ) -> Result<Part, ExpressionError> {
        let kind = match operator {
            "||" | "&&" => {
                self.needs(&left, Kind::Truth, operator)?;
                self.needs(&right, Kind::Truth, operator)?;
                Kind::Truth
            }
            "==" | "!=" if left.kind == right.kind => Kind::Truth,
            "<" | "<=" | ">" | ">=" | "==" | "!=" => {
                self.not_chained(operator, &left, &right)?;
                self.needs(&left, Kind::Number, operator)?;
                self.needs(&right, Kind::Number, operator)?;
                Kind::Truth
            }
            _ => {
                self.no_unit(operator, &left, &right)?;
                self.needs(&left, Kind::Number, operator)?;
                self.needs(&right, Kind::Number, operator)?;
                Kind::Number
            }
        };
        Ok(Part {
            kind,
            from: left.from,
            to: right.to,
            node: Node::Two(operator, Box::new(left), Box::new(right)),
        })
    }

    /// `1 < pod < 9`.
    fn not_chained(
        &self,
        operator: &str,
        left: &Part,
        right: &Part,
    ) -> Result<(), ExpressionError> {
        let Node::Two(first, low, middle) = &left.node else {
            return Ok(());
        };
        let closed = self.written(left.to, right.from).contains(')');
        if !["<", "<=", ">", ">="].contains(first) || closed {
            return Ok(());
        }
        let text = |part: &Part| self.written(part.from, part.to).to_owned();
        let (low, middle, high) = (text(low), text(middle), text(right));
        let problem = format!(
            "comparisons cannot be chained: write {low} {first} {middle} && {middle} {operator} {high}"
        );
        Err(self.error(left.to, problem))
    }

    /// `100/s`.
    fn no_unit(&self, operator: &str, left: &Part, right: &Part) -> Result<(), ExpressionError> {
        let unit = self.written(right.from, right.to);
        let last = self.at == self.tokens.len();
        if operator != "/" || !last || !UNITS.contains(&unit) {
            return Ok(());
        }
        let number = self.written(left.from, left.to);
        let problem = format!(
            "a quota is a number of requests: write {number}, and the time in fill_interval"
        );
        Err(self.error(right.from, problem))
    }

    fn needs(&self, part: &Part, kind: Kind, operator: &str) -> Result<(), ExpressionError> {
        if part.kind == kind {
            return Ok(());
        }
        let text = self.written(part.from, part.to);
        let problem = match kind {
            Kind::Truth => format!(
                "{operator} needs a comparison and \"{text}\" is a number: write for example {text} > 0"
            ),
            Kind::Number => {
                format!(
                    "{operator} needs numbers and \"{text}\" is true or false: write for example {text} ? 1 : 0 in parentheses"
                )
            }
        };
        Err(self.error(part.from, problem))
    }

    fn unary(&mut self) -> Result<Part, ExpressionError> {
        let Some(operator) = self.operator(&["!", "-"]) else {
            return self.value();
        };
        let from = self.peek().map_or(0, |t| t.from);
        self.at += 1;
        let inner = self.unary()?;
        let (kind, to) = (inner.kind, inner.to);
        let node = if operator == "!" {
            self.needs(&inner, Kind::Truth, operator)?;
            Node::Not(Box::new(inner))
        } else {
            self.needs(&inner, Kind::Number, operator)?;
            Node::Negative(Box::new(inner))
        };
        Ok(Part {
            node,
            kind,
            from,
            to,
        })
    }

    fn value(&mut self) -> Result<Part, ExpressionError> {
        let Some(token) = self.peek().cloned() else {
            return Err(self.missing(None));
        };
        let (node, kind) = match token.what {
            What::Number(number) => (Node::Number(number), Kind::Number),
            What::Truth(truth) => (Node::Truth(truth), Kind::Truth),
            What::Variable(index) => (Node::Variable(index), Kind::Number),
            What::Function(function) => return self.call(function, &token),
            What::Open => return self.parentheses(&token),
            What::Operator(_) | What::Close => return Err(self.missing(Some(&token))),
        };
        self.at += 1;
        Ok(Part {
            node,
            kind,
            from: token.from,
            to: token.to,
        })
    }

    /// A value is missing in front of a token, or at the end.
    fn missing(&self, here: Option<&Token>) -> ExpressionError {
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        let text = |token: &Token| self.written(token.from, token.to).to_owned();
        match (before, here) {
            (Some(before), _) => {
                let problem = format!("a value is missing after \"{}\"", text(before));
                self.error(before.to, problem)
            }
            (None, Some(here)) => {
                let problem = format!("a value is missing in front of \"{}\"", text(here));
                self.error(here.from, problem)
            }
            (None, None) => ExpressionError::Empty,
        }
    }

    fn parentheses(&mut self, open: &Token) -> Result<Part, ExpressionError> {
        self.at += 1;
        let inner = self.choice()?;
        let to = self.close()?;
        Ok(Part {
            from: open.from,
            to,
            ..inner
        })
    }

    fn close(&mut self) -> Result<usize, ExpressionError> {
        match self.peek() {
            Some(token) if token.what == What::Close => {
                let to = token.to;
                self.at += 1;
                Ok(to)
            }
            Some(other) => Err(self.unexpected(other)),
            None => Err(self.error(self.text.len(), "a parenthesis is not closed")),
        }
    }

    fn call(&mut self, function: Function, name: &Token) -> Result<Part, ExpressionError> {
        // The scanner has seen the parenthesis.
        self.at += 2;
        let mut arguments = Vec::new();
        if !self.peek().is_some_and(|t| t.what == What::Close) {
            arguments.push(self.choice()?);
            while self.operator(&[","]).is_some() {
                self.at += 1;
                arguments.push(self.choice()?);
            }
        }
        let to = self.close()?;
        let title = function.title();
        let (enough, takes) = match function {
            Function::Min | Function::Max => (arguments.len() >= 2, "two or more values"),
            _ => (arguments.len() == 1, "one value"),
        };
        if !enough {
            return Err(self.error(name.from, format!("{title} takes {takes}")));
        }
        for argument in &arguments {
            self.needs(argument, Kind::Number, title)?;
        }
        Ok(Part {
            node: Node::Call(function, arguments),
            kind: Kind::Number,
            from: name.from,
            to,
        })
    }
}
