//! The house rules that a compiler does not check, over `cargo metadata` and the text of every source file. Each rule
//! is a pure function with a planted breach as its test, so that a rule that sees nothing is noticed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use harness::claude::workspace;
use regex::Regex;
use serde_json::{Value, json};

/// The floors of docs/ARCHITECTURE.md. Arrows point down: a crate may only depend on crates of lower floors.
const FLOORS: &[(&str, u8)] = &[
    ("domain", 0),
    ("terminal", 1),
    ("worktree", 1),
    ("journal", 1),
    ("supabase", 2),
    ("provider", 3),
    ("hub", 3),
    ("session", 4),
    ("client", 5),
    ("api", 6),
    ("cli", 7),
    ("app", 8),
];

/// Libraries that only some crates may know, by the beginning of their names; dev-dependencies are free but for Tauri.
const CONFINED: &[(&str, &[&str])] = &[
    ("tauri", &["app"]),
    ("axum", &["api", "hub"]),
    ("rusqlite", &["journal"]),
    ("libsqlite3", &["journal"]),
    ("tokio-postgres", &["hub"]),
    ("deadpool-postgres", &["hub"]),
    ("portable-pty", &["terminal"]),
    ("alacritty_terminal", &["terminal"]),
    ("vt100", &["terminal"]),
    ("postgrest", &["supabase"]),
    ("keyring", &["supabase"]),
    ("zbus-secret-service", &["supabase"]),
    ("axum-server", &["hub"]),
    ("prometheus-client", &["hub"]),
];

/// The crates that may start processes.
const STARTERS: &[&str] = &["terminal", "worktree", "hub"];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "helper", "helpers", "common", "core", "misc", "shared", "manager", "service",
    "services",
];

/// Most lines of a source file.
const LINES_MAX: usize = 800;

/// Most packages in `Cargo.lock`. It can be raised; we only want to know when a dependency brings fifty others.
const PACKAGES_MAX: usize = 740;

/// Folders that hold nothing written by us.
const SKIPPED_FOLDERS: &[&str] = &[
    ".git",
    ".tools",
    "artifacts",
    "dist",
    "gen",
    "icons",
    "node_modules",
    "recordings",
    "target",
];

// --- the rules ---------------------------------------------------------------------------------------------------

