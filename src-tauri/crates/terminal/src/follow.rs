//! The two threads of a terminal in the core: one follows what its holder says, one speaks to it. Both block in the
//! kernel, none of them ever waits for a viewer.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::emulator::Size;
use crate::process::{self, ProcessId};
use crate::pty::{Exit, Shared, State};
use crate::stop;
use crate::wire::{self, FRAME_BYTES_MAX, FromCore, FromHolder, OUTPUT, Painting, Typed, WireError, number};

/// One read. A holder sends as much as it has.
const READ_BYTES: usize = 32 * 1024;
/// Output painted at once, while others wait for a look at the screen.
const PAINT_BYTES: usize = 8 * 1024;
/// The speaker holds one frame and calls shallow code.
const STACK_BYTES: usize = 128 * 1024;
/// The follower calls the screen emulator, whose formatting needs more.
const FOLLOWER_STACK_BYTES: usize = 256 * 1024;
/// Output after which the holder is given a new painting of the screen.
const PAINTING_EVERY_BYTES: u64 = 1024 * 1024;
/// Between the two changes of size that have a program paint its screen anew.
const NUDGE_PAUSE: Duration = Duration::from_millis(100);
/// While the holder takes nothing: between two looks whether it is to be told anything still.
const SPEAK_LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a holder whose connection has ended may take to be gone.
pub(crate) const GONE_WAIT_MAX: Duration = Duration::from_secs(3);
/// How long a program whose holder has died may take to end by itself.
const LOST_GRACE: Duration = Duration::from_secs(5);

/// What the holder is told.
pub(crate) enum Saying {
    Input {
        id: u64,
        bytes: Bytes,
    },
    Resize(Size),
    /// An input is not wanted any more.
    Withdraw {
        id: u64,
    },
    /// Has the program paint its screen anew.
    Nudge,
    Painting(Painting),
    Release,
    /// The last words of this core.
    Bye,
}

/// Who holds the program of a terminal.
#[derive(Debug, Clone)]
pub(crate) struct HeldBy {
    /// The program's own process.
    pub(crate) root: ProcessId,
    pub(crate) tag: String,
    /// The holder; absent for one on a thread of this process.
    pub(crate) holder: Option<ProcessId>,
}

/// What both threads and all handles share of the connection.
pub(crate) struct Line {
    stream: UnixStream,
    pub(crate) by: HeldBy,
    /// What the holder speaks.
    pub(crate) protocol: u32,
    pub(crate) sayings: mpsc::Sender<Saying>,
    next_input: AtomicU64,
    /// Those who wait for an answer; absent when none can come any more.
    inputs: Mutex<Option<HashMap<u64, oneshot::Sender<Typed>>>>,
    /// We let go, or another core holds it: the end of the connection says nothing about the program.
    pub(crate) let_go: Arc<AtomicBool>,
}

impl Line {
    /// Takes note of an input, so that its answer finds the one who waits.
    pub(crate) fn expect(&self) -> (u64, oneshot::Receiver<Typed>) {
        let id = self.next_input.fetch_add(1, Ordering::Relaxed);
        let (done, typed) = oneshot::channel();
        // Where nothing can be answered any more, the one who waits is told so at once.
        if let Some(inputs) = self.inputs().as_mut() {
            inputs.insert(id, done);
        }
        (id, typed)
    }

    pub(crate) fn forget(&self, id: u64) {
        self.answered(id);
    }

    fn answered(&self, id: u64) -> Option<oneshot::Sender<Typed>> {
        self.inputs().as_mut()?.remove(&id)
    }

