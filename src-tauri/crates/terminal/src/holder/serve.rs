//! The loop of a holder: it waits for its program, its core, those who knock, and for nothing else.

use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitOptions, wait};

use crate::emulator::Size;
use crate::holder::ending::Ending;
use crate::holder::entry::other_protocol;
use crate::holder::home::Home;
use crate::holder::inputs::Inputs;
use crate::holder::kept::Kept;
use crate::holder::link::Link;
use crate::holder::program::{Program, ended};
use crate::holder::{
    BATCH_BYTES, BEHIND_BYTES_MAX, DRAIN_MAX, DRAIN_SILENCE, ENDED_KEEP_MAX, GUEST_WAIT_MAX, GUESTS_MAX,
    HOMELESS_MAX, LAST_WORDS_MAX, LOOK_HOME_EVERY, LOOKS_HOME, PACK_AFTER, SHORTAGE_PAUSE, STALL_MAX,
};
use crate::process::{self, ProcessId};
use crate::pty::Exit;
use crate::stop;
use crate::wire::{
    Frames, FromCore, FromHolder, HELLO_BYTES_MAX, Hello, Painting, Plan, Refusal, Refused, Welcome,
};

/// Most bytes taken from somebody who has not said who it is, at once.
const GUEST_READ_BYTES: usize = 1024;

/// Where something has happened.
#[derive(Clone, Copy)]
enum Source {
    Master,
    Core,
    Listener,
    Guest(usize),
    /// The program itself, where no signal tells of it.
    Child,
    Children,
    Ends,
}

/// Somebody who has knocked.
struct Guest {
    stream: std::os::unix::net::UnixStream,
    frames: Frames,
    since: Instant,
}

/// Everything a holder knows.
pub(crate) struct Holder {
    tag: String,
    own: ProcessId,
    /// There for a process; a thread has none, and ends with its core.
    home: Option<Home>,
    program: Program,
    child: Option<OwnedFd>,
    size: Size,
    kept: Kept,
    painting: Option<Painting>,
    link: Option<Link>,
    /// The highest that was seen.
    epoch: u64,
    guests: Vec<Guest>,
    /// Nobody could be let in although somebody knocked: until then the door is not looked at.
    deaf_until: Option<Instant>,
    inputs: Inputs,
    last_output: Instant,
    /// The output has come to its end.
    hung_up: bool,
    exit: Option<(Exit, Instant)>,
    /// Offset of the output's end, once the exit may be told.
    drained: Option<u64>,
    /// The core of now knows of the exit.
    told: bool,
    /// A painting is to be sent to the core of now when it has all output before it.
    to_paint: Option<u64>,
    /// Offset of the output's end when the core of now was welcomed, until it has all of that.
    catching_up: Option<u64>,
    alone_since: Option<Instant>,
    alone_max: Duration,
    /// When it last looked whether it can be found, and since when it cannot.
    looked_home: Instant,
    homeless_since: Option<Instant>,
    ending: Option<Ending>,
    /// When the last thing was done; what is left are the last words to the core.
    through: Option<Instant>,
    /// A core wants nothing more of it. Its word holds once the program's exit is known: a core that is wrong about the
    /// end must not leave a program without a holder.
    released: bool,
}

impl Holder {
    pub(crate) fn new(
        program: Program,
        plan: &Plan,
        hello: Hello,
        home: Option<Home>,
        child: Option<OwnedFd>,
        now: Instant,
    ) -> Holder {
        Holder {
            tag: hello.tag,
            own: process::identify(std::process::id()),
            home,
            program,
            child,
            size: plan.size,
            kept: Kept::new(),
            painting: None,
            link: None,
            epoch: hello.epoch,
            guests: Vec::new(),
            deaf_until: None,
            inputs: Inputs::default(),
            last_output: now,
            hung_up: false,
            exit: None,
            drained: None,
            told: false,
            to_paint: None,
            catching_up: None,
            alone_since: None,
            alone_max: Duration::from_millis(plan.alone_ms_max),
            looked_home: now,
            homeless_since: None,
            ending: None,
            through: None,
            released: false,
        }
    }

