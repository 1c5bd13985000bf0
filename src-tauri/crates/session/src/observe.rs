//! Handing on what is observed — hooks, transcript, status file, screen — and the keys that follow from it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use provider::claude::{
    self, HookKind, StatusFile, TranscriptReader, read_status, retry_on, transcript_path,
};
use provider::detect::{Dialog, ScreenMeaning};
use provider::screen_turn::read_turn;
use terminal::TerminalError;
use tokio::time::{Instant, timeout};

use crate::actor::Actor;
use crate::follow::{Explanation, Observation};
use crate::handle::{HookIn, StartMode};

/// Between two presses of Esc, and how many there may be.
const PRESS_EVERY: Duration = Duration::from_secs(2);
const PRESSES_MAX: u32 = 5;
/// How long an interrupt may take before the session is ended instead.
const INTERRUPT_WAIT_MAX: Duration = Duration::from_secs(20);
/// How long the terminal may take to accept one key.
const KEY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Reads of the transcript in one look, so that a huge one does not hold up the loop.
const READS_MAX: u32 = 8;
/// Transcripts of left conversations that are remembered.
const LEFT_MAX: usize = 16;
/// Name of the agent program in explanations and for its screen.
const PROGRAM: &str = "claude";

/// Why a key was not pressed, as far as that is known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotPressed {
    #[error("the agent program did not take the key within {} s, and it was taken back, if there was time for that", KEY_WAIT_MAX.as_secs())]
    GivenUp,
    #[error(transparent)]
    Failed(TerminalError),
}

impl Actor {
    /// Takes in one hook report.
    pub(crate) fn hook(&mut self, hook: HookIn) {
        let HookIn { event, reply, room } = hook;
        // It does not wait any more.
        drop(room);
        tracing::debug!(hook = event.head.hook_event_name, "hook");
        self.follow_transcript(Path::new(&event.head.transcript_path), &event.head.session_id);
        self.observe(Observation::Hook(&event));
        if let (HookKind::PermissionRequest { tool, input }, Some(reply)) = (&event.kind, reply) {
            self.hold(tool, input, reply);
        }
    }

    /// The program writes into another transcript now: its conversation was left with `/clear`.
    fn follow_transcript(&mut self, path: &Path, conversation: &str) {
        let left = self.left_transcripts.iter().any(|left| left == path);
        if !path.is_absolute() || path == self.transcript.path() || left {
            return;
        }
        tracing::info!(path = %path.display(), "the program writes another transcript");
        if self.left_transcripts.len() == LEFT_MAX {
            self.left_transcripts.pop_front();
        }
        self.left_transcripts.push_back(self.transcript.path().to_owned());
        self.transcript = TranscriptReader::new(path.to_owned());
        conversation.clone_into(&mut self.conversation);
        if let Some(id) = self.conversation_id() {
            self.parts.conversation.send_replace(id);
        }
    }

    /// Looks at everything that does not report by itself.
    pub(crate) async fn look(&mut self) {
        self.read_status_file();
        self.read_transcript();
        let screen = self.parts.terminal.screen();
        let reading = self.detector.borrow().read(&screen);
        if matches!(reading.meaning, ScreenMeaning::Ready(_)) {
            self.was_ready = true;
        }
        let shown = self.follower.wants_the_screens_turn(self.at_ms()).then(|| {
            let rows = self.parts.terminal.painted_rows();
            read_turn(PROGRAM, &rows, self.parts.terminal.size().cols)
        });
        let shown = shown.flatten();
        self.observe(Observation::Screen {
            reading: &reading,
            turn: shown.as_ref(),
        });
        self.keep_dialogs(&reading.meaning, &screen.rows);
        self.close_passed_asks(&reading.meaning, &screen.rows);
        let busy = matches!(reading.meaning, ScreenMeaning::Busy(_));
        self.observe(Observation::Retry(busy.then(|| retry_on(&screen.rows)).flatten()));
        if self.carried.is_none() && reading.meaning == ScreenMeaning::Dialog(Dialog::Limit) {
            // Opens by itself after a turn that hit a limit, and would eat the next prompt. Esc closes it.
            tracing::info!("the menu of a usage limit is closed");
            // The next look shows whether it was.
            let _ = self.press(claude::INTERRUPT).await;
        }
        if self
            .carried
            .as_ref()
            .is_some_and(|carried| carried.submitted.is_some())
        {
            self.follow_time();
            self.follow_interrupt(&reading.meaning).await;
        }
    }

