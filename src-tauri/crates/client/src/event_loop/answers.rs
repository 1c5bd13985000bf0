//! Answers to asks: from a window, the program `semo`, or a command of the office, to a session here or elsewhere.
//!
//! An answer is checked, let through ([`Asks::take`](super::asks::Asks)), given to the session in a task, and comes back
//! as an event; whoever waits hears whether it counted, and if not, who was first. Called for requests (`requests`) and
//! the command `approve` (`carry`).

use domain::ask::{AnswerWay, Answerer, AskAnswer, AskEnd};
use domain::command::Approve;
use domain::fault::chain;
use domain::{AskId, CommandId, SessionId};
use serde_json::json;
use session::SessionError;
use tokio::sync::oneshot;

use super::ask_news::wording;
use super::asks::{Ended, Held};
use super::finish::End;
use super::{Event, EventLoop, Stage};
use crate::request::{Answer, ErrorCode, PersonsWay, RequestError};

type Reply = oneshot::Sender<Result<Answer, RequestError>>;

/// Asks that are named to somebody who has to choose.
const ASKS_LISTED_MAX: usize = 8;
/// As much of each as tells them apart, in characters.
const ASK_HEAD_CHARS_MAX: usize = 80;

/// Who waits to hear whether an answer counted.
pub(crate) enum Caller {
    /// A person at a window, or the CLI.
    Person(Reply),
    /// A command of the office.
    Command(CommandId),
}

/// An answer that a session has taken, or has not.
pub(crate) struct Given {
    ask: AskId,
    answer: AskAnswer,
    by: Answerer,
    caller: Caller,
    taken: Taken,
}

/// What a session made of an answer.
enum Taken {
    /// It counts.
    Yes,
    /// The ask was over before; how, in words.
    Over(String),
    /// It is no answer to this ask.
    Unfit(String),
    /// It could not be given; somebody may try again.
    No(String),
    /// It is not known whether it was given.
    Unsure(String),
}

/// Why an answer does not count.
pub(super) enum Refusal {
    Invalid(String),
    NotFound(String),
    Conflict(String),
    NotTaken(String),
    Unsure(String),
}

impl EventLoop {
    /// A person at this workstation answers.
    pub(super) fn answer_ask(&mut self, id: AskId, answer: AskAnswer, way: PersonsWay, reply: Reply) {
        let known = self.asks.pending.contains_key(&id) || self.asks.end_of(id).is_some();
        if !known {
            return self.answer_elsewhere(id, answer, reply);
        }
        let user = self.ground.auth.user();
        let by = Answerer {
            way: match way {
                PersonsWay::Window => AnswerWay::Window,
                PersonsWay::Cli => AnswerWay::Cli,
            },
            who: user.map(|user| user.to_string()).unwrap_or_default(),
        };
        self.give_answer(id, answer, by, Caller::Person(reply));
    }

    /// An ask of a session on another machine is answered by a command to that machine.
    fn answer_elsewhere(&mut self, id: AskId, answer: AskAnswer, reply: Reply) {
        let refuse = |reply: Reply, refusal: Refusal| {
            let _ = reply.send(Err(refusal.into_error()));
        };
        let row = self
            .office
            .as_ref()
            .and_then(|data| data.rows.asks.iter().find(|row| row.id == id));
        let Some(row) = row else {
            let message = format!("there is no ask {id} in this office");
            return refuse(reply, Refusal::NotFound(message));
        };
        if row.state != supabase::AskState::Pending {
            return refuse(reply, Refusal::Conflict(wording::end_of_row(row)));
        }
        if self
            .office
            .as_ref()
            .is_some_and(|data| data.client == row.client_id)
        {
            let message = "its session has ended on this workstation".to_owned();
            return refuse(reply, Refusal::Conflict(message));
        }
        if let Err(fault) = answer.check(&wording::ask_of_row(row)) {
            return refuse(reply, Refusal::Invalid(fault.to_string()));
        }
        let (session, agent) = (row.session_id, row.agent_id);
        let args = Approve {
            session,
            ask: Some(id),
            answer,
        };
        self.enqueue("approve", &args, agent, Some(session), reply);
    }

