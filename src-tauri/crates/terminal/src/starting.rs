//! Starting a holder, and a program in it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use crate::error::TerminalError;
use crate::failpoints;
use crate::folder::{Folder, Record, Who, boot_id};
use crate::greeting::{Greeted, greet};
use crate::holder;
use crate::holders::Processes;
use crate::line::{HeldBy, Way, Welcomed};
use crate::process::{self, HOLDER_TAG_VARIABLE};
use crate::pty::{SpawnSpec, Terminal};
use crate::stop;
use crate::wire::{
    FRAME_BYTES_MAX, FromCore, Hello, PROTOCOL, PROTOCOL_OLDEST, Plan, Refusal, Refused, Welcome,
};

/// How long a holder and its program may take to start.
const START_WAIT_MAX: Duration = Duration::from_secs(20);
/// How long what a failed start has left behind may take to end by itself.
const FAILED_GRACE: Duration = Duration::from_secs(1);
/// Settings of the C library for the holder: one arena, and large blocks go back to the system at once.
const HOLDER_SETTINGS: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "32768"),
    ("MALLOC_TRIM_THRESHOLD_", "32768"),
];

/// The loop of a holder on a thread of this process.
pub(crate) fn on_thread(spec: &SpawnSpec, tag: &str) -> Result<Terminal, TerminalError> {
    let failed = |reason: String| TerminalError::Holder {
        tag: tag.to_owned(),
        program: "a thread of this process".into(),
        reason,
    };
    let (mut ours, theirs) = UnixStream::pair().map_err(|error| failed(error.to_string()))?;
    let thread = std::thread::Builder::new().name("holder".to_owned());
    let holding = thread.spawn(move || {
        if let Err(error) = holder::serve(theirs, Ok(None)) {
            tracing::warn!(%error, "a holder on a thread has ended");
        }
    });
    // It ends with the connection.
    drop(holding.map_err(|error| failed(error.to_string()))?);
    let hello = hello(spec, tag, 1, Duration::MAX);
    let (welcome, rest) = answered(greet(&mut ours, hello, START_WAIT_MAX), spec, &failed)?;
    let welcomed = Welcomed {
        by: HeldBy {
            root: welcome.root,
            tag: tag.to_owned(),
            holder: None,
        },
        way: None,
        protocol: welcome.protocol,
        stream: ours,
        rest,
        child: None,
        start: welcome.start,
    };
    Terminal::of(welcomed, welcome.size)
}

/// A holder in a process of its own.
pub(crate) fn in_process(with: &Processes, spec: &SpawnSpec, tag: &str) -> Result<Terminal, TerminalError> {
    let failed = |reason: String| TerminalError::Holder {
        tag: tag.to_owned(),
        program: with.program.clone(),
        reason,
    };
    let folder = make_folder(with, tag).map_err(failed)?;
    let result = start_in(with, spec, tag, &folder);
    let (mut welcomed, welcome) = match result {
        Ok(started) => started,
        Err(error) => {
            clean_up(tag, &folder);
            return Err(error);
        }
    };
    fail::fail_point!("holder-welcomed");
    let holder = welcome.holder;
    let epoch = with.epoch;
    welcomed.way = Some(Way { folder, epoch });
    Terminal::of(welcomed, welcome.size).inspect_err(|_| {
        // Nobody could follow it: its program must not work on unseen.
        stop::signal(holder, Signal::KILL);
        let pid = i32::try_from(holder.pid).ok().and_then(Pid::from_raw);
        let _ = waitpid(pid, WaitOptions::empty());
        if let Ok(Some(folder)) = Folder::find(&with.dir, tag) {
            clean_up(tag, &folder);
        }
    })
}

/// The folder, with a record that says who is about to use it.
fn make_folder(with: &Processes, tag: &str) -> Result<Folder, String> {
    let place = with.dir.display();
    let folder = Folder::create(&with.dir, tag).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{place} has a folder for it already: its holder is to be looked for first")
        }
        _ => format!("no folder could be made for it in {place}: {error}; is the disk full?"),
    })?;
    let own = process::identify(std::process::id());
    let written = boot_id().and_then(|boot| folder.write(&Record::new(tag, &boot, Who::Starter(own))));
    written.map(|()| folder).map_err(|error| {
        // Nothing was started: what was made may go.
        let _ = Folder::find(&with.dir, tag).map(|folder| folder.map(|folder| folder.remove()));
        format!("its record could not be written in {place}: {error}; is the disk full?")
    })
}

