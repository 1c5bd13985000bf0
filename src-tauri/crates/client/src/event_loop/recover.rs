//! After a start: what an earlier core has left. Its sessions are looked for in their holders and taken up again; its
//! commands come to exactly one of reported, followed, run again, unknown (`crate::recovery` decides, here it is carried
//! out).
//!
//! The looks run in tasks. Until each has come back once, or a limit is over, nothing is claimed: a command for a
//! session must not find it missing that is about to be found. A holder that does not answer is not dead: nothing of it
//! is touched, what depends on it waits, and it is tried again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use domain::session::SessionState;
use domain::{Command, CommandId, SessionId, Timestamp};
use journal::{InboxRow, Phase, Recovery, SessionRow, TurnRow};
use session::{SessionNote, StartMode};
use tokio::time::Instant;

use super::detail::Detail;
use super::finish::End;
use super::opening::START_DEADLINE;
use super::seats::{Hold, Live};
use super::settle::Judged;
use super::take_up::{Found, TakeUp};
use super::{Event, EventLoop, Stage, Work};
use crate::recovery::{Deed, Fate, Interrupted, Whereabouts, claimed_row, is_of_another_folder, resumes};
use crate::settings::SAMPLE_REPOSITORY;
use crate::view::LaunchView;

/// How long nothing is claimed while sessions are looked for: a little more than one look takes.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(15);
/// How soon a holder that did not answer is tried again, at first and later.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
const LOOK_AGAIN_LATER: Duration = Duration::from_secs(60);
/// How long commands wait for a holder that does not answer; then they are reported as unknown. It is looked for
/// further on.
pub(super) const SILENT_MAX: Duration = Duration::from_secs(300);

/// What is still to be settled of what an earlier core has left.
pub(super) struct Leftovers {
    /// When it was read; nothing before that.
    since: Option<Timestamp>,
    /// The journal could not be read yet: nothing is known, and nothing is begun.
    pub(super) unread: bool,
    /// Until when nothing is claimed at most.
    until: Instant,
    sessions: BTreeMap<SessionId, LeftSession>,
    pub(super) commands: BTreeMap<CommandId, LeftCommand>,
    /// Prompts that are marked as started in the journal but never reached an agent: they may be begun again.
    pub(super) never_entered: HashSet<CommandId>,
    pub(super) fates: HashMap<CommandId, Recovery>,
    taken_up: u32,
    ended_meanwhile: u32,
    /// Sessions that were silent for [`SILENT_MAX`].
    given_up: BTreeSet<SessionId>,
}

/// A session that is not settled yet.
struct LeftSession {
    row: SessionRow,
    turns: Vec<TurnRow>,
    /// What it says of itself before the news that it was found; heard behind that.
    notes: Vec<SessionNote>,
    looking: bool,
    /// It was looked for, and its holder did not answer.
    silent_since: Option<Instant>,
    again_at: Instant,
}

/// A command of an earlier core that is not settled yet.
#[derive(Clone)]
pub(super) struct LeftCommand {
    pub(super) phase: Phase,
    pub(super) deed: Deed,
    pub(super) turn: Option<TurnRow>,
    /// The session that had it, or that it names.
    pub(super) session: Option<SessionId>,
    /// The office has said that its lease is ours.
    pub(super) lease_is_ours: bool,
    /// It is to go on as soon as that is so.
    pub(super) goes_on: Option<Fate>,
}

impl Leftovers {
    pub(super) fn none() -> Leftovers {
        Leftovers {
            since: None,
            unread: false,
            until: Instant::now(),
            sessions: BTreeMap::new(),
            commands: BTreeMap::new(),
            never_entered: HashSet::new(),
            fates: HashMap::new(),
            taken_up: 0,
            ended_meanwhile: 0,
            given_up: BTreeSet::new(),
        }
    }

