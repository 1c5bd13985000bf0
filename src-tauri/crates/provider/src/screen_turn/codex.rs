//! Codex' screen, as seen with 0.169.0: `›` before the echo of a prompt on a band of its own colour, `•` before a
//! message or a tool call, `■` before an error, `Worked for …` at the end of a turn. The last `›` is the input box,
//! or the chosen line of a dialog. The first row may repeat the prompt of what is scrolled off.

use std::sync::LazyLock;

use regex::Regex;
use terminal::{Colour, PaintedRow};

use super::block::{Block, Item};
use super::text::{Line, blanks, ink_at, unwrapped};

static END: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^(─ )?\s*Worked for <?[0-9]").ok());
/// `• Working (3s • esc to interrupt)` and the like.
static SPINS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[•◦] .*\(.*esc to interrupt\)").ok());
static TOOL: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^(Ran|Running|Explored|Exploring|Edited|Added|Deleted|Called|Calling|Updated Plan|Proposed|Viewed|Searched|You approved|✔|✗)\b?").ok()
});
/// The program's own words for a cancelled turn.
const INTERRUPTED: &str = "Conversation interrupted";

fn matches(pattern: &LazyLock<Option<Regex>>, text: &str) -> bool {
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

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
}

/// The conversation in blocks.
pub(super) fn blocks(rows: &[PaintedRow], cols: usize) -> Vec<Block> {
    let mut reading = Reading {
        cols,
        blocks: Vec::new(),
        place: Place::Between,
        lines: Vec::new(),
        prompt: Vec::new(),
    };
    let end = rows
        .iter()
        .rposition(|row| row.text.starts_with('›'))
        .unwrap_or(rows.len());
    for row in &rows[..end] {
        reading.take(row, &blanks(row));
    }
    reading.close();
    reading.blocks
}

impl Reading {
    fn take(&mut self, row: &PaintedRow, text: &str) {
        if let Some(prompt) = text.strip_prefix('›') {
            self.close();
            self.place = Place::Prompt;
            self.prompt = vec![prompt.trim().to_owned()];
        } else if matches(&SPINS, text) {
            self.close();
        } else if let Some(words) = text.strip_prefix("■ ") {
            self.close();
            self.place = Place::Failure;
            let ink = ink_at(row, 1).map_or(Colour::Default, |style| style.fg);
            self.lines = vec![Line::of(row, 2, ink)];
            if words.starts_with(INTERRUPTED) {
                self.lines.clear();
                self.place = Place::Below;
                self.block().add(Item::Interrupted);
            }
        } else if let Some(body) = text.strip_prefix("• ") {
            self.close();
            let bold = ink_at(row, 1).is_some_and(|style| style.bold);
            if bold && matches(&TOOL, body) {
                self.block().add(Item::Tool);
                self.place = Place::Below;
            } else {
                self.place = Place::Message;
                self.lines = vec![Line::of(row, 2, Colour::Default)];
            }
        } else if matches(&END, text) && !text.starts_with(char::is_alphanumeric) {
            self.close();
            self.block().ended = true;
        } else {
            self.text(row, text);
        }
    }

    fn text(&mut self, row: &PaintedRow, text: &str) {
        let banded = row.style_at(0).is_some_and(|style| style.bg != Colour::Default);
        match self.place {
            // The prompt's own rows have its band; what has none is the rest of an answer below the repeated prompt.
            Place::Prompt if banded || text.is_empty() => self.prompt.push(text.trim().to_owned()),
            Place::Prompt if text.starts_with("  ") => {
                self.close();
                self.place = Place::Message;
                self.lines = vec![Line::of(row, 2, Colour::Default)];
            }
            Place::Message if text.trim_start().starts_with('└') => self.close(),
            Place::Message => self.lines.push(Line::of(row, indent_of(text), Colour::Default)),
            Place::Failure if text.is_empty() => self.close(),
            Place::Failure => {
                let ink = ink_at(row, 0).map_or(Colour::Default, |style| style.fg);
                self.lines.push(Line::of(row, 0, ink));
            }
            Place::Prompt | Place::Between | Place::Below => {}
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
                self.block().add(Item::Message(text));
            }
            Place::Failure => {
                let text = unwrapped(&std::mem::take(&mut self.lines), self.cols);
                self.block().add(Item::Failure(text.replace('\n', " ")));
            }
            Place::Between | Place::Below => {}
        }
        self.place = Place::Between;
    }

    fn block(&mut self) -> &mut Block {
        if self.blocks.is_empty() {
            self.blocks.push(Block::default());
        }
        let last = self.blocks.len() - 1;
        &mut self.blocks[last]
    }
}

fn indent_of(text: &str) -> usize {
    text.chars().take(2).take_while(|c| *c == ' ').count()
}
