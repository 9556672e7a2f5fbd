//! What passes validation is what Envoy takes, what Envoy takes passes, and no input stops Trimtab.
//!
//! Each test has a slice that runs with the others, and a full run that is ignored there: `make fuzz` runs it, with a
//! seed that is always the same and with another one, which is printed. `TRIMTAB_FUZZ_SEED=N` runs that one again.

#[cfg(test)]
mod expressions;
#[cfg(test)]
mod headers;
#[cfg(test)]
mod inputs;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod objects;
#[cfg(test)]
mod random;
#[cfg(test)]
mod refusals;
