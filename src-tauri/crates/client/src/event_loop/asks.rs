//! What agents ask of people: held here from the session's note to its end, answered once.
//!
//! The loop lets one answer at a time through to a session, so of two that come at once exactly one counts and the
//! other is told who was first. Keys in the session's own terminal do not come through here: there the session says
//! that an ask is over. Called by the loop for notes; answers are in `answers`, what the office hears is in `ask_news`.

use std::collections::{BTreeMap, VecDeque};

use domain::ask::{Answerer, AskAnswer, AskEnd, PendingAsk};
use domain::evidence::{Evidence, Tier};
use domain::{AgentId, AskId, OfficeId, SessionId, Timestamp, TurnId};
use serde_json::{Value, json};
use session::TurnReport;

use super::answers::Refusal;
use super::ask_news::{News, wording};
use super::{EventLoop, Stage};

/// Asks that are held at once; more are left to the sessions' own terminals.
const PENDING_MAX: usize = 256;
/// Ends that are remembered, so that whoever comes second is told who was first.
const ENDED_MAX: usize = 64;
/// What is kept of the text of an ask, in bytes: below what the office takes.
const TEXT_BYTES_MAX: usize = 24 * 1024;
/// What is kept of one choice or a tool's name, in bytes.
const CHOICE_BYTES_MAX: usize = 1_000;
const TOOL_BYTES_MAX: usize = 120;

/// What is kept of the answers that were given during one turn, in bytes of JSON: beside the rest of its evidence it
/// must fit into the office's row. The first ones stay, the others are counted.
const ANSWERS_BYTES_MAX: usize = 256 * 1024;

/// All asks of sessions of ours.
#[derive(Default)]
pub(super) struct Asks {
    pub(super) pending: BTreeMap<AskId, Held>,
    pub(super) ended: VecDeque<Ended>,
    /// What was answered during turns that still run: however much others are asked meanwhile, a turn's record has it.
    answers: BTreeMap<TurnId, Answers>,
    pub(super) news: News,
}

/// An ask that waits.
pub(super) struct Held {
    pub(super) ask: PendingAsk,
    pub(super) office: OfficeId,
    pub(super) agent: AgentId,
    /// Whose answer is on its way to the session.
    pub(super) taken_by: Option<Answerer>,
}

/// The answers that were given during one turn.
struct Answers {
    session: SessionId,
    kept: Vec<Value>,
    bytes: usize,
    left_out: usize,
}

/// An ask that is over.
pub(super) struct Ended {
    pub(super) ask: PendingAsk,
    pub(super) office: OfficeId,
    pub(super) agent: AgentId,
    pub(super) end: AskEnd,
    pub(super) at: Timestamp,
}

impl Asks {
    /// The ask that a session waits with; the oldest, when there are several.
    pub(super) fn of_session(&self, session: SessionId) -> Option<&Held> {
        self.all_of_session(session).into_iter().next()
    }

    /// All asks that a session waits with, the oldest first.
    pub(super) fn all_of_session(&self, session: SessionId) -> Vec<&Held> {
        let its = self.pending.values().filter(|held| held.ask.session == session);
        let mut its: Vec<_> = its.collect();
        its.sort_by_key(|held| (held.ask.asked_at, held.ask.id));
        its
    }

    pub(super) fn end_of(&self, ask: AskId) -> Option<&Ended> {
        self.ended.iter().find(|ended| ended.ask.id == ask)
    }

    /// Lets one answer through: from here on every other is second.
    pub(super) fn take(&mut self, ask: AskId, answer: &AskAnswer, by: &Answerer) -> Result<(), Refusal> {
        if let Some(ended) = self.end_of(ask) {
            return Err(Refusal::Conflict(ended.in_words()));
        }
        let held = self.pending.get_mut(&ask).ok_or_else(|| {
            Refusal::NotFound(format!("no session on this workstation waits with an ask {ask}"))
        })?;
        answer
            .check(&held.ask)
            .map_err(|fault| Refusal::Invalid(fault.to_string()))?;
        if let Some(first) = &held.taken_by {
            let words = wording::by(first.way, &first.who);
            return Err(Refusal::Conflict(format!("it is being answered {words}")));
        }
        held.taken_by = Some(by.clone());
        Ok(())
    }

