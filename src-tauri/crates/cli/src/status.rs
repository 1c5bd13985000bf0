//! `semo status`: what runs on this data folder, asked of the running core.

use serde_json::Value;

use crate::arguments::Status;
use crate::exit::{Exit, Failure};
use crate::local::Local;
use crate::world::World;

/// Runs the order. The exit code is 5 when nothing runs, 1 when the core tells of problems.
pub async fn run(world: &World, order: &Status) -> Result<Exit, Failure> {
    let local = Local::open(world)?;
    let state = local.state().await?;
    if order.json {
        println!("{state}");
    } else {
        print!("{}", in_words(&local.core.ui(), &state));
    }
    let problems = state["problems"]
        .as_array()
        .is_some_and(|problems| !problems.is_empty());
    Ok(if problems { Exit::Failed } else { Exit::Ok })
}

/// `ui` holds the token: this goes to the terminal of the user who asks, and nowhere else.
fn in_words(ui: &str, state: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut lines = vec![
        format!("SEMO Office {}", text(&state["version"])),
        format!("ui          {ui}"),
        format!(
            "profile     {} ({})",
            text(&state["profile"]["name"]),
            text(&state["profile"]["url"])
        ),
        format!("office      {}", text(&state["office"]["name"])),
        format!(
            "connection  {}{}",
            text(&state["connection"]["status"]),
            why(&state["connection"]["why"])
        ),
    ];
    for problem in state["problems"].as_array().into_iter().flatten() {
        lines.push(format!(
            "problem     {}\n            {}",
            text(&problem["message"]),
            text(&problem["hint"])
        ));
    }
    lines.push("sessions".to_owned());
    for session in state["sessions"].as_array().into_iter().flatten() {
        lines.push(format!(
            "  {}  {:<16} {:<16} {}{}",
            text(&session["id"]),
            text(&session["title"]),
            text(&session["state"]["state"]).replace('_', " "),
            text(&session["branch"]),
            why(&session["asks"]),
        ));
    }
    let asks = state["asks"].as_array().map_or(0, Vec::len);
    if asks > 0 {
        lines.push(format!("{asks} wait for an answer; `semo asks` shows them"));
    }
    lines.push("newest commands".to_owned());
    for command in state["commands"].as_array().into_iter().flatten().take(10) {
        lines.push(format!(
            "  {}  {:<12} {}{}",
            text(&command["id"]).chars().take(8).collect::<String>(),
            text(&command["status"]),
            text(&command["summary"]),
            why(&command["reason"]),
        ));
    }
    lines.join("\n") + "\n"
}

fn why(reason: &Value) -> String {
    reason
        .as_str()
        .map(|reason| format!(" ({reason})"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_is_told_in_words_and_a_strange_one_breaks_nothing() {
        let state = json!({
            "version": "1", "profile": {"name": "This machine", "url": "u"}, "office": {"name": "Home"},
            "connection": {"status": "backoff", "why": "no network"},
            "problems": [{"message": "no claude", "hint": "install it"}],
            "sessions": [{"id": "s", "title": "FE · Mina", "state": {"state": "awaiting_person"}, "branch": "b"}],
            "asks": [{"id": "a"}],
            "commands": [{"id": "12345678-9", "status": "failed", "summary": "x", "reason": "because"}],
        });
        let words = in_words("http://x/#token=t", &state);
        for part in [
            "ui          http://x/#token=t\n",
            "backoff (no network)",
            "no claude",
            "install it",
            "awaiting person",
            "12345678",
            "(because)",
            "1 wait for an answer",
        ] {
            assert!(words.contains(part), "{part} is missing in:\n{words}");
        }
        assert!(in_words("u", &json!({"sessions": 7})).contains("SEMO Office -"));
    }
}
