//! All tests of the embedded API, as one program.

#[cfg(test)]
mod against_embedded;
#[cfg(test)]
#[path = "../conformance/mod.rs"]
mod conformance;
#[cfg(test)]
mod embedded;
#[cfg(test)]
mod history;
#[cfg(test)]
mod kubectl;
#[cfg(test)]
mod replay;
