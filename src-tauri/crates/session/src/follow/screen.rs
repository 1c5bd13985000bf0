//! What the screen says: readiness, dialogs, and, where nothing else can speak, which turn runs.

use domain::session::{Ask, SessionEvent, SessionState};
use provider::claude::Activity;
use provider::detect::{Dialog, InputBox, Reading, ScreenMeaning};
use provider::screen_turn::ScreenTurn;

use super::Follower;
use super::judge::is_rest;

/// A screen that has been busy for this long works on a turn, also when no echo of a prompt is to be seen.
const BUSY_IS_TURN_MS: u64 = 300;

/// How long the block of a prompt may take to show after Enter, where no turn runs.
const ENTER_SHOWS_MS: u64 = 5_000;

/// What is kept of the screen and its neighbours between two looks.
#[derive(Debug)]
pub(super) struct ScreenView {
    /// What it meant last.
    meaning: ScreenMeaning,
    /// What the status file said last.
    pub(super) activity: Option<Activity>,
    /// Since when the agent has looked idle, without a break.
    pub(super) idle_since: Option<u64>,
    /// The agent has been seen at rest since the last turn ended: from then on, busy means a person's turn.
    pub(super) rested: bool,
    /// The newest block of a turn that is over: its prompt, and how many prompts were in reach.
    left: Option<(Option<String>, usize, bool)>,
    /// How often a person has pressed Enter, less the turns that came of it.
    entered: usize,
    /// When Enter was pressed last.
    entered_at: Option<u64>,
    /// Since when it has been busy without a break.
    busy_since: Option<u64>,
}

impl Default for ScreenView {
    fn default() -> ScreenView {
        ScreenView {
            meaning: ScreenMeaning::Unclear,
            activity: None,
            idle_since: None,
            rested: true,
            left: None,
            entered: 0,
            entered_at: None,
            busy_since: None,
        }
    }
}

impl ScreenView {
    pub(super) fn keys(&mut self, at_ms: u64, bytes: &[u8]) {
        let enters = bytes.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count();
        if enters > 0 {
            self.entered += enters;
            self.entered_at = Some(at_ms);
        }
    }

    /// A turn is over: its block is no new one.
    pub(super) fn leave(&mut self, shown: &ScreenTurn) {
        self.left = Some((shown.prompt.clone(), shown.echoes, shown.ended));
    }

    /// Whether a block is another than the one that was left.
    fn is_new(&self, shown: &ScreenTurn) -> bool {
        match &self.left {
            None => true,
            Some((prompt, echoes, ended)) => {
                let same = match (prompt, &shown.prompt) {
                    (Some(was), Some(is)) => is_same_prompt(was, is),
                    (None, None) => true,
                    _ => false,
                };
                !same || shown.echoes > *echoes || *ended && !shown.ended
            }
        }
    }

    pub(super) fn input(&self) -> Option<&InputBox> {
        match &self.meaning {
            ScreenMeaning::Ready(input) => Some(input),
            _ => None,
        }
    }

    /// Whether the program itself says that nothing runs, not even in the background.
    pub(super) fn is_quiet(&self) -> bool {
        self.activity == Some(Activity::Idle)
    }

    /// Whether it was at work in the last look, and its status file does not say otherwise.
    pub(super) fn is_busy(&self) -> bool {
        let at_rest = matches!(self.activity, Some(Activity::Idle | Activity::Background));
        matches!(self.meaning, ScreenMeaning::Busy(_)) && !at_rest
    }

    /// What is in the box, also while the agent works.
    pub(super) fn in_box(&self) -> Option<&str> {
        match &self.meaning {
            ScreenMeaning::Ready(input) | ScreenMeaning::Busy(input) if !input.empty => Some(&input.text),
            _ => None,
        }
    }

    fn says_busy(&self) -> bool {
        self.activity == Some(Activity::Busy)
    }
}

impl Follower {
    pub(super) fn saw_screen(&mut self, at_ms: u64, reading: &Reading, shown: Option<&ScreenTurn>) {
        self.story.saw(at_ms, reading);
        self.screen.meaning = reading.meaning.clone();
        let waits = self.screen.says_busy() || self.screen.activity == Some(Activity::Waiting);
        let limit = matches!(reading.meaning, ScreenMeaning::Dialog(Dialog::Limit));
        if is_rest(&reading.meaning) && (!waits || limit) {
            self.screen.idle_since.get_or_insert(at_ms);
        } else {
            self.screen.idle_since = None;
        }
        if matches!(reading.meaning, ScreenMeaning::Ready(_)) && !self.screen.says_busy() {
            self.screen.rested = true;
        }
        match &reading.meaning {
            ScreenMeaning::Busy(_) => drop(self.screen.busy_since.get_or_insert(at_ms)),
            _ => self.screen.busy_since = None,
        }
        let other = self.screen.in_box().is_some_and(|text| {
            let untaken = self.running().filter(|turn| turn.is_ours() && !turn.is_taken());
            untaken.is_some_and(|turn| !turn.is_in_prompt(text))
        });
        if let Some(turn) = self.running_mut().filter(|_| other) {
            turn.leftover = true;
        }
        self.follow_meaning(at_ms, reading);
        if let Some(shown) = shown {
            self.follow_shown(at_ms, shown);
        }
    }

