//! What the running core knows of a command that is not over: why it waits, what its agent asks, which try failed.
//!
//! It reads the state as windows see it (`GET /api/v1/state`) and is tolerant: what is missing is not told.

use domain::Timestamp;
use serde_json::Value;

use crate::ids::short;
use crate::local::list;
use crate::words::{clipped, clock, retry, shown};

/// Characters of outside text in one line.
const TEXT_CHARS_MAX: usize = 200;

/// Where a command stands. `key` changes when there is something new to say; a countdown in the words is nothing new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Compared, never shown.
    pub key: String,
    /// For people; may have several lines.
    pub words: String,
}

impl Standing {
    fn plain(words: impl Into<String>) -> Standing {
        let words = words.into();
        Standing {
            key: words.clone(),
            words,
        }
    }
}

/// Where the command stands by `state`; `None` where the state does not know it, or it is over.
pub fn standing(state: &Value, command_id: &str) -> Option<Standing> {
    let command = list(state, "commands")
        .iter()
        .find(|command| command["id"] == command_id)?;
    let because = command["reason"]
        .as_str()
        .map(|reason| clipped(reason, TEXT_CHARS_MAX));
    let told = match command["status"].as_str()? {
        "queued" => Standing::plain("queued; no workstation has taken it yet"),
        "waiting" => match (paused(state, command), because) {
            (Some(paused), _) => paused,
            (None, Some(because)) => Standing::plain(format!("waiting in line: {because}")),
            (None, None) => Standing::plain("waiting in line for a session"),
        },
        "claimed" if command["mine"] == true => Standing::plain("taken; its session is being prepared"),
        "claimed" | "running" => running(state, command, because),
        "reporting" => Standing::plain("ended; the result is being written"),
        _ => return None,
    };
    Some(told)
}

fn running(state: &Value, command: &Value, because: Option<String>) -> Standing {
    let session_id = &command["session_id"];
    let of_session = |item: &&Value| !session_id.is_null() && item["session_id"] == *session_id;
    if let Some(ask) = list(state, "asks").iter().find(of_session) {
        return asked(ask);
    }
    let session = list(state, "sessions")
        .iter()
        .find(|session| session["id"] == *session_id);
    if let Some(words) = session.and_then(|session| session["retrying"].as_str()) {
        return retried(words);
    }
    match because {
        Some(because) => Standing::plain(format!("waiting for a person: {because}")),
        None if session_id.is_string() => {
            Standing::plain(format!("running in session {}", short(session_id)))
        }
        None => Standing::plain("running"),
    }
}

/// A try that failed; its countdown is no news.
fn retried(words: &str) -> Standing {
    let count = words.rsplit_once("(try ").map_or(words, |(_, count)| count);
    let count = count.split([',', ')']).next().unwrap_or_default();
    Standing {
        key: format!("retry {count}"),
        words: format!(
            "the model's provider does not answer as it should: {}",
            clipped(retry(words), TEXT_CHARS_MAX)
        ),
    }
}

fn asked(ask: &Value) -> Standing {
    let kind = ask["kind"].as_str().unwrap_or("question");
    let tool = ask["tool"]
        .as_str()
        .map(|tool| format!(" for {tool}"))
        .unwrap_or_default();
    let mut lines = vec![format!("waiting for a person: {kind}{tool}")];
    lines.extend(
        ask["text"]
            .as_str()
            .unwrap_or_default()
            .lines()
            .map(|line| format!("    {}", shown(line))),
    );
    let choices = list(ask, "choices").iter().filter_map(Value::as_str).enumerate();
    lines.extend(choices.map(|(index, choice)| format!("      {}) {}", index + 1, shown(choice))));
    lines.push(format!("    {}", how_to_answer(ask)));
    Standing {
        key: format!("ask {}", ask["id"]),
        words: lines.join("\n"),
    }
}

