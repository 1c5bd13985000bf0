//! What the office hears of asks, and what it says of those of other machines.
//!
//! News go out one at a time, ends before asks but never before their own ask; what cannot be told now is told later,
//! what the office refuses for good is not repeated. What an earlier core left pending in the office is withdrawn as
//! soon as it is read. Called by `asks`, `office`, `publish`.

use std::collections::VecDeque;
use std::time::Duration;

use domain::ask::{AskEnd, PendingAsk};
use domain::{AgentId, AskId, CommandId, OfficeId};
use rand::Rng;
use supabase::{AskClose, AskDraft, AskState, RestError};
use tokio::time::Instant;

use super::finish::without_nul;
use super::office::{OfficeData, client_in};
use super::{Event, EventLoop};
use crate::view::{AskView, ClosedAskView};

/// News that may wait for the office. What does not fit is put right by the next reading of the office.
const NEWS_MAX: usize = 512;
/// First pause after news could not be told; doubled up to [`PAUSE_MS_MAX`].
const PAUSE_MS_MIN: u64 = 1_000;
/// Longest pause between two tries.
const PAUSE_MS_MAX: u64 = 60_000;
/// Ended asks that are shown.
const CLOSED_SHOWN: usize = 10;
/// Longest reason that goes with a withdrawal, in characters: below what the office takes.
const REASON_CHARS_MAX: usize = 500;

/// Asks that the office had no room for; they are told when there is some.
const UNTAKEN_MAX: usize = 256;
/// Ends that the office refused for good and that are not told again.
const REFUSED_ENDS_MAX: usize = 256;

/// What the office has not been told yet.
#[derive(Default)]
pub(super) struct News {
    waiting: VecDeque<Piece>,
    /// What is on its way.
    telling: Option<Piece>,
    failures: u32,
    again_at: Option<Instant>,
    /// Asks that still wait here and that the office had no room for.
    untaken: VecDeque<Box<AskDraft>>,
    refused_ends: VecDeque<AskId>,
}

#[derive(Debug, Clone, PartialEq)]
struct Piece {
    ask: AskId,
    what: What,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    Raised(Box<AskDraft>),
    Closed(AskClose),
}

impl Piece {
    fn is_for(&self, data: &OfficeData) -> bool {
        match &self.what {
            What::Raised(draft) => data.knows(draft.office),
            What::Closed(_) => true,
        }
    }
}

impl News {
    fn push(&mut self, piece: Piece) {
        if self.waiting.len() >= NEWS_MAX {
            tracing::warn!(ask = %piece.ask, "too much waits to be told to the office; this is left out");
            return;
        }
        self.waiting.push_back(piece);
    }

    /// Whether there is nothing to be said of an ask: it will be told, or was refused for good.
    fn speaks_of(&self, ask: AskId) -> bool {
        let mut all = self.waiting.iter().chain(&self.telling);
        all.any(|piece| piece.ask == ask) || self.refused_ends.contains(&ask)
    }

    /// The next piece: ends first, for they make room in the office, but never before their own ask.
    fn next(&mut self) -> Option<Piece> {
        let can_go = |(at, piece): &(usize, &Piece)| {
            matches!(piece.what, What::Closed(_))
                && !self
                    .waiting
                    .iter()
                    .take(*at)
                    .any(|before| before.ask == piece.ask)
        };
        let first_end = self.waiting.iter().enumerate().find(can_go).map(|(at, _)| at);
        self.waiting.remove(first_end.unwrap_or(0))
    }

    /// The office knows it now. Room that came free is used for an ask that had none.
    fn taken(&mut self, piece: &Piece) {
        if let What::Closed(_) = piece.what
            && let Some(draft) = self.untaken.pop_front()
        {
            self.push(Piece {
                ask: draft.ask,
                what: What::Raised(draft),
            });
        }
    }

    /// The office will not take it as it is. An end is told once more without what was said, and then not again; an ask
    /// waits for room, where that is what is missing, and its end is nothing to the office.
    fn refused(&mut self, piece: Piece, for_want_of_room: bool) {
        match piece.what {
            What::Raised(draft) => {
                let before = self.waiting.len();
                self.waiting.retain(|other| other.ask != piece.ask);
                let is_over = self.waiting.len() != before;
                if for_want_of_room && !is_over && self.untaken.len() < UNTAKEN_MAX {
                    self.untaken.push_back(draft);
                }
            }
            What::Closed(AskClose::Answered {
                answer: Some(_),
                way,
                command,
            }) => self.waiting.push_front(Piece {
                ask: piece.ask,
                what: What::Closed(AskClose::Answered {
                    answer: None,
                    way,
                    command,
                }),
            }),
            What::Closed(_) => {
                if self.refused_ends.len() >= REFUSED_ENDS_MAX {
                    self.refused_ends.pop_front();
                }
                self.refused_ends.push_back(piece.ask);
            }
        }
    }