    /// Moves an ask to the ended ones; `None` when it was there already, or never here.
    pub(super) fn close(&mut self, ask: AskId, end: AskEnd, now: Timestamp) -> Option<&Ended> {
        let held = self.pending.remove(&ask)?;
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        let ended = Ended {
            ask: held.ask,
            office: held.office,
            agent: held.agent,
            end,
            at: now,
        };
        if let (Some(turn), Some(answer)) = (ended.ask.turn, ended.as_evidence()) {
            let its = self.answers.entry(turn).or_insert_with(|| Answers {
                session: ended.ask.session,
                kept: Vec::new(),
                bytes: 0,
                left_out: 0,
            });
            let bytes = answer.to_string().len();
            if its.left_out == 0 && its.bytes + bytes <= ANSWERS_BYTES_MAX {
                its.bytes += bytes;
                its.kept.push(answer);
            } else {
                its.left_out += 1;
            }
        }
        self.ended.push_back(ended);
        self.ended.back()
    }

    /// Puts what was answered during a turn into its record, and forgets it.
    fn hand_over_answers(&mut self, turn: TurnId, evidence: &mut Evidence) {
        let Some(answers) = self.answers.remove(&turn) else {
            return;
        };
        for answer in answers.kept {
            evidence.add("answer", answer, Tier::Observed, "asks");
        }
        if answers.left_out > 0 {
            evidence.add("answers_left_out", answers.left_out, Tier::Observed, "asks");
        }
    }
}

impl Ended {
    pub(super) fn in_words(&self) -> String {
        format!("it is over since {}: {}", self.at.rfc3339(), self.how())
    }

    /// To what, by whom and when it was answered; nothing when nobody did.
    fn as_evidence(&self) -> Option<Value> {
        let AskEnd::Answered { answer, by } = &self.end else {
            return None;
        };
        Some(json!({
            "ask": self.ask.id, "kind": self.ask.kind, "tool": self.ask.tool, "answer": answer,
            "way": by.way, "who": by.who, "at": self.at.rfc3339(),
        }))
    }

    /// How it ended, in a few words.
    pub(super) fn how(&self) -> String {
        match &self.end {
            AskEnd::Answered { answer, by } => {
                let said = answer.as_ref().map_or("answered".to_owned(), |answer| {
                    wording::said(answer, &self.ask.choices)
                });
                format!("{said} {}", wording::by(by.way, &by.who))
            }
            AskEnd::Withdrawn { why } => format!("withdrawn: {why}"),
        }
    }
}

impl EventLoop {
    /// A session waits for a person.
    pub(super) fn ask_raised(&mut self, mut ask: PendingAsk) {
        let Some(live) = self.sessions.get(&ask.session) else {
            return;
        };
        if self.asks.end_of(ask.id).is_some() {
            return;
        }
        if self.asks.pending.len() >= PENDING_MAX {
            tracing::warn!(session = %ask.session, "too many asks are open; this one is left to its terminal");
            return;
        }
        ask.text = clipped(&ask.text, TEXT_BYTES_MAX);
        ask.tool = ask.tool.map(|tool| clipped(&tool, TOOL_BYTES_MAX));
        ask.choices.truncate(domain::ask::CHOICES_MAX);
        for choice in &mut ask.choices {
            *choice = clipped(choice, CHOICE_BYTES_MAX);
        }
        let (office, agent) = (live.office, live.agent);
        let command = ask.turn.and_then(|turn| {
            self.work.iter().find_map(|(id, work)| match work.stage {
                Stage::Turn { turn: its, .. } if its == turn => Some(*id),
                _ => None,
            })
        });
        tracing::info!(session = %ask.session, ask = %ask.id, kind = ?ask.kind, "a session asks");
        self.tell_of_ask(&ask, office, agent, command);
        // The same ask may be told again, when more is known about it.
        let taken_by = self.asks.pending.remove(&ask.id).and_then(|held| held.taken_by);
        let held = Held {
            ask,
            office,
            agent,
            taken_by,
        };
        self.asks.pending.insert(held.ask.id, held);
        self.changed = true;
    }

