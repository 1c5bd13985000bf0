//! Bringing one prompt into the agent's input box and having it taken.
//!
//! The measured way: wait until the box is ready, empty it, paste, wait for the echo, press Enter alone, wait for the
//! acknowledgement, press Enter again when the prompt still stands in the box. Enter right behind a paste is
//! swallowed in a fresh session; a second Enter on an empty box does nothing. Nothing is typed into a dialog. Enter is
//! pressed only when the journal says that it may have been: whatever happens then, nobody sends the prompt again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::turn::TurnStage;
use domain::{Clock, Timestamp};
use provider::claude::{self, Activity, Echo, SIGN_IN_HINT, read_status};
use provider::detect::{Detector, Dialog, InputBox, ScreenMeaning};
use terminal::{Terminal, TerminalError};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::follow::Observation;
use crate::git::BeforeRead;
use crate::mark::{Entered, Mark, Stages};

/// How long the input box may take to be ready: a cold start of many sessions at once, or a person's own turn.
const READY_WAIT_MAX: Duration = Duration::from_secs(90);
/// How long the pasted prompt may take to show.
const ECHO_WAIT_MAX: Duration = Duration::from_secs(5);
/// How much longer it is waited for before it counts as lost: a second paste beside a late first one would double it.
const ECHO_LATE_MAX: Duration = Duration::from_secs(15);
/// Behind a second paste: how long the box must show one prompt without a change.
const SECOND_SETTLE: Duration = Duration::from_secs(1);
/// How long after Enter a prompt that still stands in the box counts as not taken.
const STANDS_AFTER: Duration = Duration::from_millis(500);
/// Behind a box that was emptied: how long an Enter from before may take to show that it was taken after all.
const TAKEN_LATE_MAX: Duration = Duration::from_secs(1);
/// How long the box may take to show that it is empty again.
const CLEAR_WAIT_MAX: Duration = Duration::from_secs(2);
/// Between two Ctrl+C: a second one within the program's own two seconds would end it.
const CLEAR_AGAIN_AFTER: Duration = Duration::from_secs(4);
/// Attempts to empty the box, and to paste.
const TRIES_MAX: u32 = 2;
/// How often a prompt that stood in the box may be painted anew before Enter is pressed: somebody changes the size of a
/// window.
const TORN_MAX: u32 = 10;
/// How long that may take each time.
const TORN_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long an acknowledgement may take before Enter is pressed again.
const ENTER_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Enters, at most.
const ENTERS_MAX: u32 = 4;
/// How long the acknowledgement may take in all.
const ACK_WAIT_MAX: Duration = Duration::from_secs(20);
/// A busy program without a hook for this long has taken the prompt: the hook was lost.
const BUSY_IS_ACK_AFTER: Duration = Duration::from_secs(1);
/// The wall clock may run ahead of the monotonic one, which stands still while the machine sleeps, by as much as this
/// from the moment a turn is handed over: after a longer sleep its order may be another one's, or not wanted any more.
const SLEPT_MAX: Duration = Duration::from_secs(30);
/// The screen is looked at when it changes, and at least this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A burst of output is looked at once it pauses for this long.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// What a submission needs.
pub(crate) struct Submission {
    pub(crate) terminal: Terminal,
    /// The prompt, guarded (see [`claude::guard_prompt`]).
    pub(crate) guarded: String,
    /// Says where our prompt was seen as taken: in a hook, or in the transcript.
    pub(crate) acknowledged: watch::Receiver<Option<&'static str>>,
    /// Ends the submission before Enter is pressed.
    pub(crate) cancel: CancellationToken,
    /// Held while we type, so that a person's keys do not land in the middle of a prompt.
    pub(crate) keyboard: Arc<Mutex<Keyboard>>,
    pub(crate) config_dir: PathBuf,
    pub(crate) detector: watch::Receiver<Arc<Detector>>,
    pub(crate) clock: Arc<dyn Clock>,
    /// When the turn was handed over.
    pub(crate) requested: Instant,
    /// The same on the wall clock.
    pub(crate) requested_at: Timestamp,
    pub(crate) stages: Stages,
    /// What is written down of it, but for what this brings.
    pub(crate) mark: Mark,
    pub(crate) before: watch::Receiver<BeforeRead>,
}

/// Who holds it may type.
pub(crate) struct Keyboard {
    /// When Ctrl+C was last pressed by us: a second one soon after would end the program.
    cleared_at: Option<Instant>,
}

