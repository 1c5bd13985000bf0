//! `semo preserved` and `semo restore`: work that was not committed when its session ended.

use serde_json::{Value, json};

use crate::arguments::{Preserved, Restore};
use crate::exit::{Exit, Failure};
use crate::ids::pick;
use crate::local::{Local, text};
use crate::print::{self, note, out};
use crate::words::count;
use crate::world::World;

/// Lists the kept states of all repositories.
pub async fn list(world: &World, order: &Preserved) -> Result<Exit, Failure> {
    let answer = Local::open(world)?.call("list_preserved", &json!({})).await?;
    let states = answer["preserved"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if order.json {
        out!("{}", json!({ "preserved": states, "note": answer["note"] }))?;
    } else {
        print::block(&in_words(states))?;
        if let Some(note) = answer["note"].as_str() {
            note!("{note}");
        }
    }
    Ok(Exit::Ok)
}

/// Makes one of them a branch again.
pub async fn restore(world: &World, order: &Restore) -> Result<Exit, Failure> {
    let local = Local::open(world)?;
    let answer = local.call("list_preserved", &json!({})).await?;
    let states: Vec<Value> = answer["preserved"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|state| {
            order
                .repository
                .as_ref()
                .is_none_or(|wanted| state["repository"] == wanted.as_str())
        })
        .cloned()
        .collect();
    let hint = "`semo preserved` lists them; --repository tells two of the same name apart.";
    let state = pick(&states, "name", &order.name)
        .map_err(|not_one| Failure::new(Exit::Usage, not_one.words("kept state", &order.name), hint))?;
    let name = text(&state["name"]);
    let branch = order
        .branch
        .clone()
        .unwrap_or_else(|| format!("restored/{}", name.chars().take(8).collect::<String>()));
    let body = json!({ "repository": state["repository"], "name": name, "to_branch": branch });
    let said = local.call("restore_preserved", &body).await?;
    if order.json {
        out!(
            "{}",
            json!({ "repository": state["repository"], "name": name, "branch": branch, "note": said["note"] })
        )?;
    } else {
        out!("{}", said["note"].as_str().unwrap_or("restored"))?;
    }
    Ok(Exit::Ok)
}

fn in_words(states: &[Value]) -> String {
    if states.is_empty() {
        return "nothing is kept: no session has ended with work that was not committed\n".to_owned();
    }
    let mut lines = Vec::new();
    for state in states {
        let kept_at = domain::Timestamp(state["kept_at"].as_i64().unwrap_or_default());
        lines.push(format!(
            "{}  {}  {}",
            text(&state["name"]),
            kept_at.rfc3339(),
            text(&state["repository"])
        ));
        lines.push(format!(
            "    {} · branch {} · {} changed · {}",
            state["agent"].as_str().unwrap_or("an agent"),
            text(&state["branch"]),
            count(state["files_changed"].as_u64().unwrap_or_default(), "file"),
            text(&state["why"])
        ));
    }
    lines.push("`semo restore NAME` makes one of them a branch.".to_owned());
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_states_are_told_in_words() {
        let words = in_words(&[json!({
            "name": "6f6c3c1e", "repository": "shop", "branch": "semo/fe-1", "kept_at": 1_767_225_600_000_i64,
            "agent": null, "files_changed": 3, "why": "its session ended",
        })]);
        for part in [
            "2026-01-01T00:00:00Z  shop",
            "branch semo/fe-1 · 3 files",
            "an agent",
        ] {
            assert!(words.contains(part), "{part} is missing in:\n{words}");
        }
        assert!(in_words(&[]).contains("nothing is kept"));
    }
}