/// Faults in the dependencies of the workspace's packages.
fn faulty_arrows(metadata: &Value) -> Vec<String> {
    let floors: BTreeMap<&str, u8> = FLOORS.iter().copied().collect();
    let mut faults = Vec::new();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    for package in packages.filter(|package| package["name"] != "tests") {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(floor) = floors.get(name) else {
            faults.push(format!(
                "{name} has no floor: add it to FLOORS and to docs/ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            let is_dev = dependency["kind"] == "dev";
            if floors.get(on).is_some_and(|below| below >= floor) {
                faults.push(format!(
                    "{name} (floor {floor}) must not depend on {on}: arrows point down"
                ));
            }
            for (library, owners) in CONFINED {
                let free = is_dev && *library != "tauri";
                if on.starts_with(library) && !owners.contains(&name) && !free {
                    faults.push(format!(
                        "{name} must not know {on}: only {} may",
                        owners.join(", ")
                    ));
                }
            }
        }
    }
    faults
}

/// Faults in one file. `path` is relative to the workspace, with `/`.
fn faults_in(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |what: String| faults.push(format!("{path}: {what}"));
    let is = |ending: &str| path.ends_with(ending);
    let is_code = is(".rs") || is(".ts") || is(".svelte") || is(".mjs") || is(".js");
    let is_generated = path.contains("generated");

    let lines = text.lines().count();
    if is_code && !is_generated && lines > LINES_MAX {
        fault(format!(
            "{lines} lines; split it by reason to change (at most {LINES_MAX})"
        ));
    }
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        if is_code && UNFINISHED.is_match(line) {
            fault(format!(
                "line {number}: unfinished work is an issue, not a comment: {}",
                line.trim()
            ));
        }
        if MACHINE_PATH.is_match(line) {
            fault(format!(
                "line {number}: a path of somebody's machine: {}",
                line.trim()
            ));
        }
        if is_code && SWITCHED_OFF.is_match(line) {
            fault(format!(
                "line {number}: a test that does not run: {}",
                line.trim()
            ));
        }
    }
    if is(".rs") {
        rust_faults(path, text, &mut fault);
    }
    if path.starts_with("ui/src/") && !path.starts_with("ui/src/backend/") {
        if text.contains("@tauri-apps") {
            fault("only ui/src/backend may import Tauri".to_owned());
        }
        if TALKS_TO_CORE.is_match(text) {
            fault("only ui/src/backend may talk to the core".to_owned());
        }
    }
    faults
}

fn rust_faults(path: &str, text: &str, fault: &mut impl FnMut(String)) {
    if !text.starts_with("//!") && !path.ends_with("build.rs") {
        fault("it does not say what it is for: begin with `//!`".to_owned());
    }
    let owner = path
        .strip_prefix("src-tauri/crates/")
        .and_then(|rest| rest.split('/').next());
    let product = path.starts_with("src-tauri/") && path.contains("/src/");
    if product && !owner.is_some_and(|owner| STARTERS.contains(&owner)) && STARTS_PROCESS.is_match(text) {
        fault(format!("it starts a process: only {} may", STARTERS.join(", ")));
    }
    for found in MODULE.captures_iter(text) {
        if EMPTY_NAMES.contains(&&found[1]) {
            fault(format!(
                "a module named `{}` says nothing: take a noun of the field",
                &found[1]
            ));
        }
    }
}

/// Migrations have consecutive numbers from 0001, so that two branches cannot both add one.
fn migration_faults(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    let wrong = |(index, name): (usize, &String)| {
        let expected = format!("{:04}_", index + 1);
        (!name.starts_with(&expected)).then(|| format!("{name} should begin with {expected}"))
    };
    names.iter().enumerate().filter_map(wrong).collect()
}

macro_rules! pattern {
    ($name:ident, $($part:expr),+) => {
        // In parts, so that this file does not match itself.
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new(concat!($($part),+)).expect("a valid pattern"));
    };
}
pattern!(
    UNFINISHED,
    r"\b(TO",
    r"DO|FIX",
    r"ME|XX",
    r"X|HA",
    r"CK)\b|un",
    r"implemented!|to",
    r"do!\("
);
pattern!(MACHINE_PATH, r"(^|[^\w.-])/(wo", r"rk|ro", r"ot)/");
pattern!(
    SWITCHED_OFF,
    r"#\[ig",
    r"nore|\b(test|it|describe)\.(skip|only|to",
    r"do|fails)\("
);
pattern!(
    STARTS_PROCESS,
    r"\bCommand::",
    r"new\(|\bstd::process::Command\b|\btokio::process\b"
);
pattern!(MODULE, r"(?m)^\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)");
pattern!(
    TALKS_TO_CORE,
    r"\bfetch\(|new\s+(?:WebSocket|EventSource|XMLHttpRequest)\("
);

// --- over the house ----------------------------------------------------------------------------------------------

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(workspace())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

fn sources() -> Vec<(String, String)> {
    let top = workspace();
    let mut folders = vec![top.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)
            .expect("a folder of the workspace")
            .flatten()
        {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            // Not followed: a link may lead out of the house.
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && !SKIPPED_FOLDERS.contains(&name.as_str()) {
                folders.push(path);
            } else if kind.is_file()
                && let Ok(text) = fs::read_to_string(&path)
            {
                found.push((relative(&top, &path), text));
            }
        }
    }
    found
}

fn relative(top: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(top).expect("inside the workspace");
    inside
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
}

fn assert_none(faults: Vec<String>) {
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn arrows_between_crates_point_down_and_libraries_stay_where_they_belong() {
    assert_none(faulty_arrows(&metadata()));
}

#[test]
fn every_source_file_keeps_the_house_rules() {
    let sources = sources();
    assert!(sources.len() > 50, "only {} files were found", sources.len());
    assert_none(
        sources
            .iter()
            .flat_map(|(path, text)| faults_in(path, text))
            .collect(),
    );
}

#[test]
fn migrations_are_numbered_without_a_gap() {
    for folder in ["migrations/local", "migrations/supabase"] {
        let names: Vec<String> = fs::read_dir(workspace().join(folder))
            .expect("a folder of migrations")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.ends_with(".sql"))
            .collect();
        assert!(!names.is_empty(), "{folder} is empty");
        assert_none(migration_faults(&names));
    }
}

#[test]
fn the_lock_file_stays_below_its_ceiling() {
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).expect("Cargo.lock is committed");
    let packages = lock.lines().filter(|line| *line == "[[package]]").count();
    assert!(
        packages <= PACKAGES_MAX,
        "{packages} packages, the ceiling is {PACKAGES_MAX}: raise it if the newest dependency is worth it"
    );
}

// --- each rule sees a breach -------------------------------------------------------------------------------------