    fn read_status_file(&mut self) {
        let activity = self.status_file().map(|status| status.activity);
        self.observe(Observation::Activity(activity));
    }

    /// The status file, with the conversation that it names taken in.
    fn status_file(&mut self) -> Option<StatusFile> {
        let status = read_status(&self.config_dir, self.parts.terminal.pid())?;
        if !status.session_id.is_empty() && status.session_id != self.conversation {
            self.other_conversation(&status.session_id);
        }
        Some(status)
    }

    /// The conversation of a program that has ended: it may have begun another one since it was looked at last. Before
    /// its first prompt the file could still be that of an earlier process with its number.
    pub(crate) fn read_last_conversation(&mut self) {
        if self.was_ready {
            self.status_file();
        }
    }

    /// The status file names another conversation than the one that is followed.
    fn other_conversation(&mut self, conversation: &str) {
        if self.start == StartMode::Resume && !self.was_ready {
            // It was to take up one conversation and has begun another.
            if self.resume_fault.is_none() {
                self.resume_fault = Some(format!(
                    "the agent program was to take up conversation {}, but began {conversation}",
                    self.conversation
                ));
                self.want_end();
            }
            return;
        }
        if let Ok(id) = conversation.parse() {
            let path: PathBuf = transcript_path(&self.config_dir, &self.worktree, id);
            self.follow_transcript(&path, conversation);
        }
    }

    /// Leaves out what was written before a turn begins.
    pub(crate) fn skip_transcript(&mut self) {
        if let Err(error) = self.transcript.skip_to_end() {
            tracing::warn!(%error, "the transcript cannot be read");
        }
    }

    fn read_transcript(&mut self) {
        if self.follower.is_at_rest() {
            return;
        }
        for _ in 0..READS_MAX {
            match self.transcript.read() {
                Ok(facts) if facts.is_empty() => return,
                Ok(facts) => {
                    for fact in facts {
                        self.observe(Observation::Fact(fact));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the transcript cannot be read");
                    return;
                }
            }
        }
    }

    fn follow_time(&mut self) {
        let Some(carried) = &mut self.carried else { return };
        if !carried.timed_out
            && carried
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
        {
            tracing::warn!(turn = %carried.id(), "the turn reached its time limit");
            carried.timed_out = true;
            self.observe(Observation::TimeLimit);
            self.interrupt_turn();
        }
    }

    async fn follow_interrupt(&mut self, meaning: &ScreenMeaning) {
        let needs_the_end = self.follower.cancel_needs_the_end(self.at_ms());
        let Some(interrupt) = &mut self.interrupt else {
            return;
        };
        let now = Instant::now();
        if needs_the_end {
            tracing::warn!("work in the background cannot be interrupted; the session is ended");
            self.want_end();
            return;
        }
        if now >= interrupt.started + INTERRUPT_WAIT_MAX {
            tracing::warn!("the turn could not be interrupted; the session is ended");
            self.want_end();
            return;
        }
        // Esc on a free prompt would open a menu of its own.
        let stoppable = matches!(meaning, ScreenMeaning::Busy(_) | ScreenMeaning::Dialog(_));
        if stoppable && now >= interrupt.next_press && interrupt.presses < PRESSES_MAX {
            interrupt.presses += 1;
            interrupt.next_press = now + PRESS_EVERY;
            self.observe(Observation::InterruptSent);
            // It is pressed again until the turn stops.
            let _ = self.press(claude::INTERRUPT).await;
        }
    }

    /// Presses a key. One that is not taken soon is taken back, without a look whether that was in time.
    pub(crate) async fn press(&mut self, key: &'static [u8]) -> Result<(), NotPressed> {
        let fault = match timeout(KEY_WAIT_MAX, self.parts.terminal.write(key)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => NotPressed::Failed(error),
            Err(_) => NotPressed::GivenUp,
        };
        tracing::warn!(%fault, "a key could not be pressed");
        Err(fault)
    }

    /// What there is to explain.
    pub(crate) fn explanation(&self) -> Explanation {
        let mut explanation = self.follower.explain();
        explanation.session = self.id;
        PROGRAM.clone_into(&mut explanation.program);
        self.detector
            .borrow()
            .name()
            .clone_into(&mut explanation.detector);
        explanation
    }
}
