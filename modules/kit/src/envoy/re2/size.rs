//! The size of a program from the sizes of its parts.
//!
//! RE2 flattens its program into lists, one for each place that a consumed byte, a mark of a group or an assertion leads
//! to ("root"). A list has as many instructions as its choices have ends, one more than choices. So a program has as many
//! instructions as choices and roots together.

/// Copies that nested bounds may ask for.
const MAX_COPIES: u64 = 1000;

/// A part of an expression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
// Each says another thing; none excludes another.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Part {
    /// Choices.
    choices: u64,
    /// Roots inside.
    roots: u64,
    /// Its beginning is one of the roots inside.
    begins: bool,
    /// What follows it becomes a root.
    leads: bool,
    /// Can match nothing.
    nullable: bool,
    /// Is nothing at all.
    empty: bool,
    /// Has a loop around what can match nothing or ends in a loop: RE2 may write some of it twice.
    tangled: bool,
    /// Instructions more if it becomes a part of a class that does not fold.
    unfolded: u64,
    /// Is any byte: a loop of it up to the match has an instruction of its own.
    any: bool,
    /// The largest product of bounds inside.
    copies: u64,
}

impl Part {
    /// The empty expression.
    pub(super) fn empty() -> Self {
        Self {
            nullable: true,
            empty: true,
            copies: 1,
            ..Self::default()
        }
    }

    /// A class of so many instructions, or a literal; `unfolded` more without folding.
    pub(super) fn class(instructions: u64, unfolded: u64) -> Self {
        Self {
            choices: instructions.saturating_sub(1),
            leads: true,
            unfolded,
            copies: 1,
            ..Self::default()
        }
    }

    /// Any byte.
    pub(super) fn any() -> Self {
        Self {
            any: true,
            ..Self::class(1, 0)
        }
    }

    /// An assertion.
    pub(super) fn assertion() -> Self {
        Self {
            nullable: true,
            ..Self::class(1, 0)
        }
    }

    /// One after the other.
    pub(super) fn then(self, next: Self) -> Self {
        if self.empty || next.empty {
            let other = if self.empty { next } else { self };
            return Self {
                copies: self.copies.max(next.copies),
                ..other
            };
        }
        let joint = u64::from(self.leads && !next.begins);
        Self {
            choices: self.choices.saturating_add(next.choices),
            roots: self.roots.saturating_add(next.roots).saturating_add(joint),
            begins: self.begins,
            leads: next.leads,
            nullable: self.nullable && next.nullable,
            empty: false,
            tangled: self.tangled || next.tangled,
            unfolded: 0,
            any: false,
            copies: self.copies.max(next.copies),
        }
    }

    /// One or the other.
    pub(super) fn or(self, other: Self) -> Self {
        // With a beginning in common a loop at the end gets one more way in.
        let loops = u64::from(!self.leads && !self.empty) + u64::from(!other.leads && !other.empty);
        Self {
            choices: self
                .choices
                .saturating_add(other.choices)
                .saturating_add(1 + self.unfolded + other.unfolded),
            roots: self.roots.saturating_add(other.roots).saturating_add(loops),
            begins: false,
            leads: true,
            nullable: self.nullable || other.nullable,
            empty: false,
            tangled: self.tangled || other.tangled,
            unfolded: 0,
            any: false,
            copies: self.copies.max(other.copies),
        }
    }

    /// A group that is captured: a mark on each side.
    pub(super) fn captured(self) -> Self {
        let mark = Self::class(1, 0);
        Self {
            nullable: self.nullable,
            ..mark.then(self).then(mark)
        }
    }

    /// `?`.
    fn optional(self) -> Self {
        Self {
            nullable: true,
            ..self.or(Self::empty())
        }
    }

    /// `+`: a choice at the end leads back to the beginning.
    fn repeated(self) -> Self {
        Self {
            tangled: self.tangled || self.nullable || !self.leads,
            choices: self.choices.saturating_add(1 + u64::from(self.any)),
            roots: self.roots.saturating_add(2),
            begins: true,
            leads: false,
            unfolded: 0,
            any: false,
            ..self
        }
    }

    /// `*`.
    fn starred(self) -> Self {
        if self.empty {
            self
        } else if self.nullable {
            self.repeated().optional()
        } else {
            let repeated = self.repeated();
            Self {
                // Its beginning is the choice.
                roots: repeated.roots - 1,
                nullable: true,
                ..repeated
            }
        }
    }

    /// So many times in a row.
    fn times(self, n: u64) -> Self {
        if n == 0 {
            return Self {
                copies: self.copies,
                ..Self::empty()
            };
        }
        let joints = (n - 1).saturating_mul(u64::from(self.leads && !self.begins));
        Self {
            choices: self.choices.saturating_mul(n),
            roots: self.roots.saturating_mul(n).saturating_add(joints),
            unfolded: if n == 1 { self.unfolded } else { 0 },
            ..self
        }
    }

    /// `{least,most}`; `None` means for ever. The product of nested bounds over 1000 gives nothing.
    pub(super) fn bounded(self, least: u64, most: Option<u64>) -> Option<Self> {
        let factor = most.unwrap_or(least).max(1);
        let copies = self.copies.saturating_mul(factor);
        if copies > MAX_COPIES {
            return None;
        }
        let part = match (least, most) {
            (0, None) => self.starred(),
            (n, None) => self.times(n - 1).then(self.repeated()),
            (n, Some(m)) if m > n => {
                // x{2,4} is xx(?:x(?:x)?)?
                let each = Self {
                    roots: self.roots.saturating_add(u64::from(self.leads)),
                    ..self.optional()
                };
                let optional = Self {
                    choices: each.choices.saturating_mul(m - n),
                    roots: each.roots.saturating_mul(m - n),
                    ..each
                };
                self.times(n).then(optional)
            }
            (n, _) => self.times(n),
        };
        Some(Self { copies, ..part })
    }

    /// `*`, `+` or `?`.
    pub(super) fn by_sign(self, sign: char) -> Self {
        match sign {
            '*' => self.starred(),
            '+' if self.empty => self,
            '+' => self.repeated(),
            _ => self.optional(),
        }
    }

    /// Instructions of the whole program: with the search for its beginning, the match, and what never matches.
    pub(super) fn program(self) -> u64 {
        let part = self.choices.saturating_add(self.roots);
        let factor = if self.tangled { 2 } else { 1 };
        part.saturating_mul(factor).saturating_add(5)
    }
}
