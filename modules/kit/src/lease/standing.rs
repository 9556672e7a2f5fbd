//! What pages, series and `/readyz` say of the election.

use std::sync::Arc;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who leads, as far as this replica knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StandingView {
    /// Leaders are elected; without it this is the only replica, which leads.
    pub elected: bool,
    /// This replica leads.
    pub leads: bool,
    /// Its name in the Lease.
    pub identity: String,
    /// Who holds the Lease, also when it has run out; empty: nobody, or it is not known.
    pub holder: String,
    /// Namespace and name of the Lease.
    pub lease: String,
    /// How often this replica has begun or ceased to lead.
    pub transitions: u64,
    /// Why the Lease cannot be read or written; empty: it can.
    pub problem: String,
}

/// Kept by the elector, read by pages and series.
#[derive(Clone, Debug)]
pub struct Standing(Arc<Mutex<StandingView>>);

impl Default for Standing {
    /// Of the only replica.
    fn default() -> Self {
        Self::of(StandingView {
            leads: true,
            ..StandingView::default()
        })
    }
}

impl Standing {
    pub(super) fn of(view: StandingView) -> Self {
        Self(Arc::new(Mutex::new(view)))
    }

    /// As of now.
    pub fn view(&self) -> StandingView {
        self.0.lock().clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut StandingView)) {
        change(&mut self.0.lock());
    }
}

impl StandingView {
    /// A line for people; `None`: leaders are not elected.
    pub fn line(&self) -> Option<String> {
        if !self.elected {
            return None;
        }
        let who = match (self.leads, self.holder.as_str()) {
            (true, _) => "this replica".to_owned(),
            (false, "") => "none".to_owned(),
            (false, holder) if holder == self.identity => {
                "none: this replica could not renew its Lease in time".to_owned()
            }
            (false, holder) => holder.to_owned(),
        };
        let problem = if self.problem.is_empty() {
            String::new()
        } else {
            format!(" ({})", self.problem)
        };
        Some(format!("leader: {who}{problem}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_leads() {
        assert_eq!(Standing::default().view().line(), None);
        let mut view = StandingView {
            elected: true,
            identity: "a".to_owned(),
            ..StandingView::default()
        };
        let line = |view: &StandingView| view.line().unwrap();
        assert_eq!(line(&view), "leader: none");
        view.holder = "b".to_owned();
        assert_eq!(line(&view), "leader: b");
        view.holder = "a".to_owned();
        view.problem = "Lease x/y: timed out".to_owned();
        assert!(line(&view).contains("could not renew"));
        assert!(line(&view).ends_with("(Lease x/y: timed out)"));
        view.leads = true;
        view.problem.clear();
        assert_eq!(line(&view), "leader: this replica");
    }
}
