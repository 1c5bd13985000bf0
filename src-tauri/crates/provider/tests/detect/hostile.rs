//! Screens that are nonsense: nothing may make the engine panic or take long.

use provider::detect::{Detectors, MATCHED_CHARS_MAX};
use terminal::{Cursor, Screen, Size};

/// Pieces that mean something to one manifest or another, and pieces that are traps for whoever slices text.
const PIECES: &[&str] = &[
    "❯",
    "!",
    "$",
    "› ",
    " > ",
    "┃",
    "─",
    "────────────",
    "▔▔▔▔▔▔",
    "╭──",
    "1. Yes",
    "Enter to select",
    "esc to interrupt",
    "? for shortcuts",
    "Do you want to proceed?",
    "Yes, I trust this folder",
    "Enter to confirm",
    "\u{a0}",
    " ",
    "\t",
    "\u{200b}",
    "👨‍👩‍👧‍👦",
    "완료",
    "é",
    "e\u{301}",
    "\u{fffd}",
    "x",
    "Permission Required:",
    "Chat about this",
    "·",
    "⠂",
    "◐",
    "Press enter to continue",
    "Allow once",
    "△ Permission required",
    "ctrl+p commands",
    "Try \"",
    "[Screen Reader Mode",
];
const SCREENS: usize = 4_000;

/// Numbers that look random and are the same every time (a 64-bit linear congruence).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }

    fn text(&mut self, pieces_max: usize) -> String {
        (0..self.below(pieces_max + 1))
            .map(|_| PIECES[self.below(PIECES.len())])
            .collect()
    }

    /// A screen whose rows, cursor and size need not fit together.
    fn screen(&mut self) -> Screen {
        let rows = (0..self.below(30)).map(|_| self.text(6)).collect();
        let side = |number: usize| u16::try_from(number).unwrap();
        Screen {
            rows,
            cursor: Cursor {
                row: side(self.below(40)),
                col: side(self.below(300)),
                visible: self.below(2) == 0,
            },
            title: self.text(3),
            size: Size {
                cols: side(self.below(200) + 2),
                rows: side(self.below(50) + 2),
            },
            offset: 0,
        }
    }
}

#[test]
fn no_screen_makes_any_detector_panic() {
    let detectors = Detectors::bundled();
    let detectors = ["claude", "codex", "gemini", "opencode", "other"]
        .map(|program| detectors.for_program(program, None));
    let mut numbers = Numbers(7);
    let mut read_as = std::collections::BTreeMap::new();
    for _ in 0..SCREENS {
        let screen = numbers.screen();
        for detector in &detectors {
            let reading = detector.read(&screen);
            assert!(reading.matched.chars().count() <= MATCHED_CHARS_MAX);
            assert!(
                reading.row.is_none_or(|row| usize::from(row) < screen.rows.len()),
                "{reading:?}"
            );
            *read_as.entry(reading.meaning.name()).or_insert(0) += 1;
        }
    }
    assert!(
        read_as.len() >= 6,
        "the nonsense reaches more than one rule: {read_as:?}"
    );
}

#[test]
fn a_screen_of_any_size_can_be_read() {
    let detector = Detectors::bundled().for_program("claude", None);
    for (cols, rows) in [(2, 2), (3, 1_000), (1_000, 2), (1_000, 1_000)] {
        let text = "❯ x\r\n────────────────\r\n────────\r\n❯".repeat(20);
        let screen = terminal::paint(Size { cols, rows }, text.as_bytes());
        assert!(detector.read(&screen).matched.chars().count() <= MATCHED_CHARS_MAX);
    }
}