    /// The command `approve`.
    pub(super) fn approve(&mut self, id: CommandId, args: Approve) {
        if self.session_of(id, args.session).is_none() {
            return self.no_such_session(id, args.session);
        }
        let waiting = match args.ask {
            Some(ask) => {
                let its = |ended: &Ended| ended.ask.session == args.session;
                let held = self
                    .asks
                    .pending
                    .get(&ask)
                    .map(|held| held.ask.session == args.session);
                held.unwrap_or_else(|| self.asks.end_of(ask).is_some_and(its))
                    .then_some(ask)
            }
            None => match self.asks.all_of_session(args.session).as_slice() {
                [] => None,
                [one] => Some(one.ask.id),
                // Whoever sent it may have seen one of them only, and not the one that is the oldest by now.
                several => {
                    let message = which_of(args.session, several);
                    return self.end(id, End::failed("conflict", message));
                }
            },
        };
        let Some(ask) = waiting else {
            let message = match args.ask {
                Some(ask) => format!("session {} does not wait with an ask {ask}", args.session),
                None => format!("session {} does not wait for an answer", args.session),
            };
            return self.end(id, End::failed("not_found", message));
        };
        let by = Answerer {
            way: AnswerWay::Command,
            who: id.to_string(),
        };
        self.give_answer(ask, args.answer, by, Caller::Command(id));
    }

    fn give_answer(&mut self, id: AskId, answer: AskAnswer, by: Answerer, caller: Caller) {
        if let Err(refusal) = self.asks.take(id, &answer, &by) {
            return self.refuse_answer(caller, refusal);
        }
        let session = self.asks.pending.get(&id).map(|held| held.ask.session);
        let handle = session
            .and_then(|session| self.sessions.get(&session))
            .and_then(|live| live.session.clone());
        let Some(handle) = handle else {
            self.put_back(id);
            return self.refuse_answer(caller, Refusal::Conflict("its session is being ended".to_owned()));
        };
        if let Caller::Command(command) = caller {
            // The answer is an effect: without the note in the journal it is not given.
            if !self.mark_started(command) {
                return self.put_back(id);
            }
            self.wait_for(command, Stage::Answering);
        }
        self.start(async move {
            let taken = Taken::of(handle.answer(id, answer.clone(), by.clone()).await);
            Event::AnswerGiven(Box::new(Given {
                ask: id,
                answer,
                by,
                caller,
                taken,
            }))
        });
    }

    /// The answer did not reach the session: somebody else may try.
    fn put_back(&mut self, id: AskId) {
        if let Some(held) = self.asks.pending.get_mut(&id) {
            held.taken_by = None;
        }
    }

    /// A session took an answer, or did not.
    pub(super) fn answer_given(&mut self, given: Given) {
        let Given {
            ask,
            answer,
            by,
            caller,
            taken,
        } = given;
        match taken {
            Taken::Yes => {
                let session = self.asks.pending.get(&ask).map(|held| held.ask.session);
                let session = session.or_else(|| self.asks.end_of(ask).map(|ended| ended.ask.session));
                // Its note says the same, and may have come before.
                let end = AskEnd::Answered {
                    answer: Some(answer.clone()),
                    by: by.clone(),
                };
                self.ask_closed(ask, end);
                let output = json!({
                    "ask_id": ask, "session_id": session, "answer": answer, "by": by,
                    "answered_at": self.now().rfc3339(),
                });
                match caller {
                    Caller::Command(id) => self.end(id, End::ok(output)),
                    Caller::Person(reply) => {
                        let choices = self.asks.end_of(ask).map(|ended| ended.ask.choices.as_slice());
                        let note = wording::said(&answer, choices.unwrap_or_default());
                        let _ = reply.send(Ok(Answer::note(note)));
                    }
                }
            }
            Taken::Over(how) => {
                // What the session said of its end lies in the notes already.
                while let Ok(note) = self.notes.try_recv() {
                    self.take_note(note);
                }
                let refusal = match self.asks.end_of(ask) {
                    Some(ended) => ended.in_words(),
                    None => format!("it is over: {how}"),
                };
                self.refuse_answer(caller, Refusal::Conflict(refusal));
            }
            Taken::Unfit(why) => {
                self.put_back(ask);
                self.refuse_answer(caller, Refusal::Invalid(why));
            }
            Taken::No(why) => {
                self.put_back(ask);
                self.refuse_answer(caller, Refusal::NotTaken(why));
            }
            Taken::Unsure(why) => {
                // Should it count after all, the session says that the ask is over.
                self.put_back(ask);
                self.refuse_answer(caller, Refusal::Unsure(why));
            }
        }
    }

