//! `semo cancel` and `semo terminate`: ending work that is under way, and sessions.

use serde_json::{Value, json};

use crate::arguments::{Cancel, Terminate};
use crate::exit::{Exit, Failure};
use crate::ids::{NotOne, pick, short};
use crate::local::{Local, list};
use crate::print::out;
use crate::world::World;

/// Gives up a command, or interrupts the turn that runs in a session.
pub async fn cancel(world: &World, order: &Cancel) -> Result<Exit, Failure> {
    let local = Local::open(world)?;
    let state = local.state().await?;
    let (what, id) = named(&state, &order.target)?;
    let (method, key) = match what {
        Kind::Command => ("cancel_command", "command_id"),
        Kind::Session => ("cancel_turn", "session_id"),
    };
    let said = local.call(method, &json!({ key: id })).await?;
    if order.json {
        out!(
            "{}",
            json!({ "cancelled": what.word(), "id": id, "note": said["note"] })
        )?;
        return Ok(Exit::Ok);
    }
    match what {
        Kind::Command => out!(
            "command {} is being cancelled; `semo tail` shows its end",
            short(&json!(id))
        )?,
        Kind::Session => out!("the turn of session {} is being interrupted", short(&json!(id)))?,
    }
    Ok(Exit::Ok)
}

/// Ends a session for good.
pub async fn terminate(world: &World, order: &Terminate) -> Result<Exit, Failure> {
    let local = Local::open(world)?;
    let state = local.state().await?;
    let id = match pick(list(&state, "sessions"), "id", &order.session) {
        Ok(session) => session["id"].as_str().unwrap_or_default().to_owned(),
        // A session of another workstation is ended by that one.
        Err(_) if order.session.parse::<domain::SessionId>().is_ok() => order.session.clone(),
        Err(not_one) => return Err(refused("session", &not_one, &order.session)),
    };
    let said = local.call("terminate", &json!({ "session_id": id })).await?;
    if order.json {
        out!(
            "{}",
            json!({ "session_id": id, "command_id": said["command_id"], "note": said["note"] })
        )?;
    } else if said["command_id"].is_string() {
        let command = short(&said["command_id"]);
        out!(
            "session {} is being ended (command {command}); what is not committed is kept, see `semo preserved`",
            short(&json!(id))
        )?;
    } else {
        out!("{}", said["note"].as_str().unwrap_or("it is being ended"))?;
    }
    Ok(Exit::Ok)
}

/// What an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Command,
    Session,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Command => "command",
            Kind::Session => "session",
        }
    }
}

/// The command or the session that is meant. A whole id that the state does not show is a command: it shows the newest
/// ones only, but all sessions.
fn named(state: &Value, target: &str) -> Result<(Kind, String), Failure> {
    let found = |kind, item: &Value| Ok((kind, item["id"].as_str().unwrap_or_default().to_owned()));
    let command = pick(list(state, "commands"), "id", target);
    match (command, pick(list(state, "sessions"), "id", target)) {
        (Ok(_), Ok(_)) => {
            let message = format!("`{target}` is the beginning of a command's id and of a session's");
            Err(Failure::new(
                Exit::Usage,
                message,
                "Write more of it; `semo status` shows both.",
            ))
        }
        (Ok(command), _) => found(Kind::Command, command),
        (_, Ok(session)) => found(Kind::Session, session),
        _ if target.parse::<domain::CommandId>().is_ok() => Ok((Kind::Command, target.to_owned())),
        (Err(NotOne::Several(ids)), _) => Err(refused("command", &NotOne::Several(ids), target)),
        (_, Err(NotOne::Several(ids))) => Err(refused("session", &NotOne::Several(ids), target)),
        (Err(not_one), _) => Err(refused("command or session", &not_one, target)),
    }
}

fn refused(what: &str, not_one: &NotOne, wanted: &str) -> Failure {
    Failure::new(
        Exit::Usage,
        not_one.words(what, wanted),
        "`semo status` shows commands and sessions, with their ids.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_or_a_session_is_named_by_the_beginning_of_its_id() {
        let state = json!({
            "commands": [{"id": "aaaa1111"}, {"id": "bbbb1"}, {"id": "bbbb2"}],
            "sessions": [{"id": "cccc1111"}, {"id": "aaaa2222"}],
        });
        let named = |target: &str| named(&state, target);
        assert_eq!(named("aaaa1").unwrap(), (Kind::Command, "aaaa1111".to_owned()));
        assert_eq!(named("cccc").unwrap(), (Kind::Session, "cccc1111".to_owned()));
        let unseen = "6f6c3c1e-0000-4000-8000-000000000001";
        assert_eq!(named(unseen).unwrap(), (Kind::Command, unseen.to_owned()));
        for (target, words) in [
            ("aaaa", "command's id and of a session's"),
            ("bbbb", "2 commands"),
            ("cc", "too short"),
            ("dddd", "no command or session"),
        ] {
            let failure = named(target).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.contains(words), "{}", failure.message);
        }
    }
}
