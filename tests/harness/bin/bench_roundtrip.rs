//! Measures the way of a command from the office to the agent, and what an idle client costs.
//!
//!     cargo run --release -p tests --bin bench-roundtrip [PROMPTS]
//!
//! One process holds hub, client and local API as `semo up` does; the agent is the real `claude` program against the
//! stub of the model. Times are taken where the product's own log events pass, so nothing is added to its path.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::world::World;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Prompts that are measured unless the first argument says otherwise.
const PROMPTS: usize = 100;
/// How long the idle client is watched.
const IDLE_WATCH: Duration = Duration::from_secs(30);
/// How long sessions and hub are left alone before that.
const SETTLE: Duration = Duration::from_secs(8);

/// The log events that mark a hop, in order.
const DOORBELL: &str = "the doorbell rang";
const CLAIMING: &str = "claiming";
const CLAIMED: &str = "claimed";
const TAKEN: &str = "took a command";
const HANDED: &str = "the prompt goes to the session";
const HOOK: &str = "hook";
const JUDGED: &str = "turn ended";
const RECORDED: &str = "the outcome is in the journal";

/// A log event with its moment.
#[derive(Debug, Clone)]
struct Mark {
    at: Instant,
    message: String,
    fields: String,
}

/// Keeps the client's log events with their moments.
#[derive(Clone, Default)]
struct Marks(Arc<Mutex<Vec<Mark>>>);

impl<S: tracing::Subscriber> Layer<S> for Marks {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let at = Instant::now();
        let mut text = Text::default();
        event.record(&mut text);
        let mark = Mark {
            at,
            message: text.message,
            fields: text.fields,
        };
        self.0.lock().expect("nobody panics here").push(mark);
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields.push_str(&format!("{}={value:?} ", field.name()));
        }
    }
}

impl Marks {
    fn take(&self) -> Vec<Mark> {
        std::mem::take(&mut self.0.lock().expect("nobody panics here"))
    }
}

/// One command's way, in milliseconds from the return of `enqueue_command`; hops before that are negative.
struct Way {
    enqueue: f64,
    doorbell: f64,
    claim_sent: f64,
    claimed: f64,
    journalled: f64,
    handed: f64,
    first_byte: f64,
    by_doorbell: bool,
    end: End,
}

/// The end of its turn, in milliseconds from the agent's stop signal.
struct End {
    judged: f64,
    recorded: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let prompts = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => PROMPTS,
    };
    let marks = Marks::default();
    tracing_subscriber::registry()
        .with(EnvFilter::new("client=debug,session=debug"))
        .with(marks.clone())
        .init();
    let world = World::start().await;
    let session = world.session("FE").await;
    let mut ways = Vec::new();
    for number in 0..prompts {
        // The doorbells of the last result must not count for this one.
        tokio::time::sleep(Duration::from_millis(300)).await;
        marks.take();
        let called = Instant::now();
        let args = json!({ "prompt": format!("Say hello, number {number}."), "session": session });
        let id = world.enqueue("send_prompt", args, None, Some(session)).await;
        let returned = Instant::now();
        let (_, result) = world.result(id).await;
        anyhow::ensure!(
            result.outcome.as_deref() == Some("done"),
            "a prompt was not done: {result:?}"
        );
        let after_us = result
            .timings
            .as_ref()
            .and_then(|timings| timings["first_byte_after_us"].as_f64());
        if let Some(way) = way(
            &marks.take(),
            &id.to_string(),
            called,
            returned,
            after_us.unwrap_or(f64::NAN),
        ) {
            ways.push(way);
        }
    }
    report(&ways);
    for role in ["BE", "QA"] {
        world.session(role).await;
    }
    idle().await?;
    world.stop().await;
    Ok(())
}

fn way(marks: &[Mark], command: &str, called: Instant, returned: Instant, after_us: f64) -> Option<Way> {
    let ms = |at: Instant| match at.checked_duration_since(returned) {
        Some(later) => later.as_secs_f64() * 1e3,
        None => -returned.duration_since(at).as_secs_f64() * 1e3,
    };
    let find = |message: &str| marks.iter().find(|mark| mark.message == message);
    let taken = marks
        .iter()
        .find(|mark| mark.message == TAKEN && mark.fields.contains(command))?;
    let claim = marks
        .iter()
        .rfind(|mark| mark.message == CLAIMING && mark.at <= taken.at)?;
    let claimed = marks
        .iter()
        .rfind(|mark| mark.message == CLAIMED && mark.at <= taken.at)?;
    let handed = marks
        .iter()
        .find(|mark| mark.message == HANDED && mark.fields.contains(command))?;
    Some(Way {
        enqueue: -ms(called),
        doorbell: find(DOORBELL).map_or(f64::NAN, |mark| ms(mark.at)),
        claim_sent: ms(claim.at),
        claimed: ms(claimed.at),
        journalled: ms(taken.at),
        handed: ms(handed.at),
        first_byte: ms(handed.at) + after_us / 1e3,
        by_doorbell: claim.fields.contains("doorbell"),
        end: end(marks, command),
    })
}

