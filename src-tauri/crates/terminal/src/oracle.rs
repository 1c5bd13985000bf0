//! What the engine must do beyond painting: hand over each row that leaves the screen, once, whatever happens to the
//! screen's size; and what of it differs on purpose from the engine as it comes.

use alacritty_terminal::Term;
use alacritty_terminal::event::VoidListener;
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::Line;
use alacritty_terminal::term::Config;
use alacritty_terminal::vte::ansi::{Processor, StdSyncHandler};

use crate::cells;
use crate::emulator::{Emulator, Size};
use crate::fuzz::Dice;
use crate::ring::Ring;

const CASES: u64 = 4_000;

struct Sides(Size);

impl Dimensions for Sides {
    fn total_lines(&self) -> usize {
        self.screen_lines()
    }
    fn screen_lines(&self) -> usize {
        usize::from(self.0.rows)
    }
    fn columns(&self) -> usize {
        usize::from(self.0.cols)
    }
}

fn emulator(size: Size, output: &str) -> Emulator {
    let mut emulator = Emulator::new(size);
    feed(&mut emulator, output);
    emulator
}

/// The engine does not give up in these tests: nothing is painted again.
fn feed(emulator: &mut Emulator, output: &str) {
    emulator.feed(output.as_bytes(), &Ring::new(1));
}

fn resize(emulator: &mut Emulator, cols: u16, rows: u16) {
    emulator.resize(Size { cols, rows }, &Ring::new(1));
}

fn texts(emulator: &Emulator) -> Vec<String> {
    emulator.rows().into_iter().map(|row| row.text).collect()
}

const PIECES: &[&str] = &[
    "x",
    "word ",
    "a line of plain text that wraps and wraps",
    "\t",
    "\r",
    "\n",
    "\n\n\n",
    "\r\n",
    "line\r\n",
    "가나다",
    "漢字かな 漢字かな 漢字かな",
    "e\u{301}",
    "\u{2764}\u{fe0f}",
    "🎉",
    "\x1bM",
    "\x1bD",
    "\x1bE",
    "\x1b[S",
    "\x1b[5S",
    "\x1b[2T",
    "\x1b[3L",
    "\x1b[K",
    "\x1b[1K",
    "\x1b[H",
    "\x1b[99;99H",
    "\x1b[99;1H",
    "\x1b[4h",
    "\x1b[4l",
    "\x1b[?7l",
    "\x1b[?7h",
    "\x1b[?6h",
    "\x1b[?6l",
    "\x1b[?3h",
    "\x1b[31;1m",
    "\x1b[m",
    "\x1b[?1049h",
    "\x1b[?1049l",
    "\x1b[r",
];

/// The engine with a scrollback of its own, whose rows ours must be.
fn theirs(size: Size, output: &str) -> Vec<String> {
    let mut term = Term::new(Config::default(), &Sides(size), VoidListener);
    // It would leave tabs in its cells.
    let output = output.replace('\t', "\x1b[I");
    Processor::<StdSyncHandler>::new().advance(&mut term, format!("{output}\x1b[?1049l").as_bytes());
    let grid = term.grid();
    let top = grid.topmost_line().0;
    (top..i32::from(size.rows))
        .map(|line| cells::text(&grid[Line(line)][..]))
        .collect()
}

#[test]
fn every_row_that_leaves_the_screen_is_in_the_history_once_and_in_order() {
    let mut left = 0;
    for case in 0..CASES {
        let mut dice = Dice::new(case);
        let size = Size {
            cols: 2 + dice.below(40) as u16,
            rows: 2 + dice.below(12) as u16,
        };
        let mut output = String::new();
        for _ in 0..dice.below(80) {
            match dice.below(12) {
                0 => output.push_str(&format!("\x1b[{};{}r", dice.below(14), dice.below(14))),
                1 => output.push_str(&format!("\x1b[{};{}H", dice.below(14), dice.below(42))),
                _ => output.push_str(dice.pick(PIECES)),
            }
        }
        let ours = emulator(size, &format!("{output}\x1b[?1049l"));
        assert_eq!(texts(&ours), theirs(size, &output), "case {case}: {output:?}");
        left += texts(&ours).len() - usize::from(size.rows);
    }
    assert!(left > 10_000, "{left} rows");
}

