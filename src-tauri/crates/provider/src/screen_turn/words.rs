//! The words of a program's own error rows: their class, and when a limit ends.

use std::sync::LazyLock;

use domain::turn::FailureClass;
use regex::Regex;

/// Words of error rows that were seen, the more special first; in lower case.
const CLASSES: &[(&str, FailureClass)] = &[
    ("prompt is too long", FailureClass::Context),
    ("context window", FailureClass::Context),
    ("context limit", FailureClass::Context),
    ("request too large", FailureClass::Context),
    ("credit balance", FailureClass::Billing),
    ("billing", FailureClass::Billing),
    ("quota", FailureClass::Billing),
    ("invalid api key", FailureClass::Auth),
    ("incorrect api key", FailureClass::Auth),
    ("api key not valid", FailureClass::Auth),
    ("not logged in", FailureClass::Auth),
    ("please run /login", FailureClass::Auth),
    ("oauth token", FailureClass::Auth),
    ("unauthorized", FailureClass::Auth),
    ("unauthenticated", FailureClass::Auth),
    ("unable to connect", FailureClass::Connection),
    ("connection error", FailureClass::Connection),
    ("connection refused", FailureClass::Connection),
    ("error sending request", FailureClass::Connection),
    ("stream disconnected", FailureClass::Connection),
    ("overloaded", FailureClass::Overloaded),
    ("rate limit", FailureClass::RateLimit),
    ("too many requests", FailureClass::RateLimit),
    ("hit your", FailureClass::RateLimit),
    ("limit reached", FailureClass::RateLimit),
    ("internal server error", FailureClass::Server),
    ("empty or malformed response", FailureClass::Server),
];

/// An HTTP status in the words: `API Error: 500 …`, `(429)`, `status 401`, `"code":401`.
static STATUS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"(?:API Error: (?:Repeated )?|\(|status:? |"code":\s*)([45][0-9]{2})\b"#).ok()
});

static RESET: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\bresets (?:at )?([^·]{1,60})").ok());

/// The class of an error row.
pub fn failure_class_of_words(words: &str) -> FailureClass {
    let status = STATUS.as_ref().and_then(|pattern| {
        let found = pattern.captures(words)?;
        found.get(1)?.as_str().parse::<u16>().ok()
    });
    let low = words.to_lowercase();
    let named = CLASSES
        .iter()
        .find(|(text, _)| low.contains(text))
        .map(|(_, class)| *class);
    match status {
        Some(401 | 403) => FailureClass::Auth,
        Some(402) => FailureClass::Billing,
        Some(413) => FailureClass::Context,
        // A used-up allowance is told with this status too.
        Some(429) => FailureClass::RateLimit,
        Some(529) => FailureClass::Overloaded,
        Some(500..) => named
            .filter(|class| *class == FailureClass::Overloaded)
            .unwrap_or(FailureClass::Server),
        Some(_) | None => named.unwrap_or(FailureClass::Other),
    }
}

/// When a limit ends, in the words of the row: `3:14am (UTC)`.
pub fn reset_time(words: &str) -> Option<String> {
    let found = RESET.as_ref()?.captures(words)?;
    Some(found.get(1)?.as_str().trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_row_that_was_seen_has_its_class() {
        for (words, expected) in [
            ("Invalid API key · Fix external API key", FailureClass::Auth),
            ("Not logged in · Please run /login", FailureClass::Auth),
            (
                "Please run /login · API Error: 403 Your API key does not have permission",
                FailureClass::Auth,
            ),
            (
                "Credit balance too low · Add funds: https://platform.claude.com/settings/billing",
                FailureClass::Billing,
            ),
            ("Prompt is too long · /compact", FailureClass::Context),
            (
                "Context limit reached · /compact or /clear to continue",
                FailureClass::Context,
            ),
            (
                "Request too large (max 32MB). Double press esc to go back",
                FailureClass::Context,
            ),
            (
                "API Error: Request rejected (429) · This request would exceed your account's rate limit.",
                FailureClass::RateLimit,
            ),
            (
                "You've hit your session limit · resets 3:14am (UTC)",
                FailureClass::RateLimit,
            ),
            (
                "You've hit your weekly limit · resets Mon 9am",
                FailureClass::RateLimit,
            ),
            (
                "API Error: 500 Internal server error. This is a server-side issue",
                FailureClass::Server,
            ),
            (
                "API Error: Repeated 529 Overloaded errors. The API is at capacity",
                FailureClass::Overloaded,
            ),
            ("API Error: 529 Overloaded.", FailureClass::Overloaded),
            (
                "API Error: Unable to connect to API (ConnectionRefused)",
                FailureClass::Connection,
            ),
            (
                "API Error: API returned an empty or malformed response (HTTP 200)",
                FailureClass::Server,
            ),
            (
                "unexpected status 401 Unauthorized: Incorrect API key provided",
                FailureClass::Auth,
            ),
            (
                "exceeded retry limit, last status: 429 Too Many Requests",
                FailureClass::RateLimit,
            ),
            (
                r#"[API Error: {"error":{"code":401,"status":"UNAUTHENTICATED"}}]"#,
                FailureClass::Auth,
            ),
            ("Incorrect API key provided", FailureClass::Auth),
            ("something else", FailureClass::Other),
        ] {
            assert_eq!(failure_class_of_words(words), expected, "{words}");
        }
    }

    #[test]
    fn the_reset_time_is_found() {
        let check =
            |words, expected: Option<&str>| assert_eq!(reset_time(words).as_deref(), expected, "{words}");
        check(
            "You've hit your session limit · resets 3:14am (UTC)",
            Some("3:14am (UTC)"),
        );
        check("weekly limit · resets Mon 9am · /upgrade", Some("Mon 9am"));
        check("Credit balance too low", None);
    }
}
