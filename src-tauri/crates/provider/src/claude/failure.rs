//! From the program's error names to our classes of failure; when a limit is lifted; and the retries that it shows
//! on its screen and tells nowhere else (measured: no hook, no line of the transcript, no change of the status file).

use std::sync::LazyLock;

use domain::Timestamp;
use domain::turn::{FailureClass, Retry};
use regex::Regex;

use super::program::{NO_PERMISSION_STEPS, SIGN_IN_STEPS};

/// Rows from the bottom in which the line of a retry is looked for: above the input box and its footer.
const RETRY_ROWS: usize = 14;
/// Longest words of a retry that are kept, in characters.
const RETRY_CHARS_MAX: usize = 160;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const MINUTE_MS: i64 = 60 * 1000;

/// Names that `StopFailure.error` and the transcript's `error` were seen with, or that the program has in it.
const CLASSES: &[(&str, FailureClass)] = &[
    ("rate_limit", FailureClass::RateLimit),
    ("authentication_failed", FailureClass::Auth),
    ("oauth_org_not_allowed", FailureClass::Auth),
    ("billing_error", FailureClass::Billing),
    ("invalid_request", FailureClass::Other),
    ("model_not_found", FailureClass::Other),
    ("overloaded", FailureClass::Overloaded),
    ("server_error", FailureClass::Server),
    ("max_output_tokens", FailureClass::Context),
];

/// The class of a failure, from its name, the API's HTTP status and the message for people. The name comes first;
/// the message is asked only for what has no name of its own. It is the program's own error text, never a model's.
pub fn failure_class(error: &str, status: Option<u16>, message: &str) -> FailureClass {
    let message = message.to_lowercase();
    if message.contains("prompt is too long") {
        return FailureClass::Context;
    }
    if message.contains("unable to connect to api") || message.contains("connection error") {
        return FailureClass::Connection;
    }
    if message.contains("529") && message.contains("overloaded") {
        return FailureClass::Overloaded;
    }
    let named = CLASSES
        .iter()
        .find(|(name, _)| *name == error)
        .map(|(_, class)| *class);
    match (named, status) {
        (Some(class), _) if class != FailureClass::Other => class,
        (_, Some(401 | 403)) => FailureClass::Auth,
        (_, Some(402)) => FailureClass::Billing,
        (_, Some(413)) => FailureClass::Context,
        (_, Some(429)) => FailureClass::RateLimit,
        (_, Some(529)) => FailureClass::Overloaded,
        (_, Some(500..)) => FailureClass::Server,
        (_, Some(_) | None) => FailureClass::Other,
    }
}

/// What a failure of class "auth" is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthFailure {
    /// Nobody is signed in, or the sign-in or key is not valid (401).
    SignedOut,
    /// Somebody is, and may not do this (403).
    NoPermission,
}

impl AuthFailure {
    /// What the user does about it.
    pub fn steps(self) -> &'static str {
        match self {
            AuthFailure::SignedOut => SIGN_IN_STEPS,
            AuthFailure::NoPermission => NO_PERMISSION_STEPS,
        }
    }
}

/// Which of the two the program's words are about: it says "Please run /login" for both.
pub fn auth_failure(words: &str) -> AuthFailure {
    let mut statuses = HTTP_STATUS
        .iter()
        .flat_map(|pattern| pattern.captures_iter(words));
    let words = words.to_lowercase();
    let named = ["permission", "not allowed", "disabled organization", "forbidden"];
    if statuses.any(|found| &found[1] == "403") || named.iter().any(|name| words.contains(name)) {
        AuthFailure::NoPermission
    } else {
        AuthFailure::SignedOut
    }
}

