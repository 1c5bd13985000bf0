//! `semo asks` and `semo approve`: what agents wait for people to say, and saying it.

use domain::Timestamp;
use serde_json::{Value, json};

use crate::arguments::{Approve, Asks};
use crate::exit::{Exit, Failure};
use crate::ids::SHORT_ID_CHARS_MIN;
use crate::local::{Local, text};
use crate::print::{self, out};
use crate::waiting::how_to_answer;
use crate::words::{age, shown};
use crate::world::World;

/// Lists what waits.
pub async fn list(world: &World, order: &Asks) -> Result<Exit, Failure> {
    let state = Local::open(world)?.state().await?;
    let asks = state["asks"].as_array().map(Vec::as_slice).unwrap_or_default();
    if order.json {
        out!("{}", json!({ "asks": asks, "closed_asks": state["closed_asks"] }))?;
    } else {
        print::block(&in_words(asks, &state, world.clock.now()))?;
    }
    Ok(Exit::Ok)
}

/// Answers one of them.
pub async fn run(world: &World, order: &Approve) -> Result<Exit, Failure> {
    let local = Local::open(world)?;
    let state = local.state().await?;
    let asks = state["asks"].as_array().map(Vec::as_slice).unwrap_or_default();
    // The whole id of one that is over goes to the core, which knows who was first.
    let known = find(asks, &order.target, &state, world.clock.now())?;
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
    let mut said = local.call("answer_ask", &body).await?;
    if order.json {
        said["ask"] = known.cloned().unwrap_or(Value::Null);
        return out!("{said}").map(|()| Exit::Ok);
    }
    if let Some(command) = said["command_id"].as_str() {
        out!("sent to its workstation as command {command}; `semo tail` shows what comes of it")?;
    } else {
        out!("{}", said["note"].as_str().unwrap_or("answered"))?;
    }
    if let Some(ask) = known {
        // What was answered, not what was read: between the two, the session may have gone on to another one.
        print::block(&safe(&lines_of(ask, &state, world.clock.now())))?;
    }
    Ok(Exit::Ok)
}

/// By the beginning of the ask's own id, or of its session's. Where several fit, nobody guesses which one was read.
fn find<'a>(
    asks: &'a [Value],
    wanted: &str,
    state: &Value,
    now: Timestamp,
) -> Result<Option<&'a Value>, Failure> {
    if let Some(exact) = asks.iter().find(|ask| ask["id"] == wanted) {
        return Ok(Some(exact));
    }
    if wanted.chars().count() < SHORT_ID_CHARS_MIN {
        return Ok(None);
    }
    let begins = |ask: &Value, key: &str| ask[key].as_str().is_some_and(|its| its.starts_with(wanted));
    let fits: Vec<&Value> = asks
        .iter()
        .filter(|ask| begins(ask, "id") || begins(ask, "session_id"))
        .collect();
    match fits.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => {
            let listed: Vec<Value> = several.iter().map(|ask| (*ask).clone()).collect();
            let message = format!(
                "`{wanted}` stands for {} asks, so none was answered:\n{}",
                several.len(),
                in_words(&listed, state, now).trim_end()
            );
            Err(Failure::new(
                Exit::Usage,
                message,
                "Name one by its own id, which comes first.",
            ))
        }
    }
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

fn in_words(asks: &[Value], state: &Value, now: Timestamp) -> String {
    if asks.is_empty() {
        return "nobody waits for an answer\n".to_owned();
    }
    let mut lines = Vec::new();
    for ask in asks {
        lines.extend(lines_of(ask, state, now));
        lines.push(format!("    {}", how_to_answer(ask)));
    }
    safe(&lines)
}

/// Escape sequences of an agent must not reach the terminal of whoever looks, and nothing may hide from them.
fn safe(lines: &[String]) -> String {
    let safe: Vec<_> = lines.iter().map(|line| shown(line)).collect();
    safe.join("\n") + "\n"
}

/// Which ask it is, and what is asked.
fn lines_of(ask: &Value, state: &Value, now: Timestamp) -> Vec<String> {
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
    let mut lines = vec![format!(
        "{}  {}{tool} · {agent} · session {}{place}{}",
        text(&ask["id"]),
        text(&ask["kind"]),
        text(&ask["session_id"]).chars().take(8).collect::<String>(),
        since(ask, now),
    )];
    lines.extend(text(&ask["text"]).lines().map(|line| format!("    {line}")));
    let choices = ask["choices"].as_array().into_iter().flatten().enumerate();
    lines.extend(choices.map(|(index, choice)| format!("      {}) {}", index + 1, text(choice))));
    lines
}

fn since(ask: &Value, now: Timestamp) -> String {
    let asked_at = ask["asked_at"].as_i64().map(Timestamp);
    asked_at.map_or_else(String::new, |at| format!(" · for {}", age(at, now)))
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
            "asked_at": 60_000,
        })];
        let words = in_words(
            &asks,
            &json!({"agents": [{"id": "x", "role": "FE", "name": "Mina"}]}),
            Timestamp(180_000),
        );
        for part in [
            "a1  question · FE (Mina)",
            "another workstation",
            "    say",
            "1) red",
            "for 2 min",
            "`semo approve a1 --choose N`",
        ] {
            assert!(words.contains(part), "{part} is missing in:\n{words}");
        }
        assert!(
            !words.contains('\u{1b}') && words.contains("which\\u{1b}[2J"),
            "{words}"
        );
        assert!(words.contains("\\u{202e}oh"), "nothing hides: {words}");
    }

    #[test]
    fn an_ask_is_named_by_itself_or_by_its_session_while_that_waits_with_nothing_else() {
        let ask = |id: &str, session: &str, text: &str| json!({"id": id, "session_id": session, "kind": "permission", "text": text, "answerable": true});
        let asks = [
            ask("a1b2c3", "s1000000", "rm -r build"),
            ask("a1d4e5", "s1000000", "touch note"),
            ask("b7f8a9", "t2000000", "ls"),
        ];
        let found = |wanted: &str| {
            find(&asks, wanted, &Value::Null, Timestamp(0)).map(|ask| ask.map(|ask| text(&ask["id"])))
        };
        for (wanted, id) in [
            ("a1d4e5", Some("a1d4e5")),
            ("b7f8", Some("b7f8a9")),
            ("t2000000", Some("b7f8a9")),
            ("q000", None),
            ("b7f", None),
            ("", None),
        ] {
            assert_eq!(found(wanted).unwrap().as_deref(), id, "{wanted}");
        }
        for several in ["s1000000", "s1000"] {
            let failure = found(several).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            for part in [
                "a1b2c3  permission",
                "rm -r build",
                "a1d4e5  permission",
                "touch note",
            ] {
                assert!(failure.message.contains(part), "{part}: {}", failure.message);
            }
            assert!(!failure.message.contains("b7f8a9"), "{}", failure.message);
        }
    }
}
