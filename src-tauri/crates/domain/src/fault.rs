//! Errors as one sentence for people.

/// An error with all its causes, each said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // An error that shows its source in its own text has said it already.
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not open the office")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("the door is locked")]
    struct Inner;

    #[test]
    fn every_cause_is_said_once() {
        assert_eq!(
            chain(&Outer(Inner)),
            "could not open the office: the door is locked"
        );
        assert_eq!(chain(&Inner), "the door is locked");
    }
}
