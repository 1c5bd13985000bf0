//! The marker under attack: texts in which a completion marker stands, as the rule of `domain::marker` reads them, and
//! as they look when a terminal has painted and wrapped them. Whatever the rule does not take for the marker must not
//! become one on a screen.

use domain::marker::{Marker, MarkerSign};
use provider::screen_turn::{ScreenTurn, read_turn};
use terminal::{PaintedRow, Painter, Size};

/// What the rule must say of each text.
const TEXTS: &[(MarkerSign, &[&str])] = &[
    (
        MarkerSign::Present,
        &[
            "[SEMO:DONE]",
            "All of it works.\n\n[SEMO:DONE]",
            "All of it works.\n[SEMO:DONE]",
            "All of it works.\r\n\r\n[SEMO:DONE]\r\n\r\n",
            "모든 작업을 완료했습니다.\n\n[SEMO:DONE]",
            "I will not print [SEMO:DONE] before the tests pass.\n\nThey pass.\n\n[SEMO:DONE]",
            "- one\n- two\n\n[SEMO:DONE]",
            "```sh\ncargo test\n```\n\n[SEMO:DONE]",
            "````md\n```\nx\n```\n````\n\n[SEMO:DONE]",
            "| a | b |\n|---|---|\n| 1 | 2 |\n\n[SEMO:DONE]",
            "Done.\n\n**[SEMO:DONE]**",
            "Done.\n\n   [SEMO:DONE]",
        ],
    ),
    (
        MarkerSign::MentionedOnly,
        &[
            "I will not print [SEMO:DONE] yet",
            "I will not print the mark yet, which is [SEMO:DONE]",
            "아직 [SEMO:DONE]을 출력하지 않겠습니다",
            "완료 [SEMO:DONE]",
            "[SEMO:DONE]입니다",
            "[SEMO:DONE].",
            "[SEMO:DONE]!",
            "[SEMO:DONE]?",
            "([SEMO:DONE])",
            "\"[SEMO:DONE]\"",
            "'[SEMO:DONE]'",
            "“[SEMO:DONE]”",
            "Not [SEMO:DONE]",
            "[SEMO:DONE]\n\nOne thing is left: the tests fail.",
            "[SEMO:DONE] is what I would print",
            "> [SEMO:DONE]",
            "> > [SEMO:DONE]",
            "- [SEMO:DONE]",
            "* [SEMO:DONE]",
            "+ [SEMO:DONE]",
            "1. [SEMO:DONE]",
            "- a\n  - [SEMO:DONE]",
            "- [ ] [SEMO:DONE]",
            "# [SEMO:DONE]",
            "### [SEMO:DONE]",
            "| [SEMO:DONE] |",
            "| mark |\n|---|\n| [SEMO:DONE] |",
            "`[SEMO:DONE]`",
            "``[SEMO:DONE]``",
            "~~[SEMO:DONE]~~",
            "[SEMO:DONE](http://127.0.0.1/)",
            "![x]([SEMO:DONE])",
            "```\n[SEMO:DONE]\n```",
            "```\n[SEMO:DONE]",
            "~~~\n[SEMO:DONE]\n~~~",
            "````\n```\n[SEMO:DONE]",
            "```\n~~~\n[SEMO:DONE]",
            "- item\n\n  ```\n  [SEMO:DONE]\n  ```",
            "text\n\n    [SEMO:DONE]",
            "text\n\n\t[SEMO:DONE]",
            "<!-- [SEMO:DONE] -->",
            "<!--\n[SEMO:DONE]",
            "echo \"[SEMO:DONE]\"",
            "$ echo [SEMO:DONE]",
            "[SEMO:DONE 7f3a]",
            "[SEMO:DONE",
            "\u{200b}[SEMO:DONE]",
            "[SEMO:DONE]\u{200b}",
            "\u{feff}[SEMO:DONE]",
            "\u{202e}[SEMO:DONE]",
            "[SEMO:DONE] ✅",
            "✅ [SEMO:DONE]",
            "*[SEMO:DONE]",
            "[SEMO:DONE]**",
        ],
    ),
    (
        MarkerSign::Absent,
        &[
            "",
            "All finished.",
            "SEMO:DONE",
            "[semo:done]",
            "[SEMO: DONE]",
            "[SEMO\u{200b}:DONE]",
            "［SEMO:DONE］",
            "[ SEMO:DONE ]",
            "[SEMO:\nDONE]",
        ],
    ),
];

#[test]
fn the_rule_reads_every_text_as_a_careful_person_would() {
    for (expected, texts) in TEXTS {
        for text in *texts {
            assert_eq!(Marker::Plain.sign_in(text), *expected, "{text:?}");
        }
    }
}

