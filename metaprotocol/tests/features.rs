//! The documentation shows the table that the code decides by.

use std::path::Path;

use expect_test::expect_file;
use trimtab_metaprotocol::features::{
    Feature, Support, Target, UnsupportedEffect, document, support,
};

#[test]
fn the_page_of_the_documentation_is_the_table() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metaprotocol-features.md");
    expect_file![page].assert_eq(&document());
}

#[test]
fn every_refusal_says_why_and_what_to_do() {
    for feature in Feature::ALL {
        for target in Target::ALL {
            if let Support::No { reason, fix } = support(feature, target) {
                assert!(
                    reason.len() > 8 && fix.len() > 8,
                    "{feature:?} on {target:?}"
                );
                assert!(
                    !reason.ends_with('.') && !fix.ends_with('.'),
                    "{feature:?} on {target:?}: both stand inside a sentence"
                );
            }
        }
    }
}

#[test]
fn a_feature_that_decides_where_calls_go_is_never_left_out_of_a_route() {
    for feature in Feature::ALL {
        let name = format!("{feature:?}");
        let decides = name.starts_with("Match") || ["Weights", "KeyPrefix"].contains(&&*name);
        assert_eq!(
            feature.loss() == UnsupportedEffect::BlocksRoutes,
            decides,
            "{name}"
        );
    }
}