/// The order that answers an ask, or where else to answer it.
pub fn how_to_answer(ask: &Value) -> String {
    let id = short(&ask["id"]);
    if ask["answerable"] != true {
        "it can only be answered in the session's own terminal".to_owned()
    } else if ask["kind"] == "question" && !list(ask, "choices").is_empty() {
        format!("answer it with `semo approve {id} --choose N`, or --deny")
    } else {
        format!("answer it with `semo approve {id}`, or --deny")
    }
}

fn paused(state: &Value, command: &Value) -> Option<Standing> {
    let agents = list(&state["pool"], "paused_agents");
    let agent = agents
        .iter()
        .find(|agent| agent["agent_id"] == command["agent_id"])?;
    Some(Standing::plain(format!("its agent is paused {}", until(agent))))
}

/// `until 10:17:10 UTC: its program ended too often`.
pub fn until(paused: &Value) -> String {
    let until = paused["until"]
        .as_i64()
        .map(|at| clock(Timestamp(at)))
        .unwrap_or_default();
    format!(
        "until {until}: {}",
        clipped(paused["why"].as_str().unwrap_or("-"), TEXT_CHARS_MAX)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(command: Value, rest: Value) -> Option<Standing> {
        let mut state = rest;
        let mut row = json!({"id": "c", "agent_id": "x", "session_id": "12345678-9", "mine": true});
        for (key, value) in command.as_object().unwrap() {
            row[key] = value.clone();
        }
        state["commands"] = json!([row]);
        standing(&state, "c")
    }

    #[test]
    fn each_standing_has_its_own_words() {
        let words = |command, rest| with(command, rest).unwrap().words;
        assert!(words(json!({"status": "queued"}), json!({})).contains("no workstation"));
        let line = words(
            json!({"status": "waiting", "reason": "all 3 sessions are busy"}),
            json!({}),
        );
        assert_eq!(line, "waiting in line: all 3 sessions are busy");
        let pool = json!({"pool": {"paused_agents": [{"agent_id": "x", "until": 1_767_225_661_500_i64, "why": "it fell over"}]}});
        let paused = words(json!({"status": "waiting", "reason": "r"}), pool);
        assert_eq!(paused, "its agent is paused until 00:01:01 UTC: it fell over");
        assert_eq!(
            words(json!({"status": "running"}), json!({})),
            "running in session 12345678"
        );
        assert!(words(json!({"status": "running", "reason": "a login"}), json!({})).contains("a login"));
        assert_eq!(with(json!({"status": "succeeded"}), json!({})), None);
        assert_eq!(standing(&json!({"commands": 7}), "c"), None);
    }

    #[test]
    fn an_ask_is_told_with_the_order_that_answers_it() {
        let ask = |kind: &str, choices: Value| {
            json!({"asks": [{"id": "8d5535a9-1", "session_id": "12345678-9", "kind": kind, "tool": "Bash",
                "text": "touch\u{1b}[2J r1", "choices": choices, "answerable": true}]})
        };
        let permission = with(json!({"status": "running"}), ask("permission", json!([])))
            .unwrap()
            .words;
        for part in [
            "permission for Bash",
            "touch\\u{1b}[2J r1",
            "`semo approve 8d5535a9`",
        ] {
            assert!(permission.contains(part), "{part} is missing in:\n{permission}");
        }
        let question = with(json!({"status": "running"}), ask("question", json!(["red"])))
            .unwrap()
            .words;
        assert!(
            question.contains("1) red") && question.contains("--choose N"),
            "{question}"
        );
    }

    #[test]
    fn a_retry_is_news_once_for_each_try() {
        let at = |words: &str| {
            let sessions = json!({"sessions": [{"id": "12345678-9", "retrying": words}]});
            with(json!({"status": "running"}), sessions).unwrap()
        };
        let first = at("API error · Retrying in 3s · attempt 1/10 (try 1 of 10, again in 3 s)");
        assert!(first.words.ends_with("attempt 1/10"), "{}", first.words);
        assert_eq!(
            first.key,
            at("API error · Retrying in 2s · attempt 1/10 (try 1 of 10, again in 2 s)").key
        );
        assert_ne!(
            first.key,
            at("API error · Retrying in 2s · attempt 2/10 (try 2 of 10, again in 2 s)").key
        );
    }
}