/// `resets 3:14am (UTC)`, `resets 3am (UTC)`, `resets at 15:04 (UTC)`; only UTC can be placed without more knowledge.
static RESETS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)resets(?: at)? (\d{1,2})(?::(\d{2}))? ?(am|pm)? ?\((?:UTC|GMT)\)").ok()
});
/// `try again in 45s`, `retry after 2 minutes`: what messages say that name no hour.
static AFTER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)(?:try again in|retry.after:?|retry in) (\d{1,6}) ?(s\b|sec|m\b|min|h\b|hour)").ok()
});
/// `✻ API error · Retrying in 4s · attempt 4/10`: a spinner's glyph at the very left.
static RETRYING: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^\S ?\s?(\S.*?) · Retrying in (\d+)s?(?: ?\w*)? · attempt (\d+)/(\d+)").ok()
});
static HTTP_STATUS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\b([45]\d\d)\b").ok());

/// When a limit is lifted, as its message says; `now` places an hour of the day.
pub fn reset_at(message: &str, now: Timestamp) -> Option<Timestamp> {
    if let Some(found) = RESETS.as_ref()?.captures(message) {
        let hour: i64 = found[1].parse().ok()?;
        let minute: i64 = found.get(2).map_or(Ok(0), |found| found.as_str().parse()).ok()?;
        let half = found.get(3).map(|half| half.as_str().to_lowercase());
        let hour = match half.as_deref() {
            Some("am") if hour == 12 => 0,
            Some("pm") if hour < 12 => hour + 12,
            _ => hour,
        };
        if hour > 23 || minute > 59 {
            return None;
        }
        let today = now.0 - now.0.rem_euclid(DAY_MS);
        let at = today + (hour * 60 + minute) * MINUTE_MS;
        // The minute is cut: a limit of this very minute is no limit of tomorrow.
        let passed = at + MINUTE_MS < now.0;
        return Some(Timestamp(if passed { at + DAY_MS } else { at }));
    }
    let found = AFTER.as_ref()?.captures(message)?;
    let count: i64 = found[1].parse().ok()?;
    let unit = match found[2].to_lowercase().chars().next() {
        Some('s') => 1000,
        Some('m') => MINUTE_MS,
        _ => 60 * MINUTE_MS,
    };
    Some(now.plus_ms(count.saturating_mul(unit)))
}

/// The retry that a screen's rows tell of, if one is under way. Only asked while a turn runs.
pub fn retry_on(rows: &[String]) -> Option<Retry> {
    let pattern = RETRYING.as_ref()?;
    let used = rows.iter().rposition(|row| !row.trim().is_empty())? + 1;
    let first = used.saturating_sub(RETRY_ROWS);
    let found = rows[first..used].iter().rev().find_map(|row| {
        let row = row.replace('\u{a0}', " ");
        // A model's own words stand behind a bullet or are indented.
        if row.starts_with([' ', '●', '❯', '⎿']) {
            return None;
        }
        let found = pattern.captures(&row)?;
        let number = |n: usize| found.get(n).and_then(|number| number.as_str().parse().ok());
        Some(Retry {
            class: class_of_words(&found[1]),
            attempt: number(3)?,
            max: number(4)?,
            next_in_s: number(2),
            words: found[0].chars().skip(1).take(RETRY_CHARS_MAX).collect::<String>(),
        })
    });
    found.map(|retry| Retry {
        words: retry.words.trim().to_owned(),
        ..retry
    })
}

/// What a retry's words say about its class; the first tries often say no more than "API error".
fn class_of_words(words: &str) -> Option<FailureClass> {
    let status = HTTP_STATUS
        .as_ref()
        .and_then(|pattern| pattern.captures(words)?[1].parse().ok());
    match failure_class("", status, words) {
        FailureClass::Other => None,
        class => Some(class),
    }
}

#[cfg(test)]
mod tests {
    use super::super::program::SIGN_IN_HINT;
    use super::*;

    #[test]
    fn an_account_without_permission_is_not_called_signed_out() {
        for words in [
            "Not logged in · Please run /login",
            "Invalid API key · Fix external API key",
            "Please run /login · API Error: 401 {\"type\":\"error\"}",
        ] {
            assert_eq!(auth_failure(words), AuthFailure::SignedOut, "{words}");
        }
        for words in [
            "Please run /login · API Error: 403 {\"type\":\"error\"}",
            "API Error: your account does not have permission to use this model",
        ] {
            assert_eq!(auth_failure(words), AuthFailure::NoPermission, "{words}");
            assert_eq!(
                failure_class("authentication_failed", None, words),
                FailureClass::Auth
            );
        }
        assert!(SIGN_IN_HINT.ends_with(SIGN_IN_STEPS));
    }

