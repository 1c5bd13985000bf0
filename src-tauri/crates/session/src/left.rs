//! Sessions that outlive a process of ours: what one leaves, and how the next goes on with it.
//!
//! The program and its turn live on in their holder. What the agent tells meanwhile reaches nobody; its transcript is
//! read from the turn's beginning, and its screen is looked at. A prompt that may have been taken is never typed again.
//! `client` calls this with what it finds in the journal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::evidence::{Evidence, Tier};
use domain::turn::TurnStage;
use domain::{Clock, SessionId, SinceBoot, Timestamp};
use provider::claude::{TranscriptFact, TranscriptPlace, TranscriptReader, background_of, transcript_path};
use provider::detect::OfficePatterns;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::actor::{Actor, Carried, Done};
use crate::error::{SessionError, TAKEN_OVER};
use crate::follow::{Expected, Follower, HowFar, Observation, Witnesses};
use crate::git::{BeforeRead, git_told};
use crate::handle::{QueuedTurn, TurnRequest, guarded_text};
use crate::mark::{Mark, source_named};
use crate::report::{SessionNote, TurnReport, TurnTimings};
use crate::submission::Submitted;

/// Reads of a transcript that was written while nobody looked; each takes in [`provider::claude::READ_BYTES_MAX`].
const READS_MAX: u32 = 256;
/// Bytes at the end of a transcript that are searched for what earlier turns have left running.
const PAST_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Pieces of work that are remembered of them.
const PAST_TASKS_MAX: usize = 256;

/// What a turn has at least that is taken up where only the wall clock can tell how long it has run.
const LEFT_TIME_MIN: Duration = Duration::from_secs(60);

/// A turn that was open in the journal when its process ended.
#[derive(Debug, Clone, PartialEq)]
pub struct LeftTurn {
    /// What was to be done, as the journal kept it.
    pub request: TurnRequest,
    /// When it was handed to the session.
    pub requested_at: Timestamp,
    /// How far it had come.
    pub stage: TurnStage,
    /// What the session had written down of it.
    pub mark: Option<Value>,
    /// When its prompt was taken.
    pub taken_at: Option<Timestamp>,
}

/// Where a turn of a program that is gone is judged.
#[derive(Debug, Clone)]
pub struct LeftPlace {
    /// Where the agent program keeps transcripts.
    pub config_dir: PathBuf,
    /// The session's working folder.
    pub worktree: PathBuf,
    /// The program's own id of the conversation.
    pub conversation: SessionId,
    /// The office's own patterns for final messages.
    pub patterns: OfficePatterns,
    /// The time now.
    pub now: Timestamp,
}

/// What can be said about a turn whose program is gone.
#[derive(Debug, Clone, PartialEq)]
pub enum LeftJudgement {
    /// Its end is on record.
    Reported(Box<TurnReport>),
    /// Its prompt was never entered: it can be run again without doubt.
    NotStarted,
    /// Its effect is not known beyond this; its rule says why. Never to be run again by itself.
    Unknown(Evidence),
}

/// The same as the actor takes it up.
pub(crate) struct Left {
    pub(crate) queued: QueuedTurn,
    stage: TurnStage,
    mark: Option<Value>,
    taken_at: Option<Timestamp>,
}

impl Left {
    pub(crate) fn new(left: LeftTurn, guarded: String) -> Left {
        Left {
            queued: QueuedTurn {
                request: left.request,
                guarded,
                requested_at: left.requested_at,
                requested: Instant::now(),
            },
            stage: left.stage,
            mark: left.mark,
            taken_at: left.taken_at,
        }
    }
}

