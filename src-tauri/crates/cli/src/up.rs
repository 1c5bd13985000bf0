//! `semo up`: everything headless, until Ctrl+C.

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::arguments::Up;
use crate::exit::{Exit, Failure};
use crate::machine::Core;
use crate::print::{self, note};
use crate::running;
use crate::world::World;

/// A log that has grown larger is put aside at the start; the one before that goes.
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// Starts everything, says where it is, waits for the end.
pub async fn run(world: &World, order: &Up) -> Result<Exit, Failure> {
    keep_log(world);
    // Signals are taken before anything starts, so that none is missed while it does.
    let mut signals = Signals::take()?;
    if !order.json {
        say("Starting the office on this machine …");
    }
    let mut starting = std::pin::pin!(Core::start(world));
    let core = tokio::select! {
        started = &mut starting => started?,
        cause = signals.next() => {
            // A start that is cut short could leave a half-made database.
            tracing::info!(cause, "ending as soon as the start is over");
            if !order.json {
                say("\nEnding as soon as the start is over …");
            }
            starting.await?.stop().await;
            return Ok(Exit::Ok);
        }
    };
    // Whoever reads that it is there sends it work at once.
    tokio::select! {
        () = core.joined() => {}
        () = core.failed() => {}
        cause = signals.next() => {
            tracing::info!(cause, "ending");
            core.stop().await;
            return Ok(Exit::Ok);
        }
    }
    if order.json {
        let places = json!({ "ui": core.ui_url(), "api": core.api_url(), "token": core.token(), "project": core.project_url() });
        say(&places.to_string());
    } else {
        say(&format!("\n  Open the office:  {}", core.ui_url()));
        say(&format!(
            "  Give it work:     {} send --agent FE \"Add a dark theme to ui/index.html\" --wait",
            own_name(world)
        ));
        say(&format!("  Office over REST: {}", core.project_url()));
        say("\nCtrl+C ends it, with every session.");
    }
    let cause = tokio::select! {
        cause = signals.next() => cause,
        () = core.failed() => {
            core.stop().await;
            let hint = format!("Its log is {}; what was under way is told at the next start.", world.paths.log().display());
            return Err(Failure::new(Exit::Failed, "the core ended by a fault of its own", hint));
        }
    };
    tracing::info!(cause, "ending");
    if !order.json {
        say("\nEnding: sessions are interrupted, results written …");
    }
    core.stop().await;
    Ok(Exit::Ok)
}

/// Says something to a terminal that may be gone, or to a reader who has read enough: the office goes on without them.
fn say(text: &str) {
    let _ = print::line(text);
}

/// What tells this program to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From now on, these signals end the program no longer by themselves.
    fn take() -> Result<Signals, Failure> {
        let take = |kind| signal(kind).map_err(|error| Failure::of(Exit::Failed, &error));
        Ok(Signals {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }

    /// Waits for one and names it. One that came before is not lost.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl+C",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hang_up.recv() => "SIGHUP",
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
