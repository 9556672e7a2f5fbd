//! Parts of the benchmarks and of the scale run.

pub mod floods;
pub mod host;
pub mod large;
pub mod mesh;
pub mod probe;
pub mod real;
pub mod savings;
pub mod synthetic;
pub mod usage;
