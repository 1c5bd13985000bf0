//! The local policy: what the owner of this workstation lets offices do. It is asked before any effect; a refusal
//! is a result too.

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::ids::OfficeId;

/// What is allowed. Empty lists allow everything of their kind: a workstation that joined an office has said yes
/// to it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Offices whose commands are taken.
    pub offices: Vec<OfficeId>,
    /// Command kinds that are refused.
    pub deny_kinds: Vec<String>,
}

/// What the policy says to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// Complete it as refused, with this reason.
    Deny {
        /// For the result row: what was refused and who can change that.
        reason: String,
    },
}

impl Policy {
    /// Decides on one command of one office.
    pub fn decide(&self, office: OfficeId, command: &Command) -> Decision {
        if !self.offices.is_empty() && !self.offices.contains(&office) {
            return Decision::Deny {
                reason: format!(
                    "office {office} is not among the offices that this workstation serves (setting policy.offices)"
                ),
            };
        }
        let kind = command.kind();
        if self.deny_kinds.iter().any(|denied| denied == kind) {
            return Decision::Deny {
                reason: format!("`{kind}` is refused on this workstation (setting policy.deny_kinds)"),
            };
        }
        Decision::Allow
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_the_owner_refused_is_denied_with_the_name_of_the_setting() {
        let office = OfficeId(Uuid::from_u128(1));
        let policy = Policy {
            offices: vec![office],
            deny_kinds: vec!["list_sessions".into()],
        };
        let Decision::Deny { reason } = policy.decide(office, &Command::ListSessions) else {
            panic!("denied")
        };
        assert!(reason.contains("policy.deny_kinds"));
        let foreign = OfficeId(Uuid::from_u128(2));
        assert!(matches!(
            policy.decide(foreign, &Command::ListSessions),
            Decision::Deny { .. }
        ));
        assert_eq!(
            Policy::default().decide(foreign, &Command::ListSessions),
            Decision::Allow
        );
    }
}