/// How far a turn had come by its stage and its mark, with its submission where it was taken.
fn how_far(stage: TurnStage, mark: &Mark, taken_at: Option<Timestamp>) -> (HowFar, Option<Submitted>) {
    if stage != TurnStage::Taken {
        return (HowFar::Entering, None);
    }
    let (source, enters) = match &mark.taken {
        Some(taken) => (source_named(&taken.source), taken.enters),
        None => ("journal", 1),
    };
    let at = mark.taken.as_ref().map(|taken| taken.at).or(taken_at);
    let submitted = Submitted {
        entered: mark.entered,
        acknowledged_at: at.unwrap_or(Timestamp(0)),
        source,
        enters,
    };
    (HowFar::Taken { source, enters }, Some(submitted))
}

impl Actor {
    /// Joins a program that runs already, and takes up the turn that was left in it.
    pub(crate) async fn join(&mut self, left: Option<Left>) {
        self.follower.joins();
        match left {
            Some(left) if left.stage != TurnStage::Begun => self.take_up(left).await,
            left => {
                self.learn_past();
                // Enter was never pressed for it: it is brought in as any other.
                self.queue.extend(left.map(|left| left.queued));
            }
        }
        self.look_soon = true;
    }

    async fn take_up(&mut self, left: Left) {
        let path = self.transcript.path().to_owned();
        let mark = Mark::read(left.mark.as_ref(), path, &self.conversation);
        tracing::info!(turn = %left.queued.request.id, stage = ?left.stage, "a turn is taken up");
        mark.conversation.clone_into(&mut self.conversation);
        if let Some(id) = self.conversation_id() {
            self.parts.conversation.send_replace(id);
        }
        self.transcript = reader_at(&mark.transcript);
        let (how_far, submitted) = how_far(left.stage, &mark, left.taken_at);
        let mut carried = Carried::new(left.queued);
        carried.before.clone_from(&mark.before);
        carried.mark = Some(mark.clone());
        carried.submitted = submitted;
        carried.deadline = left
            .taken_at
            .filter(|_| submitted.is_some())
            .or(submitted.map(|submitted| submitted.acknowledged_at))
            .map(|taken_at| {
                let taken = mark.taken.as_ref().and_then(|taken| taken.since_boot.as_ref());
                let used = used(taken_at, taken, self.clock.as_ref());
                Instant::now() + time_left(carried.queued.request.timeout, used)
            });
        let expected = self.expected(&carried.queued);
        self.follower.tell_time(self.clock.now());
        let at_ms = self.at_ms();
        self.follower.take_up(at_ms, expected, mark.memo.clone(), how_far);
        let submission = submitted
            .is_none()
            .then(|| self.submission(&carried, mark, watch::channel(BeforeRead::default()).1));
        self.carried = Some(carried);
        self.sync();
        self.read_what_was_written().await;
        if let Some(submission) = submission {
            self.work = Some(Box::pin(async move {
                let result = submission.go_on().await;
                Done::Submitted { result, before: None }
            }));
        }
    }

    async fn read_what_was_written(&mut self) {
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
            yield_now().await;
        }
    }

    /// What earlier turns have left running in the background is none of the next one's.
    fn learn_past(&mut self) {
        let path = self.transcript.path().to_owned();
        for task in tasks_left(&path) {
            self.follower.add_past_task(task);
        }
        self.skip_transcript();
    }

    /// Leaves the program and its turn to the core that holds them now: nothing of them is judged, told or written any
    /// more, but that.
    pub(crate) async fn hand_over(mut self) {
        tracing::warn!("{TAKEN_OVER}");
        self.work = None;
        // What was known before is still told: it was true.
        self.tell(SessionNote::TakenOver {
            session: self.id,
            words: TAKEN_OVER.to_owned(),
        });
        self.tell_the_rest().await;
        for ender in self.enders.drain(..) {
            // Whoever asked may have gone.
            let _ = ender.send(Err(SessionError::TakenOver { session: self.id }));
        }
        for leaver in self.leavers.drain(..) {
            let _ = leaver.send(());
        }
    }

    /// Leaves the program and its turn to their holder.
    pub(crate) fn leave(mut self) {
        tracing::info!("the session is left to its holder");
        // What is under way is found again by its stage in the journal.
        self.work = None;
        for note in self.outbox.drain(..) {
            // What nobody takes is found again too.
            if self.parts.notes.try_send(note).is_err() {
                break;
            }
        }
        self.parts.terminal.detach();
        for leaver in self.leavers.drain(..) {
            // Whoever asked may have gone.
            let _ = leaver.send(());
        }
    }
}

