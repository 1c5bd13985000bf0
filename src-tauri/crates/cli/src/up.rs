//! `semo up`: everything headless, until it is told to end.

use client::StopHow;
use client::view::{LaunchView, State};
use domain::session::SessionState;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::arguments::Up;
use crate::exit::{Exit, Failure};
use crate::machine::{Core, Turned};
use crate::print::{self, note};
use crate::running;
use crate::words::{clipped, count};
use crate::world::World;

/// A log that has grown larger is put aside at the start; the one before that goes.
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Sessions that are named while their turns are waited for.
const NAMES_MAX: usize = 4;
/// Characters of all their names.
const NAMES_CHARS_MAX: usize = 200;

/// Starts everything, says where it is, waits for the end.
pub async fn run(world: &World, order: &Up) -> Result<Exit, Failure> {
    keep_log(world);
    // Signals are taken before anything starts, so that none is missed while it does.
    let mut signals = Signals::take()?;
    let words = Words { quiet: order.json };
    // Where a core runs already, the start says so and nothing else.
    if running::is_free(&world.paths) {
        words.say("Starting the office on this machine …");
    }
    let mut starting = std::pin::pin!(Core::start(world));
    let core = tokio::select! {
        started = &mut starting => started?,
        how = signals.next() => {
            // A start that is cut short could leave a half-made database.
            words.say("\nEnding as soon as the start is over …");
            end(starting.await?, how, &mut signals, &words).await;
            return Ok(Exit::Ok);
        }
    };
    // Whoever reads that it is there sends it work at once.
    let launch = async {
        core.joined().await;
        core.taken_up().await
    };
    let launch = tokio::select! {
        launch = launch => launch,
        () = core.failed() => LaunchView::default(),
        how = signals.next() => {
            end(core, how, &mut signals, &words).await;
            return Ok(Exit::Ok);
        }
    };
    if order.json {
        let places = json!({
            "ui": core.ui_url(), "api": core.api_url(), "token": core.token(), "project": core.project_url(),
            "launch": launch,
        });
        let _ = print::line(&places.to_string());
    } else {
        welcome(world, &core, &launch);
    }
    if let Some((core, how)) = stay(world, core, &mut signals, &words).await? {
        end(core, how, &mut signals, &words).await;
    }
    Ok(Exit::Ok)
}

/// Until somebody wants the end; `None` when it has come by itself, since another core has taken over. A turn to another
/// profile is carried out; signals that come meanwhile are heard after it.
async fn stay(
    world: &World,
    core: Core,
    signals: &mut Signals,
    words: &Words,
) -> Result<Option<(Core, StopHow)>, Failure> {
    let (mut core, mut world) = (core, world.clone());
    loop {
        let chosen = tokio::select! {
            how = signals.next() => return Ok(Some((core, how))),
            how = core.asked_to_stop() => return Ok(Some((core, how))),
            chosen = core.chosen() => chosen,
            () = core.failed() => {
                let taken_over = core.taken_over();
                core.stop(StopHow::Leave).await;
                // That is no fault, and nobody is to start it again by itself.
                if let Some(why) = taken_over {
                    words.say(&format!("\nThis office has ended: {}. {}", why.message, why.hint));
                    return Ok(None);
                }
                let hint = format!(
                    "Agents go on; `semo up` takes them up again. The log is {}.",
                    world.paths.log().display()
                );
                return Err(Failure::new(Exit::Failed, "the core ended by a fault of its own", hint));
            }
        };
        Turned { core, world } = core.turn(&world, &chosen).await?;
        words.say(&format!("\nNow with the office at {}.", core.project_url()));
    }
}

fn welcome(world: &World, core: &Core, launch: &LaunchView) {
    let words = Words { quiet: false };
    if let Some(found) = launch_words(launch) {
        words.say(&format!("\n  {found}"));
    }
    words.say(&format!("\n  Open the office:  {}", core.ui_url()));
    words.say(&format!(
        "  Give it work:     {} send --agent FE \"Add a dark theme to ui/index.html\" --wait",
        own_name(world)
    ));
    words.say(&format!("  Office over REST: {}", core.project_url()));
    words.say("\nCtrl+C ends it when the running turns have ended; once more ends it at once.");
}

/// What became of the sessions that an earlier core had left; `None` when there were none.
fn launch_words(launch: &LaunchView) -> Option<String> {
    let LaunchView {
        taken_up,
        ended_meanwhile,
        unknown,
        ..
    } = launch;
    let told = [
        (
            *taken_up,
            "went on without it and is followed again",
            "went on without it and are followed again",
        ),
        (*ended_meanwhile, "had ended meanwhile", "had ended meanwhile"),
        (
            *unknown,
            "cannot be reached; nothing was done to it",
            "cannot be reached; nothing was done to them",
        ),
    ];
    let told: Vec<String> = told
        .into_iter()
        .filter(|(number, ..)| *number > 0)
        .map(|(number, one, many)| {
            format!(
                "{} {}",
                count(u64::from(number), "session"),
                if number == 1 { one } else { many }
            )
        })
        .collect();
    (!told.is_empty()).then(|| format!("Of before: {}.", told.join(", ")))
}

/// Ends the core, the sooner the more often that is asked for, and says what it still waits for.
async fn end(core: Core, how: StopHow, signals: &mut Signals, words: &Words) {
    tracing::info!(?how, "ending");
    let mut lever = core.lever();
    let mut state = lever.state();
    let mut told = None;
    let mut how = how;
    words.say(ending_words(how));
    let mut ended = std::pin::pin!(core.stop(how));
    loop {
        let sooner = tokio::select! {
            () = &mut ended => return,
            next = signals.next() => next,
            next = lever.asked_again() => next,
            Ok(()) = state.changed() => {
                let now = still_running(&state.borrow_and_update());
                if how == StopHow::Finish && now != told {
                    words.say(now.as_deref().unwrap_or("No turn runs any more."));
                    told = now;
                }
                continue;
            }
        };
        if how.then(sooner) != how {
            how = how.then(sooner);
            tracing::info!(?how, "ending sooner");
            words.say(ending_words(how));
            lever.pull(how);
        }
    }
}

