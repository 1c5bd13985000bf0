//! What the tests of holders share: programs in holders, and a look behind their doors.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use terminal::{Held, Holders, Size, SpawnSpec, Terminal};
use tokio::time::{Instant, timeout};

/// Longest that any one step may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);
pub const SIZE: Size = Size { cols: 80, rows: 24 };
pub const GRACE: Duration = Duration::from_millis(300);

/// A data folder of cores.
pub struct House {
    folder: tempfile::TempDir,
    inside: PathBuf,
}

impl House {
    pub fn new() -> House {
        House::within(Path::new("holders"))
    }

    pub fn within(inside: &Path) -> House {
        House {
            folder: tempfile::tempdir().unwrap(),
            inside: inside.to_owned(),
        }
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join(&self.inside)
    }

    /// A file in the house, for programs to wait for.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the core of a launch holds with.
    pub fn launch(&self, epoch: u64) -> Holders {
        self.patient(epoch, LIMIT)
    }

    pub fn patient(&self, epoch: u64, alone_max: Duration) -> Holders {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_semo-holder"));
        Holders::of_processes(program, self.dir(), epoch, alone_max)
    }

    pub async fn shell(&self, tag: &str, script: &str) -> Terminal {
        self.launch(1).start(&plan(script), tag).await.unwrap()
    }

    pub fn record(&self, tag: &str) -> Value {
        serde_json::from_slice(&fs::read(self.dir().join(tag).join("record")).unwrap()).unwrap()
    }

    pub fn write_record(&self, tag: &str, record: &Value) {
        fs::create_dir_all(self.dir().join(tag)).unwrap();
        fs::write(self.dir().join(tag).join("record"), record.to_string()).unwrap();
    }

    pub fn holder(&self, tag: &str) -> u32 {
        self.record(tag)["holder"]["holder"]["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap()
    }

    pub fn has_folder(&self, tag: &str) -> bool {
        self.dir().join(tag).exists()
    }

    /// A stranger at the door of a holder.
    pub fn knock(&self, tag: &str) -> UnixStream {
        let stream = UnixStream::connect(self.dir().join(tag).join("socket")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }
}

pub fn plan(script: &str) -> SpawnSpec {
    SpawnSpec {
        program: PathBuf::from("/bin/sh"),
        args: vec!["-c".into(), script.into()],
        cwd: PathBuf::from("/tmp"),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        size: SIZE,
    }
}

pub fn attached(held: Held) -> Terminal {
    match held {
        Held::Attached(terminal) => terminal,
        Held::Gone { why } => panic!("gone: {why}"),
        Held::Unknown { why } => panic!("unknown: {why}"),
    }
}

pub fn gone(held: Held) -> String {
    match held {
        Held::Gone { why } => why,
        Held::Attached(_) => panic!("it is held"),
        Held::Unknown { why } => panic!("unknown: {why}"),
    }
}

pub fn unknown(held: Held) -> String {
    match held {
        Held::Unknown { why } => why,
        Held::Attached(_) => panic!("it is held"),
        Held::Gone { why } => panic!("gone: {why}"),
    }
}

/// Waits until the screen shows `text`.
pub async fn shows(terminal: &Terminal, text: &str) {
    let mut changed = terminal.changed();
    let whole = async {
        while !terminal.screen().rows.iter().any(|row| row.contains(text)) {
            changed.changed().await.unwrap();
        }
    };
    let shown = timeout(LIMIT, whole).await;
    assert!(
        shown.is_ok(),
        "{text:?} is not on the screen: {:?}",
        terminal.screen().rows
    );
}

pub async fn exit(terminal: &Terminal) -> terminal::Exit {
    let mut exited = terminal.exited();
    let exit = timeout(LIMIT, exited.wait_for(Option::is_some)).await;
    exit.unwrap().unwrap().clone().unwrap()
}

pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

pub fn start_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = stat.rsplit(')').next().unwrap();
    rest.split_whitespace().nth(19).unwrap().parse().unwrap()
}

pub fn boot() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    boot.trim().to_owned()
}

pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Cuts the connection between a holder and this process, as if something odd had happened to it; false when there is
/// none at the moment.
pub fn cut(holder: u32) -> bool {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let pid = Pid::from_raw(i32::try_from(holder).unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let own = rustix::process::getpid();
    let descriptors = fs::read_dir(format!("/proc/{holder}/fd")).unwrap();
    let ours = descriptors.flatten().find_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let socket = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&socket).ok()?;
        (peer.pid == own).then_some(socket)
    });
    ours.is_some_and(|socket| rustix::net::shutdown(&socket, rustix::net::Shutdown::Both).is_ok())
}

/// The number behind `name=` on the screen.
pub fn number(terminal: &Terminal, name: &str) -> u32 {
    let rows = terminal.screen().rows;
    let value = rows.iter().find_map(|row| row.strip_prefix(&format!("{name}=")));
    value.unwrap().trim().parse().unwrap()
}

pub fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// A frame, made by hand.
pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 1).unwrap().to_le_bytes();
    [&length[..], &[kind], payload].concat()
}

/// The greeting of a core of another making.
pub fn hello(tag: &str, epoch: u64, protocol: u32) -> Vec<u8> {
    let hello = serde_json::json!({
        "lowest": protocol, "highest": protocol, "tag": tag, "epoch": epoch, "from": 0, "plan": null,
    });
    frame(1, hello.to_string().as_bytes())
}

/// Kind and payload of the next frame.
pub fn heard(stream: &mut UnixStream) -> (u8, Vec<u8>) {
    let mut head = [0; 5];
    stream.read_exact(&mut head).unwrap();
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let mut payload = vec![0; length as usize - 1];
    stream.read_exact(&mut payload).unwrap();
    (head[4], payload)
}

pub fn say(stream: &mut UnixStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
}
