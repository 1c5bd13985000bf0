//! The program's transcript: one JSON line per fact, appended as it happens. It outlives the program, so it also
//! tells what happened while nobody listened to the hooks.
//!
//! The lines are not always in the order of time: a fresh session under load was seen to write an answer before the
//! prompt it answers. What belongs together is told by the chain that the lines form (`uuid`, `parentUuid`), which
//! starts at a prompt; clocks say nothing about it.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use domain::{SessionId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hooks::{background_of, notified_of};

/// Most bytes taken in at once.
pub const READ_BYTES_MAX: usize = 1024 * 1024;
/// Longest line that is understood; a longer one (a large tool result) is skipped.
pub const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Reads in which the rest of a file is left out: of its end, and of what is written meanwhile.
const SKIP_READS_MAX: u32 = 4;
/// Lines whose place in the chain is kept; a turn refers to the lines just before it.
const LINKS_MAX: usize = 8_192;
/// Facts that are held back because the line they follow has not been read yet.
const ORPHANS_MAX: usize = 64;
/// Reads without any such line after which they are given out as they are.
const ORPHAN_READS_MAX: u32 = 20;
/// The program's words for a turn that was interrupted: the whole text of a line.
const INTERRUPTED: [&str; 2] = [
    "[Request interrupted by user]",
    "[Request interrupted by user for tool use]",
];
/// How the line begins in which the program hands on what a stop hook has said against the end.
const STOP_HOOK_SAYS: &str = "Stop hook feedback:";
/// How the program warns that it ends a turn although a stop hook did not let it (measured with 2.1.197).
const OVERRULED: &str = "A hook blocked the turn from ending";

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
    /// The program itself told its agent something, and the turn goes on.
    Prodded {
        /// It is what a stop hook has said against the end.
        by_stop_hook: bool,
    },
    /// A stop hook did not let the agent stop until the program overruled it; the end follows.
    Overruled,
    /// The turn came to its end, after any outcome but an interrupt.
    TurnDuration {
        /// How long it took, in milliseconds.
        ms: u64,
        /// Sub-agents that still run in the background.
        pending_agents: usize,
    },
}

