//! Getting text into the program's input box, and only as text.
//!
//! Measured: even inside a bracketed paste, a first `!` makes the rest a shell command that runs with no model and
//! no question, and a first `/` a slash command. So the guards here are a security boundary: a prompt comes from
//! far away.

use crate::detect::InputBox;

/// Pressed alone, after the paste has been echoed.
pub const ENTER: &[u8] = b"\r";
/// Interrupts the turn. On an idle prompt, pressed twice, it empties the input box.
pub const INTERRUPT: &[u8] = b"\x1b";
/// Empties the input box, all lines of it. Never sent twice without looking: a second one ends the program.
pub const CLEAR_BOX: &[u8] = b"\x03";

const PASTE_START: &str = "\x1b[200~";
const PASTE_END: &str = "\x1b[201~";

/// Most bytes that are pasted: the longest prompt, with room for the marker's instruction behind it.
const PASTE_BYTES_MAX: usize = domain::command::PROMPT_BYTES_MAX + 2 * 1024;

/// Longest prompt text that is compared with its echo, in characters.
const ECHO_CHARS: usize = 12;
/// One in so many characters may be drawn as two.
const ECHO_SLACK: usize = 16;
/// What the program shows in place of a long paste, without blanks.
const FOLDED: &str = "[Pastedtext";

/// Why a prompt cannot be submitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromptFault {
    /// Nothing is left of it.
    #[error("the prompt is empty")]
    Empty,
    /// It is longer than [`PASTE_BYTES_MAX`].
    #[error("the prompt has {bytes} bytes; at most {max} are accepted")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// The prompt as it may be pasted: line ends are `\n`, control characters are gone, and neither its first nor its
/// last character can mean anything but text.
pub fn guard_prompt(text: &str) -> Result<String, PromptFault> {
    let max = PASTE_BYTES_MAX;
    if text.len() > max {
        return Err(PromptFault::TooLong {
            bytes: text.len(),
            max,
        });
    }
    // ESC is what could end the paste; without it the rest of an escape sequence is plain text.
    let plain: String = text
        .replace("\r\n", "\n")
        .chars()
        .map(|c| if c == '\r' { '\n' } else { c })
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect();
    let plain = plain
        .trim_start_matches(is_invisible)
        .trim_end_matches(['\n', ' ', '\t']);
    if plain.trim().is_empty() {
        return Err(PromptFault::Empty);
    }
    let mut guarded = String::with_capacity(plain.len() + 2);
    if plain.starts_with(['!', '/']) {
        guarded.push(' ');
    }
    guarded.push_str(plain);
    let last_word = plain.rsplit(char::is_whitespace).next().unwrap_or_default();
    if last_word.contains('@') || last_word.starts_with('/') {
        // An open file completion would take the Enter for itself.
        guarded.push('\n');
    } else if plain.ends_with('\\') {
        // Backslash and Enter is a new line, not a submission.
        guarded.push(' ');
    }
    Ok(guarded)
}

/// Characters without a shape that the program might strip, and so bring forward what stands behind them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The bytes that paste a guarded prompt.
pub fn paste(guarded: &str) -> Vec<u8> {
    [PASTE_START, guarded, PASTE_END].concat().into_bytes()
}

/// What the box shows of a pasted prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// Nothing yet.
    Absent,
    /// The prompt, and nothing else as far as it can be seen: Enter will submit it.
    Shown,
    /// It stands there twice, or something else with it: Enter would submit that too.
    Mixed,
}

/// What the box shows of a pasted prompt. Enter is right for [`Echo::Shown`] alone.
pub fn echo(input: &InputBox, guarded: &str) -> Echo {
    // The box wraps, scrolls and widens tabs: only characters that can be seen are compared, and of a prompt longer
    // than the box only its end is visible.
    let solid = |text: &str| -> Vec<char> {
        let seen =
            |c: &char| !c.is_whitespace() && !is_invisible(*c) && !matches!(c, '\u{fe00}'..='\u{fe0f}');
        text.chars().filter(seen).collect()
    };
    let visible: String = solid(&input.text).into_iter().collect();
    let wanted = solid(guarded);
    let whole: String = wanted.iter().collect();
    let folded = visible.matches(FOLDED).count();
    if folded > 0 {
        let alone = folded == 1 && visible.starts_with(FOLDED) && visible.ends_with(']');
        if alone {
            return Echo::Shown;
        }
        // A prompt may speak of it.
        if !whole.contains(FOLDED) {
            return Echo::Mixed;
        }
    }
    let count = wanted.len().min(ECHO_CHARS);
    let head: String = wanted[..count].iter().collect();
    let tail: String = wanted[wanted.len() - count..].iter().collect();
    if count == 0 || !visible.contains(&head) && !visible.contains(&tail) {
        return Echo::Absent;
    }
    if whole.ends_with(&visible) || whole.starts_with(&visible) {
        return Echo::Shown;
    }
    let more = |part: &str| visible.matches(part).count() > whole.matches(part).count();
    let chars = visible.chars().count();
    let alone = if visible.starts_with(&head) {
        // Some characters are drawn as others; what is longer has something behind it.
        chars <= wanted.len() + wanted.len() / ECHO_SLACK
    } else {
        !visible.contains(&head) && visible.ends_with(&tail) && chars <= wanted.len()
    };
    if alone && !more(&head) && !more(&tail) {
        Echo::Shown
    } else {
        Echo::Mixed
    }
}

