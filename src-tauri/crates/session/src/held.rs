//! Asks that are open, with the hook requests that are held for their answers.
//!
//! The program shows its dialog and holds its request at the same time: whoever answers first wins. A request that the
//! program gives up, or that is lost, leaves the dialog; then the answer is typed into it, after a look that it is
//! this very dialog.

use std::collections::VecDeque;
use std::path::Path;
use std::task::Poll;

use domain::ask::{AnswerWay, Answerer, AskAnswer, AskEnd, PendingAsk};
use domain::session::Ask;
use domain::{AskId, SessionId};
use provider::detect::{Dialog, ScreenMeaning};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::actor::Actor;
use crate::error::{SessionError, is_never_typed};
use crate::follow::{AskOver, AskSeen};
use crate::observe::NotPressed;
use crate::recognise::{Sight, asks_for_file, essence, is_same, offers, sight};
use crate::report::SessionNote;

/// Closed asks of which it is still known how they were closed.
const CLOSED_MAX: usize = 32;
/// Requests that may be held for one ask.
const HELD_MAX: usize = 4;

/// What a hook request is to be answered with.
#[derive(Debug)]
pub enum HookReply {
    /// Nothing: at once.
    Now,
    /// What a person decides. Dropped when the session ends: then nothing is decided by it.
    Held(oneshot::Receiver<Value>),
}

impl HookReply {
    /// Waits for the body of the answer. Dropping this releases the request.
    pub async fn body(self) -> Value {
        match self {
            HookReply::Now => json!({}),
            HookReply::Held(answer) => answer.await.unwrap_or_else(|_| json!({})),
        }
    }
}

/// An answer on its way to the actor.
pub(crate) struct Answering {
    pub(crate) ask: AskId,
    pub(crate) answer: AskAnswer,
    pub(crate) by: Answerer,
    pub(crate) reply: oneshot::Sender<Result<(), SessionError>>,
}

/// An ask that was told.
struct HeldAsk {
    key: u64,
    pending: PendingAsk,
    input: Value,
    replies: Vec<oneshot::Sender<Value>>,
    /// The program has given up a request for it: it was answered at the terminal, or the connection was lost.
    released: bool,
    /// What identifies its dialog, as it stood when the ask was raised from the screen alone.
    dialog: Option<String>,
    /// The screen that it was raised from is still to be kept.
    is_new: bool,
}

impl HeldAsk {
    /// Whether it is certain that the dialog on the screen is its own.
    fn is_shown(&self, dialog: Dialog, rows: &[String], worktree: &Path) -> bool {
        let of_file = self.pending.tool.is_none() && dialog == Dialog::Permission;
        let is_kept = self
            .dialog
            .as_deref()
            .filter(|_| of_file)
            .is_some_and(|kept| asks_for_file(rows, &self.input, worktree) && is_same(rows, kept));
        is_kept || sight(rows, dialog, &self.pending, &self.input) == Sight::Its
    }
}

/// The asks of a session.
#[derive(Default)]
pub(crate) struct Held {
    open: Vec<HeldAsk>,
    closed: VecDeque<(AskId, String)>,
}

