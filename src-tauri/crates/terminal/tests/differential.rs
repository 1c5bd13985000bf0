//! A second opinion: what our screen shows at the end of every recorded session, beside what `alacritty_terminal`
//! shows.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside a test function")]

use std::path::Path;

use alacritty_terminal::event::VoidListener;
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::cell::Flags;
use alacritty_terminal::term::{Config, Term};
use alacritty_terminal::vte::ansi::{Processor, StdSyncHandler};
use base64::Engine;
use serde_json::Value;
use terminal::{Painter, Size};

/// Rows that must be the same, in thousandths of those that show anything.
const EQUAL_PER_MILLE_MIN: usize = 995;

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

struct Other {
    term: Term<VoidListener>,
    processor: Processor<StdSyncHandler>,
}

impl Other {
    fn new(size: Size) -> Other {
        Other {
            term: Term::new(Config::default(), &Sides(size), VoidListener),
            processor: Processor::new(),
        }
    }

    fn rows(&mut self) -> Vec<String> {
        // It holds back a frame that is not finished yet.
        self.processor.stop_sync(&mut self.term);
        let grid = self.term.grid();
        (0..grid.screen_lines())
            .map(|line| {
                let row = &grid[Line(i32::try_from(line).unwrap())];
                let mut text = String::new();
                for column in 0..grid.columns() {
                    let cell = &row[Column(column)];
                    if cell
                        .flags
                        .intersects(Flags::WIDE_CHAR_SPACER | Flags::LEADING_WIDE_CHAR_SPACER)
                    {
                        continue;
                    }
                    text.push(cell.c);
                    text.extend(cell.zerowidth().into_iter().flatten());
                }
                text.trim_end().to_owned()
            })
            .collect()
    }
}

/// The rows of both after the whole recording.
fn both(text: &str) -> (Vec<String>, Vec<String>) {
    let mut lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let header = lines.next().unwrap();
    let side = |name: &str| u16::try_from(header[name].as_u64().unwrap()).unwrap();
    let size = Size {
        cols: side("width"),
        rows: side("height"),
    };
    let (mut ours, mut other) = (Painter::new(size), Other::new(size));
    for event in lines {
        let content = event["b"].as_str().unwrap_or_default();
        match event["k"].as_str() {
            Some("o") => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(content).unwrap();
                ours.feed(&bytes);
                other.processor.advance(&mut other.term, &bytes);
            }
            Some("r") => {
                let told = base64::engine::general_purpose::STANDARD.decode(content).unwrap();
                let told = String::from_utf8_lossy(&told);
                let sides = told
                    .split_once('x')
                    .and_then(|(cols, rows)| Some((cols.parse().ok()?, rows.parse().ok()?)));
                if let Some((cols, rows)) = sides {
                    let size = Size { cols, rows };
                    ours.resize(size);
                    other.term.resize(Sides(size));
                }
            }
            _ => {}
        }
    }
    (ours.screen().rows, other.rows())
}

#[test]
fn two_engines_show_the_same_screens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/recordings");
    let (mut shown, mut equal) = (0, 0);
    let mut differing = Vec::new();
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "jsonl") {
            continue;
        }
        files += 1;
        let (ours, other) = both(&std::fs::read_to_string(&path).unwrap());
        for (one, two) in ours
            .iter()
            .zip(&other)
            .filter(|(one, two)| !one.is_empty() || !two.is_empty())
        {
            shown += 1;
            if one == two {
                equal += 1;
            } else {
                differing.push(format!(
                    "{}\n  ours  {one}\n  other {two}",
                    path.file_name().unwrap().display()
                ));
            }
        }
    }
    assert!(files >= 10 && shown > 100, "{files} recordings, {shown} rows");
    assert!(
        equal * 1000 >= shown * EQUAL_PER_MILLE_MIN,
        "{equal} of {shown} rows are equal:\n{}",
        differing.join("\n")
    );
}