    fn refuse_answer(&mut self, caller: Caller, refusal: Refusal) {
        match caller {
            Caller::Command(id) => {
                let (class, message) = match refusal {
                    Refusal::Invalid(message) => ("invalid", message),
                    Refusal::NotFound(message) => ("not_found", message),
                    Refusal::Conflict(message) => ("conflict", message),
                    Refusal::NotTaken(message) => ("not_answered", message),
                    Refusal::Unsure(message) => return self.end(id, End::unknown_because(message)),
                };
                self.end(
                    id,
                    End::failed(class, format!("the answer does not count: {message}")),
                );
            }
            Caller::Person(reply) => {
                let _ = reply.send(Err(refusal.into_error()));
            }
        }
    }
}

/// Says what a session waits with, for somebody who has to name one of it.
pub(super) fn which_of(session: SessionId, asks: &[&Held]) -> String {
    let one = |held: &&Held| {
        let head: String = held.ask.text.chars().take(ASK_HEAD_CHARS_MAX).collect();
        format!("{} ({})", held.ask.id, head.replace(['\n', '\r'], " "))
    };
    let listed: Vec<_> = asks.iter().take(ASKS_LISTED_MAX).map(one).collect();
    let more = match asks.len().saturating_sub(listed.len()) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!(
        "session {session} waits with {} asks; name one as `ask`: {}{more}",
        asks.len(),
        listed.join("; ")
    )
}

impl Taken {
    fn of(result: Result<(), SessionError>) -> Taken {
        match result {
            Ok(()) => Taken::Yes,
            Err(SessionError::AskOver { how, .. }) => Taken::Over(how),
            Err(SessionError::Answer { source, .. }) => Taken::Unfit(source.to_string()),
            Err(error @ SessionError::AnswerUnsure { .. }) => Taken::Unsure(chain(&error)),
            Err(error) => Taken::No(chain(&error)),
        }
    }
}

#[cfg(test)]
impl Given {
    /// What a session made of the answer that a command gives.
    pub(super) fn of_command(
        command: CommandId,
        ask: AskId,
        answer: AskAnswer,
        by: Answerer,
        result: Result<(), SessionError>,
    ) -> Given {
        Given {
            ask,
            answer,
            by,
            caller: Caller::Command(command),
            taken: Taken::of(result),
        }
    }
}

impl Refusal {
    fn into_error(self) -> RequestError {
        let (code, message, hint) = match self {
            Refusal::Invalid(message) => (ErrorCode::Invalid, message, ""),
            Refusal::NotFound(message) => (ErrorCode::NotFound, message, "`semo asks` lists what waits."),
            Refusal::Conflict(message) => (ErrorCode::Conflict, message, ""),
            Refusal::NotTaken(message) => (
                ErrorCode::Conflict,
                message,
                "Try again, or answer it in the session's own terminal.",
            ),
            Refusal::Unsure(message) => return RequestError::new(ErrorCode::Conflict, message, ""),
        };
        RequestError::new(code, format!("the answer does not count: {message}"), hint)
    }
}