fn end(marks: &[Mark], command: &str) -> End {
    let stop = marks
        .iter()
        .rfind(|mark| mark.message == HOOK && mark.fields.contains("hook=\"Stop\""));
    let since = |mark: Option<&Mark>| match (stop, mark) {
        (Some(stop), Some(mark)) => mark.at.saturating_duration_since(stop.at).as_secs_f64() * 1e3,
        (None, _) | (_, None) => f64::NAN,
    };
    End {
        judged: since(marks.iter().rfind(|mark| mark.message == JUDGED)),
        recorded: since(
            marks
                .iter()
                .find(|mark| mark.message == RECORDED && mark.fields.contains(command)),
        ),
    }
}

fn report(ways: &[Way]) {
    let line = |name: &str, pick: &dyn Fn(&Way) -> f64| {
        let mut values: Vec<f64> = ways.iter().map(pick).filter(|value| !value.is_nan()).collect();
        values.sort_by(f64::total_cmp);
        if values.is_empty() {
            return;
        }
        let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
        println!("| {name} | {:.1} | {:.1} | {:.1} |", at(0.5), at(0.95), at(1.0));
    };
    println!("\n{} prompts into a ready session\n", ways.len());
    println!("| hop (ms) | p50 | p95 | max |\n|---|---|---|---|");
    line("enqueue_command, call to return", &|way| way.enqueue);
    line(
        "return → doorbell heard (negative: heard before the return)",
        &|way| way.doorbell,
    );
    line("doorbell heard → claim sent", &|way| {
        way.claim_sent - way.doorbell
    });
    line("claim sent → claim answered", &|way| {
        way.claimed - way.claim_sent
    });
    line("claim answered → in the journal", &|way| {
        way.journalled - way.claimed
    });
    line(
        "in the journal → handed to the session (started, turn: journalled)",
        &|way| way.handed - way.journalled,
    );
    line("handed to the session → first byte in the PTY", &|way| {
        way.first_byte - way.handed
    });
    line("**enqueue_command returned → first byte in the PTY**", &|way| {
        way.first_byte
    });
    line("stop signal heard → outcome decided", &|way| way.end.judged);
    line("outcome decided → in the journal, with git's facts", &|way| {
        way.end.recorded - way.end.judged
    });
    line("**stop signal heard → outcome in the journal**", &|way| {
        way.end.recorded
    });
    let by_doorbell = ways.iter().filter(|way| way.by_doorbell).count();
    println!(
        "\nclaimed because of the doorbell: {by_doorbell} of {}",
        ways.len()
    );
}

/// CPU time of this process and of the hub's Postgres while three sessions are idle.
async fn idle() -> anyhow::Result<()> {
    tokio::time::sleep(SETTLE).await;
    let (own, postgres, agents) = cpu_seconds()?;
    let began = Instant::now();
    tokio::time::sleep(IDLE_WATCH).await;
    let (own_after, postgres_after, agents_after) = cpu_seconds()?;
    let share = |before: f64, after: f64| (after - before) / began.elapsed().as_secs_f64() * 100.0;
    println!(
        "\nidle with three sessions, share of one core over {} s\n",
        IDLE_WATCH.as_secs()
    );
    println!("| process | % of a core |\n|---|---|");
    println!("| ours (hub, client, local API) | {:.2} |", share(own, own_after));
    println!("| the hub's Postgres | {:.2} |", share(postgres, postgres_after));
    println!("| three `claude` | {:.2} |", share(agents, agents_after));
    Ok(())
}

/// CPU seconds so far: of this process, of the Postgres processes below it, of the agents below it.
fn cpu_seconds() -> anyhow::Result<(f64, f64, f64)> {
    let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
    let own = std::process::id();
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // A process may end while it is looked at.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some((name, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |index: usize| {
            fields
                .get(index)
                .and_then(|text| text.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        parents.push((
            pid,
            number(1) as u32,
            name.contains("postgres"),
            (number(11) + number(12)) / ticks_per_s,
        ));
    }
    let below = |mut pid: u32| {
        while let Some((_, parent, _, _)) = parents.iter().find(|(its, _, _, _)| *its == pid) {
            if *parent == own {
                return true;
            }
            pid = *parent;
        }
        false
    };
    let sum = |wanted: &dyn Fn(u32, bool) -> bool| {
        parents
            .iter()
            .filter(|(pid, _, postgres, _)| wanted(*pid, *postgres))
            .map(|(_, _, _, cpu)| cpu)
            .sum()
    };
    Ok((
        sum(&|pid, _| pid == own),
        sum(&|pid, postgres| postgres && below(pid)),
        sum(&|pid, postgres| !postgres && below(pid)),
    ))
}
