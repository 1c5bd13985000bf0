//! Starting a session's program anew in its place: once after each unexpected end, and when its persona has changed.
//! The conversation is resumed by its own id. An end that somebody asked for is never answered with a start: a
//! terminate that comes while a restart is under way wins, and so does the end of the core.

use std::time::Duration;

use domain::session::SessionState;
use domain::{CommandId, SessionId};
use session::{SessionExit, StartMode};
use tokio::time::Instant;

use super::ending::After;
use super::seats::Live;
use super::{Event, EventLoop, Work};
use crate::stopping::StopHow;
use crate::view::TAKEN_OVER;

/// How long the old program may take to be proven gone and to send its last reports.
const END_LIMIT: Duration = Duration::from_secs(60);

/// A restart under way: until the old program is proven gone and its last report was heard.
pub(crate) struct Restart {
    mode: StartMode,
    gone: bool,
    heard: bool,
    limit: Instant,
}

impl EventLoop {
    /// A program has ended, whoever wanted it.
    pub(super) fn program_ended(&mut self, id: SessionId, exit: SessionExit) {
        let stopping = self.is_stopping();
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        if self.stopping == Some(StopHow::Leave) && live.session.is_none() && !live.ending {
            // It is left already: its holder tells the next core the same.
            return;
        }
        if let Some(restart) = &mut live.restart {
            restart.heard = true;
            live.conversation = exit.conversation;
            return self.go_on_with_restart(id);
        }
        let how = match (exit.code, exit.signal.as_deref()) {
            (Some(code), _) => format!("the agent program ended with code {code}"),
            (None, Some(signal)) => format!("the agent program was ended by {}", signal_words(signal)),
            (None, None) => exit
                .words
                .clone()
                .unwrap_or_else(|| "the agent program ended".to_owned()),
        };
        live.conversation = exit.conversation;
        let (agent, was_ready, warm, asked) =
            (live.agent, live.was_ready, live.warm, live.ending || stopping);
        // Code 0 at rest: somebody at the keyboard has told it to end.
        let by_hand = exit.code == Some(0) && live.rested && was_ready;
        let over = asked || by_hand;
        // Whoever ends what stands ready does not want it to stand there again at once.
        let unwanted = by_hand && live.ahead && !warm;
        let resumed = live.unchecked && !was_ready;
        let unexpected = !over && !exit.wanted;
        let again = !over && was_ready && !warm && live.place.is_some();
        let paused = unexpected && self.count_failure(agent, &how);
        if again && !paused {
            tracing::warn!(session = %id, how, unexpected, "a session's program ended; it is started again");
            self.restart_ended(id, unexpected);
        } else {
            if unexpected {
                tracing::warn!(session = %id, how, paused, "a session ended unexpectedly");
            }
            self.state_changed(id, SessionState::Exited { code: exit.code });
            if resumed && !asked {
                let words = exit.words.unwrap_or(how);
                return self.lose(id, &words);
            }
            // How a program ends that we end ourselves tells nothing.
            if !(asked && exit.wanted) {
                self.keep_last_words(id, exit.words, how);
            }
            if warm && !asked {
                self.warm_session_failed(id);
            } else if unwanted && !asked {
                self.warm_start_failed("somebody has ended the one that stood ready");
            }
            self.end_process(id, After::ClearAway);
            self.advance_line();
        }
    }

    /// A core of a later launch holds this session: nothing of it is ended, told or started again by this one, and its
    /// commands are that core's, as the journal has them. Two cores are not to work in one folder: the earlier one ends,
    /// and leaves its other sessions to their holders, for the later one to find.
    pub(super) fn taken_over(&mut self, id: SessionId, words: &str) {
        let title = self
            .sessions
            .remove(&id)
            .map(|live| live.title)
            .unwrap_or_default();
        self.leftovers.leave(id);
        self.untold.remove(&id);
        self.directory.remove(id);
        tracing::warn!(session = %id, title, words, "another core holds a session of ours");
        let message = format!(
            "another SEMO Office on this computer took over {}; its sessions go on there",
            self.ground.paths.data_dir.display()
        );
        let hint = "Use that one: `semo status` shows where it is. This one has ended.";
        self.problem(TAKEN_OVER, message, hint);
        self.leave_now();
        let its = |(command, work): (&CommandId, &Work)| {
            (work.stage.session() == Some(id) || self.leftovers.is_about(*command, id)).then_some(*command)
        };
        let its: Vec<CommandId> = self.work.iter().filter_map(its).collect();
        for command in its {
            self.let_go(command);
        }
    }

