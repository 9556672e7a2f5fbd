//! One object in two places: the first counts, and the second is a mistake that names both.

use std::collections::BTreeMap;

use trimtab_embedded::Embedded;

use super::{identity, text};
use crate::manifests::Document;

/// Documents, each for another object, and those that are in the way of one of them, with the reason.
pub(crate) struct Split {
    pub(crate) taken: Vec<Document>,
    pub(crate) refused: Vec<(Document, String)>,
}

/// Of several documents for one object one counts: that whose file has it `in_force`, else the first.
///
/// The same Namespace in many files is no mistake, as each file of an application may begin with it, and kinds that nobody
/// reads are none of ours.
pub(crate) fn split(
    embedded: &Embedded,
    documents: Vec<Document>,
    in_force: impl Fn(&Document) -> bool,
) -> Split {
    let served = |d: &Document| {
        let (api_version, kind) = (text(&d.object, "/apiVersion"), text(&d.object, "/kind"));
        embedded.kind(api_version, kind).is_some()
    };
    let mut winners = BTreeMap::new();
    for (i, document) in documents.iter().enumerate() {
        let id = identity(embedded, &document.object);
        let challenger = (!in_force(document), i);
        let winner = winners.entry(id).or_insert(challenger);
        *winner = challenger.min(*winner);
    }
    let mut out = Split {
        taken: Vec::new(),
        refused: Vec::new(),
    };
    let all = documents.clone();
    for (i, document) in documents.into_iter().enumerate() {
        let id = identity(embedded, &document.object);
        let winner = winners.get(&id).and_then(|(_, w)| all.get(*w));
        match winner.filter(|_| winners[&id].1 != i && served(&document)) {
            None => out.taken.push(document),
            Some(same) if is_same_namespace(&document, same) => {}
            Some(other) => {
                let (file, place) = (other.file.display(), other.place);
                let error = document.fails(&format!(
                    "it is in {file} too ({place}), and that one counts: remove one of them"
                ));
                out.refused.push((document, error));
            }
        }
    }
    out
}

fn is_same_namespace(a: &Document, b: &Document) -> bool {
    text(&a.object, "/kind") == "Namespace" && a.object == b.object
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifests;
    use crate::standalone::embedded;

    const LIMITER: &str = "apiVersion: microservice.slime.io/v1alpha2\nkind: SmartLimiter\nmetadata: {name: a, namespace: default}\nspec: {sets: {}}\n";

    fn documents(files: &[(&str, &str)]) -> Vec<Document> {
        let read = files
            .iter()
            .map(|(file, text)| manifests::parse(Path::new(file), text).unwrap());
        read.flatten().collect()
    }

    fn split_of(files: &[(&str, &str)], in_force: &str) -> (Vec<String>, Vec<String>) {
        let found = split(&embedded().unwrap(), documents(files), |d| {
            d.file == Path::new(in_force)
        });
        let of = |d: &Document| format!("{} {}", d.file.display(), d.title());
        (
            found.taken.iter().map(of).collect(),
            found.refused.into_iter().map(|(_, error)| error).collect(),
        )
    }

    #[test]
    fn fault_o5_one_object_in_two_places_is_refused_with_both() {
        let without = LIMITER.replace(", namespace: default", "");
        let twice = format!("{LIMITER}---\n{without}");
        let list = format!(
            "apiVersion: v1\nkind: List\nitems:\n- {}",
            LIMITER.replace('\n', "\n  ")
        );
        for (first, second) in [
            (LIMITER, LIMITER),
            (LIMITER, without.as_str()),
            (LIMITER, list.trim()),
        ] {
            let files = [("a.yaml", first), ("b.yaml", second)];
            let (taken, refused) = split_of(&files, "");
            assert_eq!(taken, ["a.yaml SmartLimiter default/a"]);
            assert_eq!(refused.len(), 1);
            for part in [
                "b.yaml: SmartLimiter default/a",
                "in a.yaml too (document 1, line 1)",
                "remove one",
            ] {
                assert!(refused[0].contains(part), "{refused:?}");
            }
            let (taken, refused) = split_of(&files, "b.yaml");
            assert_eq!(taken, ["b.yaml SmartLimiter default/a"]);
            assert!(refused[0].starts_with("a.yaml: "), "{refused:?}");
        }
        let (taken, refused) = split_of(&[("a.yaml", &twice)], "");
        assert_eq!((taken.len(), refused.len()), (1, 1));
        assert!(refused[0].ends_with("(document 2, line 6)"), "{refused:?}");
    }

    #[test]
    fn fault_o5_versions_of_a_kind_are_one_kind_and_others_are_not() {
        let rule = |version: &str| {
            format!(
                "apiVersion: networking.istio.io/{version}\nkind: DestinationRule\nmetadata: {{name: a}}\nspec: {{host: a}}\n"
            )
        };
        let files = [("a.yaml", rule("v1beta1")), ("b.yaml", rule("v1"))];
        let files = files.each_ref().map(|(file, text)| (*file, text.as_str()));
        assert_eq!(split_of(&files, "").1.len(), 1);
        let space = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}";
        let other = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {a: b}}}";
        let foreign = "{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: a}}";
        let (taken, refused) = split_of(
            &[("a", space), ("b", space), ("c", foreign), ("d", foreign)],
            "",
        );
        assert_eq!((taken.len(), refused.len()), (3, 0), "{refused:?}");
        assert_eq!(split_of(&[("a", space), ("b", other)], "").1.len(), 1);
        let service = LIMITER
            .replace("microservice.slime.io/v1alpha2", "v1")
            .replace("SmartLimiter", "Service");
        assert_eq!(split_of(&[("a", LIMITER), ("b", &service)], "").1.len(), 0);
    }
}
