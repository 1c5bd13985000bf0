//! The processes of this machine that belong to a folder of a story: by what their command lines name, or by what
//! stands in their environments.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

/// A process that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// Its command line, with blanks.
    pub line: String,
}

/// The program with this name that was built with the tests.
pub fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("our own path");
    let folder = own.parent().expect("a folder");
    // Tests lie one folder deeper than programs.
    let folder = if folder.ends_with("deps") {
        folder.parent()
    } else {
        Some(folder)
    };
    let program = folder.expect("target/<profile>").join(name);
    assert!(
        program.is_file(),
        "{} is not built: run `make test`, or `cargo build -p cli -p terminal -p tests --bins` first",
        program.display()
    );
    program
}

/// Every living process whose command line names `folder`.
pub fn naming(folder: &Path) -> Vec<Process> {
    let name = folder.display().to_string();
    living(|process, _| process.line.contains(&name))
}

/// Every living process that belongs to `folder`: it names it, or has it in its environment, as all have that a
/// program of that folder has started.
pub fn of_folder(folder: &Path) -> Vec<Process> {
    let name = folder.display().to_string();
    living(|process, environment| process.line.contains(&name) || environment.contains(&name))
}

fn living(wanted: impl Fn(&Process, &str) -> bool) -> Vec<Process> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end while it is looked at; one that has ended has neither line nor environment.
        let text = |file: &str| {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let process = Process {
            pid,
            line: text("cmdline").trim_end().to_owned(),
        };
        if pid != own && wanted(&process, &text("environ")) {
            found.push(process);
        }
    }
    found
}

/// `kill -9`; one that has ended already is none of our business.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// A process that stands still until [`goes_on`], and reads nothing.
pub fn stands_still(pid: u32) {
    signal(pid, Signal::STOP);
}

/// It goes on.
pub fn goes_on(pid: u32) {
    signal(pid, Signal::CONT);
}

/// Cuts the connection between a holder and its core, as if something odd had happened to it; false when there is none at
/// the moment.
pub fn cut(holder: u32, core: u32) -> bool {
    use rustix::net::{Shutdown, shutdown, sockopt::socket_peercred};
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let pid = |pid: u32| i32::try_from(pid).ok().and_then(Pid::from_raw);
    let (Some(holder_pid), Some(core)) = (pid(holder), pid(core)) else {
        return false;
    };
    let Ok(process) = pidfd_open(holder_pid, PidfdFlags::empty()) else {
        return false;
    };
    let descriptors = std::fs::read_dir(format!("/proc/{holder}/fd"))
        .into_iter()
        .flatten();
    let found = descriptors.flatten().find_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let socket = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()?;
        let peer = socket_peercred(&socket).ok()?;
        (peer.pid == core).then_some(socket)
    });
    found.is_some_and(|socket| shutdown(&socket, Shutdown::Both).is_ok())
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}
