//! The placeholder pass: turns the three spellings of expressions into one CEL text over flat variables.
//!
//! | spelling | example |
//! |---|---|
//! | first form | `{cpu}>0.8` |
//! | Slime templates | `{{._base.cpu.sum}}>100`, `{{index ._base "cpu.sum"}}` |
//! | plain CEL | `cpu.max > 0.8 && pod >= 2` |
//!
//! Every metric becomes a variable `v0`, `v1`, ...; every number becomes a double, since CEL does not mix integers
//! and doubles; a single `&` or `|` (Slime's logic operators) becomes `&&` or `||`. Only numbers, names, arithmetic,
//! comparison, logic, `?:` and calls get through, so an expression has no loops and its cost is bounded by its length.

use std::fmt::Write;

use super::expression::ExpressionError;

/// Longest expression, in bytes: the bound of the CRD's schema.
const MAX_LEN: usize = 1024;
/// Deepest nesting of parentheses.
const MAX_DEPTH: usize = 32;
/// Most operators: a long chain is a deep tree.
const MAX_OPERATORS: usize = 128;

/// Functions that an expression may call, with their number of arguments.
pub(super) const FUNCTIONS: [(&str, usize); 6] = [
    ("min", 2),
    ("max", 2),
    ("ceil", 1),
    ("floor", 1),
    ("round", 1),
    ("abs", 1),
];

/// Result of the pass.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// CEL source.
    pub cel: String,
    /// Metric names in order of first use; the index is the number of the variable.
    pub names: Vec<String>,
}

impl Scanned {
    fn variable(&mut self, name: &str) {
        let index = self
            .names
            .iter()
            .position(|n| n == name)
            .unwrap_or_else(|| {
                self.names.push(name.to_owned());
                self.names.len() - 1
            });
        self.cel.push('v');
        self.cel.push_str(&index.to_string());
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    operators: usize,
    out: Scanned,
}

/// Runs the pass over `text`.
pub(super) fn scan(text: &str) -> Result<Scanned, ExpressionError> {
    if text.len() > MAX_LEN {
        return Err(ExpressionError::TooLong { max: MAX_LEN });
    }
    let mut scanner = Scanner {
        text,
        at: 0,
        depth: 0,
        operators: 0,
        out: Scanned::default(),
    };
    while let Some(c) = scanner.peek() {
        scanner.token(c)?;
    }
    if scanner.depth > 0 {
        return Err(scanner.syntax("a parenthesis is not closed"));
    }
    if scanner.out.cel.trim().is_empty() {
        return Err(ExpressionError::Empty);
    }
    Ok(scanner.out)
}

impl Scanner<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn syntax(&self, problem: &str) -> ExpressionError {
        ExpressionError::Syntax {
            position: self.at + 1,
            problem: problem.to_owned(),
        }
    }

    fn token(&mut self, c: char) -> Result<(), ExpressionError> {
        match c {
            '{' => self.placeholder(),
            '0'..='9' | '.' => self.number(),
            'a'..='z' | 'A'..='Z' | '_' => self.name(),
            c if c.is_whitespace() => {
                self.out.cel.push(' ');
                self.at += c.len_utf8();
                Ok(())
            }
            '(' | ')' => self.parenthesis(c),
            _ => self.operator(),
        }
    }