    /// A warm session has ended, whoever wanted it: nothing was sent to it, so what waits for it gets another one.
    pub(super) fn warm_session_failed(&mut self, id: SessionId) {
        let why = self.sessions.get(&id).and_then(|live| live.asks.clone());
        let why = why.unwrap_or_else(|| "it has ended".to_owned());
        self.warm_start_failed(&why);
        self.put_back_in_line(id, &format!("the session that stood ready has ended: {why}"));
    }

    fn restart_ended(&mut self, id: SessionId, unexpected: bool) {
        if let Some(live) = self.sessions.get_mut(&id) {
            live.restarts += u32::from(unexpected);
            live.begin_restart(true);
        }
        self.note_restart(id);
    }

    /// Ends the program of an idle session and starts it anew in its place: it reads its instructions only at its start.
    pub(super) fn renew(&mut self, id: SessionId, why: &'static str) {
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        if live.ending || live.restart.is_some() || live.session.is_none() || live.place.is_none() {
            return;
        }
        if !live.is_idle_now() {
            // Somebody has begun a turn at its keyboard: that is not ended. It is looked at when it rests.
            live.look_again = true;
            return;
        }
        tracing::info!(session = %id, why, "a session is renewed");
        live.begin_restart(false);
        self.note_restart(id);
    }

    fn note_restart(&mut self, id: SessionId) {
        self.changed = true;
        let now = self.now();
        if let Err(error) = self
            .ground
            .journal
            .set_session_state(id, &SessionState::Starting, now)
        {
            tracing::warn!(session = %id, %error, "a session's state is not in the journal");
        }
        self.tell_office(id);
        self.end_process(id, After::StartAgain);
    }

    /// The old program is proven gone.
    pub(super) fn gone_for_restart(&mut self, id: SessionId) {
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        match &mut live.restart {
            Some(restart) => {
                restart.gone = true;
                self.go_on_with_restart(id);
            }
            // Somebody has asked for its end meanwhile.
            None => self.clear_place(id),
        }
    }

    fn go_on_with_restart(&mut self, id: SessionId) {
        let stopping = self.is_stopping();
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(mode) = live
            .restart
            .take_if(|restart| restart.gone && restart.heard)
            .map(|restart| restart.mode)
        else {
            return;
        };
        self.directory.remove(id);
        match self.stopping {
            // The next core starts it again.
            Some(StopHow::Leave) => self.detached(id),
            _ if stopping => self.clear_place(id),
            _ => self.start_again(id, mode),
        }
    }

    /// Starts a session's program again, in its place.
    pub(super) fn start_again(&mut self, id: SessionId, mode: StartMode) {
        match self.plan_restart(id, mode) {
            Ok(opening) => {
                tracing::info!(session = %id, ?mode, "starting a session again");
                self.start(async move {
                    Event::Opened {
                        session: id,
                        result: opening.run().await,
                    }
                });
            }
            Err(fault) => self.lose(id, &fault.message),
        }
    }

    /// A session that cannot be taken up again: it ends, and that is told.
    pub(super) fn lose(&mut self, id: SessionId, why: &str) {
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        let message = format!(
            "session {} ({id}) could not be taken up again: {why}; its worktree is {}",
            live.title,
            live.worktree.display()
        );
        live.asks = Some(message.clone());
        live.restart = None;
        live.ending = true;
        let has_program = live.session.is_some();
        let hint = "A new session is started for the next prompt; the old conversation is not in it.";
        self.problem("session_lost", message, hint);
        if has_program {
            self.end_process(id, After::ClearAway);
        } else {
            self.clear_place(id);
        }
    }

    /// Looks after the worktree of a session whose program is proven gone.
    pub(super) fn clear_place(&mut self, id: SessionId) {
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        live.ending = true;
        let place = live.place.take();
        let start_files = self.ground.paths.session(id);
        self.start(async move {
            let left = super::ending::clear_all(id, place, &start_files).await;
            Event::Gone {
                session: id,
                left: Ok(left),
            }
        });
    }

