//! The program's transcript: one JSON line per fact, appended as it happens. It outlives the program, so it also
//! tells what happened while nobody listened to the hooks.
//!
//! The lines are not always in the order of time: a fresh session under load was seen to write an answer before the
//! prompt it answers. What belongs together is told by the chain that the lines form (`uuid`, `parentUuid`), which
//! starts at a prompt; clocks say nothing about it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use domain::{SessionId, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::hooks::{background_of, notified_of};

/// Most bytes taken in at once.
pub const READ_BYTES_MAX: usize = 1024 * 1024;
/// Longest line that is understood; a longer one (a large tool result) is skipped.
pub const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Lines whose place in the chain is kept; a turn refers to the lines just before it.
const LINKS_MAX: usize = 8_192;
/// Facts that are held back because the line they follow has not been read yet.
const ORPHANS_MAX: usize = 64;
/// Reads without any such line after which they are given out as they are.
const ORPHAN_READS_MAX: u32 = 20;
/// The program's words for a turn that was interrupted.
const INTERRUPTED: &str = "[Request interrupted by user";

/// A fact with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatedFact {
    /// When it happened, on the agent's clock; absent in a line without a time.
    pub at: Option<Timestamp>,
    /// The id of the prompt it follows from, as hooks name it too; absent when the chain to it is broken.
    pub prompt: Option<String>,
    /// The fact.
    pub fact: TranscriptFact,
}

/// One fact of a transcript. Sub-agents' lines are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TranscriptFact {
    /// A prompt was taken.
    UserPrompt {
        /// Its text.
        text: String,
    },
    /// The program woke its agent by itself: background work has ended.
    Notified {
        /// The ids of that work.
        tasks: Vec<String>,
    },
    /// The agent wants to use a tool.
    ToolUse {
        /// The use.
        id: String,
        /// The tool.
        name: String,
        /// Its input.
        input: Value,
    },
    /// A tool has answered.
    ToolResult {
        /// The use.
        id: String,
        /// Whether it worked.
        ok: bool,
        /// Its output as text.
        text: String,
        /// What the program keeps of the answer: for Bash an object with `stdout` and `stderr`.
        response: Value,
    },
    /// The agent wrote text.
    AssistantText {
        /// The text of this line; one message may have several.
        text: String,
        /// Why the model stopped: `end_turn`, `tool_use` …
        stop_reason: Option<String>,
    },
    /// The API failed for good.
    ApiError {
        /// HTTP status, where there was an answer.
        status: Option<u16>,
        /// The program's name for the error.
        error: String,
        /// The message for people.
        message: String,
    },
    /// The turn was interrupted.
    Interrupted,
    /// The turn came to its end, after any outcome but an interrupt.
    TurnDuration {
        /// How long it took, in milliseconds.
        ms: u64,
        /// Sub-agents that still run in the background.
        pending_agents: usize,
    },
}

/// A transcript that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("could not read the agent's transcript {}", path.display())]
pub struct TranscriptError {
    /// The file.
    pub path: PathBuf,
    /// The system's error.
    pub source: io::Error,
}

/// Reads a transcript as it grows.
#[derive(Debug, Clone)]
pub struct TranscriptReader {
    path: PathBuf,
    /// Everything before this byte has been taken in.
    offset: u64,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
    /// The line that is being read is longer than [`LINE_BYTES_MAX`].
    skipping: bool,
    chain: Chain,
}

/// Which prompt each line follows from.
#[derive(Debug, Clone, Default)]
struct Chain {
    /// By a line's own id.
    prompts: HashMap<String, Option<String>>,
    /// The same ids, oldest first.
    order: VecDeque<String>,
    /// Lines whose parent has not been read yet, oldest first.
    orphans: VecDeque<Link>,
    /// Reads since the last of them came.
    reads: u32,
}

/// A line's place in the chain, with what it says.
#[derive(Debug, Clone)]
struct Link {
    uuid: String,
    parent: Option<String>,
    at: Option<Timestamp>,
    facts: Vec<TranscriptFact>,
}