    fn inputs(&self) -> std::sync::MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Typed>>>> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both threads end soon.
    pub(crate) fn hang_up(&self) {
        // It may have ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// A connection to a holder that has welcomed us.
pub(crate) struct Welcomed {
    pub(crate) stream: UnixStream,
    pub(crate) by: HeldBy,
    /// What the holder speaks.
    pub(crate) protocol: u32,
    /// What has come behind the welcome.
    pub(crate) rest: Vec<u8>,
    /// The holder's process, where it is a child of ours, to be collected.
    pub(crate) child: Option<Child>,
    /// Offset at which the output that it kept begins.
    pub(crate) start: u64,
}

/// Starts both threads.
pub(crate) fn start(
    shared: &Arc<Shared>,
    welcomed: Welcomed,
    queue_max: usize,
) -> io::Result<(Arc<Line>, JoinHandle<()>)> {
    let (sayings, queue) = mpsc::channel(queue_max);
    let pid = welcomed.by.root.pid;
    let size = shared.state().emulator.size();
    welcomed.stream.set_read_timeout(None)?;
    welcomed.stream.set_write_timeout(Some(SPEAK_LOOK_EVERY))?;
    let line = Arc::new(Line {
        stream: welcomed.stream.try_clone()?,
        by: welcomed.by,
        protocol: welcomed.protocol,
        sayings,
        next_input: AtomicU64::new(1),
        inputs: Mutex::new(Some(HashMap::new())),
        let_go: Arc::new(AtomicBool::new(false)),
    });
    let speaker = Speaker {
        stream: welcomed.stream.try_clone()?,
        let_go: Arc::clone(&line.let_go),
        size,
    };
    let follower = Follower {
        shared: Arc::clone(shared),
        line: Arc::clone(&line),
        painted_at: 0,
        // Output that begins in the middle of things: without a painting the screen is not to be trusted.
        wants_painting: welcomed.start > 0,
    };
    let thread = |name: &str, stack| Builder::new().name(format!("pty-{name}-{pid}")).stack_size(stack);
    thread("speak", STACK_BYTES).spawn(move || speaker.speak(queue))?;
    let (mut stream, rest, child) = (welcomed.stream, welcomed.rest, welcomed.child);
    let following = thread("follow", FOLLOWER_STACK_BYTES).spawn(move || {
        follower.follow(&mut stream, &rest);
        drop(stream);
        // A holder that was started by this process is collected, so that it does not stay as a dead entry: at once when
        // it is gone, and whenever it goes when it was let go of.
        let _ = child.map(|mut child| child.wait());
    })?;
    Ok((line, following))
}

struct Speaker {
    stream: UnixStream,
    let_go: Arc<AtomicBool>,
    /// What the terminal has.
    size: Size,
}

impl Speaker {
    /// Ends with the connection, or with the last handle of the terminal.
    fn speak(mut self, mut queue: mpsc::Receiver<Saying>) {
        while let Some(saying) = queue.blocking_recv() {
            let said = match saying {
                Saying::Input { id, bytes } => self.say(&wire::input(id, &bytes)),
                Saying::Resize(size) => {
                    self.size = size;
                    self.say(&FromCore::Resize(size).encode())
                }
                Saying::Withdraw { id } => self.say(&FromCore::Withdraw { id }.encode()),
                Saying::Nudge => self.nudge(),
                Saying::Painting(painting) => self.say(&wire::checkpoint(&painting)),
                Saying::Release => self.say(&FromCore::Release.encode()),
                Saying::Bye => break,
            };
            if said.is_err() {
                break;
            }
        }
        // A frame may be broken off: nothing more can be said on this connection. The follower learns of it.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn nudge(&mut self) -> io::Result<()> {
        let size = self.size;
        let rows = if size.rows > 2 {
            size.rows - 1
        } else {
            size.rows + 1
        };
        self.say(&FromCore::Resize(Size { rows, ..size }).encode())?;
        std::thread::sleep(NUDGE_PAUSE);
        self.say(&FromCore::Resize(size).encode())
    }

    /// A holder that stands still (a machine short of memory, a debugger) goes on some time: it is not given up, unless
    /// we let go of it. Whoever writes meanwhile is told in time that nothing is taken.
    fn say(&mut self, mut frame: &[u8]) -> io::Result<()> {
        while !frame.is_empty() {
            match self.stream.write(frame) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => frame = &frame[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && !self.let_go.load(Ordering::SeqCst) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

struct Follower {
    shared: Arc<Shared>,
    line: Arc<Line>,
    /// Offset of the newest painting that the holder has.
    painted_at: u64,
    /// If no painting comes with the output that was kept, the program is asked to paint anew.
    wants_painting: bool,
}

/// Where in a frame we are.
enum At {
    Head,
    Output { left: usize },
    Other { kind: u8, left: usize },
}

impl Follower {
    /// Follows to the end of the connection.
    fn follow(mut self, stream: &mut UnixStream, rest: &[u8]) {
        let mut cutter = Cutter {
            at: At::Head,
            part: Vec::new(),
        };
        let mut heard = cutter.take(rest, &mut self);
        let mut buffer = vec![0; READ_BYTES];
        while heard.is_ok() {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => heard = cutter.take(&buffer[..count], &mut self),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if let Err(error) = heard {
            tracing::warn!(pid = self.line.by.root.pid, %error, "a holder said what cannot be understood");
        }
        self.line.hang_up();
        self.over();
        *self.line.inputs() = None;
    }

    /// The connection has ended.
    fn over(&self) {
        if self.line.let_go.load(Ordering::SeqCst) {
            return;
        }
        let by = &self.line.by;
        if let Some(holder) = by.holder {
            let deadline = Instant::now() + GONE_WAIT_MAX;
            while process::lives(holder) {
                if Instant::now() >= deadline {
                    self.displaced();
                    tracing::warn!(
                        tag = by.tag,
                        holder = holder.pid,
                        "a holder has ended the connection and lives on: another core holds the terminal"
                    );
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        if self.shared.exit.borrow().is_some() {
            return;
        }
        self.shared.lost.send_replace(true);
        tracing::warn!(
            tag = by.tag,
            "the holder of a terminal has died; its program is ended"
        );
        match stop::stop_tree(Some(by.root), &by.tag, None, LOST_GRACE) {
            Ok(proof) if proof.is_proven() => {
                let unknown = Exit {
                    code: None,
                    signal: None,
                };
                self.shared.exit.send_replace(Some(unknown));
            }
            Ok(proof) => {
                tracing::warn!(tag = by.tag, survivors = ?proof.survivors, "a tree could not be ended")
            }
            Err(error) => tracing::warn!(tag = by.tag, %error, "a tree could not be looked for"),
        }
    }

    /// Output that continues what came before, or begins behind a gap.
    fn output(&mut self, offset: Option<u64>, bytes: &[u8]) {
        if let Some(offset) = offset {
            let is_gap = self.shared.state().skip_to(offset);
            if is_gap {
                self.nudge();
            }
        }
        for bytes in bytes.chunks(PAINT_BYTES) {
            let now = Instant::now();
            let end = {
                let mut state = self.shared.state();
                let State { ring, emulator } = &mut *state;
                ring.push(bytes);
                emulator.feed_live(bytes, ring, now);
                ring.end()
            };
            self.shared.end.send_replace(end);
        }
        self.paint();
    }

    /// Another core holds the program from now on.
    fn displaced(&self) {
        self.line.let_go.store(true, Ordering::SeqCst);
        self.shared.displaced.send_replace(true);
    }

    fn nudge(&self) {
        // Where the holder is slow, the program paints when it does.
        let _ = self.line.sayings.try_send(Saying::Nudge);
    }

    /// Gives the holder a painting from time to time.
    fn paint(&mut self) {
        let end = *self.shared.end.borrow();
        if !*self.shared.caught_up.borrow() {
            // Our own screen may still be wrong, and the holder's painting right.
            self.painted_at = end;
        }
        if end - self.painted_at >= PAINTING_EVERY_BYTES {
            self.painted_at = end;
            // Where the holder is slow, the next one has to do.
            if let Some(painting) = self.shared.painting() {
                let _ = self.line.sayings.try_send(Saying::Painting(painting));
            }
        }
    }

    fn heard(&mut self, said: FromHolder) {
        match said {
            FromHolder::InputDone { id, typed } => {
                if let Some(done) = self.line.answered(id) {
                    // The one who waited may have given up.
                    let _ = done.send(typed);
                }
            }
            FromHolder::Exited(exit) => {
                self.shared.exit.send_replace(Some(exit));
            }
            FromHolder::Painting(painting) => {
                let mut state = self.shared.state();
                let State { ring, emulator } = &mut *state;
                if emulator.show(&painting, ring) {
                    self.wants_painting = false;
                }
            }
            FromHolder::CaughtUp => {
                if std::mem::take(&mut self.wants_painting) {
                    self.nudge();
                }
                self.shared.caught_up.send_replace(true);
            }
            FromHolder::Displaced => {
                self.displaced();
                tracing::warn!(
                    tag = self.line.by.tag,
                    "another core holds this terminal from now on"
                );
            }
            // These are said once, before anything else.
            FromHolder::Welcome(_) | FromHolder::Refused(_) => {}
        }
    }
}

/// Cuts what comes into frames; output is handed on as it comes, without being put together first.
struct Cutter {
    at: At,
    /// What has come of a head, or of a frame that is no output.
    part: Vec<u8>,
}

impl Cutter {
    fn take(&mut self, mut bytes: &[u8], to: &mut Follower) -> Result<(), WireError> {
        while !bytes.is_empty() {
            match self.at {
                At::Head => bytes = self.head(bytes, to)?,
                At::Output { left } => {
                    let (now, later) = bytes.split_at(left.min(bytes.len()));
                    to.output(None, now);
                    self.at = match left - now.len() {
                        0 => At::Head,
                        left => At::Output { left },
                    };
                    bytes = later;
                }
                At::Other { kind, left } => {
                    let (now, later) = bytes.split_at(left.min(bytes.len()));
                    self.part.extend_from_slice(now);
                    bytes = later;
                    self.at = At::Other {
                        kind,
                        left: left - now.len(),
                    };
                }
            }
            if let At::Other { kind, left: 0 } = self.at {
                let payload = std::mem::take(&mut self.part);
                to.heard(FromHolder::decode(kind, &payload)?);
                self.at = At::Head;
            }
        }
        Ok(())
    }

    /// Collects the head of a frame: length and kind, and of output the offset.
    fn head<'a>(&mut self, bytes: &'a [u8], to: &mut Follower) -> Result<&'a [u8], WireError> {
        let wanted = match self.part.get(4) {
            Some(&OUTPUT) => wire::OUTPUT_HEAD_BYTES,
            _ => 5,
        };
        let (now, later) = bytes.split_at((wanted - self.part.len()).min(bytes.len()));
        self.part.extend_from_slice(now);
        let (Some(length), Some(&kind)) = (self.part.first_chunk::<4>(), self.part.get(4)) else {
            return Ok(later);
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let too_long = WireError::TooLong {
            bytes: length,
            max: FRAME_BYTES_MAX,
        };
        if length == 0 || length > FRAME_BYTES_MAX || (kind == OUTPUT && length < 9) {
            return Err(too_long);
        }
        if kind != OUTPUT {
            self.part.clear();
            self.at = At::Other {
                kind,
                left: length - 1,
            };
        } else if let Some((offset, _)) = self.part.get(5..).and_then(number) {
            wire::plausible(offset)?;
            self.part.clear();
            to.output(Some(offset), &[]);
            self.at = match length - 9 {
                0 => At::Head,
                left => At::Output { left },
            };
        }
        Ok(later)
    }
}