#[test]
fn a_wrong_arrow_is_seen() {
    let check = |name: &str, on: &str, kind: Value, expected: bool| {
        let dependency = json!({ "name": on, "kind": kind });
        let metadata = json!({ "packages": [{ "name": name, "dependencies": [dependency] }] });
        let faults = faulty_arrows(&metadata);
        assert_eq!(
            faults.is_empty(),
            !expected,
            "{name} -> {on} ({kind}): {faults:?}"
        );
    };
    check("session", "provider", Value::Null, false);
    check("provider", "session", Value::Null, true);
    check("provider", "session", json!("dev"), true);
    check("terminal", "worktree", Value::Null, true);
    check("domain", "journal", Value::Null, true);
    check("app", "cli", Value::Null, false);
    check("cli", "app", Value::Null, true);
    check("newcomer", "serde", Value::Null, true);
    check("client", "axum", Value::Null, true);
    check("supabase", "axum", json!("dev"), false);
    check("api", "axum", Value::Null, false);
    check("api", "tauri", Value::Null, true);
    check("api", "tauri-plugin-shell", json!("dev"), true);
    check("client", "rusqlite", Value::Null, true);
    check("api", "tokio-postgres", Value::Null, true);
    check("tests", "tokio-postgres", Value::Null, false);
}

#[test]
fn a_breach_in_a_file_is_seen() {
    let check = |path: &str, text: &str, expected: Option<&str>| {
        let faults = faults_in(path, text).join("\n");
        match expected {
            Some(part) => assert!(
                faults.contains(part),
                "{path} should be told {part:?}, got {faults:?}"
            ),
            None => assert_eq!(faults, "", "{path} keeps the rules"),
        }
    };
    let rust = |body: &str| format!("//! About.\n{body}\n");
    let session = "src-tauri/crates/session/src/actor.rs";
    check(session, &rust("fn ok() {}"), None);
    check(session, "fn silent() {}\n", Some("begin with `//!`"));
    check(session, &rust(&"// x\n".repeat(800)), Some("802 lines"));
    check(
        "ui/src/views/Big.svelte",
        &"<p></p>\n".repeat(801),
        Some("801 lines"),
    );
    check("ui/src/backend/generated.ts", &"export {};\n".repeat(801), None);
    check(
        session,
        &rust(concat!("// TO", "DO later")),
        Some("unfinished work"),
    );
    check(session, &rust(concat!("to", "do!()")), Some("unfinished work"));
    check(
        "docs/NOTES.md",
        concat!("see /wo", "rk/notes"),
        Some("somebody's machine"),
    );
    check(
        "README.md",
        concat!("in `/ro", "ot/x`"),
        Some("somebody's machine"),
    );
    check(
        "README.md",
        concat!("a link ui/wo", "rk/x and https://x.org/wo", "rk/y"),
        None,
    );
    check(session, &rust(concat!("#[ig", "nore]")), Some("does not run"));
    check(
        "ui/tests/a.test.ts",
        concat!("it.sk", "ip('x')"),
        Some("does not run"),
    );
    check(
        session,
        &rust(concat!("Command::", "new(\"ls\")")),
        Some("starts a process"),
    );
    check(
        "src-tauri/src/main.rs",
        &rust(concat!("Command::", "new(\"ls\")")),
        Some("starts a process"),
    );
    check(
        "src-tauri/crates/hub/src/postgres/run.rs",
        &rust(concat!("Command::", "new(\"ls\")")),
        None,
    );
    check(
        "tests/it/story.rs",
        &rust(concat!("Command::", "new(\"ls\")")),
        None,
    );
    check(
        session,
        &rust("pub(crate) mod utils;"),
        Some("`utils` says nothing"),
    );
    check(
        "ui/src/views/A.svelte",
        "import { invoke } from '@tauri-apps/api/core'",
        Some("may import Tauri"),
    );
    check(
        "ui/src/backend/tauri.ts",
        "import { invoke } from '@tauri-apps/api/core'",
        None,
    );
    check(
        "ui/src/stores/a.ts",
        "await fetch(url)",
        Some("may talk to the core"),
    );
    check(
        "ui/src/backend/http.ts",
        "await fetch(url); new WebSocket(url)",
        None,
    );
}

#[test]
fn a_gap_in_the_migrations_is_seen() {
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_none(migration_faults(&names(&["0002_b.sql", "0001_a.sql"])));
    assert_eq!(migration_faults(&names(&["0001_a.sql", "0003_c.sql"])).len(), 1);
    assert_eq!(migration_faults(&names(&["0001_a.sql", "0001_b.sql"])).len(), 1);
}

#[test]
fn the_walk_over_the_house_finds_this_very_file() {
    let here = PathBuf::from("tests/it/tidy.rs");
    assert!(sources().iter().any(|(path, _)| Path::new(path) == here));
}