impl Keyboard {
    /// `joined`: another process may have pressed Ctrl+C a moment ago.
    pub(crate) fn new(joined: bool) -> Keyboard {
        Keyboard {
            cleared_at: joined.then(Instant::now),
        }
    }
}

/// A prompt that was taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Submitted {
    /// Not known of one that was entered by another process, when the journal did not keep it.
    pub(crate) entered: Option<Entered>,
    pub(crate) acknowledged_at: Timestamp,
    /// Where the acknowledgement came from.
    pub(crate) source: &'static str,
    /// How often Enter was pressed.
    pub(crate) enters: u32,
}

/// Why a prompt was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSubmitted {
    #[error("cancelled before the prompt was sent")]
    Cancelled,
    #[error("{0}")]
    NotReady(String),
    #[error(
        "the agent's input box holds text that could not be removed; empty it in the terminal and send the prompt again"
    )]
    NotCleared,
    #[error("the pasted prompt did not appear in the agent's input box within {} s, or not alone; whatever \
         stands there was not submitted", (ECHO_WAIT_MAX + ECHO_LATE_MAX).as_secs())]
    NoEcho,
    #[error(
        "the agent did not acknowledge the prompt within {} s although Enter was pressed {enters} times; \
         whether it was taken is not known", ACK_WAIT_MAX.as_secs()
    )]
    NoAcknowledgement { enters: u32 },
    #[error(
        "Enter may have been pressed before this program was ended, and nothing tells whether the agent took the prompt"
    )]
    NoSign,
    #[error(
        "this program was ended, or the machine fell asleep, as Enter was about to be pressed, and the agent did not get \
         it: the prompt still stood in its input box and was taken out of it; it can be sent again"
    )]
    Withdrawn,
    #[error(
        "Enter was pressed, and then the terminal failed ({0}); whether the prompt was taken is not known"
    )]
    Lost(TerminalError),
    #[error(
        "the prompt was not taken ({0}), and nothing can take it back: whether it will be typed after all is not known, \
         so do not send it again before you have looked at the agent's terminal"
    )]
    MayStillBeTyped(TerminalError),
    #[error(
        "the machine slept between the order and its Enter, so Enter was not pressed; send the prompt again if it is \
         still wanted"
    )]
    Slept {
        /// It stood in the box to the end and was taken out of it.
        taken_out: bool,
    },
    #[error(
        "the turn could not be written into the journal ({0}), and nothing is done that is not written there; see to \
         the disk and send the prompt again"
    )]
    NotWritten(String),
    #[error(transparent)]
    Terminal(#[from] TerminalError),
}

impl NotSubmitted {
    /// As the follower is told it.
    pub(crate) fn observation(&self) -> Observation<'static> {
        match self {
            NotSubmitted::Cancelled => Observation::NeverSent,
            NotSubmitted::NotReady(_)
            | NotSubmitted::NotCleared
            | NotSubmitted::NoEcho
            | NotSubmitted::NotWritten(_)
            | NotSubmitted::Slept { taken_out: false }
            | NotSubmitted::Terminal(_) => Observation::NotSubmitted {
                why: self.to_string(),
            },
            NotSubmitted::Withdrawn | NotSubmitted::Slept { taken_out: true } => Observation::NeverEntered {
                why: self.to_string(),
            },
            NotSubmitted::NoAcknowledgement { .. }
            | NotSubmitted::NoSign
            | NotSubmitted::Lost(_)
            | NotSubmitted::MayStillBeTyped(_) => Observation::EffectUnknown {
                why: self.to_string(),
            },
        }
    }

    /// What a paste that failed means: one that may still be typed is not said to be not submitted.
    fn by_paste(error: TerminalError) -> NotSubmitted {
        match error {
            TerminalError::Unsure { .. } | TerminalError::Unheard { .. } => {
                NotSubmitted::MayStillBeTyped(error)
            }
            error => NotSubmitted::Terminal(error),
        }
    }

    /// The same of the first Enter: only one that was proven to be taken back was not pressed.
    fn by_enter(error: TerminalError) -> NotSubmitted {
        match error {
            TerminalError::Stuck { .. } => NotSubmitted::Terminal(error),
            error => NotSubmitted::Lost(error),
        }
    }
}

impl Submission {
    pub(crate) async fn run(mut self) -> Result<Submitted, NotSubmitted> {
        let (begun, ready) = tokio::join!(self.write(TurnStage::Begun), self.ready_box());
        fail::fail_point!("begun");
        begun?;
        ready?;
        let entered = self.type_prompt().await?;
        self.acknowledgement(Some(entered), 1).await
    }

