//! The two threads of a terminal in the core: one follows what its holder says, one speaks to it. Both block in the
//! kernel, none of them ever waits for a viewer. When their connection breaks, they go on with the next one.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::again::{Again, Pace, again};
use crate::emulator::Size;
use crate::line::{Line, Saying, Welcomed};
use crate::process;
use crate::pty::{Exit, Shared, State};
use crate::stop;
use crate::wire::{self, FRAME_BYTES_MAX, FromCore, FromHolder, OUTPUT, WireError, number};

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
pub(crate) const SPEAK_LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a program whose holder has died may take to end by itself.
const LOST_GRACE: Duration = Duration::from_secs(5);

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
    let stream = welcomed.stream.try_clone()?;
    let line = Line::new(stream, welcomed.by, welcomed.way, welcomed.protocol, sayings);
    let line = Arc::new(line);
    let speaker = Speaker {
        line: Arc::clone(&line),
        stream: welcomed.stream.try_clone()?,
        connection: 1,
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
    let (stream, rest, child) = (welcomed.stream, welcomed.rest, welcomed.child);
    let following = thread("follow", FOLLOWER_STACK_BYTES).spawn(move || {
        follower.follow(stream, rest);
        // A holder that was started by this process is collected, so that it does not stay as a dead entry: at once when
        // it is gone, and whenever it goes when it was let go of.
        let _ = child.map(|mut child| child.wait());
    })?;
    Ok((line, following))
}

struct Speaker {
    line: Arc<Line>,
    stream: UnixStream,
    /// The number of its connection.
    connection: u64,
    /// What the terminal has.
    size: Size,
}

impl Speaker {
    /// Ends with the line: we let go, or nothing more can be said.
    fn speak(mut self, mut queue: mpsc::Receiver<Saying>) {
        while let Some(saying) = queue.blocking_recv() {
            if matches!(saying, Saying::Bye) || !self.say_to_its_end(&saying) {
                break;
            }
        }
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Says it on the connection of now, or on the next one: of a frame that is broken off a holder does nothing. False
    /// when there is no next one.
    fn say_to_its_end(&mut self, saying: &Saying) -> bool {
        while !self.line.is_over() {
            if self.try_to_say(saying).is_ok() {
                return true;
            }
            // Nothing more can be said on this one. The follower learns of it.
            let _ = self.stream.shutdown(Shutdown::Both);
            match self.line.connection(self.connection) {
                Some((connection, stream)) => (self.connection, self.stream) = (connection, stream),
                None => return false,
            }
        }
        false
    }

    fn try_to_say(&mut self, saying: &Saying) -> io::Result<()> {
        match saying {
            Saying::Input { id, bytes } => {
                if !self.line.begin_to_say(*id, self.connection) {
                    return Ok(());
                }
                let said = self.say(&wire::input(*id, bytes));
                said.inspect_err(|_| self.line.not_said(*id))
            }
            Saying::Resize(size) => {
                self.size = *size;
                self.say(&FromCore::Resize(*size).encode())
            }
            Saying::Withdraw { id } => self.say(&FromCore::Withdraw { id: *id }.encode()),
            Saying::Nudge => self.nudge(),
            Saying::Painting(painting) => self.say(&wire::checkpoint(painting)),
            Saying::Release => self.say(&FromCore::Release.encode()),
            Saying::Bye => Ok(()),
        }
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
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.line.is_let_go() => {}
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
    /// Follows on one connection after the other, until nothing more is to be heard.
    fn follow(mut self, stream: UnixStream, rest: Vec<u8>) {
        let mut pace = Pace::default();
        let mut next = Some((stream, rest));
        while let Some((mut stream, rest)) = next {
            let since = Instant::now();
            self.hear(&mut stream, &rest);
            self.line.broken();
            drop(stream);
            pace.was(since.elapsed());
            next = self.go_on(&mut pace);
        }
        self.line.over();
    }

    /// To the end of a connection.
    fn hear(&mut self, stream: &mut UnixStream, rest: &[u8]) {
        let mut cutter = Cutter {
            at: At::Head,
            part: Vec::new(),
        };
        let mut heard = cutter.take(rest, self);
        let mut buffer = vec![0; READ_BYTES];
        while heard.is_ok() {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => heard = cutter.take(&buffer[..count], self),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if let Err(error) = heard {
            tracing::warn!(pid = self.line.by.root.pid, %error, "a holder said what cannot be understood");
        }
    }

    /// A connection has ended. That proves nothing by itself: the holder is asked again, by the launch that we are, until
    /// it welcomes us, or is gone, or says that a later launch holds it.
    fn go_on(&mut self, pace: &mut Pace) -> Option<(UnixStream, Vec<u8>)> {
        let line = Arc::clone(&self.line);
        let by = &line.by;
        let (Some(holder), Some(way)) = (by.holder, &line.way) else {
            self.lost();
            return None;
        };
        let mut refusals = 0;
        loop {
            line.pause(pace.next());
            if line.is_let_go() || line.is_over() {
                return None;
            }
            if !process::lives(holder) {
                self.lost();
                return None;
            }
            let from = *self.shared.end.borrow();
            match again(way, by, from, &mut refusals) {
                Again::Welcomed {
                    stream,
                    speaking,
                    size,
                    rest,
                } => {
                    tracing::warn!(
                        tag = by.tag,
                        "the connection to a holder broke; there is a new one"
                    );
                    line.renewed(speaking);
                    self.look_alike(size);
                    return Some((stream, rest));
                }
                Again::Taken => {
                    self.displaced();
                    return None;
                }
                Again::Not { why } => pace.tell(&by.tag, &why),
            }
        }
    }

    /// A change of size may have been lost with the connection.
    fn look_alike(&self, holders: Size) {
        let ours = self.shared.state().emulator.size();
        if ours != holders {
            // Where the holder is slow, the next change does it.
            let _ = self.line.sayings.try_send(Saying::Resize(ours));
        }
    }

    /// The holder is gone. Its program is ended, unless that was told before.
    fn lost(&self) {
        if self.line.is_let_go() || self.shared.exit.borrow().is_some() {
            return;
        }
        let by = &self.line.by;
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

    /// Output goes on at `offset`: where it ended, or behind a gap.
    fn goes_on_at(&mut self, offset: u64) -> Result<(), WireError> {
        let end = *self.shared.end.borrow();
        if offset < end {
            return Err(WireError::Malformed {
                kind: OUTPUT,
                why: format!("output from {offset} on, of which there is some up to {end}"),
            });
        }
        let is_gap = self.shared.state().skip_to(offset);
        if is_gap {
            self.nudge();
        }
        Ok(())
    }

    fn output(&mut self, bytes: &[u8]) {
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
        self.line.let_go();
        self.shared.displaced.send_replace(true);
        tracing::warn!(
            tag = self.line.by.tag,
            "another core holds this terminal from now on"
        );
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
            FromHolder::InputDone { id, typed } => self.line.answered(id, typed),
            FromHolder::Exited(exit) => {
                // Told again on each new connection.
                self.shared.exit.send_if_modified(|known| {
                    let is_new = known.is_none();
                    known.get_or_insert(exit);
                    is_new
                });
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
            FromHolder::Displaced => self.displaced(),
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
                    to.output(now);
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
            to.goes_on_at(offset)?;
            self.at = match length - 9 {
                0 => At::Head,
                left => At::Output { left },
            };
        }
        Ok(later)
    }
}