    /// Somebody asks for the end of a session: a restart that is under way is none any more.
    pub(super) fn forget_restart(&mut self, id: SessionId) {
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        if let Some(restart) = live.restart.take() {
            live.ending = true;
            live.state = SessionState::Stopping;
            if restart.gone {
                self.clear_place(id);
            }
        }
    }

    /// Gives up restarts whose old program did not report its end.
    pub(super) fn give_up_stuck_restarts(&mut self, now: Instant) {
        let stuck: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, live)| live.restart.as_ref().is_some_and(|restart| restart.limit <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in stuck {
            tracing::error!(session = %id, "a restart does not come about");
            self.forget_restart(id);
        }
    }

    /// Marks sessions whose agent has another persona now, or is gone, and renews or ends those that are idle.
    pub(super) fn look_at_personas(&mut self) {
        let Some(data) = &self.office else { return };
        let office = data.office.id;
        let hashes: std::collections::HashMap<_, _> = data
            .rows
            .agents
            .iter()
            .map(|row| (row.id, worktree::persona_hash(&row.persona().render())))
            .collect();
        let mut changed = false;
        for live in self.sessions.values_mut().filter(|live| live.office == office) {
            let hash = hashes.get(&live.agent);
            let stale = hash != Some(&live.persona_hash);
            changed |= stale != live.stale;
            live.stale = stale;
            live.orphaned = hash.is_none();
        }
        self.changed |= changed;
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.renew_if_stale(id);
        }
    }

    /// At rest, with nobody waiting for it: the moment to renew a session whose persona has changed, or to end one
    /// whose agent is gone.
    pub(super) fn renew_if_stale(&mut self, id: SessionId) {
        let busy = self.is_busy(id);
        let Some(live) = self.sessions.get(&id) else {
            return;
        };
        if busy || !live.stale || live.ending || !crate::pool::is_at_rest(&live.state) {
            return;
        }
        if live.orphaned {
            self.give_up(id, "its agent has left the office");
        } else if live.warm {
            self.give_up(id, "its agent's persona has changed");
        } else if live.state == SessionState::Idle {
            self.renew(id, "its agent's persona has changed");
        }
    }
}

impl Live {
    fn begin_restart(&mut self, heard: bool) {
        self.restart = Some(Restart {
            mode: if self.talked {
                StartMode::Resume
            } else {
                StartMode::New
            },
            gone: false,
            heard,
            limit: Instant::now() + END_LIMIT,
        });
        self.state = SessionState::Starting;
        self.rested = false;
        self.idle_since = None;
        self.asks = None;
        // A look at the old program says nothing of the new one.
        self.look_again = self.checking;
    }
}

/// Signals by the names that the system's library has for them.
const SIGNALS: &[(&str, &str)] = &[
    ("Hangup", "1 (SIGHUP)"),
    ("Interrupt", "2 (SIGINT)"),
    ("Quit", "3 (SIGQUIT)"),
    ("Illegal instruction", "4 (SIGILL)"),
    ("Aborted", "6 (SIGABRT)"),
    ("Bus error", "7 (SIGBUS)"),
    ("Floating point exception", "8 (SIGFPE)"),
    ("Killed", "9 (SIGKILL)"),
    ("Segmentation fault", "11 (SIGSEGV)"),
    ("Broken pipe", "13 (SIGPIPE)"),
    ("Terminated", "15 (SIGTERM)"),
];

/// `Killed` is no answer to "by whom": as people look for it, where the name is a known one.
fn signal_words(name: &str) -> String {
    match SIGNALS.iter().find(|(its, _)| *its == name) {
        Some((_, words)) => format!("signal {words}"),
        // Others name the number as well.
        None => format!("the signal \"{name}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_by_its_number_and_name() {
        assert_eq!(signal_words("Killed"), "signal 9 (SIGKILL)");
        assert_eq!(signal_words("Segmentation fault"), "signal 11 (SIGSEGV)");
        assert_eq!(signal_words("Killed: 9"), "the signal \"Killed: 9\"");
    }
}