impl Chain {
    fn remember(&mut self, uuid: &str, prompt: Option<String>) {
        if uuid.is_empty() || self.prompts.insert(uuid.to_owned(), prompt).is_some() {
            return;
        }
        self.order.push_back(uuid.to_owned());
        if self.order.len() > LINKS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.prompts.remove(&oldest);
        }
    }

    /// Takes in one line and gives out what can be placed now. `own` is the prompt that the line itself names.
    fn take(&mut self, link: Link, own: Option<String>, out: &mut Vec<DatedFact>) {
        let known = link.parent.as_ref().map(|parent| self.prompts.get(parent));
        match (own, known) {
            (Some(own), _) => self.place(link, Some(own), out),
            (None, Some(Some(prompt))) => {
                let prompt = prompt.clone();
                self.place(link, prompt, out);
            }
            // The parent may still be written; without a parent there is none to wait for.
            (None, Some(None)) => {
                self.reads = 0;
                self.orphans.push_back(link);
                if self.orphans.len() > ORPHANS_MAX {
                    self.give_up_oldest(out);
                }
            }
            (None, None) => self.place(link, None, out),
        }
    }

    fn place(&mut self, link: Link, prompt: Option<String>, out: &mut Vec<DatedFact>) {
        self.remember(&link.uuid, prompt.clone());
        let dated = |fact| DatedFact {
            at: link.at,
            prompt: prompt.clone(),
            fact,
        };
        out.extend(link.facts.into_iter().map(dated));
        // What waited for this line follows it, and what waited for that.
        let is_child = |orphan: &Link| !link.uuid.is_empty() && orphan.parent.as_ref() == Some(&link.uuid);
        while let Some(place) = self.orphans.iter().position(is_child) {
            if let Some(orphan) = self.orphans.remove(place) {
                self.place(orphan, prompt.clone(), out);
            }
        }
    }

    fn give_up_oldest(&mut self, out: &mut Vec<DatedFact>) {
        if let Some(orphan) = self.orphans.pop_front() {
            self.place(orphan, None, out);
        }
    }

    /// A read has brought nothing new.
    fn waited(&mut self, out: &mut Vec<DatedFact>) {
        self.reads = self.reads.saturating_add(1);
        while self.reads > ORPHAN_READS_MAX && !self.orphans.is_empty() {
            self.give_up_oldest(out);
        }
    }
}

/// Where the transcript of a session lies, before any hook has told its path. The folder's name is the working
/// folder with everything but letters and digits turned into `-`.
pub fn transcript_path(config_dir: &Path, cwd: &Path, session: SessionId) -> PathBuf {
    let folder: String = cwd
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    config_dir
        .join("projects")
        .join(folder)
        .join(format!("{session}.jsonl"))
}

impl TranscriptReader {
    /// A reader that starts at the beginning; the file need not be there yet.
    pub fn new(path: PathBuf) -> TranscriptReader {
        TranscriptReader::from_offset(path, 0)
    }

    /// A reader that starts at the byte `offset`, which must be the start of a line.
    pub fn from_offset(path: PathBuf, offset: u64) -> TranscriptReader {
        TranscriptReader {
            path,
            offset,
            partial: Vec::new(),
            skipping: false,
            chain: Chain::default(),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The start of the first line that has not been returned yet.
    pub fn offset(&self) -> u64 {
        self.offset - self.partial.len() as u64
    }

    /// Facts written since the last call: some of them, or none when there are no more. A file that is not there
    /// yet has no facts.
    pub fn read(&mut self) -> Result<Vec<DatedFact>, TranscriptError> {
        loop {
            let bytes = self.read_bytes().map_err(|source| TranscriptError {
                path: self.path.clone(),
                source,
            })?;
            let mut facts = self.take_in(&bytes);
            if bytes.is_empty() {
                self.chain.waited(&mut facts);
            }
            if !facts.is_empty() || bytes.is_empty() {
                return Ok(facts);
            }
        }
    }

    fn read_bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(bytes),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.offset))?;
        file.take(READ_BYTES_MAX as u64).read_to_end(&mut bytes)?;
        self.offset += bytes.len() as u64;
        Ok(bytes)
    }

    fn take_in(&mut self, bytes: &[u8]) -> Vec<DatedFact> {
        let mut facts = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let ends = piece.ends_with(b"\n");
            if self.partial.len() + piece.len() > LINE_BYTES_MAX {
                self.partial.clear();
                self.skipping = true;
            }
            if !self.skipping {
                self.partial.extend_from_slice(piece);
            }
            if ends {
                if !self.skipping {
                    self.take_line(&mut facts);
                }
                self.partial.clear();
                self.skipping = false;
            }
        }
        facts
    }

    /// Takes in the line in `partial`; one that is no JSON of a known shape says nothing.
    fn take_line(&mut self, out: &mut Vec<DatedFact>) {
        let Ok(line) = serde_json::from_slice::<Line>(&self.partial) else {
            return;
        };
        if line.is_sidechain || (line.uuid.is_empty() && line.kind != "system" && line.message.is_empty()) {
            return;
        }
        let facts = facts_of(&line);
        let starts = matches!(
            facts.first(),
            Some(TranscriptFact::UserPrompt { .. } | TranscriptFact::Notified { .. })
        );
        // A version that does not name its prompts still has a chain that starts at one.
        let own = line
            .prompt_id
            .or_else(|| (starts && !line.uuid.is_empty()).then(|| line.uuid.clone()));
        let link = Link {
            uuid: line.uuid,
            parent: line.parent_uuid,
            at: Timestamp::parse_rfc3339(&line.timestamp),
            facts,
        };
        self.chain.take(link, own, out);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    subtype: String,
    #[serde(default)]
    is_sidechain: bool,
    #[serde(default)]
    is_meta: bool,
    #[serde(default)]
    is_api_error_message: bool,
    #[serde(default)]
    api_error_status: Option<u16>,
    #[serde(default)]
    error: Value,
    #[serde(default)]
    duration_ms: Option<f64>,
    #[serde(default)]
    pending_background_agent_count: usize,
    #[serde(default)]
    uuid: String,
    #[serde(default)]
    parent_uuid: Option<String>,
    #[serde(default)]
    prompt_id: Option<String>,
    #[serde(default)]
    tool_use_result: Value,
    #[serde(default)]
    message: Message,
    #[serde(default)]
    timestamp: String,
}

