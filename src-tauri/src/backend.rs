//! The core inside the app: started once, reached by the window over its local API like any browser. Quitting leaves the
//! agents running; whoever wants them ended says so (`semo down`, or the window).

use std::io::Write;
use std::sync::PoisonError;
use std::time::Duration;

use cli::Failure;
use cli::machine::{Choice, Core, Guest, Lever, StopHow};
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

/// Why there is nothing to stay for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The window has to ask anew, and is told then why there is no core.
    Told,
    /// Somebody has asked for the end of the core, and it has come: the program ends, too.
    Ended,
    /// It was stopped from here, or never came up.
    Stopped,
}

/// The core and how it came up.
pub struct Inside {
    outcome: watch::Sender<Outcome>,
    /// Held while the core ends, so that everybody who wants its end waits for it.
    core: Mutex<Option<Core>>,
    /// Makes an end that is under way come sooner.
    lever: std::sync::Mutex<Option<Lever>>,
}

impl Inside {
    pub fn new() -> Inside {
        Inside {
            outcome: watch::Sender::new(None),
            core: Mutex::new(None),
            lever: std::sync::Mutex::new(None),
        }
    }

    /// Starts the core, or finds the one that runs on the data folder already, tells the window where it is or why it
    /// is not, and stays with it until it has gone.
    pub async fn run(&self) -> Over {
        let world = match World::of_desktop() {
            Ok(world) => world,
            Err(failure) => return self.refused(failure),
        };
        cli::keep_log(&world);
        let core = match Core::start(&world).await {
            Ok(core) => core,
            Err(failure) => {
                return match Guest::find(&world).await {
                    Some(guest) => self.visit(&guest).await,
                    None => self.refused(failure),
                };
            }
        };
        *self.core.lock().await = Some(core);
        self.stay(world).await
    }

    /// Until somebody wants the end of the core, or it fails. A turn to another profile is carried out.
    async fn stay(&self, mut world: World) -> Over {
        loop {
            let Some((failed, asked, chosen)) = self.show().await else {
                return Over::Stopped;
            };
            let chosen = tokio::select! {
                how = asked => {
                    self.end(how).await;
                    return Over::Ended;
                }
                () = failed => return self.failed(&world).await,
                chosen = chosen => chosen,
            };
            // Whoever wants the end meanwhile waits for the core that comes.
            let mut place = self.core.lock().await;
            let Some(core) = place.take() else {
                return Over::Stopped;
            };
            match core.turn(&world, &chosen).await {
                Ok(turned) => {
                    world = turned.world;
                    *place = Some(turned.core);
                }
                Err(failure) => {
                    self.refuse(failure.message, failure.hint);
                    return Over::Told;
                }
            }
        }
    }

    /// Tells the window where the core is; what is to be heard of it. `None` when it has been ended.
    async fn show(
        &self,
    ) -> Option<(
        impl Future<Output = ()> + use<>,
        impl Future<Output = StopHow> + use<>,
        impl Future<Output = Choice> + use<>,
    )> {
        let place = self.core.lock().await;
        let core = place.as_ref()?;
        let backend = Backend {
            url: core.api_url().to_owned(),
            token: core.token().to_owned(),
        };
        *self.lever.lock().unwrap_or_else(PoisonError::into_inner) = Some(core.lever());
        self.outcome.send_replace(Some(Ok(backend)));
        Some((core.failed(), core.asked_to_stop(), core.chosen()))
    }

    /// A second program beside the one that has the core: its window shows the same, and ends nothing.
    async fn visit(&self, guest: &Guest) -> Over {
        tracing::info!(
            url = guest.api_url(),
            "a core runs already; the window is its guest"
        );
        let backend = Backend {
            url: guest.api_url().to_owned(),
            token: guest.token().to_owned(),
        };
        self.outcome.send_replace(Some(Ok(backend)));
        guest.over().await;
        self.refuse(
            "The core that this window showed has ended".to_owned(),
            "Close the window and open SEMO Office again; agents that go on are taken up then.".to_owned(),
        );
        Over::Told
    }

    async fn failed(&self, world: &World) -> Over {
        let mut core = self.core.lock().await;
        let Some(core) = core.take() else {
            return Over::Stopped;
        };
        if let Some(why) = core.taken_over() {
            self.refuse(why.message, why.hint);
            core.stop(StopHow::Leave).await;
            return Over::Told;
        }
        self.refuse(
            "SEMO Office's core has ended by a fault of its own".to_owned(),
            format!(
                "Close the window and open it again; agents go on and are taken up then. The log is {}.",
                world.paths.log().display()
            ),
        );
        core.stop(StopHow::Leave).await;
        Over::Told
    }

    fn refused(&self, failure: Failure) -> Over {
        self.refuse(failure.message, failure.hint);
        Over::Stopped
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

    /// Ends the program's part in it: the core leaves its agents to their holders, where they go on until the next
    /// start. A start that is under way goes to its end first: cut short, it could leave a half-made database. Returns
    /// the exit code of the program.
    pub async fn stop(&self) -> i32 {
        let Ok(reached) = tokio::time::timeout(START_WAIT, self.reached()).await else {
            tracing::error!(waited = ?START_WAIT, "the core was still starting when the user quit");
            return 1;
        };
        self.end(StopHow::Leave).await;
        i32::from(reached.is_err())
    }

    /// Ends the core, or waits for the end that is under way, which this may make come sooner.
    async fn end(&self, how: StopHow) {
        let lever = self.lever.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(mut lever) = lever else { return };
        lever.pull(how);
        let ended = async {
            let mut core = self.core.lock().await;
            if let Some(core) = core.take() {
                core.stop(how).await;
            }
        };
        let mut ended = std::pin::pin!(ended);
        loop {
            tokio::select! {
                () = &mut ended => return,
                sooner = lever.asked_again() => lever.pull(sooner),
            }
        }
    }
}
