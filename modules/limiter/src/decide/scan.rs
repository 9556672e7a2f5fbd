//! The tokens of expressions: one list for the three spellings.
//!
//! | spelling | example |
//! |---|---|
//! | first form | `{cpu}>0.8` |
//! | Slime templates | `{{._base.cpu.sum}}>100`, `{{index ._base "cpu.sum"}}` |
//! | plain CEL | `cpu.max > 0.8 && pod >= 2` |
//!
//! Every metric is a variable by its number; every number is a double; a single `&` or `|` (Slime's logic operators) is
//! `&&` or `||`. Only numbers, names, arithmetic, comparison, logic, `?:` and calls get through, so an expression has no
//! loops and its cost is bounded by its length.

use super::error::ExpressionError;

/// Longest expression, in bytes: the bound of the CRD's schema.
const MAX_LEN: usize = 1024;
/// Deepest nesting of parentheses.
const MAX_DEPTH: usize = 32;
/// Most operators: a long chain is a deep tree.
const MAX_OPERATORS: usize = 128;

/// Functions that an expression may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Min,
    Max,
    Ceil,
    Floor,
    Round,
    Abs,
}

/// All of them.
pub(super) const FUNCTIONS: [Function; 6] = [
    Function::Min,
    Function::Max,
    Function::Ceil,
    Function::Floor,
    Function::Round,
    Function::Abs,
];

impl Function {
    /// Its name.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Max => "max",
            Self::Ceil => "ceil",
            Self::Floor => "floor",
            Self::Round => "round",
            Self::Abs => "abs",
        }
    }
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum What {
    Number(f64),
    Truth(bool),
    /// By its place in [`Scanned::names`].
    Variable(usize),
    /// A parenthesis follows.
    Function(Function),
    Operator(&'static str),
    Open,
    Close,
}

/// A token with its place in bytes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub what: What,
    pub from: usize,
    pub to: usize,
}

/// Result of the pass.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub tokens: Vec<Token>,
    /// Metric names in order of first use; the index is the number of the variable.
    pub names: Vec<String>,
}

impl Scanned {
    fn variable(&mut self, name: &str) -> What {
        let known = self.names.iter().position(|n| n == name);
        What::Variable(known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        }))
    }
}

/// The place of a byte in characters, from 1.
pub(super) fn position(text: &str, at: usize) -> usize {
    text.get(..at).map_or(at, |before| before.chars().count()) + 1
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
    if scanner.out.tokens.is_empty() {
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
            position: position(self.text, self.at),
            problem: problem.to_owned(),
        }
    }

    /// A token of the next `len` bytes.
    fn take(&mut self, what: What, len: usize) {
        let from = self.at;
        self.at += len;
        self.out.tokens.push(Token {
            what,
            from,
            to: self.at,
        });
    }

    fn token(&mut self, c: char) -> Result<(), ExpressionError> {
        match c {
            '{' => self.placeholder(),
            '0'..='9' | '.' => self.number(),
            'a'..='z' | 'A'..='Z' | '_' => self.name(),
            c if c.is_whitespace() => {
                self.at += c.len_utf8();
                Ok(())
            }
            '(' | ')' => self.parenthesis(c),
            _ => self.operator(),
        }
    }

    fn parenthesis(&mut self, c: char) -> Result<(), ExpressionError> {
        let what = if c == '(' {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(self.syntax("parentheses are nested too deep (32 at most)"));
            }
            What::Open
        } else {
            self.depth = self
                .depth
                .checked_sub(1)
                .ok_or_else(|| self.syntax("a parenthesis is closed that was not opened"))?;
            What::Close
        };
        self.take(what, 1);
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
        let fixes = [
            ("=>", "write >= instead of =>"),
            ("=<", "write <= instead of =<"),
            ("<>", "write != instead of <>"),
            ("%", "there is no operator %: write 0.8 for 80 %"),
            ("^", "there is no operator ^: multiply with *"),
        ];
        if let Some((_, fix)) = fixes.iter().find(|(t, _)| self.rest().starts_with(t)) {
            return Err(self.syntax(fix));
        }
        if self.rest().starts_with('=') && !self.rest().starts_with("==") {
            return Err(self.syntax("write == instead of ="));
        }
        let Some((token, meant)) = OPERATORS.iter().find(|(t, _)| self.rest().starts_with(t))
        else {
            return Err(self.syntax(
                "this character has no meaning here: use numbers, metric names, ( ), + - * /, > >= < <= == !=, && || !, ?:",
            ));
        };
        self.operators += 1;
        if self.operators > MAX_OPERATORS {
            return Err(self.syntax("too many operators (128 at most)"));
        }
        self.take(What::Operator(meant), token.len());
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
        self.take(What::Number(value), end);
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
        let what = if call {
            let function = FUNCTIONS.iter().find(|f| f.title() == word);
            match function {
                Some(function) => What::Function(*function),
                None => return Err(self.no_function(word)),
            }
        } else if let Ok(truth) = word.parse() {
            What::Truth(truth)
        } else if let Some(fix) = spelling(&word, self.text) {
            return Err(self.syntax(&fix));
        } else {
            let name =
                checked(&word).ok_or_else(|| self.syntax("a metric name has an empty part"))?;
            self.out.variable(name)
        };
        self.take(what, end);
        Ok(())
    }

    fn no_function(&self, word: String) -> ExpressionError {
        match spelling(&word, self.text) {
            Some(fix) => self.syntax(&fix),
            None => ExpressionError::UnknownFunction { name: word },
        }
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
        let variable = self.out.variable(&name);
        self.take(variable, open + len + close.len());
        Ok(())
    }
}

/// What to write in place of a word of another language.
fn spelling(word: &str, text: &str) -> Option<String> {
    let lower = word.to_ascii_lowercase();
    Some(match lower.as_str() {
        "and" => format!("write && instead of {word}"),
        "or" => format!("write || instead of {word}"),
        "not" => format!("write ! instead of {word}, and what it turns round in parentheses"),
        "if" | "then" | "else" => format!("write a ? b : c instead of {word}"),
        "true" | "false" => format!("write {lower} instead of {word}"),
        "always" | "on" | "yes" if text.trim() == word => format!("write true instead of {word}"),
        "never" | "off" | "no" if text.trim() == word => format!("write false instead of {word}"),
        _ => return None,
    })
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