impl Held {
    /// Waits until a held request is released by the program. Never, when there is none.
    pub(crate) async fn released(&mut self) -> u64 {
        std::future::poll_fn(|context| {
            for ask in &mut self.open {
                let mut gone = false;
                ask.replies.retain_mut(|reply| {
                    let closed = reply.poll_closed(context).is_ready();
                    gone |= closed;
                    !closed
                });
                if gone && ask.replies.is_empty() {
                    ask.released = true;
                    return Poll::Ready(ask.key);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// A dialog is on the screen: returns the asks of which it has changed whether they can be answered from afar. One
    /// whose request is held always can; for the others the answer is typed, into their own dialog only.
    fn look(&mut self, dialog: Dialog, rows: &[String], worktree: &Path) -> Vec<PendingAsk> {
        let is_alone = self.open.len() == 1;
        let mut changed = Vec::new();
        let can_be_answered =
            |ask: &&mut HeldAsk| matches!(ask.pending.kind, Ask::Permission | Ask::Question);
        for ask in self.open.iter_mut().filter(can_be_answered) {
            let can_type = is_alone && ask.is_shown(dialog, rows, worktree);
            let at_terminal = ask.replies.is_empty() && !can_type;
            if ask.pending.at_terminal != at_terminal {
                ask.pending.at_terminal = at_terminal;
                changed.push(ask.pending.clone());
            }
        }
        changed
    }

    fn close(&mut self, id: AskId, how: String) {
        if self.closed.len() == CLOSED_MAX {
            self.closed.pop_front();
        }
        self.closed.push_back((id, how));
    }

    fn how_closed(&self, id: AskId) -> String {
        let found = self.closed.iter().find(|(closed, _)| *closed == id);
        found.map_or_else(|| "closed".to_owned(), |(_, how)| how.clone())
    }
}

impl Actor {
    /// An ask came up, or more is known about it.
    pub(crate) fn asked(&mut self, seen: AskSeen) {
        let now = self.clock.now();
        let turn = self.carried.as_ref().map(|carried| carried.queued.request.id);
        let known = self.held.open.iter().position(|open| open.key == seen.key);
        let (id, asked_at) = match known {
            Some(place) => {
                let pending = &self.held.open[place].pending;
                (pending.id, pending.asked_at)
            }
            None => (AskId(Uuid::new_v4()), now),
        };
        let pending = PendingAsk {
            id,
            session: self.id,
            turn,
            kind: seen.kind,
            tool: seen.tool,
            text: seen.text,
            choices: seen.choices,
            asked_at,
            at_terminal: false,
        };
        match known {
            Some(place) => {
                self.held.open[place].pending = pending.clone();
                self.held.open[place].input = seen.input;
                self.held.open[place].is_new = false;
            }
            None => self.held.open.push(HeldAsk {
                key: seen.key,
                pending: pending.clone(),
                input: seen.input,
                replies: Vec::new(),
                released: false,
                dialog: None,
                is_new: true,
            }),
        }
        self.tell(SessionNote::Asked {
            session: self.id,
            ask: pending,
        });
    }

    /// Keeps what identifies the dialog of an ask that was raised in this look at the screen, and tells of the asks that
    /// only the terminal can answer now. To be called in each look.
    pub(crate) fn keep_dialogs(&mut self, meaning: &ScreenMeaning, rows: &[String]) {
        for open in self.held.open.iter_mut().filter(|open| open.is_new) {
            open.is_new = false;
            let from_screen = open.pending.tool.is_none() && open.pending.kind == Ask::Permission;
            if from_screen && *meaning == ScreenMeaning::Dialog(Dialog::Permission) {
                open.dialog = essence(rows);
            }
        }
        let ScreenMeaning::Dialog(dialog) = meaning else {
            return;
        };
        for ask in self.held.look(*dialog, rows, &self.worktree) {
            self.tell(SessionNote::Asked {
                session: self.id,
                ask,
            });
        }
    }

    /// Keeps a hook request for the answer of an ask; without one it is let go at once.
    pub(crate) fn hold(&mut self, tool: &str, input: &Value, reply: oneshot::Sender<Value>) {
        let key = self.follower.ask_about(tool, input);
        let open = self.held.open.iter_mut().find(|open| Some(open.key) == key);
        if let Some(ask) = open.filter(|ask| ask.replies.len() < HELD_MAX) {
            ask.replies.push(reply);
        }
    }

    /// An ask ended without an answer of ours.
    pub(crate) fn ask_over(&mut self, key: u64, how: &AskOver) {
        let end = match how {
            AskOver::AtTerminal => AskEnd::Answered {
                answer: None,
                by: Answerer {
                    way: AnswerWay::Terminal,
                    who: String::new(),
                },
            },
            AskOver::Withdrawn(why) => AskEnd::Withdrawn {
                why: (*why).to_owned(),
            },
        };
        self.end_ask(key, end);
    }

    fn end_ask(&mut self, key: u64, end: AskEnd) {
        let Some(place) = self.held.open.iter().position(|open| open.key == key) else {
            return;
        };
        // What is still held is let go with it: nothing is decided by that.
        let ask = self.held.open.remove(place).pending.id;
        if let AskEnd::Answered { answer, by } = &end {
            self.follower.answered(self.at_ms(), ask, answer.as_ref(), by);
        }
        self.held.close(ask, how_in_words(&end));
        self.tell(SessionNote::AskClosed {
            session: self.id,
            ask,
            end,
        });
    }

    pub(crate) async fn answer(&mut self, answering: Answering) {
        let Answering {
            ask,
            answer,
            by,
            reply,
        } = answering;
        let result = self.answer_ask(ask, answer, by).await;
        // Whoever asked may have gone.
        let _ = reply.send(result);
    }

    async fn answer_ask(&mut self, ask: AskId, answer: AskAnswer, by: Answerer) -> Result<(), SessionError> {
        let session = self.id;
        let over = |held: &Held| SessionError::AskOver {
            session,
            ask,
            how: held.how_closed(ask),
        };
        let Some(place) = self.held.open.iter().position(|open| open.pending.id == ask) else {
            return Err(over(&self.held));
        };
        let open = &mut self.held.open[place];
        answer
            .check(&open.pending)
            .map_err(|source| SessionError::Answer { session, source })?;
        let key = open.key;
        let decision = decision(&open.pending, &open.input, &answer);
        let mut taken = false;
        for held in std::mem::take(&mut open.replies) {
            taken |= held.send(decision.clone()).is_ok();
        }
        if !taken {
            self.type_answer(place, &answer).await?;
        }
        self.follower.close_ask(key, None);
        self.end_ask(
            key,
            AskEnd::Answered {
                answer: Some(answer),
                by,
            },
        );
        Ok(())
    }

    /// Ends the asks that the program has released and in whose place another one's dialog stands: they were answered
    /// at the terminal, and nothing shows their dialog going away.
    pub(crate) fn close_passed_asks(&mut self, meaning: &ScreenMeaning, rows: &[String]) {
        let ScreenMeaning::Dialog(dialog) = meaning else {
            return;
        };
        let passed = |open: &&HeldAsk| {
            let released = open.released && open.replies.is_empty();
            released && sight(rows, *dialog, &open.pending, &open.input) == Sight::Another
        };
        let keys: Vec<u64> = self
            .held
            .open
            .iter()
            .filter(passed)
            .map(|open| open.key)
            .collect();
        for key in keys {
            self.follower.close_ask(key, Some(AskOver::AtTerminal));
            self.sync();
        }
    }

    /// For an ask without a held request: its answer as a key, if its own dialog is on the screen and nothing else is
    /// asked.
    async fn type_answer(&mut self, place: usize, answer: &AskAnswer) -> Result<(), SessionError> {
        let open = &self.held.open[place];
        let (session, ask) = (self.id, open.pending.id);
        let refused = |why| SessionError::NotAnswerable { session, ask, why };
        if self.held.open.len() > 1 {
            return Err(refused(
                "more than one thing is asked, and the dialog on the screen may be another one's",
            ));
        }
        let screen = self.parts.terminal.screen();
        let ScreenMeaning::Dialog(dialog) = self.detector.borrow().read(&screen).meaning else {
            return Err(refused("its dialog is not on the screen"));
        };
        if !open.is_shown(dialog, &screen.rows, &self.worktree) {
            return Err(refused("the dialog on the screen may be another one"));
        }
        let (key, wanted): (&'static [u8], _) = match answer {
            AskAnswer::Allow => (b"1", Some((0, "Yes"))),
            AskAnswer::Deny { .. } => (provider::claude::INTERRUPT, None),
            AskAnswer::Choose { choice } => {
                const DIGITS: [&[u8]; 9] = [b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9"];
                let digit = DIGITS
                    .get(*choice)
                    .ok_or_else(|| refused("it has more choices than there are keys for"))?;
                let label = open.pending.choices.get(*choice).map_or("", String::as_str);
                (digit, Some((*choice, label)))
            }
        };
        if wanted.is_some_and(|(number, label)| !offers(&screen.rows, number, label)) {
            return Err(refused("its dialog does not show that choice"));
        }
        let pressed = self.press(key).await;
        pressed.map_err(|fault| not_typed(session, ask, &fault))
    }
}

/// What it means for an ask that the key of its answer was not pressed. It stays open: a key that was taken all the same
/// shows in its dialog going away.
fn not_typed(session: SessionId, ask: AskId, fault: &NotPressed) -> SessionError {
    match fault {
        NotPressed::Failed(error) if is_never_typed(error) => SessionError::NotAnswerable {
            session,
            ask,
            why: "the agent program does not take any key, and nothing was typed",
        },
        fault => SessionError::AnswerUnsure {
            session,
            ask,
            why: fault.to_string(),
        },
    }
}

/// The answer in the words of the program's hook (measured with 2.1.197).
fn decision(ask: &PendingAsk, input: &Value, answer: &AskAnswer) -> Value {
    let decision = match answer {
        AskAnswer::Allow => json!({ "behavior": "allow" }),
        AskAnswer::Deny { message } => json!({
            "behavior": "deny",
            "message": if message.trim().is_empty() { "A person denied this." } else { message },
        }),
        AskAnswer::Choose { choice } => {
            let mut input = input.clone();
            let question = input["questions"][0]["question"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let chosen = ask.choices.get(*choice).cloned().unwrap_or_default();
            input["answers"] = json!({ question: chosen });
            json!({ "behavior": "allow", "updatedInput": input })
        }
    };
    json!({ "hookSpecificOutput": { "hookEventName": "PermissionRequest", "decision": decision } })
}

fn how_in_words(end: &AskEnd) -> String {
    match end {
        AskEnd::Withdrawn { why } => format!("withdrawn ({why})"),
        AskEnd::Answered { by, .. } => {
            let way = match by.way {
                AnswerWay::Window => "in a window",
                AnswerWay::Cli => "by the program semo",
                AnswerWay::Terminal => "in the session's terminal",
                AnswerWay::Command => "by a command of the office",
            };
            if by.who.is_empty() {
                format!("answered {way}")
            } else {
                format!("answered {way} ({})", by.who)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::Timestamp;
    use terminal::TerminalError;

    use super::*;

    fn question() -> (PendingAsk, Value) {
        let input =
            json!({"questions": [{"question": "Which one?", "options": [{"label": "A"}, {"label": "B"}]}]});
        let ask = PendingAsk {
            id: AskId(Uuid::nil()),
            session: SessionId(Uuid::nil()),
            turn: None,
            kind: Ask::Question,
            tool: Some("AskUserQuestion".into()),
            text: "Which one?".into(),
            choices: vec!["A".into(), "B".into()],
            asked_at: Timestamp(0),
            at_terminal: false,
        };
        (ask, input)
    }

    fn raised(input: Value) -> HeldAsk {
        let (ask, _) = question();
        HeldAsk {
            key: 1,
            pending: PendingAsk {
                kind: Ask::Permission,
                tool: None,
                choices: Vec::new(),
                ..ask
            },
            input,
            replies: Vec::new(),
            released: false,
            dialog: None,
            is_new: false,
        }
    }

    #[test]
    fn an_ask_whose_answer_would_be_refused_is_not_called_answerable() {
        let rows = [
            "────────────────────",
            " Bash command",
            "",
            "   touch x",
            "",
            " Do you want to proceed?",
            " ❯ 1. Yes",
            "   2. No",
        ];
        let rows: Vec<String> = rows.map(str::to_owned).into();
        let look = |held: &mut Held| held.look(Dialog::Permission, &rows, Path::new("/w"));
        let answerable =
            |told: Vec<PendingAsk>| -> Vec<bool> { told.iter().map(PendingAsk::is_answerable).collect() };

        // Its own dialog, and nothing that could be confused with it: as it was told.
        let mut held = Held::default();
        held.open.push(raised(json!({ "command": "touch x" })));
        assert!(look(&mut held).is_empty());
        // Another one is asked too: which one a key would answer is not certain.
        held.open.push(raised(json!({ "command": "touch y" })));
        assert_eq!(answerable(look(&mut held)), [false, false]);
        assert!(look(&mut held).is_empty(), "told once");
        held.open.pop();
        assert_eq!(answerable(look(&mut held)), [true]);

        // Nothing of what it asks stands on the screen.
        let mut held = Held::default();
        held.open.push(raised(json!({ "anything": "else" })));
        assert_eq!(answerable(look(&mut held)), [false]);
        // Its request is there after all, and can be answered without the screen.
        let (reply, _request) = oneshot::channel();
        held.open[0].replies.push(reply);
        assert_eq!(answerable(look(&mut held)), [true]);
    }

    #[test]
    fn an_answer_whose_key_was_not_pressed_does_not_count_and_is_called_unsure_where_that_is_not_proven() {
        let (pid, waited) = (1, Duration::from_secs(15));
        let told = |fault: NotPressed| not_typed(SessionId(Uuid::nil()), AskId(Uuid::nil()), &fault);
        let proven = told(NotPressed::Failed(TerminalError::Stuck { pid, waited }));
        assert!(matches!(proven, SessionError::NotAnswerable { .. }), "{proven}");
        for fault in [
            NotPressed::GivenUp,
            NotPressed::Failed(TerminalError::Unsure { pid, waited }),
            NotPressed::Failed(TerminalError::LetGo { pid }),
            NotPressed::Failed(TerminalError::Closed { pid }),
        ] {
            let unsure = told(fault);
            assert!(matches!(unsure, SessionError::AnswerUnsure { .. }), "{unsure}");
        }
    }

    #[test]
    fn a_choice_is_the_label_under_the_question_and_leaves_the_question_as_it_was() {
        let (ask, input) = question();
        let decided = decision(&ask, &input, &AskAnswer::Choose { choice: 1 });
        let decided = &decided["hookSpecificOutput"]["decision"];
        assert_eq!(decided["behavior"], "allow");
        assert_eq!(decided["updatedInput"]["answers"]["Which one?"], "B");
        assert_eq!(decided["updatedInput"]["questions"], input["questions"]);
    }
}
