//! Classes of characters, as far as they are bytes: what is above 0xff never matches in Envoy.

use regex_syntax::hir::{Class, HirKind};

use super::names::{Group, perl, posix};

/// A set of the characters 0 to 0xff.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set([u64; 4]);

impl Set {
    /// The ranges.
    pub(super) fn of(ranges: &[(u8, u8)]) -> Self {
        let mut out = Self::default();
        for (low, high) in ranges {
            out.insert(u32::from(*low), u32::from(*high));
        }
        out
    }

    /// `\d` and the like, by the letter; the upper case one is the rest.
    pub(super) fn perl(letter: char, fold: bool) -> Option<Self> {
        let set = Self::of(perl(letter.to_ascii_lowercase())?).folded(fold);
        Some(set.negated(letter.is_ascii_uppercase()))
    }

    /// `[:alpha:]` by its name; a `^` in front means the rest.
    pub(super) fn posix(name: &str, fold: bool) -> Option<Self> {
        let (name, negated) = name.strip_prefix('^').map_or((name, false), |n| (n, true));
        Some(Self::of(posix(name)?).folded(fold).negated(negated))
    }

    /// A group of Unicode.
    pub(super) fn unicode(group: Group, name: &str, negated: bool, fold: bool) -> Self {
        let property = match group {
            Group::Any => return Self::of(&[(0, 0xff)]).negated(negated),
            Group::Category => "gc",
            Group::Script => "sc",
        };
        let flag = if fold { "(?i)" } else { "" };
        let letter = if negated { 'P' } else { 'p' };
        let mut out = Self::default();
        // A script that the tables do not have is newer than they are, and has no character this low.
        let parsed = regex_syntax::parse(&format!("{flag}\\{letter}{{{property}={name}}}"));
        match parsed.map(regex_syntax::hir::Hir::into_kind) {
            Ok(HirKind::Class(Class::Unicode(class))) => {
                for range in class.ranges() {
                    out.insert(range.start().into(), range.end().into());
                }
            }
            _ => out = out.negated(negated),
        }
        out
    }

    /// Adds a range; what is above 0xff is left out.
    pub(super) fn insert(&mut self, low: u32, high: u32) {
        for byte in low..=high.min(0xff) {
            if let Some(word) = self.0.get_mut(byte as usize / 64) {
                *word |= 1 << (byte % 64);
            }
        }
    }

    pub(super) fn contains(self, byte: u32) -> bool {
        self.0
            .get(byte as usize / 64)
            .is_some_and(|word| word & (1 << (byte % 64)) != 0)
    }

    /// Both.
    pub(super) fn union(self, other: Self) -> Self {
        let mut out = self;
        for (word, more) in out.0.iter_mut().zip(other.0) {
            *word |= more;
        }
        out
    }

    /// The rest, when `negated`.
    pub(super) fn negated(self, negated: bool) -> Self {
        if negated {
            Self(self.0.map(|word| !word))
        } else {
            self
        }
    }

    /// With the other case of each character, when `fold`.
    pub(super) fn folded(self, fold: bool) -> Self {
        let mut out = self;
        for byte in (0..=0xff).filter(|b| fold && self.contains(*b)) {
            let other = other_case(byte);
            out.insert(other, other);
        }
        out
    }

    /// The number of ranges.
    pub(super) fn ranges(self) -> u64 {
        (0..=0xff)
            .filter(|b| self.contains(*b) && (*b == 0 || !self.contains(b - 1)))
            .map(|_| 1)
            .sum()
    }

    /// Instructions: one a range, without those of upper case letters where the lower case ones are told to fold.
    pub(super) fn instructions(self) -> u64 {
        let upper = u32::from(b'A')..=u32::from(b'Z');
        let folds = upper
            .clone()
            .all(|b| self.contains(b) == self.contains(b + 32));
        let edge = self.contains(u32::from(b'@')) || self.contains(u32::from(b'['));
        if !folds || edge {
            return self.ranges();
        }
        let mut rest = self;
        for byte in upper {
            if let Some(word) = rest.0.get_mut(byte as usize / 64) {
                *word &= !(1 << (byte % 64));
            }
        }
        rest.ranges()
    }
}

/// The other case within 0xff, or the character itself.
fn other_case(byte: u32) -> u32 {
    match byte {
        0x41..=0x5a | 0xc0..=0xd6 | 0xd8..=0xde => byte + 0x20,
        0x61..=0x7a | 0xe0..=0xf6 | 0xf8..=0xfe => byte - 0x20,
        _ => byte,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_counted_and_cases_folded() {
        let word = Set::perl('w', false).unwrap();
        assert_eq!(word.ranges(), 4);
        assert_eq!(word.instructions(), 3, "A-Z is told by a-z");
        assert_eq!(word.negated(true).ranges(), 5);
        let greek = Set::unicode(Group::Script, "Greek", false, false);
        assert_eq!(greek, Set::default(), "no Greek letter is a byte");
        let cased = Set::of(&[(b'k', b'k')]).folded(true);
        assert_eq!((cased.ranges(), cased.instructions()), (2, 1));
        assert_eq!(Set::posix("^ascii", false), Some(Set::of(&[(0x80, 0xff)])));
        assert_eq!(Set::posix("foo", false), None);
    }
}
