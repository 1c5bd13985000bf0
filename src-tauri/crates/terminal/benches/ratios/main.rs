//! Ourselves beside others, as ratios within one run: the sides take turns, and medians count, so that a busy machine
//! slows both. Nothing fails here; the table says which target is missed. `scripts/bench.sh` runs it.
//!
//! Numbers and targets are those of docs/BENCHMARKS.md. Arguments: words that rows are chosen by (`parse`, `flood`,
//! `tmux`, `lossless`, `memory`, `idle`, `load`, `latency`, `round-trip`, `start`, `output`,
//! `holder`); without any, all.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a bench starts the programs it compares itself with, and ends at the first surprise"
)]

mod corpora;
mod floods;
mod holding;
mod live;
mod node;
mod parse;
mod table;

use std::io::{Read, Write};
use std::time::Duration;

/// What this binary is when a terminal runs it.
fn child(mode: &str, args: &[String]) {
    let number = |at: usize| {
        args.get(at)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let mut out = std::io::stdout();
    match mode {
        "--child-flood" => {
            let block = b"a line of a program that has lost its mind 0123456789\n".repeat(64);
            while out.write_all(&block).is_ok() {}
        }
        "--child-stamps" => {
            std::thread::sleep(Duration::from_millis(300));
            for _ in 0..number(0) {
                let _ = write!(out, "T{:.0}.", live::monotonic_us() * 1e3).and_then(|()| out.flush());
                std::thread::sleep(Duration::from_micros(number(1)));
            }
        }
        "--child-paced" => {
            let block = vec![b'x'; usize::try_from(number(0)).unwrap() - 1];
            let block = [&block[..], b"\n"].concat();
            while out.write_all(&block).and_then(|()| out.flush()).is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        "--child-echo" => {
            let mut settings = rustix::termios::tcgetattr(std::io::stdin()).unwrap();
            settings.make_raw();
            rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, &settings)
                .unwrap();
            let mut byte = [0];
            while std::io::stdin().read(&mut byte).is_ok_and(|count| count > 0) {
                let _ = out.write_all(b"!").and_then(|()| out.flush());
            }
        }
        "--memory" => live::measure_memory(&args[0], &corpora::ascii()[..2 << 20]),
        _ => {}
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let Some(mode) = args.first().filter(|mode| mode.starts_with("--")) {
        return child(mode, &args[1..]);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(&args));
}

async fn run(wanted: &[String]) {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    let folder = std::env::temp_dir().join(format!("semo-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let corpora = corpora::all();
    for (name, bytes) in &corpora {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    let found = node::Node::find(&corpora, &folder);
    let node = found.as_ref();
    let ascii = &corpora[0].1;
    let mut table = table::Table::new();
    if is_wanted("parse") {
        parse::run(&mut table, &corpora, node);
    }
    if is_wanted("flood") {
        floods::run(&mut table, &corpora, &folder, node).await;
    }
    if is_wanted("tmux") {
        floods::beside_tmux(&mut table, &folder).await;
    }
    if is_wanted("lossless") {
        floods::lossless(&mut table, &folder, ascii).await;
    }
    if is_wanted("memory") {
        live::memory(&mut table, node);
    }
    if is_wanted("idle") {
        live::idle(&mut table).await;
    }
    if is_wanted("load") {
        live::load(&mut table, node).await;
    }
    if is_wanted("latency") {
        live::latency(&mut table, node).await;
    }
    if is_wanted("round-trip") {
        live::round_trip(&mut table, node).await;
    }
    if is_wanted("output") {
        parse::output(&mut table, ascii, node);
    }
    if is_wanted("start") {
        live::start(&mut table, node).await;
    }
    if is_wanted("holder") {
        holding::run(&mut table, &folder).await;
    }
    table.end();
    std::fs::remove_dir_all(&folder).unwrap();
}