    /// An ask is over that the office never had: it need not hear of it. False: it has to.
    fn drop_untaken(&mut self, ask: AskId) -> bool {
        let before = self.untaken.len();
        self.untaken.retain(|draft| draft.ask != ask);
        self.untaken.len() != before
    }

    /// Whether anything is still to be told.
    fn is_quiet(&self) -> bool {
        self.telling.is_none() && self.waiting.is_empty()
    }

    /// After a new sign-in, what was refused may be possible.
    pub(super) fn forget_refusals(&mut self) {
        self.refused_ends.clear();
    }
}

impl EventLoop {
    pub(super) fn tell_of_ask(
        &mut self,
        ask: &PendingAsk,
        office: OfficeId,
        agent: AgentId,
        command: Option<CommandId>,
    ) {
        let draft = AskDraft {
            ask: ask.id,
            office,
            client: client_in(&self.ground.identity, office, self.ground.auth.user()),
            session: ask.session,
            agent,
            command,
            kind: wording::kind(ask.kind).to_owned(),
            tool: ask.tool.clone(),
            text: ask.text.clone(),
            choices: ask.choices.clone(),
            asked_at: ask.asked_at,
        };
        self.asks.news.push(Piece {
            ask: ask.id,
            what: What::Raised(Box::new(draft)),
        });
        self.tell_asks();
    }

    pub(super) fn tell_of_end(&mut self, ask: AskId, end: &AskEnd) {
        if self.asks.news.drop_untaken(ask) {
            return self.all_asks_told();
        }
        let close = match end {
            AskEnd::Answered { answer, by } => AskClose::Answered {
                answer: answer
                    .as_ref()
                    .and_then(|answer| serde_json::to_value(answer).ok())
                    .map(without_nul),
                way: wording::way(by.way),
                command: by
                    .who
                    .parse()
                    .ok()
                    .filter(|_| by.way == domain::ask::AnswerWay::Command),
            },
            AskEnd::Withdrawn { why } => AskClose::Withdrawn {
                reason: why
                    .chars()
                    .filter(|c| *c != '\0')
                    .take(REASON_CHARS_MAX)
                    .collect(),
            },
        };
        self.asks.news.push(Piece {
            ask,
            what: What::Closed(close),
        });
        self.tell_asks();
    }

    /// Tells the next piece, unless one is on its way, a pause is on, or no office is joined. What is asked in an office
    /// that the present account does not have is nobody's business there.
    pub(super) fn tell_asks(&mut self) {
        let news = &mut self.asks.news;
        let Some(data) = &self.office else { return };
        if news.telling.is_some() || news.again_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        let piece = loop {
            match news.next() {
                Some(piece) if piece.is_for(data) => break piece,
                // Nor is its end.
                Some(piece) => news.refused(piece, true),
                None => return,
            }
        };
        news.telling = Some(piece.clone());
        news.again_at = None;
        let Piece { ask, mut what } = piece;
        if let What::Raised(draft) = &mut what {
            // Who is signed in is known now at the latest.
            draft.client = client_in(&self.ground.identity, draft.office, self.ground.auth.user());
        }
        let rest = self.ground.rest.clone();
        self.start(async move {
            let result = match what {
                What::Raised(draft) => rest.upsert_ask(&draft).await.map(drop),
                What::Closed(close) => rest.close_ask(ask, &close).await.map(drop),
            };
            Event::AskTold { ask, result }
        });
    }

