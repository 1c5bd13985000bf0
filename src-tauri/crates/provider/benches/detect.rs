//! What reading a screen costs: one 200x50 screen of each kind, what the looks of a session add to painting a flood, and
//! how that compares with searching the whole screen after every chunk.

#![allow(missing_docs, reason = "criterion's macros")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench without its recording measures nothing"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use base64::Engine;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use provider::detect::Detectors;
use regex::RegexSet;
use terminal::{Painter, Screen, Size, paint};

const SIZE: Size = Size { cols: 200, rows: 50 };
/// How long a session waits after a change before it looks.
const LOOK_AFTER: Duration = Duration::from_millis(50);
/// A long answer: 92 kB in ten seconds.
const RECORDING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../tests/recordings/04-long-scroll-120x40.jsonl"
);

/// A screen full of text above these last rows.
fn full_screen(title: &str, last: &[&str]) -> Screen {
    let line = "  The quick brown fox jumps over the lazy dog — 완료되었습니다 and keeps running until it is evening. ".repeat(2);
    let above = vec![line.chars().take(180).collect::<String>(); usize::from(SIZE.rows) - last.len()];
    let ansi = format!(
        "\x1b[?25l\x1b]0;{title}\x07{}\r\n{}",
        above.join("\r\n"),
        last.join("\r\n")
    );
    paint(SIZE, ansi.as_bytes())
}

fn read_screen(c: &mut Criterion) {
    let rule = "─".repeat(190);
    let rule = rule.as_str();
    let screens = [
        (
            "ready",
            full_screen("✳ FE", &[rule, "❯ ", rule, "  ? for shortcuts · ← for agents"]),
        ),
        (
            "busy",
            full_screen("⠂ FE", &[rule, "❯ ", rule, "  esc to interrupt · ← for agents"]),
        ),
        (
            "dialog",
            full_screen(
                "✳ FE",
                &[
                    rule,
                    " Bash command",
                    " Do you want to proceed?",
                    " ❯ 1. Yes",
                    " Esc to cancel",
                ],
            ),
        ),
        // The worst: every rule is asked, over all rows.
        ("nothing known", full_screen("", &["x"])),
    ];
    let mut group = c.benchmark_group("read a 200x50 screen");
    for program in ["claude", "codex", "gemini", "opencode"] {
        let detector = Detectors::bundled().for_program(program, None);
        for (kind, screen) in &screens {
            group.bench_function(BenchmarkId::new(program, kind), |b| {
                b.iter(|| black_box(detector.read(screen)))
            });
        }
    }
    group.finish();
}

/// The bytes of a recording.
fn recording() -> Vec<u8> {
    let text = std::fs::read_to_string(RECORDING).expect("the recording");
    let events = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let outputs = events.filter(|event| event["k"] == "o");
    let bytes = outputs.map(|event| {
        let part = event["b"].as_str().unwrap();
        base64::engine::general_purpose::STANDARD.decode(part).unwrap()
    });
    bytes.flatten().collect()
}

/// What the looks of a session add to painting a flood, and what looking after every chunk would.
fn scan(c: &mut Criterion) {
    let bytes = recording();
    let detector = Detectors::bundled().for_program("claude", None);
    let naive = RegexSet::new([
        r"(?-u:\b)esc to interrupt",
        r"\? for shortcuts",
        r"Do you want to (?:proceed|make this edit|create|allow)",
        r"Enter to (?:confirm|select)",
        r"\[SEMO:DONE\]",
        r"API Error: \d+",
        r"Not logged in",
        r"Stop and wait for limit",
    ])
    .unwrap();
    for chunk in [4096, 64] {
        let mut group = c.benchmark_group(format!("scan, chunks of {chunk}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("off", |b| b.iter(|| play(&bytes, chunk, |_| 0)));
        group.bench_function("on", |b| {
            let mut looked = Instant::now();
            b.iter(|| {
                play(&bytes, chunk, |painter| {
                    if looked.elapsed() < LOOK_AFTER {
                        return 0;
                    }
                    looked = Instant::now();
                    detector.read(&painter.screen()).matched.len()
                })
            });
        });
        group.bench_function("naive", |b| {
            b.iter(|| {
                play(&bytes, chunk, |painter| {
                    naive.matches(&painter.screen().rows.join("\n")).len()
                })
            });
        });
        group.finish();
    }
}

/// Paints in chunks, with a look after each.
fn play(bytes: &[u8], chunk: usize, mut look: impl FnMut(&Painter) -> usize) -> usize {
    let mut painter = Painter::new(Size { cols: 120, rows: 40 });
    let mut found = 0;
    for part in bytes.chunks(chunk) {
        painter.feed(part);
        found += look(&painter);
    }
    found
}

criterion_group!(benches, read_screen, scan);
criterion_main!(benches);
