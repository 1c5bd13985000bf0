//! `semo down`: the end of what runs on this data folder, asked of the running core; where none runs, the end of what an
//! earlier one has left in its holders.

use std::time::Duration;

use client::StopHow;
use serde_json::{Value, json};

use crate::arguments::Down;
use crate::exit::{Exit, Failure};
use crate::holder::{self, Left};
use crate::key;
use crate::local::{Local, list, text};
use crate::print::{note, out};
use crate::running::{self, Claim};
use crate::words::count;
use crate::world::World;

/// How often the end is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Sessions that are named while their turns are waited for.
const NAMES_MAX: usize = 4;

/// Ends it, and waits until it has ended. Interrupted while it waits, it has asked all the same.
pub async fn run(world: &World, order: &Down) -> Result<Exit, Failure> {
    if running::is_free(&world.paths) {
        if order.leave {
            return nothing_to_leave(holder::tags(world)?.len(), order);
        }
        let ended = holder::end_left(world).await?;
        // A core that has come meanwhile keeps its key: only under the folder's lock.
        if order.now
            && let Ok(claim) = Claim::take(&world.paths).await
        {
            key::forget(&world.paths);
            drop(claim);
        }
        return left(&ended, order);
    }
    let how = match (order.now, order.leave) {
        (true, _) => StopHow::Now,
        (_, true) => StopHow::Leave,
        _ => StopHow::Finish,
    };
    let local = Local::open(world)?;
    local.stop(how).await?;
    follow(world, &local, how).await;
    // What the core had lost sight of has to end as well.
    if how != StopHow::Leave && !holder::tags(world)?.is_empty() {
        return left(&holder::end_left(world).await?, order);
    }
    if order.json {
        out!("{}", json!({ "ended": true, "how": how, "pid": local.core.pid }))?;
    } else if how == StopHow::Leave {
        out!("SEMO Office has ended; agents go on, `semo up` takes them up again")?;
    } else {
        out!("SEMO Office has ended, with every session")?;
    }
    Ok(Exit::Ok)
}

/// What was asked for is so already: no core runs, and nothing is touched.
fn nothing_to_leave(left: usize, order: &Down) -> Result<Exit, Failure> {
    let how = StopHow::Leave;
    if order.json {
        out!(
            "{}",
            json!({ "ended": true, "how": how, "pid": null, "left": left })
        )?;
    } else if left == 0 {
        out!("no core runs here, and no session of an earlier one")?;
    } else {
        out!(
            "no core runs here; {} as the last one left it: `semo up` takes up what goes on, `semo down` ends it",
            match left {
                1 => "1 session is".to_owned(),
                left => format!("{left} sessions are each"),
            }
        )?;
    }
    Ok(Exit::Ok)
}

/// Waits until that core has gone, and says what it waits for.
async fn follow(world: &World, local: &Local, how: StopHow) {
    let mut told = String::new();
    while running::find(&world.paths).is_ok_and(|core| core == local.core) || starts_or_ends(world, local) {
        // Near its end nobody answers any more.
        if let Ok(state) = local.state().await
            && how == StopHow::Finish
        {
            let words = still_running(&state);
            if words != told && !words.is_empty() {
                note!("{words}; `semo down --now` interrupts");
            }
            told = words;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// True while the lock is held and nobody says who runs: the one we asked is clearing up.
fn starts_or_ends(world: &World, local: &Local) -> bool {
    !running::is_free(&world.paths) && running::owner(&world.paths) == Some(local.core.pid)
}

fn still_running(state: &Value) -> String {
    let turns = state["ending"]["turns"].as_u64().unwrap_or_default();
    if turns == 0 {
        return String::new();
    }
    let busy = list(state, "sessions").iter().filter(|session| {
        ["working", "awaiting_person"].contains(&session["state"]["state"].as_str().unwrap_or_default())
    });
    let names: Vec<String> = busy
        .take(NAMES_MAX)
        .map(|session| text(&session["title"]))
        .collect();
    let runs = if turns == 1 { "runs" } else { "run" };
    let whose = if names.is_empty() {
        String::new()
    } else {
        format!(": {}", names.join(", "))
    };
    format!("{} still {runs}{whose}", count(turns, "turn"))
}

/// Tells what became of what an earlier core had left.
fn left(left: &Left, order: &Down) -> Result<Exit, Failure> {
    if order.json {
        let remain: Vec<Value> = left
            .remain
            .iter()
            .map(|(tag, why)| json!({ "session": tag, "why": why }))
            .collect();
        out!(
            "{}",
            json!({ "ended": left.remain.is_empty(), "sessions": left.ended, "cleared": left.cleared, "remain": remain })
        )?;
    } else if left.ended.is_empty() && left.remain.is_empty() {
        out!("nothing runs here")?;
    } else if !left.ended.is_empty() {
        let number = count(left.ended.len() as u64, "session");
        out!(
            "no core runs here; ended {number} that an earlier one had left, with everything they had started"
        )?;
        out!("what they were doing is told at the next start, as far as it is known")?;
    }
    if left.remain.is_empty() {
        return Ok(Exit::Ok);
    }
    for (tag, why) in &left.remain {
        note!("session {tag} could not be ended: {why}");
    }
    Err(Failure::new(
        Exit::Failed,
        format!("{} may still run", count(left.remain.len() as u64, "session")),
        "Try again in a moment; `semo doctor` shows their processes.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_named() {
        let state = json!({ "ending": {"how": "finish", "turns": 1}, "sessions": [
            {"title": "FE · Mina", "state": {"state": "working"}}, {"title": "BE · Joon", "state": {"state": "idle"}},
        ]});
        assert_eq!(still_running(&state), "1 turn still runs: FE · Mina");
        assert_eq!(still_running(&json!({ "ending": null })), "");
    }
}
