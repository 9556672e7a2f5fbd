//! `trimtab describe smartlimiter`: whether a limiter limits now, why not, and all that this depends on. Pure: the engine
//! gathers the [`Description`], which the JSON API gives as it is, and [`text`] writes it for people.

mod text;
mod verdict;
mod view;

pub use text::text;
pub(crate) use verdict::{Facts, verdict};
pub use view::{
    Description, OtherLimit, PortDescription, RuleDescription, SetDescription, TargetDescription,
    ValueDescription,
};
