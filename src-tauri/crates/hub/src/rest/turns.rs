//! Whose turn it is to use the database, and the end of a statement whose caller went away.
//!
//! Nobody may fill the pool alone: an account has [`AT_ONCE_MAX`] statements at a time, the others of it wait in a line
//! of their own. Who hangs up ends his statement, too: the connection is given back, and the turn with it, when Postgres
//! has stopped it. Called by `run`.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Object, PoolError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::error::RestError;
use crate::db::{Database, POOL_WAIT, REQUEST_CONNECTIONS_MAX, pool_reason};
use crate::jwt::{Claims, Subject};
use crate::source::Address;

/// Statements of one account at a time: a quarter of the pool.
pub(crate) const AT_ONCE_MAX: usize = REQUEST_CONNECTIONS_MAX / 4;
/// Requests of one account that may wait for their turn.
pub(crate) const WAITING_MAX: usize = 256;
/// How long a statement that nobody waits for any more may go on before it is stopped.
const BY_ITSELF_MAX: Duration = Duration::from_millis(200);
/// Longest that a request to stop it may take to be sent, and the pause before the next one: one may get lost, or find no
/// connection.
const CANCEL_MAX: Duration = Duration::from_secs(5);
const CANCEL_AGAIN: Duration = Duration::from_secs(1);
/// Longest that its end is waited for. Its own time-out is shorter, whoever asked.
const END_MAX: Duration = Duration::from_secs(70);

/// The lines of all accounts.
#[derive(Debug)]
pub(crate) struct Turns {
    lines: Arc<Lines>,
    /// How Postgres is told to stop a statement.
    address: Address,
    tasks: TaskTracker,
}

/// Never more entries than requests.
#[derive(Debug, Default)]
struct Lines(Mutex<HashMap<Subject, Line>>);

#[derive(Debug)]
struct Line {
    turns: Arc<Semaphore>,
    /// Who has a turn or waits for one.
    length: usize,
}

/// A place in the line of an account.
#[derive(Debug)]
struct Place {
    lines: Arc<Lines>,
    account: Subject,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get_mut(&self.account) {
            line.length -= 1;
            if line.length == 0 {
                lines.remove(&self.account);
            }
        }
    }
}

/// A turn, until it is dropped.
#[derive(Debug)]
struct Turn {
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

impl Lines {
    async fn turn(self: &Arc<Lines>, account: Subject) -> Result<Turn, RestError> {
        let (turns, place) = {
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let line = lines.entry(account.clone()).or_insert_with(|| Line {
                turns: Arc::new(Semaphore::new(AT_ONCE_MAX)),
                length: 0,
            });
            if line.length >= AT_ONCE_MAX + WAITING_MAX {
                return Err(RestError::too_many(WAITING_MAX));
            }
            line.length += 1;
            let lines = self.clone();
            (line.turns.clone(), Place { lines, account })
        };
        match timeout(POOL_WAIT, turns.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn {
                _permit: permit,
                _place: place,
            }),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(RestError::late()),
        }
    }
}

impl Turns {
    /// `address`: of the pool for requests. `tasks` end what nobody waits for.
    pub fn new(address: Address, tasks: TaskTracker) -> Turns {
        Turns {
            lines: Arc::default(),
            address,
            tasks,
        }
    }

    /// A connection for a statement of `who`, when it is his turn.
    pub async fn take(&self, database: &Database, who: &Claims) -> Result<Held, RestError> {
        let turn = self.lines.turn(who.subject()).await?;
        let client = database.requests.get().await.map_err(|error| {
            tracing::error!(
                reason = pool_reason(&error),
                "no database connection for a request"
            );
            match error {
                PoolError::Timeout(_) => RestError::late(),
                _ => RestError::away(),
            }
        })?;
        Ok(Held {
            using: Some(Using { client, turn }),
            address: self.address.clone(),
            tasks: self.tasks.clone(),
        })
    }
}

#[derive(Debug)]
struct Using {
    client: Object,
    turn: Turn,
}

/// A connection in use. Dropped before [`Held::done`], it ends what runs on it.
#[derive(Debug)]
pub(crate) struct Held {
    using: Option<Using>,
    address: Address,
    tasks: TaskTracker,
}

impl Held {
    /// The connection; none after [`Held::done`].
    pub fn client(&mut self) -> Option<&mut Object> {
        self.using.as_mut().map(|using| &mut using.client)
    }

