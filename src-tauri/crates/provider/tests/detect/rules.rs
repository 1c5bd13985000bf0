//! Every rule of every bundled manifest is met by something: a recording, or a screen written down here from what the
//! program's makers or others have shown of it.

use std::collections::BTreeSet;

use provider::detect::{Detector, Detectors, Reading};
use terminal::{Screen, Size, paint};

use crate::player::all_read;

/// Programs with a bundled manifest.
const PROGRAMS: &[&str] = &["claude", "codex", "gemini", "opencode"];

/// A screen of these rows, with a window title; the cursor stands behind the last character and is hidden, as in
/// every renderer but the screen reader's.
pub fn screen(cols: u16, title: &str, rows: &[&str]) -> Screen {
    let ansi = format!("\x1b[?25l\x1b]0;{title}\x07{}", rows.join("\r\n"));
    paint(Size { cols, rows: 30 }, ansi.as_bytes())
}

/// Screens that no recording shows: program, title, rows, the rule that must decide.
const SCREENS: &[(&str, &str, &[&str], &str)] = &[
    (
        "codex",
        "[ ! ] Action Required | proj",
        &[
            "• Running touch x",
            "",
            "  Would you like to run the following command?",
            "",
            "  $ touch x",
            "",
            "› 1. Yes, proceed (y)",
            "  2. Yes, and don't ask again for commands that start with `touch` (p)",
            "  3. No, and tell Codex what to do differently (esc)",
            "",
            "  Press enter to confirm or esc to cancel",
        ],
        "codex/dialog-permission",
    ),
    (
        "codex",
        "",
        &[
            "  Do you trust the contents of this directory?",
            "",
            "› 1. Yes, continue",
            "  2. No, quit",
            "",
            "  Press enter to continue",
        ],
        "codex/dialog-trust",
    ),
    (
        "codex",
        "",
        &[
            "  Welcome to Codex",
            "",
            "> 1. Sign in with ChatGPT",
            "  2. Provide your own API key",
        ],
        "codex/sign-in",
    ),
    (
        "gemini",
        "",
        &[
            "╭──────╮",
            "│ How would you like to authenticate for this project? │",
            "│ ● 1. Login with Google │",
        ],
        "gemini/sign-in",
    ),
    (
        "gemini",
        "",
        &[
            "╭──────╮",
            "│ Do you trust the files in this folder? │",
            "│ ● 1. Trust folder │",
        ],
        "gemini/dialog-trust",
    ),
    (
        "gemini",
        "✋  Action Required (gm1)",
        &["✦ Which one?", "╭──────╮", "│ ● 1. This one │"],
        "gemini/dialog-waiting",
    ),
    (
        "claude",
        "◐ FE",
        &["● I am at it", "", "  still"],
        "claude/busy-without-box",
    ),
];

fn read(program: &str, screen: &Screen) -> Reading {
    Detectors::bundled().for_program(program, None).read(screen)
}

#[test]
fn screens_that_were_not_recorded_are_read_as_they_were_shown() {
    for (program, title, rows, rule) in SCREENS {
        let reading = read(program, &screen(100, title, rows));
        assert_eq!(&*reading.rule, *rule, "{rows:#?}");
    }
}

#[test]
fn every_rule_is_met_by_a_screen() {
    let mut met: BTreeSet<String> = all_read()
        .iter()
        .flat_map(|read| &read.changes)
        .map(|(_, reading)| reading.rule.to_string())
        .collect();
    met.extend(SCREENS.iter().map(|(_, _, _, rule)| (*rule).to_owned()));
    let detectors: Vec<_> = PROGRAMS
        .iter()
        .map(|program| Detectors::bundled().for_program(program, None))
        .collect();
    let rules = |detector: &Detector| detector.rules().map(ToString::to_string).collect::<Vec<_>>();
    let all: Vec<String> = detectors.iter().flat_map(|detector| rules(detector)).collect();
    assert!(all.len() > 30, "the bundled manifests are there: {all:?}");
    let unmet: Vec<&String> = all.iter().filter(|rule| !met.contains(*rule)).collect();
    assert!(
        unmet.is_empty(),
        "no screen shows that these rules work: {unmet:?}"
    );
}

#[test]
fn the_scripted_agent_is_read_as_claude_is() {
    let detector = Detectors::bundled().for_program(provider::scripted::PROVIDER, None);
    assert!(detector.name().starts_with("claude "), "{}", detector.name());
}

#[test]
fn a_program_nobody_knows_is_never_clear() {
    let detector = Detectors::bundled().for_program("unheard-of", None);
    let reading = detector.read(&screen(80, "", &["❯ 1. Yes"]));
    assert_eq!(
        (reading.meaning.name(), &*reading.rule),
        ("unclear", "unheard-of/none")
    );
    assert!(
        detector.is_guess() && detector.name().contains("unheard-of"),
        "{}",
        detector.name()
    );
}