#[derive(Deserialize, Default)]
struct Message {
    #[serde(default)]
    content: Value,
    #[serde(default)]
    stop_reason: Option<String>,
}

impl Message {
    fn is_empty(&self) -> bool {
        self.content.is_null()
    }
}

/// What one line says, in its order.
fn facts_of(line: &Line) -> Vec<TranscriptFact> {
    match (line.kind.as_str(), line.subtype.as_str()) {
        ("assistant", _) => assistant_facts(line),
        ("user", _) => user_facts(line),
        ("system", "turn_duration") => vec![TranscriptFact::TurnDuration {
            // Milliseconds; saturates on nonsense.
            ms: line.duration_ms.unwrap_or_default() as u64,
            pending_agents: line.pending_background_agent_count,
        }],
        _ => Vec::new(),
    }
}

fn assistant_facts(line: &Line) -> Vec<TranscriptFact> {
    let content = &line.message.content;
    let mut facts = Vec::new();
    if let Some(text) = text_of(content) {
        facts.push(if line.is_api_error_message {
            TranscriptFact::ApiError {
                status: line.api_error_status,
                error: line.error.as_str().unwrap_or_default().to_owned(),
                message: text,
            }
        } else {
            TranscriptFact::AssistantText {
                text,
                stop_reason: line.message.stop_reason.clone(),
            }
        });
    }
    facts.extend(blocks(content, "tool_use").map(|block| TranscriptFact::ToolUse {
        id: block["id"].as_str().unwrap_or_default().to_owned(),
        name: block["name"].as_str().unwrap_or_default().to_owned(),
        input: block["input"].clone(),
    }));
    facts
}

fn user_facts(line: &Line) -> Vec<TranscriptFact> {
    let content = &line.message.content;
    let results: Vec<TranscriptFact> = blocks(content, "tool_result")
        .map(|block| TranscriptFact::ToolResult {
            id: block["tool_use_id"].as_str().unwrap_or_default().to_owned(),
            ok: block["is_error"] != true,
            text: text_of(&block["content"]).unwrap_or_default(),
            response: line.tool_use_result.clone(),
        })
        .collect();
    if !results.is_empty() {
        return results;
    }
    let Some(text) = text_of(content) else {
        return Vec::new();
    };
    if text.starts_with(INTERRUPTED) {
        vec![TranscriptFact::Interrupted]
    } else if line.is_meta {
        Vec::new()
    } else if let Some(tasks) = notified_of(&text) {
        vec![TranscriptFact::Notified { tasks }]
    } else {
        vec![TranscriptFact::UserPrompt { text }]
    }
}

/// The background work that a tool's recorded answer has left running.
pub fn background_in_record(response: &Value) -> Option<String> {
    background_of("Bash", response).or_else(|| background_of("Agent", response))
}

fn blocks<'a>(content: &'a Value, kind: &'static str) -> impl Iterator<Item = &'a Value> {
    let all = content.as_array().map_or(&[][..], Vec::as_slice);
    all.iter().filter(move |block| block["type"] == kind)
}

