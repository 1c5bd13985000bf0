//! `semo send`: puts a prompt into the office over REST, as a remote server does, and follows it to its result.

use std::io::Read;
use std::time::Duration;

use client::StopHow;
use client::settings::Profile;
use domain::SessionId;
use domain::command::PROMPT_BYTES_MAX;
use serde_json::json;
use supabase::{CommandRow, CommandState, NewCommand, ResultRow};

use crate::arguments::{Marker, Send};
use crate::evidence;
use crate::exit::{Exit, Failure};
use crate::follow::{Following, final_result, text, word};
use crate::ids::pick;
use crate::local::{Local, list};
use crate::office::Office;
use crate::print::{self, note, out};
use crate::waiting::{Standing, standing};
use crate::words::clipped;
use crate::world::World;

/// Longest time without a look at the command and at the core.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Characters of a reason in the line of the outcome.
const REASON_CHARS_MAX: usize = 400;

/// Runs the order.
pub async fn run(world: &World, order: Send) -> Result<Exit, Failure> {
    let prompt = if order.prompt == "-" {
        from_stdin()?
    } else {
        order.prompt.clone()
    };
    let office = Office::open(world).await?;
    let command = command(world, &office, &order, prompt).await?;
    let ending = ending(world).await;
    if !order.wait {
        let row = enqueue(&office, &command).await?;
        return told_only(&order, &row, ending.is_some());
    }
    refuse_to_wait(ending)?;
    // Listening begins before the command exists, so that its end cannot come unheard.
    let mut following = Following::at(world, office);
    let ended = match enqueue(following.office(), &command).await {
        Ok(row) => {
            if !order.json {
                note!("queued as {}; waiting for the result …", row.id);
            }
            wait_for_end(world, &mut following, &order, &row).await
        }
        Err(failure) => Err(failure),
    };
    following.close().await;
    match ended? {
        Ended::Over(row, results) => report(&order, &row, &results),
        Ended::StillRunning(row) => Err(Failure::new(
            Exit::StillRunning,
            format!(
                "{} is not finished after {} seconds; it goes on",
                row.id, order.timeout
            ),
            "Follow it with `semo tail`, or end it with `semo cancel`.",
        )),
    }
}

async fn enqueue(office: &Office, command: &NewCommand) -> Result<CommandRow, Failure> {
    let row = office.rest.enqueue_command(command).await;
    row.map_err(|error| Failure::of(Exit::Failed, &error))
}

/// How the core of this machine ends, if it does. An office elsewhere has other workstations.
async fn ending(world: &World) -> Option<StopHow> {
    if world.settings.profile != Profile::ThisMachine {
        return None;
    }
    let state = Local::open(world).ok()?.state().await.ok()?;
    serde_json::from_value(state["ending"]["how"].clone()).ok()
}

/// A core that ends for good would never give the result that is to be waited for. One that leaves its agents is mostly
/// started again at once, and a wait goes on over that.
fn refuse_to_wait(ending: Option<StopHow>) -> Result<(), Failure> {
    match ending {
        Some(StopHow::Finish | StopHow::Now) => Err(Failure::new(
            Exit::Unreachable,
            "SEMO Office is ending and begins nothing new; the prompt was not sent",
            "Start it with `semo up` and send it again. Without --wait it is queued now and begun at the next start.",
        )),
        Some(StopHow::Leave) | None => Ok(()),
    }
}

fn told_only(order: &Send, row: &CommandRow, ending: bool) -> Result<Exit, Failure> {
    if order.json {
        out!("{}", json!({ "command_id": row.id, "state": word(row) }))?;
    } else if ending {
        out!(
            "queued as {}; SEMO Office is ending: it is begun at the next start",
            row.id
        )?;
    } else {
        out!("queued as {}; follow it with `semo tail`", row.id)?;
    }
    Ok(Exit::Ok)
}

