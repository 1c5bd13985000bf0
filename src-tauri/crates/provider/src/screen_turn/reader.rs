//! Claude Code's renderer for screen readers (`--ax-screen-reader`): flat text at the left edge, `you:` before a
//! prompt, `claude:` before a message, `tool:` before a call. Without colours or indentation, what an agent quotes
//! cannot be told from what the program says; each doubt goes against the turn being done.

use std::sync::LazyLock;

use regex::Regex;
use terminal::{Colour, PaintedRow};

use super::block::{Block, Item};
use super::text::{Line, blanks, one_marker, unwrapped};

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

fn matches(pattern: &LazyLock<Option<Regex>>, text: &str) -> bool {
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

/// Whether the rows were painted by this renderer.
pub(super) fn is_reader(rows: &[PaintedRow]) -> bool {
    rows.iter().any(|row| row.text == BANNER)
        || !rows.iter().any(|row| row.text.starts_with(['❯', '─', '╭']))
            && rows.iter().any(|row| row.text.starts_with(YOU))
}

/// What is being read.
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
    for row in rows {
        reading.take(row, &blanks(row));
    }
    reading.close();
    reading.blocks
}

impl Reading {
    fn take(&mut self, row: &PaintedRow, text: &str) {
        let is_own = FOOTERS.iter().any(|footer| text.starts_with(footer)) || matches(&SPINS, text);
        if let Some(prompt) = text.strip_prefix(YOU) {
            self.close();
            self.place = Place::Prompt;
            self.prompt = vec![prompt.to_owned()];
        } else if text.starts_with(CLAUDE) {
            self.close();
            self.place = Place::Message;
            self.lines = vec![Line::of(row, CLAUDE.len(), Colour::Default)];
        } else if text.starts_with(ERROR) {
            self.resume();
            self.close();
            self.place = Place::Failure;
            self.lines = vec![Line::of(row, ERROR.len(), Colour::Default)];
        } else if text.starts_with(TOOL) {
            self.close();
            self.add(Item::Tool);
            self.place = Place::Below;
        } else if matches(&END, text) {
            self.end(row);
        } else if matches(&RETRIES, text) && self.place != Place::Message {
            self.close();
            self.place = Place::Below;
        } else if !is_own {
            self.text(row, text);
        } else if self.place == Place::Prompt {
            self.close();
        } else if !text.starts_with('●') {
            self.resume();
        }
    }

    /// The end of a turn, unless an agent wrote it: then the program goes on below it, and the row is part of the
    /// message.
    fn end(&mut self, row: &PaintedRow) {
        self.resume();
        let lines = match self.place {
            Place::Message => self.lines.clone(),
            Place::Between | Place::Prompt | Place::Failure | Place::Below => Vec::new(),
        };
        self.close();
        if let Some(block) = self.blocks.last_mut() {
            block.ended = true;
        }
        if !lines.is_empty() {
            self.lines = lines;
            self.lines.push(Line::of(row, 0, Colour::Default));
        }
    }

    /// The program goes on below a row that looked like the end: it was part of the message. What is typed next also
    /// stands below the end, but without anything of the program's after it.
    fn resume(&mut self) {
        if self.place != Place::Between || self.lines.is_empty() {
            return;
        }
        if let Some(block) = self.blocks.last_mut() {
            block.ended = false;
            block.items.pop();
        }
        self.place = Place::Message;
    }

    fn text(&mut self, row: &PaintedRow, text: &str) {
        match self.place {
            Place::Prompt if text.starts_with("Interrupted") => self.interrupted(),
            Place::Message if text.starts_with("Interrupted") => self.interrupted(),
            Place::Below if text.starts_with("Interrupted") => self.interrupted(),
            Place::Prompt | Place::Below if ERRORS.iter().any(|error| text.starts_with(error)) => {
                self.close();
                self.place = Place::Failure;
                self.lines = vec![Line::of(row, 0, Colour::Default)];
            }
            Place::Prompt => self.prompt.push(text.to_owned()),
            Place::Message | Place::Failure => self.lines.push(Line::of(row, 0, Colour::Default)),
            Place::Between if !self.lines.is_empty() => self.lines.push(Line::of(row, 0, Colour::Default)),
            Place::Between | Place::Below => {}
        }
    }

    fn interrupted(&mut self) {
        self.close();
        self.add(Item::Interrupted);
        self.place = Place::Below;
    }

    fn add(&mut self, item: Item) {
        if self.blocks.is_empty() {
            self.blocks.push(Block::default());
        }
        if let Some(block) = self.blocks.last_mut() {
            block.add(item);
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
                self.add(Item::Message(one_marker(text)));
            }
            Place::Failure => {
                let text = unwrapped(&std::mem::take(&mut self.lines), self.cols);
                self.add(Item::Failure(
                    text.split_whitespace().collect::<Vec<_>>().join(" "),
                ));
            }
            Place::Between | Place::Below => {}
        }
        self.lines = Vec::new();
        self.place = Place::Between;
    }
}
