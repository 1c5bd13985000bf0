//! The local API of the core that runs on this data folder, for the orders that speak to it and not to the office.

use std::time::Duration;

use client::StopHow;
use domain::Timestamp;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::ids::{NotOne, pick, short};
use crate::running::{self, Running};
use crate::words::{clipped, clock};
use crate::world::World;

/// A healthy core answers in milliseconds; git on a slow disk may take its time.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// The same for the state, which is only copied.
const STATE_WAIT: Duration = Duration::from_secs(5);

/// Characters of a reason that is told beside something else.
const REASON_CHARS_MAX: usize = 200;

/// A way into the running core.
pub struct Local {
    /// Where it is.
    pub core: Running,
    http: reqwest::Client,
}

impl Local {
    /// Finds the core. The exit code is 5 when nothing runs.
    pub fn open(world: &World) -> Result<Local, Failure> {
        let core = running::find(&world.paths)?;
        let http = reqwest::Client::builder()
            .timeout(ANSWER_WAIT)
            .no_proxy()
            .build()
            .map_err(|error| unreachable(&core, &error.to_string()))?;
        Ok(Local { core, http })
    }

    /// The state as windows see it.
    pub async fn state(&self) -> Result<Value, Failure> {
        let call = self
            .http
            .get(format!("{}/api/v1/state", self.core.url))
            .timeout(STATE_WAIT);
        self.send(call).await
    }

    /// Carries out one method.
    pub async fn call(&self, method: &str, body: &Value) -> Result<Value, Failure> {
        let call = self
            .http
            .post(format!("{}/api/v1/rpc/{method}", self.core.url))
            .json(body);
        self.send(call).await
    }

    /// Asks for the end of the core. It comes later; nobody answers any more then.
    pub async fn stop(&self, how: StopHow) -> Result<(), Failure> {
        let call = self
            .http
            .post(format!("{}/api/v1/stop", self.core.url))
            .json(&json!({ "how": how }));
        self.send(call).await.map(drop)
    }

    /// How a session came to what it says of its turns; the session by its id or the beginning of it.
    pub async fn explanation(&self, session: &str) -> Result<Value, Failure> {
        let state = self.state().await?;
        let found = pick(list(&state, "sessions"), "id", session)
            .map_err(|not_one| no_session(&state, &not_one, session))?;
        let mut answer = self
            .call("explain", &json!({ "session_id": found["id"] }))
            .await?;
        Ok(answer["explanation"].take())
    }

    async fn send(&self, call: reqwest::RequestBuilder) -> Result<Value, Failure> {
        let broken = |error: reqwest::Error| unreachable(&self.core, &error.to_string());
        let answer = call.bearer_auth(&self.core.token).send().await.map_err(broken)?;
        let failed = !answer.status().is_success();
        let body: Value = answer.json().await.map_err(broken)?;
        if failed { Err(refused(&body)) } else { Ok(body) }
    }
}

fn unreachable(core: &Running, reason: &str) -> Failure {
    let message = format!(
        "the core (process {}) does not answer at {}: {reason}",
        core.pid, core.url
    );
    Failure::new(
        Exit::Unreachable,
        message,
        "If it stays so, end that process and start again.",
    )
}

/// The core's own words, under the exit code of their class.
fn refused(body: &Value) -> Failure {
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    let exit = match body["code"].as_str() {
        Some("invalid") => Exit::Usage,
        Some("unreachable" | "not_ready") => Exit::Unreachable,
        _ => Exit::Failed,
    };
    let message = match text("message") {
        empty if empty.is_empty() => format!("the core refused it: {body}"),
        message => message,
    };
    Failure::new(exit, message, text("hint"))
}

/// Why there is no such session here: it has ended, or there never was one as far as the state tells.
fn no_session(state: &Value, not_one: &NotOne, wanted: &str) -> Failure {
    let hint = "`semo status` shows the sessions of this machine.";
    if *not_one != NotOne::Nothing {
        return Failure::new(Exit::Usage, not_one.words("session", wanted), hint);
    }
    let wanted = wanted.to_lowercase();
    let of_it = |command: &&Value| {
        let session = command["session_id"].as_str();
        session.is_some_and(|session| session.starts_with(&wanted))
    };
    // Newest first.
    let Some(last) = list(state, "commands").iter().find(of_it) else {
        let message = not_one.words("session", &wanted);
        return Failure::new(Exit::Usage, message, hint);
    };
    let mut message = format!(
        "session {} is not on this machine any more",
        short(&last["session_id"])
    );
    if let Some(at) = last["finished_at"].as_i64() {
        let outcome = last["outcome"]
            .as_str()
            .or(last["status"].as_str())
            .unwrap_or("over");
        message.push_str(&format!(
            "; its last command {} ended at {} ({outcome})",
            short(&last["id"]),
            clock(Timestamp(at))
        ));
        if let Some(reason) = last["reason"].as_str() {
            message.push_str(&format!(": {}", clipped(reason, REASON_CHARS_MAX)));
        }
    }
    Failure::new(
        Exit::Usage,
        message,
        "A session explains its turns as long as it is open. The verdicts stay: `semo tail` shows them, `semo tail --json` with their evidence.",
    )
}

/// A list in the state; empty where there is none.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A field as text; `-` where there is none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_session_is_told_from_one_that_never_was() {
        let state = json!({"commands": [
            {"id": "c1c1c1c1-1", "session_id": "aaaa1111-1", "finished_at": 1_767_225_661_500_i64, "outcome": "done"},
        ]});
        let told = |wanted| no_session(&state, &NotOne::Nothing, wanted).message;
        assert_eq!(
            told("AAAA"),
            "session aaaa1111 is not on this machine any more; its last command c1c1c1c1 ended at 00:01:01 UTC (done)"
        );
        assert!(told("bbbb").contains("no session whose id begins with `bbbb`"));
        assert!(
            no_session(&state, &NotOne::TooShort, "a")
                .message
                .contains("too short")
        );
    }

    #[test]
    fn a_refusal_keeps_its_words_and_its_class() {
        let failure = refused(&json!({"code": "invalid", "message": "no", "hint": "yes"}));
        assert_eq!((failure.exit, failure.hint.as_str()), (Exit::Usage, "yes"));
        assert!(!refused(&json!("strange")).message.is_empty());
    }
}