fn start_in(
    with: &Processes,
    spec: &SpawnSpec,
    tag: &str,
    folder: &Folder,
) -> Result<(Welcomed, Welcome), TerminalError> {
    let failed = |reason: String| TerminalError::Holder {
        tag: tag.to_owned(),
        program: with.program.clone(),
        reason: with_log(reason, folder),
    };
    let hello = hello(spec, tag, with.epoch, with.alone_max);
    if FromCore::Hello(hello.clone()).encode().len() > FRAME_BYTES_MAX {
        return Err(failed(format!(
            "its arguments and environment are more than {FRAME_BYTES_MAX} bytes"
        )));
    }
    let (mut ours, theirs) = UnixStream::pair().map_err(|error| failed(error.to_string()))?;
    let log = folder
        .log()
        .map_err(|error| failed(format!("its log: {error}")))?;
    let mut child = spawn(with, tag, folder, theirs, log).map_err(|error| {
        failed(format!(
            "{error}; it belongs beside `semo`, or name it with the setting holder.program"
        ))
    })?;
    fail::fail_point!("holder-spawned");
    let answer = answered(greet(&mut ours, hello, START_WAIT_MAX), spec, &failed);
    let (welcome, rest) = match answer {
        Ok(answer) => answer,
        Err(error) => {
            // It has ended already, or it never will; its program is ended with it by whoever cleans up.
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
    };
    let welcomed = Welcomed {
        by: HeldBy {
            root: welcome.root,
            tag: tag.to_owned(),
            holder: Some(welcome.holder),
        },
        way: None,
        protocol: welcome.protocol,
        stream: ours,
        rest,
        child: Some(child),
        start: welcome.start,
    };
    Ok((welcomed, welcome))
}

fn with_log(reason: String, folder: &Folder) -> String {
    match folder.logged() {
        log if log.is_empty() => reason,
        log => format!("{reason}; it says: {log}"),
    }
}

/// A start that failed leaves neither a process nor a folder, unless that cannot be proven.
fn clean_up(tag: &str, folder: &Folder) {
    let root = folder.record().ok().flatten().and_then(|record| record.root);
    match stop::stop_tree(root, tag, None, FAILED_GRACE) {
        Ok(proof) if proof.is_proven() => {
            if let Err(error) = folder.remove() {
                tracing::warn!(tag, %error, "the folder of a holder that did not start could not be removed");
            }
        }
        Ok(proof) => {
            tracing::warn!(tag, survivors = ?proof.survivors, "a failed start has left processes behind")
        }
        Err(error) => tracing::warn!(tag, %error, "what a failed start has left behind is not known"),
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "this crate is where programs are started; the environment is read for the tests' failpoints only"
)]
fn spawn(
    with: &Processes,
    tag: &str,
    folder: &Folder,
    connection: UnixStream,
    log: File,
) -> io::Result<Child> {
    let mut command = std::process::Command::new(&with.program);
    command
        .arg(folder.path())
        .current_dir("/")
        .env_clear()
        .envs(HOLDER_SETTINGS)
        .env(HOLDER_TAG_VARIABLE, tag)
        .stdin(Stdio::from(OwnedFd::from(connection)))
        .stdout(Stdio::null())
        .stderr(Stdio::from(log));
    if fail::has_failpoints() {
        for name in [failpoints::VARIABLE, failpoints::TOLD_VARIABLE] {
            command.envs(std::env::var(name).ok().map(|value| (name, value)));
        }
    }
    command.spawn()
}

fn hello(spec: &SpawnSpec, tag: &str, epoch: u64, alone_max: Duration) -> Hello {
    let alone_ms_max = u64::try_from(alone_max.as_millis()).unwrap_or(u64::MAX);
    Hello {
        lowest: PROTOCOL_OLDEST,
        highest: PROTOCOL,
        tag: tag.to_owned(),
        epoch,
        from: 0,
        plan: Some(Plan::of(spec, alone_ms_max)),
    }
}

fn answered(
    answer: io::Result<Greeted>,
    spec: &SpawnSpec,
    failed: &impl Fn(String) -> TerminalError,
) -> Result<(Welcome, Vec<u8>), TerminalError> {
    match answer {
        Ok(Greeted::Welcome(welcome, rest)) => Ok((welcome, rest)),
        Ok(Greeted::Refused(refused)) => Err(said_no(refused, spec, failed)),
        Ok(Greeted::Silence) => Err(failed("it ended before it said a word".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(failed(format!(
            "it did not answer within {} s",
            START_WAIT_MAX.as_secs()
        ))),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn said_no(refused: Refused, spec: &SpawnSpec, failed: &impl Fn(String) -> TerminalError) -> TerminalError {
    match refused.kind {
        Refusal::Open => TerminalError::Open { reason: refused.why },
        Refusal::Spawn => TerminalError::Spawn {
            program: spec.program.clone(),
            cwd: spec.cwd.clone(),
            reason: refused.why,
        },
        Refusal::Own | Refusal::Protocol | Refusal::Taken | Refusal::Stranger => failed(refused.why),
    }
}
