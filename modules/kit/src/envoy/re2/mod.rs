//! Regular expressions as those judge them that compile them.
//!
//! Envoy compiles with RE2 in its Latin-1 mode, so that an expression is a sequence of bytes and `\x{100}` has no meaning;
//! istiod compiles `proxyVersion` with Go's `regexp`, the same grammar over code points. Both refuse what others take
//! (`a**`, look-around, `[\w--\d]`, names with dots) and take what others refuse (`\Q..\E`, `a{,3}`, `[\w-.]`), and one
//! refused expression is a refused route configuration or listener. So the grammar is read here as RE2 reads it, in one
//! pass and without recursion; on the way are counted the copies that nested bounds ask for, and the instructions of the
//! program.

mod class;
mod error;
mod escapes;
mod names;
mod parser;
mod size;

pub use error::{Fault, RegexError};

/// Key of Envoy's runtime for the largest program; without it that has 100 instructions.
pub const PROGRAM_SIZE_KEY: &str = "re2.max_program_size.error_level";
/// What a program may have, in instructions: what Istio's bootstrap and ours set.
pub const MAX_PROGRAM: u64 = 32_768;

/// Who compiles the expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Envoy, with the program size of [`MAX_PROGRAM`].
    Envoy,
    /// istiod, that is Go.
    Istiod,
}

/// Whether `engine` compiles `text`.
pub fn check(text: &str, engine: Engine) -> Result<(), RegexError> {
    program_size(text, engine).map(drop)
}

/// Checks the value of a configuration key; the error names it.
pub fn check_key(key: &str, pattern: &str, engine: Engine) -> Result<(), String> {
    check(pattern, engine)
        .map_err(|why| format!("{key}: \"{pattern}\" is no RE2 expression: {why}"))
}

/// Instructions of the program, at least as many as RE2 counts; a few more where RE2 finds something in common.
pub fn program_size(text: &str, engine: Engine) -> Result<u64, RegexError> {
    let size = parser::parse(text, engine)?.program();
    if engine == Engine::Envoy && size > MAX_PROGRAM {
        return Err(RegexError::new(Fault::TooLarge { size }, ""));
    }
    Ok(size)
}

#[cfg(test)]
mod tests;
