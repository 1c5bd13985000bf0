//! What an answer to a result means, and when a result is sent again. An answer of any kind ends the reporting of a
//! result; silence never does.

use journal::Acknowledgement;
use supabase::{Completion, RestError};

/// First pause after a failed report; doubled up to [`RETRY_MS_MAX`].
pub(crate) const RETRY_MS_MIN: u64 = 1_000;
/// Longest pause between two tries.
pub(crate) const RETRY_MS_MAX: u64 = 60_000;

/// What is sent of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// All of it.
    Whole,
    /// The end alone, since the office could not take what it holds.
    WithoutContent,
}

/// What is done after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The office has answered: it is not sent again.
    Acknowledge(Acknowledgement),
    /// It is sent at once, without what it holds.
    SendWithoutContent,
    /// It is sent again later.
    Postpone { pause_ms: u64 },
}

/// Decides it. `tries`: how often it was sent in vain before; `share` of the full pause, between a half and the whole.
pub(crate) fn after(answer: &Result<Completion, RestError>, sent: Sent, tries: u32, share: f64) -> Next {
    match answer {
        Ok(Completion::Recorded) => Next::Acknowledge(Acknowledgement::Recorded),
        Ok(Completion::Duplicate) => Next::Acknowledge(Acknowledgement::Duplicate),
        Ok(Completion::Late) => Next::Acknowledge(Acknowledgement::Late),
        Err(error) if sent == Sent::Whole && is_about_content(error) => Next::SendWithoutContent,
        Err(error) if is_final(error) => Next::Acknowledge(Acknowledgement::Rejected),
        Err(_) => Next::Postpone {
            pause_ms: pause_ms(tries, share),
        },
    }
}

/// The database refused the values themselves (SQLSTATE classes 22 and 23: data, constraints): too large, or with
/// characters it does not take. Sending them again would not help.
fn is_about_content(error: &RestError) -> bool {
    match error {
        RestError::Rejected { code, .. } => code.starts_with("22") || code.starts_with("23"),
        RestError::Unauthorized { .. }
        | RestError::Forbidden { .. }
        | RestError::NotFound { .. }
        | RestError::Conflict { .. }
        | RestError::Unreachable { .. }
        | RestError::Malformed { .. } => false,
    }
}

/// The office's word that trying again would not change. A lost sign-in is not: the result waits for the next one.
fn is_final(error: &RestError) -> bool {
    match error {
        RestError::NotFound { code, .. } => code.starts_with("PT"),
        RestError::Conflict { .. } => true,
        RestError::Rejected { status, .. } => *status == 422 || *status == 413,
        RestError::Unauthorized { .. }
        | RestError::Forbidden { .. }
        | RestError::Unreachable { .. }
        | RestError::Malformed { .. } => false,
    }
}

/// Doubling with jitter.
fn pause_ms(tries: u32, share: f64) -> u64 {
    let full = RETRY_MS_MIN.saturating_mul(1 << tries.min(16)).min(RETRY_MS_MAX);
    (full as f64 * share) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_to_a_minute_and_no_further() {
        let pauses: Vec<u64> = [0, 1, 3, 6, 60].map(|tries| pause_ms(tries, 1.0)).to_vec();
        assert_eq!(pauses, [1_000, 2_000, 8_000, 60_000, 60_000]);
        assert_eq!(pause_ms(0, 0.5), 500);
    }

    #[test]
    fn only_the_offices_own_no_ends_the_reporting() {
        let attempted = || "x".to_owned();
        let not_found = |code: &str| RestError::NotFound {
            attempted: attempted(),
            code: code.to_owned(),
            message: String::new(),
        };
        let away = RestError::Unreachable {
            attempted: attempted(),
            reason: String::new(),
            retry_after: None,
        };
        let signed_out = RestError::Unauthorized {
            attempted: attempted(),
            reason: String::new(),
        };
        let rejected = Next::Acknowledge(Acknowledgement::Rejected);
        let later = Next::Postpone { pause_ms: 1_000 };
        for (error, expected) in [
            (not_found("PT404"), rejected),
            (not_found("PGRST202"), later),
            (away, later),
            (signed_out, later),
        ] {
            let text = error.to_string();
            assert_eq!(after(&Err(error), Sent::Whole, 0, 1.0), expected, "{text}");
        }
    }

    #[test]
    fn what_the_office_cannot_take_is_told_without_what_it_holds() {
        let too_large = Err(RestError::Rejected {
            attempted: "x".to_owned(),
            status: 400,
            code: "23514".to_owned(),
            message: String::new(),
            details: String::new(),
            hint: String::new(),
        });
        assert_eq!(after(&too_large, Sent::Whole, 0, 1.0), Next::SendWithoutContent);
        let again = after(&too_large, Sent::WithoutContent, 0, 1.0);
        assert_eq!(again, Next::Postpone { pause_ms: 1_000 }, "not for ever at once");
    }
}
