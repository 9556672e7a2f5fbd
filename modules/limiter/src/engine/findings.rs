//! What `trimtab translate` prints of a limiter beside its objects.

use trimtab_crds::limiter::{DescriptorState, Matcher};
use trimtab_kit::module::Finding;

use super::entry::Entry;
use crate::decide::plan::fills_others;
use crate::overridden::limits_too;

impl Entry {
    /// What is refused of the object, and the decisions.
    pub fn findings(&self) -> Vec<Finding> {
        let owner = &self.input.owner;
        let refused = |what: &dyn std::fmt::Display| Finding {
            refused: true,
            message: format!("{owner}: {what}"),
        };
        let problems = self.validated.problems();
        let mut out: Vec<Finding> = problems.map(|p| refused(p)).collect();
        if let Some(problem) = &self.input.target.problem {
            let host = self.input.spec.host.as_deref().unwrap_or_default();
            out.push(refused(&problem.problem(owner, host)));
            return out;
        }
        out.extend(self.delivery_problem().iter().map(|p| refused(p)));
        out.extend(self.remarks());
        for (decision, checked) in self.shown().iter().zip(&self.validated.rules) {
            let index = usize::try_from(decision.index).unwrap_or_default();
            let path = owner.descriptor_path(&decision.set, index);
            let is_refused = decision.state == DescriptorState::Refused
                && checked.rule.is_ok()
                && self.validated.object.is_empty();
            out.push(if is_refused {
                refused(&decision.reason)
            } else {
                let state = decision.state.as_str();
                Finding {
                    refused: false,
                    message: format!("{owner}: {path}: {state}: {}", decision.reason),
                }
            });
        }
        let others = [
            fills_others(&self.input, &self.validated),
            limits_too(&self.input, &self.validated),
        ];
        let remarks = self.validated.remarks().chain(others.iter().flatten());
        out.extend(remarks.map(|remark| Finding {
            refused: false,
            message: format!("{owner}: {remark}"),
        }));
        out
    }

    /// What is valid and probably not meant.
    fn remarks(&self) -> impl Iterator<Item = Finding> + '_ {
        let owner = &self.input.owner;
        self.validated.good().flat_map(move |rule| {
            let matches = rule.descriptor.matches.iter().enumerate();
            let exact_path = |m: &Matcher| {
                m.name.as_deref() == Some(":path")
                    && m.exact_match.as_deref().is_some_and(|text| !text.contains('?'))
                    && m.ignore_query.is_none()
            };
            matches.filter(move |(_, m)| exact_path(m)).map(move |(i, _)| Finding {
                refused: false,
                message: format!(
                    "{owner}: {}.match[{i}].exact_match: :path has the query, so a path with one is another: set ignoreQuery: true to match both, false to say that this is meant",
                    rule.path
                ),
            })
        })
    }
}