    /// Serves `link` and those who come after it, until it is released or has ended its program by itself.
    pub(crate) fn run(mut self, link: Link) -> std::io::Result<()> {
        self.welcome(link);
        while !self.is_over(Instant::now()) {
            self.send();
            for (source, flags) in self.wait()? {
                self.happened(source, flags);
            }
            self.time_passed(Instant::now());
        }
        if let Some(home) = &self.home
            && (self.is_released() || self.ending.is_none())
        {
            // What cannot be removed is found and removed by the next core.
            let _ = home.folder.remove();
        }
        Ok(())
    }

    fn is_over(&self, now: Instant) -> bool {
        let said = |since: Instant| {
            let waits = self
                .link
                .as_ref()
                .is_some_and(|link| !(self.told && link.is_idle()));
            !waits || now.duration_since(since) >= LAST_WORDS_MAX
        };
        self.is_released() || self.through.is_some_and(said)
    }

    fn is_released(&self) -> bool {
        self.released && self.exit.is_some()
    }

    // --- waiting -------------------------------------------------------------------------------------------------

    /// Whether the program's output is to be read now. A core that is far behind slows it down, unless it is stuck.
    fn reads(&self, now: Instant) -> bool {
        !self.hung_up
            && self.link.as_ref().is_none_or(|link| {
                let behind = self.kept.end().saturating_sub(link.position);
                behind <= BEHIND_BYTES_MAX || now.duration_since(link.progress) >= STALL_MAX
            })
    }

