//! Speed of the output path, by criterion: from a read's bytes to the painted screen, in the sizes that reads have,
//! and what handing the screen out costs. For comparing two states of this code; `ratios` compares with others.

#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use terminal::{Painter, Size};

const SIZE: Size = Size { cols: 200, rows: 50 };

fn log_lines(count: usize) -> Vec<u8> {
    let line = |n: usize| {
        format!(
            "\x1b[3{}mINFO\x1b[m worker {n}: request took {} ms, all well\r\n",
            n % 8,
            n % 977
        )
    };
    (0..count).flat_map(|n| line(n).into_bytes()).collect()
}

fn paint(c: &mut Criterion) {
    let bytes = log_lines(5_000);
    let mut group = c.benchmark_group("paint");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    for chunk in [64, 4096] {
        group.bench_with_input(BenchmarkId::new("calm", chunk), &chunk, |b, chunk| {
            let mut painter = Painter::new(SIZE);
            b.iter(|| bytes.chunks(*chunk).for_each(|part| painter.feed(part)));
        });
        group.bench_with_input(BenchmarkId::new("flood", chunk), &chunk, |b, chunk| {
            let mut painter = Painter::new(SIZE);
            b.iter(|| {
                bytes
                    .chunks(*chunk)
                    .for_each(|part| painter.feed_live(part, Instant::now()))
            });
        });
    }
    group.finish();
}

fn look(c: &mut Criterion) {
    let mut painter = Painter::new(SIZE);
    painter.feed(&log_lines(5_000));
    let mut group = c.benchmark_group("look");
    group.bench_function("screen", |b| b.iter(|| black_box(painter.screen())));
    group.bench_function("last 1000 rows", |b| {
        b.iter(|| black_box(painter.last_rows(1000)))
    });
    group.finish();
}

criterion_group!(benches, paint, look);
criterion_main!(benches);