#[test]
fn no_row_is_lost_or_doubled_when_the_size_changes() {
    let lines: Vec<String> = (0..40)
        .map(|n| format!("{n:02} {}", "word ".repeat(n % 7)))
        .collect();
    for (cols, rows) in [(80, 5), (80, 24), (80, 60), (20, 24), (10, 3), (200, 50)] {
        let mut emulator = emulator(Size { cols: 80, rows: 24 }, &lines.join("\r\n"));
        for (cols, rows) in [(cols, rows), (80, 24), (rows, cols), (40, 12)] {
            resize(&mut emulator, cols, rows);
            let text = texts(&emulator).concat().replace(' ', "");
            let wanted = lines.concat().replace(' ', "");
            assert_eq!(text, wanted, "{cols}x{rows}");
        }
    }
}

#[test]
fn a_wrapped_line_is_whole_again_on_a_wider_screen_and_history_does_not_come_back() {
    let mut emulator = emulator(Size { cols: 20, rows: 4 }, "0123456789ABCDEFGHIJ\r\n$ ");
    resize(&mut emulator, 10, 4);
    assert_eq!(emulator.screen().rows, ["0123456789", "ABCDEFGHIJ", "$", ""]);
    resize(&mut emulator, 20, 4);
    assert_eq!(emulator.screen().rows, ["0123456789ABCDEFGHIJ", "$", "", ""]);
    resize(&mut emulator, 20, 2);
    feed(&mut emulator, "\r\nend");
    assert_eq!(emulator.screen().rows, ["$", "end"]);
    resize(&mut emulator, 20, 5);
    assert_eq!(
        emulator.screen().rows,
        ["$", "end", "", "", ""],
        "what has left stays in the history"
    );
    assert_eq!(texts(&emulator)[0], "0123456789ABCDEFGHIJ");
}

#[test]
fn the_screen_below_the_alternate_one_bears_a_change_of_size() {
    let lines: String = (0..10).map(|n| format!("line {n}\r\n")).collect();
    let mut emulator = emulator(
        Size { cols: 30, rows: 12 },
        &format!("{lines}$ \x1b[?1049h\x1b[2;1Hpager\x1b[3;3H"),
    );
    resize(&mut emulator, 30, 6);
    assert_eq!(emulator.screen().rows[1], "pager");
    let cursor = emulator.screen().cursor;
    assert_eq!((cursor.row, cursor.col), (2, 2));
    feed(&mut emulator, "\x1b[?1049lls");
    let rows = texts(&emulator);
    let wanted: Vec<String> = (0..10)
        .map(|n| format!("line {n}"))
        .chain(["$ ls".to_owned()])
        .collect();
    assert_eq!(rows, wanted);
}

#[test]
fn a_frame_that_is_broken_off_is_on_the_screen() {
    let emulator = emulator(Size { cols: 20, rows: 4 }, "\x1b[?2026hhalf a frame");
    assert_eq!(emulator.screen().rows[0], "half a frame");
    assert_eq!(emulator.screen().offset, 20);
}

#[test]
fn clearing_the_screen_is_no_output_and_clears_no_history() {
    let lines: String = (0..10).map(|n| format!("line {n}\r\n")).collect();
    let emulator = emulator(
        Size { cols: 20, rows: 4 },
        &format!("{lines}\x1b[2J\x1b[3J\x1b[Hnew\x1bcnewer"),
    );
    let rows = texts(&emulator);
    assert_eq!(rows[6], "line 6");
    assert_eq!(rows[7..], ["newer", "", "", ""]);
    // The engine as it comes leaves the first row when the cursor is in the second.
    let above = self::emulator(Size { cols: 20, rows: 4 }, "one\r\ntwo\r\nthree\x1b[2;2H\x1b[1J");
    assert_eq!(above.screen().rows, ["", "  o", "three", ""]);
}

