//! A TCP connection to a name that may have several addresses: they are tried one soon after the other, and the first
//! that answers is taken.
//!
//! Many networks hand out addresses of IPv6 and let nothing through there. Tried strictly one after the other, the first
//! such address would use up the time of every try, for ever, while REST (whose library does the same as this) works.
//!
//! Called by [`super::dial`] and [`super::tunnel`], which limit the time.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::sleep;

use super::dial::OpenError;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// An address that has not answered by then gets company (RFC 8305).
const NEXT_AFTER: Duration = Duration::from_millis(300);

/// A TCP connection; the error names the address.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, OpenError> {
    let failed = |error: io::Error| OpenError::Failed {
        why: format!("{host}:{port}: {error}"),
    };
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(failed)?.collect();
    let tries = in_turns(addresses).into_iter().map(TcpStream::connect);
    let stream = first(tries).await.map_err(failed)?;
    // A doorbell's answer must not wait for a full segment.
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// The system's order, with the two families in turns: the system may have put all of a dead one first.
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let preferred = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (these, those): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == preferred);
    let (mut these, mut those) = (these.into_iter(), those.into_iter());
    let mut turns = Vec::new();
    while turns.len() < ADDRESSES_MAX {
        let before = turns.len();
        turns.extend(these.next());
        turns.extend(those.next());
        if turns.len() == before {
            break;
        }
    }
    turns
}

/// The first that succeeds; the next begins when one has failed or taken long. With none left, the last error.
async fn first<T>(tries: impl IntoIterator<Item = impl Future<Output = io::Result<T>>>) -> io::Result<T> {
    let mut waiting = tries.into_iter().peekable();
    let mut under_way = FuturesUnordered::new();
    let mut fault = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        under_way.extend(waiting.next());
        if under_way.is_empty() {
            return Err(fault);
        }
        let may_begin = waiting.peek().is_some();
        tokio::select! {
            Some(done) = under_way.next() => match done {
                Ok(stream) => return Ok(stream),
                Err(error) => fault = error,
            },
            () = sleep(NEXT_AFTER), if may_begin => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use tokio::time::Instant;

    use super::*;

    type Try = Pin<Box<dyn Future<Output = io::Result<u32>>>>;

    fn after_ms(wait_ms: u64, outcome: io::Result<u32>) -> Try {
        Box::pin(async move {
            sleep(Duration::from_millis(wait_ms)).await;
            outcome
        })
    }

    fn refused() -> io::Result<u32> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_swallows_everything_holds_the_next_one_up_by_a_moment_only() {
        let start = Instant::now();
        let hole: Try = Box::pin(std::future::pending());
        let reached = first([hole, after_ms(50, Ok(2)), after_ms(0, Ok(3))]).await;
        assert_eq!(reached.expect("reached"), 2);
        assert_eq!(start.elapsed().as_millis(), 350);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_goes_on_with_the_next_at_once_and_a_slow_first_is_not_given_up() {
        let start = Instant::now();
        let reached = first([after_ms(10, refused()), after_ms(10, Ok(2))]).await;
        assert_eq!(reached.expect("reached"), 2);
        assert_eq!(start.elapsed().as_millis(), 20);
        let reached = first([
            after_ms(900, Ok(1)),
            after_ms(5_000, Ok(2)),
            after_ms(0, refused()),
        ])
        .await;
        assert_eq!(reached.expect("reached"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn when_nobody_answers_the_last_fault_is_told() {
        let fault = first([after_ms(400, refused()), after_ms(0, refused())]).await;
        assert_eq!(
            fault.expect_err("refused").kind(),
            io::ErrorKind::ConnectionRefused
        );
        let fault = first(Vec::<Try>::new()).await;
        assert!(
            fault
                .expect_err("nothing to try")
                .to_string()
                .contains("no address")
        );
    }

    #[test]
    fn the_families_take_turns_and_the_preferred_one_begins() {
        let of = |text: &str| -> Vec<SocketAddr> {
            let parts = text.split(' ');
            parts.map(|part| part.parse().expect("an address")).collect()
        };
        assert_eq!(
            in_turns(of("[::1]:1 [::2]:1 [::3]:1 10.0.0.1:1")),
            of("[::1]:1 10.0.0.1:1 [::2]:1 [::3]:1")
        );
        let many: Vec<SocketAddr> = (1..30)
            .map(|port| SocketAddr::from(([10, 0, 0, 1], port)))
            .collect();
        assert_eq!(in_turns(many.clone()), many[..ADDRESSES_MAX]);
        assert!(in_turns(Vec::new()).is_empty());
    }
}