    fn follow_meaning(&mut self, at_ms: u64, reading: &Reading) {
        match &reading.meaning {
            ScreenMeaning::Unclear => {}
            ScreenMeaning::Ready(_) => {
                self.dialog_is_gone(at_ms, false);
                if matches!(
                    self.state,
                    SessionState::Starting | SessionState::AwaitingPerson { turn: None, .. }
                ) && self.running().is_none()
                {
                    self.close_asks("nothing is asked any more");
                    self.apply(&SessionEvent::Ready);
                }
            }
            ScreenMeaning::Busy(_) => {
                self.dialog_is_gone(at_ms, true);
                self.seen_at_work(at_ms);
                if self.screen.says_busy() || !self.witnesses.status {
                    self.joins_at_work(at_ms);
                }
                // The last frames of our own turn come after its end was told: they are no turn of a person's.
                let at_rest = self.turn.is_none() && self.screen.rested && self.state == SessionState::Idle;
                // A slash command is busy for a moment too.
                let lasts = self
                    .screen
                    .busy_since
                    .is_some_and(|since| at_ms >= since + BUSY_IS_TURN_MS);
                if at_rest && (self.screen.says_busy() || !self.witnesses.status && lasts) {
                    self.begin_typed(at_ms, "", "screen", None);
                }
            }
            // Opens by itself after a turn that hit a limit; the owner closes it.
            ScreenMeaning::Dialog(Dialog::Limit) if self.running().is_none() => {}
            ScreenMeaning::Dialog(dialog) => {
                let ask = match dialog {
                    Dialog::Permission => Ask::Permission,
                    Dialog::Question => Ask::Question,
                    Dialog::Trust | Dialog::ApiKey | Dialog::Bypass | Dialog::Limit | Dialog::Other => {
                        Ask::Dialog
                    }
                };
                self.dialog_shown(at_ms, ask, &reading.matched);
            }
            ScreenMeaning::NotSignedIn => self.dialog_shown(at_ms, Ask::Login, &reading.matched),
            // The program ends by itself after it; its words are told then.
            ScreenMeaning::Fault(words) => tracing::warn!(words, "the agent program reports a fault"),
        }
    }

    /// Which turn the newest block on the screen belongs to.
    fn follow_shown(&mut self, at_ms: u64, shown: &ScreenTurn) {
        let screen_only = !self.witnesses.can_tell_an_end();
        let is_new = self.screen.is_new(shown);
        let entered = self.screen.entered > 0;
        let just_entered = self
            .screen
            .entered_at
            .is_some_and(|at| at_ms < at.saturating_add(ENTER_SHOWS_MS));
        let Some(turn) = self.running_mut() else {
            if screen_only
                && is_new
                && entered
                && just_entered
                && self.state == SessionState::Idle
                && self.turn.is_none()
            {
                let prompt = shown.prompt.clone().unwrap_or_default();
                self.begin_typed(at_ms, &prompt, "screen", None);
                self.bind(shown);
            }
            return;
        };
        match &turn.shown {
            Some(before) if screen_only && is_next(before, shown, entered) => {
                // The next turn's block shows: ours stands above it, or was seen before.
                if let Some(previous) = shown.previous.as_deref()
                    && previous.prompt == before.prompt
                {
                    turn.shown = Some(previous.clone());
                }
                let prompt = shown.prompt.clone().unwrap_or_default();
                self.begin_typed(at_ms, &prompt, "screen", None);
                self.bind(shown);
            }
            Some(_) => turn.shown = Some(shown.clone()),
            None if is_new => self.bind(shown),
            None => {}
        }
    }

    fn bind(&mut self, shown: &ScreenTurn) {
        self.screen.entered = self.screen.entered.saturating_sub(1);
        let Some(turn) = self.running_mut() else { return };
        if turn.expected.prompt.is_empty() {
            turn.expected.prompt = shown.prompt.clone().unwrap_or_default();
        }
        turn.shown = Some(shown.clone());
    }
}

/// Whether `now` is a later block than `before`, and not the same one further on or painted anew: equal prompts are
/// told apart by their number, and only when Enter was pressed.
fn is_next(before: &ScreenTurn, now: &ScreenTurn, entered: bool) -> bool {
    let (Some(was), Some(is)) = (&before.prompt, &now.prompt) else {
        return false;
    };
    entered && (!is_same_prompt(was, is) || now.echoes > before.echoes)
}

/// Wrapping differs with the width, and a row above may show only how a prompt begins.
fn is_same_prompt(one: &str, other: &str) -> bool {
    let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let (one, other) = (bare(one), bare(other));
    one.starts_with(&other) || other.starts_with(&one)
}
