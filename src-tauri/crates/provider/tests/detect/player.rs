//! Recordings, painted as the terminal paints them.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use provider::detect::{Detectors, Reading, ScreenMeaning};
use provider::recording::{Recorded, Recording};
use terminal::{Painter, Screen};

/// Output that is followed by this much silence has painted something that a person could see.
const PAUSE_MS: u64 = 30;

/// Every recording there is, by name.
fn recordings() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [
        here.join("../../../tests/recordings"),
        here.join("tests/recordings"),
    ];
    let mut files: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).expect("recordings"))
        .map(|entry| entry.expect("a recording").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
        .collect();
    files.sort();
    files
}

/// What a recording showed at its quiet moments, in milliseconds since the start.
fn screens(recording: &Recording) -> Vec<(u64, Screen)> {
    let mut painter = Painter::new(recording.header.size());
    let mut seen = Vec::new();
    let events = &recording.events;
    for (index, event) in events.iter().enumerate() {
        match &event.what {
            Recorded::Output(bytes) => painter.feed(bytes),
            Recorded::Resize(size) => painter.resize(*size),
            Recorded::Input(_) | Recorded::Reply(_) | Recorded::Remark(_) => {}
        }
        let is_output = |what: &Recorded| matches!(what, Recorded::Output(_));
        let next = events[index + 1..].iter().find(|event| is_output(&event.what));
        let quiet = next.is_none_or(|next| next.at_ms - event.at_ms >= PAUSE_MS);
        if is_output(&event.what) && quiet {
            seen.push((event.at_ms, painter.screen()));
        }
    }
    seen
}

/// A recording by its name, and how it was read, without repetitions: milliseconds since the start, reading.
pub struct Read {
    pub name: String,
    pub changes: Vec<(u64, Reading)>,
}

/// Every recording, read once for all tests.
pub fn all_read() -> &'static [Read] {
    static ALL: LazyLock<Vec<Read>> = LazyLock::new(|| recordings().iter().map(|path| read(path)).collect());
    &ALL
}

fn read(path: &Path) -> Read {
    let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).expect("a recording");
    let recording = Recording::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let program = recording.header.program().unwrap_or("claude");
    let detector = Detectors::bundled().for_program(program, None);
    let mut changes: Vec<(u64, Reading)> = Vec::new();
    for (at_ms, screen) in screens(&recording) {
        let reading = detector.read(&screen);
        let same = changes
            .last()
            .is_some_and(|(_, last)| shown(last) == shown(&reading));
        if !same {
            changes.push((at_ms, reading));
        }
    }
    Read { name, changes }
}

/// A reading in a line: meaning, rule, and what stands in the box.
pub fn shown(reading: &Reading) -> String {
    let text = match &reading.meaning {
        ScreenMeaning::Ready(input) | ScreenMeaning::Busy(input) if !input.empty => {
            let text: String = input.text.replace('\n', "⏎").chars().take(24).collect();
            format!(" [{text}]")
        }
        ScreenMeaning::Fault(words) => format!(" [{words}]"),
        ScreenMeaning::Ready(_)
        | ScreenMeaning::Busy(_)
        | ScreenMeaning::Unclear
        | ScreenMeaning::Dialog(_)
        | ScreenMeaning::NotSignedIn => String::new(),
    };
    format!("{} by {}{text}", reading.meaning.name(), reading.rule)
}
