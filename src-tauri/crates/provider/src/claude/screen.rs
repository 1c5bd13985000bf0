//! What a screen of the program means. For readiness and dialogs only: how a turn ends is never read from here.
//!
//! The anchor is the input box: a prompt row between two rules, with at most a few footer rows below it. Answers of
//! a model are indented or above the box, so a text that quotes a dialog or a footer is not taken for one.

use std::sync::LazyLock;

use regex::Regex;
use terminal::Screen;

/// Footer rows below the input box, at most.
const FOOTER_ROWS_MAX: usize = 6;
/// Shortest run of `─` that makes a rule, in cells.
const RULE_CELLS_MIN: usize = 8;
/// Longest prompt text that is compared with its echo, in characters.
const ECHO_CHARS: usize = 12;

/// What the program shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScreenMeaning {
    /// Nothing that is known: it is starting, or drawing.
    Unclear,
    /// The input box is there and no turn runs.
    Ready(InputBox),
    /// A turn runs.
    Busy(InputBox),
    /// Something only a person may answer.
    Dialog(Dialog),
    /// Nobody is signed in, or the first start's questions are open.
    NotSignedIn,
    /// It cannot go on; with its own words.
    Fault(String),
}

/// The input box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputBox {
    /// The text in it, rows joined by line feeds, as far as it is visible.
    pub text: String,
    /// Whether it holds nothing that was typed (a grey suggestion is not typed).
    pub empty: bool,
}

/// Dialogs by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialog {
    /// May files of this folder be trusted?
    Trust,
    /// May an API key from the environment be used?
    ApiKey,
    /// The warning before all permissions are bypassed.
    Bypass,
    /// May a tool be used?
    Permission,
    /// A usage limit was reached; what now?
    Limit,
    /// Any other menu.
    Other,
}

/// Rows that tell that the program is not signed in. Matched against whole rows below the newest input box, or on
/// a screen without one.
const SIGN_IN_ROWS: &[&str] = &[
    "Not logged in · Run /login",
    "Select login method:",
    "Choose the text style that looks best with your terminal",
    "Let's get started.",
    "Press Enter to continue…",
    "Paste code here if prompted",
    "Browser didn't open?",
];

/// Rows that tell which dialog is open, the more special first. Only asked where there is no input box.
const DIALOG_ROWS: &[(&str, Dialog)] = &[
    ("Quick safety check: Is this a project you created", Dialog::Trust),
    ("Yes, I trust this folder", Dialog::Trust),
    ("Detected a custom API key in your environment", Dialog::ApiKey),
    ("Claude Code running in Bypass Permissions mode", Dialog::Bypass),
    ("Stop and wait for limit to reset", Dialog::Limit),
    ("Do you want to proceed?", Dialog::Permission),
    ("Do you want to make this edit", Dialog::Permission),
    ("Do you want to create", Dialog::Permission),
    ("Do you want to allow", Dialog::Permission),
    ("Enter to confirm · Esc to cancel", Dialog::Other),
    ("Enter to select", Dialog::Other),
    ("Esc to cancel", Dialog::Other),
];

/// Rows of a start that failed.
const FAULT_ROWS: &[&str] = &[
    "Unable to connect to Anthropic services",
    "cannot be used with root/sudo privileges",
    "is already in use.",
];

/// In the footer: a turn runs.
const BUSY_FOOTER: &str = "esc to interrupt";

/// In the footer: the box is empty, or nothing can be told from the footer.
static EMPTY_FOOTER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\? for shortcuts|Press Ctrl-C again to exit").ok());