    /// For a prompt of which another process has written down that Enter may have been pressed: types nothing. One that
    /// still stands in the box is taken out of it: whether it is still wanted is for others to say.
    pub(crate) async fn go_on(mut self) -> Result<Submitted, NotSubmitted> {
        let entered = self.mark.entered;
        match self.acknowledgement(entered, 0).await {
            Err(NotSubmitted::NoAcknowledgement { enters: 0 }) => Err(NotSubmitted::NoSign),
            Err(NotSubmitted::Terminal(error)) => Err(NotSubmitted::Lost(error)),
            result => result,
        }
    }

    async fn write(&self, stage: TurnStage) -> Result<(), NotSubmitted> {
        let written = self.stages.write(stage, &self.mark).await;
        written.map_err(NotSubmitted::NotWritten)
    }

    /// Brings the prompt into the box and presses Enter, undisturbed by a person's keys. Enter is pressed only while
    /// the prompt stands in the box once and alone.
    async fn type_prompt(&mut self) -> Result<Entered, NotSubmitted> {
        let lock = Arc::clone(&self.keyboard);
        let mut pastes = 0;
        while pastes < TRIES_MAX {
            // A person may need the keyboard until the box is free.
            self.ready_box().await?;
            let mut keyboard = lock.lock().await;
            let ScreenMeaning::Ready(input) = self.meaning() else {
                continue;
            };
            if !input.empty {
                self.empty_box(&mut keyboard).await?;
            }
            let written = self.terminal.write(claude::paste(&self.guarded)).await;
            let written = written.map_err(NotSubmitted::by_paste)?;
            fail::fail_point!("pasted");
            let since = i64::try_from(written.started.elapsed().as_millis()).unwrap_or(0);
            let after = written.started.saturating_duration_since(self.requested);
            let entered = Entered {
                first_byte_at: self.clock.now().plus_ms(-since),
                first_byte_after_us: u64::try_from(after.as_micros()).unwrap_or(u64::MAX),
                submitted_at: self.clock.now(),
            };
            let mut echo = self.echoed(ECHO_WAIT_MAX).await;
            if echo == Echo::Absent && !self.cancel.is_cancelled() {
                tracing::warn!("a pasted prompt does not appear; the program may be slow");
                self.until(ECHO_LATE_MAX, |_| {
                    self.cancel.is_cancelled() || self.echo() != Echo::Absent
                })
                .await;
                echo = self.echo();
            }
            if pastes > 0 && echo == Echo::Shown {
                echo = self.settled_echo().await;
            }
            if echo == Echo::Shown && !self.cancel.is_cancelled() {
                match self.enter_as_it_stands(entered, pastes > 0).await {
                    Ok(Some(entered)) => return Ok(entered),
                    Ok(None) => {}
                    Err(NotSubmitted::Slept { .. }) => return Err(self.overslept(&mut keyboard).await),
                    Err(why) => return Err(why),
                }
                echo = self.echo();
            }
            if self.cancel.is_cancelled() {
                self.empty_box(&mut keyboard).await?;
                return Err(NotSubmitted::Cancelled);
            }
            pastes += 1;
            tracing::warn!(
                pastes,
                ?echo,
                "a pasted prompt does not stand in the box, or not alone"
            );
            if echo == Echo::Mixed {
                self.empty_box(&mut keyboard).await?;
            }
        }
        Err(NotSubmitted::NoEcho)
    }

    /// Presses Enter, also when the box was torn just then, as by a window whose size somebody changes, and is painted
    /// anew. `settles`: an earlier paste may come after all.
    async fn enter_as_it_stands(
        &mut self,
        entered: Entered,
        settles: bool,
    ) -> Result<Option<Entered>, NotSubmitted> {
        for _ in 0..TORN_MAX {
            if let Some(entered) = self.enter(entered).await? {
                return Ok(Some(entered));
            }
            if !self.stands_again().await || (settles && self.settled_echo().await != Echo::Shown) {
                break;
            }
        }
        Ok(None)
    }

