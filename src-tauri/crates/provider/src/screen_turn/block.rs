//! A conversation in blocks: each begins with the echo of a prompt and holds what followed it.

use domain::marker::PLAIN;

use super::words::{failure_class_of_words, reset_time};
use super::{ScreenFailure, ScreenTurn};

/// How every marker begins, with or without a code.
pub(super) const MARKER_START: &str = match PLAIN.split_at_checked(PLAIN.len() - 1) {
    Some((start, _)) => start,
    None => PLAIN,
};

/// Slash commands that begin a new conversation.
const CLEARS: &[&str] = &["/clear", "/new", "/reset"];

/// One thing that follows a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// A message of the agent, unwrapped.
    Message(String),
    /// A tool call.
    Tool,
    /// An error row of the program.
    Failure(String),
    /// The turn was interrupted.
    Interrupted,
    /// A stop hook was overruled.
    Overruled,
}

impl Item {
    fn message(&self) -> Option<&String> {
        match self {
            Item::Message(text) => Some(text),
            Item::Tool | Item::Failure(_) | Item::Interrupted | Item::Overruled => None,
        }
    }
}

/// A prompt and what followed it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Block {
    /// The prompt; nothing for rows whose prompt is out of reach.
    pub(super) prompt: Option<String>,
    /// In the order of the screen.
    pub(super) items: Vec<Item>,
    /// The row of the turn's end came last.
    pub(super) ended: bool,
}

impl Block {
    pub(super) fn of(prompt: String) -> Block {
        Block {
            prompt: Some(prompt),
            ..Block::default()
        }
    }

    /// Adds what the program showed next; it goes on then.
    pub(super) fn add(&mut self, item: Item) {
        self.ended = false;
        self.items.push(item);
    }

    /// Whether the program says that it ended.
    pub(super) fn is_over(&self) -> bool {
        self.ended || matches!(self.items.last(), Some(Item::Interrupted | Item::Failure(_)))
    }

    /// A slash command or a shell line that no agent answered: no turn.
    fn is_bare_command(&self) -> bool {
        let command = |prompt: &String| prompt.starts_with(['/', '!']);
        self.items.is_empty() && self.prompt.as_ref().is_some_and(command)
    }

    /// A new conversation begins with it. What was before may still be in reach.
    fn clears(&self) -> bool {
        self.is_bare_command()
            && self
                .prompt
                .as_deref()
                .is_some_and(|prompt| CLEARS.contains(&prompt))
    }

    fn turn(&self) -> ScreenTurn {
        let last = self.items.last();
        let mut turn = ScreenTurn {
            prompt: self.prompt.clone(),
            // An interrupted turn has no row of its end.
            interrupted: last == Some(&Item::Interrupted) && !self.ended,
            overruled: last == Some(&Item::Overruled),
            ended: self.ended,
            tools: self.items.iter().filter(|item| **item == Item::Tool).count(),
            ..ScreenTurn::default()
        };
        match last {
            Some(Item::Message(text)) => turn.message = Some(text.clone()),
            // An agent wrote this, in words that the program paints as an error: neither can be believed.
            Some(Item::Failure(words)) if words.contains(MARKER_START) => {
                turn.message = Some(format!("`{words}`"));
            }
            Some(Item::Failure(words)) => {
                turn.failure = Some(ScreenFailure {
                    class: failure_class_of_words(words),
                    reset: reset_time(words),
                    words: words.clone(),
                });
            }
            Some(Item::Overruled) => turn.message = self.items.iter().rev().find_map(Item::message).cloned(),
            Some(Item::Tool | Item::Interrupted) | None => {}
        }
        turn
    }
}

/// The newest turn among the blocks.
pub(super) fn newest(blocks: &[Block]) -> Option<ScreenTurn> {
    let cleared = blocks.iter().rposition(Block::clears);
    let blocks = &blocks[cleared.unwrap_or_default()..];
    let index = blocks.iter().rposition(|block| !block.is_bare_command())?;
    let mut turn = blocks[index].turn();
    let until = &blocks[..=index];
    turn.echoes = until.iter().filter(|block| block.prompt.is_some()).count();
    let before = blocks[..index]
        .iter()
        .rev()
        .find(|block| !block.is_bare_command());
    turn.previous = before.map(|block| Box::new(block.turn()));
    Some(turn)
}
