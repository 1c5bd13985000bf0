//! The program's transcript: one JSON line per fact, appended as it happens. It outlives the program, so it also
//! tells what happened while nobody listened to the hooks.
//!
//! The lines are not always in the order of time: a fresh session under load was seen to write an answer before the
//! prompt it answers. What belongs together is told by the lines' own times.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use domain::{SessionId, Timestamp};
use serde::Deserialize;
use serde_json::Value;

/// Most bytes taken in at once.
pub const READ_BYTES_MAX: usize = 1024 * 1024;
/// Longest line that is understood; a longer one (a large tool result) is skipped.
pub const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The program's words for a turn that was interrupted.
const INTERRUPTED: &str = "[Request interrupted by user";

/// A fact with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatedFact {
    /// When it happened, on the agent's clock; absent in a line without a time.
    pub at: Option<Timestamp>,
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
            let facts = self.take_in(&bytes);
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
                    facts.extend(fact_of(&self.partial));
                }
                self.partial.clear();
                self.skipping = false;
            }
        }
        facts
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

/// What one line says; nothing when it is of no interest, or no JSON of a known shape.
fn fact_of(line: &[u8]) -> Option<DatedFact> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let at = Timestamp::parse_rfc3339(&line.timestamp);
    let fact = (!line.is_sidechain).then(|| meaning_of(line)).flatten()?;
    Some(DatedFact { at, fact })
}

fn meaning_of(line: Line) -> Option<TranscriptFact> {
    match (line.kind.as_str(), line.subtype.as_str()) {
        ("assistant", _) => {
            let text = text_of(&line.message.content)?;
            Some(if line.is_api_error_message {
                TranscriptFact::ApiError {
                    status: line.api_error_status,
                    error: line.error.as_str().unwrap_or_default().to_owned(),
                    message: text,
                }
            } else {
                TranscriptFact::AssistantText {
                    text,
                    stop_reason: line.message.stop_reason,
                }
            })
        }
        ("user", _) => {
            let text = text_of(&line.message.content)?;
            if text.starts_with(INTERRUPTED) {
                Some(TranscriptFact::Interrupted)
            } else if line.is_meta {
                None
            } else {
                Some(TranscriptFact::UserPrompt { text })
            }
        }
        ("system", "turn_duration") => Some(TranscriptFact::TurnDuration {
            // Milliseconds; saturates on nonsense.
            ms: line.duration_ms.unwrap_or_default() as u64,
        }),
        _ => None,
    }
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
            .map(|fact| DatedFact { at: None, fact })
            .collect();
        facts[0].at = Timestamp::parse_rfc3339("2026-11-21T05:46:49.321Z");
        facts
    }

    fn undated() -> Vec<TranscriptFact> {
        vec![
            TranscriptFact::UserPrompt {
                text: "첫 줄\n둘째".into(),
            },
            TranscriptFact::AssistantText {
                text: "ok\n\n[SEMO:DONE]".into(),
                stop_reason: Some("end_turn".into()),
            },
            TranscriptFact::TurnDuration { ms: 280 },
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
            expected()[1..],
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