    fn wait(&self) -> std::io::Result<Vec<(Source, PollFlags)>> {
        let now = Instant::now();
        let mut sources = Vec::with_capacity(8);
        let mut fds = Vec::with_capacity(8);
        let mut master = PollFlags::empty();
        master.set(PollFlags::IN, self.reads(now));
        master.set(PollFlags::OUT, !self.inputs.is_empty());
        if !master.is_empty() {
            sources.push(Source::Master);
            fds.push(PollFd::new(&self.program.master, master));
        }
        if let Some(link) = &self.link {
            let mut core = PollFlags::IN;
            core.set(PollFlags::OUT, link.is_full);
            sources.push(Source::Core);
            fds.push(PollFd::new(&link.stream, core));
        }
        if let Some(home) = &self.home {
            if self.guests.len() < GUESTS_MAX && self.deaf_until.is_none() {
                sources.push(Source::Listener);
                fds.push(PollFd::new(&home.listener, PollFlags::IN));
            }
            sources.extend([Source::Children, Source::Ends]);
            fds.push(PollFd::new(&home.children, PollFlags::IN));
            fds.push(PollFd::new(&home.ends, PollFlags::IN));
        }
        for (number, guest) in self.guests.iter().enumerate() {
            sources.push(Source::Guest(number));
            fds.push(PollFd::new(&guest.stream, PollFlags::IN));
        }
        if let Some(child) = self.child.as_ref().filter(|_| self.exit.is_none()) {
            sources.push(Source::Child);
            fds.push(PollFd::new(child, PollFlags::IN));
        }
        let timeout = self.due(now).map(|due| {
            let left = due.saturating_duration_since(now);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // The machine is short of memory for a moment: no reason to let a program die.
            Err(rustix::io::Errno::NOMEM | rustix::io::Errno::AGAIN) => {
                std::thread::sleep(SHORTAGE_PAUSE);
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        }
        let happened = sources.into_iter().zip(fds.iter().map(PollFd::revents));
        // The last guest first: taking one out must not move the others.
        let mut happened: Vec<_> = happened.filter(|(_, flags)| !flags.is_empty()).collect();
        happened.reverse();
        Ok(happened)
    }

    /// When something is to be done although nothing happens; never, for a holder at rest.
    fn due(&self, now: Instant) -> Option<Instant> {
        let guests = self.guests.iter().map(|guest| guest.since + GUEST_WAIT_MAX);
        let stalled = self.link.as_ref().filter(|_| !self.hung_up && !self.reads(now));
        let drained = self
            .exit
            .as_ref()
            // While the core is behind, its progress wakes us, or its stall.
            .filter(|_| self.drained.is_none() && (self.hung_up || self.reads(now)))
            .map(|(_, at)| {
                let silent = self.last_output.max(*at) + DRAIN_SILENCE;
                silent.min(*at + DRAIN_MAX)
            });
        let looks = match &self.ending {
            Some(ending) => ending.due(),
            None => self.gives_up_at(),
        };
        let packs = self.packs_at();
        let home = self.looks_home_at();
        let words = self.through.map(|through| through + LAST_WORDS_MAX);
        let deaf = self.deaf_until.filter(|_| self.home.is_some());
        guests
            .chain(stalled.map(|link| link.progress + STALL_MAX))
            .chain(drained)
            .chain(looks)
            .chain(packs)
            .chain(home)
            .chain(words)
            .chain(deaf)
            .min()
    }

    /// How long it goes on without a core.
    fn patience(&self) -> Duration {
        match self.exit {
            Some(_) => ENDED_KEEP_MAX.min(self.alone_max),
            None => self.alone_max,
        }
    }

    /// When nobody has come for so long, or can come any more, that it ends its program by itself.
    fn gives_up_at(&self) -> Option<Instant> {
        let alone = self.alone_since?;
        let patience = alone.checked_add(self.patience());
        let homeless = self.homeless_since.map(|since| match self.exit {
            // An exit is kept for somebody who comes.
            Some(_) => alone.max(since),
            None => alone.max(since) + HOMELESS_MAX,
        });
        patience.into_iter().chain(homeless).min()
    }

    fn gives_up(&self, now: Instant) -> bool {
        self.ending.is_none() && self.gives_up_at().is_some_and(|at| now >= at)
    }

    /// When it is to look whether it can be found: only while nobody is there, who does not need to find it.
    fn looks_home_at(&self) -> Option<Instant> {
        let waits = self.alone_since.is_some() && self.homeless_since.is_none() && self.ending.is_none();
        let every = LOOK_HOME_EVERY.min(self.alone_max / LOOKS_HOME);
        let is_process = self.home.is_some();
        (waits && is_process).then(|| self.looked_home + every)
    }

    fn look_home(&mut self, now: Instant) {
        self.looked_home = now;
        if let Some(home) = &mut self.home {
            self.homeless_since = match home.keep() {
                true => None,
                false => self.homeless_since.or(Some(now)),
            };
        }
    }

    /// When the next block is to be packed: in silence, and not while a core still takes output.
    fn packs_at(&self) -> Option<Instant> {
        let silent = self.last_output + PACK_AFTER;
        let taking = self.link.as_ref().filter(|link| !link.is_idle());
        let at = taking.map_or(silent, |link| silent.max(link.progress + STALL_MAX));
        self.kept.is_loose().then_some(at)
    }

    fn pack_one(&mut self) {
        if let Some(link) = &mut self.link {
            // What is half sent to a core that is stuck.
            link.rescue(&self.kept, u64::MAX);
        }
        let home = self.home.as_ref();
        self.kept.pack_one(|| match home {
            Some(home) => home.folder.nameless(),
            None => Err(ErrorKind::Unsupported.into()),
        });
    }

    fn time_passed(&mut self, now: Instant) {
        self.guests
            .retain(|guest| now.duration_since(guest.since) < GUEST_WAIT_MAX);
        self.deaf_until = self.deaf_until.filter(|until| now < *until);
        if let Some((_, at)) = self.exit
            && self.drained.is_none()
        {
            // A core that is behind has kept us from reading: what waits there belongs before the exit.
            let reads = self.reads(now);
            self.read_output();
            let silent = now.saturating_duration_since(self.last_output.max(at)) >= DRAIN_SILENCE;
            let is_over = silent || now.duration_since(at) >= DRAIN_MAX;
            if self.hung_up || (reads && is_over) {
                self.drained = Some(self.kept.end());
            }
        }
        if self.looks_home_at().is_some_and(|at| now >= at) {
            self.look_home(now);
        }
        if self.gives_up(now) && self.homeless_since.is_some() {
            // An agent that works is ended for what is true now.
            self.look_home(now);
        }
        if self.gives_up(now) {
            let why = match self.homeless_since {
                Some(_) => "its folder was removed, and nobody could find it any more".to_owned(),
                None => format!(
                    "nobody came for it for {} minutes",
                    self.patience().as_secs() / 60
                ),
            };
            self.end_by_itself(why, now);
        }
        let above = self.home.is_some().then_some(self.own);
        if let Some(ending) = &mut self.ending {
            ending.look(&self.tag, above, now);
            if ending.is_through() && self.exit.is_none() {
                // It is gone, and nobody has told us how.
                let unknown = Exit {
                    code: None,
                    signal: None,
                };
                self.exit = Some((unknown, now));
            }
            if ending.is_through() && self.through.is_none() && self.exit.is_some() && self.drained.is_some()
            {
                self.through = Some(now);
                self.write_how_it_ended();
            }
        }
        if self.packs_at().is_some_and(|at| now >= at) {
            self.pack_one();
        }
    }

    fn end_by_itself(&mut self, why: String, now: Instant) {
        if self.ending.is_none() {
            self.ending = Some(Ending::new(why, self.program.root, now));
        }
    }

    /// For the core that comes when this holder is gone.
    fn write_how_it_ended(&mut self) {
        let (Some(home), Some(ending), Some((exit, _))) = (&mut self.home, &self.ending, &self.exit) else {
            return;
        };
        let how = match (&exit.signal, exit.code) {
            (Some(signal), _) => format!("signal {signal}"),
            (None, Some(code)) => format!("exit code {code}"),
            (None, None) => "an exit that is not known".to_owned(),
        };
        home.record.ended = Some(format!("{}; its program ended with {how}", ending.why));
        // On a full disk the next core learns only that it is gone.
        let _ = home.write_record();
    }

    // --- what happens --------------------------------------------------------------------------------------------

    fn happened(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Master => {
                // Nobody has the terminal open: nobody takes the input that would wake us for it.
                self.type_in(!flags.contains(PollFlags::HUP));
                self.read_output();
                self.type_in(true);
            }
            Source::Core => self.hear_core(flags),
            Source::Listener => self.let_in(),
            Source::Guest(number) => self.hear_guest(number),
            Source::Child => self.collect(),
            Source::Children => {
                drain(self.home.as_mut().map(|home| &mut home.children));
                self.reap();
            }
            Source::Ends => {
                drain(self.home.as_mut().map(|home| &mut home.ends));
                let why = "its holder was told to end (log-out, shutdown or kill)".to_owned();
                self.end_by_itself(why, Instant::now());
            }
        }
    }

    fn read_output(&mut self) {
        let now = Instant::now();
        if !self.reads(now) {
            return;
        }
        let mut count = 0;
        while count < BATCH_BYTES {
            if let Some(link) = &mut self.link {
                link.rescue(&self.kept, self.kept.forgets());
            }
            match self.program.master.read(self.kept.space()) {
                Ok(0) => {
                    self.hung_up = true;
                    break;
                }
                Ok(read) => {
                    self.kept.fill(read);
                    count += read;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // EIO is how Linux says that the last process has closed the terminal.
                Err(_) => {
                    self.hung_up = true;
                    break;
                }
            }
        }
        if count > 0 {
            self.last_output = now;
        }
    }

    fn type_in(&mut self, is_open: bool) {
        let is_open = is_open && self.exit.is_none() && !self.hung_up;
        let through = self.inputs.write(&mut self.program.master, is_open);
        if let Some(link) = &mut self.link {
            for (id, typed) in through {
                link.answer(&FromHolder::InputDone { id, typed }.encode());
            }
        }
    }

    fn collect(&mut self) {
        if self.exit.is_none()
            && let Some(exit) = self.program.collect()
        {
            self.ended(exit);
        }
    }

    /// Collects whatever has ended: the program, and what came back to us because its parents are gone.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if Some(pid) == self.program.pid()
                && self.exit.is_none()
                && let Some(exit) = ended(status)
            {
                self.ended(exit);
            }
        }
    }

