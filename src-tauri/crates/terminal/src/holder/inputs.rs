//! Input on its way into the program, one piece after the other, as fast as the program takes it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Write};

use crate::wire::Typed;

/// Pieces that may wait.
const INPUTS_MAX: usize = 64;
/// The id of a piece whose core is gone: each core counts its own from 1, and none gets an answer to another one's.
const NOBODYS: u64 = 0;
/// Bytes that may wait.
const INPUT_BYTES_MAX: usize = 1024 * 1024;

struct Input {
    id: u64,
    bytes: Vec<u8>,
    written: usize,
    started_ns: Option<u64>,
}

/// What waits.
#[derive(Default)]
pub(crate) struct Inputs {
    queue: VecDeque<Input>,
}

impl Inputs {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes a piece; a reason when there is no room.
    pub(crate) fn push(&mut self, id: u64, bytes: Vec<u8>) -> Result<(), Typed> {
        let waiting: usize = self.queue.iter().map(|input| input.bytes.len()).sum();
        if self.queue.len() >= INPUTS_MAX || waiting + bytes.len() > INPUT_BYTES_MAX {
            let why = "too much input waits already: the program does not read".to_owned();
            return Err(Typed::Not { why });
        }
        self.queue.push_back(Input {
            id,
            bytes,
            written: 0,
            started_ns: None,
        });
        Ok(())
    }

    /// The core that sent them is gone: what the program has seen a part of is written to its end, and answered to
    /// nobody; the rest is dropped.
    pub(crate) fn forget_unbegun(&mut self) {
        self.queue.retain(|input| input.written > 0);
        for input in &mut self.queue {
            input.id = NOBODYS;
        }
    }

    /// Takes back a piece; says what has become of it. One that is not here was answered before, or has never come.
    pub(crate) fn withdraw(&mut self, id: u64) -> Typed {
        if self.queue.iter().any(|input| input.id == id && input.written > 0) {
            return Typed::Begun;
        }
        self.queue.retain(|input| input.id != id);
        Typed::Withdrawn
    }

    /// Writes what the program takes now; returns what became of the pieces that are through.
    pub(crate) fn write(&mut self, master: &mut File, is_open: bool) -> Vec<(u64, Typed)> {
        let mut through = Vec::new();
        while let Some(input) = self.queue.front_mut() {
            let typed = match write_on(input, master, is_open) {
                None => break,
                Some(typed) => typed,
            };
            if input.id != NOBODYS {
                through.push((input.id, typed));
            }
            self.queue.pop_front();
        }
        through
    }
}

/// `None` while the program takes no more.
fn write_on(input: &mut Input, master: &mut File, is_open: bool) -> Option<Typed> {
    let not = |why: String| Some(Typed::Not { why });
    if !is_open {
        return not("the program has ended".to_owned());
    }
    let mut started_ns = input.started_ns.unwrap_or_else(monotonic_ns);
    while input.written < input.bytes.len() {
        match master.write(&input.bytes[input.written..]) {
            Ok(count) => {
                input.written += count;
                started_ns = *input.started_ns.get_or_insert(started_ns);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => return not(error.to_string()),
        }
    }
    Some(Typed::Done {
        started_ns,
        finished_ns: monotonic_ns(),
    })
}

/// The clock that all processes of a machine share.
pub(crate) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, ns) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000_000 + ns.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_core_gets_no_answer_to_what_the_core_before_it_has_sent() {
        let (ours, mut program) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        program.set_nonblocking(true).unwrap();
        let mut master = File::from(OwnedFd::from(ours));
        let mut inputs = Inputs::default();
        let filler = vec![b'f'; INPUT_BYTES_MAX - 64];
        inputs.push(1, filler.clone()).unwrap();
        assert!(inputs.write(&mut master, true).is_empty(), "it does not read");
        inputs.forget_unbegun();
        inputs.push(1, b"never".to_vec()).unwrap();
        assert!(matches!(inputs.withdraw(1), Typed::Withdrawn));
        inputs.push(1, b"this".to_vec()).unwrap();
        let (mut heard, mut through) = (Vec::new(), Vec::new());
        while !inputs.is_empty() {
            // To its end: it says so by an error.
            let _ = program.read_to_end(&mut heard);
            through.extend(inputs.write(&mut master, true));
        }
        let _ = program.read_to_end(&mut heard);
        assert!(heard == [filler, b"this".to_vec()].concat(), "not what was typed");
        assert!(matches!(&through[..], [(1, Typed::Done { .. })]), "{through:?}");
    }
}
