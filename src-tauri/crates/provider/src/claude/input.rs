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

/// Whether the box shows that a pasted prompt has arrived in it, so that Enter will submit it.
pub fn echo_shown(input: &InputBox, guarded: &str) -> bool {
    let visible: String = input.text.chars().filter(|c| !c.is_whitespace()).collect();
    if visible.contains("[Pastedtext") {
        return true;
    }
    // The box wraps, scrolls and widens tabs: only characters that are not blank are compared, and of a prompt
    // longer than the box only its end is visible.
    let wanted: Vec<char> = guarded.chars().filter(|c| !c.is_whitespace()).collect();
    let count = wanted.len().min(ECHO_CHARS);
    let head: String = wanted[..count].iter().collect();
    let tail: String = wanted[wanted.len() - count..].iter().collect();
    visible.contains(&head) || visible.contains(&tail)
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

    #[test]
    fn an_echo_is_known_by_its_beginning_or_its_end() {
        let shows = |text: &str, prompt: &str| {
            let input = InputBox {
                text: text.to_owned(),
                empty: false,
            };
            echo_shown(&input, prompt)
        };
        assert!(shows("first line\nsecond line", "first line\n    second line"));
        assert!(shows(
            "…the end of a long prompt",
            "It begins far above and has the end of a long prompt"
        ));
        assert!(shows("[Pasted text #2 +59 lines]", "anything"));
        assert!(!shows("another prompt", "first line"));
        assert!(!shows("", "first line"));
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
