//! Keeps the connection: token, socket, conversation, and the wait before the next try.
//!
//! The wanted topics live here, so that no refusal, close or sleep of the machine can make them forgotten. One task,
//! started by [`super::Realtime::start`]; ends when the stop token fires or nobody listens.

use std::sync::Arc;
use std::time::Duration;

use domain::{Clock, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::Dice;
use super::dial::{self, Dial, Later, OpenError};
use super::outlet::Outlet;
use super::socket::{Conversation, End, EndKind};
use super::{ConnectionState, Topic};
use crate::auth::{Auth, AuthError};
use crate::project::Project;

/// A connection that was live for this long was a good one: the next failure starts from the shortest wait.
pub(super) const GOOD_AFTER: Duration = Duration::from_secs(60);
/// How often the clocks are compared, and whether somebody signed in is looked at.
pub(super) const TICK: Duration = Duration::from_secs(5);
/// Wall and monotonic clock apart by more than this between two ticks: the machine slept or the clock was set.
const JUMP_MS_MIN: i64 = 5_000;
/// Spread of reconnects that have no failure behind them (wake from sleep, planned).
const SOON: Duration = Duration::from_secs(1);
/// So many refusals of the key in a row are no accident.
const KEY_REFUSALS_MAX: u32 = 2;

/// Where tokens come from.
pub(super) trait TokenSource: Send + Sync {
    /// A token that fits the wish.
    fn token(&self, wish: Wish) -> Later<'_, Result<String, AuthError>>;
}

/// Which token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// One that works.
    Usable,
    /// Another one: this was refused.
    OtherThan(String),
}

impl TokenSource for Auth {
    fn token(&self, wish: Wish) -> Later<'_, Result<String, AuthError>> {
        Box::pin(async move {
            match wish {
                Wish::Usable => self.access_token().await,
                Wish::OtherThan(refused) => Ok(self.refresh_after(&refused).await?.access_token),
            }
        })
    }
}

/// Notices that the machine slept: only the wall clock goes on meanwhile.
#[derive(Debug)]
pub(super) struct JumpWatch {
    wall: Timestamp,
    monotonic: Instant,
}

impl JumpWatch {
    pub(super) fn new(clock: &dyn Clock) -> JumpWatch {
        JumpWatch {
            wall: clock.now(),
            monotonic: Instant::now(),
        }
    }

    /// By how many seconds the clocks went apart since the last look, when it is a jump.
    pub(super) fn jump_s(&mut self, clock: &dyn Clock) -> Option<i64> {
        let fresh = JumpWatch::new(clock);
        let wall_ms = fresh.wall.0.saturating_sub(self.wall.0);
        let monotonic_ms = i64::try_from((fresh.monotonic - self.monotonic).as_millis()).unwrap_or(i64::MAX);
        *self = fresh;
        let apart = wall_ms.saturating_sub(monotonic_ms);
        (apart.abs() > JUMP_MS_MIN).then_some(apart / 1000)
    }
}

/// What comes after a try.
enum Next {
    Stop,
    /// Nobody is signed in: wait for that.
    SignIn {
        why: String,
    },
    Wait {
        wait: Duration,
        why: String,
        permanent: bool,
    },
}

/// The one task behind a [`super::Realtime`].
pub(super) struct Supervisor {
    pub project: Project,
    pub source: Arc<dyn TokenSource>,
    pub dial: Arc<dyn Dial>,
    pub topics: Vec<Topic>,
    pub clock: Arc<dyn Clock>,
    pub outlet: Outlet,
    pub dice: Dice,
    pub nudge: Arc<Notify>,
    pub stop: CancellationToken,
    /// Tries in a row that did not become a good connection.
    pub failures: u32,
    /// Refusals of the key in a row.
    pub key_refusals: u32,
}

impl Supervisor {
    /// Runs until stopped.
    pub(super) async fn run(mut self) {
        loop {
            let next = self.once().await;
            let pause = match next {
                Next::Stop => break,
                Next::SignIn { why } => {
                    self.outlet.state(ConnectionState::Offline { why });
                    TICK
                }
                Next::Wait { wait, why, permanent } => {
                    tracing::info!(%why, wait_ms = wait.as_millis(), permanent, "realtime waits before the next try");
                    let until_ms = self
                        .clock
                        .now()
                        .plus_ms(wait.as_millis().try_into().unwrap_or(i64::MAX))
                        .0;
                    self.outlet.state(ConnectionState::Backoff {
                        until_ms,
                        why,
                        permanent,
                    });
                    wait
                }
            };
            if !self.pause(pause).await {
                break;
            }
        }
        self.outlet.state(ConnectionState::Stopped);
    }