fn ending_words(how: StopHow) -> &'static str {
    match how {
        StopHow::Leave => "\nEnding; agents go on, and the next start takes them up again …",
        StopHow::Finish => {
            "\nEnding: nothing new is taken, turns that run go to their ends. Ctrl+C again interrupts them …"
        }
        StopHow::Now => "\nEnding now: turns are interrupted, results written …",
    }
}

/// `2 turns still run: FE · Mina, BE · Joon`; `None` when none does.
fn still_running(state: &State) -> Option<String> {
    let turns = state
        .ending
        .as_ref()
        .map(|ending| ending.turns)
        .filter(|turns| *turns > 0)?;
    let busy = state.sessions.iter().filter(|session| {
        matches!(
            session.state,
            SessionState::Working { .. } | SessionState::AwaitingPerson { .. }
        )
    });
    let mut names: Vec<String> = busy
        .map(|session| match session.state {
            SessionState::AwaitingPerson { .. } => format!("{} (waits for an answer)", session.title),
            _ => session.title.clone(),
        })
        .collect();
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    let runs = if turns == 1 { "runs" } else { "run" };
    let mut words = format!("{} still {runs}", count(u64::from(turns), "turn"));
    if !names.is_empty() {
        words.push_str(&format!(": {}", clipped(&names.join(", "), NAMES_CHARS_MAX)));
    }
    Some(words)
}

/// Says something to a terminal that may be gone, or to a reader who has read enough: the office goes on without them.
struct Words {
    quiet: bool,
}

impl Words {
    fn say(&self, text: &str) {
        if !self.quiet {
            let _ = print::line(text);
        }
    }
}

/// What tells this program to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    interrupted: bool,
}

impl Signals {
    /// From now on, these signals end the program no longer by themselves.
    fn take() -> Result<Signals, Failure> {
        let take = |kind| signal(kind).map_err(|error| Failure::of(Exit::Failed, &error));
        Ok(Signals {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hang_up: take(SignalKind::hangup())?,
            interrupted: false,
        })
    }

    /// Waits for one and tells how it wants the core to end. One that came before is not lost.
    ///
    /// SIGTERM comes from an update, a service's restart, a log-out, and SIGHUP from a terminal that is closed: agents
    /// are not meant by them. Ctrl+C is a person, who may mean it twice.
    async fn next(&mut self) -> StopHow {
        tokio::select! {
            _ = self.interrupt.recv() => {
                let again = std::mem::replace(&mut self.interrupted, true);
                if again { StopHow::Now } else { StopHow::Finish }
            }
            _ = self.terminate.recv() => StopHow::Leave,
            _ = self.hang_up.recv() => StopHow::Leave,
        }
    }
}

/// How the user calls this program: by its name where that is on PATH, else by its path.
fn own_name(world: &World) -> String {
    let Ok(own) = std::env::current_exe() else {
        return "semo".to_owned();
    };
    let on_path = std::env::split_paths(world.variable("PATH").unwrap_or_default())
        .any(|dir| dir.join("semo").canonicalize().is_ok_and(|found| found == own));
    if on_path {
        "semo".to_owned()
    } else {
        own.display().to_string()
    }
}

/// Logs go to a file, so that the terminal stays readable; `SEMO_LOG` sets what is logged (e.g. `debug`).
pub fn keep_log(world: &World) {
    let wanted = world
        .variable("SEMO_LOG")
        .unwrap_or("info,hyper=warn,tokio_postgres=warn");
    // The screen engine would log pieces of what agents print, which no log may hold, whatever is wanted.
    let filter = format!("{wanted},alacritty_terminal=off,vte=off");
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_default();
    let opened = std::fs::create_dir_all(&world.paths.data_dir).and_then(|()| {
        use std::os::unix::fs::OpenOptionsExt;
        put_aside_large_log(world);
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(world.paths.log())
    });
    match opened {
        Ok(file) => {
            let subscriber = tracing_subscriber::fmt()
                .json()
                // A log that cannot be written (disk full) must not be told on a stderr that may be full as well:
                // that panics.
                .log_internal_errors(false)
                .with_env_filter(filter)
                .with_writer(std::sync::Mutex::new(file));
            // A second subscriber in one process (tests) is refused; the first one goes on.
            let _ = subscriber.try_init();
        }
        Err(error) => note!(
            "warning: no log is kept in {}: {error}",
            world.paths.log().display()
        ),
    }
}

/// A core that runs goes on writing to the file it has open, so its log is left where it is.
fn put_aside_large_log(world: &World) {
    let log = world.paths.log();
    let large = std::fs::metadata(&log).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX);
    if large
        && running::is_free(&world.paths)
        && let Err(error) = std::fs::rename(&log, log.with_extension("log.1"))
    {
        note!("warning: {} could not be put aside: {error}", log.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_the_sessions_of_before_is_told_in_numbers() {
        let launch = |taken_up, ended_meanwhile, unknown| {
            launch_words(&LaunchView {
                taken_up,
                ended_meanwhile,
                unknown,
                ..LaunchView::default()
            })
        };
        assert_eq!(launch(0, 0, 0), None);
        assert_eq!(
            launch(2, 1, 0).unwrap(),
            "Of before: 2 sessions went on without it and are followed again, 1 session had ended meanwhile."
        );
        assert!(launch(0, 0, 1).unwrap().contains("nothing was done to it"));
    }
}