    pub(super) fn view(&self) -> LaunchView {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let silent = self
            .sessions
            .values()
            .filter(|left| left.silent_since.is_some())
            .count();
        LaunchView {
            recovering: number(self.sessions.len() - silent),
            taken_up: self.taken_up,
            ended_meanwhile: self.ended_meanwhile,
            unknown: number(silent),
            since: self.since.map_or(0, |at| at.0),
        }
    }

    /// What became of a command, in the words of the view.
    pub(super) fn fate_of(&self, id: CommandId) -> Option<Recovery> {
        self.fates.get(&id).copied()
    }

    /// A session is left as the journal has it.
    pub(super) fn leave(&mut self, id: SessionId) {
        self.sessions.remove(&id);
    }

    /// Whether a look at it is under way.
    pub(super) fn is_looked_for(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|left| left.looking)
    }

    /// It has ended.
    pub(super) fn forget(&mut self, id: CommandId) {
        self.commands.remove(&id);
        self.never_entered.remove(&id);
    }

    /// Whether a command that is not settled yet is about this session.
    pub(super) fn is_about(&self, id: CommandId, session: SessionId) -> bool {
        let left = self.commands.get(&id);
        left.is_some_and(|left| left.session == Some(session))
    }

    /// Whether it was begun by an earlier core and may still be at work.
    pub(super) fn may_run(&self, id: CommandId) -> bool {
        let may = |left: &LeftCommand| left.phase == Phase::Started && left.goes_on != Some(Fate::RunAgain);
        self.commands.get(&id).is_some_and(may)
    }

    /// Whether a prompt that the journal has as started may be begun all the same.
    pub(super) fn never_entered(&self, id: CommandId) -> bool {
        self.never_entered.contains(&id)
    }
}

impl EventLoop {
    /// The folder of a repository in which a session was started, also under another profile: that of this machine has the
    /// sample as long as the settings name none.
    fn repository_of(&self, name: &str) -> Option<PathBuf> {
        let known = self.ground.settings.repositories.get(name).cloned();
        let sample = || (name == SAMPLE_REPOSITORY).then(|| self.ground.paths.sample_repository());
        known.or_else(|| sample().filter(|folder| folder.is_dir()))
    }

    /// Whether sessions are still being looked for, so that nothing is claimed.
    pub(super) fn is_recovering(&self) -> bool {
        let unseen = |left: &LeftSession| left.silent_since.is_none();
        let seeks = Instant::now() < self.leftovers.until && self.leftovers.sessions.values().any(unseen);
        self.leftovers.unread || seeks
    }

    /// Whether nothing new may be asked of the office: at the start, when the core ends, and while it switches to another
    /// one or signs out.
    pub(super) fn takes_nothing_new(&self) -> bool {
        self.is_stopping() || self.is_recovering() || self.is_turning()
    }

    /// Whether this session is still being looked for.
    pub(super) fn is_unsettled(&self, id: SessionId) -> bool {
        self.leftovers.sessions.contains_key(&id)
    }

    /// At start: reads what an earlier core has left, and begins to look for it. A journal that cannot be read is read
    /// again at the next tick; nothing is claimed before, since what is claimed may run already.
    pub(super) fn recover(&mut self) {
        let journal = &self.ground.journal;
        let read = (|| {
            Ok((
                journal.unfinished()?,
                journal.open_turns()?,
                journal.open_sessions()?,
            ))
        })();
        let (commands, turns, sessions) = match read {
            Ok(read) => read,
            Err(error) => {
                let error: journal::JournalError = error;
                self.leftovers.unread = true;
                let hint = "What an earlier start has left cannot be told: nothing is begun before it can be read. It is tried again by itself.";
                return self.problem("journal", error.to_string(), hint);
            }
        };
        if std::mem::take(&mut self.leftovers.unread) {
            self.solved("journal");
        }
        self.leftovers.since = Some(self.now());
        self.recall_pauses();
        let known: BTreeSet<String> = sessions.iter().map(|row| row.id.to_string()).collect();
        self.end_strays(&known);
        self.leftovers.until = Instant::now() + SETTLE_WAIT_MAX;
        if !commands.is_empty() || !sessions.is_empty() {
            tracing::info!(
                commands = commands.len(),
                sessions = sessions.len(),
                "an earlier core has left these"
            );
        }
        // One that this core has started itself needs no finding.
        let left = |row: &SessionRow| !self.sessions.contains_key(&row.id);
        let sessions: Vec<SessionRow> = sessions.into_iter().filter(left).collect();
        for row in sessions {
            let its = turns
                .iter()
                .filter(|turn| turn.turn.session == row.id)
                .cloned()
                .collect();
            self.look_for(row, its);
        }
        for row in commands {
            self.take_over(row, &turns);
        }
        self.outbox_bell.notify_one();
        self.changed = true;
    }