    /// An ask is over.
    pub(super) fn ask_closed(&mut self, id: AskId, end: AskEnd) {
        let now = self.now();
        let Some(ended) = self.asks.close(id, end, now) else {
            return;
        };
        tracing::info!(session = %ended.ask.session, ask = %id, how = ended.how(), "an ask is over");
        let end = ended.end.clone();
        self.tell_of_end(id, &end);
        self.changed = true;
    }

    /// What was answered while the turn ran belongs to its record: to what, by whom and when.
    pub(super) fn add_answers(&mut self, report: &mut TurnReport) {
        self.asks.hand_over_answers(report.turn, &mut report.evidence);
    }

    /// The core leaves its sessions: what they ask is asked anew by the next one, and no dead question stays open.
    pub(super) fn withdraw_asks_on_leaving(&mut self) {
        for id in self.asks.pending.keys().copied().collect::<Vec<_>>() {
            let why =
                "SEMO Office was closed on that workstation; it is asked again when it is opened".to_owned();
            self.ask_closed(id, AskEnd::Withdrawn { why });
        }
    }

    /// A session that is gone asks for nothing any more.
    pub(super) fn withdraw_asks_of_gone_sessions(&mut self) {
        let here = |session: SessionId| {
            self.sessions
                .get(&session)
                .is_some_and(|live| !live.state.is_over())
        };
        let gone = self.asks.pending.values().filter(|held| !here(held.ask.session));
        for id in gone.map(|held| held.ask.id).collect::<Vec<_>>() {
            let why = "its session ended".to_owned();
            self.ask_closed(id, AskEnd::Withdrawn { why });
        }
        // Its turns have been told before it was gone.
        let sessions = &self.sessions;
        self.asks
            .answers
            .retain(|_, answers| sessions.contains_key(&answers.session));
    }
}

/// Cuts at a character, and takes out what the office's texts cannot hold.
fn clipped(text: &str, bytes_max: usize) -> String {
    let mut short = text.replace('\0', "\u{fffd}");
    if short.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|end| short.is_char_boundary(*end));
        short.truncate(end.unwrap_or(0));
        // Nobody may take a part for the whole.
        let cut = text.len() - short.len();
        short.push_str(&format!(
            "… (cut: {cut} more bytes; all of it is in the session's terminal)"
        ));
    }
    short
}

#[cfg(test)]
mod tests {
    use domain::ask::AnswerWay;
    use domain::session::Ask;
    use uuid::Uuid;

    use super::*;

    fn held(kind: Ask, choices: &[&str]) -> (AskId, Asks) {
        let id = AskId(Uuid::from_u128(1));
        let ask = PendingAsk {
            id,
            session: SessionId(Uuid::from_u128(2)),
            turn: None,
            kind,
            tool: None,
            text: "may it?".into(),
            choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
            asked_at: Timestamp(0),
            at_terminal: false,
        };
        let mut asks = Asks::default();
        let held = Held {
            ask,
            office: OfficeId(Uuid::from_u128(3)),
            agent: AgentId(Uuid::from_u128(4)),
            taken_by: None,
        };
        asks.pending.insert(id, held);
        (id, asks)
    }

    fn by(way: AnswerWay, who: &str) -> Answerer {
        Answerer { way, who: who.into() }
    }

    #[test]
    fn of_two_answers_one_is_let_through_and_the_other_is_told_who_was_first() {
        let (id, mut asks) = held(Ask::Permission, &[]);
        let (window, command) = (by(AnswerWay::Window, "u"), by(AnswerWay::Command, "c-7"));
        assert!(asks.take(id, &AskAnswer::Allow, &command).is_ok());
        let Err(Refusal::Conflict(words)) = asks.take(id, &AskAnswer::Allow, &window) else {
            panic!("second")
        };
        assert!(words.contains("command") && words.contains("c-7"), "{words}");

        let end = AskEnd::Answered {
            answer: Some(AskAnswer::Allow),
            by: command,
        };
        assert!(asks.close(id, end.clone(), Timestamp(5)).is_some());
        assert!(asks.close(id, end, Timestamp(6)).is_none(), "it ends once");
        let Err(Refusal::Conflict(words)) = asks.take(id, &AskAnswer::Allow, &window) else {
            panic!("late")
        };
        assert!(words.contains("allowed") && words.contains("c-7"), "{words}");
    }

