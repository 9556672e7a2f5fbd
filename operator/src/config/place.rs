//! In which line of the file a key stands.

use std::fmt;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// The line of the value of a key like `lazyload.fences.managementSelectors[1].matchLabels`, if it is there.
pub(super) fn line_of(text: &str, path: &str) -> Option<u64> {
    let steps: Vec<&str> = path
        .split(['.', '[', ']'])
        .filter(|s| !s.is_empty())
        .collect();
    let mut line = None;
    // What is no configuration has that mistake first.
    let _ = serde_saphyr::with_deserializer_from_str(text, |yaml| {
        let (steps, line) = (&steps[..], &mut line);
        At { steps, line }.deserialize(yaml)
    });
    line
}

/// Goes down the steps, and notes the line of the last one.
struct At<'a> {
    steps: &'a [&'a str],
    line: &'a mut Option<u64>,
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.steps.is_empty() {
            let found = Spanned::<IgnoredAny>::deserialize(deserializer)?;
            *self.line = Some(found.referenced.line());
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a configuration")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.steps.split_first() else {
            return Ok(());
        };
        while let Some(key) = map.next_key::<String>()? {
            if key == *first {
                let (steps, line) = (rest, &mut *self.line);
                map.next_value_seed(At { steps, line })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.steps.split_first() else {
            return Ok(());
        };
        let wanted = first.parse::<usize>().ok();
        let mut at = 0;
        loop {
            let next = if Some(at) == wanted {
                let (steps, line) = (rest, &mut *self.line);
                seq.next_element_seed(At { steps, line })?
            } else {
                seq.next_element::<IgnoredAny>()?.map(drop)
            };
            if next.is_none() {
                return Ok(());
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_s20_the_line_of_a_key_is_found() {
        let text = "http: {address: a}\nlazyload:\n  fences:\n    list:\n    - a: 1\n    - b: 2\n      c: [x,\n        y]\n";
        for (path, line) in [
            ("http", 1),
            ("http.address", 1),
            ("lazyload.fences.list[1].b", 6),
            ("lazyload.fences.list[1].c[1]", 8),
            ("lazyload.fences.list[0].a", 5),
        ] {
            assert_eq!(line_of(text, path), Some(line), "{path}");
        }
        for path in ["nothing", "lazyload.fences.lost", "http.address.deeper", ""] {
            assert_eq!(
                line_of(text, path).filter(|_| !path.is_empty()),
                None,
                "{path}"
            );
        }
    }
}
