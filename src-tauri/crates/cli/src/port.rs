//! The port of the local API. Agents outlive a core and send their hooks to the port that it had: a data folder keeps its
//! port, and the first one is none that the system gives to outgoing connections, which would take it while no core runs.

use std::ops::RangeInclusive;
use std::time::Duration;

use api::{ApiError, Listener};
use client::identity::write_private;
use client::paths::Paths;
use domain::fault::chain;
use rand::seq::IndexedRandom;
use tokio::time::Instant;

use crate::exit::{Exit, Failure};
use crate::world::World;

/// How long the last port is tried again when it is taken: its core, or a connection to it, may be just about to end.
const LAST_WAIT_MAX: Duration = Duration::from_secs(1);
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(50);
/// Ports that are tried for a first one, before the system chooses.
const FIRST_TRIES: usize = 32;
/// Below lies what servers of a machine like to listen on.
const LOWEST: u16 = 20_000;
/// Where outgoing connections begin and end, unless the kernel says otherwise.
const OUTGOING: RangeInclusive<u16> = 32_768..=65_535;

/// Binds the port of the settings; without one the last port of this data folder, and a new one where that is taken or
/// there was none.
pub async fn listen(world: &World) -> Result<Listener, Failure> {
    let wanted = world.settings.api.port;
    let bound = if wanted > 0 {
        Listener::bind(wanted).await
    } else {
        last_or_first(&world.paths).await
    };
    let listener = bound.map_err(|error| Failure::of(Exit::Failed, &error))?;
    let port = listener.port().to_string();
    write_private(&world.paths.api_port(), port.as_bytes())
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    Ok(listener)
}

async fn last_or_first(paths: &Paths) -> Result<Listener, ApiError> {
    let Some(port) = last(paths) else {
        return first().await;
    };
    match again(port, LAST_WAIT_MAX).await {
        Ok(listener) => Ok(listener),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "the last port of the local API is taken: hooks of agents that went on do not arrive, their transcripts tell the rest");
            first().await
        }
    }
}

fn last(paths: &Paths) -> Option<u16> {
    let text = std::fs::read_to_string(paths.api_port()).ok()?;
    text.trim().parse().ok().filter(|port| *port > 0)
}

/// Tries it for this long.
async fn again(port: u16, wait: Duration) -> Result<Listener, ApiError> {
    let give_up = Instant::now() + wait;
    loop {
        match Listener::bind(port).await {
            Err(_) if Instant::now() < give_up => tokio::time::sleep(TRY_EVERY).await,
            bound => return bound,
        }
    }
}

/// A port apart from those of outgoing connections. By chance, so that two data folders of a machine hardly come to the
/// same one.
async fn first() -> Result<Listener, ApiError> {
    let ports: Vec<u16> = apart(&outgoing()).into_iter().flatten().collect();
    for _ in 0..FIRST_TRIES {
        let port = ports.choose(&mut rand::rng()).copied();
        if let Some(port) = port
            && let Ok(listener) = Listener::bind(port).await
        {
            return Ok(listener);
        }
    }
    Listener::bind(0).await
}

/// The ports from [`LOWEST`] on that do not lie in `outgoing`.
fn apart(outgoing: &RangeInclusive<u16>) -> Vec<RangeInclusive<u16>> {
    let below = outgoing.start().checked_sub(1).map(|end| LOWEST..=end);
    let above = outgoing
        .end()
        .checked_add(1)
        .map(|start| start.max(LOWEST)..=u16::MAX);
    below
        .into_iter()
        .chain(above)
        .filter(|range| !range.is_empty())
        .collect()
}

/// The ports that the system gives to outgoing connections.
pub fn outgoing() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = text.split_whitespace().filter_map(|bound| bound.parse().ok());
    match (bounds.next(), bounds.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => OUTGOING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_port_is_none_of_an_outgoing_connection() {
        assert_eq!(apart(&(32_768..=60_999)), [LOWEST..=32_767, 61_000..=u16::MAX]);
        assert_eq!(apart(&(1_024..=u16::MAX)), [], "then there is none that is safe");
        assert_eq!(apart(&(0..=10_000)), [LOWEST..=u16::MAX]);
        assert_eq!(apart(&(10_000..=25_000)), [25_001..=u16::MAX]);
    }

    #[tokio::test]
    async fn first_ports_are_apart_and_a_last_one_that_is_just_being_given_up_is_waited_for() {
        let listener = first().await.unwrap();
        let port = listener.port();
        let is_apart = apart(&outgoing()).iter().any(|range| range.contains(&port));
        assert!(is_apart || apart(&outgoing()).is_empty(), "{port}");
        // Only a test that fails waits so long.
        let (bound, ()) = tokio::join!(again(port, Duration::from_secs(60)), async {
            tokio::task::yield_now().await;
            drop(listener);
        });
        let bound = bound.unwrap();
        assert_eq!(bound.port(), port);
        assert!(again(port, Duration::ZERO).await.is_err(), "it is taken");
    }
}
