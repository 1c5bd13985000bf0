//! Memory, load and latency of terminals with programs in them. The programs are this very binary in another mode.

use std::time::{Duration, Instant};

use terminal::{Painter, Seen, Terminal};

use crate::floods::{SIZE, spawn, tmux_round_trip_us};
use crate::node::Node;
use crate::table::{Table, Target, median, own_cpu, percentile, resident_kib};

async fn child(args: &[&str]) -> Terminal {
    spawn(std::env::current_exe().unwrap().to_str().unwrap(), args).await
}

async fn many(count: u32, program: &str, args: &[&str]) -> Vec<Terminal> {
    let mut terminals = Vec::new();
    for _ in 0..count {
        terminals.push(spawn(program, args).await);
    }
    terminals
}

async fn end(terminals: Vec<Terminal>) {
    for terminal in terminals {
        terminal.stop(Duration::ZERO).await.unwrap();
    }
}

/// What a screen of so many rows costs, in a process of its own: `ours`, or the engine with its own scrollback.
pub fn measure_memory(side: &str, bytes: &[u8]) {
    let before = resident_kib();
    let kept: Box<dyn std::any::Any> = if side == "ours" {
        let mut painter = Painter::new(SIZE);
        bytes
            .chunks(4096)
            .for_each(|chunk| painter.feed_live(chunk, Instant::now()));
        Box::new(painter)
    } else {
        let cells = |cells| std::num::NonZeroU16::new(cells).unwrap();
        let mut parser = vt100::Parser::new(cells(SIZE.rows), cells(SIZE.cols), 10_000);
        bytes.chunks(4096).for_each(|chunk| parser.process(chunk));
        Box::new(parser)
    };
    println!("{}", resident_kib() - before);
    drop(kept);
}

pub fn memory(table: &mut Table, node: Option<&Node>) {
    let of = |side: &str| -> f64 {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--memory", side])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
    };
    let (ours, engine) = (of("ours"), of("vt100"));
    table.note(
        "7",
        "screen, history and 256 KiB of output after 10,000 rows",
        &format!("{ours:.0} KiB"),
    );
    table.row(
        "7",
        "memory: ours / vt100 with its scrollback",
        ours / engine,
        Target::AtMost(0.125),
    );
    match node {
        Some(node) => {
            let theirs = node.ask(&["memory", "ascii"])["kib"].as_f64().unwrap();
            table.row(
                "7",
                "memory: ours / @xterm/headless",
                ours / theirs,
                Target::AtMost(0.2),
            );
        }
        None => table.skipped("7", "memory / @xterm/headless", "no node, or no @xterm/headless"),
    }
}

pub async fn idle(table: &mut Table) {
    let mut each = Vec::new();
    let mut used = 0.0;
    for count in [50, 1000] {
        let before = resident_kib();
        let terminals = many(count, "/bin/sleep", &["600"]).await;
        each.push((resident_kib() - before) / f64::from(count));
        let at = own_cpu();
        tokio::time::sleep(Duration::from_secs(3)).await;
        used = (own_cpu() - at).as_secs_f64() / 3.0;
        // One by one they would each read the list of a thousand processes.
        for terminal in &terminals {
            if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(terminal.pid()).unwrap()) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        for terminal in terminals {
            terminal.exited().wait_for(Option::is_some).await.unwrap();
        }
    }
    table.note("8", "idle, one of 1000 sessions", &format!("{:.0} KiB", each[1]));
    table.row(
        "8",
        "idle: memory of one of 1000 / of one of 50",
        each[1] / each[0],
        Target::AtMost(1.1),
    );
    table.row(
        "8",
        "idle: processor of 1000 sessions, cores",
        used,
        Target::AtMost(0.001),
    );
}

pub async fn load(table: &mut Table, node: Option<&Node>) {
    for (bytes, what) in [(30, "3 KB/s"), (1000, "100 KB/s")] {
        let own = std::env::current_exe().unwrap();
        let terminals = many(50, own.to_str().unwrap(), &["--child-paced", &bytes.to_string()]).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let before = own_cpu();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let ours = (own_cpu() - before).as_secs_f64() / 5.0;
        end(terminals).await;
        table.note(
            "9",
            &format!("50 sessions × {what}: ours"),
            &format!("{:.1} % of a core", ours * 100.0),
        );
        let what = format!("50 sessions × {what}: processor, ours / node");
        match node {
            Some(node) => {
                let theirs = node.ask(&["load", "50", &bytes.to_string()])["cores"]
                    .as_f64()
                    .unwrap();
                table.row("9", &what, ours / theirs, Target::AtMost(0.6));
            }
            None => table.skipped("9", &what, "no node, or no node-pty"),
        }
    }
}

