//! Names and values of headers.
//!
//! A name to look for may be anything that Envoy's validation lets through; one that is no token never comes. A header
//! that is added goes out as it is written, so that it has to be one.

/// Bytes of a name or value of a header to add.
const ADDED_BYTES: usize = 16_384;
/// Bytes of the name of a query parameter.
const PARAMETER_BYTES: usize = 1024;

/// Why a name or value is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Nothing.
    #[error("the name is empty: write one")]
    Empty,
    /// CR, LF or NUL.
    #[error(
        "\"{0}\" has a line break or a zero byte, which Envoy refuses: remove it, and write a match for each header"
    )]
    Control(String),
    /// Not a token.
    #[error("\"{0}\" is no header name: use letters, digits and -")]
    NoToken(String),
    /// What Envoy does not let itself be told to change.
    #[error(
        "\"{0}\" may not be modified: Envoy refuses host and what begins with a colon; use a name of your own such as x-{1}"
    )]
    Protected(String, String),
    /// A control character in a value.
    #[error("a header value has no control characters: remove {0}")]
    Value(String),
    /// Too long.
    #[error("{0} bytes are too long: Envoy takes up to {1}")]
    Long(usize, usize),
}

fn without_breaks(text: &str) -> Result<(), HeaderError> {
    if text.contains(['\0', '\r', '\n']) {
        return Err(HeaderError::Control(text.escape_debug().to_string()));
    }
    Ok(())
}

fn no_longer(text: &str, most: usize) -> Result<(), HeaderError> {
    if text.len() > most {
        return Err(HeaderError::Long(text.len(), most));
    }
    Ok(())
}

/// The name of a header that is looked for or hashed; pseudo headers such as `:path` among them.
pub fn matched(name: &str) -> Result<(), HeaderError> {
    if name.is_empty() {
        return Err(HeaderError::Empty);
    }
    without_breaks(name)
}

/// The name of a query parameter that is looked for.
pub fn parameter(name: &str) -> Result<(), HeaderError> {
    if name.is_empty() {
        return Err(HeaderError::Empty);
    }
    no_longer(name, PARAMETER_BYTES)
}

/// The name of a header that is added.
pub fn added(name: &str) -> Result<(), HeaderError> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() {
        return Err(HeaderError::Empty);
    }
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        let own = name.trim_start_matches(':').to_ascii_lowercase();
        return Err(HeaderError::Protected(name.to_owned(), own));
    }
    if !name.chars().all(token) {
        return Err(HeaderError::NoToken(name.escape_debug().to_string()));
    }
    no_longer(name, ADDED_BYTES)
}

/// The value of a header that is added, as it is sent: whoever writes it into a place where Envoy reads commands doubles
/// each `%`, which counts.
pub fn value(value: &str) -> Result<(), HeaderError> {
    if let Some(c) = value.chars().find(|c| c.is_ascii_control() && *c != '\t') {
        return Err(HeaderError::Value(c.escape_debug().to_string()));
    }
    no_longer(value, ADDED_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_to_look_for_are_what_envoy_lets_through() {
        for good in ["x", ":path", "host", "x y", "é", "X-Row"] {
            assert_eq!(matched(good), Ok(()), "{good}");
        }
        for bad in ["", "x\ny", "x\r", "\0"] {
            assert!(matched(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parameter("a\nb"), Ok(()));
        assert_eq!(
            parameter(&"q".repeat(1025)),
            Err(HeaderError::Long(1025, 1024))
        );
    }

    #[test]
    fn headers_that_are_added_are_headers() {
        for good in ["x", "X-Row", "x_y", "hosts", "x-host"] {
            assert_eq!(added(good), Ok(()), "{good}");
        }
        for bad in ["", "host", "HoSt", ":path", ":", "x y", "x:y", "é", "x\n"] {
            assert!(added(bad).is_err(), "{bad:?}");
        }
        for good in ["", "a b", "a\tb", "50%", "é"] {
            assert_eq!(value(good), Ok(()), "{good}");
        }
        for bad in ["a\nb", "\r", "\0", "\u{7f}"] {
            assert!(value(bad).is_err(), "{bad:?}");
        }
        let message = added("Host").unwrap_err().to_string();
        assert!(
            message.contains("may not be modified") && message.contains("x-host"),
            "{message}"
        );
    }
}