    /// Puts a session among ours, as far as the journal knows it, and has its holder looked for.
    fn look_for(&mut self, row: SessionRow, turns: Vec<TurnRow>) {
        let id = row.id;
        let detail = Detail::of(&row).unwrap_or_default();
        self.sessions.insert(id, Live::left(&row, &detail));
        self.leftovers.sessions.insert(
            id,
            LeftSession {
                row,
                turns,
                notes: Vec::new(),
                looking: false,
                silent_since: None,
                again_at: Instant::now(),
            },
        );
        self.look(id);
    }

    /// Looks for the holder of a session, in a task.
    fn look(&mut self, id: SessionId) {
        let Some(left) = self.leftovers.sessions.get(&id) else {
            return;
        };
        let (row, turns) = (left.row.clone(), left.turns.clone());
        if let Some(live) = self.sessions.get(&id) {
            self.detectors.know(live.version);
        }
        let Some(take_up) = self.plan_take_up(row, turns) else {
            return;
        };
        if let Some(left) = self.leftovers.sessions.get_mut(&id) {
            left.looking = true;
        }
        self.start(async move {
            Event::TakenUp {
                session: id,
                found: Box::new(take_up.run().await),
            }
        });
    }

    fn plan_take_up(&self, row: SessionRow, turns: Vec<TurnRow>) -> Option<TakeUp> {
        let live = self.sessions.get(&row.id)?;
        Some(TakeUp {
            spec: self.spec_of_left(row.id, live),
            holders: self.ground.holders.clone(),
            repository: self.repository_of(&row.repository),
            row,
            turns,
            directory: self.directory.clone(),
            secret: live.secret.clone(),
            now: self.now(),
            tasks: self.ground.tasks.clone(),
            notes: self.notes_in.clone(),
        })
    }

    /// Takes a journalled command into our hands again; it goes on when its session is settled and its lease is ours.
    fn take_over(&mut self, row: InboxRow, turns: &[TurnRow]) {
        let id = row.command.id;
        if is_of_another_folder(&row, self.ground.identity.folder_key()) {
            return self.leave_to_its_lease(&row);
        }
        if self.leave_to_its_account(&row, turns) {
            return;
        }
        let Some(claimed) = claimed_row(&row) else {
            // Of a version that kept less: what had begun cannot be followed, what had not comes with a claim.
            if row.phase == Phase::Started {
                self.finish_unknown(id);
            }
            return;
        };
        let turn = turns
            .iter()
            .rev()
            .find(|turn| turn.turn.command == Some(id))
            .cloned();
        let command = match Command::parse(&claimed.kind, &claimed.args) {
            Ok(command) => command,
            // Of a later version: what it has done cannot be told.
            Err(_) if row.phase == Phase::Started => return self.finish_unknown(id),
            // What it is not is told when it is opened.
            Err(_) => Command::ListSessions,
        };
        let deed = Deed::of(&command);
        let session = match (&turn, &command) {
            (Some(turn), _) => Some(turn.turn.session),
            (None, Command::Terminate(args)) => Some(args.session),
            (None, Command::Cancel(args)) => args.session,
            (None, Command::SendKeys(args)) => Some(args.session),
            (None, Command::Approve(args)) => Some(args.session),
            (None, _) => row.command.session,
        };
        self.desk.hold_again(&claimed, self.moment());
        let work = Work {
            stage: Stage::Recovering,
            started_at: row.started_at,
            ..Work::new(claimed, command)
        };
        self.work.insert(id, work);
        self.leftovers.commands.insert(
            id,
            LeftCommand {
                phase: row.phase,
                deed,
                turn,
                session,
                lease_is_ours: false,
                goes_on: None,
            },
        );
        // What has had no effect needs no session to be found first; a new one that was made for it does.
        let needs_it = row.phase == Phase::Started || deed == Deed::Create;
        if !needs_it || session.is_none_or(|session| !self.is_unsettled(session)) {
            self.settle_command(id, Whereabouts::Gone, None);
        }
    }

