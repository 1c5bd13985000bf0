//! `semo status`: what runs on this data folder, asked of the running core.

use domain::Timestamp;
use serde_json::Value;

use crate::arguments::Status;
use crate::exit::{Exit, Failure};
use crate::ids::short;
use crate::journal_view;
use crate::local::{Local, list, text};
use crate::print::{self, out};
use crate::waiting::until;
use crate::words::{age, clipped, clock, count, recovered_words, retry, span};
use crate::world::World;

/// Commands that are shown: the newest ones.
const COMMANDS_MAX: usize = 10;
/// Characters of outside text in one line.
const TEXT_CHARS_MAX: usize = 100;

/// Runs the order. The exit code is 5 when nothing runs, 1 when the core tells of problems.
pub async fn run(world: &World, order: &Status) -> Result<Exit, Failure> {
    if order.journal {
        return journal_view::run(world, order);
    }
    let local = Local::open(world)?;
    let state = local.state().await?;
    if order.json {
        out!("{state}")?;
    } else {
        print::block(&in_words(&local.core.ui(), &state, world.clock.now()))?;
    }
    let problems = !list(&state, "problems").is_empty();
    Ok(if problems { Exit::Failed } else { Exit::Ok })
}

/// `ui` holds the token: this goes to the terminal of the user who asks, and nowhere else.
fn in_words(ui: &str, state: &Value, now: Timestamp) -> String {
    let mut lines = vec![
        format!("SEMO Office {}", text(&state["version"])),
        format!("ui          {ui}"),
        format!(
            "profile     {} ({})",
            text(&state["profile"]["name"]),
            text(&state["profile"]["url"])
        ),
        format!("office      {}", text(&state["office"]["name"])),
        connection(&state["connection"], now),
    ];
    lines.extend(ending(&state["ending"]));
    lines.extend(launch(&state["launch"]));
    for problem in list(state, "problems") {
        lines.push(format!(
            "problem     {}\n            {}",
            text(&problem["message"]),
            text(&problem["hint"])
        ));
    }
    lines.push(sessions_head(state));
    for session in list(state, "sessions") {
        lines.push(session_line(session, state, now));
    }
    for paused in list(&state["pool"], "paused_agents") {
        lines.push(format!(
            "paused      {} {}",
            agent(state, &paused["agent_id"]),
            until(paused)
        ));
    }
    let asks = list(state, "asks").len() as u64;
    if asks > 0 {
        let wait = if asks == 1 { "waits" } else { "wait" };
        lines.push(format!(
            "asks        {} {wait} for an answer; `semo asks` shows them",
            count(asks, "ask")
        ));
    }
    lines.push("newest commands".to_owned());
    for command in list(state, "commands").iter().take(COMMANDS_MAX) {
        lines.push(command_line(command, now));
    }
    lines.join("\n") + "\n"
}

/// `connection  backoff for 4 min (no answer)`
fn connection(connection: &Value, now: Timestamp) -> String {
    let status = text(&connection["status"]);
    let since = connection["since"].as_i64().map(Timestamp);
    let lasts = since
        .filter(|_| status != "live")
        .map(|since| format!(" for {}", age(since, now)));
    format!(
        "connection  {status}{}{}",
        lasts.unwrap_or_default(),
        in_brackets(&connection["why"])
    )
}

/// What an end that is under way waits for.
fn ending(ending: &Value) -> Option<String> {
    let turns = ending["turns"].as_u64().unwrap_or_default();
    let run = if turns == 1 { "runs" } else { "run" };
    match ending["how"].as_str()? {
        "finish" => Some(format!(
            "ending      nothing new is taken; {} still {run}",
            count(turns, "turn")
        )),
        "leave" => Some("ending      agents go on; the next start takes them up again".to_owned()),
        _ => Some("ending      turns are interrupted".to_owned()),
    }
}

