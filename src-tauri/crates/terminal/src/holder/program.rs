//! The program in its PTY, as a holder has it: a file to read and write without waiting, a size, and an exit.

use std::fs::File;
use std::io;

use filedescriptor::FileDescriptor;
use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::emulator::Size;
use crate::process::{self, ProcessId, TREE_TAG_VARIABLE};
use crate::pty::Exit;
use crate::wire::{Plan, Refusal, Refused};

/// A program that was started.
#[derive(Debug)]
pub(crate) struct Program {
    /// Our end of the PTY; reading and writing never wait.
    pub(crate) master: File,
    /// The program's own process.
    pub(crate) root: ProcessId,
}

impl Program {
    /// Starts it in a new PTY, with its tag in its environment.
    pub(crate) fn start(plan: &Plan, tag: &str) -> Result<Program, Refused> {
        let open_failed = |why: String| Refused::new(Refusal::Open, why);
        let spawn_failed = |why: String| Refused::new(Refusal::Spawn, why);
        if !plan.cwd.is_dir() {
            return Err(spawn_failed("the working folder does not exist".to_owned()));
        }
        let pair = native_pty_system()
            .openpty(pty_size(plan.size))
            .map_err(|error| open_failed(format!("{error:#}")))?;
        let descriptor = pair
            .master
            .as_raw_fd()
            .ok_or_else(|| open_failed("it has no descriptor".to_owned()))?;
        let master = FileDescriptor::dup(&descriptor).and_then(|copy| copy.as_file());
        let master = master.map_err(|error| open_failed(error.to_string()))?;
        rustix::io::ioctl_fionbio(&master, true).map_err(|error| open_failed(error.to_string()))?;
        fail::fail_point!("holder-pty");
        let child = pair
            .slave
            .spawn_command(command(plan, tag))
            .map_err(|error| spawn_failed(format!("{error:#}")))?;
        fail::fail_point!("holder-child");
        // Our end of the slave must go, or the output never ends.
        drop(pair.slave);
        let pid = child
            .process_id()
            .ok_or_else(|| spawn_failed("it has no process id".to_owned()))?;
        Ok(Program {
            master,
            root: process::identify(pid),
        })
    }

    pub(crate) fn resize(&self, size: Size) -> io::Result<()> {
        let size = Winsize {
            ws_row: size.rows,
            ws_col: size.cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(tcsetwinsize(&self.master, size)?)
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        i32::try_from(self.root.pid).ok().and_then(Pid::from_raw)
    }

    /// Its exit, once it has ended. Collects it.
    pub(crate) fn collect(&self) -> Option<Exit> {
        match waitpid(self.pid(), WaitOptions::NOHANG) {
            Ok(None) => None,
            Ok(Some((_, status))) => ended(status),
            // It is not our child, or somebody has collected it: nothing more will be known.
            Err(_) => Some(Exit {
                code: None,
                signal: None,
            }),
        }
    }
}

/// `None` for a process that was only stopped or continued.
pub(crate) fn ended(status: WaitStatus) -> Option<Exit> {
    let signal = status.terminating_signal().map(signal_name);
    let code = status.exit_status();
    (signal.is_some() || code.is_some()).then_some(Exit { code, signal })
}

/// The usual words.
fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "Hangup",
        2 => "Interrupt",
        3 => "Quit",
        4 => "Illegal instruction",
        6 => "Aborted",
        7 => "Bus error",
        8 => "Floating point exception",
        9 => "Killed",
        11 => "Segmentation fault",
        13 => "Broken pipe",
        14 => "Alarm clock",
        15 => "Terminated",
        _ => return format!("Signal {number}"),
    };
    name.to_owned()
}

fn command(plan: &Plan, tag: &str) -> CommandBuilder {
    let mut command = CommandBuilder::new(&plan.program);
    command.args(&plan.args);
    command.cwd(&plan.cwd);
    command.env_clear();
    for (name, value) in &plan.env {
        command.env(name, value);
    }
    command.env(TREE_TAG_VARIABLE, tag);
    command
}

fn pty_size(size: Size) -> PtySize {
    PtySize {
        rows: size.rows,
        cols: size.cols,
        pixel_width: 0,
        pixel_height: 0,
    }
}
