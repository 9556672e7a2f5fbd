//! Which known word an unknown one may be meant for.

use strsim::osa_distance;

/// The known word that is nearest to `word`, if one is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (osa_distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(edits, candidate)| {
            *edits <= allowed || related(&lower, &candidate.to_lowercase())
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// The known word that `word` is but for one letter, or for case.
pub(crate) fn misspelt<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .find(|candidate| osa_distance(&lower, &candidate.to_lowercase()) <= 1)
}

/// One is the beginning of the other, as of a plural or an abbreviation.
fn related(a: &str, b: &str) -> bool {
    a.len().min(b.len()) >= 3 && (a.starts_with(b) || b.starts_with(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_meant() {
        let known = [
            "action",
            "attributes",
            "from",
            "match",
            "mode",
            "settings",
            "to",
        ];
        for (word, meant) in [
            ("attribute", Some("attributes")),
            ("form", Some("from")),
            ("aktion", Some("action")),
            ("setings", Some("settings")),
            ("matches", Some("match")),
            ("mod", Some("mode")),
            ("Match", Some("match")),
            ("weights", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
    }
}
