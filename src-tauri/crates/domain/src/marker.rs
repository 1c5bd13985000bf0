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

/// Indentation from which on a line is code in Markdown, in blanks.
const CODE_INDENT: usize = 4;

/// A code fence: its sign, how often that stands there, and how far it is indented.
#[derive(Clone, Copy)]
struct Fence {
    sign: char,
    length: usize,
    indent: usize,
}

/// The last non-blank line, unless it is code, closes code, or stands in a comment.
fn last_line_outside_code(message: &str) -> Option<&str> {
    let mut open: Option<Fence> = None;
    let mut last = None;
    for line in message.lines().filter(|line| !line.trim().is_empty()) {
        last = None;
        match (open, fence(line)) {
            (None, Some((opens, _))) => open = Some(opens),
            // Only a bare fence of the same kind closes; a shorter or other one inside is part of the code.
            (Some(opened), Some((closes, true)))
                if closes.sign == opened.sign
                    && closes.length >= opened.length
                    && closes.indent < opened.indent + CODE_INDENT =>
            {
                open = None;
            }
            (None, None) if indent(line) < CODE_INDENT => last = Some(line),
            (Some(_), _) | (None, None) => {}
        }
    }
    let commented = message.rfind("<!--") > message.rfind("-->");
    last.filter(|_| !commented)
}

/// The fence that a line is, and whether it is one without anything behind it.
fn fence(line: &str) -> Option<(Fence, bool)> {
    let body = line.trim();
    let sign = body.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let length = body.chars().take_while(|c| *c == sign).count();
    let rest = &body[length..];
    // With backticks behind them, three backticks are code within a line.
    let is_fence = length >= 3 && !(sign == '`' && rest.contains('`'));
    let indent = indent(line);
    is_fence.then_some((Fence { sign, length, indent }, rest.is_empty()))
}

/// How far a line is indented; a tab is code at once.
fn indent(line: &str) -> usize {
    let blanks = line.chars().take_while(|c| c.is_whitespace());
    blanks.map(|c| if c == '\t' { CODE_INDENT } else { 1 }).sum()
}

/// Bold and italic marks around the whole line are how some models write a last line; they change nothing. They stand
/// right at the text on both sides: with a blank behind it, an asterisk begins an item of a list.
fn undecorated(line: &str) -> &str {
    let mut text = line.trim();
    for sign in ["***", "**", "*", "___", "__", "_"] {
        let inner = text.strip_prefix(sign).and_then(|rest| rest.strip_suffix(sign));
        if let Some(inner) = inner.filter(|inner| inner.trim() == *inner) {
            text = inner;
        }
    }
    text
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
            "x\n\n_[SEMO:DONE]_",
            "x\n***[SEMO:DONE]***",
            "x\n**_[SEMO:DONE]_**",
            "완료했습니다.\r\n\r\n[SEMO:DONE]\r\n",
            "```rust\nfn x() {}\n```\n\n[SEMO:DONE]",
            "````md\n```\n[SEMO:DONE]\n```\n````\n\n[SEMO:DONE]",
            "1. a\n\n     ```\n     b\n     ```\n\n[SEMO:DONE]",
            "```ls``` ran.\n\n[SEMO:DONE]",
            "<!-- note -->\n[SEMO:DONE]",
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
            "* [SEMO:DONE]",
            "- [SEMO:DONE]",
            "*[SEMO:DONE]",
            "**[SEMO:DONE]",
            "** [SEMO:DONE] **",
            "x\n\n    [SEMO:DONE]",
            "x\n\n\t[SEMO:DONE]",
            "````\n```\n[SEMO:DONE]",
            "```\n~~~\n[SEMO:DONE]",
            "```\ncode\n    ```\n[SEMO:DONE]",
            "```\n```rust\n[SEMO:DONE]",
            "```[SEMO:DONE]```",
            "<!--\n[SEMO:DONE]",
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