    /// One connection, from the token to its end.
    async fn once(&mut self) -> Next {
        let stop = self.stop.clone();
        let Some(token) = stop.run_until_cancelled(self.source.token(Wish::Usable)).await else {
            return Next::Stop;
        };
        let token = match token {
            Ok(token) => token,
            Err(error) => return self.no_token(&error),
        };
        self.outlet.state(ConnectionState::Connecting);
        let Some(opened) = stop
            .run_until_cancelled(dial::open(&self.project, &*self.dial))
            .await
        else {
            return Next::Stop;
        };
        let socket = match opened {
            Ok(socket) => socket,
            Err(error) => {
                let Some(next) = stop.run_until_cancelled(self.not_opened(error, token)).await else {
                    return Next::Stop;
                };
                return next;
            }
        };
        self.key_refusals = 0;
        self.outlet.state(ConnectionState::Joining);
        let conversation = Conversation::new(
            socket,
            &self.topics,
            &*self.source,
            token,
            &*self.clock,
            &mut self.outlet,
            &mut self.dice,
        );
        let end = conversation.run(&self.stop, &self.nudge).await;
        self.ended(end)
    }

    fn retry(&mut self, why: String) -> Next {
        self.failures = self.failures.saturating_add(1);
        Next::Wait {
            wait: self.dice.retry(self.failures),
            why,
            permanent: false,
        }
    }

    fn slowly(&mut self, why: String) -> Next {
        self.failures = self.failures.saturating_add(1);
        Next::Wait {
            wait: self.dice.slow(),
            why,
            permanent: true,
        }
    }

    fn no_token(&mut self, error: &AuthError) -> Next {
        match error {
            AuthError::SignedOut { .. } | AuthError::WrongPassword => Next::SignIn {
                why: error.to_string(),
            },
            AuthError::Unreachable { retry_after, .. } => {
                let asked = retry_after.unwrap_or_default();
                match self.retry(error.to_string()) {
                    Next::Wait { wait, why, permanent } => Next::Wait {
                        wait: wait.max(asked),
                        why,
                        permanent,
                    },
                    other => other,
                }
            }
            AuthError::Malformed { .. } | AuthError::Store { .. } => self.retry(error.to_string()),
            AuthError::Refused { .. } | AuthError::Project(_) | AuthError::Client { .. } => {
                self.slowly(error.to_string())
            }
        }
    }

    async fn not_opened(&mut self, error: OpenError, token: String) -> Next {
        let why = error.to_string();
        match error {
            OpenError::Refused { status: 401, .. } => {
                self.key_refusals = self.key_refusals.saturating_add(1);
                if self.key_refusals >= KEY_REFUSALS_MAX {
                    return self.slowly(format!("{why}; check the publishable key"));
                }
                match self.source.token(Wish::OtherThan(token)).await {
                    Err(error @ AuthError::SignedOut { .. }) => Next::SignIn {
                        why: error.to_string(),
                    },
                    Ok(_) | Err(_) => self.retry(why),
                }
            }
            OpenError::Refused {
                status: 429,
                retry_after,
                ..
            } => {
                self.failures = self.failures.saturating_add(1);
                let wait = self
                    .dice
                    .crowded(self.failures)
                    .max(retry_after.unwrap_or_default());
                Next::Wait {
                    wait,
                    why,
                    permanent: false,
                }
            }
            OpenError::Refused {
                status: 400..=499, ..
            } => self.slowly(format!(
                "{why}; check the project URL, and that Realtime is switched on there"
            )),
            OpenError::Refused { retry_after, .. } => {
                self.failures = self.failures.saturating_add(1);
                let wait = self
                    .dice
                    .retry(self.failures)
                    .max(retry_after.unwrap_or_default());
                Next::Wait {
                    wait,
                    why,
                    permanent: false,
                }
            }
            OpenError::Failed { .. } | OpenError::Late => self.retry(why),
        }
    }

    fn ended(&mut self, end: End) -> Next {
        let End { why, kind, live_for } = end;
        if live_for >= GOOD_AFTER {
            self.failures = 0;
        }
        match kind {
            EndKind::Stopped => Next::Stop,
            EndKind::SignedOut => Next::SignIn { why },
            EndKind::Failed => self.retry(why),
            EndKind::ServerRestarts => {
                self.failures = self.failures.saturating_add(1);
                let wait = self.dice.retry(self.failures) + self.dice.restart_spread();
                Next::Wait {
                    wait,
                    why,
                    permanent: false,
                }
            }
            EndKind::Soon => Next::Wait {
                wait: self.dice.upto(SOON),
                why,
                permanent: false,
            },
        }
    }

    /// Waits; a nudge or a wake from sleep ends it early. False: stop.
    async fn pause(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut clocks = JumpWatch::new(&*self.clock);
        let gone = self.outlet.listener_gone();
        tokio::pin!(gone);
        loop {
            let look = until.min(Instant::now() + TICK);
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = &mut gone => return false,
                () = self.nudge.notified() => return true,
                () = self.outlet.catch_up(), if self.outlet.is_behind() => {}
                () = tokio::time::sleep_until(look) => {
                    if Instant::now() >= until || clocks.jump_s(&*self.clock).is_some() {
                        return true;
                    }
                }
            }
        }
    }
}
