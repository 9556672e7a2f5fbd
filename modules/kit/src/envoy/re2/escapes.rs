//! Escapes and classes: what stands for one of several characters.

use super::Engine;
use super::class::Set;
use super::error::Fault;
use super::names::group;
use super::parser::{Parsed, Parser, of_set};
use super::size::Part;

impl Parser {
    pub(super) fn escaped(&mut self) -> Parsed<()> {
        match self.ahead(1) {
            Some('b' | 'B' | 'A' | 'z') => {
                self.at += 1;
                self.single(Part::assertion());
            }
            Some('C') if self.engine == Engine::Envoy => {
                self.at += 1;
                self.single(Part::any());
            }
            Some('Q') => {
                self.at += 2;
                while self.peek().is_some() && !self.looking_at("\\E") {
                    self.literal_here();
                }
                self.at = (self.at + 2).min(self.text.len());
            }
            Some('p' | 'P') => {
                let set = self.unicode_group()?;
                self.frame.push(of_set(set));
            }
            Some(letter) if let Some(set) = Set::perl(letter, self.flags.fold) => {
                self.at += 1;
                self.single(of_set(set));
            }
            _ => {
                let code = self.character_escape()?;
                self.literal(code);
            }
        }
        Ok(())
    }

    /// `\pL`, `\p{Greek}`, `\p{^Greek}`, and with `P` the rest.
    fn unicode_group(&mut self) -> Parsed<Set> {
        let start = self.at;
        let mut negated = self.ahead(1) == Some('P');
        self.at += 2;
        let first = self.at;
        let mut name = if self.peek() == Some('{') {
            let Some(end) = self.find("}", self.at) else {
                self.at = self.text.len();
                return self.fail(Fault::UnicodeGroup, start);
            };
            self.at = end + 1;
            self.text(first + 1, end)
        } else {
            self.at = (self.at + 1).min(self.text.len());
            self.text(first, self.at)
        };
        if let Some(rest) = name.strip_prefix('^') {
            negated = !negated;
            name = rest.to_owned();
        }
        let Some(kind) = group(&name) else {
            return self.fail(Fault::UnicodeGroup, start);
        };
        Ok(Set::unicode(kind, &name, negated, self.flags.fold))
    }

    /// An escape that stands for one character.
    fn character_escape(&mut self) -> Parsed<u32> {
        let start = self.at;
        self.at += 1;
        let code = match self.take() {
            Some('n') => Some(0x0a),
            Some('r') => Some(0x0d),
            Some('t') => Some(0x09),
            Some('a') => Some(0x07),
            Some('f') => Some(0x0c),
            Some('v') => Some(0x0b),
            Some('x') => self.hexadecimal(),
            // One digit alone would be a reference to a group.
            Some(c @ '1'..='7') if self.peek().is_some_and(|c| c.is_digit(8)) => {
                Some(self.octal(c))
            }
            Some('0') => Some(self.octal('0')),
            Some(c) if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(u32::from(c)),
            _ => None,
        };
        let most = match self.engine {
            Engine::Envoy => 0xff,
            Engine::Istiod => u32::from(char::MAX),
        };
        match code {
            Some(code) if code <= most => Ok(code),
            _ => self.fail(Fault::Escape, start),
        }
    }

    /// Three digits at most, with the first that is read already.
    fn octal(&mut self, first: char) -> u32 {
        let mut out = first.to_digit(8).unwrap_or_default();
        for _ in 0..2 {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else {
                break;
            };
            out = out * 8 + digit;
            self.at += 1;
        }
        out
    }

    /// Two digits, or any number of them in braces.
    fn hexadecimal(&mut self) -> Option<u32> {
        let digit = |c: Option<char>| c.and_then(|c| c.to_digit(16));
        if self.peek() != Some('{') {
            let high = digit(self.take())?;
            return Some(high * 16 + digit(self.take())?);
        }
        self.at += 1;
        let mut out = digit(self.take())?;
        loop {
            match self.take()? {
                '}' => return Some(out),
                c => out = out.saturating_mul(16).saturating_add(c.to_digit(16)?),
            }
        }
    }

    /// `[...]`.
    pub(super) fn class(&mut self) -> Parsed<Set> {
        let start = self.at;
        self.at += 1;
        let negated = self.peek() == Some('^');
        self.at += usize::from(negated);
        let mut out = Set::default();
        let mut first = true;
        loop {
            let Some(c) = self.peek() else {
                return self.fail(Fault::MissingBracket, start);
            };
            if c == ']' && !first {
                self.at += 1;
                return Ok(out.negated(negated));
            }
            first = false;
            out = out.union(self.class_item(start)?);
        }
    }

    fn class_item(&mut self, class: usize) -> Parsed<Set> {
        let fold = self.flags.fold;
        if self.looking_at("[:")
            && let Some(end) = self.find(":]", self.at + 2)
        {
            let name = self.text(self.at + 2, end);
            let start = self.at;
            self.at = end + 2;
            return match Set::posix(&name, fold) {
                Some(set) => Ok(set),
                None => self.fail(Fault::Range, start),
            };
        }
        if self.peek() == Some('\\') {
            match self.ahead(1) {
                Some('p' | 'P') if self.ahead(2).is_some() => return self.unicode_group(),
                Some(letter) if let Some(set) = Set::perl(letter, fold) => {
                    self.at += 2;
                    return Ok(set);
                }
                _ => {}
            }
        }
        let start = self.at;
        let low = self.class_character(class)?;
        let mut high = low;
        if self.peek() == Some('-') && self.ahead(1).is_some_and(|c| c != ']') {
            self.at += 1;
            high = self.class_character(class)?;
            if high < low {
                return self.fail(Fault::Range, start);
            }
        }
        let mut out = Set::default();
        out.insert(low, high);
        Ok(out.folded(fold))
    }

    fn class_character(&mut self, class: usize) -> Parsed<u32> {
        match self.peek() {
            Some('\\') if self.ahead(1).is_some() => self.character_escape(),
            Some(c) => {
                self.at += 1;
                Ok(u32::from(c))
            }
            None => self.fail(Fault::MissingBracket, class),
        }
    }
}
