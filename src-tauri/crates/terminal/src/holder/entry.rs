//! How a holder begins: it hears what to start, makes its place known, and starts it.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use portable_pty::unix::close_random_fds;
use rustix::process::{
    PidfdFlags, Resource, Rlimit, getpid, getrlimit, pidfd_open, set_child_subreaper, setrlimit, setsid,
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::low_level::pipe;

use crate::folder::{Folder, Record, Who, boot_id};
use crate::holder::PLAN_WAIT_MAX;
use crate::holder::home::Home;
use crate::holder::link::Link;
use crate::holder::program::Program;
use crate::holder::serve::Holder;
use crate::process;
use crate::wire::{
    FRAME_BYTES_MAX, Frames, FromCore, FromHolder, Hello, PROTOCOL, PROTOCOL_OLDEST, Plan, Refusal, Refused,
};

/// What `semo-holder` does: holds the program that the core at its standard input names, until it is released. `folder`
/// has been made for it.
pub fn hold(folder: &Path) -> Result<(), String> {
    let faulty = |what: &str, error: &dyn std::fmt::Display| {
        format!("the holder of {}: {what}: {error}", folder.display())
    };
    // What a core was started with (the pipe of a shell, a lock) must not stay open for as long as an agent works.
    close_random_fds();
    // Away from the core's terminal and its group, and parent to whatever its own children leave behind.
    setsid().map_err(|error| faulty("could not begin a session of its own", &error))?;
    set_child_subreaper(Some(getpid())).map_err(|error| faulty("could not become a subreaper", &error))?;
    let first = take_standard_input().map_err(|error| faulty("could not take its connection", &error))?;
    let home = settle(folder);
    serve(first, home.map(Some)).map_err(|error| faulty("could not go on", &error))
}

/// Name, version and protocol of the holder's program, as `semo-holder --version` prints them.
pub fn holder_version() -> String {
    format!("semo-holder {} protocol {PROTOCOL}", env!("CARGO_PKG_VERSION"))
}

/// The connection that came as standard input, in whose place is nothing from now on: the program inherits none of it.
fn take_standard_input() -> io::Result<UnixStream> {
    let connection: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    Ok(UnixStream::from(connection))
}

fn settle(folder: &Path) -> io::Result<Home> {
    let (children, child_ended) = UnixStream::pair()?;
    let (ends, end) = UnixStream::pair()?;
    pipe::register(SIGCHLD, child_ended)?;
    pipe::register(SIGTERM, end.try_clone()?)?;
    pipe::register(SIGHUP, end)?;
    // Where files may grow no more, writing fails, and does not end us with our program. What we start does not
    // inherit this, as it would inherit that a signal is ignored.
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    children.set_nonblocking(true)?;
    ends.set_nonblocking(true)?;
    let folder = Folder::open(folder)?;
    // A core that finds its starter dead may be about to say that nothing runs here: then nothing may be started.
    if !folder.claim() {
        return Err(io::Error::other("another holder has it, or it is being removed"));
    }
    let tag = folder
        .path()
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let own = process::identify(std::process::id());
    let record = Record::new(&tag, &boot_id()?, Who::Holder(own));
    let listener = folder.listen()?;
    listener.set_nonblocking(true)?;
    // From here on it can be found.
    folder.write(&record)?;
    Ok(Home {
        folder,
        record,
        is_unwritten: false,
        listener,
        children,
        ends,
    })
}

/// The whole life of a holder. `home` is there for a process, and an error when that could not be put in order.
pub(crate) fn serve(mut first: UnixStream, home: io::Result<Option<Home>>) -> io::Result<()> {
    let (hello, plan, frames) = hear_plan(&mut first)?;
    let begun = home
        .map_err(|error| Refused::new(Refusal::Own, format!("its folder: {error}")))
        .and_then(|home| begin(&hello, &plan, home));
    let (program, mut home) = match begun {
        Ok(begun) => begun,
        Err(refused) => {
            first.write_all(&FromHolder::Refused(refused).encode())?;
            return Ok(());
        }
    };
    if let Some(home) = &mut home {
        home.record.root = Some(program.root);
        // What it was told and what is typed from now on belongs into no core dump; the program keeps its own limit.
        let core = Rlimit {
            current: Some(0),
            ..getrlimit(Resource::Core)
        };
        let _ = setrlimit(Resource::Core, core);
        // On a full disk the program is found by its parent, which is us, and by its tag.
        let _ = home.write_record();
    }
    let child = match &home {
        None => match program.pid() {
            Some(pid) => Some(pidfd_open(pid, PidfdFlags::empty())?),
            None => None,
        },
        Some(_) => None,
    };
    first.set_nonblocking(true)?;
    first.set_read_timeout(None)?;
    let now = Instant::now();
    let link = Link::new(first, &hello, frames, 0, now);
    Holder::new(program, &plan, hello, home, child, now).run(link)
}

fn begin(hello: &Hello, plan: &Plan, home: Option<Home>) -> Result<(Program, Option<Home>), Refused> {
    if hello.spoken().is_none() {
        return Err(other_protocol(hello));
    }
    if home.as_ref().is_some_and(|home| home.record.tag != hello.tag) {
        let why = format!("its folder is not that of {}", hello.tag);
        return Err(Refused::new(Refusal::Own, why));
    }
    Program::start(plan, &hello.tag).map(|program| (program, home))
}

pub(crate) fn other_protocol(hello: &Hello) -> Refused {
    let version = env!("CARGO_PKG_VERSION");
    let why = format!(
        "the holder is of version {version} and speaks protocol {PROTOCOL_OLDEST} to {PROTOCOL}, this program {} to {}; start version \
         {version} again to go on with this session, or end process {}",
        hello.lowest,
        hello.highest,
        std::process::id()
    );
    Refused::new(Refusal::Protocol, why)
}

/// The first frame of the core that started us.
fn hear_plan(first: &mut UnixStream) -> io::Result<(Hello, Plan, Frames)> {
    first.set_read_timeout(Some(PLAN_WAIT_MAX))?;
    let mut frames = Frames::new(FRAME_BYTES_MAX);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        if let Some((kind, payload)) = frames.next().map_err(io::Error::other)? {
            let said = FromCore::decode(kind, &payload).map_err(io::Error::other)?;
            let FromCore::Hello(mut hello) = said else {
                return Err(io::Error::other(
                    "the core began with something else than a greeting",
                ));
            };
            let plan = hello.plan.take();
            let plan = plan.ok_or_else(|| io::Error::other("the core did not say what to start"))?;
            return Ok((hello, plan, frames));
        }
        match first.read(&mut buffer)? {
            0 => {
                return Err(io::Error::other(
                    "the core went away before it said what to start",
                ));
            }
            count => frames.push(&buffer[..count]),
        }
    }
}
