//! What is done with a command that a claim has brought, by what the journal knows of it.

use domain::policy::Decision;
use domain::{Command, command::CommandFault};
use journal::{Phase, Received};

/// What is done with a claimed command that is in the journal now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intake {
    /// It has had no effect: begin it.
    Begin,
    /// It is in our hands: go on, under the new token.
    GoOn,
    /// It may have had an effect, and nobody knows: that is reported, and it is not done again.
    Unknown,
    /// It has a result that the office does not have: report that again, under the new token.
    ReportAgain,
}

/// Decides it. `held`: it is in our hands. `begun`: the office knows that this client has begun it before.
pub(crate) fn intake(held: bool, received: Received, begun: bool) -> Intake {
    match received {
        _ if held => Intake::GoOn,
        // It is not in the journal, though it was begun from here: another journal was in its place.
        Received::New if begun => Intake::Unknown,
        Received::New => Intake::Begin,
        // The office was told that it would be begun, and then it was not.
        Received::Known {
            phase: Phase::Received,
        } => Intake::Begin,
        Received::Known {
            phase: Phase::Started,
        } => Intake::Unknown,
        Received::Known {
            phase: Phase::Finished,
        } => Intake::ReportAgain,
    }
}

/// What a command comes to before it is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Nobody can carry it out.
    Invalid(String),
    /// The owner of this machine does not want it.
    Refused(String),
    /// It was cancelled before anything was done.
    Cancelled,
    CarryOut(Command),
}

/// Decides it.
pub(crate) fn opening(
    parsed: Result<Command, CommandFault>,
    decide: impl FnOnce(&Command) -> Decision,
    cancel_wanted: bool,
) -> Opening {
    let command = match parsed {
        Ok(command) => command,
        Err(fault) => return Opening::Invalid(fault.to_string()),
    };
    match decide(&command) {
        Decision::Deny { reason } => Opening::Refused(reason),
        Decision::Allow if cancel_wanted => Opening::Cancelled,
        Decision::Allow => Opening::CarryOut(command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_had_no_effect_is_begun() {
        let known = |phase| Received::Known { phase };
        for (held, received, begun, expected) in [
            (false, Received::New, false, Intake::Begin),
            (false, Received::New, true, Intake::Unknown),
            (false, known(Phase::Received), false, Intake::Begin),
            (false, known(Phase::Received), true, Intake::Begin),
            (false, known(Phase::Started), true, Intake::Unknown),
            (false, known(Phase::Started), false, Intake::Unknown),
            (false, known(Phase::Finished), true, Intake::ReportAgain),
            (true, known(Phase::Received), false, Intake::GoOn),
            (true, known(Phase::Started), true, Intake::GoOn),
        ] {
            assert_eq!(
                intake(held, received, begun),
                expected,
                "{held} {received:?} {begun}"
            );
        }
    }

    #[test]
    fn a_refusal_is_told_before_a_cancel_and_both_before_anything_is_done() {
        let deny = |_: &Command| Decision::Deny {
            reason: "no".to_owned(),
        };
        let list = || Command::parse("list_sessions", &serde_json::json!({}));
        assert_eq!(opening(list(), deny, true), Opening::Refused("no".to_owned()));
        assert_eq!(opening(list(), |_| Decision::Allow, true), Opening::Cancelled);
        assert_eq!(
            opening(list(), |_| Decision::Allow, false),
            Opening::CarryOut(Command::ListSessions)
        );
        let fault = opening(Command::parse("dance", &serde_json::json!({})), deny, false);
        assert!(matches!(fault, Opening::Invalid(why) if why.contains("dance")));
    }
}
