//! Recorded terminals: what a program wrote, what was typed, and when. One JSON object per line; the first one is the
//! header (`argv`, `cwd`, `width`, `height`), each other an event: `t` seconds since the start, `k` its kind (`o`
//! output, `i` input, `r` a resize `COLSxROWS` or a terminal's reply, `m` a remark), `b` its bytes in base64.
//!
//! Total on any text and bounded. `session::replay` plays recordings; tests and `semo explain` read them.

use base64::Engine;
use serde::Deserialize;
use terminal::Size;

/// Largest recording, in bytes of its text.
pub const RECORDING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most events of a recording.
pub const EVENTS_MAX: usize = 1_000_000;
/// Longest line, in bytes.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest recording, in seconds: a month.
const SECONDS_MAX: f64 = 31.0 * 24.0 * 3600.0;

/// A recorded terminal.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// What was started, and how large its terminal was.
    pub header: RecordingHeader,
    /// What happened, in order.
    pub events: Vec<RecordedEvent>,
    /// The last line, from 1, when it is cut off in its middle: whoever recorded was ended. It is no event.
    pub truncated_at_line: Option<usize>,
}

/// The first line of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RecordingHeader {
    /// The program and its arguments.
    #[serde(default)]
    pub argv: Vec<String>,
    /// The folder it ran in.
    #[serde(default)]
    pub cwd: String,
    width: u16,
    height: u16,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    /// Milliseconds since the start; never before the event above it.
    pub at_ms: u64,
    /// What happened.
    pub what: Recorded,
}

/// What happened at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// The program wrote.
    Output(Vec<u8>),
    /// Somebody typed.
    Input(Vec<u8>),
    /// The terminal was resized.
    Resize(Size),
    /// The terminal replied to a question of the program's.
    Reply(Vec<u8>),
    /// A remark of whoever recorded it; it changes nothing.
    Remark(String),
}

/// Why a text is no recording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}: {why}; a recording has one JSON object per line: a header with width and height, then events with t, k and b"
)]
pub struct RecordingError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

#[derive(Deserialize)]
struct EventLine {
    t: f64,
    k: String,
    b: String,
}

impl RecordingHeader {
    /// Size of the terminal at the start.
    pub fn size(&self) -> Size {
        let (cols, rows) = (self.width, self.height);
        Size { cols, rows }.clamped()
    }

    /// What is wrong with a size that no terminal can have.
    fn wrong_size(&self) -> Option<String> {
        let size = self.size();
        [
            ("width", self.width, size.cols),
            ("height", self.height, size.rows),
        ]
        .into_iter()
        .find(|(_, said, possible)| said != possible)
        .map(|(name, said, possible)| {
            let bound = if said > possible { "at most" } else { "at least" };
            format!("the header's {name} is {said}; it is {bound} {possible}")
        })
    }

    /// The name of the program that was recorded, as manifests and readers know it, when it is a known one.
    pub fn program(&self) -> Option<&'static str> {
        ["claude", "codex", "gemini", "opencode", "scripted"]
            .into_iter()
            .find(|name| {
                self.argv.iter().take(2).any(|word| {
                    let file = word.rsplit(['/', '\\']).next().unwrap_or_default();
                    file.split('.').next() == Some(name)
                })
            })
    }
}

impl Recording {
    /// Reads a recording.
    pub fn parse(text: &str) -> Result<Recording, RecordingError> {
        let fault = |line: usize, why: String| Err(RecordingError { line, why });
        if text.len() > RECORDING_BYTES_MAX {
            return fault(
                1,
                format!("the recording is longer than {RECORDING_BYTES_MAX} bytes"),
            );
        }
        if text.trim().is_empty() {
            return fault(1, "the file is empty".to_owned());
        }
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let (_, first) = lines.next().unwrap_or((1, ""));
        let header: RecordingHeader = match serde_json::from_str(first) {
            Ok(header) => header,
            Err(error) => return fault(1, format!("this is no header: {}", without_place(&error))),
        };
        if let Some(why) = header.wrong_size() {
            return fault(1, why);
        }
        let last = text.trim_end().lines().count();
        let mut truncated_at_line = None;
        let mut events: Vec<RecordedEvent> = Vec::new();
        for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            if line.len() > LINE_BYTES_MAX {
                return fault(number, format!("it is longer than {LINE_BYTES_MAX} bytes"));
            }
            if events.len() == EVENTS_MAX {
                return fault(number, format!("there are more than {EVENTS_MAX} events"));
            }
            let not_before = events.last().map_or(0, |event| event.at_ms);
            match event(line, not_before) {
                Ok(event) => events.push(event),
                Err(EventFault::Cut) if number == last => truncated_at_line = Some(number),
                Err(why) => return fault(number, why.to_string()),
            }
        }
        Ok(Recording {
            header,
            events,
            truncated_at_line,
        })
    }
}

/// Why a line is no event.
#[derive(Debug, thiserror::Error)]
enum EventFault {
    #[error("this is no event: it ends in its middle")]
    Cut,
    #[error("{0}")]
    Wrong(String),
}

impl From<String> for EventFault {
    fn from(why: String) -> EventFault {
        EventFault::Wrong(why)
    }
}