/// Microseconds from a program's write to a task that follows its output and finds the screen painted.
async fn stamps(count: u32, every_us: u32) -> Vec<f64> {
    let terminal = child(&["--child-stamps", &count.to_string(), &every_us.to_string()]).await;
    let mut subscription = terminal.subscribe(0);
    let mut text = String::new();
    let mut times = Vec::new();
    loop {
        let seen = subscription.next().await;
        let at = monotonic_us();
        match seen {
            Seen::Chunk { bytes, .. } => text.push_str(&String::from_utf8_lossy(&bytes)),
            Seen::Lagged => {}
            Seen::Ended(_) => break,
        }
        while let Some((stamp, rest)) = text.split_once('.') {
            if let Some(stamp) = stamp
                .rsplit('T')
                .next()
                .and_then(|stamp| stamp.parse::<f64>().ok())
            {
                times.push(at - stamp / 1e3);
            }
            text = rest.to_owned();
        }
    }
    end(vec![terminal]).await;
    times
}

pub async fn latency(table: &mut Table, node: Option<&Node>) {
    for (flooders, what) in [(0, "idle"), (6, "6 sessions flat out")] {
        let own = std::env::current_exe().unwrap();
        let loud = many(flooders, own.to_str().unwrap(), &["--child-flood"]).await;
        let mut times = stamps(400, 3000).await;
        end(loud).await;
        let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
        table.note(
            "13",
            &format!("{what}: write → screen painted and seen by a task"),
            &format!("{p50:.0} µs, p99 {p99:.0} µs"),
        );
        let Some(node) = node else {
            table.skipped("13", &format!("{what} / node"), "no node, or no node-pty");
            continue;
        };
        let theirs = node.ask(&["latency", &flooders.to_string()]);
        let of = |name: &str| theirs[name].as_f64().unwrap();
        if flooders == 0 {
            table.row(
                "13",
                "idle, parsed: ours / xterm's write callback, p50",
                p50 / of("parsed_p50"),
                Target::AtMost(1.0 / 15.0),
            );
            table.row(
                "13",
                "idle, detected: ours / node, p50",
                p50 / of("seen_p50"),
                Target::AtMost(0.9),
            );
        } else {
            table.row(
                "14",
                "6 flat out, detected: ours / node, p99",
                p99 / of("seen_p99"),
                Target::AtMost(1.0),
            );
        }
    }
}

pub async fn round_trip(table: &mut Table, node: Option<&Node>) {
    let terminal = child(&["--child-echo"]).await;
    let mut subscription = terminal.subscribe(0);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut times = Vec::new();
    for _ in 0..500 {
        let at = Instant::now();
        terminal.write("?").await.unwrap();
        while !matches!(subscription.next().await, Seen::Chunk { bytes, .. } if bytes.contains(&b'!')) {}
        times.push(at.elapsed().as_secs_f64() * 1e6);
    }
    end(vec![terminal]).await;
    let ours = median(times);
    table.note("15", "key → program → answer seen", &format!("{ours:.0} µs"));
    match node {
        Some(node) => {
            let theirs = node.ask(&["round-trip"])["p50"].as_f64().unwrap();
            table.row(
                "15",
                "round trip: ours / node-pty",
                ours / theirs,
                Target::AtMost(1.0),
            );
        }
        None => table.skipped("15", "round trip / node-pty", "no node, or no node-pty"),
    }
    match tmux_round_trip_us() {
        Some(theirs) => table.row(
            "15",
            "round trip: ours / tmux send-keys + capture-pane",
            ours / theirs,
            Target::AtMost(0.05),
        ),
        None => table.skipped("15", "round trip / tmux", "no tmux"),
    }
}

pub async fn start(table: &mut Table, node: Option<&Node>) {
    let mut times = Vec::new();
    for _ in 0..30 {
        let at = Instant::now();
        let terminal = spawn("/bin/echo", &["x"]).await;
        let mut changed = terminal.changed();
        changed.wait_for(|end| *end > 0).await.unwrap();
        times.push(at.elapsed().as_secs_f64() * 1e6);
        terminal.exited().wait_for(Option::is_some).await.unwrap();
    }
    let ours = median(times);
    table.note("17", "start to first byte", &format!("{:.1} ms", ours / 1e3));
    match node {
        Some(node) => {
            let theirs = node.ask(&["start"])["p50"].as_f64().unwrap();
            table.row(
                "17",
                "start to first byte: ours / node-pty",
                ours / theirs,
                Target::AtMost(1.1),
            );
        }
        None => table.skipped("17", "start / node-pty", "no node, or no node-pty"),
    }
}

/// The clock that programs and we share.
pub fn monotonic_us() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
}
