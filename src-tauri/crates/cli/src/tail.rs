//! `semo tail`: the office's commands and their results, as they happen.

use std::collections::HashMap;
use std::time::Duration;

use domain::{AgentId, CommandId};
use serde_json::json;
use supabase::{CommandRow, CommandState, ResultRow};

use crate::arguments::Tail;
use crate::exit::{Exit, Failure};
use crate::follow::{Following, final_result, text, word};
use crate::office::Office;
use crate::print::out;
use crate::words::clipped;
use crate::world::World;

/// Commands that are looked at each time; more than that between two looks are shown by later ones or not at all.
const LOOK_BACK: usize = 100;
/// Longest time without a look.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest prompt line that is shown, in characters.
const LINE_CHARS_MAX: usize = 80;
/// Longest reason that is shown, in characters.
const REASON_CHARS_MAX: usize = 400;

/// Runs the order until Ctrl+C. A core that goes away is waited for.
pub async fn run(world: &World, order: &Tail) -> Result<Exit, Failure> {
    let office = Office::open(world).await?;
    let agents = office
        .rest
        .agents(office.row.id)
        .await
        .map_err(|error| Failure::of(Exit::Unreachable, &error))?;
    let names: HashMap<_, _> = agents.into_iter().map(|row| (row.id, row.role)).collect();
    let mut following = Following::at(world, office);
    let mut shown = Shown {
        order,
        names,
        seen: HashMap::new(),
        first: true,
    };
    let ended = loop {
        let step = async {
            match shown.look(following.office()).await? {
                Ok(()) => following.is_back(),
                Err(why) => following.is_lost(&why, None).await?,
            }
            following.wait(LOOK_EVERY).await;
            Ok(())
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break Ok(Exit::Ok),
            step = step => if let Err(failure) = step { break Err(failure) },
        }
    };
    following.close().await;
    ended
}

/// What was shown already.
struct Shown<'a> {
    order: &'a Tail,
    names: HashMap<AgentId, String>,
    seen: HashMap<CommandId, CommandState>,
    first: bool,
}

impl Shown<'_> {
    /// Shows what is new. The inner error is of the office, and passes; the outer one is of our own output.
    async fn look(&mut self, office: &Office) -> Result<Result<(), String>, Failure> {
        let rows = match office.rest.commands(office.row.id, LOOK_BACK).await {
            Ok(rows) => rows,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let skip = if self.first {
            rows.len().saturating_sub(self.order.lines)
        } else {
            0
        };
        for (index, row) in rows.iter().rev().enumerate() {
            if self.seen.get(&row.id) == Some(&row.state) {
                continue;
            }
            if index >= skip {
                let results = match row.state.is_final() {
                    true => office.rest.results(&[row.id]).await,
                    false => Ok(Vec::new()),
                };
                match results {
                    Ok(results) => self.show(row, &results)?,
                    Err(error) => return Ok(Err(error.to_string())),
                }
            }
            self.seen.insert(row.id, row.state);
        }
        self.first = false;
        Ok(Ok(()))
    }

    fn show(&self, row: &CommandRow, results: &[ResultRow]) -> Result<(), Failure> {
        let who = row.agent_id.and_then(|id| self.names.get(&id));
        show(self.order, row, results, who.map_or("-", String::as_str))
    }
}

fn show(order: &Tail, row: &CommandRow, results: &[ResultRow], who: &str) -> Result<(), Failure> {
    let result = final_result(results);
    if order.json {
        return out!("{}", json!({ "command": row, "result": result }));
    }
    let what = text(Some(&row.args), "prompt")
        .and_then(|prompt| prompt.lines().find(|line| !line.trim().is_empty()));
    let what = clipped(what.unwrap_or(&row.kind), LINE_CHARS_MAX);
    let at = row.finished_at.unwrap_or(row.created_at).rfc3339();
    let outcome = result
        .and_then(|row| row.outcome.as_deref())
        .unwrap_or_else(|| word(row));
    let error = result.and_then(|row| row.error.as_ref());
    let class = text(error, "class")
        .map(|class| format!("{class}: "))
        .unwrap_or_default();
    let reason =
        text(error, "message").map(|text| format!("\n    {class}{}", clipped(text, REASON_CHARS_MAX)));
    out!(
        "{at}  {outcome:<12} {who:<4} {what}  [{}]{}",
        row.id.short(),
        reason.unwrap_or_default()
    )
}
