//! From the program's error names to our classes of failure.

use domain::turn::FailureClass;

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

#[cfg(test)]
mod tests {
    use super::*;

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
