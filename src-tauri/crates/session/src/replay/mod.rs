//! A recorded terminal, played through the same emulator, detectors and follower as a live session, on the recording's
//! own clock: for tests and for `semo explain --recording`.
//!
//! Pure: no I/O and no clock. It decides nothing: it looks when the actor would look, hands on what there is to see,
//! and lets time go on after the last event until everything has settled. A recording has no hooks, no transcript and
//! no status file, so the screen is the only witness.

use std::sync::{Arc, LazyLock};

use domain::marker::Marker;
use domain::turn::Retry;
use provider::Version;
use provider::claude::retry_on;
use provider::detect::{Detector, Detectors, Reading, ScreenMeaning};
use provider::recording::{Recorded, Recording};
use provider::screen_turn::{ScreenTurn, read_turn};
use regex::Regex;
use serde::Serialize;
use terminal::{Painter, Size};

use crate::follow::{Explanation, Follower, Observation, Witnesses};

/// A change of the screen is looked at this much later, in milliseconds, as in production.
const LOOK_AFTER_CHANGE_MS: u64 = 50;
/// Without a change, a screen is looked at this often while something may still happen.
const LOOK_EVERY_MS: u64 = 100;
/// How long time goes on after the last event: longer than everything that waits for a screen at rest.
const SETTLE_MS: u64 = 12_000;
/// Program that is assumed where the recording does not name one that is known.
const PROGRAM_ASSUMED: &str = "claude";
/// How often the screen is searched for the program's version.
const VERSION_LOOKS_MAX: usize = 400;

/// Names in the programs' banners.
static BANNER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?:Claude Code|OpenAI Codex|Gemini CLI)\s+\(?v?([0-9]+\.[0-9]+\.[0-9]+)").ok()
});
/// opencode's version stands alone in a corner.
static CORNER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\s([0-9]+\.[0-9]+\.[0-9]+)$").ok());

/// What came of a recording.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replay {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Columns at the start.
    pub cols: u16,
    /// Rows at the start.
    pub rows: u16,
    /// How long it is, in milliseconds.
    pub length_ms: u64,
    /// The recording's last line, from 1, when it is cut off in its middle; it was played up to there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated_at_line: Option<usize>,
    /// What its screen meant at the end, in one or two words.
    pub last_meaning: String,
    /// Turns, states and readings, as for a live session.
    #[serde(flatten)]
    pub explanation: Explanation,
}

/// Plays a recording to its end and a little beyond.
pub fn replay(recording: &Recording, detectors: &Detectors) -> Replay {
    let mut player = Player::new(recording, detectors);
    for event in &recording.events {
        player.play_until(event.at_ms);
        player.play(&event.what);
    }
    player.settle();
    let size = recording.header.size();
    let mut explanation = player.follower.explain();
    explanation.program = player.program_words();
    explanation.detector = player.detector.name().to_owned();
    Replay {
        argv: recording.header.argv.clone(),
        cols: size.cols,
        rows: size.rows,
        length_ms: recording.events.last().map_or(0, |event| event.at_ms),
        truncated_at_line: recording.truncated_at_line,
        last_meaning: player.last_meaning().to_owned(),
        explanation,
    }
}

struct Player {
    program: &'static str,
    version: Option<Version>,
    detector: Arc<Detector>,
    follower: Follower,
    painter: Painter,
    size: Size,
    now_ms: u64,
    /// When the screen is looked at next; nothing while nothing can happen by itself.
    look_at_ms: Option<u64>,
    /// It was painted on since the last look.
    changed: bool,
    reading: Reading,
    shown: Option<ScreenTurn>,
    retry: Option<Retry>,
    /// The program has taken the terminal for itself.
    was_up: bool,
}

impl Player {
    fn new(recording: &Recording, detectors: &Detectors) -> Player {
        let header = &recording.header;
        let program = header.program().unwrap_or(PROGRAM_ASSUMED);
        let version = version_of(recording);
        let detector = detectors.for_program(program, version.as_ref());
        let painter = Painter::new(header.size());
        let mut follower = Follower::new(Witnesses::SCREEN);
        follower.expect_of_typed(Marker::Plain);
        Player {
            program,
            version,
            reading: detector.read(&painter.screen()),
            detector,
            follower,
            painter,
            size: header.size(),
            now_ms: 0,
            look_at_ms: None,
            changed: false,
            shown: None,
            retry: None,
            was_up: false,
        }
    }