    pub(super) fn ask_told(&mut self, ask: AskId, result: Result<(), RestError>) {
        let news = &mut self.asks.news;
        let Some(piece) = news.telling.take() else { return };
        match result {
            Err(error) if error.is_passing() || matches!(error, RestError::Unauthorized { .. }) => {
                let pause_ms = PAUSE_MS_MIN
                    .saturating_mul(1 << news.failures.min(10))
                    .min(PAUSE_MS_MAX);
                news.failures = news.failures.saturating_add(1);
                let share = rand::rng().random_range(0.5..=1.0);
                news.again_at = Some(Instant::now() + Duration::from_millis(pause_ms).mul_f64(share));
                news.waiting.push_front(piece);
                tracing::debug!(%ask, %error, "the office was not told of an ask; it is tried again");
                self.trouble_with_rest(&error);
                return;
            }
            Err(error) => {
                tracing::warn!(%ask, %error, "the office does not take the news of an ask");
                let for_want_of_room = matches!(error, RestError::Conflict { .. });
                news.failures = 0;
                let was_raised = matches!(piece.what, What::Raised(_));
                news.refused(piece, for_want_of_room);
                if was_raised {
                    self.problem(
                        "asks_untold",
                        format!("an ask of this workstation is not seen on others: {error}"),
                        "Answer what waits here; it can be answered in its session's window and with `semo approve`.",
                    );
                }
            }
            Ok(()) => {
                news.failures = 0;
                news.taken(&piece);
                if matches!(piece.what, What::Raised(_)) {
                    self.all_asks_told();
                }
            }
        }
        self.tell_asks();
    }

    /// Whether the office has still to hear of asks, and can.
    pub(super) fn has_ask_news(&self) -> bool {
        self.office.is_some() && self.asks.news.again_at.is_none() && !self.asks.news.is_quiet()
    }

    /// The problem is over when no ask is left that the office had no room for.
    fn all_asks_told(&mut self) {
        if self.asks.news.untaken.is_empty() {
            self.solved("asks_untold");
        }
    }

    /// What the office shows as pending on this machine but nobody here waits with: left by an earlier core.
    pub(super) fn withdraw_lost_asks(&mut self) {
        let Some(data) = &self.office else { return };
        let lost = data.rows.asks.iter().filter(|row| {
            row.state == AskState::Pending
                && row.client_id == data.client
                && !self.asks.pending.contains_key(&row.id)
                && !self.asks.news.speaks_of(row.id)
        });
        for id in lost.map(|row| row.id).collect::<Vec<_>>() {
            let known = self.asks.ended.iter().find(|ended| ended.ask.id == id);
            let end = known
                .map(|ended| ended.end.clone())
                .unwrap_or_else(|| AskEnd::Withdrawn {
                    why: "SEMO Office ended on that workstation while it waited".to_owned(),
                });
            self.tell_of_end(id, &end);
        }
    }

    /// All pending asks of the office, oldest first: ours as they are, those of other machines as the office says.
    pub(super) fn ask_views(&self) -> Vec<AskView> {
        let Some(data) = &self.office else {
            return Vec::new();
        };
        let ours = self
            .asks
            .pending
            .values()
            .filter(|held| held.office == data.office.id);
        let mut views: Vec<_> = ours
            .map(|held| ask_view(&held.ask, Some(held.agent), true))
            .collect();
        let theirs = data
            .rows
            .asks
            .iter()
            .filter(|row| row.state == AskState::Pending && row.client_id != data.client);
        views.extend(theirs.map(|row| ask_view(&wording::ask_of_row(row), row.agent_id, false)));
        views.sort_by(|a, b| (a.asked_at, &a.id).cmp(&(b.asked_at, &b.id)));
        views
    }

    /// The newest ended asks of the office, newest first.
    pub(super) fn closed_ask_views(&self) -> Vec<ClosedAskView> {
        let Some(data) = &self.office else {
            return Vec::new();
        };
        let here = self
            .asks
            .ended
            .iter()
            .filter(|ended| ended.office == data.office.id);
        let mut views: Vec<_> = here
            .map(|ended| ClosedAskView {
                id: ended.ask.id.to_string(),
                session_id: ended.ask.session.to_string(),
                agent_id: Some(ended.agent.to_string()),
                kind: ended.ask.kind,
                text: ended.ask.text.clone(),
                how: ended.how(),
                closed_at: ended.at.0,
            })
            .collect();
        let known: Vec<String> = views.iter().map(|view| view.id.clone()).collect();
        let rows = data.rows.asks.iter().filter(|row| row.state != AskState::Pending);
        views.extend(
            rows.filter(|row| !known.contains(&row.id.to_string()))
                .map(|row| ClosedAskView {
                    id: row.id.to_string(),
                    session_id: row.session_id.to_string(),
                    agent_id: row.agent_id.map(|agent| agent.to_string()),
                    kind: wording::ask_of_row(row).kind,
                    text: row.text.clone(),
                    how: wording::end_of_row(row),
                    closed_at: row.closed_at.map_or(row.asked_at.0, |at| at.0),
                }),
        );
        views.sort_by_key(|view| std::cmp::Reverse(view.closed_at));
        views.truncate(CLOSED_SHOWN);
        views
    }
}