fn event(line: &str, not_before: u64) -> Result<RecordedEvent, EventFault> {
    let EventLine { t, k, b } = serde_json::from_str(line).map_err(|error| match error.is_eof() {
        true => EventFault::Cut,
        false => format!("this is no event: {}", without_place(&error)).into(),
    })?;
    if !(0.0..=SECONDS_MAX).contains(&t) {
        return Err(format!("`t` is {t}, which is no number of seconds since the start").into());
    }
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(&b)
        .map_err(|error| format!("`b` is no base64: {error}"))?;
    let what = match k.as_str() {
        "o" => Recorded::Output(bytes),
        "i" => Recorded::Input(bytes),
        "r" => resize(&bytes).map_or(Recorded::Reply(bytes), Recorded::Resize),
        "m" => Recorded::Remark(String::from_utf8_lossy(&bytes).into_owned()),
        other => return Err(format!("`k` is {other:?}; it can be o, i, r or m").into()),
    };
    // Reads and writes are noted by different hands: some are a few milliseconds out of order.
    let at_ms = ((t * 1000.0) as u64).max(not_before);
    Ok(RecordedEvent { at_ms, what })
}

/// What is wrong, without the place within its own line, which would be read as a line of the file.
fn without_place(error: &serde_json::Error) -> String {
    let words = error.to_string();
    words.split(" at line ").next().unwrap_or_default().to_owned()
}

fn resize(bytes: &[u8]) -> Option<Size> {
    let (cols, rows) = std::str::from_utf8(bytes).ok()?.split_once('x')?;
    let size = Size {
        cols: cols.parse().ok()?,
        rows: rows.parse().ok()?,
    };
    Some(size.clamped())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        r#"{"argv": ["node", "/x/gemini.js"], "cwd": "/x", "width": 80, "height": 24, "format": "f"}"#;

    fn parsed(lines: &[&str]) -> Result<Recording, RecordingError> {
        Recording::parse(&lines.join("\n"))
    }

    #[test]
    fn every_kind_of_event_is_read_in_order() {
        let recording = parsed(&[
            HEADER,
            r#"{"t": 0.5, "k": "o", "b": "aGk="}"#,
            r#"{"t": 0.4, "k": "i", "b": "DQ=="}"#,
            "",
            r#"{"t": 1, "k": "r", "b": "MTIweDQw"}"#,
            r#"{"t": 1, "k": "r", "b": "G1sxOzFS"}"#,
            r#"{"t": 2, "k": "m", "b": "cmVhZHk="}"#,
        ])
        .unwrap();
        assert_eq!(recording.header.size(), Size { cols: 80, rows: 24 });
        assert_eq!(recording.header.program(), Some("gemini"));
        let expected = [
            (500, Recorded::Output(b"hi".to_vec())),
            (500, Recorded::Input(b"\r".to_vec())),
            (1000, Recorded::Resize(Size { cols: 120, rows: 40 })),
            (1000, Recorded::Reply(b"\x1b[1;1R".to_vec())),
            (2000, Recorded::Remark("ready".into())),
        ];
        let found: Vec<_> = recording
            .events
            .into_iter()
            .map(|event| (event.at_ms, event.what))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_bad_line_is_named() {
        let check = |lines: &[&str], line: usize, part: &str| {
            let error = parsed(lines).unwrap_err();
            assert_eq!(error.line, line, "{error}");
            assert!(error.to_string().contains(part), "{error}");
        };
        check(&[""], 1, "the file is empty");
        check(&["", " "], 1, "the file is empty");
        check(&["x"], 1, "no header");
        check(&[r#"{"width": 1}"#], 1, "no header");
        check(&[HEADER, "{", r#"{"t": 1, "k": "o", "b": ""}"#], 2, "no event");
        check(&[HEADER, "nonsense"], 2, "no event");
        check(
            &[r#"{"width": 0, "height": 24}"#],
            1,
            "the header's width is 0; it is at least 2",
        );
        check(
            &[r#"{"width": 80, "height": 60000}"#],
            1,
            "the header's height is 60000; it is at most 1000",
        );
        check(&[HEADER, "", r#"{"t": 1, "k": "o", "b": "?"}"#], 3, "no base64");
        check(
            &[HEADER, r#"{"t": -1, "k": "o", "b": ""}"#],
            2,
            "no number of seconds",
        );
        check(
            &[HEADER, r#"{"t": 1e300, "k": "o", "b": ""}"#],
            2,
            "no number of seconds",
        );
        check(
            &[HEADER, r#"{"t": 1, "k": "z", "b": ""}"#],
            2,
            "it can be o, i, r or m",
        );
    }

    #[test]
    fn a_recording_that_was_cut_off_is_read_up_to_there() {
        let event = r#"{"t": 0.5, "k": "o", "b": "aGk="}"#;
        let whole = format!("{HEADER}\n{event}\n{event}");
        assert_eq!(Recording::parse(&whole).unwrap().truncated_at_line, None);
        for kept in 1..event.len() {
            let cut = &whole[..whole.len() - kept];
            let recording = Recording::parse(cut).unwrap();
            assert_eq!(recording.truncated_at_line, Some(3), "{cut}");
            assert_eq!(recording.events.len(), 1);
        }
    }

    #[test]
    fn the_program_is_known_by_its_file() {
        let program = |argv: &str| {
            let header = format!(r#"{{"argv": {argv}, "width": 80, "height": 24}}"#);
            parsed(&[&header]).unwrap().header.program()
        };
        assert_eq!(program(r#"["claude", "--resume", "codex"]"#), Some("claude"));
        assert_eq!(program(r#"["/usr/bin/opencode.exe"]"#), Some("opencode"));
        assert_eq!(program(r#"["bash"]"#), None);
        assert_eq!(program("[]"), None);
    }
}
