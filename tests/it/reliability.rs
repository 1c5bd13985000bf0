//! The table of docs/RELIABILITY.md names tests: each must be there, so that it never claims what nothing shows. And
//! the steps at which a story may kill our programs must be in no program that users get.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use harness::claude::workspace;
use regex::Regex;

/// Where tests are.
const FOLDERS: &[&str] = &["tests/it", "src-tauri/crates"];

static NAMED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"`([\w/]+\.rs)::(\w+)`").expect("a valid pattern"));

/// The tests that `text` names and that are not in `sources` (path and text of each).
fn missing(text: &str, sources: &[(PathBuf, String)]) -> Vec<String> {
    let named = NAMED.captures_iter(text);
    let is_there = |file: &str, name: &str| {
        let defined = format!("fn {name}(");
        sources
            .iter()
            .any(|(path, text)| path.ends_with(Path::new(file)) && text.contains(&defined))
    };
    named
        .filter(|found| !is_there(&found[1], &found[2]))
        .map(|found| found[0].to_owned())
        .collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut folders: Vec<PathBuf> = FOLDERS.iter().map(|folder| workspace().join(folder)).collect();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the workspace").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((path, text));
            }
        }
    }
    found
}

#[test]
fn every_test_that_the_table_names_is_there() {
    let table = fs::read_to_string(workspace().join("docs/RELIABILITY.md")).expect("the table");
    assert!(NAMED.find_iter(&table).count() > 50, "the table names its tests");
    let missing = missing(&table, &sources());
    assert!(missing.is_empty(), "no such test:\n{}", missing.join("\n"));
}

#[test]
fn a_test_that_is_not_there_is_seen() {
    let sources = [(PathBuf::from("tests/it/a.rs"), "async fn b() {}".to_owned())];
    assert_eq!(
        missing("`a.rs::b` and `it/a.rs::b`", &sources),
        Vec::<String>::new()
    );
    assert_eq!(missing("`a.rs::c`", &sources), ["`a.rs::c`"]);
    assert_eq!(missing("`b.rs::b`", &sources), ["`b.rs::b`"]);
}

#[test]
fn no_step_at_which_a_story_may_kill_it_is_in_a_program_that_users_get() {
    for package in ["cli", "app", "terminal"] {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--edges", "features", "--package", package])
            .args(["--invert", "fail"])
            .current_dir(workspace())
            .output()
            .expect("cargo runs");
        let tree = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(tree.contains("fail feature \"default\""), "{package}: {tree}");
        assert!(!tree.contains("feature \"failpoints\""), "{package}: {tree}");
    }
}