/// What the start has found of the sessions of an earlier core.
fn launch(launch: &Value) -> Option<String> {
    let told: Vec<String> = [
        ("recovering", "still looked for"),
        ("taken_up", "went on"),
        ("ended_meanwhile", "ended meanwhile"),
        ("unknown", "cannot be reached; nothing was done there"),
    ]
    .into_iter()
    .filter_map(|(key, words)| {
        let number = launch[key].as_u64().filter(|number| *number > 0)?;
        Some(format!("{} {words}", count(number, "session")))
    })
    .collect();
    (!told.is_empty()).then(|| format!("of before   {}", told.join(", ")))
}

/// `sessions    2 of 5 (1 warm), 1 command waits in line, 812 of 8192 MiB`
fn sessions_head(state: &Value) -> String {
    let pool = &state["pool"];
    let number = |key: &str| pool[key].as_u64();
    let open = number("open").unwrap_or(list(state, "sessions").len() as u64);
    let mut words = format!("sessions    {open}");
    if let Some(max) = number("sessions_max") {
        words.push_str(&format!(" of {max}"));
    }
    if let Some(warm) = number("warm").filter(|warm| *warm > 0) {
        words.push_str(&format!(" ({warm} warm)"));
    }
    if let Some(waiting) = number("waiting").filter(|waiting| *waiting > 0) {
        let wait = if waiting == 1 { "waits" } else { "wait" };
        words.push_str(&format!(", {} {wait} in line", count(waiting, "command")));
    }
    if let (Some(used), Some(limit)) = (number("memory_mb"), number("memory_limit_mb")) {
        words.push_str(&format!(", {used} of {limit} MiB"));
    }
    words
}

fn session_line(session: &Value, state: &Value, now: Timestamp) -> String {
    let started = session["started_at"].as_i64().map(Timestamp);
    let number = |key: &str| session[key].as_u64().filter(|number| *number > 0);
    let is = |key: &str| session[key] == true;
    let of_session = |ask: &&Value| ask["session_id"] == session["id"];
    let ask = list(state, "asks").iter().find(of_session);
    let facts = [
        started.map(|at| format!("for {}", age(at, now))),
        number("memory_mb").map(|mb| format!("{mb} MiB")),
        is("taken_up").then(|| "went on over a restart".to_owned()),
        is("warm").then(|| "warm".to_owned()),
        is("stale").then(|| "stale: its persona has changed, it is renewed when idle".to_owned()),
        number("restarts").map(|times| format!("restarted {}", count(times, "time"))),
        session["retrying"]
            .as_str()
            .map(|words| format!("retrying: {}", clipped(retry(words), TEXT_CHARS_MAX))),
        ask.map(|ask| format!("waits with ask {}", short(&ask["id"]))),
        session["asks"].as_str().map(|asks| clipped(asks, TEXT_CHARS_MAX)),
    ];
    format!(
        "  {}  {:<16} {:<16} {}  {}",
        short(&session["id"]),
        text(&session["title"]),
        standing(session),
        text(&session["branch"]),
        facts.into_iter().flatten().collect::<Vec<_>>().join(" · "),
    )
    .trim_end()
    .to_owned()
}

/// A session that is not in the core's hands is in no state that anybody knows.
fn standing(session: &Value) -> String {
    match session["hold"].as_str() {
        Some("recovering") => "looked for".to_owned(),
        Some(_) => "not reached".to_owned(),
        None => text(&session["state"]["state"]).replace('_', " "),
    }
}

