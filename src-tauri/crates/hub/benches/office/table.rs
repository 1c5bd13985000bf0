//! Shares of sorted times, and lines of tables.

use std::time::Duration;

/// Times that were measured.
#[derive(Debug, Default, Clone)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub fn extend(&mut self, other: &Times) {
        self.0.extend(&other.0);
    }

    /// The time that this share of all does not exceed, in milliseconds.
    pub fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let place = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
        sorted
            .get(place)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// A line of a table in Markdown.
pub fn line(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// The head of a table.
pub fn head(cells: &[&str]) {
    println!("| {} |", cells.join(" | "));
    println!("|{}", "---|".repeat(cells.len()));
}

pub fn ms(time: f64) -> String {
    format!("{time:.1}")
}
