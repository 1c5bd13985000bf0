//! What the stub says to one request: blocks of a message, an error, or silence; and at which pace.

use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Pause between two pieces of a streamed text, when nothing else is said: quick, but many frames on the screen.
const PACE: Duration = Duration::from_millis(5);

/// What answers wait for that are to come at a moment of the story's. Closed until it is opened, once for all.
#[derive(Debug, Clone, Default)]
pub struct Gate(CancellationToken);

impl Gate {
    /// Lets the answers behind it go on.
    pub fn open(&self) {
        self.0.cancel();
    }

    pub(super) async fn opened(&self) {
        self.0.cancelled().await;
    }
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub(super) kind: Kind,
    pub(super) pace: Duration,
    pub(super) pause: Duration,
    pub(super) gate: Option<Gate>,
    pub(super) cut_after: Option<usize>,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// A message that ends the turn, or asks for a tool.
    Message(Vec<Block>),
    /// An HTTP error.
    Failure(Failure),
    /// A stream whose only event is an error.
    ErrorEvent(Failure),
    /// Nothing at all, until the time is over or the stub ends.
    Silence(Duration),
}

/// A block of a message.
#[derive(Debug, Clone)]
pub enum Block {
    /// Text, in the pieces in which it is streamed.
    Text(Vec<String>),
    /// The wish to use a tool.
    Tool {
        /// The tool's name (`Bash`, `Write` …).
        name: String,
        /// Its input.
        input: Value,
    },
}

/// An error of the API.
#[derive(Debug, Clone)]
pub struct Failure {
    pub(super) status: u16,
    pub(super) kind: String,
    pub(super) message: String,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Failure {
    /// An error with its HTTP status, its type in the API's words and its message.
    pub fn new(status: u16, kind: &str, message: &str) -> Failure {
        Failure {
            status,
            kind: kind.to_owned(),
            message: message.to_owned(),
            headers: Vec::new(),
        }
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl ToString) -> Failure {
        self.headers.push((name, value.to_string()));
        self
    }
}

impl Reply {
    fn of(kind: Kind) -> Reply {
        Reply {
            kind,
            pace: PACE,
            pause: Duration::ZERO,
            gate: None,
            cut_after: None,
        }
    }

    /// A final message, streamed word by word. It is sent as it is: a marker has to be part of it.
    pub fn text(text: &str) -> Reply {
        Reply::blocks(vec![Block::text(text)])
    }

    /// Some words, then the wish to use a tool.
    pub fn tool(words: &str, name: &str, input: Value) -> Reply {
        let tool = Block::Tool {
            name: name.to_owned(),
            input,
        };
        match words {
            "" => Reply::blocks(vec![tool]),
            words => Reply::blocks(vec![Block::text(words), tool]),
        }
    }

    /// A message of these blocks.
    pub fn blocks(blocks: Vec<Block>) -> Reply {
        Reply::of(Kind::Message(blocks))
    }

    /// An HTTP error.
    pub fn failure(failure: Failure) -> Reply {
        Reply::of(Kind::Failure(failure))
    }

    /// HTTP 200, and an error as the stream's only event.
    pub fn error_event(failure: Failure) -> Reply {
        Reply::of(Kind::ErrorEvent(failure))
    }

    /// No answer for that long.
    pub fn silence(duration: Duration) -> Reply {
        Reply::of(Kind::Silence(duration))
    }

    /// Waits that long between two pieces.
    pub fn pace(mut self, pace: Duration) -> Reply {
        self.pace = pace;
        self
    }

    /// Waits that long after the start of the message.
    pub fn pause(mut self, pause: Duration) -> Reply {
        self.pause = pause;
        self
    }

    /// Waits after the start of the message until the gate is open.
    pub fn behind(mut self, gate: &Gate) -> Reply {
        self.gate = Some(gate.clone());
        self
    }

    /// Breaks the connection after that many pieces.
    pub fn cut_after(mut self, pieces: usize) -> Reply {
        self.cut_after = Some(pieces);
        self
    }
}

impl Block {
    /// Text, in words.
    pub fn text(text: &str) -> Block {
        Block::Text(
            text.split_inclusive(char::is_whitespace)
                .map(str::to_owned)
                .collect(),
        )
    }
}