#[test]
fn a_tab_is_room_and_no_character() {
    let emulator = emulator(
        Size { cols: 20, rows: 4 },
        "a\tb\r\n\x1b[31mx\t\t\ty\r\n12345678901234567890\tz",
    );
    assert_eq!(
        emulator.screen().rows,
        ["a       b", "x                  y", "12345678901234567890", "z"]
    );
}

#[test]
fn no_cell_grows_without_bound() {
    let emulator = emulator(
        Size { cols: 20, rows: 4 },
        &format!("e{}x\r\n가{}", "\u{301}".repeat(1_000), "\u{200d}".repeat(1_000)),
    );
    let rows = emulator.screen().rows;
    assert!(rows[0].chars().count() < 20 && rows[0].ends_with('x'), "{rows:?}");
    assert!(rows[1].chars().count() < 20, "{rows:?}");
}

#[test]
fn a_string_without_end_is_swallowed_and_what_follows_is_painted() {
    for begin in ["\x1b]52;c;", "\x1b]0;", "\x1b_G", "\x1bP"] {
        for end in ["\x07", "\x1b\\"] {
            for size in [1_000, 3_000_000] {
                let mut emulator = emulator(Size { cols: 20, rows: 4 }, &format!("before {begin}"));
                let block = "AAAA".repeat(1_000);
                (0..=size / block.len()).for_each(|_| feed(&mut emulator, &block));
                feed(&mut emulator, &format!("{end}\x1b\\after"));
                assert_eq!(
                    emulator.screen().rows,
                    ["before after", "", "", ""],
                    "{begin:?} {end:?} {size}"
                );
                assert!(emulator.screen().title.len() <= crate::TITLE_CHARS_MAX);
            }
        }
    }
    let mut zeros = emulator(Size { cols: 20, rows: 4 }, "before ");
    (0..500).for_each(|_| feed(&mut zeros, &"\0".repeat(1_000)));
    feed(&mut zeros, "after");
    assert_eq!(zeros.screen().rows[0], "before after");
}

#[test]
fn older_programs_find_their_alternate_screen() {
    for number in [47, 1047, 1049] {
        let mut emulator = emulator(
            Size { cols: 20, rows: 4 },
            &format!("$ less\x1b[?{number}h\x1b[Hpager"),
        );
        assert_eq!(emulator.screen().rows[0], "pager");
        feed(&mut emulator, &format!("\x1b[?{number}l"));
        assert_eq!(emulator.screen().rows[0], "$ less");
    }
}

#[test]
fn one_intensity_at_a_time_and_the_newest_counts() {
    let emulator = emulator(
        Size { cols: 20, rows: 2 },
        "\x1b[1;2ma\x1b[1mb\x1b[22mc\x1b[2;94md\x1b[38;5;9me\x1b[38;5;94mf",
    );
    let row = &emulator.rows()[0];
    let style = |index| row.style_at(index).unwrap();
    let intensity = |index| (style(index).bold, style(index).dim);
    assert_eq!(intensity(0), (false, true));
    assert_eq!(intensity(1), (true, false));
    assert_eq!(intensity(2), (false, false));
    assert_eq!(style(3).fg, crate::Colour::Index(12));
    assert_eq!(style(4).fg, crate::Colour::Index(9));
    assert_eq!(style(5).fg, crate::Colour::Index(94));
}

#[test]
fn a_stray_byte_does_not_turn_the_letters_after_it_into_lines() {
    let emulator = emulator(Size { cols: 20, rows: 2 }, "\x1b(0\x1b)0\x0elq[SEMO:DONE]");
    assert_eq!(emulator.screen().rows[0], "lq[SEMO:DONE]");
}