/// A place in a transcript, as it is written down, so that another process can read on from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranscriptPlace {
    /// The file.
    pub path: PathBuf,
    /// The start of a line; what stands before it has been taken in.
    pub offset: u64,
    /// The file's number, where it was there.
    pub inode: Option<u64>,
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
    /// The line that is being read is longer than [`LINE_BYTES_MAX`], or its beginning was left out.
    skipping: bool,
    /// The file's number, to notice that another one has taken its place.
    inode: Option<u64>,
    /// The file was cut off or replaced: what stands before this byte may have been told before.
    retold: u64,
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

    fn knows(&self, uuid: &str) -> bool {
        self.prompts.contains_key(uuid)
    }

    /// The lines that wait are none that anybody wants.
    fn give_up_all(&mut self) {
        let mut nobody = Vec::new();
        while !self.orphans.is_empty() {
            self.give_up_oldest(&mut nobody);
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

#[cfg(unix)]
fn inode_of(metadata: &Metadata) -> Option<u64> {
    Some(std::os::unix::fs::MetadataExt::ino(metadata))
}

#[cfg(not(unix))]
fn inode_of(_: &Metadata) -> Option<u64> {
    None
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
        TranscriptReader {
            path,
            offset: 0,
            partial: Vec::new(),
            skipping: false,
            inode: None,
            retold: 0,
            chain: Chain::default(),
        }
    }

    /// A reader that goes on where another one was. What stands before is read for the places of its lines only, and
    /// of a long file only its end. A file that was cut off or replaced since is read anew.
    pub fn at(place: TranscriptPlace) -> Result<TranscriptReader, TranscriptError> {
        let mut reader = TranscriptReader::new(place.path);
        (reader.offset, reader.inode) = (place.offset, place.inode);
        let opened = reader.open();
        // Read anew it begins at its beginning.
        if opened.map_err(|source| reader.fault(source))?.is_none() || reader.offset == 0 {
            return Ok(reader);
        }
        let mut left = place.offset.min(READ_BYTES_MAX as u64);
        reader.offset = place.offset - left;
        let far = reader.offset > 0;
        // The line in which it begins is no whole one.
        reader.skipping = far;
        while left > 0 {
            let bytes = reader.read_bytes(left).map_err(|source| reader.fault(source))?;
            if bytes.is_empty() {
                break;
            }
            left = left.saturating_sub(bytes.len() as u64);
            drop(reader.take_in(&bytes));
        }
        if far {
            reader.chain.give_up_all();
        }
        Ok(reader)
    }

    /// Where it stands.
    pub fn place(&self) -> TranscriptPlace {
        TranscriptPlace {
            path: self.path.clone(),
            offset: self.offset(),
            inode: self.inode,
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
            let bytes = self
                .read_bytes(READ_BYTES_MAX as u64)
                .map_err(|source| self.fault(source))?;
            let mut facts = self.take_in(&bytes);
            if bytes.is_empty() {
                self.chain.waited(&mut facts);
            }
            if !facts.is_empty() || bytes.is_empty() {
                return Ok(facts);
            }
        }
    }

    /// Leaves out everything that is written already. Of a long file only the end is read, for the places of its lines.
    pub fn skip_to_end(&mut self) -> Result<(), TranscriptError> {
        let length = match self.open() {
            Ok(Some(file)) => file.metadata().map_err(|source| self.fault(source))?.len(),
            Ok(None) => return Ok(()),
            Err(source) => return Err(self.fault(source)),
        };
        let tail = length.saturating_sub(READ_BYTES_MAX as u64);
        let far = tail > self.offset;
        if far {
            self.offset = tail;
            self.partial.clear();
            // The line in which it begins is no whole one.
            self.skipping = true;
        }
        // What is written while this reads is at most one more piece; the rest is news.
        for _ in 0..SKIP_READS_MAX {
            let bytes = self
                .read_bytes(READ_BYTES_MAX as u64)
                .map_err(|source| self.fault(source))?;
            if bytes.is_empty() {
                break;
            }
            drop(self.take_in(&bytes));
        }
        if far {
            // What its lines follow was left out.
            self.chain.give_up_all();
        }
        Ok(())
    }

    fn fault(&self, source: io::Error) -> TranscriptError {
        TranscriptError {
            path: self.path.clone(),
            source,
        }
    }

    /// The file, if it is there. One that is shorter than what was read of it, or another one, is read anew.
    fn open(&mut self) -> io::Result<Option<File>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        let inode = inode_of(&metadata);
        let replaced = self.inode.is_some_and(|known| Some(known) != inode);
        if replaced || metadata.len() < self.offset {
            tracing::warn!(path = %self.path.display(), "the agent's transcript was cut off or replaced; it is read anew");
            self.retold = self.retold.max(self.offset);
            self.offset = 0;
            self.partial.clear();
            self.skipping = false;
        }
        self.inode = inode;
        Ok(Some(file))
    }

    /// The next bytes, at most `max`.
    fn read_bytes(&mut self, max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let Some(mut file) = self.open()? else {
            return Ok(bytes);
        };
        file.seek(SeekFrom::Start(self.offset))?;
        file.take(max).read_to_end(&mut bytes)?;
        self.offset += bytes.len() as u64;
        Ok(bytes)
    }

    fn take_in(&mut self, bytes: &[u8]) -> Vec<DatedFact> {
        let mut facts = Vec::new();
        let mut end = self.offset.saturating_sub(bytes.len() as u64);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let ends = piece.ends_with(b"\n");
            end += piece.len() as u64;
            if self.partial.len() + piece.len() > LINE_BYTES_MAX {
                self.partial.clear();
                self.skipping = true;
            }
            if !self.skipping {
                self.partial.extend_from_slice(piece);
            }
            if ends {
                if !self.skipping {
                    self.take_line(end <= self.retold, &mut facts);
                }
                self.partial.clear();
                self.skipping = false;
            }
        }
        facts
    }

    /// Takes in the line in `partial`; one that is no JSON of a known shape says nothing. In a file that is read
    /// anew, a known one says nothing either, and one at a place that was read before (`retold`) names no prompt of its
    /// own: it may be an old one.
    fn take_line(&mut self, retold: bool, out: &mut Vec<DatedFact>) {
        let Ok(line) = serde_json::from_slice::<Line>(&self.partial) else {
            return;
        };
        if line.is_sidechain || (line.uuid.is_empty() && line.kind != "system" && line.message.is_empty()) {
            return;
        }
        if self.retold > 0 && self.chain.knows(&line.uuid) {
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
            .or_else(|| (starts && !line.uuid.is_empty()).then(|| line.uuid.clone()))
            .filter(|_| !retold);
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
    /// How a prompt came in; only a prompt's own line has it.
    #[serde(default)]
    prompt_source: Value,
    /// The words of a line of the program's own.
    #[serde(default)]
    content: Value,
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
        ("system", _)
            if line
                .content
                .as_str()
                .is_some_and(|words| words.starts_with(OVERRULED)) =>
        {
            vec![TranscriptFact::Overruled]
        }
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
    // A prompt may say the same.
    if INTERRUPTED.contains(&text.trim()) && line.prompt_source.is_null() {
        vec![TranscriptFact::Interrupted]
    } else if line.is_meta {
        vec![TranscriptFact::Prodded {
            by_stop_hook: text.starts_with(STOP_HOOK_SAYS),
        }]
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
mod tests;