async fn command(
    world: &World,
    office: &Office,
    order: &Send,
    prompt: String,
) -> Result<NewCommand, Failure> {
    let agent = match &order.agent {
        Some(wanted) => Some(office.agent(wanted).await?.id),
        None => None,
    };
    let session = match &order.session {
        Some(wanted) => Some(session(world, wanted).await?),
        None => None,
    };
    let marker = match order.marker {
        Marker::Plain => "plain",
        Marker::Code => "code",
        Marker::None => "none",
    };
    let mut args = json!({ "prompt": prompt, "marker": marker });
    if let Some(session) = session {
        args["session"] = json!(session);
    }
    if let Some(repository) = &order.repository {
        args["repository"] = json!(repository);
    }
    domain::Command::parse("send_prompt", &args).map_err(|fault| Failure::of(Exit::Usage, &fault))?;
    Ok(NewCommand {
        office: office.row.id,
        kind: "send_prompt".to_owned(),
        args,
        key: order
            .key
            .clone()
            .unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        agent,
        session,
    })
}

/// A whole id may be of another workstation; the beginning of one is looked up on this machine.
async fn session(world: &World, wanted: &str) -> Result<SessionId, Failure> {
    if let Ok(id) = wanted.parse() {
        return Ok(id);
    }
    let refused = |message| {
        Failure::new(
            Exit::Usage,
            message,
            "`semo status` shows the sessions of this machine.",
        )
    };
    let state = Local::open(world)?.state().await?;
    let found = pick(list(&state, "sessions"), "id", wanted)
        .map_err(|not_one| refused(not_one.words("session", wanted)))?;
    let id = found["id"].as_str().and_then(|id| id.parse().ok());
    id.ok_or_else(|| {
        refused(format!(
            "the core names a session `{}`, which is no id",
            found["id"]
        ))
    })
}

/// What a wait came to.
enum Ended {
    Over(CommandRow, Vec<ResultRow>),
    StillRunning(CommandRow),
}

