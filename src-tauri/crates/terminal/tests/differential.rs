//! A second opinion: what our screen and our history show at the end of every recorded session, with all colours, beside
//! what `vt100` shows.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside a test function")]

use std::num::NonZeroU16;
use std::path::Path;

use base64::Engine;
use serde_json::Value;
use terminal::{Colour, HISTORY_ROWS_MAX, PaintedRow, Painter, Size, Style};

/// Rows that must be the same, in thousandths of those that show anything.
const EQUAL_PER_MILLE_MIN: usize = 995;

/// A row as both can tell it: its text and how each character is painted.
type Row = (String, Vec<Style>);

fn sides_of(size: Size) -> (NonZeroU16, NonZeroU16) {
    let side = |cells| NonZeroU16::new(cells).unwrap();
    (side(size.rows), side(size.cols))
}

fn colour(colour: vt100::Color) -> Colour {
    match colour {
        vt100::Color::Default => Colour::Default,
        vt100::Color::Idx(index) => Colour::Index(index),
        vt100::Color::Rgb(red, green, blue) => Colour::Rgb(red, green, blue),
    }
}

fn style(cell: &vt100::Cell) -> Style {
    Style {
        fg: colour(cell.fgcolor()),
        bg: colour(cell.bgcolor()),
        bold: cell.bold(),
        dim: cell.dim(),
        italic: cell.italic(),
        underline: cell.underline(),
        inverse: cell.inverse(),
    }
}

/// The rows it has, as many as a history keeps.
fn theirs(parser: &mut vt100::Parser) -> Vec<Row> {
    let (rows, cols) = parser.screen().size();
    let (rows, cols) = (usize::from(rows.get()), cols.get());
    parser.screen_mut().set_scrollback(usize::MAX);
    let history = parser.screen().scrollback();
    let row = |number: usize| {
        // A row of the history is the uppermost when the screen is scrolled back to it.
        let back = history.saturating_sub(number);
        parser.screen_mut().set_scrollback(back);
        let line = u16::try_from(number.saturating_sub(history)).unwrap();
        let mut row = Row::default();
        for cell in (0..cols).filter_map(|col| parser.screen().cell(line, col)) {
            let shown = match cell.has_contents() {
                true => cell.contents(),
                false if cell.is_wide_continuation() => "",
                false => " ",
            };
            row.0.push_str(shown);
            row.1.extend(shown.chars().map(|_| style(cell)));
        }
        row.0.truncate(row.0.trim_end().len());
        row.1.truncate(row.0.chars().count());
        row
    };
    (0..history + rows).map(row).collect()
}

fn ours(row: &PaintedRow) -> Row {
    let styles = (0..row.text.chars().count()).filter_map(|index| row.style_at(index));
    (row.text.clone(), styles.collect())
}

/// The rows of both after the whole recording, the last one first, and behind them those of the history.
fn both(text: &str) -> (Vec<Row>, Vec<Row>) {
    let mut lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let header = lines.next().unwrap();
    let side = |name: &str| u16::try_from(header[name].as_u64().unwrap()).unwrap();
    let size = Size {
        cols: side("width"),
        rows: side("height"),
    };
    let mut painter = Painter::new(size);
    let mut resized = false;
    let (rows, cols) = sides_of(size);
    let mut other = vt100::Parser::new(rows, cols, HISTORY_ROWS_MAX);
    for event in lines {
        let content = event["b"].as_str().unwrap_or_default();
        let content = base64::engine::general_purpose::STANDARD.decode(content);
        match (event["k"].as_str(), content) {
            (Some("o"), Ok(bytes)) => {
                painter.feed(&bytes);
                other.process(&bytes);
            }
            (Some("r"), Ok(told)) => {
                let told = String::from_utf8_lossy(&told).into_owned();
                let sides = told
                    .split_once('x')
                    .and_then(|(cols, rows)| Some((cols.parse().ok()?, rows.parse().ok()?)));
                if let Some((cols, rows)) = sides {
                    let size = Size { cols, rows };
                    resized = true;
                    painter.resize(size);
                    let (rows, cols) = sides_of(size);
                    other.set_size(rows, cols);
                }
            }
            _ => {}
        }
    }
    let mut one: Vec<Row> = painter.rows().iter().map(ours).collect();
    let mut two = theirs(&mut other);
    one.reverse();
    two.reverse();
    if resized {
        // The other one wraps nothing anew, and takes rows back out of its history.
        one.truncate(painter.screen().rows.len());
        two.truncate(one.len());
    }
    (one, two)
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
            .filter(|(one, two)| !one.0.is_empty() || !two.0.is_empty())
        {
            shown += 1;
            if one == two {
                equal += 1;
            } else {
                differing.push(format!(
                    "{}\n  ours  {one:?}\n  other {two:?}",
                    path.file_name().unwrap().display()
                ));
            }
        }
    }
    assert!(files >= 10 && shown > 2_000, "{files} recordings, {shown} rows");
    assert!(
        equal * 1000 >= shown * EQUAL_PER_MILLE_MIN,
        "{equal} of {shown} rows are equal:\n{}",
        differing.join("\n")
    );
}
