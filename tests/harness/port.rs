//! Ports that a story gives up and has to get again: a core, a hub or an endpoint that dies and comes back where it
//! was. They lie outside the range from which the kernel takes the ports of outgoing connections, and no two test
//! processes of a machine are given the same.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use cli::port::outgoing;

use crate::wait::{LONG, wait_for};

/// Below lies what servers of a machine like to listen on.
const LOWEST: u16 = 20_000;
/// So many ports are claimed at once.
const BLOCK: u16 = 256;

/// Ports of this process that were not given yet.
struct Block {
    // As long as it listens, other test processes leave the block alone.
    _claim: UnixListener,
    left: std::ops::Range<u16>,
}

static BLOCKS: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// A free port that nobody else is given for as long as this process lives.
pub fn take() -> u16 {
    let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let newest = blocks.last_mut().map(|block| &mut block.left);
        let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        if let Some(port) = newest.and_then(|left| left.find(free)) {
            return port;
        }
        blocks.push(claim());
    }
}

/// Lets the core of this data folder take a port of [`take`], as if it had had it before: agents that go on without a
/// core send their hooks to the port of the one that started them.
pub fn remember(data_dir: &Path) {
    std::fs::create_dir_all(data_dir).expect("the data folder");
    std::fs::write(data_dir.join("api-port"), take().to_string()).expect("a file");
}

/// Listens on a port of [`take`] again. The listener before may live on for a moment in a process that is just being
/// started: it has a copy of every file until it runs its program.
pub async fn listen(port: u16) -> tokio::net::TcpListener {
    wait_for(&format!("port {port} is free again"), LONG, || async {
        match tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => Some(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse => None,
            Err(error) => panic!("port {port}: {error}"),
        }
    })
    .await
}

fn claim() -> Block {
    let outgoing = outgoing();
    let is_apart = |first: &u16| first + BLOCK <= *outgoing.start() || first > outgoing.end();
    let all = || (LOWEST..=u16::MAX - BLOCK).step_by(usize::from(BLOCK));
    // A machine whose outgoing connections take all ports has none that are safe.
    let first = all().filter(is_apart).chain(all());
    let mut claims = first.filter_map(|first| {
        let name = SocketAddr::from_abstract_name(format!("semo-test-ports-{first}")).ok()?;
        let claim = UnixListener::bind_addr(&name).ok()?;
        Some(Block {
            _claim: claim,
            left: first..first + BLOCK,
        })
    });
    claims.next().expect("a block of ports that no other test has")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_apart_from_each_other_and_from_those_of_outgoing_connections() {
        let ports: Vec<u16> = (0..3).map(|_| take()).collect();
        let outgoing = outgoing();
        assert!(
            outgoing.start() < &(LOWEST + BLOCK) || ports.iter().all(|port| !outgoing.contains(port)),
            "{ports:?} {outgoing:?}"
        );
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
    }

    #[tokio::test]
    async fn a_port_that_is_still_held_is_waited_for() {
        let port = take();
        let before = listen(port).await;
        let (again, ()) = tokio::join!(listen(port), async {
            tokio::task::yield_now().await;
            drop(before);
        });
        assert_eq!(again.local_addr().unwrap().port(), port);
    }
}