/// How much of its time a turn has had that was taken then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Used {
    /// By the clock that counts from the machine's start.
    Surely(Duration),
    /// By the wall clock alone, which may have been set since.
    Perhaps(Duration),
}

fn used(taken_at: Timestamp, since_boot: Option<&SinceBoot>, clock: &dyn Clock) -> Used {
    let now = clock.since_boot();
    let surely = now.zip(since_boot).and_then(|(now, then)| now.ms_since(then));
    match surely {
        Some(ms) => Used::Surely(Duration::from_millis(ms)),
        None => Used::Perhaps(Duration::from_millis(clock.now().ms_since(taken_at))),
    }
}

/// What is left of a turn's time. A clock that was set back gives it no more than all of it, one that was set forward
/// does not end it at once.
fn time_left(timeout: Duration, used: Used) -> Duration {
    match used {
        Used::Surely(used) => timeout.saturating_sub(used),
        Used::Perhaps(used) => timeout.saturating_sub(used).max(timeout.min(LEFT_TIME_MIN)),
    }
}

/// A reader that goes on there. What cannot be read now may be readable later.
fn reader_at(place: &TranscriptPlace) -> TranscriptReader {
    TranscriptReader::at(place.clone()).unwrap_or_else(|error| {
        tracing::warn!(%error, "the transcript cannot be read");
        TranscriptReader::new(place.path.clone())
    })
}

/// The background work that the end of a transcript tells the start of, and no end.
fn tasks_left(path: &Path) -> Vec<String> {
    let length = std::fs::metadata(path).map_or(0, |file| file.len());
    let mut reader = reader_at(&TranscriptPlace {
        path: path.to_owned(),
        offset: length.saturating_sub(PAST_BYTES_MAX),
        inode: None,
    });
    let (mut uses, mut tasks): (Vec<(String, String)>, Vec<String>) = (Vec::new(), Vec::new());
    for _ in 0..READS_MAX {
        let facts = reader.read().unwrap_or_default();
        if facts.is_empty() {
            break;
        }
        for dated in facts {
            match dated.fact {
                TranscriptFact::ToolUse { id, name, .. } => {
                    uses.truncate(PAST_TASKS_MAX);
                    uses.insert(0, (id, name));
                }
                TranscriptFact::ToolResult { id, response, .. } => {
                    let place = uses.iter().position(|(open, _)| *open == id);
                    let name = place.map(|place| uses.remove(place).1);
                    tasks.extend(name.and_then(|name| background_of(&name, &response)));
                }
                TranscriptFact::Notified { tasks: ended } => tasks.retain(|task| !ended.contains(task)),
                _ => {}
            }
        }
    }
    let more = tasks.len().saturating_sub(PAST_TASKS_MAX);
    tasks.split_off(more)
}

