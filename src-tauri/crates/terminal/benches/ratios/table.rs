//! Figures and what they are held against.

use std::time::Duration;

/// Rounds of each comparison; the sides take turns within one round, and the median counts.
pub const ROUNDS: usize = 5;

/// How a figure is judged.
#[derive(Clone, Copy)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
}

pub struct Table {
    missed: usize,
}

impl Table {
    pub fn new() -> Table {
        println!("| # | what | measured | target | |\n|---|---|---|---|---|");
        Table { missed: 0 }
    }

    pub fn row(&mut self, number: &str, what: &str, measured: f64, target: Target) {
        let (met, target) = match target {
            Target::AtLeast(limit) => (measured >= limit, format!("≥ {limit}")),
            Target::AtMost(limit) => (measured <= limit, format!("≤ {limit}")),
        };
        self.missed += usize::from(!met);
        let verdict = if met { "met" } else { "**missed**" };
        println!(
            "| {number} | {what} | {} | {target} | {verdict} |",
            shown(measured)
        );
    }

    /// A figure without a target.
    pub fn note(&self, number: &str, what: &str, measured: &str) {
        println!("| {number} | {what} | {measured} | | |");
    }

    pub fn skipped(&self, number: &str, what: &str, why: &str) {
        println!("| {number} | {what} | skipped: {why} | | |");
    }

    pub fn end(self) {
        println!("\n{} missed", self.missed);
    }
}

fn shown(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn percentile(values: &mut [f64], per_cent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() * per_cent / 100).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// Processor time of this thread.
pub fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

/// Processor time of a whole process, its ended children not counted.
pub fn process_cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

pub fn own_cpu() -> Duration {
    process_cpu(std::process::id())
}

/// Resident memory of this process, in KiB.
pub fn resident_kib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
