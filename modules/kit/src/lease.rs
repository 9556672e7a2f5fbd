//! Which replica writes: a Lease in the cluster, and the admission of each write.
//!
//! ```text
//!  watch, answers ─> Election (pure: step) ─> reads and writes of the Lease
//!                        └─ Leadership ─> WriteAdmission ─> apply, statuses, Events, the authority's Secret
//! ```
//!
//! A lease ends by the time since *this* process saw its record change, on this process' monotonic clock. No two machines'
//! clocks are compared. What a process may still write is counted from before it asked for its last renewal.

mod admission;
mod election;
mod elector;
mod object;
mod pods;
#[cfg(test)]
mod simulation;
mod standing;
mod step;
mod timing;
mod while_leading;

pub use admission::{CALL_LIMIT, Leadership, NotLeading, Permit, WriteAdmission};
pub use elector::{Elector, Identity};
pub use pods::LEADER_LABEL;
pub use standing::{Standing, StandingView};
pub use step::{Observed, Record, Step, step};
pub use timing::{Timing, WRITE_LIMIT};
pub use while_leading::while_leading;