    /// Presses Enter, written down before; not when the prompt does not stand in the box any more then.
    async fn enter(&mut self, mut entered: Entered) -> Result<Option<Entered>, NotSubmitted> {
        entered.submitted_at = self.clock.now();
        (self.mark.entered, self.mark.before) = (Some(entered), self.before.borrow().known());
        let written = self.write(TurnStage::Entering).await;
        fail::fail_point!("entering");
        written?;
        // Whoever cancels has it cancelled, also after a sleep.
        if self.has_slept() && !self.cancel.is_cancelled() {
            return Err(NotSubmitted::Slept { taken_out: false });
        }
        // The disk may have taken its time.
        if self.cancel.is_cancelled() || self.echo() != Echo::Shown {
            return Ok(None);
        }
        let written = self.terminal.write(claude::ENTER).await;
        written.map_err(NotSubmitted::by_enter)?;
        fail::fail_point!("entered");
        Ok(Some(entered))
    }

    /// Takes a prompt out of the box whose Enter is not pressed any more. Whoever still wants it may send it again only
    /// when it stood there to the end, and is gone.
    async fn overslept(&self, keyboard: &mut Keyboard) -> NotSubmitted {
        let stood = self.stands();
        let cleared = self.clear_box(keyboard).await.is_ok();
        let taken = self.acknowledged.borrow().is_some() || self.is_busy();
        NotSubmitted::Slept {
            taken_out: stood && cleared && !taken,
        }
    }

    /// Empties the box if there is anything in it. Enter was not pressed: whoever cancels has it cancelled, also with a
    /// box that does not become empty.
    async fn empty_box(&self, keyboard: &mut Keyboard) -> Result<(), NotSubmitted> {
        match self.clear_box(keyboard).await {
            Err(NotSubmitted::NotCleared) if self.cancel.is_cancelled() => Err(NotSubmitted::Cancelled),
            result => result,
        }
    }

    /// Waits until the box is there and free.
    async fn ready_box(&self) -> Result<InputBox, NotSubmitted> {
        let deadline = Instant::now() + READY_WAIT_MAX;
        let mut dismissed = false;
        let mut changed = self.terminal.changed();
        loop {
            if self.cancel.is_cancelled() {
                return Err(NotSubmitted::Cancelled);
            }
            match self.meaning() {
                ScreenMeaning::Ready(input) => return Ok(input),
                ScreenMeaning::Busy(_) | ScreenMeaning::Unclear => {}
                // Esc is this menu's own "leave me alone"; it opens by itself after a turn that hit a limit.
                ScreenMeaning::Dialog(Dialog::Limit) if !dismissed => {
                    dismissed = true;
                    self.terminal.write(claude::INTERRUPT).await?;
                }
                ScreenMeaning::Dialog(Dialog::Limit) => {}
                ScreenMeaning::Dialog(_) => {
                    return Err(NotSubmitted::NotReady(
                        "the agent shows a dialog that only a person may answer; answer it in its terminal and send the prompt again"
                            .to_owned(),
                    ));
                }
                ScreenMeaning::NotSignedIn => return Err(NotSubmitted::NotReady(SIGN_IN_HINT.to_owned())),
                ScreenMeaning::Fault(words) => {
                    return Err(NotSubmitted::NotReady(format!("the agent program says: {words}")));
                }
            }
            if Instant::now() >= deadline {
                return Err(NotSubmitted::NotReady(format!(
                    "the agent's input box was not free within {} s",
                    READY_WAIT_MAX.as_secs()
                )));
            }
            look_again(&mut changed).await;
        }
    }

    /// Empties the box: what is in it was put back by the program after a cancel, or left by a person. Nothing is
    /// pressed where nothing stands: a Ctrl+C on an empty box asks to end the program.
    async fn clear_box(&self, keyboard: &mut Keyboard) -> Result<(), NotSubmitted> {
        let cleared = |meaning: &ScreenMeaning| matches!(meaning, ScreenMeaning::Ready(input) if input.empty);
        for _ in 0..TRIES_MAX {
            if let Some(last) = keyboard.cleared_at {
                sleep_until(last + CLEAR_AGAIN_AFTER).await;
            }
            if cleared(&self.meaning()) {
                return Ok(());
            }
            keyboard.cleared_at = Some(Instant::now());
            self.terminal.write(claude::CLEAR_BOX).await?;
            if self.until(CLEAR_WAIT_MAX, cleared).await {
                return Ok(());
            }
        }
        Err(NotSubmitted::NotCleared)
    }

    /// What the box shows of the prompt now.
    fn echo(&self) -> Echo {
        match self.meaning() {
            ScreenMeaning::Ready(input) | ScreenMeaning::Busy(input) => claude::echo(&input, &self.guarded),
            ScreenMeaning::Unclear
            | ScreenMeaning::Dialog(_)
            | ScreenMeaning::NotSignedIn
            | ScreenMeaning::Fault(_) => Echo::Absent,
        }
    }

