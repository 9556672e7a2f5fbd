//! The grammar, from left to right: open groups are a stack, so that depth costs no stack of ours.

use super::Engine;
use super::class::Set;
use super::error::{Fault, RegexError};
use super::size::Part;

/// The largest bound.
const MAX_BOUND: u64 = 1000;
/// Groups in each other. RE2 has no such bound, but walks them by recursion elsewhere; Go has 1000.
const MAX_DEPTH: usize = 1000;
/// Characters of a part that a message shows.
const SHOWN: usize = 60;

/// Flags that matter here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    /// `i`.
    pub(super) fold: bool,
    /// `s`.
    dot_all: bool,
}

/// An open group.
#[derive(Debug)]
pub(super) struct Frame {
    /// Flags to go back to when it closes.
    flags: Flags,
    captures: bool,
    /// Alternatives that are complete.
    before: Option<Part>,
    /// The present alternative, without its last item.
    sequence: Part,
    /// The last item, which an operator may repeat.
    last: Option<Part>,
}

impl Frame {
    fn new(flags: Flags, captures: bool) -> Self {
        Self {
            flags,
            captures,
            before: None,
            sequence: Part::empty(),
            last: None,
        }
    }

    pub(super) fn push(&mut self, item: Part) {
        if let Some(last) = self.last.replace(item) {
            self.sequence = self.sequence.then(last);
        }
    }

    fn end_alternative(&mut self) {
        let last = self.last.take().unwrap_or(Part::empty());
        let done = std::mem::replace(&mut self.sequence, Part::empty()).then(last);
        self.before = Some(self.before.map_or(done, |before| before.or(done)));
    }

    fn finish(mut self) -> Part {
        self.end_alternative();
        let whole = self.before.unwrap_or(Part::empty());
        if self.captures {
            whole.captured()
        } else {
            whole
        }
    }
}

/// The text and how far it is read.
pub(super) struct Parser {
    pub(super) text: Vec<u32>,
    pub(super) at: usize,
    pub(super) engine: Engine,
    pub(super) flags: Flags,
    /// The innermost group; at the bottom the expression itself.
    pub(super) frame: Frame,
    outer: Vec<Frame>,
}

pub(super) type Parsed<T> = Result<T, RegexError>;

pub(super) fn parse(text: &str, engine: Engine) -> Parsed<Part> {
    let text = match engine {
        Engine::Envoy => text.bytes().map(u32::from).collect(),
        Engine::Istiod => text.chars().map(u32::from).collect(),
    };
    let flags = Flags::default();
    let mut parser = Parser {
        text,
        at: 0,
        engine,
        flags,
        frame: Frame::new(flags, false),
        outer: Vec::new(),
    };
    let mut repeated = None;
    while let Some(c) = parser.peek() {
        repeated = parser.item(c, repeated)?;
    }
    if !parser.outer.is_empty() {
        return parser.fail(Fault::MissingParenthesis, 0);
    }
    Ok(parser.frame.finish())
}

impl Parser {
    pub(super) fn peek(&self) -> Option<char> {
        self.ahead(0)
    }

    pub(super) fn ahead(&self, n: usize) -> Option<char> {
        let code = *self.text.get(self.at + n)?;
        char::from_u32(code)
    }

    pub(super) fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    pub(super) fn looking_at(&self, text: &str) -> bool {
        text.chars()
            .enumerate()
            .all(|(n, c)| self.ahead(n) == Some(c))
    }

    /// Where `text` is next, from `start` on.
    pub(super) fn find(&self, text: &str, start: usize) -> Option<usize> {
        let wanted: Vec<u32> = text.chars().map(u32::from).collect();
        let rest = self.text.get(start..)?;
        let found = rest.windows(wanted.len()).position(|w| w == wanted)?;
        Some(start + found)
    }

