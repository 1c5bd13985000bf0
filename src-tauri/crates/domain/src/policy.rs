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
    /// Whether commands of the office may answer what agents ask on this workstation: with `approve`, or with
    /// `send_keys` into a session that waits for a person. Its own windows and the program `semo` always may.
    pub remote_answers: RemoteAnswers,
}

/// What is done with answers that come from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteAnswers {
    /// They count like those given here.
    #[default]
    Allow,
    /// They are refused: only people at this workstation answer.
    Deny,
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

/// Of answers, with the name of the setting.
const AT_HOME_ONLY: &str = "answered at this workstation only (setting policy.remote_answers)";

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
        match (command, self.remote_answers) {
            (Command::Approve(_), RemoteAnswers::Deny) => Decision::Deny {
                reason: format!("what agents ask on this workstation is {AT_HOME_ONLY}"),
            },
            _ => Decision::Allow,
        }
    }

    /// Decides on keys of an office's command, asked once more when they are about to be typed. Into a session that
    /// waits for a person they would be an answer.
    pub fn decide_keys(&self, waits_for_person: bool) -> Decision {
        match (waits_for_person, self.remote_answers) {
            (true, RemoteAnswers::Deny) => Decision::Deny {
                reason: format!(
                    "the session waits for a person, and keys would be an answer: what agents ask on this workstation is {AT_HOME_ONLY}"
                ),
            },
            _ => Decision::Allow,
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ask::AskAnswer;
    use crate::command::Approve;
    use crate::ids::SessionId;

    #[test]
    fn what_the_owner_refused_is_denied_with_the_name_of_the_setting() {
        let office = OfficeId(Uuid::from_u128(1));
        let policy = Policy {
            offices: vec![office],
            deny_kinds: vec!["list_sessions".into()],
            ..Policy::default()
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

    #[test]
    fn answers_from_elsewhere_count_unless_the_owner_keeps_them_at_home() {
        let office = OfficeId(Uuid::from_u128(1));
        let approve = Command::Approve(Approve {
            session: SessionId(Uuid::from_u128(2)),
            ask: None,
            answer: AskAnswer::Allow,
        });
        assert_eq!(Policy::default().decide(office, &approve), Decision::Allow);
        let policy: Policy = serde_json::from_str(r#"{"remote_answers": "deny"}"#).unwrap();
        let Decision::Deny { reason } = policy.decide(office, &approve) else {
            panic!("denied")
        };
        assert!(reason.contains("policy.remote_answers"));
        assert_eq!(policy.decide(office, &Command::ListSessions), Decision::Allow);
    }

    #[test]
    fn keys_into_a_session_that_waits_for_a_person_are_an_answer_too() {
        let keeps: Policy = serde_json::from_str(r#"{"remote_answers": "deny"}"#).unwrap();
        let Decision::Deny { reason } = keeps.decide_keys(true) else {
            panic!("denied")
        };
        assert!(reason.contains("policy.remote_answers"), "{reason}");
        assert_eq!(keeps.decide_keys(false), Decision::Allow);
        assert_eq!(Policy::default().decide_keys(true), Decision::Allow);
    }
}
