//! `semo send`: puts a prompt into the office over REST, as a remote server does, and follows it to its result.

use std::io::Read;
use std::time::Duration;

use serde_json::{Value, json};
use supabase::{CommandRow, CommandState, NewCommand, ResultRow};
use tokio::time::Instant;

use crate::arguments::{Marker, Send};
use crate::exit::{Exit, Failure};
use crate::follow::{Bell, final_result, text, word};
use crate::office::Office;
use crate::world::World;

/// Runs the order.
pub async fn run(world: &World, order: Send) -> Result<Exit, Failure> {
    let prompt = if order.prompt == "-" {
        from_stdin()?
    } else {
        order.prompt.clone()
    };
    let office = Office::open(world).await?;
    // Listening begins before the command exists, so that its end cannot come unheard.
    let bell = order.wait.then(|| Bell::at(&office));
    let command = command(&office, &order, prompt).await?;
    let row = office
        .rest
        .enqueue_command(&command)
        .await
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    let Some(mut bell) = bell else {
        if order.json {
            println!("{}", json!({ "command_id": row.id, "state": word(&row) }));
        } else {
            println!("queued as {}; follow it with `semo tail`", row.id);
        }
        return Ok(Exit::Ok);
    };
    if !order.json {
        eprintln!("queued as {}; waiting for the result …", row.id);
    }
    let ended = wait_for_end(&office, &mut bell, &order, &row).await;
    bell.close().await;
    match ended? {
        Some((row, results)) => Ok(report(&order, &row, &results)),
        None => {
            let message = format!(
                "{} is not finished after {} seconds; it goes on",
                row.id, order.timeout
            );
            Err(Failure::new(
                Exit::StillRunning,
                message,
                "Follow it with `semo tail`.",
            ))
        }
    }
}

async fn command(office: &Office, order: &Send, prompt: String) -> Result<NewCommand, Failure> {
    let agent = match &order.agent {
        Some(wanted) => Some(office.agent(wanted).await?.id),
        None => None,
    };
    let session = match &order.session {
        Some(id) => Some(id.parse().map_err(|_| {
            Failure::new(
                Exit::Usage,
                format!("`{id}` is not the id of a session"),
                "`semo status` shows them.",
            )
        })?),
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

async fn wait_for_end(
    office: &Office,
    bell: &mut Bell,
    order: &Send,
    row: &CommandRow,
) -> Result<Option<(CommandRow, Vec<ResultRow>)>, Failure> {
    let deadline = Instant::now() + Duration::from_secs(order.timeout);
    let mut told = CommandState::Queued;
    loop {
        // The network may be away for a while; the command is not lost by that.
        if let Ok(Some(row)) = office.rest.command(row.id).await {
            if row.state.is_final() {
                let results = office
                    .rest
                    .results(&[row.id])
                    .await
                    .map_err(|error| Failure::of(Exit::Unreachable, &error))?;
                return Ok(Some((row, results)));
            }
            if row.state != told && !order.json {
                eprintln!("{} …", word(&row));
                told = row.state;
            }
        }
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => return Ok(None),
            () = bell.wait() => {}
        }
    }
}

fn report(order: &Send, row: &CommandRow, results: &[ResultRow]) -> Exit {
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
        println!("{}", json!({ "command": row, "result": result }));
        return exit;
    }
    if let Some(message) = result.and_then(|row| text(row.output.as_ref(), "final_message")) {
        println!("{message}");
    }
    let outcome = result
        .and_then(|row| row.outcome.as_deref())
        .unwrap_or_else(|| word(row));
    eprintln!("\n{outcome}{}", reason(result));
    for line in facts(result) {
        eprintln!("  {line}");
    }
    exit
}

fn reason(result: Option<&ResultRow>) -> String {
    result
        .and_then(|row| text(row.error.as_ref(), "message"))
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default()
}

/// The evidence in lines for people: what, value, how it is known.
fn facts(result: Option<&ResultRow>) -> Vec<String> {
    let claims = result
        .and_then(|row| row.evidence.as_ref())
        .and_then(|evidence| evidence.get("claims"));
    let Some(Value::Array(claims)) = claims else {
        return Vec::new();
    };
    claims
        .iter()
        .filter(|claim| claim.get("what").and_then(Value::as_str) != Some("final_message"))
        .filter_map(|claim| {
            let value = match claim.get("value")? {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let short: String = value.chars().take(100).collect();
            Some(format!(
                "{}: {short} ({}, {})",
                claim.get("what")?.as_str()?.replace('_', " "),
                claim.get("tier")?.as_str()?,
                claim.get("source")?.as_str()?
            ))
        })
        .collect()
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let limit = domain::command::PROMPT_BYTES_MAX as u64 + 1;
    std::io::stdin()
        .take(limit)
        .read_to_string(&mut text)
        .map_err(|error| {
            Failure::new(
                Exit::Usage,
                format!("could not read the prompt from standard input: {error}"),
                "",
            )
        })?;
    Ok(text)
}