/// Reads a screen.
pub fn read_screen(screen: &Screen) -> ScreenMeaning {
    let rows: Vec<String> = screen.rows.iter().map(|row| row.replace('\u{a0}', " ")).collect();
    if let Some(found) = find_box(&rows) {
        let footer = &rows[found.bottom + 1..];
        if footer
            .iter()
            .any(|row| SIGN_IN_ROWS.iter().any(|sign| row.contains(sign)))
        {
            return ScreenMeaning::NotSignedIn;
        }
        let input = input_box(&rows, &found, screen);
        return if footer.iter().any(|row| row.contains(BUSY_FOOTER)) {
            ScreenMeaning::Busy(input)
        } else {
            ScreenMeaning::Ready(input)
        };
    }
    let has = |text: &&str| rows.iter().any(|row| row.contains(*text));
    if let Some(sign) = FAULT_ROWS.iter().find(|text| has(text)) {
        let words = rows
            .iter()
            .find(|row| row.contains(sign))
            .map(|row| row.trim().to_owned());
        return ScreenMeaning::Fault(words.unwrap_or_default());
    }
    // A sign-in question is also a menu: it comes first.
    if SIGN_IN_ROWS.iter().any(&has) {
        return ScreenMeaning::NotSignedIn;
    }
    DIALOG_ROWS
        .iter()
        .find(|(text, _)| has(text))
        .map_or(ScreenMeaning::Unclear, |(_, dialog)| {
            ScreenMeaning::Dialog(*dialog)
        })
}

