//! Kubernetes quantities (`250m`, `1.5Gi`, `2e3`) as plain numbers.

/// A text that is not a Kubernetes quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a quantity; write a number with an optional suffix n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei or an exponent such as 2e3"
)]
pub struct QuantityError {
    /// The refused text.
    pub text: String,
}

/// Parses a quantity to a number in its base unit (cores, bytes).
pub fn parse_quantity(text: &str) -> Result<f64, QuantityError> {
    number_and_suffix(text)
        .and_then(|(number, suffix)| {
            let number: f64 = number.parse().ok()?;
            let value = scale(number, suffix)?;
            value.is_finite().then_some(value)
        })
        .ok_or_else(|| QuantityError {
            text: text.to_owned(),
        })
}

/// Splits at the end of the decimal number; refuses a number without digits.
fn number_and_suffix(text: &str) -> Option<(&str, &str)> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let body = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let number = &unsigned[..body];
    let dots = number.bytes().filter(|b| *b == b'.').count();
    if dots > 1 || number.len() == dots {
        return None;
    }
    Some(text.split_at(text.len() - unsigned.len() + body))
}

fn scale(number: f64, suffix: &str) -> Option<f64> {
    // Division keeps `250m` equal to 0.25; a product with 1e-3 would not be exact.
    Some(match suffix {
        "" => number,
        "n" => number / 1e9,
        "u" => number / 1e6,
        "m" => number / 1e3,
        "k" => number * 1e3,
        "M" => number * 1e6,
        "G" => number * 1e9,
        "T" => number * 1e12,
        "P" => number * 1e15,
        "E" => number * 1e18,
        "Ki" => number * 1024.0,
        "Mi" => number * 1024f64.powi(2),
        "Gi" => number * 1024f64.powi(3),
        "Ti" => number * 1024f64.powi(4),
        "Pi" => number * 1024f64.powi(5),
        "Ei" => number * 1024f64.powi(6),
        other => {
            let exponent: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            number * 10f64.powi(exponent)
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_quantities() {
        for (text, value) in [
            ("0", 0.0),
            ("250m", 0.25),
            ("1500u", 0.0015),
            ("123456789n", 0.123_456_789),
            ("1.5", 1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("+3k", 3000.0),
            ("-2", -2.0),
            ("128Mi", 134_217_728.0),
            ("1Ei", 1_152_921_504_606_846_976.0),
            ("1E", 1e18),
            ("1E3", 1000.0),
            ("2e3", 2000.0),
            ("2e-3", 0.002),
            ("1.5Gi", 1_610_612_736.0),
        ] {
            assert_eq!(parse_quantity(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_text() {
        for text in [
            "", "m", ".", "1.2.3", "1 Gi", "1gi", "--1", "1e", "e3", "NaN", "inf", "1e400", "0x10",
            "1K", "½",
        ] {
            assert_eq!(
                parse_quantity(text),
                Err(QuantityError {
                    text: text.to_owned()
                })
            );
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_is_finite(text in "\\PC{0,24}") {
            if let Ok(value) = parse_quantity(&text) {
                prop_assert!(value.is_finite());
            }
        }

        #[test]
        fn suffixes_scale(n in 0u32..1_000_000, which in 0usize..6) {
            let (suffix, factor) = [("m", 1e-3), ("", 1.0), ("k", 1e3), ("Ki", 1024.0), ("Gi", 1_073_741_824.0), ("e2", 100.0)][which];
            let value = parse_quantity(&format!("{n}{suffix}")).unwrap();
            let expected = f64::from(n) * factor;
            prop_assert!((value - expected).abs() <= expected.abs() * 1e-12);
        }
    }
}
