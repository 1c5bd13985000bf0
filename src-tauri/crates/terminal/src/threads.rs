//! The three threads of a terminal: one reads, one writes, one waits for the exit. All of them block in the kernel,
//! none of them ever waits for a viewer.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant as StdInstant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::pty::{Exit, Shared, State, Written};

/// One read. Programs write a few KiB at a time; the kernel's own buffer is 4 KiB.
const READ_BYTES: usize = 8 * 1024;
/// These threads hold one buffer and call shallow code.
const STACK_BYTES: usize = 128 * 1024;
/// The reader calls the screen emulator, whose formatting needs more.
const READER_STACK_BYTES: usize = 256 * 1024;
/// After the program's exit: how long its output may stay silent before the exit is reported although a child it
/// left behind holds the terminal open.
const DRAIN_SILENCE: Duration = Duration::from_millis(200);
/// After the exit: how long a child that was left behind may go on printing before the exit is reported.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long the end of the threads is awaited once the process tree is gone.
const JOIN_WAIT_MAX: Duration = Duration::from_secs(2);

/// Input on its way to the program.
pub(crate) struct WriteRequest {
    pub(crate) bytes: Bytes,
    pub(crate) done: oneshot::Sender<io::Result<Written>>,
}

/// Handles of the running threads.
pub(crate) struct Threads {
    reader: JoinHandle<()>,
    waiter: JoinHandle<()>,
    pid: u32,
}

impl Threads {
    /// Waits for the reader and the waiter. The writer ends with the last handle of the terminal.
    pub(crate) async fn join(self) {
        let pid = self.pid;
        let joined = tokio::task::spawn_blocking(move || {
            let deadline = StdInstant::now() + JOIN_WAIT_MAX;
            while StdInstant::now() < deadline {
                if self.reader.is_finished() && self.waiter.is_finished() {
                    return self.reader.join().is_ok() && self.waiter.join().is_ok();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            false
        });
        if !joined.await.unwrap_or(false) {
            tracing::warn!(
                pid,
                "a thread of a terminal has not ended: a process outside the tree may hold the terminal open"
            );
        }
    }
}

pub(crate) fn start(
    shared: Arc<Shared>,
    reader: Box<dyn Read + Send>,
    writer: Box<dyn Write + Send>,
    queue: mpsc::Receiver<WriteRequest>,
    child: Box<dyn portable_pty::Child + Send + Sync>,
    pid: u32,
) -> io::Result<Threads> {
    let (progress, watched) = std_mpsc::sync_channel(1);
    let read_shared = Arc::clone(&shared);
    let thread = |name: &str, stack| Builder::new().name(format!("pty-{name}-{pid}")).stack_size(stack);
    let reader =
        thread("read", READER_STACK_BYTES).spawn(move || read_all(&read_shared, reader, &progress))?;
    // The writer thread ends when its queue is closed; nobody joins it, because it may be blocked in a write to a
    // program that never reads, which only the end of that program resolves.
    thread("write", STACK_BYTES).spawn(move || write_all(writer, queue))?;
    let waiter = thread("wait", STACK_BYTES).spawn(move || wait_exit(&shared, child, &watched, pid))?;
    Ok(Threads { reader, waiter, pid })
}

/// Reads to the end of the output. Dropping `progress` tells the waiter that there is no more.
fn read_all(shared: &Shared, mut reader: Box<dyn Read + Send>, progress: &std_mpsc::SyncSender<()>) {
    let mut buffer = [0u8; READ_BYTES];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // EIO is how Linux says that the last process has closed the terminal.
            Err(_) => return,
        };
        let now = StdInstant::now();
        let end = {
            let mut state = shared.state();
            let State { ring, emulator } = &mut *state;
            ring.push(&buffer[..count]);
            emulator.feed_live(&buffer[..count], ring, now);
            ring.end()
        };
        shared.end.send_replace(end);
        // A full channel means that the waiter has not looked since: it will see that there was progress.
        let _ = progress.try_send(());
    }
}

fn write_all(mut writer: Box<dyn Write + Send>, mut queue: mpsc::Receiver<WriteRequest>) {
    while let Some(request) = queue.blocking_recv() {
        let started = Instant::now();
        let result = writer
            .write_all(&request.bytes)
            .and_then(|()| writer.flush())
            .map(|()| Written {
                started,
                finished: Instant::now(),
            });
        // The caller may have stopped waiting; the bytes are written all the same.
        let _ = request.done.send(result);
    }
}

/// Waits for the program, then for the rest of its output, then reports the exit.
fn wait_exit(
    shared: &Shared,
    mut child: Box<dyn portable_pty::Child + Send + Sync>,
    progress: &std_mpsc::Receiver<()>,
    pid: u32,
) {
    let exit = match child.wait() {
        Ok(status) => Exit {
            code: status
                .signal()
                .is_none()
                .then(|| i32::try_from(status.exit_code()).unwrap_or(i32::MAX)),
            signal: status.signal().map(str::to_owned),
        },
        Err(error) => {
            tracing::warn!(pid, %error, "could not wait for a program; its exit is taken as unknown");
            Exit {
                code: None,
                signal: None,
            }
        }
    };
    let deadline = StdInstant::now() + DRAIN_MAX;
    while StdInstant::now() < deadline {
        match progress.recv_timeout(DRAIN_SILENCE) {
            Ok(()) => {}
            Err(std_mpsc::RecvTimeoutError::Timeout | std_mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    shared.exit.send_replace(Some(exit));
}
