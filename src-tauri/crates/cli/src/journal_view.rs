//! `semo status --journal`: how far each command came that this workstation took, read from the journal itself, whether a
//! core runs or not. It writes nothing.
//!
//! Each command is in exactly one [`class`]; where no core runs, each that has not ended says what the next start does
//! with it.

use domain::Timestamp;
use journal::Journal;
use serde_json::{Value, json};

use crate::arguments::Status;
use crate::exit::{Exit, Failure};
use crate::ids::short;
use crate::local::{list, text};
use crate::print::{self, out};
use crate::running;
use crate::words::{age, clipped, clock, count, recovered_words, span};
use crate::world::World;

/// Characters of an error in one line.
const ERROR_CHARS_MAX: usize = 160;
/// Bytes in a mebibyte.
const MEBIBYTE: f64 = 1_048_576.0;

/// Runs the order. The exit code is 1 when the journal cannot be read.
pub fn run(world: &World, order: &Status) -> Result<Exit, Failure> {
    let path = world.paths.journal();
    if !path.exists() {
        return Err(Failure::new(
            Exit::Unreachable,
            format!("there is no journal at {}", path.display()),
            "It is made by the first start.",
        ));
    }
    let overview = Journal::open_to_read(&path)
        .and_then(|journal| journal.overview(order.lines))
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    let mut overview = serde_json::to_value(&overview).unwrap_or_default();
    let core = !running::is_free(&world.paths);
    for command in overview["commands"].as_array_mut().into_iter().flatten() {
        if command.is_object() {
            command["class"] = class(command, core).into();
        }
    }
    if order.json {
        out!("{}", json!({ "path": path, "journal": overview }))?;
    } else {
        print::block(&in_words(
            &path.display().to_string(),
            &overview,
            core,
            world.clock.now(),
        ))?;
    }
    Ok(Exit::Ok)
}

/// The one class of a command, as a start sees it; stable for scripts.
///
/// `reported`: it has ended, and its result is known. `followed`: it is under way. `not_begun`: nothing of it has had an
/// effect, it is begun when its turn comes. `unknown`: whether it had an effect cannot be known, and it is never begun
/// again by itself.
fn class(command: &Value, core: bool) -> &'static str {
    if command["recovered"] == "unknown" {
        return "unknown";
    }
    let stage = command["turn"]["stage"].as_str();
    match (command["phase"].as_str(), command["kind"].as_str()) {
        (Some("finished"), _) => "reported",
        (Some("started"), Some("send_prompt")) => match stage {
            Some("entering" | "taken") => "followed",
            _ => "not_begun",
        },
        // A second time they would reach something else.
        (Some("started"), Some("send_keys" | "approve")) if !core => "unknown",
        (Some("started"), _) => "followed",
        _ => "not_begun",
    }
}

/// What the next start does with a command that has not ended.
fn at_the_next_start(command: &Value) -> Option<&'static str> {
    if command["phase"] == "finished" {
        return None;
    }
    Some(match class(command, false) {
        "followed" if command["kind"] == "send_prompt" => {
            "the next start follows it where its agent goes on, else it reads how it ended"
        }
        "followed" => "the next start sees to its end",
        "unknown" => {
            "whether it took effect cannot be known; the next start reports that, and does not repeat it"
        }
        _ => "nothing of it was done yet; the next start begins it",
    })
}

fn in_words(path: &str, overview: &Value, core: bool, now: Timestamp) -> String {
    let counts = &overview["counts"];
    let number = |key: &str| counts[key].as_u64().unwrap_or_default();
    let mut lines = vec![format!("journal     {path}{}", size(&overview["size"]))];
    if let Some(at) = overview["launch"]["at"].as_i64().map(Timestamp) {
        lines.push(format!("last start  {} ({} ago)", clock(at), age(at, now)));
    }
    lines.push(format!(
        "commands    {} not begun, {} under way, {} finished; {} for the office to acknowledge",
        number("received"),
        number("started"),
        number("finished"),
        count(number("results_waiting"), "result")
    ));
    for command in list(overview, "commands") {
        lines.push(command_line(command, core, now));
    }
    if let Some(more) = overview["left_out"].as_u64().filter(|more| *more > 0) {
        lines.push(format!("  and {more} more; `-n` shows more of them"));
    }
    lines.join("\n") + "\n"
}