    /// Gives the connection back: nothing runs on it.
    pub fn done(mut self) {
        self.using = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(using) = self.using.take() {
            self.tasks.spawn(end(using, self.address.clone()));
        }
    }
}

/// Gives a connection back whose statement ends by itself at once; else has Postgres stop the statement, and closes it.
///
/// A request to cancel is taken up by Postgres later than it is sent, and ends whatever runs on the connection then: one
/// that was sent for this statement must never meet the next caller's.
async fn end(using: Using, address: Address) {
    let Using { client, turn } = using;
    // Behind the rollback of the transaction that was dropped.
    if let Ok(Ok(_)) = timeout(BY_ITSELF_MAX, client.simple_query("")).await {
        return;
    }
    let running = async {
        if let Err(error) = client.simple_query("").await {
            tracing::debug!(
                error = crate::error::explained(&error),
                "a statement ended with its connection"
            );
        }
    };
    let token = client.cancel_token();
    let stopped = stopped(running, || {
        let (token, tls) = (token.clone(), address.tls.clone());
        async move {
            match timeout(CANCEL_MAX, token.cancel_query(tls)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(
                        error = crate::error::explained(&error),
                        "a statement could not be stopped"
                    );
                }
                Err(_) => tracing::debug!("a request to stop a statement was not taken in time"),
            }
        }
    });
    if !stopped.await {
        tracing::warn!("a statement that nobody waits for was not stopped; its connection is given up");
    }
    drop(Object::take(client));
    drop(turn);
}

/// Asks until `running` has ended, no longer than [`END_MAX`]; whether it has.
async fn stopped<Asking: Future<Output = ()>>(
    running: impl Future<Output = ()>,
    ask: impl Fn() -> Asking,
) -> bool {
    let mut running = pin!(running);
    let mut enough = pin!(sleep(END_MAX));
    loop {
        let asking = async {
            ask().await;
            sleep(CANCEL_AGAIN).await;
        };
        tokio::select! {
            () = running.as_mut() => return true,
            () = enough.as_mut() => return false,
            () = asking => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> Subject {
        Subject::Role(name.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn one_account_waits_in_a_line_of_its_own_and_the_line_has_an_end() {
        let lines = Arc::new(Lines::default());
        let mut turns = Vec::new();
        for _ in 0..AT_ONCE_MAX {
            turns.push(lines.turn(account("greedy")).await.unwrap());
        }
        // Paused time goes on only when nobody can: others are not kept waiting.
        let began = tokio::time::Instant::now();
        let modest = lines.turn(account("modest")).await.unwrap();
        assert!(began.elapsed() < POOL_WAIT);

        let tasks = TaskTracker::new();
        for _ in 0..WAITING_MAX {
            let lines = lines.clone();
            tasks.spawn(async move { lines.turn(account("greedy")).await.map(drop) });
        }
        while lines.0.lock().unwrap()[&account("greedy")].length < AT_ONCE_MAX + WAITING_MAX {
            tokio::task::yield_now().await;
        }
        let refused = lines.turn(account("greedy")).await.unwrap_err();
        assert_eq!(refused.code(), "53300");
        turns.clear();
        tasks.close();
        tasks.wait().await;
        drop((turns, modest));
        assert!(lines.0.lock().unwrap().is_empty(), "nobody is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_for_his_turn_is_told_so() {
        let lines = Arc::new(Lines::default());
        let mut turns = Vec::new();
        for _ in 0..AT_ONCE_MAX {
            turns.push(lines.turn(account("slow")).await.unwrap());
        }
        assert_eq!(lines.turn(account("slow")).await.unwrap_err().code(), "PGRST003");
        turns.pop();
        lines.turn(account("slow")).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_kept_while_its_statement_runs_although_nobody_can_stop_it() {
        const RUNS: Duration = Duration::from_secs(41);
        let asked = std::cell::Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            // No connection for it.
            sleep(CANCEL_MAX)
        };
        let began = tokio::time::Instant::now();
        assert!(stopped(sleep(RUNS), ask).await);
        assert_eq!((began.elapsed(), asked.get()), (RUNS, 7));
        let began = tokio::time::Instant::now();
        assert!(!stopped(std::future::pending(), ask).await, "there is an end");
        assert_eq!(began.elapsed(), END_MAX);
    }
}