    #[test]
    fn an_answer_that_does_not_fit_takes_nothing() {
        let (id, mut asks) = held(Ask::Question, &["red"]);
        let one = by(AnswerWay::Cli, "");
        assert!(matches!(
            asks.take(id, &AskAnswer::Allow, &one),
            Err(Refusal::Invalid(_))
        ));
        assert!(asks.take(id, &AskAnswer::Choose { choice: 0 }, &one).is_ok());
        let unknown = AskId(Uuid::from_u128(9));
        assert!(matches!(
            asks.take(unknown, &AskAnswer::Allow, &one),
            Err(Refusal::NotFound(_))
        ));
    }

    #[test]
    fn a_long_turn_keeps_its_first_answers_however_much_others_are_asked_meanwhile() {
        let (_, mut asks) = held(Ask::Permission, &[]);
        let mut answer = |number: u128, turn: u128| {
            let (_, mut one) = held(Ask::Permission, &[]);
            let mut held = one.pending.pop_first().unwrap().1;
            held.ask.id = AskId(Uuid::from_u128(number));
            held.ask.turn = Some(TurnId(Uuid::from_u128(turn)));
            asks.pending.insert(held.ask.id, held);
            let end = AskEnd::Answered {
                answer: Some(AskAnswer::Deny {
                    message: "x".repeat(1000),
                }),
                by: by(AnswerWay::Window, "u"),
            };
            asks.close(AskId(Uuid::from_u128(number)), end, Timestamp(0));
        };
        answer(1000, 1);
        for number in 2000..2000 + 2 * ENDED_MAX as u128 {
            answer(number, 2);
        }
        for number in 3000..3500 {
            answer(number, 3);
        }
        let mut record = |turn: u128| {
            let mut evidence = Evidence::default();
            asks.hand_over_answers(TurnId(Uuid::from_u128(turn)), &mut evidence);
            evidence
        };
        let first = record(1);
        assert_eq!(first.claims.len(), 1);
        assert_eq!(first.claims[0].value["ask"], json!(Uuid::from_u128(1000)));
        assert!(record(1).claims.is_empty(), "a turn ends once");
        assert_eq!(record(2).claims.len(), 2 * ENDED_MAX);
        let third = record(3);
        let last = third.claims.last().unwrap();
        let kept = third.claims.len() as u64 - 1;
        assert_eq!(
            (last.what.as_str(), last.value.as_u64()),
            ("answers_left_out", Some(500 - kept)),
            "what does not fit is counted"
        );
        assert!(serde_json::to_string(&third).unwrap().len() < 2 * ANSWERS_BYTES_MAX);
    }

    #[test]
    fn all_that_a_session_waits_with_is_known_the_oldest_first() {
        let (_, mut asks) = held(Ask::Permission, &[]);
        for (number, asked_at) in [(7, 30), (8, 10), (9, 20)] {
            let (_, mut one) = held(Ask::Permission, &[]);
            let mut held = one.pending.pop_first().unwrap().1;
            held.ask.id = AskId(Uuid::from_u128(number));
            held.ask.asked_at = Timestamp(asked_at);
            // The last one is another session's.
            held.ask.session = SessionId(Uuid::from_u128(if number == 9 { 5 } else { 2 }));
            asks.pending.insert(held.ask.id, held);
        }
        let its = asks.all_of_session(SessionId(Uuid::from_u128(2)));
        let ids: Vec<_> = its.iter().map(|held| held.ask.id.0.as_u128()).collect();
        assert_eq!(ids, [1, 8, 7]);
        let words = super::super::answers::which_of(SessionId(Uuid::from_u128(2)), &its);
        for id in ids {
            assert!(words.contains(&Uuid::from_u128(id).to_string()), "{words}");
        }
        assert!(
            words.contains("waits with 3 asks") && words.contains("may it?"),
            "{words}"
        );
    }

    #[test]
    fn a_text_is_cut_at_a_character_and_says_so() {
        let cut = clipped("가나다", 4);
        assert!(cut.starts_with("가… (cut: 6 more bytes"), "{cut}");
        assert_eq!(clipped("a\0b", 9), "a\u{fffd}b");
    }
}