/// `  82042aa8  done         Say hello.  [10:17:10 UTC, took 12.8 s]`
fn command_line(command: &Value, now: Timestamp) -> String {
    let at = |key: &str| command[key].as_i64().map(Timestamp);
    // The status of a command that is carried out says `succeeded` of a turn that is done.
    let outcome = command["outcome"]
        .as_str()
        .or(command["status"].as_str())
        .unwrap_or("-");
    let time = match (at("created_at"), at("started_at"), at("finished_at")) {
        (created, started, Some(finished)) => {
            let took = started
                .or(created)
                .map(|began| format!(", took {}", span(finished.ms_since(began))));
            format!("  [{}{}]", clock(finished), took.unwrap_or_default())
        }
        (_, Some(started), None) => format!("  [running for {}]", age(started, now)),
        (Some(created), None, None) => format!("  [since {}]", age(created, now)),
        (None, None, None) => String::new(),
    };
    let class = command["class"]
        .as_str()
        .map(|class| format!(" ({class})"))
        .unwrap_or_default();
    let recovered = command["recovered"].as_str().and_then(recovered_words);
    let recovered = recovered.map(|words| format!("\n            {words}"));
    let reason = command["reason"].as_str();
    let reason = reason.map(|reason| format!("\n            {}", clipped(reason, 2 * TEXT_CHARS_MAX)));
    format!(
        "  {}  {:<12} {}{time}{}{}",
        short(&command["id"]),
        format!("{outcome}{class}"),
        clipped(command["summary"].as_str().unwrap_or("-"), TEXT_CHARS_MAX),
        reason.unwrap_or_default(),
        recovered.unwrap_or_default(),
    )
}

fn agent(state: &Value, id: &Value) -> String {
    let found = list(state, "agents").iter().find(|agent| agent["id"] == *id);
    found.map_or_else(
        || short(id),
        |agent| format!("{} ({})", text(&agent["role"]), text(&agent["name"])),
    )
}

fn in_brackets(reason: &Value) -> String {
    let reason = reason.as_str();
    reason
        .map(|reason| format!(" ({})", clipped(reason, 2 * TEXT_CHARS_MAX)))
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
            "agents": [{"id": "x", "role": "FE", "name": "Mina"}],
            "sessions": [{
                "id": "abcdefgh-1", "title": "FE · Mina", "state": {"state": "awaiting_person"}, "branch": "b",
                "warm": false, "stale": true, "restarts": 1, "memory_mb": 312, "started_at": 60_000,
                "retrying": "API error · attempt 3/10 (try 3 of 10)",
            }],
            "asks": [{"id": "a5k5a5k5-1", "session_id": "abcdefgh-1"}],
            "pool": {"open": 1, "sessions_max": 5, "warm": 0, "waiting": 1, "memory_mb": 312, "memory_limit_mb": 8192,
                "paused_agents": [{"agent_id": "x", "until": 1_767_225_661_500_i64, "why": "it fell over"}]},
            "commands": [
                {"id": "12345678-9", "status": "failed", "outcome": "failed", "class": "auth", "summary": "x",
                    "reason": "because", "created_at": 0, "started_at": 1_000, "finished_at": 61_000},
                {"id": "22345678-9", "status": "succeeded", "outcome": "done", "summary": "y"},
                {"id": "32345678-9", "status": "running", "summary": "z", "created_at": 0, "started_at": 175_000},
            ],
        });
        let words = in_words("http://x/#token=t", &state, Timestamp(180_000));
        for part in [
            "ui          http://x/#token=t\n",
            "backoff (no network)",
            "no claude",
            "install it",
            "sessions    1 of 5, 1 command waits in line, 312 of 8192 MiB\n",
            "  abcdefgh  FE · Mina",
            "awaiting person",
            "for 2 min · 312 MiB · stale",
            "restarted 1 time · retrying: API error · attempt 3/10 · waits with ask a5k5a5k5\n",
            "paused      FE (Mina) until 00:01:01 UTC: it fell over\n",
            "1 ask waits for an answer",
            "  12345678  failed (auth) x  [00:01:01 UTC, took 1 min 0 s]\n            because\n",
            "  22345678  done         y\n",
            "  32345678  running      z  [running for 5 s]\n",
        ] {
            assert!(words.contains(part), "{part} is missing in:\n{words}");
        }
        assert!(in_words("u", &json!({"sessions": 7}), Timestamp(0)).contains("SEMO Office -"));
    }
}
