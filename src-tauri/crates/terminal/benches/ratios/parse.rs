//! From bytes to the screen: processor time of the whole path (ring, screen, history) beside a bare parser, the engine
//! with a scrollback of its own, another engine, and xterm.js.

use std::time::Instant;

use alacritty_terminal::event::VoidListener;
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::term::{Config, Term};
use alacritty_terminal::vte;
use terminal::{Painter, Size};

use crate::corpora::Corpus;
use crate::node::Node;
use crate::table::{ROUNDS, Table, Target, median, thread_cpu};

const SIZE: Size = Size { cols: 200, rows: 50 };

struct Nothing;
impl vte::Perform for Nothing {}

struct Sides;
impl Dimensions for Sides {
    fn total_lines(&self) -> usize {
        50
    }
    fn screen_lines(&self) -> usize {
        50
    }
    fn columns(&self) -> usize {
        200
    }
}

/// Bytes per second of processor time.
fn speed(bytes: &[u8], chunk: usize, mut feed: impl FnMut(&[u8])) -> f64 {
    let before = thread_cpu();
    bytes.chunks(chunk).for_each(&mut feed);
    bytes.len() as f64 / (thread_cpu() - before).as_secs_f64()
}

fn ours(bytes: &[u8], chunk: usize) -> f64 {
    let mut painter = Painter::new(SIZE);
    speed(bytes, chunk, |chunk| painter.feed_live(chunk, Instant::now()))
}

/// As a calm agent prints: every row is written into the history as it goes.
fn ours_calm(bytes: &[u8], chunk: usize) -> f64 {
    let mut painter = Painter::new(SIZE);
    speed(bytes, chunk, |chunk| painter.feed(chunk))
}

fn bare(bytes: &[u8], chunk: usize) -> f64 {
    let (mut parser, mut nothing) = (vte::Parser::new(), Nothing);
    speed(bytes, chunk, |chunk| parser.advance(&mut nothing, chunk))
}

fn with_scrollback(bytes: &[u8], chunk: usize) -> f64 {
    let side = |cells| std::num::NonZeroU16::new(cells).unwrap();
    let mut parser = vt100::Parser::new(side(SIZE.rows), side(SIZE.cols), 10_000);
    speed(bytes, chunk, |chunk| parser.process(chunk))
}

fn alacritty(bytes: &[u8], chunk: usize) -> f64 {
    let mut term = Term::new(Config::default(), &Sides, VoidListener);
    let mut processor = vte::ansi::Processor::<vte::ansi::StdSyncHandler>::new();
    speed(bytes, chunk, |chunk| processor.advance(&mut term, chunk))
}

pub fn run(table: &mut Table, corpora: &[Corpus], node: Option<&Node>) {
    for (name, bytes) in corpora {
        for chunk in [4096, 64] {
            let mut rounds: [Vec<f64>; 5] = Default::default();
            for _ in 0..ROUNDS {
                let sides = [ours, bare, with_scrollback, alacritty, ours_calm];
                let speeds: Vec<f64> = sides.iter().map(|side| side(bytes, chunk)).collect();
                for (rounds, speed) in rounds.iter_mut().zip([
                    speeds[0] / speeds[1],
                    speeds[0] / speeds[2],
                    speeds[0] / speeds[3],
                    speeds[0] / 1e6,
                    speeds[4] / speeds[0],
                ]) {
                    rounds.push(speed);
                }
            }
            let [to_bare, to_scrollback, to_other, megabytes, calm] = rounds.map(median);
            let what = format!("parse {name}, {chunk} B: ours / vte without an effect");
            match *name {
                "cc" => table.row("1", &what, to_bare, Target::AtLeast(0.25)),
                _ => table.note("1", &what, &format!("{to_bare:.2}")),
            }
            table.note(
                "1",
                &format!("parse {name}, {chunk} B: ours"),
                &format!("{megabytes:.0} MB/cpu-s; × {to_scrollback:.2} of vt100 with its scrollback; × {to_other:.2} of alacritty_terminal with its own; calm output × {calm:.2} of that"),
            );
        }
        let Some(node) = node else {
            table.skipped(
                "2",
                &format!("parse {name} / xterm.js"),
                "no node, or no @xterm/headless",
            );
            continue;
        };
        let ratio = (0..ROUNDS).map(|_| {
            let ours = ours(bytes, 4096);
            let theirs = node.ask(&["parse", name, "4096"]);
            ours / theirs["bytes_per_cpu_s"].as_f64().unwrap()
        });
        let target = if *name == "cc" { 2.5 } else { 2.0 };
        let what = format!("parse {name}, 4 KiB: ours / @xterm/headless, bytes per cpu-s");
        table.row("2", &what, median(ratio.collect()), Target::AtLeast(target));
    }
}

/// How long it takes to hand out the newest thousand rows, and the screen.
pub fn output(table: &mut Table, ascii: &[u8], node: Option<&Node>) {
    let mut painter = Painter::new(SIZE);
    painter.feed(&ascii[..2 * 1024 * 1024]);
    let timed = |call: &mut dyn FnMut()| {
        let times = (0..200).map(|_| {
            let at = Instant::now();
            call();
            at.elapsed().as_secs_f64() * 1e6
        });
        median(times.collect())
    };
    let screen = timed(&mut || drop(painter.screen()));
    let last = timed(&mut || drop(painter.last_rows(1000)));
    let attached = timed(&mut || drop(painter.rows()));
    table.note("16", "screen as text", &format!("{screen:.0} µs"));
    table.note("16", "last 1000 rows as text", &format!("{last:.0} µs"));
    table.note(
        "16",
        "all rows with their attributes",
        &format!("{attached:.0} µs"),
    );
    match node {
        Some(node) => {
            let theirs = node.ask(&["output", "ascii"])["last_us"].as_f64().unwrap();
            table.row(
                "16",
                "last 1000 rows: ours / @xterm/headless",
                last / theirs,
                Target::AtMost(0.02),
            );
        }
        None => table.skipped(
            "16",
            "last 1000 rows / @xterm/headless",
            "no node, or no @xterm/headless",
        ),
    }
    match crate::floods::capture_pane_us() {
        Some(theirs) => table.row(
            "16",
            "last 1000 rows: ours / tmux capture-pane",
            last / theirs,
            Target::AtMost(0.01),
        ),
        None => table.skipped("16", "last 1000 rows / tmux", "no tmux"),
    }
}
