//! The local API of the core that runs on this data folder, for the orders that speak to it and not to the office.

use std::time::Duration;

use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::running::{self, Running};
use crate::world::World;

/// A healthy core answers in milliseconds; git on a slow disk may take its time.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// The same for the state, which is only copied.
const STATE_WAIT: Duration = Duration::from_secs(5);

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

    /// How a session came to what it says of its turns; the session by its id or the beginning of it.
    pub async fn explanation(&self, session: &str) -> Result<Value, Failure> {
        let state = self.state().await?;
        let sessions = state["sessions"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let Some(found) = only_one(sessions, "id", session) else {
            let message = format!("`{session}` is not the beginning of exactly one session's id here");
            return Err(Failure::new(Exit::Usage, message, "`semo status` shows them."));
        };
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

/// The only one of `items` whose `key` begins with `wanted`; `None`: there is none or there are several.
pub fn only_one<'a>(items: &'a [Value], key: &str, wanted: &str) -> Option<&'a Value> {
    let fits = |item: &&Value| item[key].as_str().is_some_and(|its| its.starts_with(wanted));
    let mut found = items.iter().filter(fits);
    match (found.next(), found.next()) {
        (Some(one), None) if !wanted.is_empty() => Some(one),
        _ => None,
    }
}

/// A field as text; `-` where there is none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_names_one_thing_or_nothing() {
        let items = [json!({"id": "ab1"}), json!({"id": "ab2"}), json!({"id": "c"})];
        assert_eq!(only_one(&items, "id", "ab2"), Some(&items[1]));
        assert_eq!(only_one(&items, "id", "c"), Some(&items[2]));
        for nothing in ["ab", "x", ""] {
            assert_eq!(only_one(&items, "id", nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_refusal_keeps_its_words_and_its_class() {
        let failure = refused(&json!({"code": "invalid", "message": "no", "hint": "yes"}));
        assert_eq!((failure.exit, failure.hint.as_str()), (Exit::Usage, "yes"));
        assert!(!refused(&json!("strange")).message.is_empty());
    }
}
