//! Hostile output against the screen: whatever comes, in whatever pieces, at whatever size, the model stays whole.

use crate::emulator::{Emulator, Size};
use crate::history::{HISTORY_BYTES_MAX, HISTORY_ROWS_MAX};
use crate::ring::Ring;

const CASES: u64 = 24_000;
/// Pieces of one case at most.
const PIECES_MAX: u64 = 40;
/// What makes the engine give up in tests.
const GIVES_UP: u8 = 0x1a;

/// A small generator with a period beyond our needs (xorshift64*); seeded, so that a case can be run again.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(case: u64) -> Dice {
        Dice(case.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit.max(1)
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A parameter: mostly small, sometimes at an edge, sometimes beyond every measure.
    fn number(&mut self) -> u64 {
        match self.below(10) {
            0 => 0,
            1..=6 => self.below(60),
            7 => self.below(300),
            8 => 65_530 + self.below(10),
            _ => self.next(),
        }
    }
}

const TEXTS: &[&str] = &[
    "x",
    "word ",
    "a line of plain text that wraps",
    "\t",
    "\r",
    "\n",
    "\r\n",
    "\x08",
    "가나다",
    "漢字かな",
    "e\u{301}",
    "\u{2764}\u{fe0f}",
    "\u{26a0}\u{fe0f}",
    "🎉",
    "👨\u{200d}👩\u{200d}👧",
    "🇰🇷",
    "\u{200b}",
    "\u{202e}",
    "─────",
    "\u{a0}",
    "[SEMO:DONE]",
    "\x07",
    "\x0e",
    "\x0f",
    "\x1b7",
    "\x1b8",
    "\x1bM",
    "\x1bD",
    "\x1bE",
    "\x1bc",
    "\x1b#8",
    "\x1b(0",
    "\x1b=",
];
const ENDINGS: &[&str] = &[
    "A", "B", "C", "D", "E", "F", "G", "H", "J", "K", "L", "M", "P", "S", "T", "X", "@", "d", "f", "m", "r",
    "s", "u", "b", "t", "n", "c", "h", "l", "q", "g", "I", "Z",
];
const MODES: &[&str] = &[
    "1", "3", "5", "6", "7", "25", "47", "1000", "1006", "1047", "1048", "1049", "2004", "2026",
];
const STRINGS: &[&str] = &[
    "\x1b]0;",
    "\x1b]2;",
    "\x1b]8;;",
    "\x1b]52;c;",
    "\x1bP",
    "\x1b_",
    "\x1b^",
    "\x1bX",
    "\x1b]",
];

fn piece(dice: &mut Dice) -> Vec<u8> {
    match dice.below(12) {
        0..=4 => dice.pick(TEXTS).as_bytes().to_vec(),
        5..=7 => {
            let mut sequence = String::from("\x1b[");
            for n in 0..dice.below(4) {
                let separator = if n > 0 { ";" } else { "" };
                sequence.push_str(&format!("{separator}{}", dice.number()));
            }
            sequence.push_str(dice.pick(ENDINGS));
            sequence.into_bytes()
        }
        8 => format!("\x1b[?{}{}", dice.pick(MODES), dice.pick(&["h", "l"])).into_bytes(),
        9 => {
            let mut string = dice.pick(STRINGS).as_bytes().to_vec();
            string.extend(std::iter::repeat_n(b'x', dice.below(300) as usize));
            string.extend(dice.pick(&["\x07", "\x1b\\", "", "\x18"]).bytes());
            string
        }
        10 => (0..dice.below(20))
            .map(|_| dice.next().to_le_bytes()[3])
            .collect(),
        // To the corner and over it: where engines keep their mistakes.
        _ => format!("\x1b[{};{}H", dice.number(), dice.number()).into_bytes(),
    }
}

fn size(dice: &mut Dice) -> Size {
    let side = |dice: &mut Dice| match dice.below(8) {
        0 => dice.below(4) as u16,
        1..=6 => 2 + dice.below(60) as u16,
        _ => 2 + dice.below(250) as u16,
    };
    Size {
        cols: side(dice),
        rows: side(dice),
    }
}

