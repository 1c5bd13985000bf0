//! The facts that back a result, each with how much it is worth.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a claim is known. The order is the order of trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// The agent said so.
    Claimed,
    /// We saw it happen: a hook, a tool's output, an exit code.
    Observed,
    /// We checked it ourselves: git.
    Verified,
}

/// One fact. What could not be checked is left out: not being able to check is inconclusive, not false.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// What is claimed, as a stable name: `marker`, `final_message`, `head_after`, `files_changed` …
    pub what: String,
    /// Its value.
    pub value: Value,
    /// How it is known.
    pub tier: Tier,
    /// Where it comes from: `hook:Stop`, `transcript`, `git`, `process` …
    pub source: String,
}

/// All that backs one turn's outcome.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// Name of the rule that decided (see [`crate::turn::Verdict`]).
    pub rule: String,
    /// The facts, in the order in which they became known.
    pub claims: Vec<Claim>,
}

impl Evidence {
    /// Adds a fact.
    pub fn add(&mut self, what: &str, value: impl Into<Value>, tier: Tier, source: &str) {
        self.claims.push(Claim {
            what: what.to_owned(),
            value: value.into(),
            tier,
            source: source.to_owned(),
        });
    }

    /// The newest claim of that name with the highest tier.
    pub fn best(&self, what: &str) -> Option<&Claim> {
        self.claims
            .iter()
            .filter(|claim| claim.what == what)
            .max_by_key(|claim| claim.tier)
    }
}
