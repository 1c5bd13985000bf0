//! The first words between a core and a holder, from the core's side.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::wire::{FRAME_BYTES_MAX, Frames, FromCore, FromHolder, Hello, Refused, Welcome};

/// What a holder answered to a greeting.
pub(crate) enum Greeted {
    /// It obeys us. What came behind its welcome is the beginning of what it has to say.
    Welcome(Welcome, Vec<u8>),
    Refused(Refused),
    /// The connection ended without a word.
    Silence,
}

/// Greets a holder and hears its answer, within `limit`.
pub(crate) fn greet(stream: &mut UnixStream, hello: Hello, limit: Duration) -> io::Result<Greeted> {
    let deadline = Instant::now() + limit;
    stream.set_write_timeout(Some(limit))?;
    match stream.write_all(&FromCore::Hello(hello).encode()) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            return Ok(Greeted::Silence);
        }
        Err(error) => return Err(error),
    }
    let mut frames = Frames::new(FRAME_BYTES_MAX);
    let mut buffer = [0; 4096];
    loop {
        if let Some((kind, payload)) = frames.next().map_err(io::Error::other)? {
            return match FromHolder::decode(kind, &payload).map_err(io::Error::other)? {
                FromHolder::Welcome(welcome) => Ok(Greeted::Welcome(welcome, frames.rest())),
                FromHolder::Refused(refused) => Ok(Greeted::Refused(refused)),
                _ => Err(io::Error::other(
                    "a holder began with something else than an answer",
                )),
            };
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(Greeted::Silence),
            Ok(count) => frames.push(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Greeted::Silence),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
}
