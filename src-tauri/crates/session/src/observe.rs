//! From what is observed — hooks, transcript, status file, screen — to signs of a turn and states of the session.

use std::time::Duration;

use domain::session::{Ask, SessionEvent, SessionState};
use provider::claude::{
    self, Activity, Dialog, HookKind, ScreenMeaning, TranscriptReader, parse_hook, read_screen, read_status,
};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::actor::{Actor, Ending};
use crate::handle::what_to_do;

/// After an interrupt: how long the agent must look idle to count as stopped. Longer than its status file lags.
const INTERRUPTED_SETTLE: Duration = Duration::from_millis(400);
/// Without an interrupt: how long it must look idle before the transcript alone may tell the end.
const IDLE_SETTLE: Duration = Duration::from_secs(2);
/// How long it must look idle before a turn that nothing tells the end of is given up as unconfirmed.
const IDLE_UNCONFIRMED: Duration = Duration::from_secs(8);
/// Between two presses of Esc, and how many there may be.
const PRESS_EVERY: Duration = Duration::from_secs(2);
const PRESSES_MAX: u32 = 5;
/// How long an interrupt may take before the session is ended instead.
const INTERRUPT_WAIT_MAX: Duration = Duration::from_secs(20);
/// How long the terminal may take to accept one key.
const KEY_WAIT_MAX: Duration = Duration::from_secs(1);
/// Reads of the transcript in one look, so that a huge one does not hold up the loop.
const READS_MAX: u32 = 8;
/// Characters of a tool's input that a person is shown with an ask.
const ASK_CHARS_MAX: usize = 300;