    /// Lets time go on, with all looks that fall into it.
    fn play_until(&mut self, at_ms: u64) {
        while let Some(look_at_ms) = self.look_at_ms.filter(|look_at_ms| *look_at_ms <= at_ms) {
            self.now_ms = look_at_ms;
            self.look();
        }
        self.now_ms = at_ms;
    }

    fn play(&mut self, what: &Recorded) {
        match what {
            Recorded::Output(bytes) => {
                self.painter.feed(bytes);
                self.was_up |= self.painter.wants_pastes();
                self.touched();
            }
            Recorded::Resize(size) => {
                self.size = *size;
                self.painter.resize(*size);
                self.touched();
            }
            Recorded::Input(bytes) => {
                let at_ms = self.now_ms;
                self.follower.observe(at_ms, Observation::Keys { bytes });
                self.judge();
                self.look_at_ms.get_or_insert(at_ms + LOOK_EVERY_MS);
            }
            Recorded::Reply(_) | Recorded::Remark(_) => {}
        }
    }

    fn touched(&mut self) {
        self.changed = true;
        let soon = self.now_ms + LOOK_AFTER_CHANGE_MS;
        self.look_at_ms = Some(self.look_at_ms.map_or(soon, |at_ms| at_ms.min(soon)));
    }

    fn look(&mut self) {
        if self.changed {
            self.changed = false;
            let screen = self.painter.screen();
            self.reading = self.detector.read(&screen);
            // The rows that tell of a retry are known of one program only.
            self.retry = (self.program == PROGRAM_ASSUMED && self.is_busy())
                .then(|| retry_on(&screen.rows))
                .flatten();
            self.shown = read_turn(self.program, &self.painter.rows(), self.size.cols);
        }
        let seen = Observation::Screen {
            reading: &self.reading,
            turn: self.shown.as_ref(),
        };
        self.follower.observe(self.now_ms, seen);
        let retry = Observation::Retry(self.retry.clone());
        self.follower.observe(self.now_ms, retry);
        self.judge();
        let state = self.follower.state();
        let goes_on = !state.is_over() && (!state.accepts_turn() || self.is_busy());
        self.look_at_ms = goes_on.then_some(self.now_ms + LOOK_EVERY_MS);
    }

    fn is_busy(&self) -> bool {
        matches!(self.reading.meaning, ScreenMeaning::Busy(_))
    }

    fn judge(&mut self) {
        while self.follower.verdict(self.now_ms).is_some() {}
    }

    /// After the last event: the program may have left its terminal, which only the end of a recording proves; else
    /// nothing more is printed, and whatever waits for a screen at rest gets its time.
    fn settle(&mut self) {
        if self.was_up && !self.painter.wants_pastes() {
            self.look();
            self.follower.observe(self.now_ms, Observation::Exit(None));
            self.judge();
            return;
        }
        let until_ms = self.now_ms + SETTLE_MS;
        self.look_at_ms.get_or_insert(self.now_ms);
        self.play_until(until_ms);
    }

    /// What stands on a terminal that the program has left is no prompt of its any more.
    fn last_meaning(&self) -> &'static str {
        match self.reading.meaning {
            ScreenMeaning::Fault(_) => self.reading.meaning.name(),
            _ if self.follower.state().is_over() => "exited",
            _ => self.reading.meaning.name(),
        }
    }

    fn program_words(&self) -> String {
        match self.version {
            Some(version) => format!("{} {version}", self.program),
            None => self.program.to_owned(),
        }
    }
}

/// The version that the program's own banner names.
fn version_of(recording: &Recording) -> Option<Version> {
    let mut painter = Painter::new(recording.header.size());
    let pattern = match recording.header.program() {
        Some("opencode") => CORNER.as_ref()?,
        _ => BANNER.as_ref()?,
    };
    let mut looks = 0;
    for (index, event) in recording.events.iter().enumerate() {
        let Recorded::Output(bytes) = &event.what else {
            continue;
        };
        painter.feed(bytes);
        // What was written in one moment is read as a whole.
        let next = recording.events.get(index + 1);
        if next.is_some_and(|next| next.at_ms == event.at_ms) {
            continue;
        }
        looks += 1;
        let found = painter.screen().rows.iter().find_map(|row| {
            let found = pattern.captures(row)?;
            Version::parse(found.get(1)?.as_str())
        });
        if found.is_some() || looks == VERSION_LOOKS_MAX {
            return found;
        }
    }
    None
}
