//! `trimtab migrate`: golden cases, values that the real helm takes, keys of Slime, and what the program says of a SlimeBoot.
//!
//! A golden case is a folder of `golden/migrate` with `in.yaml`, whose first line names the migration, and `out.txt`.
//! `UPDATE_EXPECT=1 cargo test -p trimtab-tests --test migrate` writes the outputs anew.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail the test"
)]

mod cases;
mod golden;
mod keys;
mod pages;
mod total;
mod values;
