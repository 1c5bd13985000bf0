//! The newest turn as the screen shows it: the last fallback where a program has no hooks and no transcript, and for
//! recordings of terminals.
//!
//! It reads painted rows of one conversation, oldest first, and is total on any rows. It never decides how a turn
//! ended: `domain::turn` does. What letters and colours cannot tell apart is given so that the decision comes out
//! unconfirmed: text in the colour of code stands in backticks, a row that may be the tail of a wrapped line is
//! joined to it, an error that holds a marker is no error.

mod block;
mod claude;
mod codex;
mod draft;
mod gemini;
mod opencode;
mod reader;
mod text;
mod words;

use domain::turn::FailureClass;
use terminal::PaintedRow;

pub use words::{failure_class_of_words, reset_time};

/// Rows that are read, at most: the newest ones.
pub const ROWS_MAX: usize = 3_000;

/// What the screen shows of the newest turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScreenTurn {
    /// The prompt as its echo shows it; nothing when the echo has scrolled out of reach.
    pub prompt: Option<String>,
    /// How many echoes are in reach up to its own, those of slash commands included: tells two equal prompts apart.
    /// A screen that is painted anew may repeat them.
    pub echoes: usize,
    /// The agent's final message, unwrapped; nothing when something else than a message stands last.
    pub message: Option<String>,
    /// The program's own error, standing last.
    pub failure: Option<ScreenFailure>,
    /// The program says that the turn was interrupted.
    pub interrupted: bool,
    /// A stop hook wanted the turn to go on and was overruled: the agent's claim to be done is disputed.
    pub overruled: bool,
    /// The program's own row for the end of a turn (`✻ Worked for 2s`) stands below it.
    pub ended: bool,
    /// Tool calls that are in reach.
    pub tools: usize,
    /// The turn before, when it is in reach; without one of its own.
    pub previous: Option<Box<ScreenTurn>>,
}

/// An error row of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScreenFailure {
    /// Its class, from its words.
    pub class: FailureClass,
    /// Its words, unwrapped.
    pub words: String,
    /// When a limit ends, in the program's words.
    pub reset: Option<String>,
}

/// Reads the newest turn of `program` (`claude`, `codex`, `gemini`, `opencode`) from what has scrolled off and the
/// screen, painted `cols` wide. Nothing when no turn is to be seen, or the program is not known.
pub fn read_turn(program: &str, rows: &[PaintedRow], cols: u16) -> Option<ScreenTurn> {
    let rows = &rows[rows.len().saturating_sub(ROWS_MAX)..];
    let cols = usize::from(cols);
    let blocks = match program {
        "claude" if reader::is_reader(rows) => reader::blocks(rows, cols),
        "claude" => claude::blocks(rows, cols),
        "codex" => codex::blocks(rows, cols),
        "gemini" => gemini::blocks(rows, cols),
        "opencode" => opencode::blocks(rows, cols),
        _ => return None,
    };
    block::newest(&blocks)
}
