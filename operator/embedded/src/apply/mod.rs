//! Patches, server-side apply and field ownership. Pure functions over JSON values.

mod fields;
mod managed_fields;
mod merge;
mod shape;
mod strategic;

pub(crate) use managed_fields::{Manager, Scope, server_side, track};
pub(crate) use shape::Shape;
pub(crate) use strategic::strategic_merge;
