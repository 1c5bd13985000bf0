//! Gemini CLI's screen, as seen with 0.61.0: ` > ` before the echo of a prompt on a band of its own colour, `✦` before
//! a message, `✕` before an error, `ℹ` before notes, boxes around tool calls. The conversation ends above the rule
//! over the input box. No row tells the end of a turn.

use terminal::{Colour, PaintedRow};

use super::block::{Block, Item};
use super::draft::{Draft, Place};
use super::text::{Line, blanks, ink_at};

/// Shortest run of `─` that makes the rule above the input box, in cells.
const RULE_CELLS_MIN: usize = 8;
/// The program's own words for a cancelled turn.
const INTERRUPTED: &str = "Request cancelled";

struct Reading {
    draft: Draft,
    /// How the program paints plain text.
    ink: Colour,
}

/// The conversation in blocks.
pub(super) fn blocks(rows: &[PaintedRow], cols: usize) -> Vec<Block> {
    let mut reading = Reading {
        draft: Draft::new(cols, false),
        ink: Colour::Default,
    };
    let mut outside = false;
    for row in rows {
        let text = blanks(row);
        outside = is_rule(&text) || outside && !is_echo(row, &text);
        // Below the rule the box looks like an echo: its rows follow it directly.
        if is_rule(&text) {
            reading.draft.close();
        } else if !outside {
            reading.take(row, &text);
        }
    }
    let mut blocks = reading.draft.finish();
    // The box below the last rule was taken for an echo.
    let box_is_last = rows
        .iter()
        .rposition(|row| is_rule(&blanks(row)))
        .is_some_and(|rule| rows[rule..].iter().any(|row| is_echo(row, &blanks(row))));
    if box_is_last {
        blocks.pop();
    }
    blocks
}

impl Reading {
    fn take(&mut self, row: &PaintedRow, text: &str) {
        let draft = &mut self.draft;
        if is_echo(row, text) {
            self.ink = ink_at(row, 2).map_or(Colour::Default, |style| style.fg);
            draft.begin_prompt(text.trim_start_matches([' ', '>']));
        } else if text.starts_with("✦ ") {
            draft.begin(Place::Message, Line::of(row, 2, self.ink));
        } else if text.starts_with("✕ ") {
            let ink = ink_at(row, 1).map_or(Colour::Default, |style| style.fg);
            draft.begin(Place::Failure, Line::of(row, 2, ink));
        } else if let Some(note) = text.strip_prefix("ℹ ") {
            draft.go_to(Place::Below);
            if note.starts_with(INTERRUPTED) {
                self.add(Item::Interrupted);
            }
        } else if text.starts_with('╭') {
            draft.go_to(Place::Below);
            // The answer to a slash command stands in a box too.
            let command = |block: &Block| {
                block
                    .prompt
                    .as_ref()
                    .is_some_and(|prompt| prompt.starts_with('/'))
            };
            if !draft.blocks.last().is_some_and(command) {
                self.add(Item::Tool);
            }
        } else if text.contains("(esc to cancel") {
            draft.close();
        } else {
            self.text(row, text);
        }
    }

    fn text(&mut self, row: &PaintedRow, text: &str) {
        let draft = &mut self.draft;
        match draft.place {
            Place::Prompt => draft.prompt_goes_on(text.trim()),
            Place::Message if text.is_empty() || text.starts_with("  ") => {
                // The hint above the rule is far to the right.
                if !text.trim().is_empty() && text.len() - text.trim_start().len() > draft.cols / 2 {
                    draft.close();
                } else {
                    draft.lines.push(Line::of(row, 2, self.ink));
                }
            }
            Place::Failure if text.starts_with("  ") => {
                let ink = ink_at(row, 0).map_or(Colour::Default, |style| style.fg);
                draft.lines.push(Line::of(row, 2, ink));
            }
            Place::Message | Place::Failure => draft.close(),
            _ => {}
        }
    }

    /// What stands above the first echo belongs to no turn: notes and boxes of the program's start.
    fn add(&mut self, item: Item) {
        if let Some(block) = self.draft.blocks.last_mut() {
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