    /// Waits for the prompt to show, alone if that comes in time.
    async fn echoed(&self, limit: Duration) -> Echo {
        self.until(limit, |_| self.echo() == Echo::Shown).await;
        self.echo()
    }

    /// The echo behind a second paste: the first one may come after all, and would stand beside it.
    async fn settled_echo(&self) -> Echo {
        for _ in 0..TORN_MAX {
            let has_changed = self.until(SECOND_SETTLE, |_| self.echo() != Echo::Shown).await;
            if !has_changed || !self.stands_again().await {
                break;
            }
        }
        self.echo()
    }

    /// Waits for a prompt that stood in the box to be painted anew.
    async fn stands_again(&self) -> bool {
        let is_over = |_: &ScreenMeaning| self.cancel.is_cancelled() || self.echo() == Echo::Shown;
        self.until(TORN_WAIT_MAX, is_over).await && !self.cancel.is_cancelled()
    }

    /// Waits until the prompt is taken; presses Enter again while it stands in the box. `enters`: how often it was
    /// pressed by us; never again without a first time.
    async fn acknowledgement(
        &mut self,
        entered: Option<Entered>,
        mut enters: u32,
    ) -> Result<Submitted, NotSubmitted> {
        let mut pressed = Instant::now();
        let deadline = pressed + ACK_WAIT_MAX;
        let mut busy_since = None;
        loop {
            let acknowledged = self.acknowledged.wait_for(Option::is_some);
            let seen = timeout(LOOK_EVERY, acknowledged).await;
            let seen = seen.ok().and_then(|seen| seen.ok().and_then(|seen| *seen));
            busy_since = self.is_busy().then(|| busy_since.unwrap_or_else(Instant::now));
            let busy_for = busy_since.map(|since: Instant| since.elapsed());
            let busy = busy_for.is_some_and(|busy| busy >= BUSY_IS_ACK_AFTER);
            let source = seen.or(busy.then_some("status"));
            if let Some(source) = source {
                return Ok(Submitted {
                    entered,
                    acknowledged_at: self.clock.now(),
                    source,
                    enters: enters.max(1),
                });
            }
            if Instant::now() >= deadline {
                return Err(NotSubmitted::NoAcknowledgement { enters });
            }
            if self.cancel.is_cancelled() {
                if self.taken_back(pressed).await? {
                    return Err(NotSubmitted::Cancelled);
                }
            } else if enters == 0 || self.has_slept() {
                if pressed.elapsed() >= ENTER_AGAIN_AFTER && self.taken_back(pressed).await? {
                    return Err(NotSubmitted::Withdrawn);
                }
            } else if enters < ENTERS_MAX
                && pressed.elapsed() >= ENTER_AGAIN_AFTER
                && self.enter_again().await?
            {
                (enters, pressed) = (enters + 1, Instant::now());
            }
        }
    }

    /// Presses Enter once more if our prompt still stands in the box, alone, and nobody types.
    async fn enter_again(&self) -> Result<bool, NotSubmitted> {
        let Ok(_typing) = self.keyboard.try_lock() else {
            return Ok(false);
        };
        if !self.stands() {
            return Ok(false);
        }
        self.terminal
            .write(claude::ENTER)
            .await
            .map_err(NotSubmitted::Lost)?;
        Ok(true)
    }

    /// Takes a prompt that was not taken out of the box. False when it may have been taken.
    async fn taken_back(&mut self, pressed: Instant) -> Result<bool, NotSubmitted> {
        if pressed.elapsed() < STANDS_AFTER || !self.stands() {
            return Ok(false);
        }
        let lock = Arc::clone(&self.keyboard);
        let Ok(mut keyboard) = lock.try_lock() else {
            return Ok(false);
        };
        match self.clear_box(&mut keyboard).await {
            Ok(()) => {}
            Err(NotSubmitted::NotCleared) => return Ok(false),
            Err(NotSubmitted::Terminal(error)) => return Err(NotSubmitted::Lost(error)),
            Err(why) => return Err(why),
        }
        // Enter may have been taken late, before what cleared the box: then the turn is to be followed, or interrupted.
        let taken = timeout(TAKEN_LATE_MAX, self.acknowledged.wait_for(Option::is_some)).await;
        let taken = taken.is_ok_and(|known| known.is_ok());
        Ok(!taken && !self.is_busy())
    }

    /// Whether the machine has slept for long since the turn was handed over.
    fn has_slept(&self) -> bool {
        let wall = Duration::from_millis(self.clock.now().ms_since(self.requested_at));
        slept(wall, self.requested.elapsed())
    }

