//! `trimtab prove-limit`: requests until one is limited. `helm test` runs it in a pod.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::{Client, StatusCode, Url};
use tokio::time::Instant;

/// Requests of a round.
const ROUND: u32 = 20;
/// Between two rounds.
const BETWEEN: Duration = Duration::from_secs(1);
/// Time limit of a request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked, and for how long.
#[derive(Clone, Debug, Args)]
pub struct ProveArgs {
    /// What is limited, e.g. http://orders.shop/
    url: Url,
    /// Requests that the limit lets through, less than 20; it should be for a minute or so, longer than 20 requests take
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..i64::from(ROUND)))]
    allowed: u32,
    /// How long the limit may take to hold
    #[arg(long, value_name = "DURATION", default_value = "2m")]
    within: trimtab_crds::Duration,
}

/// What a round of requests met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Round {
    passed: u32,
    limited: u32,
    /// The last other answer, or the last error.
    other: Option<String>,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed, limited, ..
        } = self;
        write!(f, "{passed} passed, {limited} limited with 429")?;
        let other = self.other.as_ref();
        other.map_or(Ok(()), |other| write!(f, "; {other}"))
    }
}

/// What all rounds say.
#[derive(Debug, Default)]
struct Proof {
    /// A request passed: what is limited is there, and not merely away.
    passed: bool,
    last: Round,
}

impl Proof {
    /// Takes a round in. True: the limit holds.
    fn holds(&mut self, round: Round, allowed: u32) -> bool {
        self.passed |= round.passed > 0;
        let only = round.other.is_none() && round.passed <= allowed && round.limited > 0;
        self.last = round;
        only && self.passed
    }

    /// Why the limit does not hold, and what to look at.
    fn failure(&self) -> &'static str {
        match (&self.last, self.passed) {
            (
                Round {
                    passed: 0,
                    limited: 0,
                    ..
                },
                _,
            ) => "it does not answer: is its pod ready, and does it have a sidecar?",
            (Round { limited: 0, .. }, _) => {
                "nothing is limited: has the pod a sidecar, and what does the condition Programmed of the SmartLimiter say (kubectl get sml)?"
            }
            (_, false) => "everything is limited, also before the limit: whose limit is it?",
            _ => {
                "more pass than the limit allows: has the SmartLimiter the quota that --allowed says?"
            }
        }
    }
}

impl ProveArgs {
    /// Asks until the limit holds; what was seen then.
    pub async fn prove(&self) -> anyhow::Result<String> {
        let end = Instant::now() + *self.within;
        let mut proof = Proof::default();
        loop {
            // A limit comes to new connections; open ones may keep the configuration that they began with.
            let client = Client::builder().no_proxy().timeout(TIMEOUT).build()?;
            let round = self.round(&client).await;
            if proof.holds(round, self.allowed) {
                return Ok(format!(
                    "{}: the limit holds: of {ROUND} requests {}\n",
                    self.url, proof.last
                ));
            }
            if Instant::now() >= end {
                let why = proof.failure();
                bail!(
                    "{}: no limit of {} within {}: of {ROUND} requests {}. {why}",
                    self.url,
                    self.allowed,
                    self.within,
                    proof.last
                );
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }

    async fn round(&self, client: &Client) -> Round {
        let mut round = Round::default();
        for _ in 0..ROUND {
            let answer = client.get(self.url.clone()).send().await;
            match answer.context("no answer").map(|a| a.status()) {
                Ok(StatusCode::TOO_MANY_REQUESTS) => round.limited += 1,
                Ok(status) if status.is_success() => round.passed += 1,
                Ok(status) => round.other = Some(format!("others answered {status}")),
                Err(error) => {
                    round.other = Some(format!("{error:#}"));
                    // Each may take as long as the time limit.
                    break;
                }
            }
        }
        round
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(passed: u32, limited: u32) -> Round {
        Round {
            passed,
            limited,
            other: None,
        }
    }

    #[test]
    fn a_limit_holds_when_some_pass_and_no_more_than_it_allows() {
        let mut proof = Proof::default();
        assert!(!proof.holds(round(20, 0), 5), "no limit");
        assert!(!proof.holds(round(12, 8), 5), "it came in between");
        assert!(proof.holds(round(0, 20), 5), "its tokens are used up");
        assert!(Proof::default().holds(round(5, 15), 5), "exact");
    }

    #[test]
    fn what_is_limited_must_have_answered() {
        let mut proof = Proof::default();
        assert!(!proof.holds(round(0, 20), 5));
        assert!(proof.failure().contains("everything is limited"));
        let away = Round {
            other: Some("no answer".to_owned()),
            ..Round::default()
        };
        let mut proof = Proof::default();
        assert!(!proof.holds(away, 5));
        assert!(proof.failure().contains("does not answer"));
        assert!(!proof.holds(round(20, 0), 5));
        assert!(proof.failure().contains("nothing is limited"));
        assert!(!proof.holds(round(9, 11), 5));
        assert!(proof.failure().contains("more pass"));
    }
}