    fn ended(&mut self, exit: Exit) {
        fail::fail_point!("holder-exit-seen");
        let now = Instant::now();
        self.exit = Some((exit, now));
        self.type_in(true);
        // Whoever ended it may have removed the folder before.
        self.look_home(now);
    }

    fn hear_core(&mut self, flags: PollFlags) {
        let Some(link) = &mut self.link else { return };
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        let heard = link.hear();
        self.obey_all(heard);
    }

    fn obey_all(&mut self, heard: std::io::Result<Vec<FromCore>>) {
        match heard {
            Ok(heard) => heard.into_iter().for_each(|said| self.obey(said)),
            Err(_) => self.lose_core(),
        }
    }

    fn obey(&mut self, said: FromCore) {
        match said {
            FromCore::Hello(_) => self.lose_core(),
            FromCore::Input { id, bytes } => match self.inputs.push(id, bytes) {
                Ok(()) => self.type_in(true),
                Err(typed) => {
                    if let Some(link) = &mut self.link {
                        link.answer(&FromHolder::InputDone { id, typed }.encode());
                    }
                }
            },
            FromCore::Resize(size) => {
                self.size = size;
                // A terminal that is closed has no size.
                let _ = self.program.resize(size);
            }
            FromCore::Checkpoint(painting) => {
                let newest = self.painting.as_ref().map_or(0, |painting| painting.offset);
                if (newest..=self.kept.end()).contains(&painting.offset) {
                    self.painting = Some(painting);
                }
            }
            FromCore::Release => self.released = true,
            FromCore::Withdraw { id } => {
                let typed = self.inputs.withdraw(id);
                if let Some(link) = &mut self.link {
                    link.answer(&FromHolder::InputDone { id, typed }.encode());
                }
            }
        }
    }

