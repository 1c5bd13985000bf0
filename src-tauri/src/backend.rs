//! The core inside the app: started once, reached by the window over its local API like any browser.

use std::io::Write;
use std::time::Duration;

use cli::machine::Core;
use cli::world::World;
use serde::Serialize;
use tokio::sync::{Mutex, watch};

/// How long quitting waits for a start that is under way. Making a database takes seconds; a start that takes longer
/// than this will not end.
const START_WAIT: Duration = Duration::from_secs(120);

/// How the window reaches the core.
#[derive(Debug, Clone, Serialize)]
pub struct Backend {
    /// Base address of the local API.
    pub url: String,
    /// Token of this launch.
    pub token: String,
}

/// Why there is no core, for the window.
#[derive(Debug, Clone, Serialize)]
pub struct NoBackend {
    /// What went wrong.
    pub message: String,
    /// What the user can do.
    pub hint: String,
}

/// Where the start of the core stands; `None` while it goes on.
type Outcome = Option<Result<Backend, NoBackend>>;

/// The core and how it came up.
pub struct Inside {
    outcome: watch::Sender<Outcome>,
    /// Held while the core ends, so that everybody who wants its end waits for it.
    core: Mutex<Option<Core>>,
}

impl Inside {
    pub fn new() -> Inside {
        Inside {
            outcome: watch::Sender::new(None),
            core: Mutex::new(None),
        }
    }

    /// Starts the core, tells the window that it is up or why it is not, and stays with it: returns true when the
    /// core has ended by a fault of its own, which the window can ask for by then; false when it was stopped.
    pub async fn run(&self) -> bool {
        let world = match World::of_desktop() {
            Ok(world) => world,
            Err(failure) => {
                self.refuse(failure.message, failure.hint);
                return false;
            }
        };
        cli::keep_log(&world);
        let failed = match Core::start(&world).await {
            Ok(core) => {
                let failed = core.failed();
                let backend = Backend {
                    url: core.api_url().to_owned(),
                    token: core.token().to_owned(),
                };
                *self.core.lock().await = Some(core);
                self.outcome.send_replace(Some(Ok(backend)));
                failed
            }
            Err(failure) => {
                self.refuse(failure.message, failure.hint);
                return false;
            }
        };
        failed.await;
        let mut core = self.core.lock().await;
        let Some(core) = core.take() else {
            return false;
        };
        self.refuse(
            "SEMO Office's core has ended by a fault of its own".to_owned(),
            format!(
                "Close the window and open it again; what was under way is told then. The log is {}.",
                world.paths.log().display()
            ),
        );
        core.stop().await;
        true
    }

    fn refuse(&self, message: String, hint: String) {
        tracing::error!(%message, "there is no core");
        // Not by `eprintln!`: it panics when the terminal the app was started from is gone.
        let _ = writeln!(std::io::stderr(), "error: {message}\nhint: {hint}");
        self.outcome.send_replace(Some(Err(NoBackend { message, hint })));
    }

    /// Waits until the core is up or has failed.
    pub async fn reached(&self) -> Result<Backend, NoBackend> {
        let mut outcome = self.outcome.subscribe();
        let known = outcome
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|known| known.clone());
        known.unwrap_or_else(|| {
            Err(NoBackend {
                message: "SEMO Office is ending".to_owned(),
                hint: "Start it again.".to_owned(),
            })
        })
    }

    /// Ends the core: sessions are interrupted, results written. A start that is under way goes to its end first: cut
    /// short, it could leave a half-made database. Returns the exit code of the program.
    pub async fn stop(&self) -> i32 {
        let Ok(reached) = tokio::time::timeout(START_WAIT, self.reached()).await else {
            tracing::error!(waited = ?START_WAIT, "the core was still starting when the user quit");
            return 1;
        };
        let mut core = self.core.lock().await;
        if let Some(core) = core.take() {
            core.stop().await;
        }
        i32::from(reached.is_err())
    }
}