impl Actor {
    /// Takes in one hook report.
    pub(crate) fn hook(&mut self, body: &[u8]) {
        let event = match parse_hook(body) {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "a hook report was refused");
                return;
            }
        };
        tracing::debug!(hook = event.head.hook_event_name, "hook");
        let path = std::path::Path::new(&event.head.transcript_path);
        if path.is_absolute() && path != self.transcript.path() {
            self.transcript = TranscriptReader::new(path.to_owned());
        }
        let from_subagent = event.head.agent_id.is_some();
        match &event.kind {
            HookKind::PromptSubmitted { prompt } => match &mut self.turn {
                Some(turn) if turn.is_prompt(prompt) => turn.hook(&event.kind),
                Some(_) | None => {
                    self.idle_since = None;
                    self.apply(&SessionEvent::TurnStarted { turn: None });
                }
            },
            HookKind::PermissionRequest { tool, input } => {
                self.ask(
                    Ask::Permission,
                    format!("May it use {tool}? {}", shown_input(input)),
                );
            }
            HookKind::ToolUse { name, input } if name == "AskUserQuestion" => {
                self.ask(Ask::Question, shown_input(input));
            }
            HookKind::ToolDone { .. } => {
                self.answered();
                if let Some(turn) = &mut self.turn {
                    turn.hook(&event.kind);
                }
            }
            HookKind::Stop { .. } | HookKind::StopFailure { .. } if !from_subagent => match &mut self.turn {
                Some(turn) if turn.signs.acknowledged || turn.acknowledged.borrow().is_some() => {
                    turn.hook(&event.kind)
                }
                Some(_) => {}
                None => self.apply(&SessionEvent::TurnEnded),
            },
            HookKind::ToolUse { .. }
            | HookKind::Stop { .. }
            | HookKind::StopFailure { .. }
            | HookKind::Notification { .. }
            | HookKind::SubagentStop
            | HookKind::SessionEnd { .. }
            | HookKind::Other => {}
        }
    }

    /// Looks at everything that does not report by itself.
    pub(crate) async fn look(&mut self) {
        self.read_transcript();
        let meaning = read_screen(&self.parts.terminal.screen());
        self.follow_screen(&meaning).await;
        let idle_for = self.idle_for(&meaning);
        let persons_turn = *self.parts.state.borrow() == SessionState::Working { turn: None };
        if self.turn.is_none() && persons_turn && idle_for >= Some(IDLE_SETTLE) {
            self.apply(&SessionEvent::TurnEnded);
        }
        if self.turn.as_ref().is_some_and(|turn| turn.signs.acknowledged) {
            self.follow_idleness(&meaning, idle_for);
            self.follow_time();
            self.follow_interrupt(&meaning).await;
        }
    }

    /// Leaves out what was written before a turn begins.
    pub(crate) fn skip_transcript(&mut self) {
        while self.transcript.read().is_ok_and(|facts| !facts.is_empty()) {}
    }

    fn read_transcript(&mut self) {
        let Some(turn) = &mut self.turn else { return };
        for _ in 0..READS_MAX {
            match self.transcript.read() {
                Ok(facts) if facts.is_empty() => return,
                Ok(facts) => facts.into_iter().for_each(|fact| turn.fact(fact)),
                Err(error) => {
                    tracing::warn!(%error, "the transcript cannot be read");
                    return;
                }
            }
        }
    }

    async fn follow_screen(&mut self, meaning: &ScreenMeaning) {
        let state = self.parts.state.borrow().clone();
        if !self.rested && matches!(meaning, ScreenMeaning::Ready(_)) {
            self.rested = !self.says(Activity::Busy);
        }
        match meaning {
            ScreenMeaning::Unclear => {}
            ScreenMeaning::Ready(_) => match state {
                SessionState::Starting | SessionState::AwaitingPerson { turn: None, .. } => {
                    self.was_ready = true;
                    self.apply(&SessionEvent::Ready);
                }
                SessionState::Idle
                | SessionState::Working { .. }
                | SessionState::AwaitingPerson { turn: Some(_), .. }
                | SessionState::Stopping
                | SessionState::Exited { .. } => {}
            },
            ScreenMeaning::Busy(_) => {
                // The last frames of our own turn come after its end was told: they are no turn of a person's.
                let at_rest = self.turn.is_none() && self.rested && state == SessionState::Idle;
                if at_rest && self.says(Activity::Busy) {
                    self.apply(&SessionEvent::TurnStarted { turn: None });
                }
                self.answered();
            }
            ScreenMeaning::Dialog(Dialog::Limit) if self.turn.is_none() => {
                // Opens by itself after a turn that hit a limit, and would eat the next prompt. Esc closes it.
                self.press(claude::INTERRUPT).await;
            }
            ScreenMeaning::Dialog(dialog) => {
                let ask = match (dialog, &state) {
                    (Dialog::Permission, _) => Ask::Permission,
                    // A hook has said more precisely what it is.
                    (_, SessionState::AwaitingPerson { ask, .. }) => *ask,
                    (_, _) => Ask::Dialog,
                };
                self.ask(ask, what_to_do(ask).to_owned());
            }
            ScreenMeaning::NotSignedIn => self.ask(Ask::Login, what_to_do(Ask::Login).to_owned()),
            // The program ends by itself after it; its words are told then.
            ScreenMeaning::Fault(words) => tracing::warn!(words, "the agent program reports a fault"),
        }
    }

    /// For how long the agent has looked idle without a break; nothing when it does not.
    fn idle_for(&mut self, meaning: &ScreenMeaning) -> Option<Duration> {
        let ready = matches!(meaning, ScreenMeaning::Ready(_));
        if ready && !self.says(Activity::Busy) && !self.says(Activity::Waiting) {
            Some(self.idle_since.get_or_insert_with(Instant::now).elapsed())
        } else {
            self.idle_since = None;
            None
        }
    }

    fn follow_idleness(&mut self, meaning: &ScreenMeaning, idle_for: Option<Duration>) {
        let (ScreenMeaning::Ready(input), Some(idle_for)) = (meaning, idle_for) else {
            return;
        };
        let interrupted = self
            .interrupt
            .as_ref()
            .is_some_and(|interrupt| interrupt.presses > 0);
        let Some(turn) = &mut self.turn else { return };
        if interrupted && idle_for >= INTERRUPTED_SETTLE {
            turn.signs.idle_again = true;
        }
        if idle_for >= IDLE_SETTLE && !turn.stop_from_transcript() && !input.empty {
            // The program puts a prompt back into the box when it was interrupted before any answer; nothing else
            // tells of that.
            turn.signs.interrupted |= claude::echo_shown(input, &turn.queued.guarded);
        }
        if idle_for >= IDLE_UNCONFIRMED {
            turn.signs.idle_again = true;
        }
    }

    fn follow_time(&mut self) {
        let Some(turn) = &mut self.turn else { return };
        if !turn.signs.timed_out && turn.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            tracing::warn!(turn = %turn.id(), "the turn reached its time limit");
            turn.signs.timed_out = true;
            self.interrupt_turn();
        }
    }

    async fn follow_interrupt(&mut self, meaning: &ScreenMeaning) {
        let Some(interrupt) = &mut self.interrupt else {
            return;
        };
        let now = Instant::now();
        if now >= interrupt.started + INTERRUPT_WAIT_MAX {
            if self.ending == Ending::No {
                tracing::warn!("the turn could not be interrupted; the session is ended");
                self.ending = Ending::Wanted;
            }
            return;
        }
        // Esc on a free prompt would open a menu of its own.
        let stoppable = matches!(meaning, ScreenMeaning::Busy(_) | ScreenMeaning::Dialog(_));
        if stoppable && now >= interrupt.next_press && interrupt.presses < PRESSES_MAX {
            interrupt.presses += 1;
            interrupt.next_press = now + PRESS_EVERY;
            self.press(claude::INTERRUPT).await;
        }
    }

    fn answered(&mut self) {
        let waiting = matches!(
            &*self.parts.state.borrow(),
            SessionState::AwaitingPerson { turn: Some(_), .. }
        );
        if waiting {
            self.apply(&SessionEvent::Answered);
        }
    }

    fn says(&self, activity: Activity) -> bool {
        read_status(&self.config_dir, self.parts.terminal.pid())
            .is_some_and(|status| status.activity == activity)
    }

    async fn press(&mut self, key: &'static [u8]) {
        match timeout(KEY_WAIT_MAX, self.parts.terminal.write(key)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a key could not be pressed"),
            Err(_) => tracing::warn!("the agent program does not take a key"),
        }
    }
}

/// A tool's input for a person: its command or file, or the beginning of all of it.
fn shown_input(input: &Value) -> String {
    let text = ["command", "file_path", "url", "pattern"]
        .iter()
        .find_map(|field| input[*field].as_str().map(str::to_owned))
        .or_else(|| input["questions"][0]["question"].as_str().map(str::to_owned))
        .unwrap_or_else(|| input.to_string());
    text.chars()
        .filter(|c| !c.is_control())
        .take(ASK_CHARS_MAX)
        .collect()
}
