//! How much memory the programs of terminals use, counted over their whole process trees.
//!
//! A program that shares its pages with its siblings (six sessions of one agent program do) would be counted six
//! times over by its resident size: the kernel's proportional size is taken where it can be read.

use std::collections::HashMap;
use std::fs;
use std::io;

use crate::error::TerminalError;
use crate::process::{self, Listed};

/// Memory of one process tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeMemory {
    /// Bytes in use.
    pub bytes: u64,
    /// How many processes the tree has now.
    pub processes: u32,
    /// How many of them could only be counted by their resident size, which takes shared pages in full.
    pub by_resident_size: u32,
}

/// The memory of the terminals with these tags, by tag; a tag of which nothing runs is not in the answer. One look at
/// the list of processes for all of them: call it every few seconds, not per session.
pub async fn memory_of(tags: Vec<String>) -> Result<HashMap<String, TreeMemory>, TerminalError> {
    // Adding up the pages of a large process takes milliseconds: not on a thread that serves others.
    tokio::task::spawn_blocking(move || measure(&tags))
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|source| TerminalError::Processes { source })
}

fn measure(tags: &[String]) -> io::Result<HashMap<String, TreeMemory>> {
    let listed = process::list()?;
    let mut memory: HashMap<String, TreeMemory> = HashMap::new();
    for (process, tag) in process::by_tag(&listed, tags) {
        let Some((bytes, exact)) = bytes_of(process) else {
            continue;
        };
        let tree = memory.entry(tag.to_owned()).or_default();
        tree.bytes += bytes;
        tree.processes += 1;
        tree.by_resident_size += u32::from(!exact);
    }
    Ok(memory)
}

/// Bytes, and whether they are the proportional size. `None` for a process that has gone meanwhile.
fn bytes_of(process: &Listed) -> Option<(u64, bool)> {
    let pid = process.id.pid;
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    if let Some(bytes) = rollup.ok().as_deref().and_then(proportional) {
        return Some((bytes, true));
    }
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((pages * rustix::param::page_size() as u64, false))
}

/// `Pss:   1234 kB`, and what of it has been swapped out.
fn proportional(rollup: &str) -> Option<u64> {
    let kib = |label: &str| -> Option<u64> {
        let rest = rollup.lines().find_map(|line| line.strip_prefix(label))?;
        rest.split_ascii_whitespace().next()?.parse().ok()
    };
    Some((kib("Pss:")? + kib("SwapPss:").unwrap_or(0)) * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proportional_size_is_read_and_swapped_pages_count() {
        let rollup = "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:     2000 kB\nPss:      700 kB\nPss_Anon: 1 kB\n\
                      SwapPss:   24 kB\n";
        assert_eq!(proportional(rollup), Some(724 * 1024));
        assert_eq!(proportional("Rss: 1 kB\n"), None);
    }
}