/// An ask as windows see it.
pub(super) fn ask_view(ask: &PendingAsk, agent: Option<AgentId>, mine: bool) -> AskView {
    AskView {
        id: ask.id.to_string(),
        session_id: ask.session.to_string(),
        agent_id: agent.map(|agent| agent.to_string()),
        kind: ask.kind,
        tool: ask.tool.clone(),
        text: ask.text.clone(),
        choices: ask.choices.clone(),
        asked_at: ask.asked_at.0,
        mine,
        answerable: ask.is_answerable(),
    }
}

/// The words for asks and answers, in the office's columns and for people.
pub(super) mod wording {
    use domain::ask::{AnswerWay, AskAnswer, PendingAsk};
    use domain::session::Ask;
    use supabase::{AskRow, AskState};

    /// Name of a kind in the office's rows.
    pub(crate) fn kind(kind: Ask) -> &'static str {
        match kind {
            Ask::Permission => "permission",
            Ask::Question => "question",
            Ask::Login => "login",
            Ask::Dialog => "dialog",
        }
    }

    /// Name of a way in the office's rows.
    pub(crate) fn way(way: AnswerWay) -> &'static str {
        match way {
            AnswerWay::Window => "window",
            AnswerWay::Cli => "cli",
            AnswerWay::Terminal => "terminal",
            AnswerWay::Command => "command",
        }
    }

    /// By whom, for people: follows `allowed`, `denied` …
    pub(crate) fn by(way: AnswerWay, who: &str) -> String {
        let words = match way {
            AnswerWay::Window => "in a window of its workstation",
            AnswerWay::Cli => "with the program semo on its workstation",
            AnswerWay::Terminal => "in its terminal",
            AnswerWay::Command => "by a command of the office",
        };
        match way {
            AnswerWay::Command if !who.is_empty() => format!("{words} ({who})"),
            _ => words.to_owned(),
        }
    }

    /// What was said, for people.
    pub(crate) fn said(answer: &AskAnswer, choices: &[String]) -> String {
        match answer {
            AskAnswer::Allow => "allowed".to_owned(),
            AskAnswer::Deny { message } if message.trim().is_empty() => "denied".to_owned(),
            AskAnswer::Deny { message } => format!("denied (“{}”)", message.trim()),
            AskAnswer::Choose { choice } => match choices.get(*choice) {
                Some(words) => format!("chosen “{words}”"),
                None => format!("chosen {choice}"),
            },
        }
    }

    /// An ask of another machine. A kind that this version does not know can only be answered at its terminal.
    pub(crate) fn ask_of_row(row: &AskRow) -> PendingAsk {
        PendingAsk {
            id: row.id,
            session: row.session_id,
            turn: None,
            kind: match row.kind.as_str() {
                "permission" => Ask::Permission,
                "question" => Ask::Question,
                "login" => Ask::Login,
                _ => Ask::Dialog,
            },
            tool: row.tool.clone(),
            text: row.text.clone(),
            choices: row.choices.clone(),
            asked_at: row.asked_at,
            at_terminal: false,
        }
    }

    /// How an ask ended, by the office's row.
    pub(crate) fn end_of_row(row: &AskRow) -> String {
        if row.state == AskState::Withdrawn {
            return format!(
                "withdrawn: {}",
                row.reason.as_deref().unwrap_or("nobody said why")
            );
        }
        let answer: Option<AskAnswer> = row
            .answer
            .clone()
            .and_then(|value| serde_json::from_value(value).ok());
        let said = answer.map_or("answered".to_owned(), |answer| said(&answer, &row.choices));
        let command = row
            .answered_by_command
            .map(|id| id.to_string())
            .unwrap_or_default();
        let by = match row.answered_by_way.as_deref() {
            Some("window") => by(AnswerWay::Window, ""),
            Some("cli") => by(AnswerWay::Cli, ""),
            Some("terminal") => by(AnswerWay::Terminal, ""),
            Some("command") => by(AnswerWay::Command, &command),
            _ => String::new(),
        };
        format!("{said} {by}").trim_end().to_owned()
    }

    #[cfg(test)]
    mod tests {
        use serde_json::json;

        use super::*;

        #[test]
        fn the_end_of_an_ask_is_told_in_words_whatever_the_row_holds() {
            let row = |extra: serde_json::Value| {
                let id = uuid::Uuid::nil();
                let mut row = json!({
                    "id": id, "office_id": id, "session_id": id, "client_id": id, "kind": "question", "text": "?",
                    "choices": ["red", "blue"], "state": "answered", "asked_at": "2026-01-01T00:00:00Z",
                });
                for (name, value) in extra.as_object().unwrap() {
                    row[name] = value.clone();
                }
                serde_json::from_value::<AskRow>(row).unwrap()
            };
            let chosen = row(json!({"answer": {"say": "choose", "choice": 1}, "answered_by_way": "window"}));
            assert_eq!(
                end_of_row(&chosen),
                "chosen “blue” in a window of its workstation"
            );
            let strange =
                row(json!({"answer": {"say": "later"}, "answered_by_way": "pigeon", "kind": "vote"}));
            assert_eq!(end_of_row(&strange), "answered");
            assert!(!ask_of_row(&strange).is_answerable());
            let gone = row(json!({"state": "withdrawn", "reason": "its session ended"}));
            assert_eq!(end_of_row(&gone), "withdrawn: its session ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::{ClientId, SessionId, Timestamp};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn raised(number: u128) -> Piece {
        let nil = Uuid::nil();
        let ask = AskId(Uuid::from_u128(number));
        let draft = AskDraft {
            ask,
            office: OfficeId(nil),
            client: ClientId(nil),
            session: SessionId(nil),
            agent: AgentId(nil),
            command: None,
            kind: "permission".to_owned(),
            tool: None,
            text: String::new(),
            choices: Vec::new(),
            asked_at: Timestamp(0),
        };
        Piece {
            ask,
            what: What::Raised(Box::new(draft)),
        }
    }

    fn closed(number: u128, answer: Option<&str>) -> Piece {
        Piece {
            ask: AskId(Uuid::from_u128(number)),
            what: What::Closed(AskClose::Answered {
                answer: answer.map(|say| json!({ "say": say })),
                way: "window",
                command: None,
            }),
        }
    }

    fn all(news: &mut News) -> Vec<Piece> {
        std::iter::from_fn(|| news.next()).collect()
    }

    #[test]
    fn ends_go_before_other_asks_so_that_a_full_office_gets_room_and_never_before_their_own() {
        let mut news = News::default();
        for piece in [
            raised(1),
            raised(2),
            closed(9, None),
            closed(2, None),
            closed(8, None),
        ] {
            news.push(piece);
        }
        assert_eq!(
            all(&mut news),
            [
                closed(9, None),
                closed(8, None),
                raised(1),
                raised(2),
                closed(2, None)
            ]
        );
    }

    #[test]
    fn an_ask_without_room_holds_up_nothing_and_is_told_when_another_has_ended() {
        let mut news = News::default();
        news.refused(raised(1), true);
        assert_eq!(news.next(), None);
        news.taken(&closed(7, None));
        assert_eq!(news.next(), Some(raised(1)));
        // One that is over meanwhile was never there: neither it nor its end is told.
        news.refused(raised(2), true);
        assert!(news.drop_untaken(raised(2).ask) && !news.drop_untaken(raised(3).ask));
        news.push(closed(4, None));
        news.refused(raised(4), true);
        news.taken(&closed(7, None));
        assert_eq!(news.next(), None);
        // What is refused for another reason is not told again.
        news.refused(raised(5), false);
        news.taken(&closed(7, None));
        assert_eq!(news.next(), None);
    }

    #[test]
    fn an_end_that_is_refused_is_told_once_more_without_words_and_then_never() {
        let mut news = News::default();
        news.refused(closed(1, Some("deny")), false);
        assert_eq!(news.next(), Some(closed(1, None)));
        assert!(!news.speaks_of(closed(1, None).ask));
        news.refused(closed(1, None), false);
        assert_eq!(news.next(), None);
        assert!(
            news.speaks_of(closed(1, None).ask),
            "a reading does not raise it again"
        );
        news.forget_refusals();
        assert!(!news.speaks_of(closed(1, None).ask));
    }
}