    /// Whether our prompt stands in the free box, alone.
    fn stands(&self) -> bool {
        matches!(self.meaning(), ScreenMeaning::Ready(input) if claude::echo(&input, &self.guarded) == Echo::Shown)
    }

    fn is_busy(&self) -> bool {
        let status = read_status(&self.config_dir, self.terminal.pid());
        status.is_some_and(|status| status.activity == Activity::Busy)
            || matches!(self.meaning(), ScreenMeaning::Busy(_))
    }

    fn meaning(&self) -> ScreenMeaning {
        self.detector.borrow().read(&self.terminal.screen()).meaning
    }

    /// Waits until the screen means `wanted`; false when it does not within `limit`.
    async fn until(&self, limit: Duration, wanted: impl Fn(&ScreenMeaning) -> bool) -> bool {
        let mut changed = self.terminal.changed();
        let whole = async {
            while !wanted(&self.meaning()) {
                look_again(&mut changed).await;
            }
        };
        timeout(limit, whole).await.is_ok()
    }
}

/// Whether so much time on both clocks tells of a long sleep, or of a wall clock that was set forward: the same for us.
fn slept(wall: Duration, awake: Duration) -> bool {
    wall.saturating_sub(awake) > SLEPT_MAX
}

/// Waits for the screen to change, or for a while.
async fn look_again(changed: &mut watch::Receiver<u64>) {
    // A closed channel means that the terminal is gone: the actor notices and drops us.
    if let Ok(Ok(())) = timeout(LOOK_EVERY, changed.changed()).await {
        sleep(LOOK_PAUSE).await;
    }
    changed.borrow_and_update();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_was_overslept_may_be_sent_again_only_when_it_was_taken_out_of_the_box() {
        let told = |taken_out| NotSubmitted::Slept { taken_out }.observation();
        assert!(matches!(told(true), Observation::NeverEntered { .. }));
        assert!(matches!(told(false), Observation::NotSubmitted { .. }));
    }

    #[test]
    fn a_prompt_is_called_not_submitted_only_when_it_can_not_be_typed_any_more() {
        let waited = Duration::from_secs(15);
        let (stuck, unsure) = (
            || TerminalError::Stuck { pid: 1, waited },
            || TerminalError::Unsure { pid: 1, waited },
        );
        let is_known = |why: NotSubmitted| match why.observation() {
            Observation::NotSubmitted { .. } => true,
            Observation::EffectUnknown { .. } => false,
            _ => panic!("neither"),
        };
        assert!(is_known(NotSubmitted::by_paste(stuck())));
        assert!(!is_known(NotSubmitted::by_paste(unsure())));
        assert!(is_known(NotSubmitted::by_enter(stuck())));
        assert!(!is_known(NotSubmitted::by_enter(unsure())));
        assert!(!is_known(NotSubmitted::by_enter(TerminalError::LetGo { pid: 1 })));
    }

    #[test]
    fn keys_are_called_not_pressed_only_when_they_can_not_be_typed_any_more() {
        use crate::error::SessionError;
        let (pid, waited) = (1, Duration::from_secs(15));
        let session = domain::SessionId(uuid::Uuid::nil());
        let is_proven =
            |source: TerminalError| SessionError::Terminal { session, source }.no_key_was_pressed();
        assert!(is_proven(TerminalError::Stuck { pid, waited }));
        assert!(is_proven(TerminalError::TooMuch { bytes: 2, max: 1 }));
        assert!(!is_proven(TerminalError::Unsure { pid, waited }));
        assert!(!is_proven(TerminalError::LetGo { pid }));
        // The program ended, or the holder was lost, while they were on their way.
        assert!(!is_proven(TerminalError::Closed { pid }));
        assert!(!is_proven(TerminalError::Write {
            pid,
            source: std::io::Error::other("broken"),
        }));
        assert!(SessionError::Over { session }.no_key_was_pressed());
        assert!(SessionError::QueueFull { session, max: 1 }.no_key_was_pressed());
        assert!(!SessionError::TakenOver { session }.no_key_was_pressed());
    }

    #[test]
    fn a_long_sleep_is_told_from_a_long_wait() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        assert!(!slept(hours(2), hours(2)));
        assert!(!slept(hours(2) + SLEPT_MAX, hours(2)));
        assert!(slept(hours(2), Duration::from_secs(5)));
        assert!(!slept(Duration::ZERO, hours(2)), "a clock that was set back");
    }
}
