//! Gemini CLI's screen, as seen with 0.61.0: ` > ` before the echo of a prompt on a band of its own colour, `✦` before
//! a message, `✕` before an error, `ℹ` before notes, boxes around tool calls. The conversation ends above the rule
//! over the input box. No row tells the end of a turn.

use terminal::{Colour, PaintedRow};

use super::block::{Block, Item};
use super::text::{Line, blanks, ink_at, unwrapped};

/// Shortest run of `─` that makes the rule above the input box, in cells.
const RULE_CELLS_MIN: usize = 8;
/// The program's own words for a cancelled turn.
const INTERRUPTED: &str = "Request cancelled";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Between,
    Prompt,
    Message,
    Failure,
    Below,
}

struct Reading {
    cols: usize,
    blocks: Vec<Block>,
    place: Place,
    lines: Vec<Line>,
    prompt: Vec<String>,
    /// How the program paints plain text.
    ink: Colour,
}

/// The conversation in blocks.
pub(super) fn blocks(rows: &[PaintedRow], cols: usize) -> Vec<Block> {
    let mut reading = Reading {
        cols,
        blocks: Vec::new(),
        place: Place::Between,
        lines: Vec::new(),
        prompt: Vec::new(),
        ink: Colour::Default,
    };
    let mut outside = false;
    for row in rows {
        let text = blanks(row);
        outside = is_rule(&text) || outside && !is_echo(row, &text);
        // Below the rule the box looks like an echo: its rows follow it directly.
        if is_rule(&text) {
            reading.close();
        } else if !outside {
            reading.take(row, &text);
        }
    }
    reading.close();
    // The box below the last rule was taken for an echo.
    let box_is_last = rows
        .iter()
        .rposition(|row| is_rule(&blanks(row)))
        .is_some_and(|rule| rows[rule..].iter().any(|row| is_echo(row, &blanks(row))));
    if box_is_last {
        reading.blocks.pop();
    }
    reading.blocks
}

impl Reading {
    fn take(&mut self, row: &PaintedRow, text: &str) {
        if is_echo(row, text) {
            self.close();
            self.place = Place::Prompt;
            self.ink = ink_at(row, 2).map_or(Colour::Default, |style| style.fg);
            self.prompt = vec![text.trim_start_matches([' ', '>']).to_owned()];
        } else if text.starts_with("✦ ") {
            self.close();
            self.place = Place::Message;
            self.lines = vec![Line::of(row, 2, self.ink)];
        } else if text.starts_with("✕ ") {
            self.close();
            self.place = Place::Failure;
            let ink = ink_at(row, 1).map_or(Colour::Default, |style| style.fg);
            self.lines = vec![Line::of(row, 2, ink)];
        } else if let Some(note) = text.strip_prefix("ℹ ") {
            self.close();
            self.place = Place::Below;
            if note.starts_with(INTERRUPTED) {
                self.add(Item::Interrupted);
            }
        } else if text.starts_with('╭') {
            self.close();
            // The answer to a slash command stands in a box too.
            let command = |block: &Block| {
                block
                    .prompt
                    .as_ref()
                    .is_some_and(|prompt| prompt.starts_with('/'))
            };
            if !self.blocks.last().is_some_and(command) {
                self.add(Item::Tool);
            }
            self.place = Place::Below;
        } else if text.contains("(esc to cancel") {
            self.close();
        } else {
            self.text(row, text);
        }
    }

    fn text(&mut self, row: &PaintedRow, text: &str) {
        match self.place {
            Place::Prompt => self.prompt.push(text.trim().to_owned()),
            Place::Message if text.is_empty() || text.starts_with("  ") => {
                // The hint above the rule is far to the right.
                if !text.trim().is_empty() && text.len() - text.trim_start().len() > self.cols / 2 {
                    self.close();
                } else {
                    self.lines.push(Line::of(row, 2, self.ink));
                }
            }
            Place::Failure if text.starts_with("  ") => {
                let ink = ink_at(row, 0).map_or(Colour::Default, |style| style.fg);
                self.lines.push(Line::of(row, 2, ink));
            }
            Place::Message | Place::Failure => self.close(),
            Place::Between | Place::Below => {}
        }
    }

    fn close(&mut self) {
        match self.place {
            Place::Prompt => {
                let prompt = std::mem::take(&mut self.prompt).join("\n").trim().to_owned();
                self.blocks.push(Block::of(prompt));
            }
            Place::Message => {
                let text = unwrapped(&std::mem::take(&mut self.lines), self.cols);
                self.add(Item::Message(text));
            }
            Place::Failure => {
                let text = unwrapped(&std::mem::take(&mut self.lines), self.cols);
                self.add(Item::Failure(text.replace('\n', " ")));
            }
            Place::Between | Place::Below => {}
        }
        self.place = Place::Between;
    }

    fn add(&mut self, item: Item) {
        if let Some(block) = self.blocks.last_mut() {
            block.add(item);
        }
    }
}

fn is_rule(text: &str) -> bool {
    text.chars().take_while(|c| *c == '─').count() >= RULE_CELLS_MIN
}

fn is_echo(row: &PaintedRow, text: &str) -> bool {
    let banded = row.style_at(0).is_some_and(|style| style.bg != Colour::Default);
    banded && (text.starts_with(" > ") || text == " >")
}
