//! What each verb does.

mod admit;
mod crd;
mod delete;
mod read;
mod watch;
mod write;

pub(crate) use admit::{FieldValidation, Options};
