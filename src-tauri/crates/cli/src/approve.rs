//! `semo asks` and `semo approve`: what agents wait for people to say, and saying it.

use serde_json::{Value, json};

use crate::arguments::{Approve, Asks};
use crate::exit::{Exit, Failure};
use crate::local::{Local, only_one, text};
use crate::world::World;

/// Lists what waits.
pub async fn list(world: &World, order: &Asks) -> Result<Exit, Failure> {
    let state = Local::open(world)?.state().await?;
    let asks = state["asks"].as_array().map(Vec::as_slice).unwrap_or_default();
    if order.json {
        println!("{}", json!({ "asks": asks, "closed_asks": state["closed_asks"] }));
    } else {
        print!("{}", in_words(asks, &state));
    }
    Ok(Exit::Ok)
}

/// Answers one of them.
pub async fn run(world: &World, order: &Approve) -> Result<Exit, Failure> {
    let local = Local::open(world)?;
    let state = local.state().await?;
    let asks = state["asks"].as_array().map(Vec::as_slice).unwrap_or_default();
    // The whole id of one that is over goes to the core, which knows who was first.
    let known = find(asks, &order.target);
    let is_id = order.target.parse::<domain::AskId>().is_ok();
    let (id, answer) = match known {
        Some(ask) => (text(&ask["id"]), answer_to(ask, order)?),
        None if is_id => (order.target.clone(), plain_answer(order)),
        None => {
            let message = format!("nothing that waits for an answer begins with `{}`", order.target);
            return Err(Failure::new(
                Exit::Usage,
                message,
                "`semo asks` lists what waits, with its id.",
            ));
        }
    };
    let body = json!({ "ask_id": id, "answer": answer, "way": "cli" });
    let said = local.call("answer_ask", &body).await?;
    if order.json {
        println!("{said}");
    } else if let Some(command) = said["command_id"].as_str() {
        println!("sent to its workstation as command {command}; `semo tail` shows what comes of it");
    } else {
        println!("{}", said["note"].as_str().unwrap_or("answered"));
    }
    Ok(Exit::Ok)
}

/// By the beginning of the ask's own id, or of its session's when that waits with one ask only.
fn find<'a>(asks: &'a [Value], wanted: &str) -> Option<&'a Value> {
    only_one(asks, "id", wanted).or_else(|| only_one(asks, "session_id", wanted))
}

fn plain_answer(order: &Approve) -> Value {
    match (&order.choose, order.deny) {
        (Some(choice), _) => json!({ "say": "choose", "choice": choice.saturating_sub(1) }),
        (None, true) => json!({ "say": "deny", "message": order.message.clone().unwrap_or_default() }),
        (None, false) => json!({ "say": "allow" }),
    }
}

/// People count from 1, and want to hear of a slip before anything is sent.
fn answer_to(ask: &Value, order: &Approve) -> Result<Value, Failure> {
    let count = ask["choices"].as_array().map_or(0, Vec::len);
    if let Some(choice) = order.choose {
        if count == 0 {
            let message = "there is nothing to choose from";
            return Err(Failure::new(
                Exit::Usage,
                message,
                "Leave --choose out, or say --deny.",
            ));
        }
        if choice == 0 || choice > count {
            let message = format!("there is no choice {choice}; there are 1 to {count}");
            return Err(Failure::new(Exit::Usage, message, "`semo asks` shows them."));
        }
    } else if count > 0 && !order.deny && ask["kind"] == "question" {
        let message = format!("it is a question with {count} choices");
        return Err(Failure::new(
            Exit::Usage,
            message,
            "Name one with --choose N, or say --deny; `semo asks` shows them.",
        ));
    }
    Ok(plain_answer(order))
}

fn in_words(asks: &[Value], state: &Value) -> String {
    if asks.is_empty() {
        return "nobody waits for an answer\n".to_owned();
    }
    let mut lines = Vec::new();
    for ask in asks {
        let agent = agent_of(ask, state);
        let tool = ask["tool"]
            .as_str()
            .map(|tool| format!(" for {tool}"))
            .unwrap_or_default();
        let place = if ask["mine"] == true {
            ""
        } else {
            ", on another workstation"
        };
        lines.push(format!(
            "{}  {}{tool} · {agent} · session {}{place}",
            text(&ask["id"]),
            text(&ask["kind"]),
            text(&ask["session_id"]).chars().take(8).collect::<String>(),
        ));
        lines.extend(text(&ask["text"]).lines().map(|line| format!("    {line}")));
        let choices = ask["choices"].as_array().into_iter().flatten().enumerate();
        lines.extend(choices.map(|(index, choice)| format!("      {}) {}", index + 1, text(choice))));
        if ask["answerable"] != true {
            lines.push("    can only be answered in the session's own terminal".to_owned());
        }
    }
    // Escape sequences of an agent must not reach the terminal of whoever looks, and nothing may hide from them.
    let safe: Vec<_> = lines.iter().map(|line| shown(line)).collect();
    safe.join("\n") + "\n"
}

/// Writes out what a terminal would obey or not show: control characters, and those that turn or hide text.
fn shown(line: &str) -> String {
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut text = String::with_capacity(line.len());
    for c in line.chars() {
        if hides(c) {
            text.extend(c.escape_unicode());
        } else {
            text.push(c);
        }
    }
    text
}

fn agent_of(ask: &Value, state: &Value) -> String {
    let agents = state["agents"].as_array().into_iter().flatten();
    let found = agents.into_iter().find(|agent| agent["id"] == ask["agent_id"]);
    found.map_or("an agent".to_owned(), |agent| {
        format!("{} ({})", text(&agent["role"]), text(&agent["name"]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(choose: Option<usize>, deny: bool) -> Approve {
        Approve {
            target: String::new(),
            deny,
            message: None,
            choose,
            json: false,
        }
    }

    #[test]
    fn people_count_from_one_and_a_slip_is_told_before_anything_is_sent() {
        let question = json!({"kind": "question", "choices": ["red", "blue"]});
        let chosen = answer_to(&question, &order(Some(2), false)).unwrap();
        assert_eq!(chosen, json!({"say": "choose", "choice": 1}));
        for wrong in [Some(0), Some(3), None] {
            let failure = answer_to(&question, &order(wrong, false)).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{wrong:?}");
        }
        assert!(answer_to(&question, &order(None, true)).is_ok());
        let permission = json!({"kind": "permission", "choices": []});
        assert_eq!(
            answer_to(&permission, &order(None, false)).unwrap(),
            json!({"say": "allow"})
        );
        assert!(answer_to(&permission, &order(Some(1), false)).is_err());
    }

    #[test]
    fn what_waits_is_told_with_everything_in_sight_and_nothing_that_a_terminal_obeys() {
        let asks = [json!({
            "id": "a1", "session_id": "s1", "agent_id": "x", "kind": "question", "tool": null,
            "text": "which\u{1b}[2J one?\nsay \u{202e}oh", "choices": ["red"], "mine": false, "answerable": true,
        })];
        let words = in_words(
            &asks,
            &json!({"agents": [{"id": "x", "role": "FE", "name": "Mina"}]}),
        );
        for part in [
            "a1  question · FE (Mina)",
            "another workstation",
            "    say",
            "1) red",
        ] {
            assert!(words.contains(part), "{part} is missing in:\n{words}");
        }
        assert!(
            !words.contains('\u{1b}') && words.contains("which\\u{1b}[2J"),
            "{words}"
        );
        assert!(words.contains("\\u{202e}oh"), "nothing hides: {words}");
        assert!(find(&asks, "s").is_some() && find(&asks, "q").is_none());
    }
}
