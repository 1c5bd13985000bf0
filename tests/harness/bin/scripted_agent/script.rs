//! What a prompt tells the agent to do: words `do=NAME[:VALUE]`, carried out in their order; everything else in the
//! prompt is prose. A `+` in a value stands for a blank. Behind the last word the turn ends with a message that
//! carries the mark the prompt asks for, unless a word says otherwise.

use std::time::Duration;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Writes a paragraph.
    Say(String),
    /// Works quietly for a while; Esc ends it.
    Slow(Duration),
    /// Never ends, whatever is pressed.
    Hang,
    /// Ends the program at once.
    Die(i32),
    /// Prints so many bytes, as fast as they go.
    Flood(u64),
    /// Prints what is no text.
    Garbage,
    /// Prints escape sequences that never end, or that ask for too much.
    Escapes,
    /// Leaves children behind that will not go by themselves.
    Fork,
    /// Runs a shell command as a tool.
    Tool(String),
    /// Asks for a permission, then runs the command.
    Permission(String),
    /// Asks for two permissions at once, shows one dialog behind the other, then runs what was allowed.
    Both(String, String),
    /// Asks a question with these choices.
    Question(Vec<String>),
    /// Stops with work going on in the background, and once more when that has ended.
    Background(Duration),
    /// Has a sub-agent use tools and end.
    Subagent,
    /// Fails with an error of this class, as the API reports it.
    Fail(String),
    /// Ends without the mark.
    NoMark,
}

/// What is done to the reports of one turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Hooks that are never sent.
    pub lose: Vec<String>,
    /// Hooks that are sent twice.
    pub double: Vec<String>,
    /// Hooks that are sent late.
    pub delay: Vec<(String, Duration)>,
    /// The hook of the end comes before that of the last tool.
    pub reorder: bool,
    /// How late the transcript is written; `None` for never.
    pub transcript: Option<Duration>,
    /// Whether the transcript is written at all.
    pub no_transcript: bool,
}

/// A prompt, understood.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Script {
    pub steps: Vec<Step>,
    pub faults: Faults,
    /// The line that the prompt asks for at the end.
    pub mark: Option<String>,
}

impl Script {
    pub fn of(prompt: &str) -> Script {
        let mut script = Script {
            mark: mark_of(prompt),
            ..Script::default()
        };
        for word in prompt
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("do="))
        {
            let (name, value) = word.split_once(':').unwrap_or((word, ""));
            script.take(name, &value.replace('+', " "));
        }
        script
    }

    fn take(&mut self, name: &str, value: &str) {
        let ms = || {
            Duration::from_millis(
                value
                    .rsplit(':')
                    .next()
                    .and_then(|ms| ms.parse().ok())
                    .unwrap_or(500),
            )
        };
        let step = match name {
            "say" => Step::Say(value.to_owned()),
            "slow" => Step::Slow(ms()),
            "hang" => Step::Hang,
            "die" => Step::Die(value.parse().unwrap_or(1)),
            "flood" => Step::Flood(bytes_of(value)),
            "garbage" => Step::Garbage,
            "escapes" => Step::Escapes,
            "fork" => Step::Fork,
            "tool" => Step::Tool(value.to_owned()),
            "permission" => Step::Permission(value.to_owned()),
            "both" => {
                let (first, second) = value.split_once('|').unwrap_or((value, value));
                Step::Both(first.to_owned(), second.to_owned())
            }
            "question" => Step::Question(value.split('|').map(str::to_owned).collect()),
            "background" => Step::Background(ms()),
            "subagent" => Step::Subagent,
            "fail" => Step::Fail(value.to_owned()),
            "nomark" => Step::NoMark,
            "lose" => return self.faults.lose.push(value.to_owned()),
            "double" => return self.faults.double.push(value.to_owned()),
            "delay" => {
                let hook = value.split(':').next().unwrap_or_default();
                return self.faults.delay.push((hook.to_owned(), ms()));
            }
            "reorder" => {
                self.faults.reorder = true;
                return;
            }
            "late-transcript" => {
                self.faults.transcript = Some(ms());
                return;
            }
            "no-transcript" => {
                self.faults.no_transcript = true;
                return;
            }
            other => Step::Say(format!("I do not know how to {other}.")),
        };
        self.steps.push(step);
    }
}

/// `1G`, `8M`, `64K`, or plain bytes.
fn bytes_of(text: &str) -> u64 {
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 'K')) => (&text[..at], 1 << 10),
        Some((at, 'M')) => (&text[..at], 1 << 20),
        Some((at, 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    number.parse::<u64>().unwrap_or(0) * unit
}

/// The mark, put together from the words that describe it, as an agent would.
fn mark_of(prompt: &str) -> Option<String> {
    let (_, rest) = prompt.rsplit_once("the word SEMO, a colon, ")?;
    let code = rest
        .split_once("the code ")
        .filter(|(before, _)| !before.contains("bracket"))
        .and_then(|(_, rest)| rest.split(',').next());
    Some(match code {
        Some(code) => format!("[SEMO:DONE {}]", code.trim()),
        None => "[SEMO:DONE]".to_owned(),
    })
}