async fn wait_for_end(
    world: &World,
    following: &mut Following<'_>,
    order: &Send,
    row: &CommandRow,
) -> Result<Ended, Failure> {
    let patience = Duration::from_secs(order.wait_for);
    let mut told = String::new();
    let end = async {
        loop {
            match look(following.office(), row).await {
                Ok((row, results)) if row.state.is_final() => return Ok(Ended::Over(row, results)),
                Ok((row, _)) => {
                    following.is_back();
                    if !order.json {
                        tell_news(world, &row, &mut told).await;
                    }
                }
                Err(why) => following.is_lost(&why, Some(patience)).await?,
            }
            following.wait(LOOK_EVERY).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(order.timeout), end).await {
        Ok(ended) => ended,
        Err(_) => Ok(Ended::StillRunning(row.clone())),
    }
}

/// Says where the command stands, when that is something new.
async fn tell_news(world: &World, row: &CommandRow, told: &mut String) {
    if let Some(standing) = now_standing(world, row).await
        && standing.key != *told
    {
        note!("{} …", standing.words);
        *told = standing.key;
    }
}

/// The command, and its results when it is over.
async fn look(office: &Office, row: &CommandRow) -> Result<(CommandRow, Vec<ResultRow>), String> {
    let found = office.rest.command(row.id).await;
    let row = found
        .map_err(|error| error.to_string())?
        .ok_or_else(|| format!("the office does not know the command {}", row.id))?;
    let results = match row.state.is_final() {
        true => office
            .rest
            .results(&[row.id])
            .await
            .map_err(|error| error.to_string())?,
        false => Vec::new(),
    };
    Ok((row, results))
}

/// The core of this machine knows most. Where none runs, or it does not know the command, the office's word has to do.
async fn now_standing(world: &World, row: &CommandRow) -> Option<Standing> {
    let state = match Local::open(world) {
        Ok(local) => local.state().await.ok(),
        Err(_) => None,
    };
    match state {
        Some(state) => standing(&state, &row.id.to_string()),
        None => Some(Standing {
            key: word(row).to_owned(),
            words: word(row).to_owned(),
        }),
    }
}

fn report(order: &Send, row: &CommandRow, results: &[ResultRow]) -> Result<Exit, Failure> {
    let result = final_result(results);
    let exit = match row.state {
        CommandState::Succeeded => Exit::Ok,
        CommandState::Unconfirmed => Exit::Unconfirmed,
        CommandState::Cancelled => Exit::Cancelled,
        CommandState::Expired => Exit::Expired,
        CommandState::Failed
        | CommandState::Dead
        | CommandState::Queued
        | CommandState::Leased
        | CommandState::Other => Exit::Failed,
    };
    if order.json {
        out!("{}", json!({ "command": row, "result": result }))?;
        return Ok(exit);
    }
    if let Some(message) = result.and_then(|row| text(row.output.as_ref(), "final_message")) {
        print::line(message)?;
    }
    note!("\n{}", outcome(row, result));
    for line in facts(result) {
        note!("  {line}");
    }
    Ok(exit)
}

/// `failed (rate_limit): …`
fn outcome(row: &CommandRow, result: Option<&ResultRow>) -> String {
    let error = result.and_then(|row| row.error.as_ref());
    let outcome = result.and_then(|row| row.outcome.as_deref());
    let class = text(error, "class").map(|class| format!(" ({class})"));
    let reason = text(error, "message").map(|reason| format!(": {}", clipped(reason, REASON_CHARS_MAX)));
    [
        Some(outcome.unwrap_or_else(|| word(row)).to_owned()),
        class,
        reason,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The evidence in lines for people.
fn facts(result: Option<&ResultRow>) -> Vec<String> {
    let evidence = result.and_then(|row| row.evidence.as_ref());
    evidence.map_or_else(Vec::new, |evidence| evidence::lines(list(evidence, "claims")))
}

fn from_stdin() -> Result<String, Failure> {
    let refused = |message: String| Failure::new(Exit::Usage, message, "");
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(PROMPT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refused(format!("could not read the prompt from standard input: {error}")))?;
    prompt_of(bytes)
}

fn prompt_of(bytes: Vec<u8>) -> Result<String, Failure> {
    if bytes.len() > PROMPT_BYTES_MAX {
        let message = format!("the prompt has more than {} bytes", grouped(PROMPT_BYTES_MAX));
        let hint = "Put the text into a file of the repository, and name the file in the prompt.";
        return Err(Failure::new(Exit::Usage, message, hint));
    }
    let text = String::from_utf8(bytes);
    text.map_err(|_| {
        Failure::new(
            Exit::Usage,
            "the prompt on standard input is no text in UTF-8",
            "",
        )
    })
}

/// `65,536`
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_is_too_long_is_told_as_that_and_not_by_where_it_was_cut() {
        assert_eq!(prompt_of(b"do it".to_vec()).unwrap(), "do it");
        // Cut in the middle of a character, as a limited read leaves it.
        let long = "ü".repeat(PROMPT_BYTES_MAX).into_bytes();
        let failure = prompt_of(long[..=PROMPT_BYTES_MAX].to_vec()).unwrap_err();
        assert_eq!(failure.message, "the prompt has more than 65,536 bytes");
        assert!(prompt_of(vec![0xff]).unwrap_err().message.contains("UTF-8"));
        assert_eq!([grouped(7), grouped(999), grouped(1_000)], ["7", "999", "1,000"]);
    }

    #[test]
    fn a_failure_is_told_with_its_class() {
        let row: CommandRow = serde_json::from_value(json!({
            "id": uuid::Uuid::nil(), "seq": 1, "office_id": uuid::Uuid::nil(), "kind": "send_prompt",
            "state": "failed", "created_at": "2026-01-01T00:00:00Z",
        }))
        .unwrap();
        let result: ResultRow = serde_json::from_value(json!({
            "id": uuid::Uuid::nil(), "command_id": uuid::Uuid::nil(), "office_id": uuid::Uuid::nil(),
            "status": "failed", "outcome": "failed", "created_at": "2026-01-01T00:00:00Z",
            "error": {"class": "rate_limit", "message": "You've hit your limit"},
            "evidence": {"claims": [{"what": "commits", "value": 0, "tier": "verified", "source": "git"},
                {"what": "branch", "value": "b", "tier": "verified", "source": "git"}]},
        }))
        .unwrap();
        assert_eq!(
            outcome(&row, Some(&result)),
            "failed (rate_limit): You've hit your limit"
        );
        assert_eq!(facts(Some(&result)), ["branch b (verified, git)"]);
        assert_eq!(outcome(&row, None), "failed");
        assert_eq!(facts(None), Vec::<String>::new());
    }
}
