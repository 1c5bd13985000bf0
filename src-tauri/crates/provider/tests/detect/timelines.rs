//! How recordings are read, moment by moment. The table was looked through by a person: a change in it is a change of
//! what a screen means. Recordings that are about turns rather than screens need not stand in it.

use std::collections::BTreeMap;

use crate::player::{Read, all_read, shown};

/// Recordings in the table, at least.
const RECORDINGS_MIN: usize = 90;

const TABLE: &str = include_str!("timelines.txt");

/// The lines of each recording in the table: seconds and reading.
fn table() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut table: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if line.starts_with(' ') {
            table.entry(name).or_default().push(line.trim());
        } else {
            name = line;
            let earlier = table.insert(name, Vec::new());
            assert!(earlier.is_none(), "{name} stands in the table twice");
        }
    }
    table
}

#[test]
fn recordings_are_read_as_the_table_says() {
    let table = table();
    let mut wrong = String::new();
    for Read { name, changes } in all_read() {
        let lines: Vec<String> = changes
            .iter()
            .map(|(at_ms, reading)| format!("{}.{:03} {}", at_ms / 1_000, at_ms % 1_000, shown(reading)))
            .collect();
        if table
            .get(name.as_str())
            .is_some_and(|expected| *expected != lines)
        {
            wrong.push_str(&format!("{name}\n  {}\n", lines.join("\n  ")));
        }
    }
    assert!(
        wrong.is_empty(),
        "the table says otherwise; it is read now as:\n{wrong}"
    );
}

#[test]
fn the_table_names_no_recording_that_is_gone() {
    let table = table();
    let gone: Vec<&&str> = table
        .keys()
        .filter(|name| !all_read().iter().any(|read| read.name == **name))
        .collect();
    assert!(gone.is_empty(), "{gone:?}");
    assert!(
        table.len() >= RECORDINGS_MIN,
        "only {} recordings stand in the table",
        table.len()
    );
}

#[test]
fn nothing_is_busy_before_anybody_asked_for_anything() {
    for Read { name, changes } in all_read() {
        let first = changes
            .iter()
            .find(|(_, reading)| reading.meaning.name() != "unclear");
        let (_, first) = first.unwrap_or_else(|| panic!("{name} shows nothing that is known"));
        assert_ne!(first.meaning.name(), "busy", "{name}");
    }
}
