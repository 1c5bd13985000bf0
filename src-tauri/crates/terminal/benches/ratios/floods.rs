//! Floods through a real terminal: how much of the kernel's own speed is left, beside node-pty with xterm.js and
//! beside tmux; and whether every byte arrives.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use terminal::{Holders, Seen, Size, SpawnSpec, Terminal};

use crate::corpora::Corpus;
use crate::node::Node;
use crate::table::{ROUNDS, Table, Target, median, own_cpu, process_cpu};

pub const SIZE: Size = Size { cols: 200, rows: 50 };
/// Runs of the test for lost bytes.
const LOSSLESS_RUNS: u32 = 200;
/// The files of a flood are printed so often: long enough to measure by a clock of 10 ms.
pub const TIMES: usize = 3;

pub fn plan(program: &str, args: &[&str]) -> SpawnSpec {
    SpawnSpec {
        program: PathBuf::from(program),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        cwd: PathBuf::from("/tmp"),
        env: Vec::new(),
        size: SIZE,
    }
}

pub fn tag() -> String {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("bench-{}-{number}", std::process::id())
}

/// With the holder on a thread of this process, so that its processor time counts as ours.
pub async fn spawn(program: &str, args: &[&str]) -> Terminal {
    let holders = Holders::in_this_process();
    holders.start(&plan(program, args), &tag()).await.unwrap()
}

/// Wall time and our processor time for printing a file, through the whole of our path.
async fn ours(file: &Path) -> (f64, f64) {
    let (started, before) = (Instant::now(), own_cpu());
    let name = file.to_str().unwrap();
    let terminal = spawn("/bin/cat", &[name; TIMES]).await;
    terminal.exited().wait_for(Option::is_some).await.unwrap();
    let spent = (
        started.elapsed().as_secs_f64(),
        (own_cpu() - before).as_secs_f64(),
    );
    terminal.stop(Duration::ZERO).await.unwrap();
    // Exits are told after a short silence: not a part of the flood.
    spent
}

/// The same with a reader that throws everything away.
fn reader_alone(file: &Path) -> f64 {
    let started = Instant::now();
    let size = PtySize {
        rows: SIZE.rows,
        cols: SIZE.cols,
        pixel_width: 0,
        pixel_height: 0,
    };
    let pair = native_pty_system().openpty(size).unwrap();
    let mut command = CommandBuilder::new("/bin/cat");
    command.args([file; TIMES]);
    let mut child = pair.slave.spawn_command(command).unwrap();
    drop(pair.slave);
    let mut reader = pair.master.try_clone_reader().unwrap();
    let mut buffer = [0; 8192];
    while reader.read(&mut buffer).is_ok_and(|count| count > 0) {}
    child.wait().unwrap();
    started.elapsed().as_secs_f64()
}

pub async fn run(table: &mut Table, corpora: &[Corpus], folder: &Path, node: Option<&Node>) {
    for (name, bytes) in corpora {
        let file = folder.join(name);
        let megabytes = (bytes.len() * TIMES) as f64 / 1e6;
        let (mut share, mut speed, mut wall, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (our_wall, our_cpu) = ours(&file).await;
            share.push(reader_alone(&file) / our_wall);
            speed.push(megabytes / our_cpu);
            if let Some(node) = node {
                let theirs = node.ask(&["flood", name]);
                wall.push(theirs["wall_s"].as_f64().unwrap() * TIMES as f64 / our_wall);
                cpu.push(theirs["cpu_s"].as_f64().unwrap() * TIMES as f64 / our_cpu);
            }
        }
        table.note(
            "3",
            &format!("flood {name}: ours"),
            &format!("{:.0} MB/cpu-s", median(speed)),
        );
        let what = format!("flood {name}: ours / a reader alone, speed");
        match *name {
            "cc" => table.row("3", &what, median(share), Target::AtLeast(0.5)),
            _ => table.note("3", &what, &format!("{:.2}", median(share))),
        }
        if node.is_none() {
            table.skipped("4", &format!("flood {name} / node"), "no node, or no node-pty");
            continue;
        }
        let (wall, cpu) = (median(wall), median(cpu));
        let (wall_of, cpu_of) = (
            format!("flood {name}: ours / node-pty + @xterm/headless, speed"),
            format!("flood {name}: ours / node-pty + @xterm/headless, bytes per cpu-s"),
        );
        if *name == "cc" {
            table.row("4", &wall_of, wall, Target::AtLeast(2.5));
            table.row("4", &cpu_of, cpu, Target::AtLeast(2.5));
        } else {
            table.note("4", &wall_of, &format!("{wall:.2}"));
            table.note("4", &cpu_of, &format!("{cpu:.2}"));
        }
    }
}

