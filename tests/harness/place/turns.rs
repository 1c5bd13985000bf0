//! How stories about one session say what becomes of a turn and of an ask.

use domain::TurnId;
use domain::ask::{AnswerWay, Answerer, AskAnswer, AskEnd, PendingAsk};
use domain::marker::Marker;
use domain::turn::TurnOutcome;
use session::{SessionError, SessionNote, TurnReport};

use super::{LIMIT, Place};

impl Place {
    /// Carries one prompt with the plain marker to its end, and that is done.
    pub async fn does(&mut self, prompt: &str) -> TurnReport {
        let turn = self.submit(prompt, Marker::Plain, LIMIT);
        self.done(turn).await
    }

    /// The turn comes to its end, and is done.
    pub async fn done(&mut self, turn: TurnId) -> TurnReport {
        self.ended_as(turn, &TurnOutcome::Done).await
    }

    /// The turn is done, and these are its agent's last words.
    pub async fn done_saying(&mut self, turn: TurnId, words: &str) -> TurnReport {
        let report = self.done(turn).await;
        assert_eq!(report.final_message.as_deref(), Some(words), "{report:?}");
        report
    }

    /// The turn comes to its end, and is cancelled.
    pub async fn cancelled(&mut self, turn: TurnId) -> TurnReport {
        self.ended_as(turn, &TurnOutcome::Cancelled).await
    }

    async fn ended_as(&mut self, turn: TurnId, outcome: &TurnOutcome) -> TurnReport {
        let report = self.ended(turn).await;
        assert_eq!(&report.outcome, outcome, "{report:?}\n{}", self.screen());
        report
    }

    /// A person answers at the window.
    pub async fn answer(&self, ask: &PendingAsk, answer: AskAnswer) -> Result<(), SessionError> {
        let by = Answerer {
            way: AnswerWay::Window,
            who: "a test".into(),
        };
        self.session.answer(ask.id, answer, by).await
    }

    /// A person answers at the window, and that counts.
    pub async fn answered(&self, ask: &PendingAsk, answer: AskAnswer) {
        let taken = self.answer(ask, answer).await;
        assert!(taken.is_ok(), "{taken:?}\n{}", self.screen());
    }

    /// Somebody or something else was first: how, in words for people.
    pub async fn comes_too_late(&self, ask: &PendingAsk) -> String {
        match self.answer(ask, AskAnswer::Allow).await {
            Err(SessionError::AskOver { how, .. }) => how,
            other => panic!("answered although it was over: {other:?}"),
        }
    }

    /// The end of that ask.
    pub async fn closed(&mut self, ask: &PendingAsk) -> AskEnd {
        self.note("the end of the ask", |note| match note {
            SessionNote::AskClosed { ask: closed, end, .. } if *closed == ask.id => Some(end.clone()),
            _ => None,
        })
        .await
    }

    /// A person presses a key at the terminal, which answers the ask.
    pub async fn answered_at_the_terminal(&mut self, ask: &PendingAsk, key: &str) {
        self.keys(key).await;
        let end = self.closed(ask).await;
        assert!(
            matches!(&end, AskEnd::Answered { answer: None, by } if by.way == AnswerWay::Terminal),
            "{end:?}"
        );
    }
}

/// A refusal with these words.
pub fn deny(message: &str) -> AskAnswer {
    AskAnswer::Deny {
        message: message.into(),
    }
}
