//! Keeps the connection: token, socket, conversation, and the wait before the next try.
//!
//! The wanted topics live here, so that no refusal, close or sleep of the machine can make them forgotten. One task,
//! started by [`super::Realtime::start`]; ends when the stop token fires or nobody listens.

use std::sync::Arc;
use std::time::Duration;

use domain::{Clock, OfficeId};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::backoff::Dice;
use super::channel::RingFault;
use super::course::{Course, Next, TICK};
use super::dial::{self, CONNECT_TIMEOUT, Dial, Later, OpenError, Socket};
use super::moment::{JumpWatch, Moment};
use super::outlet::Outlet;
use super::socket::Conversation;
use super::{ConnectionState, Topic};
use crate::auth::{Auth, AuthError};
use crate::project::Project;
use crate::rest::{Rest, RestError};

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

/// What rings the office's doorbell, for the proof that it is heard.
pub(super) trait Bell: Send + Sync {
    /// Rings with `nonce`.
    fn ring(&self, office: OfficeId, nonce: Uuid) -> Later<'_, Result<(), RingFault>>;
}

impl Bell for Rest {
    fn ring(&self, office: OfficeId, nonce: Uuid) -> Later<'_, Result<(), RingFault>> {
        Box::pin(async move {
            self.prove_doorbell(office, nonce).await.map_err(|error| {
                let why = error.to_string();
                match error {
                    RestError::Unreachable { .. }
                    | RestError::Unauthorized { .. }
                    | RestError::Malformed { .. } => RingFault::Later(why),
                    RestError::Forbidden { .. }
                    | RestError::NotFound { .. }
                    | RestError::Conflict { .. }
                    | RestError::Rejected { .. } => RingFault::Never(why),
                }
            })
        })
    }
}

/// The one task behind a [`super::Realtime`].
pub(super) struct Supervisor {
    pub project: Project,
    pub source: Arc<dyn TokenSource>,
    pub bell: Arc<dyn Bell>,
    pub dial: Arc<dyn Dial>,
    pub topics: Vec<Topic>,
    pub clock: Arc<dyn Clock>,
    pub outlet: Outlet,
    pub dice: Dice,
    pub nudge: Arc<Notify>,
    pub doubt: Arc<Notify>,
    pub stop: CancellationToken,
    pub course: Course,
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
                Next::Wait {
                    wait, why, permanent, ..
                } => {
                    tracing::info!(%why, wait_ms = wait.as_millis(), permanent, "realtime waits before the next try");
                    self.tell_wait(wait, why, permanent);
                    wait
                }
            };
            if !self.pause(pause, true).await {
                break;
            }
        }
        self.outlet.state(ConnectionState::Stopped);
    }

    fn tell_wait(&mut self, wait: Duration, why: String, permanent: bool) {
        let wait_ms = wait.as_millis().try_into().unwrap_or(i64::MAX);
        self.outlet.state(ConnectionState::Backoff {
            until_ms: self.clock.now().plus_ms(wait_ms).0,
            why,
            permanent,
        });
    }

    /// One connection, from the token to its end.
    async fn once(&mut self) -> Next {
        let stop = self.stop.clone();
        let Some(token) = stop.run_until_cancelled(self.source.token(Wish::Usable)).await else {
            return Next::Stop;
        };
        let token = match token {
            Ok(token) => token,
            Err(error) => return self.course.no_token(&error, &mut self.dice),
        };
        let held = self.course.hold_back(Instant::now());
        if !held.is_zero() {
            let why = "too many connections were tried within a minute".to_owned();
            tracing::warn!(wait_ms = held.as_millis(), why);
            self.tell_wait(held, why, false);
            if !self.pause(held, false).await {
                return Next::Stop;
            }
        }
        self.course.dials(Instant::now());
        self.outlet.state(ConnectionState::Connecting);
        let began = Instant::now();
        let Some(opened) = self.open().await else {
            return Next::Stop;
        };
        let socket = match opened {
            Ok(socket) => socket,
            Err(error) => {
                let next = self.course.not_opened(&error, &mut self.dice);
                let Some(next) = stop.run_until_cancelled(self.other_token(next, token)).await else {
                    return Next::Stop;
                };
                return next;
            }
        };
        self.course.opened(began.elapsed());
        self.outlet.state(ConnectionState::Joining);
        let conversation = Conversation::new(
            socket,
            &self.topics,
            token,
            &*self.source,
            &*self.bell,
            &*self.clock,
            &mut self.outlet,
            &mut self.dice,
            &mut self.course.patience,
        );
        let end = conversation.run(&self.stop, &self.nudge, &self.doubt).await;
        self.course.ended(end, &mut self.dice)
    }

    /// Opens the socket within what this line needs. Where that is more than usual, a nudge or a wake from sleep (another
    /// network, perhaps) leaves it no more than the usual time. `None`: stop.
    async fn open(&self) -> Option<Result<Socket, OpenError>> {
        let within = self.course.patience.limit(CONNECT_TIMEOUT);
        let began = Instant::now();
        let (mut until, mut hurried) = (began + within, within <= CONNECT_TIMEOUT);
        let mut clocks = JumpWatch::new(Moment::now(&*self.clock));
        let opened = dial::open(&self.project, &*self.dial, within);
        tokio::pin!(opened);
        loop {
            let look = until.min(Instant::now() + TICK);
            let is_other = tokio::select! {
                () = self.stop.cancelled() => return None,
                opened = &mut opened => return Some(opened),
                () = self.nudge.notified(), if !hurried => {
                    // It is for the wait that may follow, too.
                    self.nudge.notify_one();
                    true
                }
                () = sleep_until(look) => {
                    if Instant::now() >= until {
                        let within = began.elapsed();
                        return Some(Err(OpenError::Late { within }));
                    }
                    clocks.jump_s(Moment::now(&*self.clock)).is_some()
                }
            };
            if is_other && !hurried {
                hurried = true;
                until = until.min(Instant::now() + CONNECT_TIMEOUT);
            }
        }
    }

    /// Fetches another token where the refusal of this one asks for it.
    async fn other_token(&self, next: Next, refused: String) -> Next {
        if matches!(
            next,
            Next::Wait {
                other_token: true,
                ..
            }
        ) && let Err(error @ AuthError::SignedOut { .. }) =
            self.source.token(Wish::OtherThan(refused)).await
        {
            return Next::SignIn {
                why: error.to_string(),
            };
        }
        next
    }

    /// Waits; a wake from sleep ends it early, and so does a nudge if it `may_hurry`. False: stop.
    async fn pause(&mut self, wait: Duration, may_hurry: bool) -> bool {
        let until = Instant::now() + wait;
        let mut clocks = JumpWatch::new(Moment::now(&*self.clock));
        let gone = self.outlet.listener_gone();
        tokio::pin!(gone);
        loop {
            let look = until.min(Instant::now() + TICK);
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = &mut gone => return false,
                () = self.nudge.notified(), if may_hurry => return true,
                () = self.outlet.catch_up(), if self.outlet.is_behind() => {}
                () = tokio::time::sleep_until(look) => {
                    let jumped = clocks.jump_s(Moment::now(&*self.clock)).is_some();
                    if Instant::now() >= until || (jumped && may_hurry) {
                        return true;
                    }
                }
            }
        }
    }
}
