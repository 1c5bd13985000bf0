//! The process tree below a terminal, read from the kernel's list of processes.
//!
//! Children of agents put themselves into sessions and groups of their own, and outlive their parents: a group kill
//! reaches none of them. A process belongs to a terminal when one of its parents does, or when the terminal's tag
//! is in its environment. A pid alone is not an identity, because pids come again: the start time goes with it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// Environment variable that carries a terminal's tag to all descendants of its program.
pub const TREE_TAG_VARIABLE: &str = "SEMO_TERMINAL";
/// Environment variable of a holder that says which terminal it holds. Not [`TREE_TAG_VARIABLE`]: a holder is not a
/// part of the tree that is ended.
pub(crate) const HOLDER_TAG_VARIABLE: &str = "SEMO_HOLDER_OF";
/// Most bytes of a process's environment that are searched for the tag.
const ENVIRON_BYTES_MAX: u64 = 1024 * 1024;

/// Parents that are followed upwards at most.
const PARENTS_MAX: usize = 128;

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid.
    pub pid: u32,
    /// When it started, in clock ticks since boot; 0 when unknown.
    pub start_ticks: u64,
}

/// One line of the kernel's list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed {
    pub(crate) id: ProcessId,
    parent: u32,
    /// Ended, but not yet collected by its parent.
    dead: bool,
}

/// The identity of a process that runs now.
pub(crate) fn identify(pid: u32) -> ProcessId {
    read_stat(pid).map_or(ProcessId { pid, start_ticks: 0 }, |listed| listed.id)
}

/// Whether this very process runs now; one that has ended and was not collected yet does not.
pub(crate) fn lives(process: ProcessId) -> bool {
    read_stat(process.pid).is_some_and(|listed| listed.id == process && !listed.dead)
}

/// Adds to `known` every living process of the tree, and returns those that live now. `known` holds the root (and
/// whatever was found before). Everything below `above` belongs to the tree, but not that process itself: a holder, to
/// which comes back whatever has left its parents.
pub(crate) fn living_tree(
    known: &mut HashSet<ProcessId>,
    tag: &str,
    above: Option<ProcessId>,
) -> io::Result<Vec<ProcessId>> {
    let listed = list()?;
    // A known process that is gone has no children any more: whoever has its pid now is somebody else.
    let now: HashMap<u32, ProcessId> = listed
        .iter()
        .map(|process| (process.id.pid, process.id))
        .collect();
    loop {
        let before = known.len();
        for process in &listed {
            if now
                .get(&process.parent)
                .is_some_and(|parent| known.contains(parent) || Some(*parent) == above)
            {
                known.insert(process.id);
            }
        }
        if known.len() == before {
            break;
        }
    }
    let own = std::process::id();
    for process in &listed {
        if process.id.pid != own && !known.contains(&process.id) && has_tag(process.id.pid, tag) {
            known.insert(process.id);
        }
    }
    Ok(listed
        .iter()
        .filter(|process| !process.dead && process.id.pid != own && known.contains(&process.id))
        .map(|process| process.id)
        .collect())
}

/// The living processes that belong to one of `tags`, their holders among them, each with its tag: by its own
/// environment, else by that of its nearest parent that carries one.
pub(crate) fn by_tag<'a>(listed: &'a [Listed], tags: &'a [String]) -> Vec<(&'a Listed, &'a str)> {
    let own = std::process::id();
    let by_pid: HashMap<u32, &Listed> = listed.iter().map(|process| (process.id.pid, process)).collect();
    let mut of: HashMap<u32, &str> = HashMap::new();
    for process in listed.iter().filter(|process| process.id.pid != own) {
        let variables = [TREE_TAG_VARIABLE, HOLDER_TAG_VARIABLE];
        let tag = variable_of(process.id.pid, &variables);
        if let Some(tag) = tag.and_then(|tag| tags.iter().find(|its| **its == tag)) {
            of.insert(process.id.pid, tag);
        }
    }
    let nearest = |process: &Listed| {
        let mut pid = process.id.pid;
        // A list read while processes come and go could hold a circle.
        for _ in 0..PARENTS_MAX {
            if let Some(tag) = of.get(&pid) {
                return Some(*tag);
            }
            pid = by_pid.get(&pid)?.parent;
        }
        None
    };
    let living = listed
        .iter()
        .filter(|process| !process.dead && process.id.pid != own);
    living
        .filter_map(|process| Some((process, nearest(process)?)))
        .collect()
}

pub(crate) fn list() -> io::Result<Vec<Listed>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        // A process may end between the listing and the reading.
        if let Some(listed) = name
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(read_stat)
        {
            all.push(listed);
        }
    }
    Ok(all)
}

fn read_stat(pid: u32) -> Option<Listed> {
    parse_stat(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// `pid (name) state ppid … starttime …`; the name may hold anything, brackets and blanks too.
fn parse_stat(pid: u32, stat: &[u8]) -> Option<Listed> {
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Listed {
        id: ProcessId {
            pid,
            start_ticks: fields.get(19)?.parse().ok()?,
        },
        parent: fields.get(1)?.parse().ok()?,
        dead: matches!(*fields.first()?, "Z" | "X" | "x"),
    })
}

fn has_tag(pid: u32, tag: &str) -> bool {
    variable_of(pid, &[TREE_TAG_VARIABLE]).is_some_and(|its| its == tag)
}

/// The value of the first of these variables in a process's environment.
fn variable_of(pid: u32, names: &[&str]) -> Option<String> {
    use std::io::Read;
    let mut environ = Vec::new();
    // Processes of other users cannot be read, and are none of ours.
    fs::File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(ENVIRON_BYTES_MAX).read_to_end(&mut environ))
        .ok()?;
    environ
        .split(|byte| *byte == 0)
        .filter_map(|entry| names.iter().find_map(|name| entry.strip_prefix(name.as_bytes())))
        .find_map(|rest| rest.strip_prefix(b"="))
        .map(|tag| String::from_utf8_lossy(tag).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_process_name_does_not_shift_the_fields() {
        let stat = b"42 (a) S 1 (b) Z) S 7 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        let listed = parse_stat(42, stat).unwrap();
        assert_eq!(
            (listed.parent, listed.id.start_ticks, listed.dead),
            (7, 987_654, false)
        );
        assert!(parse_stat(42, b"42 (x").is_none());
    }

    #[test]
    fn we_know_ourselves() {
        assert!(identify(std::process::id()).start_ticks > 0);
    }
}
