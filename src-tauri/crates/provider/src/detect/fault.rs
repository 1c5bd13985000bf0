//! What is wrong with a manifest or a pattern that somebody wrote, said so that they can put it right.

use std::path::PathBuf;

/// Something in a manifest or in an office's settings that cannot be used. What worked before stays in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", place(.file.as_deref(), *.line, .key))]
pub struct DetectorFault {
    /// The file; none for settings of the office.
    pub file: Option<PathBuf>,
    /// The line in it, from 1.
    pub line: Option<usize>,
    /// The key or section, such as `rule "busy"` or `error_patterns[2]`.
    pub key: String,
    /// What is wrong, and what would be right.
    pub what: String,
}

fn place(file: Option<&std::path::Path>, line: Option<usize>, key: &str) -> String {
    let mut place = file.map(|file| file.display().to_string()).unwrap_or_default();
    if let Some(line) = line {
        place.push_str(&format!(":{line}"));
    }
    if !key.is_empty() {
        let open = if place.is_empty() { "" } else { ", " };
        place.push_str(&format!("{open}{key}"));
    }
    place
}