/// Whether the box shows that a pasted prompt has arrived in it.
pub(super) fn shows_echo(input: &InputBox, guarded: &str) -> bool {
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

/// Row numbers of the box.
struct BoxRows {
    top: usize,
    bottom: usize,
}

/// The lowest pair of rules with a prompt row right below the upper one and only a footer below the lower one.
fn find_box(rows: &[String]) -> Option<BoxRows> {
    let bottom = rows.iter().rposition(|row| is_rule(row))?;
    let below = rows[bottom + 1..]
        .iter()
        .filter(|row| !row.trim().is_empty())
        .count();
    if below > FOOTER_ROWS_MAX {
        return None;
    }
    let top = rows[..bottom].iter().rposition(|row| is_rule(row))?;
    let first = rows.get(top + 1)?;
    // `!` stands in its place while the box is in shell mode.
    (top + 1 < bottom && first.starts_with(['❯', '!'])).then_some(BoxRows { top, bottom })
}

/// The upper rule may carry the session's name at its end.
fn is_rule(row: &str) -> bool {
    row.chars().take_while(|c| *c == '─').count() >= RULE_CELLS_MIN
}

fn input_box(rows: &[String], found: &BoxRows, screen: &Screen) -> InputBox {
    let lines: Vec<&str> = rows[found.top + 1..found.bottom]
        .iter()
        .map(|row| row.strip_prefix(['❯', '!']).unwrap_or(row).trim())
        .collect();
    let text = lines.join("\n").trim().to_owned();
    let footer_says_empty = rows[found.bottom + 1..]
        .iter()
        .any(|row| EMPTY_FOOTER.as_ref().is_some_and(|pattern| pattern.is_match(row)));
    // A grey suggestion stands in an empty box: then the cursor waits right behind the prompt sign.
    let cursor_at_start = usize::from(screen.cursor.row) == found.top + 1 && screen.cursor.col <= 2;
    let suggestion = cursor_at_start && text.starts_with("Try \"");
    InputBox {
        empty: text.is_empty() || footer_says_empty || suggestion,
        text,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use terminal::{Size, paint};

    use super::*;

    /// A recording, painted up to `upto` seconds since the start.
    fn screen_at(name: &str, upto: f64) -> Screen {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/recordings/");
        let text = std::fs::read_to_string(format!("{folder}{name}.jsonl")).unwrap();
        let mut lines = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let header = lines.next().unwrap();
        let side = |name: &str| u16::try_from(header[name].as_u64().unwrap()).unwrap();
        let mut output = Vec::new();
        for event in lines.filter(|event| event["k"] == "o" && event["t"].as_f64().unwrap() <= upto) {
            let bytes = event["b"].as_str().unwrap();
            output.extend(base64::engine::general_purpose::STANDARD.decode(bytes).unwrap());
        }
        let size = Size {
            cols: side("width"),
            rows: side("height"),
        };
        paint(size, &output)
    }

    fn meaning(name: &str, upto: f64) -> ScreenMeaning {
        read_screen(&screen_at(name, upto))
    }

    fn text_of(meaning: &ScreenMeaning) -> (&str, bool) {
        match meaning {
            ScreenMeaning::Ready(input) | ScreenMeaning::Busy(input) => (&input.text, input.empty),
            other => panic!("no input box: {other:?}"),
        }
    }

    #[test]
    fn the_start_dialogs_are_told_apart() {
        assert_eq!(
            meaning("00-dialogs-onb", 2.3),
            ScreenMeaning::Dialog(Dialog::Trust)
        );
        assert_eq!(meaning("00-dialogs-onb", 99.0), ScreenMeaning::NotSignedIn);
        let key = meaning("00-dialogs-a2-key-notapproved", 1.9);
        assert_eq!(key, ScreenMeaning::Dialog(Dialog::ApiKey));
        let bypass = meaning("00-dialogs-d2-bypass-root-sandbox", 1.9);
        assert_eq!(bypass, ScreenMeaning::Dialog(Dialog::Bypass));
        for upto in [1.9, 3.3] {
            let first = meaning("00-dialogs-f-nothing-authtoken", upto);
            assert_eq!(first, ScreenMeaning::NotSignedIn, "at {upto} s");
        }
        assert_eq!(
            meaning("00-dialogs-f-nothing-authtoken", 4.7),
            ScreenMeaning::Dialog(Dialog::Trust)
        );
        assert!(matches!(
            meaning("00-first-start-fresh-home", 99.0),
            ScreenMeaning::Fault(_)
        ));
        assert!(matches!(
            meaning("00-dialogs-d-bypass-root", 99.0),
            ScreenMeaning::Fault(_)
        ));
    }

    #[test]
    fn an_empty_box_is_ready_in_every_mode() {
        for name in [
            "00-dialogs-b-authtoken",
            "00-dialogs-d3-bypass-root-sandbox-accepted",
        ] {
            let ready = meaning(name, 99.0);
            assert!(
                matches!(&ready, ScreenMeaning::Ready(input) if input.empty),
                "{name}: {ready:?}"
            );
        }
        assert_eq!(meaning("00-dialogs-b-authtoken", 0.5), ScreenMeaning::Unclear);
    }

    #[test]
    fn text_in_the_box_is_seen_and_two_lines_are_joined() {
        let typed = meaning("66-two-line-prompt", 1.551);
        let (text, empty) = text_of(&typed);
        assert_eq!((text, empty), ("첫 줄 scn=text\n둘째 줄 [SEMO:DONE] 규칙", false));
        let ScreenMeaning::Ready(input) = &typed else {
            panic!("{typed:?}")
        };
        assert!(shows_echo(input, "첫 줄 scn=text\n둘째 줄 [SEMO:DONE] 규칙"));
        assert!(!shows_echo(input, "another prompt"));
    }

    #[test]
    fn a_running_turn_is_busy_and_a_prompt_that_was_put_back_is_text() {
        assert!(matches!(
            meaning("22-ctrlc-before-first-token", 3.0),
            ScreenMeaning::Busy(_)
        ));
        let restored = meaning("22-ctrlc-before-first-token", 4.5);
        assert_eq!(text_of(&restored), ("Please do scn=hang:30", false));
        let cleared = meaning("22-ctrlc-before-first-token", 5.2);
        assert_eq!(text_of(&cleared), ("", true));
    }

    #[test]
    fn dialogs_during_a_turn_hide_the_box() {
        let permission = meaning("06-bash-dialog-allow", 2.8);
        assert_eq!(permission, ScreenMeaning::Dialog(Dialog::Permission));
        let limit = meaning("12-limit-five-hour-oauth", 99.0);
        assert_eq!(limit, ScreenMeaning::Dialog(Dialog::Limit));
    }

    #[test]
    fn an_answer_that_quotes_a_dialog_is_none() {
        let ansi = "● The dialog says:\r\n\r\n  Do you want to proceed?\r\n  ❯ 1. Yes\r\n  Not logged in · Run /login\r\n\r\n\
             ──────────────────────── FE ──\r\n❯ \r\n──────────────────────────────\r\n  ? for shortcuts · ← for agents";
        let quoted = paint(Size { cols: 80, rows: 24 }, ansi.as_bytes());
        assert!(matches!(read_screen(&quoted), ScreenMeaning::Ready(input) if input.empty));
    }

    #[test]
    fn no_screen_makes_it_panic() {
        let recording = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../../tests/recordings/22-ctrlc-before-first-token.jsonl"
        ));
        assert!(recording.is_ok());
        for cols in [2, 3, 7, 14, 40] {
            for rows in [2, 3, 9] {
                let text = "❯ x\r\n────────────────\r\n────────\r\n❯".repeat(4);
                read_screen(&paint(Size { cols, rows }, text.as_bytes()));
            }
        }
    }
}
