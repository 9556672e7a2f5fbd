//! The operator's law as a law of the judge.

use trimtab_law::{Config, Outputs, State, Tick};

use crate::law::Law;

/// The law with its state.
pub struct Trimtab {
    config: Config,
    state: State,
    /// Prints each decision, for whoever looks at one run.
    trace: bool,
}

impl Trimtab {
    /// A law that knows nothing yet.
    pub fn new(config: &Config, trace: bool) -> Self {
        Self {
            config: config.clone(),
            state: State::default(),
            trace,
        }
    }
}

impl Law for Trimtab {
    fn tick(&mut self, tick: &Tick) -> Outputs {
        let decision = self.state.decide(&self.config, tick);
        if self.trace {
            println!(
                "{:6.0} {:9} {:?} {}",
                decision.t, decision.state, decision.outputs.limit, decision.reason
            );
        }
        decision.outputs
    }
}