/// The text blocks of a message, one below the other; nothing when it has none (a tool's result, a tool use).
fn text_of(content: &Value) -> Option<String> {
    if let Some(text) = content.as_str() {
        return Some(text.to_owned());
    }
    let texts: Vec<&str> = content
        .as_array()?
        .iter()
        .filter(|block| block.get("type").and_then(Value::as_str) == Some("text"))
        .filter_map(|block| block.get("text").and_then(Value::as_str))
        .collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = concat!(
        r#"{"type":"mode","mode":"normal","sessionId":"s"}"#,
        "\n",
        r#"{"isSidechain":false,"type":"user","message":{"role":"user","content":"첫 줄\n둘째"},"promptSource":"typed","timestamp":"2026-11-21T05:46:49.321Z"}"#,
        "\n",
        r#"{"isSidechain":false,"message":{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"Bash","input":{}}],"stop_reason":"tool_use"},"type":"assistant"}"#,
        "\n",
        r#"{"isSidechain":false,"type":"user","message":{"role":"user","content":[{"type":"tool_result","content":"x","tool_use_id":"t"}]}}"#,
        "\n",
        r#"{"isSidechain":true,"message":{"role":"assistant","content":[{"type":"text","text":"sub"}]},"type":"assistant"}"#,
        "\n",
        r#"{"isSidechain":false,"message":{"role":"assistant","content":[{"type":"text","text":"ok\n\n[SEMO:DONE]"}],"stop_reason":"end_turn"},"type":"assistant"}"#,
        "\n",
        "not json\n",
        r#"{"type":"system","subtype":"turn_duration","durationMs":280}"#,
        "\n",
        r#"{"type":"assistant","message":{"model":"<synthetic>","content":[{"type":"text","text":"Credit balance is too low"}]},"error":"billing_error","isApiErrorMessage":true,"apiErrorStatus":400}"#,
        "\n",
        r#"{"type":"user","message":{"content":[{"type":"text","text":"[Request interrupted by user]"}]},"interruptedMessageId":"m"}"#,
        "\n",
    );

    fn expected() -> Vec<DatedFact> {
        let mut facts: Vec<DatedFact> = undated()
            .into_iter()
            .map(|fact| DatedFact {
                at: None,
                prompt: None,
                fact,
            })
            .collect();
        facts[0].at = Timestamp::parse_rfc3339("2026-11-21T05:46:49.321Z");
        facts
    }

    fn undated() -> Vec<TranscriptFact> {
        vec![
            TranscriptFact::UserPrompt {
                text: "첫 줄\n둘째".into(),
            },
            TranscriptFact::ToolUse {
                id: "t".into(),
                name: "Bash".into(),
                input: serde_json::json!({}),
            },
            TranscriptFact::ToolResult {
                id: "t".into(),
                ok: true,
                text: "x".into(),
                response: Value::Null,
            },
            TranscriptFact::AssistantText {
                text: "ok\n\n[SEMO:DONE]".into(),
                stop_reason: Some("end_turn".into()),
            },
            TranscriptFact::TurnDuration {
                ms: 280,
                pending_agents: 0,
            },
            TranscriptFact::ApiError {
                status: Some(400),
                error: "billing_error".into(),
                message: "Credit balance is too low".into(),
            },
            TranscriptFact::Interrupted,
        ]
    }

    #[test]
    fn a_transcript_reads_the_same_however_it_is_cut() {
        for step in [1, 2, 7, 64, LINES.len()] {
            let mut reader = TranscriptReader::new(PathBuf::from("/nonexistent"));
            let facts: Vec<_> = LINES
                .as_bytes()
                .chunks(step)
                .flat_map(|chunk| reader.take_in(chunk))
                .collect();
            assert_eq!(facts, expected(), "cut every {step} bytes");
        }
    }

    fn line(uuid: &str, parent: Option<&str>, rest: &str) -> String {
        let parent = parent.map_or("null".to_owned(), |parent| format!("\"{parent}\""));
        format!("{{\"uuid\":\"{uuid}\",\"parentUuid\":{parent},{rest}}}\n")
    }

    fn said(facts: &[DatedFact]) -> Vec<(Option<&str>, &str)> {
        let words = |fact: &TranscriptFact| match fact {
            TranscriptFact::UserPrompt { .. } => "prompt",
            TranscriptFact::Notified { .. } => "notified",
            TranscriptFact::AssistantText { .. } => "text",
            TranscriptFact::TurnDuration { .. } => "end",
            _ => "other",
        };
        let facts = facts.iter();
        facts
            .map(|dated| (dated.prompt.as_deref(), words(&dated.fact)))
            .collect()
    }

    #[test]
    fn the_chain_tells_which_prompt_a_line_follows_from_whatever_the_order_and_the_clocks() {
        let text = r#""type":"assistant","message":{"content":[{"type":"text","text":"a"}]}"#;
        let end = r#""type":"system","subtype":"turn_duration","durationMs":1"#;
        let mut reader = TranscriptReader::new(PathBuf::from("/nonexistent"));
        let early = [
            line("a1", Some("h1"), text),
            line("h1", Some("p1"), r#""type":"attachment""#),
        ]
        .concat();
        assert_eq!(said(&reader.take_in(early.as_bytes())), []);
        let prompt = r#""type":"user","promptId":"one","message":{"content":"do"}"#;
        let facts = reader.take_in(line("p1", None, prompt).as_bytes());
        assert_eq!(said(&facts), [(Some("one"), "prompt"), (Some("one"), "text")]);
        let note = r#""type":"user","message":{"content":"<task-notification><task-id>b</task-id>"}"#;
        let rest = [
            line("e1", Some("a1"), end),
            line("n1", Some("e1"), note),
            line("a2", Some("n1"), text),
        ]
        .concat();
        assert_eq!(
            said(&reader.take_in(rest.as_bytes())),
            [
                (Some("one"), "end"),
                (Some("n1"), "notified"),
                (Some("n1"), "text")
            ]
        );
    }

    #[test]
    fn a_line_whose_parent_never_comes_is_given_out_without_a_prompt_after_a_while() {
        let text = r#""type":"assistant","message":{"content":[{"type":"text","text":"a"}]}"#;
        let mut reader = TranscriptReader::new(PathBuf::from("/nonexistent"));
        assert_eq!(reader.take_in(line("a1", Some("gone"), text).as_bytes()), vec![]);
        let found = (0..=ORPHAN_READS_MAX).find_map(|_| {
            let facts = reader.read().unwrap();
            (!facts.is_empty()).then_some(facts)
        });
        assert_eq!(said(&found.unwrap()), [(None, "text")]);
        let many: String = (0..10 * ORPHANS_MAX)
            .map(|n| line(&format!("x{n}"), Some("gone"), text))
            .collect();
        let facts = reader.take_in(many.as_bytes());
        assert_eq!(facts.len(), 9 * ORPHANS_MAX, "what waits is bounded");
    }

    #[test]
    fn a_growing_file_is_read_once_and_a_missing_one_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jsonl");
        let mut reader = TranscriptReader::new(path.clone());
        assert_eq!(reader.read().unwrap(), vec![]);
        let middle = LINES.find("end_turn").unwrap();
        std::fs::write(&path, &LINES[..middle]).unwrap();
        let mut facts = reader.read().unwrap();
        let resumed_at = reader.offset();
        std::fs::write(&path, LINES).unwrap();
        facts.extend(reader.read().unwrap());
        assert_eq!(facts, expected());
        assert_eq!(reader.read().unwrap(), vec![]);
        let mut resumed = TranscriptReader::from_offset(path, resumed_at);
        assert_eq!(
            resumed.read().unwrap(),
            expected()[3..],
            "an offset is the start of a line"
        );
    }

    #[test]
    fn an_endless_line_is_skipped_and_the_next_is_read() {
        let mut reader = TranscriptReader::new(PathBuf::from("/nonexistent"));
        let block = vec![b'x'; 1024 * 1024];
        for _ in 0..=LINE_BYTES_MAX / block.len() {
            assert_eq!(reader.take_in(&block), vec![]);
            assert!(reader.partial.len() <= LINE_BYTES_MAX);
        }
        assert_eq!(reader.take_in(b"\n"), vec![]);
        assert_eq!(reader.take_in(LINES.as_bytes()), expected());
    }

    #[test]
    fn the_path_is_the_one_the_program_uses() {
        let id = SessionId(uuid::Uuid::nil());
        let path = transcript_path(Path::new("/h/.claude"), Path::new("/home/u/my_code/wt.1"), id);
        assert_eq!(
            path,
            Path::new(&format!("/h/.claude/projects/-home-u-my-code-wt-1/{id}.jsonl"))
        );
    }
}
