//! No law, and limits that somebody guessed.

use trimtab_law::{Outputs, Tick};

use super::Place;
use crate::law::Law;

/// Nothing is limited.
pub struct None;

impl Law for None {
    fn tick(&mut self, _: &Tick) -> Outputs {
        Outputs::default()
    }
}

/// A limit that never changes: a share of the true capacity, as somebody who measured it would set.
pub struct Static(Outputs);

impl Static {
    /// A limit of `share` of the capacity.
    pub fn new(share: f64, place: &Place<'_>) -> Self {
        Self(Outputs {
            limit: Some(share * place.capacity),
            ..Outputs::default()
        })
    }
}

impl Law for Static {
    fn tick(&mut self, _: &Tick) -> Outputs {
        self.0.clone()
    }
}