fn size(size: &Value) -> String {
    let bytes = |key: &str| size[key].as_u64().unwrap_or_default();
    match bytes("file") + bytes("log") {
        0 => String::new(),
        all => format!(", {:.1} MiB", all as f64 / MEBIBYTE),
    }
}

/// `  82042aa8  send_prompt     finished   with the agent  done  acknowledged  [received 10:17:10 UTC, took 12.8 s]`
fn command_line(command: &Value, core: bool, now: Timestamp) -> String {
    let result = &command["result"];
    let mut line = format!(
        "  {}  {:<15} {:<10} {:<14} {:<12} {}  {}",
        short(&command["command"]),
        text(&command["kind"]),
        standing(command, core),
        turn(&command["turn"]),
        outcome(result),
        acknowledgement(result, now),
        times(command, now),
    );
    let recovered = command["recovered"].as_str();
    let recovered = recovered.map(|word| recovered_words(word).unwrap_or(word));
    let next = at_the_next_start(command).filter(|_| !core);
    for words in recovered.into_iter().chain(next) {
        line.push_str(&format!("\n            {}", clipped(words, ERROR_CHARS_MAX)));
    }
    if let Some(error) = result["last_error"]
        .as_str()
        .filter(|_| result["acknowledged"].is_null())
    {
        let tries = result["tries"].as_u64().unwrap_or_default();
        line.push_str(&format!(
            "\n            sent {} in vain: {}",
            count(tries, "time"),
            clipped(error, ERROR_CHARS_MAX)
        ));
    }
    line
}

/// Its class as people say it.
fn standing(command: &Value, core: bool) -> &'static str {
    match class(command, core) {
        "reported" => "ended",
        "followed" => "under way",
        "not_begun" => "not begun",
        _ => "unknown",
    }
}

/// How far its prompt came.
fn turn(turn: &Value) -> String {
    match turn["stage"].as_str() {
        Some("begun") => "before Enter".to_owned(),
        Some("entering") => "at Enter".to_owned(),
        Some("taken") => "with the agent".to_owned(),
        Some(other) => other.to_owned(),
        None => "-".to_owned(),
    }
}

fn outcome(result: &Value) -> String {
    let word = result["outcome"].as_str().or(result["status"].as_str());
    word.unwrap_or("no result").to_owned()
}

/// Whether the office has taken the result.
fn acknowledgement(result: &Value, now: Timestamp) -> String {
    if result.is_null() {
        return "-".to_owned();
    }
    match result["acknowledged"].as_str() {
        Some(how) => format!("acknowledged ({how})"),
        None => {
            let due = result["next_try_at"]
                .as_i64()
                .map(Timestamp)
                .filter(|due| due.0 > now.0);
            match due {
                Some(due) => format!("not acknowledged, sent again in {}", age(now, due)),
                None => "not acknowledged".to_owned(),
            }
        }
    }
}