    fn parenthesis(&mut self, c: char) -> Result<(), ExpressionError> {
        if c == '(' {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(self.syntax("parentheses are nested too deep (32 at most)"));
            }
        } else {
            self.depth = self
                .depth
                .checked_sub(1)
                .ok_or_else(|| self.syntax("a parenthesis is closed that was not opened"))?;
        }
        self.out.cel.push(c);
        self.at += 1;
        Ok(())
    }

    fn operator(&mut self) -> Result<(), ExpressionError> {
        const OPERATORS: [(&str, &str); 18] = [
            (">=", ">="),
            ("<=", "<="),
            ("==", "=="),
            ("!=", "!="),
            ("&&", "&&"),
            ("||", "||"),
            (">", ">"),
            ("<", "<"),
            ("&", "&&"),
            ("|", "||"),
            ("!", "!"),
            ("+", "+"),
            ("-", "-"),
            ("*", "*"),
            ("/", "/"),
            ("?", "?"),
            (":", ":"),
            (",", ","),
        ];
        let Some((token, cel)) = OPERATORS.iter().find(|(t, _)| self.rest().starts_with(t)) else {
            return Err(self.syntax(
                "this character has no meaning here: use numbers, metric names, ( ), + - * /, > >= < <= == !=, && || !, ?:",
            ));
        };
        self.operators += 1;
        if self.operators > MAX_OPERATORS {
            return Err(self.syntax("too many operators (128 at most)"));
        }
        // Blanks keep `a - -1` and `!` `=` apart.
        self.out.cel.push(' ');
        self.out.cel.push_str(cel);
        self.out.cel.push(' ');
        self.at += token.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), ExpressionError> {
        let rest = self.rest();
        let mut end = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(rest.len());
        let tail = rest.get(end..).unwrap_or("");
        let mut exponent = tail.chars();
        if matches!(exponent.next(), Some('e' | 'E')) {
            let digits = exponent.as_str().trim_start_matches(['+', '-']);
            let sign = exponent.as_str().len() - digits.len();
            let n = digits
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(digits.len());
            if n > 0 && sign <= 1 {
                end += 1 + sign + n;
            }
        }
        let word = rest.get(..end).unwrap_or("");
        let value: f64 = word
            .parse()
            .ok()
            .filter(|v: &f64| v.is_finite())
            .ok_or_else(|| self.syntax(&format!("\"{word}\" is not a number")))?;
        let after = rest.get(end..).and_then(|s| s.chars().next());
        if after.is_some_and(|c| c.is_ascii_alphabetic() || c == '_') {
            return Err(self.syntax(&format!(
                "\"{word}\" is followed by a letter: numbers have no units"
            )));
        }
        // Debug writes a double so that it stays one: 1.0, not 1.
        let _ = write!(self.out.cel, "{value:?}");
        self.at += end;
        Ok(())
    }

    fn name(&mut self) -> Result<(), ExpressionError> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))
            .unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or("").to_owned();
        let call = rest
            .get(end..)
            .is_some_and(|s| s.trim_start().starts_with('('));
        if call {
            if !FUNCTIONS.iter().any(|(f, _)| *f == word) {
                return Err(ExpressionError::UnknownFunction { name: word });
            }
            self.out.cel.push_str(&word);
        } else if word == "true" || word == "false" {
            self.out.cel.push_str(&word);
        } else {
            let name =
                checked(&word).ok_or_else(|| self.syntax("a metric name has an empty part"))?;
            self.out.variable(name);
        }
        self.at += end;
        Ok(())
    }

    fn placeholder(&mut self) -> Result<(), ExpressionError> {
        let double = self.rest().starts_with("{{");
        let (open, close) = if double { (2, "}}") } else { (1, "}") };
        let body = self.rest().get(open..).unwrap_or("");
        let Some(len) = body.find(close) else {
            return Err(self.syntax("a placeholder is not closed"));
        };
        let inner = body.get(..len).unwrap_or("").trim().to_owned();
        let name = if double {
            template_path(&inner)
        } else {
            checked(&inner).map(str::to_owned)
        };
        let Some(name) = name else {
            return Err(self.syntax(&format!(
                "\"{inner}\" is not a metric name: write {{name}}, {{{{.set.name}}}} or {{{{index .set \"name\"}}}}; template statements are not supported, use CEL (a ? b : c)"
            )));
        };
        self.out.variable(&name);
        self.at += open + len + close.len();
        Ok(())
    }
}

/// A metric name as written in a placeholder: no blanks, no empty parts.
fn checked(name: &str) -> Option<&str> {
    let ok = !name.is_empty()
        && !name.starts_with('.')
        && !name.ends_with('.')
        && !name.contains("..")
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.:-/".contains(c));
    ok.then_some(name)
}

/// `.a.b.c` or `index .a "b" "c"` as a dotted name. A quoted part may be the name of a series, `"{version=\"v1\"}"`.
fn template_path(inner: &str) -> Option<String> {
    if let Some(path) = inner.strip_prefix('.') {
        return checked(path).map(str::to_owned);
    }
    let rest = inner.strip_prefix("index ")?.trim_start();
    let (base, mut rest) = rest.split_once(char::is_whitespace)?;
    let mut parts = Vec::new();
    if base != "." {
        parts.push(checked(base.strip_prefix('.')?)?.to_owned());
    }
    while !rest.trim_start().is_empty() {
        let (part, after) = quoted(rest.trim_start())?;
        if !part.starts_with('{') {
            checked(&part)?;
        }
        parts.push(part);
        rest = after;
    }
    (!parts.is_empty()).then(|| parts.join("."))
}

/// A quoted text with `\"` and `\\` in it, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.strip_prefix('"')?.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, text.get(at + 2..)?)),
            '\\' => out.push(chars.next()?.1),
            c if c.is_control() => return None,
            c => out.push(c),
        }
    }
    None
}
