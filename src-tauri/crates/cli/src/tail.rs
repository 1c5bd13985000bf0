//! `semo tail`: the office's commands and their results, as they happen.

use std::collections::HashMap;

use domain::CommandId;
use serde_json::json;
use supabase::{CommandRow, CommandState};

use crate::arguments::Tail;
use crate::exit::{Exit, Failure};
use crate::follow::{Bell, final_result, text, word};
use crate::office::Office;
use crate::world::World;

/// Commands that are looked at each time; more than that between two looks are shown by later ones or not at all.
const LOOK_BACK: usize = 100;
/// Longest prompt line that is shown, in characters.
const LINE_CHARS_MAX: usize = 80;

/// Runs the order until Ctrl+C.
pub async fn run(world: &World, order: &Tail) -> Result<Exit, Failure> {
    let office = Office::open(world).await?;
    let mut bell = Bell::at(&office);
    let agents = office
        .rest
        .agents(office.row.id)
        .await
        .map_err(|error| Failure::of(Exit::Unreachable, &error))?;
    let names: HashMap<_, _> = agents.into_iter().map(|row| (row.id, row.role)).collect();
    let mut seen: HashMap<CommandId, CommandState> = HashMap::new();
    let mut first = true;
    loop {
        match office.rest.commands(office.row.id, LOOK_BACK).await {
            Ok(rows) => {
                let skip = if first {
                    rows.len().saturating_sub(order.lines)
                } else {
                    0
                };
                for (index, row) in rows.iter().rev().enumerate() {
                    if seen.insert(row.id, row.state) != Some(row.state) && index >= skip {
                        let who = row
                            .agent_id
                            .and_then(|id| names.get(&id))
                            .map_or("-", String::as_str);
                        show(&office, order, row, who).await?;
                    }
                }
                first = false;
            }
            Err(error) => eprintln!("warning: {error}"),
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            () = bell.wait() => {}
        }
    }
    bell.close().await;
    Ok(Exit::Ok)
}

async fn show(office: &Office, order: &Tail, row: &CommandRow, who: &str) -> Result<(), Failure> {
    let results = if row.state.is_final() {
        office
            .rest
            .results(&[row.id])
            .await
            .map_err(|error| Failure::of(Exit::Unreachable, &error))?
    } else {
        Vec::new()
    };
    let result = final_result(&results);
    if order.json {
        println!("{}", json!({ "command": row, "result": result }));
        return Ok(());
    }
    let what = text(Some(&row.args), "prompt")
        .and_then(|prompt| prompt.lines().find(|line| !line.trim().is_empty()));
    let what: String = what.unwrap_or(&row.kind).chars().take(LINE_CHARS_MAX).collect();
    let at = row.finished_at.unwrap_or(row.created_at).rfc3339();
    let outcome = result
        .and_then(|row| row.outcome.as_deref())
        .unwrap_or_else(|| word(row));
    let reason = result
        .and_then(|row| text(row.error.as_ref(), "message"))
        .map(|text| format!("\n    {text}"));
    println!(
        "{at}  {outcome:<12} {who:<4} {what}  [{}]{}",
        row.id.short(),
        reason.unwrap_or_default()
    );
    Ok(())
}