fn times(command: &Value, now: Timestamp) -> String {
    let at = |key: &str| command[key].as_i64().map(Timestamp);
    let received = at("received_at").map(|at| format!("received {}", clock(at)));
    let span = match (at("started_at"), at("finished_at")) {
        (Some(started), Some(finished)) => Some(format!("took {}", span(finished.ms_since(started)))),
        (None, Some(_)) => Some("never begun".to_owned()),
        (Some(started), None) => Some(format!("begun {} ago", age(started, now))),
        (None, None) => Some("not begun".to_owned()),
    };
    let told: Vec<String> = [received, span].into_iter().flatten().collect();
    format!("[{}]", told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_told_with_what_is_known_and_no_more() {
        let overview = json!({
            "launch": {"epoch": 7, "at": 1_767_225_661_500_i64},
            "counts": {"received": 0, "started": 1, "finished": 2, "results_waiting": 1},
            "size": {"used": 77, "file": 1_048_576, "log": 524_288},
            "commands": [
                {"command": "aaaa1111-1", "kind": "send_prompt", "phase": "started", "recovered": "followed",
                 "turn": {"stage": "taken"}, "result": null, "received_at": 1_767_225_661_500_i64, "started_at": 1_767_225_662_000_i64},
                {"command": "bbbb1111-1", "kind": "send_prompt", "phase": "finished", "recovered": "unknown", "turn": {"stage": "entering"},
                 "result": {"status": "unconfirmed", "outcome": "unconfirmed", "tries": 3, "last_error": "no route\u{1b}[2J", "next_try_at": 0, "acknowledged": null},
                 "received_at": 1_767_225_661_500_i64, "started_at": 1_767_225_662_000_i64, "finished_at": 1_767_225_664_000_i64},
                {"command": "cccc1111-1", "kind": "send_keys", "phase": "finished", "turn": null,
                 "result": {"status": "succeeded", "outcome": "ok", "tries": 0, "acknowledged": "recorded", "next_try_at": 0},
                 "received_at": 1_767_225_661_500_i64, "finished_at": 1_767_225_664_000_i64},
            ],
            "left_out": 2,
        });
        let words = in_words(
            "/data/journal.sqlite",
            &overview,
            true,
            Timestamp(1_767_225_682_000),
        );
        for part in [
            "journal     /data/journal.sqlite, 1.5 MiB",
            "last start  00:01:01 UTC (20 s ago)",
            "commands    0 not begun, 1 under way, 2 finished; 1 result for the office to acknowledge",
            "aaaa1111  send_prompt     under way  with the agent no result    -",
            "begun 20 s ago",
            "the agent went on",
            "bbbb1111  send_prompt     unknown    at Enter       unconfirmed  not acknowledged",
            "not known whether it took effect",
            "sent 3 times in vain: no route",
            "cccc1111  send_keys       ended      -              ok           acknowledged (recorded)",
            "never begun",
            "and 2 more",
        ] {
            assert!(words.contains(part), "`{part}` is missing in:\n{words}");
        }
        assert!(!words.contains('\u{1b}'));
        let strange = in_words("p", &json!({"commands": [7, {}]}), true, Timestamp(0));
        assert!(strange.contains("no result"), "{strange}");
    }

    #[test]
    fn each_command_is_in_one_class_and_says_what_the_next_start_does_with_it() {
        let command = |kind: &str, phase: &str, stage: Option<&str>, recovered: Option<&str>| json!({"kind": kind, "phase": phase, "turn": stage.map(|stage| json!({"stage": stage})), "recovered": recovered});
        for (command, of_core, of_none, next) in [
            (
                command("send_prompt", "received", None, None),
                "not_begun",
                "not_begun",
                Some("begins it"),
            ),
            (
                command("send_prompt", "started", None, None),
                "not_begun",
                "not_begun",
                Some("begins it"),
            ),
            (
                command("send_prompt", "started", Some("begun"), Some("run_again")),
                "not_begun",
                "not_begun",
                Some("begins it"),
            ),
            (
                command("send_prompt", "started", Some("entering"), None),
                "followed",
                "followed",
                Some("follows it"),
            ),
            (
                command("send_prompt", "started", Some("taken"), Some("followed")),
                "followed",
                "followed",
                Some("follows it"),
            ),
            (
                command("send_prompt", "finished", Some("taken"), Some("followed")),
                "reported",
                "reported",
                None,
            ),
            (
                command("send_prompt", "finished", Some("taken"), Some("unknown")),
                "unknown",
                "unknown",
                None,
            ),
            (
                command("send_keys", "started", None, None),
                "followed",
                "unknown",
                Some("does not repeat it"),
            ),
            (
                command("terminate", "started", None, None),
                "followed",
                "followed",
                Some("sees to its end"),
            ),
        ] {
            let classes = (class(&command, true), class(&command, false));
            assert_eq!(classes, (of_core, of_none), "{command}");
            let told = at_the_next_start(&command);
            assert_eq!(told.is_some(), next.is_some(), "{command}");
            assert!(
                told.unwrap_or_default().contains(next.unwrap_or_default()),
                "{command}: {told:?}"
            );
            let beside_a_core = command_line(&command, true, Timestamp(0));
            assert!(!beside_a_core.contains("next start"), "{beside_a_core}");
        }
    }
}