    /// The text from `start` to `end`, as it was written.
    pub(super) fn text(&self, start: usize, end: usize) -> String {
        let codes = self.text.get(start..end).unwrap_or_default();
        match self.engine {
            Engine::Envoy => {
                let bytes: Vec<u8> = codes.iter().filter_map(|c| u8::try_from(*c).ok()).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Engine::Istiod => codes.iter().filter_map(|c| char::from_u32(*c)).collect(),
        }
    }

    /// A mistake in what was read since `start`.
    pub(super) fn fail<T>(&self, fault: Fault, start: usize) -> Parsed<T> {
        let end = self.at.min(start.saturating_add(SHOWN));
        Err(RegexError::new(fault, self.text(start, end)))
    }

    /// Reads one item; where it begins if it repeats. `repeated`: where the item before began, if that did.
    fn item(&mut self, c: char, repeated: Option<usize>) -> Parsed<Option<usize>> {
        let start = self.at;
        match c {
            '(' => self.open()?,
            ')' => self.close()?,
            '|' => {
                self.at += 1;
                self.frame.end_alternative();
            }
            '^' | '$' => self.single(Part::assertion()),
            '.' => {
                let newline = Set::of(&[(b'\n', b'\n')]);
                let nothing = Set::default();
                let left_out = if self.flags.dot_all { nothing } else { newline };
                self.single(of_set(left_out.negated(true)));
            }
            '[' => {
                let set = self.class()?;
                self.frame.push(of_set(set));
            }
            '*' | '+' | '?' => {
                self.at += 1;
                self.repeat(start, repeated, |part| Some(part.by_sign(c)))?;
                return Ok(Some(start));
            }
            '{' => match self.bounds() {
                None => self.literal_here(),
                Some((least, most)) => {
                    let wrong = most.is_some_and(|m| m < least || m > MAX_BOUND);
                    if wrong || least > MAX_BOUND {
                        return self.fail(Fault::RepeatSize, start);
                    }
                    self.repeat(start, repeated, |part| part.bounded(least, most))?;
                    return Ok(Some(start));
                }
            },
            '\\' => self.escaped()?,
            _ => self.literal_here(),
        }
        Ok(None)
    }

    pub(super) fn single(&mut self, part: Part) {
        self.at += 1;
        self.frame.push(part);
    }

    pub(super) fn literal_here(&mut self) {
        if let Some(c) = self.take() {
            self.literal(u32::from(c));
        }
    }

    pub(super) fn literal(&mut self, code: u32) {
        let mut set = Set::default();
        set.insert(code, code);
        self.frame.push(of_set(set.folded(self.flags.fold)));
    }

    /// An operator that began at `start`; it may be followed by a `?` that makes it lazy.
    fn repeat(
        &mut self,
        start: usize,
        repeated: Option<usize>,
        apply: impl Fn(Part) -> Option<Part>,
    ) -> Parsed<()> {
        if self.peek() == Some('?') {
            self.at += 1;
        }
        if let Some(first) = repeated {
            return self.fail(Fault::RepeatedRepeat, first);
        }
        let Some(last) = self.frame.last else {
            return self.fail(Fault::NothingToRepeat, start);
        };
        match apply(last) {
            Some(part) => self.frame.last = Some(part),
            None => return self.fail(Fault::RepeatProduct, start),
        }
        Ok(())
    }

    /// `{2}`, `{2,}` or `{2,4}`; anything else is no operator, and nothing is read.
    fn bounds(&mut self) -> Option<(u64, Option<u64>)> {
        let start = self.at;
        let read = self.bounds_here();
        if read.is_none() {
            self.at = start;
        }
        read
    }

    fn bounds_here(&mut self) -> Option<(u64, Option<u64>)> {
        self.at += 1;
        let least = self.number()?;
        let mut most = Some(least);
        if self.peek() == Some(',') {
            self.at += 1;
            most = if self.peek() == Some('}') {
                None
            } else {
                Some(self.number()?)
            };
        }
        (self.take()? == '}').then_some((least, most))
    }

    /// Digits without a zero in front, nine at most.
    fn number(&mut self) -> Option<u64> {
        let digit = |c: Option<char>| c.and_then(|c| c.to_digit(10));
        let first = digit(self.peek())?;
        if first == 0 && digit(self.ahead(1)).is_some() {
            return None;
        }
        let mut out = 0_u64;
        while let Some(next) = digit(self.peek()) {
            if out >= 100_000_000 {
                return None;
            }
            out = out * 10 + u64::from(next);
            self.at += 1;
        }
        Some(out)
    }

    fn open(&mut self) -> Parsed<()> {
        let start = self.at;
        self.at += 1;
        let before = self.flags;
        let captures = if self.peek() != Some('?') {
            Some(true)
        } else if self.looking_at("?P<") || self.named_short() {
            self.group_name(start)?;
            Some(true)
        } else {
            self.at += 1;
            self.group_flags(start)?.then_some(false)
        };
        let Some(captures) = captures else {
            return Ok(());
        };
        if self.outer.len() >= MAX_DEPTH {
            return Err(RegexError::new(Fault::TooDeep, ""));
        }
        let inner = Frame::new(before, captures);
        self.outer.push(std::mem::replace(&mut self.frame, inner));
        Ok(())
    }

    /// `?<name>`, which is not `?<=` and `?<!`.
    fn named_short(&self) -> bool {
        self.looking_at("?<") && self.ahead(2).is_some_and(|c| c != '=' && c != '!')
    }

    fn group_name(&mut self, start: usize) -> Parsed<()> {
        while self.take().is_some_and(|c| c != '<') {}
        let first = self.at;
        let Some(end) = self.find(">", self.at) else {
            self.at = self.text.len();
            return self.fail(Fault::GroupName, start);
        };
        self.at = end + 1;
        let name = self.text.get(first..end).unwrap_or_default();
        if name.is_empty() || !name.iter().all(|c| is_word(*c, self.engine)) {
            return self.fail(Fault::GroupName, start);
        }
        Ok(())
    }

    /// `i`, `m`, `s`, `U`, and a `-` before those to switch off; whether a group opens behind them.
    fn group_flags(&mut self, start: usize) -> Parsed<bool> {
        let mut flags = self.flags;
        let mut on = true;
        let mut seen = false;
        loop {
            let opens = match self.take() {
                Some('i') => {
                    flags.fold = on;
                    None
                }
                Some('s') => {
                    flags.dot_all = on;
                    None
                }
                Some('m' | 'U') => None,
                Some('-') if on => {
                    on = false;
                    seen = false;
                    continue;
                }
                Some(':') => Some(true),
                Some(')') => Some(false),
                _ => return self.fail(Fault::GroupKind, start),
            };
            if let Some(opens) = opens {
                if !on && !seen {
                    return self.fail(Fault::GroupKind, start);
                }
                self.flags = flags;
                return Ok(opens);
            }
            seen = true;
        }
    }

    fn close(&mut self) -> Parsed<()> {
        self.at += 1;
        let Some(outer) = self.outer.pop() else {
            return self.fail(Fault::UnexpectedParenthesis, 0);
        };
        let inner = std::mem::replace(&mut self.frame, outer);
        self.flags = inner.flags;
        self.frame.push(inner.finish());
        Ok(())
    }
}

pub(super) fn of_set(set: Set) -> Part {
    if set == Set::default().negated(true) {
        return Part::any();
    }
    let folded = set.instructions();
    Part::class(folded, set.ranges() - folded)
}

/// A letter, a digit or a connector; in Latin-1 mode also what the bytes of other letters look like.
fn is_word(code: u32, engine: Engine) -> bool {
    let ascii = u8::try_from(code).is_ok_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    let latin = char::from_u32(code).is_some_and(|c| c.is_alphabetic() && code <= 0xff);
    ascii || (engine == Engine::Envoy && latin)
}