/// What a late viewer gets from the snapshot is what is on the screen.
fn check_the_viewer(emulator: &Emulator, case: u64) {
    let (snapshot, screen) = (emulator.snapshot(), emulator.screen());
    assert_eq!(
        (snapshot.offset, snapshot.size),
        (screen.offset, screen.size),
        "case {case}"
    );
    assert!(snapshot.ansi.len() < 2 * HISTORY_BYTES_MAX, "case {case}");
    let mut ring = Ring::new(2 * HISTORY_BYTES_MAX);
    let mut viewer = Emulator::new(screen.size);
    ring.push(&snapshot.ansi);
    viewer.feed(&snapshot.ansi, &ring);
    let seen = viewer.screen();
    assert_eq!(
        (&seen.rows, seen.cursor),
        (&screen.rows, screen.cursor),
        "case {case}"
    );
    let visible = |emulator: &Emulator| {
        let mut rows = emulator.rows();
        rows.split_off(rows.len() - usize::from(screen.size.rows))
    };
    assert_eq!(visible(&viewer), visible(emulator), "case {case}");
    assert_eq!(viewer.wants_pastes(), emulator.wants_pastes(), "case {case}");
}

/// Runs one case and checks what must hold at each step; returns how often the engine was made anew.
fn run(case: u64) -> u64 {
    let mut dice = Dice::new(case);
    let mut ring = Ring::new(16 * 1024);
    let mut emulator = Emulator::new(size(&mut dice));
    let mut fed = 0;
    let mut gave_up = 0;
    for _ in 0..1 + dice.below(PIECES_MAX) {
        if dice.below(12) == 0 {
            let size = size(&mut dice);
            emulator.resize(size, &ring);
            assert_eq!(emulator.size(), size.clamped(), "case {case}");
        }
        let bytes = piece(&mut dice);
        // A read may end anywhere, within a character or a sequence too.
        let cut = dice.below(bytes.len() as u64 + 1) as usize;
        for part in [&bytes[..cut], &bytes[cut..]] {
            ring.push(part);
            emulator.feed(part, &ring);
            gave_up += u64::from(part.contains(&GIVES_UP));
            fed += part.len() as u64;
        }
    }
    let screen = emulator.screen();
    assert_eq!(screen.offset, fed, "case {case}");
    assert_eq!(screen.rows.len(), usize::from(screen.size.rows), "case {case}");
    assert!(
        screen.rows.iter().all(|row| !row.chars().any(char::is_control)),
        "case {case}: {:?}",
        screen.rows
    );
    assert!(
        screen.cursor.row < screen.size.rows && screen.cursor.col <= screen.size.cols,
        "case {case}: {screen:?}"
    );
    check_the_viewer(&emulator, case);
    assert!(
        emulator.rows().len() <= HISTORY_ROWS_MAX + usize::from(screen.size.rows),
        "case {case}"
    );
    assert!(
        gave_up > 0 || emulator.rebuilds() == 0,
        "case {case}: the engine gave up by itself"
    );
    emulator.rebuilds()
}

#[test]
fn no_output_and_no_resize_gets_a_panic_out_of_the_screen() {
    let rebuilds: u64 = (0..CASES).map(run).sum();
    assert!(
        rebuilds > 0,
        "the soup is too thin: nothing made the engine give up"
    );
}

#[test]
fn after_the_engine_gave_up_the_screen_goes_on() {
    let size = Size { cols: 200, rows: 50 };
    let mut ring = Ring::new(1024 * 1024);
    let mut emulator = Emulator::new(size);
    let mut feed = |emulator: &mut Emulator, text: &str| {
        ring.push(text.as_bytes());
        emulator.feed(text.as_bytes(), &ring);
    };
    feed(&mut emulator, "before\r\n\x1b]0;title\x07");
    feed(&mut emulator, "\x1b[50;200H\u{2764}\u{fe0f}\x1a\x1b[49;200Hx");
    feed(&mut emulator, "\x1b[3;1Hafter");
    let screen = emulator.screen();
    assert!(emulator.rebuilds() > 0);
    assert_eq!(
        (screen.rows[0].as_str(), screen.rows[2].as_str()),
        ("before", "after")
    );
    assert_eq!(screen.title, "title");
}