    fn lose_core(&mut self) {
        self.link = None;
        self.inputs.forget_unbegun();
        let now = Instant::now();
        if self.home.is_some() {
            self.alone_since = Some(now);
            self.look_home(now);
            return;
        }
        // A thread does not outlive the process that its program belongs to.
        if self.exit.is_none() {
            stop::kill_tree_now(self.program.root, &self.tag);
        }
        self.end_by_itself("its last handle is gone".to_owned(), now);
    }

    // --- those who knock -----------------------------------------------------------------------------------------

    fn let_in(&mut self) {
        let Some(home) = &self.home else { return };
        while self.guests.len() < GUESTS_MAX {
            let stream = match home.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // No descriptor or no memory is left: who knocks would wake us again and again.
                Err(_) => {
                    self.deaf_until = Some(Instant::now() + SHORTAGE_PAUSE);
                    return;
                }
            };
            let is_ours = rustix::net::sockopt::socket_peercred(&stream)
                .is_ok_and(|peer| peer.uid == rustix::process::geteuid());
            if is_ours && stream.set_nonblocking(true).is_ok() {
                self.guests.push(Guest {
                    stream,
                    frames: Frames::new(HELLO_BYTES_MAX),
                    since: Instant::now(),
                });
            }
        }
    }

    fn hear_guest(&mut self, number: usize) {
        let Some(guest) = self.guests.get_mut(number) else {
            return;
        };
        let mut buffer = [0; GUEST_READ_BYTES];
        match guest.stream.read(&mut buffer) {
            Ok(count) if count > 0 => guest.frames.push(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Ok(_) | Err(_) => {
                self.guests.remove(number);
                return;
            }
        }
        let hello = match guest.frames.next() {
            Ok(None) => return,
            Ok(Some((kind, payload))) => FromCore::decode(kind, &payload),
            Err(error) => Err(error),
        };
        let guest = self.guests.remove(number);
        if let Ok(FromCore::Hello(hello)) = hello {
            self.judge(guest, hello);
        }
    }

    fn judge(&mut self, guest: Guest, hello: Hello) {
        use std::io::Write;
        let mut stream = guest.stream;
        if let Err(refused) = self.may_hold(&hello) {
            // It has room for one small frame, or the guest is gone.
            let _ = stream.write_all(&FromHolder::Refused(refused).encode());
            return;
        }
        if let Some(before) = &mut self.link {
            before.answer(&FromHolder::Displaced.encode());
            // What it does not take now it learns from the end of the connection.
            let _ = before.send(&self.kept, before.position, Instant::now());
        }
        self.epoch = hello.epoch;
        self.inputs.forget_unbegun();
        let from = hello.from.clamp(self.kept.start(), self.kept.end());
        self.welcome(Link::new(stream, &hello, guest.frames, from, Instant::now()));
    }

    fn may_hold(&self, hello: &Hello) -> Result<(), Refused> {
        if hello.spoken().is_none() {
            return Err(other_protocol(hello));
        }
        if hello.tag != self.tag || hello.plan.is_some() {
            let why = format!("this is the holder of {}", self.tag);
            return Err(Refused::new(Refusal::Stranger, why));
        }
        let is_taken = self.link.as_ref().is_some_and(|link| hello.epoch <= link.epoch);
        if is_taken || hello.epoch < self.epoch {
            let why = format!(
                "another core holds it (launch {}, this is {})",
                self.epoch, hello.epoch
            );
            return Err(Refused {
                launch: Some(self.epoch),
                ..Refused::new(Refusal::Taken, why)
            });
        }
        Ok(())
    }

    fn welcome(&mut self, mut link: Link) {
        let welcome = Welcome {
            protocol: link.protocol,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            holder: self.own,
            root: self.program.root,
            size: self.size,
            start: link.position,
            end: self.kept.end(),
            exited: self.exit.is_some(),
        };
        link.answer(&FromHolder::Welcome(welcome).encode());
        let painting = self.painting.as_ref().filter(|_| link.position > 0);
        self.to_paint = painting
            .map(|painting| painting.offset)
            .filter(|offset| *offset >= link.position);
        self.told = false;
        self.released = false;
        self.catching_up = Some(self.kept.end());
        self.alone_since = None;
        let heard = link.heard();
        self.link = Some(link);
        self.obey_all(heard);
    }

    // --- the core ------------------------------------------------------------------------------------------------

    fn send(&mut self) {
        let Some(link) = &mut self.link else { return };
        let now = Instant::now();
        loop {
            // The core was stuck, and the output before the painting is gone: it fits nowhere any more.
            self.to_paint = self.to_paint.filter(|offset| *offset >= self.kept.start());
            let upto = self.to_paint.unwrap_or(u64::MAX);
            if link.send(&self.kept, upto, now).is_err() {
                return self.lose_core();
            }
            if let Some(offset) = self.to_paint.filter(|offset| link.has_sent(*offset)) {
                self.to_paint = None;
                if let Some(painting) = self.painting.take_if(|painting| painting.offset == offset) {
                    link.answer(&FromHolder::Painting(painting.clone()).encode());
                    self.painting = Some(painting);
                }
            } else if let (Some(upto), Some((exit, _)), false) = (self.drained, &self.exit, self.told)
                && link.has_sent(upto)
            {
                self.told = true;
                link.answer(&FromHolder::Exited(exit.clone()).encode());
            } else if self.catching_up.take_if(|upto| link.has_sent(*upto)).is_some() {
                link.answer(&FromHolder::CaughtUp.encode());
            } else {
                return;
            }
        }
    }
}

/// Takes what wakes us, which says nothing.
fn drain(from: Option<&mut std::os::unix::net::UnixStream>) {
    let mut buffer = [0; 64];
    if let Some(from) = from {
        while from.read(&mut buffer).is_ok_and(|count| count == buffer.len()) {}
    }
}
