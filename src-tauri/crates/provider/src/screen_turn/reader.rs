//! Claude Code's renderer for screen readers (`--ax-screen-reader`): flat text at the left edge, `you:` before a
//! prompt, `claude:` before a message, `tool:` before a call. Without colours or indentation, what an agent quotes
//! cannot be told from what the program says; each doubt goes against the turn being done.

use std::sync::LazyLock;

use regex::Regex;
use terminal::{Colour, PaintedRow};

use super::block::{Block, Item};
use super::draft::{Draft, Place, matches};
use super::text::{Line, blanks};

const YOU: &str = "you: ";
const CLAUDE: &str = "claude: ";
const TOOL: &str = "tool: ";
const ERROR: &str = "error: ";
const BANNER: &str = "[Accessible screen reader mode: on]";

/// Rows of the program's own, by their beginning: none of them belongs to a message.
const FOOTERS: &[&str] = &[
    "esc to interrupt",
    "? for shortcuts",
    "● ",
    "Check the Claude Code changelog",
];
const ERRORS: &[&str] = &[
    "API Error",
    "Credit balance",
    "Invalid API key",
    "Not logged in",
    "Please run /login",
    "Prompt is too long",
    "You've hit your",
];

static END: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^\p{L}[\p{L}-]* for [0-9]+[dhms]\b[ 0-9dhms]*$").ok());
static SPINS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\p{L}[\p{L}-]*…( *\(.*)?$").ok());
static RETRIES: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"Retrying in \d").ok());

/// Whether the rows were painted by this renderer.
pub(super) fn is_reader(rows: &[PaintedRow]) -> bool {
    rows.iter().any(|row| row.text == BANNER)
        || !rows.iter().any(|row| row.text.starts_with(['❯', '─', '╭']))
            && rows.iter().any(|row| row.text.starts_with(YOU))
}

/// The conversation in blocks.
pub(super) fn blocks(rows: &[PaintedRow], cols: usize) -> Vec<Block> {
    let mut reading = Reading(Draft::new(cols, true));
    for row in rows {
        reading.take(row, &blanks(row));
    }
    reading.0.finish()
}

/// Between the parts of the conversation, rows that may turn out to be a message's are kept in the draft's lines.
struct Reading(Draft);

impl Reading {
    fn take(&mut self, row: &PaintedRow, text: &str) {
        let is_own = FOOTERS.iter().any(|footer| text.starts_with(footer)) || matches(&SPINS, text);
        if let Some(prompt) = text.strip_prefix(YOU) {
            self.close();
            self.0.begin_prompt(prompt);
        } else if text.starts_with(CLAUDE) {
            self.0
                .begin(Place::Message, Line::of(row, CLAUDE.len(), Colour::Default));
        } else if text.starts_with(ERROR) {
            self.resume();
            self.0
                .begin(Place::Failure, Line::of(row, ERROR.len(), Colour::Default));
        } else if text.starts_with(TOOL) {
            self.close();
            self.0.add_whole(Item::Tool, Place::Below);
        } else if matches(&END, text) {
            self.end(row);
        } else if matches(&RETRIES, text) && self.0.place != Place::Message {
            self.close();
            self.0.place = Place::Below;
        } else if !is_own {
            self.text(row, text);
        } else if self.0.place == Place::Prompt {
            self.close();
        } else if !text.starts_with('●') {
            self.resume();
        }
    }

    /// The end of a turn, unless an agent wrote it: then the program goes on below it, and the row is part of the
    /// message.
    fn end(&mut self, row: &PaintedRow) {
        self.resume();
        let lines = match self.0.place {
            Place::Message => self.0.lines.clone(),
            _ => Vec::new(),
        };
        self.close();
        if let Some(block) = self.0.blocks.last_mut() {
            block.ended = true;
        }
        if !lines.is_empty() {
            self.0.lines = lines;
            self.0.lines.push(Line::of(row, 0, Colour::Default));
        }
    }

    /// The program goes on below a row that looked like the end: it was part of the message. What is typed next also
    /// stands below the end, but without anything of the program's after it.
    fn resume(&mut self) {
        if self.0.place != Place::Between || self.0.lines.is_empty() {
            return;
        }
        if let Some(block) = self.0.blocks.last_mut() {
            block.ended = false;
            block.items.pop();
        }
        self.0.place = Place::Message;
    }

    fn text(&mut self, row: &PaintedRow, text: &str) {
        let draft = &mut self.0;
        match draft.place {
            Place::Prompt | Place::Message | Place::Below if text.starts_with("Interrupted") => {
                self.close();
                self.0.add_whole(Item::Interrupted, Place::Below);
            }
            Place::Prompt | Place::Below if ERRORS.iter().any(|error| text.starts_with(error)) => {
                draft.begin(Place::Failure, Line::of(row, 0, Colour::Default));
            }
            Place::Prompt => draft.prompt_goes_on(text),
            Place::Message | Place::Failure => draft.lines.push(Line::of(row, 0, Colour::Default)),
            Place::Between if !draft.lines.is_empty() => {
                draft.lines.push(Line::of(row, 0, Colour::Default));
            }
            _ => {}
        }
    }

    fn close(&mut self) {
        self.0.go_to(Place::Between);
        self.0.lines.clear();
    }
}
