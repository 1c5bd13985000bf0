//! `semo up`: everything headless, until Ctrl+C.

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::Up;
use crate::exit::{Exit, Failure};
use crate::machine::Core;
use crate::world::World;

/// Starts everything, says where it is, waits for the end.
pub async fn run(world: &World, order: &Up) -> Result<Exit, Failure> {
    keep_log(world);
    // Signals are taken before anything starts, so that none is missed while it does.
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| Failure::of(Exit::Failed, &error))?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(|error| Failure::of(Exit::Failed, &error))?;
    if !order.json {
        println!("Starting the office on this machine …");
    }
    let core = Core::start(world).await?;
    if order.json {
        println!(
            "{}",
            json!({ "ui": core.ui_url(), "api": core.api_url(), "token": core.token(), "project": core.project_url() })
        );
    } else {
        println!("\n  Open the office:  {}", core.ui_url());
        println!(
            "  Give it work:     {} send --agent FE \"Add a dark theme to ui/index.html\" --wait",
            own_name(world)
        );
        println!("  Office over REST: {}", core.project_url());
        println!("\nCtrl+C ends it, with every session.");
    }
    let cause = tokio::select! {
        _ = tokio::signal::ctrl_c() => "Ctrl+C",
        _ = terminate.recv() => "SIGTERM",
        _ = hang_up.recv() => "SIGHUP",
        () = core.failed() => {
            core.stop().await;
            let hint = format!("Its log is {}; what was under way is told at the next start.", world.paths.log().display());
            return Err(Failure::new(Exit::Failed, "the core ended by a fault of its own", hint));
        }
    };
    tracing::info!(cause, "ending");
    if !order.json {
        println!("\nEnding: sessions are interrupted, results written …");
    }
    core.stop().await;
    Ok(Exit::Ok)
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
    let filter = world
        .variable("SEMO_LOG")
        .unwrap_or("info,hyper=warn,tokio_postgres=warn")
        .to_owned();
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_default();
    let opened = std::fs::create_dir_all(&world.paths.data_dir).and_then(|()| {
        use std::os::unix::fs::OpenOptionsExt;
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
        Err(error) => eprintln!(
            "warning: no log is kept in {}: {error}",
            world.paths.log().display()
        ),
    }
}