struct Tmux;

impl Tmux {
    fn call(args: &[&str]) -> Option<String> {
        let socket = format!("semo-bench-{}", std::process::id());
        let output = Command::new("tmux")
            .args(["-L", &socket])
            .args(args)
            .stderr(Stdio::null())
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn start(command: &str) -> Option<Tmux> {
        Tmux::call(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "200",
            "-y",
            "50",
            command,
        ])?;
        Tmux::call(&["set-option", "-g", "history-limit", "10000"])?;
        Some(Tmux)
    }

    fn pid() -> u32 {
        Tmux::call(&["display-message", "-p", "#{pid}"])
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    fn wait_for(mark: &str) {
        Tmux::call(&["wait-for", mark]).unwrap();
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = Tmux::call(&["kill-server"]);
    }
}

pub async fn beside_tmux(table: &mut Table, folder: &Path) {
    let Some(_tmux) = Tmux::start("exec sh") else {
        return table.skipped("5", "flood ascii / tmux", "no tmux");
    };
    let file = folder.join("ascii");
    let socket = format!("semo-bench-{}", std::process::id());
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let (_, cpu) = ours(&file).await;
        let name = file.display();
        let command = format!("cat {name} {name} {name}; tmux -L {socket} wait-for -S flood-{round}");
        let before = process_cpu(Tmux::pid());
        Tmux::call(&["send-keys", &command, "Enter"]).unwrap();
        Tmux::wait_for(&format!("flood-{round}"));
        ratios.push((process_cpu(Tmux::pid()) - before).as_secs_f64() / cpu);
    }
    table.row(
        "5",
        "flood ascii: ours / tmux server, bytes per cpu-s",
        median(ratios),
        Target::AtLeast(1.2),
    );
}

/// Microseconds of one `tmux capture-pane` of a thousand rows.
pub fn capture_pane_us() -> Option<f64> {
    let _tmux = Tmux::start("seq 1 5000; exec sleep 600")?;
    let times = (0..30).map(|_| {
        let at = Instant::now();
        Tmux::call(&["capture-pane", "-p", "-S", "-950"]).unwrap();
        at.elapsed().as_secs_f64() * 1e6
    });
    Some(median(times.collect()))
}

/// Microseconds of a key sent and its effect seen through tmux, looked for without a pause.
pub fn tmux_round_trip_us() -> Option<f64> {
    let _tmux = Tmux::start("exec sh")?;
    let times = (0..30).map(|round| {
        let at = Instant::now();
        Tmux::call(&["send-keys", &format!("echo answer$((1000+{round}))"), "Enter"]).unwrap();
        let wanted = format!("answer{}", 1000 + round);
        while !Tmux::call(&["capture-pane", "-p"]).unwrap().contains(&wanted) {}
        at.elapsed().as_secs_f64() * 1e6
    });
    Some(median(times.collect()))
}

pub async fn lossless(table: &mut Table, folder: &Path, ascii: &[u8]) {
    // What the terminal makes of the file: every line end becomes two bytes.
    let plain: Vec<u8> = ascii[..8 << 20]
        .iter()
        .copied()
        .filter(|byte| *byte != b'\r')
        .collect();
    let file = folder.join("lossless");
    std::fs::write(&file, &plain).unwrap();
    let wanted = plain.len() + plain.iter().filter(|byte| **byte == b'\n').count();
    let mut worst: f64 = 1.0;
    for _ in 0..LOSSLESS_RUNS {
        let terminal = spawn("/bin/cat", &[file.to_str().unwrap()]).await;
        let mut subscription = terminal.subscribe(0);
        let mut got = 0;
        loop {
            match subscription.next().await {
                Seen::Chunk { offset, bytes } => got = usize::try_from(offset).unwrap() + bytes.len(),
                Seen::Lagged => {}
                Seen::Ended(_) => break,
            }
        }
        worst = worst.min(got as f64 / wanted as f64);
        terminal.stop(Duration::ZERO).await.unwrap();
    }
    let what = format!("{LOSSLESS_RUNS} × `cat` of 8 MB, then exit: bytes got / bytes written, the worst");
    table.row("6", &what, worst, Target::AtLeast(1.0));
}
