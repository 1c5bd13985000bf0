//! opencode's screen, as seen with 1.18.33: bars (`┃`) at the left of prompts, tool calls, errors and the input box,
//! told apart by colour; text without a bar is the agent's; `▣` begins the row that tells how a turn goes or ended.
//!
//! Its renderer takes `[SEMO:DONE]` for a link and drops the brackets, so the marker is never to be seen: such a turn
//! stays unconfirmed as far as the screen goes.

use terminal::{Colour, PaintedRow, Style};

use super::block::{Block, Item};
use super::draft::{Draft, Place};
use super::text::{Line, blanks, ink_at};

/// Where text without a bar begins, in cells.
const TEXT_CELL: usize = 5;

struct Reading {
    draft: Draft,
    /// Rows with a bar of the piece at hand; its kind is told by all of them.
    words: Vec<String>,
    /// How the program paints plain text.
    ink: Colour,
    /// How the bar of the last row was painted.
    bar: Option<Style>,
}

/// The conversation in blocks.
pub(super) fn blocks(rows: &[PaintedRow], cols: usize) -> Vec<Block> {
    let mut reading = Reading {
        draft: Draft::new(cols, false),
        words: Vec::new(),
        ink: Colour::Default,
        bar: None,
    };
    // The box at the bottom has a foot; its bar begins above.
    let foot = rows
        .iter()
        .rposition(|row| row.text.trim_start().starts_with('╹'));
    let end = foot.map_or(rows.len(), |foot| {
        let above = rows[..foot].iter().rposition(|row| bar(row).is_none());
        above.map_or(0, |above| above + 1)
    });
    for row in &rows[..end] {
        reading.take(row, &blanks(row));
    }
    reading.close();
    reading.draft.blocks
}

impl Reading {
    fn take(&mut self, row: &PaintedRow, text: &str) {
        if let Some(style) = bar(row) {
            self.barred(row, text, style);
            return;
        }
        self.bar = None;
        let body = text.trim();
        if body.starts_with("▣") {
            self.close();
            if let Some(block) = self.draft.blocks.last_mut() {
                let told = body.rsplit(" · ").next().unwrap_or_default();
                if told == "interrupted" {
                    block.add(Item::Interrupted);
                } else {
                    block.ended = told.ends_with('s') && told.starts_with(|c: char| c.is_ascii_digit());
                }
            }
        } else if self.draft.place == Place::Message {
            self.draft.lines.push(Line::of(row, TEXT_CELL, self.ink));
        } else {
            self.close();
            if !body.is_empty() {
                self.draft
                    .begin(Place::Message, Line::of(row, TEXT_CELL, self.ink));
            }
        }
    }

    /// A row with a bar: its kind is told by the colours of bar and text.
    fn barred(&mut self, row: &PaintedRow, text: &str, bar: Style) {
        let page = row.style_at(0).unwrap_or_default().bg;
        let body = text.trim().trim_start_matches('┃').trim();
        // A note may lie over the right half of the screen.
        let body = body.split('┃').next().unwrap_or_default().trim();
        let same = self.bar == Some(bar);
        self.bar = Some(bar);
        let kind = if bar.bg == page {
            Place::Prompt
        } else if body.is_empty() || same && matches!(self.draft.place, Place::Failure | Place::Tool) {
            self.draft.place
        } else {
            let plain = ink_at(row, 3).is_some_and(|style| style.fg == self.ink);
            let asks = body.starts_with(['△', '$', '#']);
            if plain || asks {
                Place::Tool
            } else {
                Place::Failure
            }
        };
        if kind != self.draft.place || kind == Place::Prompt && !same {
            self.close();
            self.draft.place = kind;
        }
        if kind == Place::Prompt && !body.is_empty() {
            self.ink = ink_at(row, 3).map_or(self.ink, |style| style.fg);
        }
        self.words.push(body.to_owned());
    }

    fn close(&mut self) {
        let words = std::mem::take(&mut self.words).join("\n").trim().to_owned();
        match self.draft.place {
            // Half a prompt at the upper edge.
            Place::Prompt if words.is_empty() => self.draft.blocks.push(Block::default()),
            Place::Prompt => self.draft.blocks.push(Block::of(words)),
            Place::Failure => self.add(Item::Failure(words.replace('\n', " "))),
            Place::Tool => self.add(Item::Tool),
            // What stands above the first prompt belongs to no turn.
            Place::Message if self.draft.blocks.is_empty() => self.draft.lines.clear(),
            _ => return self.draft.close(),
        }
        self.draft.place = Place::Between;
    }

    fn add(&mut self, item: Item) {
        if let Some(block) = self.draft.blocks.last_mut() {
            block.add(item);
        }
    }
}

/// How the bar at the left of a row is painted; nothing when there is none.
fn bar(row: &PaintedRow) -> Option<Style> {
    let index = row.text.chars().take(TEXT_CELL).position(|c| c == '┃')?;
    row.style_at(index)
}
