//! A conversation while it is read off a screen, row by row: the blocks so far, and the piece at hand. What all
//! readers do alike; what a row means is theirs.

use std::sync::LazyLock;

use regex::Regex;

use super::block::{Block, Item};
use super::text::{Line, one_marker, unwrapped};

/// Where a reading stands. Not every screen has all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Between the parts of the conversation.
    Between,
    /// In the echo of a prompt.
    Prompt,
    /// In a message of the agent.
    Message,
    /// In an error of the program.
    Failure,
    /// In or below a tool call.
    Tool,
    /// Below a note of the program.
    Below,
    /// Between the rules of the input box.
    Box,
    /// In a dialog, or in the footer below the box.
    Outside,
}

/// What has been read.
pub(super) struct Draft {
    pub(super) cols: usize,
    pub(super) blocks: Vec<Block>,
    pub(super) place: Place,
    /// Rows of the message or error that is being read.
    pub(super) lines: Vec<Line>,
    /// Rows of the prompt that is being read.
    prompt: Vec<String>,
    /// Nothing tells code from text on this screen.
    plain: bool,
}

impl Draft {
    /// `plain`: nothing tells code from text on this screen.
    pub(super) fn new(cols: usize, plain: bool) -> Draft {
        Draft {
            cols,
            blocks: Vec::new(),
            place: Place::Between,
            lines: Vec::new(),
            prompt: Vec::new(),
            plain,
        }
    }

    /// The echo of a prompt begins.
    pub(super) fn begin_prompt(&mut self, first: &str) {
        self.close();
        self.prompt = vec![first.to_owned()];
        self.place = Place::Prompt;
    }

    /// It goes on.
    pub(super) fn prompt_goes_on(&mut self, text: &str) {
        self.prompt.push(text.to_owned());
    }

    /// A message or an error begins.
    pub(super) fn begin(&mut self, place: Place, line: Line) {
        self.close();
        self.lines = vec![line];
        self.place = place;
    }

    /// The program shows something that is whole in itself; what stands below it is not read.
    pub(super) fn add_whole(&mut self, item: Item, below: Place) {
        self.close();
        self.block().add(item);
        self.place = below;
    }

    /// Ends the piece at hand, and stands at `place`.
    pub(super) fn go_to(&mut self, place: Place) {
        self.close();
        self.place = place;
    }

    /// Ends the piece at hand. Outside of one, nothing changes.
    pub(super) fn close(&mut self) {
        match self.place {
            Place::Prompt => {
                let prompt = std::mem::take(&mut self.prompt).join("\n").trim().to_owned();
                self.blocks.push(Block::of(prompt));
            }
            Place::Message => {
                let text = self.text();
                let text = if self.plain { one_marker(text) } else { text };
                self.block().add(Item::Message(text));
            }
            Place::Failure => {
                let text = self.text();
                let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
                self.block().add(Item::Failure(words));
            }
            Place::Between | Place::Tool | Place::Below | Place::Box | Place::Outside => return,
        }
        self.place = Place::Between;
    }

    fn text(&mut self) -> String {
        unwrapped(&std::mem::take(&mut self.lines), self.cols)
    }

    /// The newest block; one without a prompt when the echo is out of reach.
    pub(super) fn block(&mut self) -> &mut Block {
        if self.blocks.is_empty() {
            self.blocks.push(Block::default());
        }
        let last = self.blocks.len() - 1;
        &mut self.blocks[last]
    }

    /// The conversation as far as it was read.
    pub(super) fn finish(mut self) -> Vec<Block> {
        self.close();
        self.blocks
    }
}

/// Patterns are ours and are tried by the tests; one that cannot be read matches nothing.
pub(super) fn matches(pattern: &LazyLock<Option<Regex>>, text: &str) -> bool {
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}
