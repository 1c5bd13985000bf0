//! The core inside the app: started once, reached by the window over its local API like any browser.

use std::sync::{Mutex, PoisonError};

use cli::machine::Core;
use cli::world::World;
use serde::Serialize;
use tokio::sync::watch;

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
    core: Mutex<Option<Core>>,
}

impl Inside {
    pub fn new() -> Inside {
        Inside {
            outcome: watch::Sender::new(None),
            core: Mutex::new(None),
        }
    }

    /// Starts the core; the window is told when it is up, or why it is not.
    pub async fn start(&self) {
        let started = match World::of_desktop() {
            Ok(world) => {
                cli::keep_log(&world);
                Core::start(&world).await
            }
            Err(failure) => Err(failure),
        };
        let outcome = match started {
            Ok(core) => {
                let backend = Backend {
                    url: core.api_url().to_owned(),
                    token: core.token().to_owned(),
                };
                *self.core.lock().unwrap_or_else(PoisonError::into_inner) = Some(core);
                Ok(backend)
            }
            Err(failure) => {
                tracing::error!(message = %failure.message, "the core did not start");
                eprintln!("error: {}\nhint: {}", failure.message, failure.hint);
                Err(NoBackend {
                    message: failure.message,
                    hint: failure.hint,
                })
            }
        };
        self.outcome.send_replace(Some(outcome));
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

    /// Ends the core: sessions are interrupted, results written.
    pub async fn stop(&self) {
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(core) = core {
            core.stop().await;
        }
    }
}