/// Whether the box shows a prompt, whatever stands beside it.
pub fn echo_shown(input: &InputBox, guarded: &str) -> bool {
    echo(input, guarded) != Echo::Absent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(guard_prompt(text).unwrap(), expected, "prompt {text:?}");
    }

    #[test]
    fn a_plain_prompt_is_left_as_it_is() {
        check(
            "Please build the page.\nThen test it.",
            "Please build the page.\nThen test it.",
        );
        check("안녕하세요\n둘째 줄", "안녕하세요\n둘째 줄");
        check("#heading", "#heading");
    }

    #[test]
    fn a_first_character_is_never_a_command() {
        check("!rm -rf /", " !rm -rf /\n");
        check("/clear", " /clear\n");
        check("/etc/hosts is odd", " /etc/hosts is odd");
        check("\u{1b}!ls now", " !ls now");
        check("\u{feff}\u{200b}!ls now", " !ls now");
    }

    #[test]
    fn blanks_before_a_command_sign_stay_and_protect() {
        check("  !ls now", "  !ls now");
        check("\n/clear it", "\n/clear it");
    }

    #[test]
    fn a_last_character_never_takes_the_enter_for_itself() {
        check("path \\", "path \\ ");
        check("see @READ", "see @READ\n");
        check("see @READ \n", "see @READ\n");
        check("mail a@b.c", "mail a@b.c\n");
        check("do it\n\n", "do it");
    }

    #[test]
    fn the_paste_cannot_be_ended_from_inside() {
        let guarded = guard_prompt("a\u{1b}[201~\r!rm -rf /\u{9b}201~\u{3}\u{4}b").unwrap();
        assert_eq!(guarded, "a[201~\n!rm -rf /201~b\n");
        let pasted = paste(&guarded);
        assert_eq!(pasted.iter().filter(|byte| **byte == 0x1b).count(), 2);
        assert!(pasted.ends_with(b"\x1b[201~") && !pasted.contains(&b'\r'));
    }

    fn echo_of(text: &str, prompt: &str) -> Echo {
        let input = InputBox {
            text: text.to_owned(),
            empty: false,
        };
        echo(&input, prompt)
    }

    #[test]
    fn an_echo_is_known_by_its_beginning_or_its_end() {
        for (text, prompt) in [
            ("first line\nsecond line", "first line\n    second line"),
            (
                "first line of a pr",
                "first line of a prompt that is still being drawn",
            ),
            (
                "the end of a long prompt",
                "It begins far above and has the end of a long prompt",
            ),
            ("[Pasted text #2 +59 lines]", "anything"),
            (
                "do it \u{2764} now, please",
                "do it \u{2764}\u{fe0f} now,\u{200b} please",
            ),
            ("what is [Pasted text?", "what is [Pasted text?"),
            ("a a a a a a a a a a", "a a a a a a a a a a"),
        ] {
            assert_eq!(echo_of(text, prompt), Echo::Shown, "{text:?}");
        }
        assert_eq!(echo_of("another prompt", "first line"), Echo::Absent);
        assert_eq!(echo_of("", "first line"), Echo::Absent);
    }

    #[test]
    fn a_prompt_that_stands_twice_or_beside_something_else_is_not_submitted() {
        let long = "Please build the whole page and test it.";
        for (text, prompt) in [
            (format!("{long}{long}"), long),
            (format!("an earlier prompt {long}"), long),
            (format!("{long} and something typed behind it"), long),
            (
                "[Pasted text #1 +59 lines][Pasted text #2 +59 lines]".into(),
                "anything",
            ),
            ("typed [Pasted text #2 +59 lines]".into(), "anything"),
            ("yy".into(), "y"),
        ] {
            assert_eq!(echo_of(&text, prompt), Echo::Mixed, "{text:?}");
        }
    }

    #[test]
    fn line_ends_of_all_systems_become_line_feeds() {
        check("a\r\nb\rc\nd", "a\nb\nc\nd");
    }

    #[test]
    fn an_empty_or_endless_prompt_is_refused() {
        assert_eq!(guard_prompt(" \u{1b}\r\n "), Err(PromptFault::Empty));
        let long = "x".repeat(PASTE_BYTES_MAX + 1);
        assert!(matches!(guard_prompt(&long), Err(PromptFault::TooLong { .. })));
        let longest = "x".repeat(domain::command::PROMPT_BYTES_MAX);
        let marker = domain::marker::Marker::Code("7f3a".to_owned())
            .instruction()
            .unwrap();
        assert!(
            guard_prompt(&format!("{longest}\n\n{marker}")).is_ok(),
            "the longest prompt has room for its marker"
        );
    }
}