    #[test]
    fn the_hour_of_a_reset_is_the_next_one_of_that_name() {
        let now = Timestamp::parse_rfc3339("2026-11-21T22:30:10Z").unwrap();
        let check = |message: &str, expected: Option<&str>| {
            let expected = expected.map(|text| Timestamp::parse_rfc3339(text).unwrap());
            assert_eq!(reset_at(message, now), expected, "{message}");
        };
        let words = "You've hit your session limit · resets";
        check(&format!("{words} 3:14am (UTC)"), Some("2026-11-22T03:14:00Z"));
        check(&format!("{words} 11pm (UTC)"), Some("2026-11-21T23:00:00Z"));
        check(&format!("{words} 12am (UTC)"), Some("2026-11-22T00:00:00Z"));
        check(&format!("{words} at 23:05 (UTC)"), Some("2026-11-21T23:05:00Z"));
        check(&format!("{words} 10:30pm (UTC)"), Some("2026-11-21T22:30:00Z"));
        check(&format!("{words} 3:14am (Asia/Seoul)"), None);
        check(&format!("{words} 99:99 (UTC)"), None);
        check("please try again in 45s", Some("2026-11-21T22:30:55Z"));
        check("Retry-After: 2 minutes", Some("2026-11-21T22:32:10Z"));
        check("no time at all", None);
    }

    #[test]
    fn a_retry_is_read_from_its_line_and_not_from_a_models_words() {
        let screen = |row: &str| {
            let rows = [
                "❯ do it",
                "",
                row,
                "",
                "──────────",
                "❯",
                "──────────",
                "  esc to interrupt",
            ];
            retry_on(&rows.map(str::to_owned))
        };
        let retry = screen("✻ API error · Retrying in 4s · attempt 4/10").unwrap();
        assert_eq!(
            (retry.class, retry.attempt, retry.max, retry.next_in_s),
            (None, 4, 10, Some(4))
        );
        assert_eq!(retry.words, "API error · Retrying in 4s · attempt 4/10");
        let limited = screen("· 429 Too many requests · Retrying in 2s · attempt 1/1").unwrap();
        assert_eq!(limited.class, Some(FailureClass::RateLimit));
        let refused =
            screen("✻ Unable to connect to API (ConnectionRefused) · Retrying in 8s · attempt 5/10").unwrap();
        assert_eq!(refused.class, Some(FailureClass::Connection));
        for quoted in [
            "● It said: API error · Retrying in 4s · attempt 4/10",
            "  API error · Retrying in 4s · attempt 4/10",
            "✻ Thinking… (4s)",
            "",
        ] {
            assert_eq!(screen(quoted), None, "{quoted}");
        }
        assert_eq!(retry_on(&[]), None);
    }

    #[test]
    fn every_error_that_was_seen_has_its_class() {
        let check = |error: &str, status, message: &str, expected| {
            assert_eq!(
                failure_class(error, status, message),
                expected,
                "{error} {status:?} {message}"
            );
        };
        check(
            "billing_error",
            Some(400),
            "Credit balance is too low",
            FailureClass::Billing,
        );
        check(
            "rate_limit",
            Some(429),
            "API Error: Request rejected (429)",
            FailureClass::RateLimit,
        );
        check(
            "authentication_failed",
            Some(401),
            "Not logged in",
            FailureClass::Auth,
        );
        check(
            "server_error",
            Some(500),
            "API Error: 500 Internal server error.",
            FailureClass::Server,
        );
        check(
            "server_error",
            Some(529),
            "API Error: Repeated 529 Overloaded errors.",
            FailureClass::Overloaded,
        );
        check(
            "invalid_request",
            Some(400),
            "Prompt is too long",
            FailureClass::Context,
        );
        check(
            "unknown",
            None,
            "API Error: Unable to connect to API (ConnectionRefused)",
            FailureClass::Connection,
        );
        check("", None, "", FailureClass::Other);
    }
}