/// Judges a turn whose program is proven gone, by the transcript alone. Asks git too.
pub async fn judge_left(left: &LeftTurn, place: &LeftPlace) -> LeftJudgement {
    if left.stage == TurnStage::Begun {
        return LeftJudgement::NotStarted;
    }
    let path = transcript_path(&place.config_dir, &place.worktree, place.conversation);
    let mark = Mark::read(left.mark.as_ref(), path, &place.conversation.to_string());
    let (how_far, submitted) = how_far(left.stage, &mark, left.taken_at);
    // What cannot be guarded was never typed.
    let Ok(prompt) = guarded_text(&left.request) else {
        return LeftJudgement::NotStarted;
    };
    let expected = Expected {
        turn: Some(left.request.id),
        prompt,
        marker: left.request.marker.clone(),
        patterns: place.patterns.clone(),
    };
    let mut follower = Follower::new(Witnesses::ALL);
    follower.tell_time(place.now);
    follower.take_up(0, expected, mark.memo.clone(), how_far);
    let mut reader = reader_at(&mark.transcript);
    for _ in 0..READS_MAX {
        let facts = reader.read().unwrap_or_default();
        if facts.is_empty() {
            break;
        }
        for fact in facts {
            follower.observe(0, Observation::Fact(fact));
        }
        yield_now().await;
    }
    if submitted.is_none()
        && let Some(source) = follower.acknowledged_by()
    {
        follower.observe(0, Observation::Submitted { source, enters: 1 });
    }
    follower.observe(0, Observation::Exit(None));
    follower.settle_now(0);
    follower.verdict(0);
    let Some(finished) = follower.finish() else {
        return LeftJudgement::Unknown(Evidence::default());
    };
    let mut evidence = finished.evidence;
    if let Some(git) = git_told(&place.worktree, mark.before.clone()).await {
        git.add_to(&mut evidence);
    }
    if matches!(finished.verdict.rule, "exit-unheard" | "effect-unknown") {
        if let Some(words) = finished.final_message {
            evidence.add("last_words", words, Tier::Claimed, "transcript");
        }
        return LeftJudgement::Unknown(evidence);
    }
    let entered = mark.entered;
    LeftJudgement::Reported(Box::new(TurnReport {
        turn: left.request.id,
        outcome: finished.verdict.outcome,
        final_message: finished.final_message,
        evidence,
        timings: TurnTimings {
            requested_at: left.requested_at,
            first_byte_at: entered.map(|entered| entered.first_byte_at),
            first_byte_after_us: entered.map(|entered| entered.first_byte_after_us),
            submitted_at: entered.map(|entered| entered.submitted_at),
            acknowledged_at: submitted.map(|submitted| submitted.acknowledged_at),
            ended_at: place.now,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Clocks(Timestamp, Option<SinceBoot>);

    impl Clock for Clocks {
        fn now(&self) -> Timestamp {
            self.0
        }

        fn since_boot(&self) -> Option<SinceBoot> {
            self.1.clone()
        }
    }

    /// Seconds that a turn of ten minutes has left which was taken at 1,000,000 s by the wall clock.
    fn left_s(wall_s: i64, taken: Option<SinceBoot>, now: Option<SinceBoot>) -> u64 {
        let clocks = Clocks(Timestamp(wall_s * 1_000), now);
        let used = used(Timestamp(1_000_000_000), taken.as_ref(), &clocks);
        time_left(Duration::from_secs(600), used).as_secs()
    }

    #[test]
    fn a_turn_that_is_taken_up_has_the_time_left_that_it_had_whatever_the_wall_clock_says() {
        let at = |boot: &str, s: u64| {
            Some(SinceBoot {
                boot: boot.to_owned(),
                ms: s * 1_000,
            })
        };
        for wall_s in [1_000_100, 1_000_000 - 86_400, 1_000_000 + 86_400] {
            assert_eq!(left_s(wall_s, at("a", 50), at("a", 150)), 500);
        }
        assert_eq!(
            left_s(1_000_100, at("a", 50), at("a", 700)),
            0,
            "its time is over"
        );
        // Only the wall clock can tell.
        for (taken, now) in [
            (at("a", 50), at("b", 9)),
            (None, at("a", 150)),
            (at("a", 50), None),
        ] {
            assert_eq!(left_s(1_000_100, taken.clone(), now.clone()), 500);
            assert_eq!(
                left_s(1_000_000 - 86_400, taken.clone(), now.clone()),
                600,
                "set back"
            );
            assert_eq!(left_s(1_000_000 + 86_400, taken, now), 60, "set forward");
        }
    }
}