    /// Looks again for what did not answer, and ends the waiting for it.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.leftovers.unread && !self.is_stopping() {
            self.recover();
        }
        let due: Vec<SessionId> = self
            .leftovers
            .sessions
            .iter()
            .filter(|(_, left)| !left.looking && left.again_at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.look(id);
        }
        let too_long: Vec<SessionId> = self
            .leftovers
            .sessions
            .iter()
            .filter(|(id, left)| {
                !self.leftovers.given_up.contains(*id)
                    && left.silent_since.is_some_and(|since| now >= since + SILENT_MAX)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in too_long {
            self.leftovers.given_up.insert(id);
            self.give_up_waiting_for(id);
        }
    }

    /// A session was looked for.
    pub(super) fn taken_up(&mut self, id: SessionId, found: Found) {
        let Some(left) = self.leftovers.sessions.get_mut(&id) else {
            // The core ends; what was found stays where it is.
            return self.directory.remove(id);
        };
        left.looking = false;
        match found {
            Found::Silent { why } => self.is_silent(id, &why),
            Found::Attached {
                session,
                place,
                mut judged,
            } => {
                let (turns, notes) = self.settled(id);
                self.attached(id, session, place);
                self.keep_what_was_judged_elsewhere(id, &mut judged);
                self.hold_for_elsewhere(id);
                let goes_on = self.sessions.get(&id).is_some_and(|live| live.taken_up);
                tracing::info!(session = %id, goes_on, "a session of an earlier core was found");
                self.leftovers.taken_up += u32::from(goes_on);
                self.settle_commands_of(id, Whereabouts::Attached, judged);
                self.close_turns(&turns);
                self.after_settling(id);
                for note in notes {
                    self.take_note(note);
                }
            }
            Found::Gone {
                why,
                place,
                mut judged,
            } => {
                let (turns, _) = self.settled(id);
                self.keep_what_was_judged_elsewhere(id, &mut judged);
                tracing::warn!(session = %id, why, "a session of an earlier core is over");
                self.leftovers.ended_meanwhile += 1;
                self.directory.remove(id);
                if let Some(live) = self.sessions.get_mut(&id) {
                    live.place = place;
                    live.hold = None;
                }
                self.settle_commands_of(id, Whereabouts::Gone, judged);
                self.close_turns(&turns);
                self.end_or_resume(id);
                self.after_settling(id);
            }
        }
    }

    fn settled(&mut self, id: SessionId) -> (Vec<TurnRow>, Vec<SessionNote>) {
        self.changed = true;
        self.leftovers.given_up.remove(&id);
        let left = self.leftovers.sessions.remove(&id);
        if !self
            .leftovers
            .sessions
            .values()
            .any(|left| left.silent_since.is_some())
        {
            self.solved("session_held");
        }
        left.map(|left| (left.turns, left.notes)).unwrap_or_default()
    }

    fn attached(
        &mut self,
        id: SessionId,
        session: session::Session,
        place: Result<worktree::Worktree, String>,
    ) {
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        live.session = Some(session);
        live.hold = None;
        live.asks = None;
        // One that stood ready, or was about to end, is ended in a moment: it does not go on.
        live.taken_up = !live.warm && !live.ending;
        live.unchecked |= live.was_ready;
        if !live.was_ready {
            live.start_deadline = Some(Instant::now() + START_DEADLINE);
        }
        match place {
            Ok(place) => {
                live.branch = place.branch.clone();
                live.place = Some(place);
            }
            Err(why) => {
                let message = format!(
                    "session {} ({id}) goes on, but its worktree {} cannot be used: {why}",
                    live.title,
                    live.worktree.display()
                );
                let hint = "It gets no new work; look at the folder before its session ends.";
                self.problem("session_place", message, hint);
            }
        }
    }

    /// What is left to be done with a session that was found, once its commands are settled.
    fn after_settling(&mut self, id: SessionId) {
        if let Some(live) = self.sessions.get(&id)
            && live.session.is_some()
        {
            if self.is_at_its_end() || live.ending {
                self.end_process(id, super::ending::After::ClearAway);
            } else if live.warm {
                // What was typed into it while no core looked is not known.
                self.put_back_in_line(id, "the session that stood ready was left by an earlier start");
                self.give_up(id, "it stood ready when the core ended");
            }
        }
        self.go_on_with_those_that_waited(id);
        self.advance_line();
        if !self.is_recovering() {
            self.claim("the sessions of an earlier core are settled");
        }
    }

    /// Commands that named the session while it was looked for.
    fn go_on_with_those_that_waited(&mut self, id: SessionId) {
        if self.is_stopping() {
            return;
        }
        let waits = |work: &&Work| work.stage == Stage::UntilSettled { session: id };
        let mut waiting: Vec<_> = self.work.values().filter(waits).collect();
        waiting.sort_by_key(|work| work.row.seq);
        let waiting: Vec<CommandId> = waiting.into_iter().map(|work| work.row.id).collect();
        for command in waiting {
            self.wait_for(command, Stage::UntilLetBegin);
            self.carry_out_late(command);
        }
    }

    fn is_silent(&mut self, id: SessionId, why: &str) {
        let now = Instant::now();
        if self.is_at_its_end() {
            self.leftovers.sessions.remove(&id);
            self.sessions.remove(&id);
            return;
        }
        let Some(left) = self.leftovers.sessions.get_mut(&id) else {
            return;
        };
        let since = *left.silent_since.get_or_insert(now);
        let pause = if now < since + SILENT_MAX {
            LOOK_AGAIN_AFTER
        } else {
            LOOK_AGAIN_LATER
        };
        left.again_at = now + pause;
        tracing::warn!(session = %id, why, "what holds a session does not answer");
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        // Its hooks are not kept waiting for it.
        self.directory.remove(id);
        let first = live.hold != Some(Hold::Held);
        live.hold = Some(Hold::Held);
        let message = format!(
            "session {} ({id}) may still run, but cannot be reached: {why}",
            live.title
        );
        live.asks = Some(message.clone());
        let hint = "Nothing of it is touched; it is tried again by itself. `semo doctor` tells more.";
        self.problem("session_held", message, hint);
        if first {
            self.settle_commands_of(id, Whereabouts::Silent, Judged::new());
        }
        if !self.is_recovering() {
            self.claim("the sessions of an earlier core were looked for");
        }
    }

    /// Why nothing more waits for this session, where it was silent for too long.
    pub(super) fn given_up_because(&self, id: SessionId) -> Option<String> {
        self.leftovers.given_up.contains(&id).then(|| {
            let why = self.sessions.get(&id).and_then(|live| live.asks.clone());
            why.unwrap_or_else(|| "its session cannot be reached".to_owned())
        })
    }

    /// What depends on a session that stays silent is told so. What certainly had no effect goes on without it.
    fn give_up_waiting_for(&mut self, id: SessionId) {
        let waiting: Vec<CommandId> = self
            .leftovers
            .commands
            .iter()
            .filter(|(_, left)| left.session == Some(id) && left.goes_on.is_none())
            .map(|(command, _)| *command)
            .collect();
        let why = self.given_up_because(id).unwrap_or_default();
        for command in waiting {
            let begun = self.leftovers.commands.get(&command).map(|left| left.phase) == Some(Phase::Started);
            if begun {
                self.ends_unknown(command, None);
            } else {
                self.end(command, End::failed("session_held", why.clone()));
            }
        }
        self.end_all_waiting_for(id, &End::failed("not_stopped", why.clone()));
        let named: Vec<CommandId> = self
            .work
            .iter()
            .filter(|(_, work)| work.stage == Stage::UntilSettled { session: id })
            .map(|(command, _)| *command)
            .collect();
        for command in named {
            self.end(command, End::failed("session_held", why.clone()));
        }
    }

    /// A note of a session that is not settled yet is kept for that moment; any other is given back.
    pub(super) fn kept_until_settled(&mut self, note: SessionNote) -> Option<SessionNote> {
        match self.leftovers.sessions.get_mut(&session_of(&note)) {
            Some(left) => {
                left.notes.push(note);
                None
            }
            None => Some(note),
        }
    }

    /// The session that a command names, while that is still being looked for.
    pub(super) fn named_and_unsettled(&self, id: CommandId) -> Option<SessionId> {
        let work = self.work.get(&id)?;
        let named = match &work.command {
            Command::SendPrompt(args) => args.session.or(work.row.session_id),
            Command::SendKeys(args) => Some(args.session),
            Command::Cancel(args) => args.session,
            Command::GetOutput(args) => Some(args.session),
            Command::Terminate(args) => Some(args.session),
            Command::Approve(args) => Some(args.session),
            Command::CreateSession(_) | Command::ListSessions => None,
        };
        named.filter(|session| self.is_unsettled(*session))
    }

    /// Whether a command of an earlier core has certainly had no effect.
    pub(super) fn has_had_no_effect(&self, id: CommandId) -> bool {
        self.leftovers
            .commands
            .get(&id)
            .is_some_and(|left| left.phase == Phase::Received || left.goes_on == Some(Fate::RunAgain))
    }

    /// A session whose program is proven gone: its conversation goes on with a new program where somebody was in the
    /// midst of it, else its place is looked after as at every end.
    fn end_or_resume(&mut self, id: SessionId) {
        let (now, stopping) = (self.now(), self.is_stopping());
        let idle_ms = u64::from(self.limits().idle_minutes) * 60_000;
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        let left = Interrupted {
            was_ready: live.was_ready,
            talked: live.talked,
            warm: live.warm,
            ending: live.ending,
            has_place: live.place.is_some(),
            idle_ms: live.idle_since.map(|since| now.ms_since(since)),
        };
        if !stopping && resumes(&left, idle_ms) {
            live.resumes = true;
            self.resume_those_that_wait();
        } else {
            live.state = SessionState::Exited { code: None };
            self.clear_place(id);
        }
    }

    /// Starts the programs again of sessions whose machine or holder went down: as soon as their agents are known and
    /// the agent program was looked for.
    pub(super) fn resume_those_that_wait(&mut self) {
        if !self.program_looked_for || self.is_stopping() {
            return;
        }
        let Some(data) = &self.office else { return };
        let office = data.office.id;
        let waiting: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, live)| live.resumes && live.office == office)
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            if let Some(live) = self.sessions.get_mut(&id) {
                live.resumes = false;
            }
            self.start_again(id, StartMode::Resume);
        }
    }
}

fn session_of(note: &SessionNote) -> SessionId {
    match note {
        SessionNote::State { session, .. }
        | SessionNote::Asked { session, .. }
        | SessionNote::AskClosed { session, .. }
        | SessionNote::Retrying { session, .. }
        | SessionNote::TurnEnded { session, .. }
        | SessionNote::TakenOver { session, .. }
        | SessionNote::Exited { session, .. } => *session,
    }
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
