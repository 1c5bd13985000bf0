//! The completion marker: how the agent is asked for it, and when its final message carries it.
//!
//! The marker is looked for in the agent's final message only, never in terminal bytes: a screen shows the echo
//! of the prompt, redraws and old turns. A *mention* of the marker is not the marker: it counts only when it
//! stands alone on the last line, outside a code block.

use serde::{Deserialize, Serialize};

use crate::command::MarkerWish;

/// The marker without a code.
pub const PLAIN: &str = "[SEMO:DONE]";

/// What was asked of the agent for one turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Marker {
    /// Nothing was asked for.
    None,
    /// `[SEMO:DONE]`.
    Plain,
    /// `[SEMO:DONE <code>]`; a plain marker or another code is not this turn's.
    Code(String),
}

/// What a final message says about completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkerSign {
    /// No marker was asked for.
    NotAsked,
    /// The marker stands alone on the last line.
    Present,
    /// A marker occurs, but not as the last word of the message, or not the one of this turn.
    MentionedOnly,
    /// It does not occur.
    Absent,
}

impl Marker {
    /// The marker for a turn; `code` is used when the wish is for one (4 to 16 hex digits from the caller's
    /// randomness).
    pub fn for_wish(wish: MarkerWish, code: &str) -> Marker {
        match wish {
            MarkerWish::None => Marker::None,
            MarkerWish::Plain => Marker::Plain,
            MarkerWish::Code => Marker::Code(code.to_owned()),
        }
    }

    /// What is appended to the prompt. It describes the marker in parts, so that neither the echo of the prompt
    /// nor a quotation of it can be taken for the marker itself.
    pub fn instruction(&self) -> Option<String> {
        let rest = match self {
            Marker::None => return None,
            Marker::Plain => "the word DONE".to_owned(),
            Marker::Code(code) => format!("the word DONE, one space and the code {code}"),
        };
        Some(format!(
            "When, and only when, everything above is finished, end your final message with one more line that \
             holds nothing but this mark: an opening square bracket, the word SEMO, a colon, {rest}, a closing \
             square bracket. Do not write the mark anywhere else. If you could not finish, leave it out and say \
             what is missing."
        ))
    }

    /// Reads the agent's final message.
    pub fn sign_in(&self, message: &str) -> MarkerSign {
        let expected = match self {
            Marker::None => return MarkerSign::NotAsked,
            Marker::Plain => PLAIN.to_owned(),
            Marker::Code(code) => format!("[SEMO:DONE {code}]"),
        };
        if last_line_outside_code(message).is_some_and(|line| undecorated(line) == expected) {
            MarkerSign::Present
        } else if message.contains("[SEMO:DONE") {
            MarkerSign::MentionedOnly
        } else {
            MarkerSign::Absent
        }
    }
}

/// The last non-blank line, unless it lies in a fenced code block or closes one.
fn last_line_outside_code(message: &str) -> Option<&str> {
    let mut fenced = false;
    let mut last = None;
    for line in message.lines().filter(|line| !line.trim().is_empty()) {
        let fence = line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~");
        last = (!fenced && !fence).then_some(line);
        fenced ^= fence;
    }
    last
}

/// Bold and italic marks around the whole line are how some models write a last line; they change nothing.
fn undecorated(line: &str) -> &str {
    line.trim().trim_matches(|c| c == '*' || c == '_').trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(marker: &Marker, message: &str, expected: MarkerSign) {
        assert_eq!(marker.sign_in(message), expected, "message: {message:?}");
    }

    #[test]
    fn the_marker_alone_on_the_last_line_is_the_marker() {
        for message in [
            "Done.\n\n[SEMO:DONE]",
            "[SEMO:DONE]",
            "x\n  [SEMO:DONE]  \n\n",
            "x\n**[SEMO:DONE]**",
        ] {
            check(&Marker::Plain, message, MarkerSign::Present);
        }
        check(
            &Marker::Code("7f3a".into()),
            "ok\n[SEMO:DONE 7f3a]",
            MarkerSign::Present,
        );
    }

    #[test]
    fn a_mention_is_never_the_marker() {
        for message in [
            "I will not print [SEMO:DONE] yet",
            "I will end with [SEMO:DONE]",
            "[SEMO:DONE]\nOne thing is left: the tests fail.",
            "```\n[SEMO:DONE]\n```",
            "```\n[SEMO:DONE]",
            "`[SEMO:DONE]`",
            "> [SEMO:DONE]",
            "[SEMO:DONE 7f3a]",
        ] {
            check(&Marker::Plain, message, MarkerSign::MentionedOnly);
        }
        check(
            &Marker::Code("7f3a".into()),
            "[SEMO:DONE]",
            MarkerSign::MentionedOnly,
        );
        check(
            &Marker::Code("7f3a".into()),
            "[SEMO:DONE 0000]",
            MarkerSign::MentionedOnly,
        );
        check(&Marker::Plain, "All finished.", MarkerSign::Absent);
        check(&Marker::Plain, "SEMO:DONE", MarkerSign::Absent);
        check(&Marker::None, "anything", MarkerSign::NotAsked);
    }

    #[test]
    fn the_instruction_never_contains_the_finished_marker() {
        for marker in [Marker::Plain, Marker::Code("7f3a".into())] {
            let text = marker.instruction().unwrap();
            assert!(!text.contains("[SEMO"), "{text}");
            assert_eq!(marker.sign_in(&text), MarkerSign::Absent);
        }
    }
}