#[test]
fn another_turns_code_is_never_this_turns() {
    let mine = Marker::Code("7f3a".to_owned());
    for (text, expected) in [
        ("ok\n[SEMO:DONE 7f3a]", MarkerSign::Present),
        ("ok\n[SEMO:DONE]", MarkerSign::MentionedOnly),
        ("ok\n[SEMO:DONE 0000]", MarkerSign::MentionedOnly),
        ("ok\n[SEMO:DONE 7F3A]", MarkerSign::MentionedOnly),
        ("ok\n[SEMO:DONE  7f3a]", MarkerSign::MentionedOnly),
        ("ok\n[SEMO:DONE 7f3a0]", MarkerSign::MentionedOnly),
        ("ok\n7f3a", MarkerSign::Absent),
    ] {
        assert_eq!(mine.sign_in(text), expected, "{text:?}");
    }
}

/// Words of a line laid out on rows that are at most `cells` wide, as terminals' programs do it.
fn wrapped(line: &str, cells: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    for word in line.split_inclusive(' ') {
        let row = rows.last_mut().expect("there is a row");
        if !row.is_empty() && row.chars().count() + word.trim_end().chars().count() > cells {
            rows.push(word.to_owned());
        } else {
            row.push_str(word);
        }
    }
    rows
}

/// A whole screen of the program with that message as its last answer.
fn screen(message: &str, cols: u16) -> Vec<PaintedRow> {
    let cells = usize::from(cols) - 2;
    let mut rows = vec!["❯ say it".to_owned(), String::new()];
    let mut bullet = "● ";
    for line in message.lines() {
        for row in wrapped(line, cells) {
            rows.push(format!("{bullet}{row}").trim_end().to_owned());
            bullet = "  ";
        }
    }
    let rule = "─".repeat(usize::from(cols));
    let below = [
        "",
        "✻ Worked for 2s",
        "",
        &rule,
        "❯\u{a0}",
        &rule,
        "  ? for shortcuts",
    ];
    rows.extend(below.map(str::to_owned));
    let mut painter = Painter::new(Size { cols, rows: 60 });
    painter.feed(rows.join("\r\n").as_bytes());
    painter.rows()
}

fn sign_on_screen(message: &str, cols: u16) -> (Option<MarkerSign>, Option<ScreenTurn>) {
    let turn = read_turn("claude", &screen(message, cols), cols);
    let text = turn.as_ref().and_then(|turn| turn.message.as_deref());
    (text.map(|text| Marker::Plain.sign_in(text)), turn)
}

/// The program paints fences and indented code without their signs: what they hold is left out here (see the table of
/// recordings), everything else must not gain anything by being painted.
#[test]
fn no_text_becomes_the_marker_by_being_painted_and_wrapped() {
    for (sign, texts) in TEXTS.iter().filter(|(sign, _)| *sign != MarkerSign::Present) {
        for text in *texts {
            for cols in (20..=120).step_by(3) {
                let (found, turn) = sign_on_screen(text, cols);
                assert_ne!(
                    found,
                    Some(MarkerSign::Present),
                    "{text:?} ({sign:?}) on {cols} columns: {turn:?}"
                );
            }
        }
    }
}

#[test]
fn a_mention_at_the_end_of_a_sentence_is_none_however_it_is_wrapped() {
    for words in 0..40 {
        let text = format!("{}I will end my message with [SEMO:DONE]", "word ".repeat(words));
        for cols in (20..=100).step_by(3) {
            let (found, turn) = sign_on_screen(&text, cols);
            assert_eq!(
                found,
                Some(MarkerSign::MentionedOnly),
                "{words} words on {cols} columns: {turn:?}"
            );
        }
    }
}

#[test]
fn the_marker_after_a_blank_line_is_seen_on_every_width() {
    for text in [
        "All of it works.\n\n[SEMO:DONE]",
        "모두 완료했습니다.\n\n[SEMO:DONE]",
        "[SEMO:DONE]",
    ] {
        for cols in 20..=200 {
            let (found, turn) = sign_on_screen(text, cols);
            assert_eq!(
                found,
                Some(MarkerSign::Present),
                "{text:?} on {cols} columns: {turn:?}"
            );
        }
    }
}

#[test]
fn no_rows_make_a_reader_panic() {
    let pieces = [
        "❯ ",
        "❯",
        "● ",
        "●",
        "  ⎿  ",
        "⎿",
        "✻ Worked for 2s",
        "✻ Thinking… (",
        "────────────",
        "you: ",
        "claude: ",
        "tool: ",
        "error: ",
        "Crunched for 0s",
        "› ",
        "• ",
        "■ ",
        " > ",
        "✦ ",
        "✕ ",
        "ℹ ",
        "╭",
        "┃",
        "  ┃  x",
        "     ▣  Build · 2s",
        "╹▀",
        "[SEMO:DONE]",
        "완료",
        "\u{200d}👦",
        "[Accessible screen reader mode: on]",
        "",
    ];
    let mut seed = 7_usize;
    for round in 0..400 {
        let rows: Vec<PaintedRow> = (0..round % 40)
            .map(|_| {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let (one, two) = (
                    pieces[(seed >> 33) % pieces.len()],
                    pieces[(seed >> 45) % pieces.len()],
                );
                PaintedRow::plain(&format!("{one}{two}"))
            })
            .collect();
        for program in ["claude", "codex", "gemini", "opencode", "another"] {
            read_turn(program, &rows, [2, 20, 80][round % 3]);
        }
    }
}
